"""The wire contract of `impression`: somebody has been shown a voucher."""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar

import msgspec

from counterfoil.events import rules as rule
from counterfoil.events.envelope import EnvelopeFields, Headers, Id, Opener, Time
from counterfoil.events.rules import Normalised, Rules
from counterfoil.events.writing import json_bytes, time_text


class Impression(msgspec.Struct, kw_only=True, frozen=True, gc=False):
    """A voucher was shown; a decoded one always has its timestamp, in UTC."""

    topic: ClassVar[str] = "impression"

    voucher_id: str
    impression_id: str | None = None
    timestamp: datetime = None  # type: ignore[assignment]  # absent only before Kafka has given it one

    @property
    def key(self) -> str:
        """The key of the Kafka record."""
        return self.voucher_id

    @property
    def identity(self) -> str | None:
        """What names this fact among those of its topic; None where only its record does."""
        return self.impression_id

    def to_json(self) -> bytes:
        """The value of the Kafka record; raises InvalidEvent for what cannot be written exactly."""
        return json_bytes(
            {
                "impression_id": self.impression_id,
                "voucher_id": self.voucher_id,
                "timestamp": time_text(self.timestamp, "timestamp"),
            }
        )


class _Wire(EnvelopeFields, gc=False):
    # the usual fields first, in the usual order: the decoder looks for a key from the last one on
    impression_id: Id = None
    voucher_id: Id = None
    timestamp: Time = None
    id: Id = None
    created_at: Time = None
    impression_id_camel: Id = msgspec.field(name="impressionId", default=None)
    voucher_id_camel: Id = msgspec.field(name="voucherId", default=None)
    created_at_camel: Time = msgspec.field(name="createdAt", default=None)


_opener = Opener(
    Impression.topic, _Wire, own_ids=("impression_id", "impressionId", "voucher_id", "voucherId")
)


def decode_impression(value: bytes | None, headers: Headers, timestamp_ms: int, rules: Rules) -> Impression:
    """The event in a record, checked and normalised; raises InvalidEvent with the first rule it breaks.

    `timestamp_ms` is the record's own timestamp in epoch milliseconds, negative when it has none.
    """
    changed: list[str] = []
    normalised = changed.append
    wire, sent_at, _ = _opener.open(value, headers, rules.max_event_bytes, normalised)
    impression = Impression(
        voucher_id=(
            rule.identity(wire.voucher_id, "voucher_id", normalised) or _other_voucher_id(wire, normalised)
        ),
        impression_id=(
            rule.identity(wire.impression_id, "impression_id", normalised)
            or _other_impression_id(wire, normalised)
        ),
        timestamp=(
            _other_time(wire, sent_at, timestamp_ms, normalised)
            if wire.timestamp is None
            else rule.event_time(wire.timestamp, "timestamp", timestamp_ms, normalised)
        ),
    )
    for field in changed:
        rules.normalised(field)
    return impression


def _other_voucher_id(wire: _Wire, normalised: Normalised) -> str:
    voucher_id = rule.identity(wire.voucher_id_camel, "voucher_id", normalised, "voucherId")
    return rule.required(voucher_id, "voucher_id")


def _other_impression_id(wire: _Wire, normalised: Normalised) -> str | None:
    others = (("impressionId", wire.impression_id_camel), ("id", wire.id))
    return rule.first_identity(others, "impression_id", normalised)


def _other_time(wire: _Wire, sent_at: object, timestamp_ms: int, normalised: Normalised) -> datetime:
    others = (("created_at", wire.created_at), ("createdAt", wire.created_at_camel))
    return rule.occurred_at(others, sent_at, timestamp_ms, normalised)
