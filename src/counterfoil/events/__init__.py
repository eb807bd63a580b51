"""The events of the topics: typed, checked by one set of input rules, and written the way they are read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from counterfoil.events.envelope import Headers
from counterfoil.events.order_canceled import OrderCanceled, decode_order_canceled
from counterfoil.events.order_placed import OrderPlaced, Promotion, decode_order_placed
from counterfoil.events.rules import Rules
from counterfoil.settings import CodeCase

Event = OrderPlaced | OrderCanceled

Decode = Callable[[bytes | None, Headers, int, Rules], Event]
"""(value, headers, the record's timestamp in epoch milliseconds, rules) → event, or raises InvalidEvent."""


class EventType(NamedTuple):
    """How the events of one topic are made and read."""

    event: type[OrderPlaced] | type[OrderCanceled]
    decode: Decode


EVENT_TYPES: Final[dict[str, EventType]] = {
    OrderPlaced.topic: EventType(OrderPlaced, decode_order_placed),
    OrderCanceled.topic: EventType(OrderCanceled, decode_order_canceled),
}
"""Default topic name → its event type."""

__all__ = [
    "EVENT_TYPES",
    "CodeCase",
    "Decode",
    "Event",
    "EventType",
    "Headers",
    "OrderCanceled",
    "OrderPlaced",
    "Promotion",
    "Rules",
    "decode_order_canceled",
    "decode_order_placed",
]
