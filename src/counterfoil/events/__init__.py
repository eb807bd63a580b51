"""The events of the topics: typed, checked by one set of input rules, and written the way they are read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from counterfoil.events.click import Click, decode_click
from counterfoil.events.conversion import Conversion, decode_conversion
from counterfoil.events.envelope import Headers
from counterfoil.events.link_created import LinkCreated, decode_link_created
from counterfoil.events.order_canceled import OrderCanceled, decode_order_canceled
from counterfoil.events.order_placed import OrderPlaced, Promotion, decode_order_placed
from counterfoil.events.order_refunded import OrderRefunded, decode_order_refunded
from counterfoil.events.rules import Rules
from counterfoil.events.user_created import UserCreated, decode_user_created
from counterfoil.settings import CodeCase

Event = OrderPlaced | OrderCanceled | OrderRefunded | Click | Conversion | UserCreated | LinkCreated

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
}
"""Default topic name → its event type."""

__all__ = [
    "EVENT_TYPES",
    "Click",
    "CodeCase",
    "Conversion",
    "Decode",
    "Event",
    "EventType",
    "Headers",
    "LinkCreated",
    "OrderCanceled",
    "OrderPlaced",
    "OrderRefunded",
    "Promotion",
    "Rules",
    "UserCreated",
    "decode_click",
    "decode_conversion",
    "decode_link_created",
    "decode_order_canceled",
    "decode_order_placed",
    "decode_order_refunded",
    "decode_user_created",
]
