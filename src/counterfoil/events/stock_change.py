"""The wire contract of `stock-change`: the stock of a SKU was counted, or has moved by some pieces."""

from __future__ import annotations

import re
from datetime import datetime
from decimal import Decimal
from typing import ClassVar, Final

import msgspec

from counterfoil.errors import InvalidEvent
from counterfoil.events import rules as rule
from counterfoil.events.envelope import EnvelopeFields, Headers, Id, Money, Object, Opener, Time
from counterfoil.events.objects import EMPTY_OBJECT, canonical_text
from counterfoil.events.rules import MAX_CHARACTERS, MISSING_FIELD, Normalised, Rules
from counterfoil.events.whole_numbers import COUNTS, Whole, first_whole_number, whole_number
from counterfoil.events.words import first_small_word
from counterfoil.events.writing import details_json, json_bytes, money_text, time_text

CHANGE: Final = "change"
"""The type of an event that names none."""

_EVENT_TYPE = re.compile(r"[a-z][a-z0-9_]{0,49}").fullmatch


class StockChange(msgspec.Struct, kw_only=True, frozen=True, gc=False):
    """A SKU's new stock, or by how much it has changed; a decoded one always has its timestamp, in UTC.

    One with both stocks always has their difference as its delta, which may be beyond int4. `metadata` is JSON,
    canonical in a decoded one; who publishes may give a dict as well.
    """

    topic: ClassVar[str] = "stock-change"

    sku: str
    event_id: str | None = None
    event_type: str = CHANGE
    old_stock: int | None = None
    new_stock: int | None = None
    quantity_delta: int | None = None
    metadata: str = EMPTY_OBJECT
    name: str | None = None
    threshold: int | None = None
    unit_price: Decimal | None = None
    supplier: str | None = None
    timestamp: datetime = None  # type: ignore[assignment]  # absent only before Kafka has given it one

    @property
    def key(self) -> str:
        """The key of the Kafka record."""
        return self.sku

    @property
    def identity(self) -> str | None:
        """What names this fact among those of its topic; None where only its record does."""
        return self.event_id

    def to_json(self) -> bytes:
        """The value of the Kafka record; raises InvalidEvent for what cannot be written exactly."""
        follows = self.old_stock is not None and self.new_stock is not None
        return json_bytes(
            {
                "event_id": self.event_id,
                "sku": self.sku,
                "event_type": self.event_type,
                "old_stock": self.old_stock,
                "new_stock": self.new_stock,
                "quantity_delta": None if follows else self.quantity_delta,
                "metadata": details_json(self.metadata, "metadata"),
                "name": self.name,
                "threshold": self.threshold,
                "unit_price": money_text(self.unit_price, "unit_price"),
                "supplier": self.supplier,
                "timestamp": time_text(self.timestamp, "timestamp"),
            }
        )


class _Wire(EnvelopeFields, gc=False):  # the `name` of an envelope is the product's here
    event_id: Id = None
    event_id_camel: Id = msgspec.field(name="eventId", default=None)
    id: Id = None
    sku: Id = None
    event_type: str | None = None
    event_type_camel: str | None = msgspec.field(name="eventType", default=None)
    old_stock: Whole = None
    old_stock_camel: Whole = msgspec.field(name="oldStock", default=None)
    new_stock: Whole = None
    new_stock_camel: Whole = msgspec.field(name="newStock", default=None)
    quantity_delta: Whole = None
    quantity_delta_camel: Whole = msgspec.field(name="quantityDelta", default=None)
    metadata: Object = None
    threshold: Whole = None
    unit_price: Money = None
    unit_price_camel: Money = msgspec.field(name="unitPrice", default=None)
    supplier: str | None = None
    timestamp: Time = None
    occurred_at: Time = None
    occurred_at_camel: Time = msgspec.field(name="occurredAt", default=None)
    created_at: Time = None
    created_at_camel: Time = msgspec.field(name="createdAt", default=None)


_opener = Opener(StockChange.topic, _Wire, own_ids=("sku",))  # a bus may number its messages with event ids


def decode_stock_change(
    value: bytes | None, headers: Headers, timestamp_ms: int, rules: Rules
) -> StockChange:
    """The event in a record, checked and normalised; raises InvalidEvent with the first rule it breaks.

    `timestamp_ms` is the record's own timestamp in epoch milliseconds, negative when it has none.
    """
    changed: list[str] = []
    normalised = changed.append
    wire, sent_at, _ = _opener.open(value, headers, rules.max_event_bytes, normalised)
    events = (("event_id", wire.event_id), ("eventId", wire.event_id_camel), ("id", wire.id))
    sku = rule.required(rule.identity(wire.sku, "sku", normalised), "sku")
    old_stock, new_stock, quantity_delta = _stocks(wire, normalised)
    change = StockChange(
        sku=sku,
        event_id=rule.first_identity(events, "event_id", normalised),
        event_type=_event_type(wire, normalised),
        old_stock=old_stock,
        new_stock=new_stock,
        quantity_delta=quantity_delta,
        metadata=canonical_text(wire.metadata, "metadata", normalised) or EMPTY_OBJECT,
        name=rule.free_text(wire.name, "name", normalised, limit=MAX_CHARACTERS),
        threshold=whole_number(wire.threshold, "threshold", normalised, span=COUNTS),
        unit_price=_unit_price(wire, normalised),
        supplier=rule.free_text(wire.supplier, "supplier", normalised, limit=MAX_CHARACTERS),
        timestamp=_time(wire, sent_at, timestamp_ms, normalised),
    )
    for field in changed:
        rules.normalised(field)
    return change


def _event_type(wire: _Wire, normalised: Normalised) -> str:
    found = first_small_word(
        (("event_type", wire.event_type), ("eventType", wire.event_type_camel)), "event_type", normalised
    )
    if found is None:
        normalised("event_type")
        return CHANGE
    path, event_type = found
    if not _EVENT_TYPE(event_type):
        raise rule.invalid(path, "must be a letter and at most 49 letters, digits or underscores")
    return event_type


def _stocks(wire: _Wire, normalised: Normalised) -> tuple[int | None, int | None, int | None]:
    """The old stock, the new stock and the delta; the delta follows from the two where both are known."""
    olds = (("old_stock", wire.old_stock), ("oldStock", wire.old_stock_camel))
    news = (("new_stock", wire.new_stock), ("newStock", wire.new_stock_camel))
    deltas = (("quantity_delta", wire.quantity_delta), ("quantityDelta", wire.quantity_delta_camel))
    old = first_whole_number(olds, "old_stock", normalised)
    new = first_whole_number(news, "new_stock", normalised)
    delta = first_whole_number(deltas, "quantity_delta", normalised)
    if new is None and delta is None:
        raise InvalidEvent(MISSING_FIELD, "new_stock", "is required, or quantity_delta")
    if old is None or new is None:
        return old, new, delta
    if delta not in {None, new - old}:
        normalised("quantity_delta")
    return old, new, new - old


def _unit_price(wire: _Wire, normalised: Normalised) -> Decimal | None:
    if wire.unit_price is None:
        return rule.money(wire.unit_price_camel, "unit_price", normalised, "unitPrice")
    return rule.money(wire.unit_price, "unit_price", normalised)


def _time(wire: _Wire, sent_at: object, timestamp_ms: int, normalised: Normalised) -> datetime:
    times = (
        ("timestamp", wire.timestamp),
        ("occurred_at", wire.occurred_at),
        ("occurredAt", wire.occurred_at_camel),
        ("created_at", wire.created_at),
        ("createdAt", wire.created_at_camel),
    )
    return rule.occurred_at(times, sent_at, timestamp_ms, normalised)
