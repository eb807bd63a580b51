"""The wire contract of `claim`: a customer has put a voucher into their wallet."""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar

import msgspec

from counterfoil.events import rules as rule
from counterfoil.events.envelope import EnvelopeFields, Headers, Id, Object, Opener, Time
from counterfoil.events.objects import EMPTY_OBJECT, canonical_text
from counterfoil.events.rules import Normalised, Rules
from counterfoil.events.writing import details_json, json_bytes, time_text


class Claim(msgspec.Struct, kw_only=True, frozen=True, gc=False):
    """A customer's claim to a voucher; a decoded one always has its timestamp, in UTC.

    `metadata` is JSON, canonical in a decoded one; who publishes may give a dict as well.
    """

    topic: ClassVar[str] = "claim"

    voucher_id: str
    customer_id: str
    metadata: str = EMPTY_OBJECT
    timestamp: datetime = None  # type: ignore[assignment]  # absent only before Kafka has given it one

    @property
    def key(self) -> str:
        """The key of the Kafka record."""
        return self.voucher_id

    @property
    def identity(self) -> str:
        """What names this fact among those of its topic."""
        return f"{self.voucher_id}:{self.customer_id}"

    def to_json(self) -> bytes:
        """The value of the Kafka record; raises InvalidEvent for what cannot be written exactly."""
        return json_bytes(
            {
                "voucher_id": self.voucher_id,
                "customer_id": self.customer_id,
                "metadata": details_json(self.metadata, "metadata"),
                "timestamp": time_text(self.timestamp, "timestamp"),
            }
        )


class _Wire(EnvelopeFields, gc=False):
    voucher_id: Id = None
    voucher_id_camel: Id = msgspec.field(name="voucherId", default=None)
    customer_id: Id = None
    customer_id_camel: Id = msgspec.field(name="customerId", default=None)
    metadata: Object = None
    timestamp: Time = None
    claimed_at: Time = None
    claimed_at_camel: Time = msgspec.field(name="claimedAt", default=None)
    created_at: Time = None
    created_at_camel: Time = msgspec.field(name="createdAt", default=None)


_opener = Opener(Claim.topic, _Wire, own_ids=("voucher_id", "voucherId"))


def decode_claim(value: bytes | None, headers: Headers, timestamp_ms: int, rules: Rules) -> Claim:
    """The event in a record, checked and normalised; raises InvalidEvent with the first rule it breaks.

    `timestamp_ms` is the record's own timestamp in epoch milliseconds, negative when it has none.
    """
    changed: list[str] = []
    normalised = changed.append
    wire, sent_at, _ = _opener.open(value, headers, rules.max_event_bytes, normalised)
    vouchers = (("voucher_id", wire.voucher_id), ("voucherId", wire.voucher_id_camel))
    customers = (("customer_id", wire.customer_id), ("customerId", wire.customer_id_camel))
    claim = Claim(
        voucher_id=rule.required(rule.first_identity(vouchers, "voucher_id", normalised), "voucher_id"),
        customer_id=rule.required(rule.first_identity(customers, "customer_id", normalised), "customer_id"),
        metadata=canonical_text(wire.metadata, "metadata", normalised) or EMPTY_OBJECT,
        timestamp=_time(wire, sent_at, timestamp_ms, normalised),
    )
    for field in changed:
        rules.normalised(field)
    return claim


def _time(wire: _Wire, sent_at: object, timestamp_ms: int, normalised: Normalised) -> datetime:
    times = (
        ("timestamp", wire.timestamp),
        ("claimed_at", wire.claimed_at),
        ("claimedAt", wire.claimed_at_camel),
        ("created_at", wire.created_at),
        ("createdAt", wire.created_at_camel),
    )
    return rule.occurred_at(times, sent_at, timestamp_ms, normalised)
