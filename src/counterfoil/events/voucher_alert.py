"""The wire contract of `voucher-alert`, which we publish: something about a voucher's figures is odd."""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar, Final

import msgspec

from counterfoil.events import rules as rule
from counterfoil.events.envelope import EnvelopeFields, Headers, Id, Opener, Time
from counterfoil.events.rules import Normalised, Number, Rules
from counterfoil.events.whole_numbers import LARGE_COUNTS, Whole, whole_number
from counterfoil.events.words import one_small_word_of
from counterfoil.events.writing import json_bytes, time_text

VOUCHER_ALERT_KINDS: Final = ("scan-rate", "low-conversion", "failed-redemptions")

_LARGEST = 2**53
"""Up to here a float says each integer exactly."""


class VoucherAlert(msgspec.Struct, kw_only=True, frozen=True, gc=False):
    """An alert about a voucher, of which each repetition has the same id; a decoded one has its time in UTC.

    `window` is in seconds. Of a device or an address, `voucher_id` is the voucher that it scanned most. `scans` and
    `claims` are what the value of a `low-conversion` was made of.
    """

    topic: ClassVar[str] = "voucher-alert"

    alert_id: str
    kind: str
    voucher_id: str
    value: float
    limit: float
    window: int
    device: str | None = None
    address: str | None = None
    scans: int | None = None
    claims: int | None = None
    occurred_at: datetime

    @property
    def key(self) -> str:
        """The key of the Kafka record."""
        return self.voucher_id

    @property
    def identity(self) -> str:
        """What names this alert among those of its topic."""
        return self.alert_id

    def to_json(self) -> bytes:
        """The value of the Kafka record; raises InvalidEvent for what cannot be written exactly."""
        whose = {"device": self.device, "address": self.address}
        subject = {kind: name for kind, name in whose.items() if name is not None}
        return json_bytes(
            {
                "alert_id": self.alert_id,
                "kind": self.kind,
                "voucher_id": self.voucher_id,
                "value": self.value,
                "limit": self.limit,
                "window": self.window,
                "subject": subject or None,
                "scans": self.scans,
                "claims": self.claims,
                "occurred_at": time_text(self.occurred_at, "occurred_at"),
            }
        )


class _Wire(EnvelopeFields, gc=False):
    alert_id: Id = None
    alert_id_camel: Id = msgspec.field(name="alertId", default=None)
    kind: str | None = None
    voucher_id: Id = None
    voucher_id_camel: Id = msgspec.field(name="voucherId", default=None)
    value: Any = None  # untyped, as whole numbers are
    limit: Any = None
    window: Whole = None
    subject: Any = None
    scans: Whole = None
    claims: Whole = None
    occurred_at: Time = None
    occurred_at_camel: Time = msgspec.field(name="occurredAt", default=None)


_opener = Opener(VoucherAlert.topic, _Wire, own_ids=("alert_id", "alertId", "voucher_id", "voucherId"))


def decode_voucher_alert(
    value: bytes | None, headers: Headers, timestamp_ms: int, rules: Rules
) -> VoucherAlert:
    """The alert in a record, checked and normalised; raises InvalidEvent with the first rule it breaks.

    `timestamp_ms` is the record's own timestamp in epoch milliseconds, negative when it has none.
    """
    changed: list[str] = []
    normalised = changed.append
    wire, sent_at, _ = _opener.open(value, headers, rules.max_event_bytes, normalised)
    alerts = (("alert_id", wire.alert_id), ("alertId", wire.alert_id_camel))
    vouchers = (("voucher_id", wire.voucher_id), ("voucherId", wire.voucher_id_camel))
    kind = one_small_word_of(wire.kind, "kind", VOUCHER_ALERT_KINDS, normalised)
    device, address = _subject(wire.subject, normalised)
    alert = VoucherAlert(
        alert_id=rule.required(rule.first_identity(alerts, "alert_id", normalised), "alert_id"),
        kind=rule.required(kind, "kind"),
        voucher_id=rule.required(rule.first_identity(vouchers, "voucher_id", normalised), "voucher_id"),
        value=_figure(wire.value, "value"),
        limit=_figure(wire.limit, "limit"),
        window=rule.required(_count(wire.window, "window", normalised), "window"),
        device=device,
        address=address,
        scans=_count(wire.scans, "scans", normalised),
        claims=_count(wire.claims, "claims", normalised),
        occurred_at=_time(wire, sent_at, timestamp_ms, normalised),
    )
    for field in changed:
        rules.normalised(field)
    return alert


def _figure(value: object, field: str) -> float:
    """A number that may be a share: an integer stays one."""
    if value is None:
        raise rule.missing(field)
    # A zero is added since the negative one is not 0 when it is written.
    found = float(value.literal) + 0.0 if type(value) is Number else value
    if type(found) not in {int, float} or not 0 <= found <= _LARGEST:  # type: ignore[operator]  # a number now
        raise rule.invalid(field, "must be a number from 0 to 2^53")
    return found  # type: ignore[return-value]


def _count(value: object, field: str, normalised: Normalised) -> int | None:
    return whole_number(value, field, normalised, span=LARGE_COUNTS)


def _subject(value: object, normalised: Normalised) -> tuple[str | None, str | None]:
    """The device or the address that it is about, where it is not the voucher."""
    if value is None:
        return None, None
    if not isinstance(value, dict):
        raise rule.invalid("subject", "must be an object")
    device = rule.free_text(value.get("device"), "subject", normalised, "subject.device")
    address = rule.free_text(value.get("address"), "subject", normalised, "subject.address")
    return device, address


def _time(wire: _Wire, sent_at: object, timestamp_ms: int, normalised: Normalised) -> datetime:
    """However late it is: an alert isn't lost to a clock that is wrong."""
    times = (("occurred_at", wire.occurred_at), ("occurredAt", wire.occurred_at_camel))
    told = rule.first_time(times, "occurred_at", normalised)
    return told or rule.occurred_at((), sent_at, timestamp_ms, normalised)
