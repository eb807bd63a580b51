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
from counterfoil.events.low_stock import LowStock, decode_low_stock
from counterfoil.events.order_canceled import OrderCanceled, decode_order_canceled
from counterfoil.events.order_placed import OrderPlaced, Promotion, decode_order_placed
from counterfoil.events.order_refunded import OrderRefunded, decode_order_refunded
from counterfoil.events.redemption import Redemption, decode_redemption
from counterfoil.events.rules import Rules
from counterfoil.events.scan import Scan, decode_scan
from counterfoil.events.stock_change import StockChange, decode_stock_change
from counterfoil.events.user_created import UserCreated, decode_user_created
from counterfoil.events.voucher_alert import VoucherAlert, decode_voucher_alert
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
    | StockChange
)

Decode = Callable[[bytes | None, Headers, int, Rules], Event]
"""(value, headers, the record's timestamp in epoch milliseconds, rules) → event, or raises InvalidEvent."""

AlertEvent = LowStock | VoucherAlert
"""What is read from the topics that we publish to."""

DecodeAlert = Callable[[bytes | None, Headers, int, Rules], AlertEvent]


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
    StockChange.topic: EventType(StockChange, decode_stock_change),
}
"""Default topic name → its event type."""

ALERT_DECODERS: Final[dict[str, DecodeAlert]] = {
    VoucherAlert.topic: decode_voucher_alert,
    LowStock.topic: decode_low_stock,
}
"""Default name of an outgoing topic → how its alerts are read; a worker's ingest reads none of them."""

__all__ = [
    "ALERT_DECODERS",
    "EVENT_TYPES",
    "AlertEvent",
    "Claim",
    "Click",
    "CodeCase",
    "Conversion",
    "Decode",
    "DecodeAlert",
    "Event",
    "EventType",
    "Headers",
    "Impression",
    "LinkCreated",
    "LowStock",
    "OrderCanceled",
    "OrderPlaced",
    "OrderRefunded",
    "Promotion",
    "Redemption",
    "Rules",
    "Scan",
    "StockChange",
    "UserCreated",
    "VoucherAlert",
    "VoucherCreated",
    "decode_claim",
    "decode_click",
    "decode_conversion",
    "decode_impression",
    "decode_link_created",
    "decode_low_stock",
    "decode_order_canceled",
    "decode_order_placed",
    "decode_order_refunded",
    "decode_redemption",
    "decode_scan",
    "decode_stock_change",
    "decode_user_created",
    "decode_voucher_alert",
    "decode_voucher_created",
]
