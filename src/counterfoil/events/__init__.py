"""The events of the topics: typed, checked by one set of input rules, and written the way they are read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from counterfoil.events.claim import Claim, decode_claim
from counterfoil.events.click import Click, decode_click
from counterfoil.events.conversion import Conversion, decode_conversion
from counterfoil.events.envelope import Headers
from counterfoil.events.impression import Impression, decode_impression
from counterfoil.events.link_created import LinkCreated, decode_link_created
from counterfoil.events.order_canceled import OrderCanceled, decode_order_canceled
from counterfoil.events.order_placed import OrderPlaced, Promotion, decode_order_placed
from counterfoil.events.order_refunded import OrderRefunded, decode_order_refunded
from counterfoil.events.redemption import Redemption, decode_redemption
from counterfoil.events.rules import Rules
from counterfoil.events.scan import Scan, decode_scan
from counterfoil.events.user_created import UserCreated, decode_user_created
from counterfoil.events.voucher_created import VoucherCreated, decode_voucher_created
from counterfoil.settings import CodeCase

Event = (
    OrderPlaced
    | OrderCanceled
    | OrderRefunded
    | Click
    | Conversion
    | UserCreated
    | LinkCreated
    | VoucherCreated
    | Impression
    | Scan
    | Claim
    | Redemption
)

Decode = Callable[[bytes | None, Headers, int, Rules], Event]
"""(value, headers, the record's timestamp in epoch milliseconds, rules) → event, or raises InvalidEvent."""


class EventType(NamedTuple):
    """How the events of one topic are made and read."""

    event: type[Event]
    decode: Decode


EVENT_TYPES: Final[dict[str, EventType]] = {
    OrderPlaced.topic: EventType(OrderPlaced, decode_order_placed),
    OrderCanceled.topic: EventType(OrderCanceled, decode_order_canceled),
    OrderRefunded.topic: EventType(OrderRefunded, decode_order_refunded),
    Click.topic: EventType(Click, decode_click),
    Conversion.topic: EventType(Conversion, decode_conversion),
    UserCreated.topic: EventType(UserCreated, decode_user_created),
    LinkCreated.topic: EventType(LinkCreated, decode_link_created),
    VoucherCreated.topic: EventType(VoucherCreated, decode_voucher_created),
    Impression.topic: EventType(Impression, decode_impression),
    Scan.topic: EventType(Scan, decode_scan),
    Claim.topic: EventType(Claim, decode_claim),
    Redemption.topic: EventType(Redemption, decode_redemption),
}
"""Default topic name → its event type."""

__all__ = [
    "EVENT_TYPES",
    "Claim",
    "Click",
    "CodeCase",
    "Conversion",
    "Decode",
    "Event",
    "EventType",
    "Headers",
    "Impression",
    "LinkCreated",
    "OrderCanceled",
    "OrderPlaced",
    "OrderRefunded",
    "Promotion",
    "Redemption",
    "Rules",
    "Scan",
    "UserCreated",
    "VoucherCreated",
    "decode_claim",
    "decode_click",
    "decode_conversion",
    "decode_impression",
    "decode_link_created",
    "decode_order_canceled",
    "decode_order_placed",
    "decode_order_refunded",
    "decode_redemption",
    "decode_scan",
    "decode_user_created",
    "decode_voucher_created",
]
