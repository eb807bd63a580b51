"""The wire contract of `scan`: somebody has scanned a voucher's code, or followed its link."""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar, Final

import msgspec

from counterfoil.events import rules as rule
from counterfoil.events.envelope import EnvelopeFields, Headers, Id, Object, Opener, Time
from counterfoil.events.objects import EMPTY_OBJECT, object_text
from counterfoil.events.rules import Normalised, Rules
from counterfoil.events.writing import details_json, json_bytes, object_json, time_text

MAX_USER_AGENT: Final = 1_024
SCAN_TYPES: Final = ("CUSTOMER", "BUSINESS")
SCAN_SOURCES: Final = ("CAMERA", "GALLERY", "LINK", "SHARE")


class Scan(msgspec.Struct, kw_only=True, frozen=True, gc=False):
    """A scan of a voucher; a decoded one always has its timestamp, in UTC.

    `ip_address` is the whole address in its canonical text: what of it is kept is decided by whoever keeps it.
    Its objects are JSON; who publishes may give dicts as well.
    """

    topic: ClassVar[str] = "scan"

    voucher_id: str
    scan_type: str
    scan_source: str
    scan_id: str | None = None
    user_id: str | None = None
    device_info: str = EMPTY_OBJECT
    location: str | None = None
    ip_address: str | None = None
    user_agent: str | None = None
    metadata: str = EMPTY_OBJECT
    timestamp: datetime = None  # type: ignore[assignment]  # absent only before Kafka has given it one

    @property
    def key(self) -> str:
        """The key of the Kafka record."""
        return self.voucher_id

    @property
    def identity(self) -> str | None:
        """What names this fact among those of its topic; None where only its record does."""
        return self.scan_id

    def to_json(self) -> bytes:
        """The value of the Kafka record; raises InvalidEvent for what cannot be written exactly."""
        return json_bytes(
            {
                "scan_id": self.scan_id,
                "voucher_id": self.voucher_id,
                "user_id": self.user_id,
                "scan_type": self.scan_type,
                "scan_source": self.scan_source,
                "device_info": details_json(self.device_info, "device_info"),
                "location": object_json(self.location, "location"),
                "ip_address": self.ip_address,
                "user_agent": self.user_agent,
                "metadata": details_json(self.metadata, "metadata"),
                "timestamp": time_text(self.timestamp, "timestamp"),
            }
        )


class _Wire(EnvelopeFields, gc=False):
    # the usual fields first, in the usual order: the decoder looks for a key from the last one on
    scan_id: Id = None
    voucher_id: Id = None
    user_id: Id = None
    scan_type: str | None = None
    scan_source: str | None = None
    device_info: Object = None
    location: Object = None
    ip_address: str | None = None
    user_agent: str | None = None
    metadata: Object = None
    timestamp: Time = None
    id: Id = None
    scanned_at: Time = None
    created_at: Time = None
    scan_id_camel: Id = msgspec.field(name="scanId", default=None)
    voucher_id_camel: Id = msgspec.field(name="voucherId", default=None)
    user_id_camel: Id = msgspec.field(name="userId", default=None)
    scan_type_camel: str | None = msgspec.field(name="scanType", default=None)
    scan_source_camel: str | None = msgspec.field(name="scanSource", default=None)
    device_info_camel: Object = msgspec.field(name="deviceInfo", default=None)
    ip_address_camel: str | None = msgspec.field(name="ipAddress", default=None)
    user_agent_camel: str | None = msgspec.field(name="userAgent", default=None)
    scanned_at_camel: Time = msgspec.field(name="scannedAt", default=None)
    created_at_camel: Time = msgspec.field(name="createdAt", default=None)


_opener = Opener(Scan.topic, _Wire, own_ids=("scan_id", "scanId", "voucher_id", "voucherId"))


def decode_scan(value: bytes | None, headers: Headers, timestamp_ms: int, rules: Rules) -> Scan:
    """The event in a record, checked and normalised; raises InvalidEvent with the first rule it breaks.

    `timestamp_ms` is the record's own timestamp in epoch milliseconds, negative when it has none.
    """
    changed: list[str] = []
    normalised = changed.append
    wire, sent_at, source = _opener.open(value, headers, rules.max_event_bytes, normalised)
    # Only the usual fields are read here; the others are rare, and asking for each of them has a price.
    user_agent = wire.user_agent
    plain = type(source) is bytes and rule.is_plain(source)  # else the text is looked through by itself
    if not (plain and user_agent and len(user_agent) <= MAX_USER_AGENT):
        user_agent = _user_agent(wire, normalised)
    scan = Scan(
        voucher_id=(
            rule.identity(wire.voucher_id, "voucher_id", normalised) or _other_voucher_id(wire, normalised)
        ),
        scan_type=wire.scan_type if wire.scan_type in SCAN_TYPES else _scan_type(wire, normalised),
        scan_source=wire.scan_source if wire.scan_source in SCAN_SOURCES else _scan_source(wire, normalised),
        scan_id=rule.identity(wire.scan_id, "scan_id", normalised) or _other_scan_id(wire, normalised),
        user_id=rule.identity(wire.user_id, "user_id", normalised) or _other_user_id(wire, normalised),
        device_info=(
            object_text(wire.device_info, "device_info", normalised) or _other_device_info(wire, normalised)
        ),
        location=object_text(wire.location, "location", normalised),
        ip_address=(
            rule.ip_address(wire.ip_address_camel, "ip_address", normalised, "ipAddress")
            if wire.ip_address is None
            else rule.ip_address(wire.ip_address, "ip_address", normalised)
        ),
        user_agent=user_agent,
        metadata=object_text(wire.metadata, "metadata", normalised) or EMPTY_OBJECT,
        timestamp=(
            _other_time(wire, sent_at, timestamp_ms, normalised)
            if wire.timestamp is None
            else rule.event_time(wire.timestamp, "timestamp", timestamp_ms, normalised)
        ),
    )
    for field in changed:
        rules.normalised(field)
    return scan


def _other_voucher_id(wire: _Wire, normalised: Normalised) -> str:
    voucher_id = rule.identity(wire.voucher_id_camel, "voucher_id", normalised, "voucherId")
    return rule.required(voucher_id, "voucher_id")


def _scan_type(wire: _Wire, normalised: Normalised) -> str:
    found = (("scan_type", wire.scan_type), ("scanType", wire.scan_type_camel))
    return rule.required(rule.first_one_of(found, "scan_type", SCAN_TYPES, normalised), "scan_type")


def _scan_source(wire: _Wire, normalised: Normalised) -> str:
    found = (("scan_source", wire.scan_source), ("scanSource", wire.scan_source_camel))
    return rule.required(rule.first_one_of(found, "scan_source", SCAN_SOURCES, normalised), "scan_source")


def _other_scan_id(wire: _Wire, normalised: Normalised) -> str | None:
    others = (("scanId", wire.scan_id_camel), ("id", wire.id))
    return rule.first_identity(others, "scan_id", normalised)


def _other_user_id(wire: _Wire, normalised: Normalised) -> str | None:
    return rule.identity(wire.user_id_camel, "user_id", normalised, "userId")


def _other_device_info(wire: _Wire, normalised: Normalised) -> str:
    return object_text(wire.device_info_camel, "device_info", normalised, "deviceInfo") or EMPTY_OBJECT


def _user_agent(wire: _Wire, normalised: Normalised) -> str | None:
    found = (("user_agent", wire.user_agent), ("userAgent", wire.user_agent_camel))
    return rule.first_free_text(found, "user_agent", normalised, MAX_USER_AGENT)


def _other_time(wire: _Wire, sent_at: object, timestamp_ms: int, normalised: Normalised) -> datetime:
    others = (
        ("scanned_at", wire.scanned_at),
        ("scannedAt", wire.scanned_at_camel),
        ("created_at", wire.created_at),
        ("createdAt", wire.created_at_camel),
    )
    return rule.occurred_at(others, sent_at, timestamp_ms, normalised)
