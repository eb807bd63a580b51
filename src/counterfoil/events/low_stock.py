"""The wire contract of `low-stock`, which we publish: a SKU has less in stock than its threshold, or enough again."""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar, Final

import msgspec

from counterfoil.events import rules as rule
from counterfoil.events.envelope import EnvelopeFields, Headers, Id, Opener, Time
from counterfoil.events.rules import MAX_CHARACTERS, Normalised, Rules
from counterfoil.events.whole_numbers import COUNTS, INT8, Whole, first_whole_number, whole_number
from counterfoil.events.words import one_small_word_of
from counterfoil.events.writing import json_bytes, time_text

LOW: Final = "low"
RECOVERED: Final = "recovered"


class LowStock(msgspec.Struct, kw_only=True, frozen=True, gc=False):
    """An alert about a SKU's stock, of which each repetition has the same id; a decoded one has its time in UTC.

    `name` is the SKU where the product has no name. `previous_stock` is what it was before the last change, if known.
    """

    topic: ClassVar[str] = "low-stock"

    alert_id: str
    sku: str
    name: str
    stock: int
    threshold: int
    previous_stock: int | None = None
    kind: str = LOW
    occurred_at: datetime

    @property
    def key(self) -> str:
        """The key of the Kafka record."""
        return self.sku

    @property
    def identity(self) -> str:
        """What names this alert among those of its topic."""
        return self.alert_id

    def to_json(self) -> bytes:
        """The value of the Kafka record; raises InvalidEvent for what cannot be written exactly."""
        return json_bytes(
            {
                "alert_id": self.alert_id,
                "sku": self.sku,
                "name": self.name,
                "stock": self.stock,
                "threshold": self.threshold,
                "previous_stock": self.previous_stock,
                "kind": self.kind,
                "occurred_at": time_text(self.occurred_at, "occurred_at"),
            }
        )


class _Wire(EnvelopeFields, gc=False):  # the `name` of an envelope is the product's here
    alert_id: Id = None
    alert_id_camel: Id = msgspec.field(name="alertId", default=None)
    sku: Id = None
    stock: Whole = None
    threshold: Whole = None
    previous_stock: Whole = None
    previous_stock_camel: Whole = msgspec.field(name="previousStock", default=None)
    kind: str | None = None
    occurred_at: Time = None
    occurred_at_camel: Time = msgspec.field(name="occurredAt", default=None)


_opener = Opener(LowStock.topic, _Wire, own_ids=("alert_id", "alertId", "sku"))


def decode_low_stock(value: bytes | None, headers: Headers, timestamp_ms: int, rules: Rules) -> LowStock:
    """The alert in a record, checked and normalised; raises InvalidEvent with the first rule it breaks.

    `timestamp_ms` is the record's own timestamp in epoch milliseconds, negative when it has none.
    """
    changed: list[str] = []
    normalised = changed.append
    wire, sent_at, _ = _opener.open(value, headers, rules.max_event_bytes, normalised)
    alerts = (("alert_id", wire.alert_id), ("alertId", wire.alert_id_camel))
    before = (("previous_stock", wire.previous_stock), ("previousStock", wire.previous_stock_camel))
    alert_id = rule.required(rule.first_identity(alerts, "alert_id", normalised), "alert_id")
    sku = rule.required(rule.identity(wire.sku, "sku", normalised), "sku")
    alert = LowStock(
        alert_id=alert_id,
        sku=sku,
        name=rule.free_text(wire.name, "name", normalised, limit=MAX_CHARACTERS) or sku,
        stock=rule.required(whole_number(wire.stock, "stock", normalised, span=INT8), "stock"),
        threshold=rule.required(
            whole_number(wire.threshold, "threshold", normalised, span=COUNTS), "threshold"
        ),
        previous_stock=first_whole_number(before, "previous_stock", normalised, INT8),
        kind=one_small_word_of(wire.kind, "kind", (LOW, RECOVERED), normalised) or LOW,
        occurred_at=_time(wire, sent_at, timestamp_ms, normalised),
    )
    for field in changed:
        rules.normalised(field)
    return alert


def _time(wire: _Wire, sent_at: object, timestamp_ms: int, normalised: Normalised) -> datetime:
    """However late it is: an alert isn't lost to a clock that is wrong."""
    times = (("occurred_at", wire.occurred_at), ("occurredAt", wire.occurred_at_camel))
    told = rule.first_time(times, "occurred_at", normalised)
    return told or rule.occurred_at((), sent_at, timestamp_ms, normalised)
