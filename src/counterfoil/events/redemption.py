"""The wire contract of `redemption`: somebody has tried to redeem a voucher, and it worked or did not."""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar

import msgspec

from counterfoil.events import rules as rule
from counterfoil.events.envelope import EnvelopeFields, Headers, Id, Object, Opener, Time
from counterfoil.events.objects import EMPTY_OBJECT, canonical_text, first_canonical_text
from counterfoil.events.rules import Normalised, Rules
from counterfoil.events.writing import details_json, json_bytes, object_json, time_text


class Redemption(msgspec.Struct, kw_only=True, frozen=True, gc=False):
    """An attempt to redeem a voucher at a business; a decoded one always has its timestamp, in UTC.

    Its objects are JSON, canonical in a decoded one; who publishes may give dicts as well.
    """

    topic: ClassVar[str] = "redemption"

    voucher_id: str
    business_id: str
    successful: bool
    attempt_id: str | None = None
    customer_id: str | None = None
    failure_reason: str | None = None
    device_info: str = EMPTY_OBJECT
    location: str | None = None
    metadata: str = EMPTY_OBJECT
    timestamp: datetime = None  # type: ignore[assignment]  # absent only before Kafka has given it one

    @property
    def key(self) -> str:
        """The key of the Kafka record."""
        return self.voucher_id

    @property
    def identity(self) -> str | None:
        """What names this fact among those of its topic; None where only its record does."""
        return self.attempt_id

    def to_json(self) -> bytes:
        """The value of the Kafka record; raises InvalidEvent for what cannot be written exactly."""
        return json_bytes(
            {
                "attempt_id": self.attempt_id,
                "voucher_id": self.voucher_id,
                "business_id": self.business_id,
                "customer_id": self.customer_id,
                "successful": self.successful,
                "failure_reason": self.failure_reason,
                "device_info": details_json(self.device_info, "device_info"),
                "location": object_json(self.location, "location"),
                "metadata": details_json(self.metadata, "metadata"),
                "timestamp": time_text(self.timestamp, "timestamp"),
            }
        )


class _Wire(EnvelopeFields, gc=False):
    attempt_id: Id = None
    attempt_id_camel: Id = msgspec.field(name="attemptId", default=None)
    id: Id = None
    voucher_id: Id = None
    voucher_id_camel: Id = msgspec.field(name="voucherId", default=None)
    business_id: Id = None
    business_id_camel: Id = msgspec.field(name="businessId", default=None)
    customer_id: Id = None
    customer_id_camel: Id = msgspec.field(name="customerId", default=None)
    successful: bool | None = None
    failure_reason: str | None = None
    failure_reason_camel: str | None = msgspec.field(name="failureReason", default=None)
    device_info: Object = None
    device_info_camel: Object = msgspec.field(name="deviceInfo", default=None)
    location: Object = None
    metadata: Object = None
    timestamp: Time = None
    attempted_at: Time = None
    attempted_at_camel: Time = msgspec.field(name="attemptedAt", default=None)
    redeemed_at: Time = None
    redeemed_at_camel: Time = msgspec.field(name="redeemedAt", default=None)
    created_at: Time = None
    created_at_camel: Time = msgspec.field(name="createdAt", default=None)


_opener = Opener(Redemption.topic, _Wire, own_ids=("attempt_id", "attemptId", "voucher_id", "voucherId"))


def decode_redemption(value: bytes | None, headers: Headers, timestamp_ms: int, rules: Rules) -> Redemption:
    """The event in a record, checked and normalised; raises InvalidEvent with the first rule it breaks.

    `timestamp_ms` is the record's own timestamp in epoch milliseconds, negative when it has none.
    """
    changed: list[str] = []
    normalised = changed.append
    wire, sent_at, _ = _opener.open(value, headers, rules.max_event_bytes, normalised)
    attempts = (("attempt_id", wire.attempt_id), ("attemptId", wire.attempt_id_camel), ("id", wire.id))
    vouchers = (("voucher_id", wire.voucher_id), ("voucherId", wire.voucher_id_camel))
    businesses = (("business_id", wire.business_id), ("businessId", wire.business_id_camel))
    customers = (("customer_id", wire.customer_id), ("customerId", wire.customer_id_camel))
    reasons = (("failure_reason", wire.failure_reason), ("failureReason", wire.failure_reason_camel))
    devices = (("device_info", wire.device_info), ("deviceInfo", wire.device_info_camel))
    redemption = Redemption(
        voucher_id=rule.required(rule.first_identity(vouchers, "voucher_id", normalised), "voucher_id"),
        business_id=rule.required(rule.first_identity(businesses, "business_id", normalised), "business_id"),
        successful=rule.required(rule.boolean(wire.successful, "successful"), "successful"),
        attempt_id=rule.first_identity(attempts, "attempt_id", normalised),
        customer_id=rule.first_identity(customers, "customer_id", normalised),
        failure_reason=rule.first_free_text(reasons, "failure_reason", normalised),
        device_info=first_canonical_text(devices, "device_info", normalised) or EMPTY_OBJECT,
        location=canonical_text(wire.location, "location", normalised),
        metadata=canonical_text(wire.metadata, "metadata", normalised) or EMPTY_OBJECT,
        timestamp=_time(wire, sent_at, timestamp_ms, normalised),
    )
    for field in changed:
        rules.normalised(field)
    return redemption


def _time(wire: _Wire, sent_at: object, timestamp_ms: int, normalised: Normalised) -> datetime:
    times = (
        ("timestamp", wire.timestamp),
        ("attempted_at", wire.attempted_at),
        ("attemptedAt", wire.attempted_at_camel),
        ("redeemed_at", wire.redeemed_at),
        ("redeemedAt", wire.redeemed_at_camel),
        ("created_at", wire.created_at),
        ("createdAt", wire.created_at_camel),
    )
    return rule.occurred_at(times, sent_at, timestamp_ms, normalised)
