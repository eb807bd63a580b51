"""The wire contract of `order.canceled`: an order is taken back, for good."""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar

import msgspec

from counterfoil.events import rules as rule
from counterfoil.events.envelope import EnvelopeFields, Headers, Id, Opener, Time
from counterfoil.events.rules import Rules
from counterfoil.events.writing import json_bytes, time_text


class OrderCanceled(msgspec.Struct, kw_only=True, frozen=True, gc=False):
    """An order that was canceled; a decoded one always has its timestamp, in UTC."""

    topic: ClassVar[str] = "order.canceled"

    order_id: str
    timestamp: datetime = None  # type: ignore[assignment]  # absent only before Kafka has given it one
    reason: str | None = None

    @property
    def key(self) -> str:
        """The key of the Kafka record."""
        return self.order_id

    @property
    def identity(self) -> str:
        """What names this fact among those of its topic."""
        return self.order_id

    def to_json(self) -> bytes:
        """The value of the Kafka record; raises InvalidEvent for what cannot be written exactly."""
        return json_bytes(
            {
                "order_id": self.order_id,
                "timestamp": time_text(self.timestamp, "timestamp"),
                "reason": self.reason,
            }
        )


class _Wire(EnvelopeFields, gc=False):
    order_id: Id = None
    order_id_camel: Id = msgspec.field(name="orderId", default=None)
    id: Id = None
    timestamp: Time = None
    canceled_at: Time = None
    canceled_at_camel: Time = msgspec.field(name="canceledAt", default=None)
    cancelled_at: Time = None
    cancelled_at_camel: Time = msgspec.field(name="cancelledAt", default=None)
    reason: str | None = None
    cancel_reason: str | None = None
    cancel_reason_camel: str | None = msgspec.field(name="cancelReason", default=None)


_opener = Opener(OrderCanceled.topic, _Wire, own_ids=("order_id", "orderId"))


def decode_order_canceled(
    value: bytes | None, headers: Headers, timestamp_ms: int, rules: Rules
) -> OrderCanceled:
    """The event in a record, checked and normalised; raises InvalidEvent with the first rule it breaks.

    `timestamp_ms` is the record's own timestamp in epoch milliseconds, negative when it has none.
    """
    changed: list[str] = []
    wire, sent_at, _ = _opener.open(value, headers, rules.max_event_bytes, changed.append)
    order_id = rule.first_identity(
        (("order_id", wire.order_id), ("orderId", wire.order_id_camel), ("id", wire.id)),
        "order_id",
        changed.append,
    )
    if order_id is None:
        raise rule.missing("order_id")
    times = (
        ("timestamp", wire.timestamp),
        ("canceled_at", wire.canceled_at),
        ("canceledAt", wire.canceled_at_camel),
        ("cancelled_at", wire.cancelled_at),
        ("cancelledAt", wire.cancelled_at_camel),
    )
    reasons = (
        ("reason", wire.reason),
        ("cancel_reason", wire.cancel_reason),
        ("cancelReason", wire.cancel_reason_camel),
    )
    event = OrderCanceled(
        order_id=order_id,
        timestamp=rule.occurred_at(times, sent_at, timestamp_ms, changed.append),
        reason=rule.first_free_text(reasons, "reason", changed.append),
    )
    for field in changed:
        rules.normalised(field)
    return event
