"""The wire contract of `voucher.created`: a business has issued a voucher."""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar

import msgspec

from counterfoil.events import rules as rule
from counterfoil.events.envelope import EnvelopeFields, Headers, Id, Opener, Time
from counterfoil.events.rules import Rules
from counterfoil.events.writing import json_bytes, time_text


class VoucherCreated(msgspec.Struct, kw_only=True, frozen=True, gc=False):
    """A voucher, whose it is and how long it is good; a decoded one always has its timestamp, in UTC."""

    topic: ClassVar[str] = "voucher.created"

    voucher_id: str
    business_id: str | None = None
    title: str | None = None
    expires_at: datetime | None = None
    timestamp: datetime = None  # type: ignore[assignment]  # absent only before Kafka has given it one

    @property
    def key(self) -> str:
        """The key of the Kafka record."""
        return self.voucher_id

    @property
    def identity(self) -> str:
        """What names this fact among those of its topic."""
        return self.voucher_id

    def to_json(self) -> bytes:
        """The value of the Kafka record; raises InvalidEvent for what cannot be written exactly."""
        return json_bytes(
            {
                "voucher_id": self.voucher_id,
                "business_id": self.business_id,
                "title": self.title,
                "expires_at": time_text(self.expires_at, "expires_at"),
                "timestamp": time_text(self.timestamp, "timestamp"),
            }
        )


class _Wire(EnvelopeFields, gc=False):
    voucher_id: Id = None
    voucher_id_camel: Id = msgspec.field(name="voucherId", default=None)
    id: Id = None
    business_id: Id = None
    business_id_camel: Id = msgspec.field(name="businessId", default=None)
    title: str | None = None
    expires_at: Time = None
    expires_at_camel: Time = msgspec.field(name="expiresAt", default=None)
    timestamp: Time = None
    created_at: Time = None
    created_at_camel: Time = msgspec.field(name="createdAt", default=None)


_opener = Opener(VoucherCreated.topic, _Wire, own_ids=("voucher_id", "voucherId"))


def decode_voucher_created(
    value: bytes | None, headers: Headers, timestamp_ms: int, rules: Rules
) -> VoucherCreated:
    """The event in a record, checked and normalised; raises InvalidEvent with the first rule it breaks.

    `timestamp_ms` is the record's own timestamp in epoch milliseconds, negative when it has none.
    """
    changed: list[str] = []
    normalised = changed.append
    wire, sent_at, _ = _opener.open(value, headers, rules.max_event_bytes, normalised)
    vouchers = (("voucher_id", wire.voucher_id), ("voucherId", wire.voucher_id_camel), ("id", wire.id))
    businesses = (("business_id", wire.business_id), ("businessId", wire.business_id_camel))
    ends = (("expires_at", wire.expires_at), ("expiresAt", wire.expires_at_camel))
    times = (
        ("timestamp", wire.timestamp),
        ("created_at", wire.created_at),
        ("createdAt", wire.created_at_camel),
    )
    voucher = VoucherCreated(
        voucher_id=rule.required(rule.first_identity(vouchers, "voucher_id", normalised), "voucher_id"),
        business_id=rule.first_identity(businesses, "business_id", normalised),
        title=rule.free_text(wire.title, "title", normalised),
        expires_at=rule.first_time(ends, "expires_at", normalised),
        timestamp=rule.occurred_at(times, sent_at, timestamp_ms, normalised),
    )
    for field in changed:
        rules.normalised(field)
    return voucher
