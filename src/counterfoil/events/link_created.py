"""The wire contract of `link.created`: somebody has a link to a page of a program."""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar

import msgspec

from counterfoil.events import rules as rule
from counterfoil.events.envelope import EnvelopeFields, Headers, Id, Opener, Time
from counterfoil.events.rules import Rules
from counterfoil.events.writing import json_bytes, time_text


class LinkCreated(msgspec.Struct, kw_only=True, frozen=True, gc=False):
    """A link to a page, and whose it is; a decoded one always has its timestamp, in UTC.

    The address of a decoded one names http or https, and a host.
    """

    topic: ClassVar[str] = "link.created"

    link_id: str
    url: str
    user_id: str | None = None
    partner_id: str | None = None
    pixel_id: str | None = None
    timestamp: datetime = None  # type: ignore[assignment]  # absent only before Kafka has given it one

    @property
    def key(self) -> str:
        """The key of the Kafka record."""
        return self.link_id

    @property
    def identity(self) -> str:
        """What names this fact among those of its topic."""
        return self.link_id

    def to_json(self) -> bytes:
        """The value of the Kafka record; raises InvalidEvent for what cannot be written exactly."""
        return json_bytes(
            {
                "link_id": self.link_id,
                "url": self.url,
                "user_id": self.user_id,
                "partner_id": self.partner_id,
                "pixel_id": self.pixel_id,
                "timestamp": time_text(self.timestamp, "timestamp"),
            }
        )


class _Wire(EnvelopeFields, gc=False):
    link_id: Id = None
    link_id_camel: Id = msgspec.field(name="linkId", default=None)
    id: Id = None
    url: str | None = None
    user_id: Id = None
    user_id_camel: Id = msgspec.field(name="userId", default=None)
    partner_id: Id = None
    partner_id_camel: Id = msgspec.field(name="partnerId", default=None)
    pixel_id: Id = None
    pixel_id_camel: Id = msgspec.field(name="pixelId", default=None)
    timestamp: Time = None
    created_at: Time = None
    created_at_camel: Time = msgspec.field(name="createdAt", default=None)


_opener = Opener(LinkCreated.topic, _Wire, own_ids=("link_id", "linkId"))


def decode_link_created(
    value: bytes | None, headers: Headers, timestamp_ms: int, rules: Rules
) -> LinkCreated:
    """The event in a record, checked and normalised; raises InvalidEvent with the first rule it breaks.

    `timestamp_ms` is the record's own timestamp in epoch milliseconds, negative when it has none.
    """
    changed: list[str] = []
    normalised = changed.append
    wire, sent_at, _ = _opener.open(value, headers, rules.max_event_bytes, normalised)
    links = (("link_id", wire.link_id), ("linkId", wire.link_id_camel), ("id", wire.id))
    users = (("user_id", wire.user_id), ("userId", wire.user_id_camel))
    partners = (("partner_id", wire.partner_id), ("partnerId", wire.partner_id_camel))
    pixels = (("pixel_id", wire.pixel_id), ("pixelId", wire.pixel_id_camel))
    times = (
        ("timestamp", wire.timestamp),
        ("created_at", wire.created_at),
        ("createdAt", wire.created_at_camel),
    )
    link = LinkCreated(
        link_id=rule.required(rule.first_identity(links, "link_id", normalised), "link_id"),
        url=rule.required(rule.url(wire.url, "url", normalised), "url"),
        user_id=rule.first_identity(users, "user_id", normalised),
        partner_id=rule.first_identity(partners, "partner_id", normalised),
        pixel_id=rule.first_identity(pixels, "pixel_id", normalised),
        timestamp=rule.occurred_at(times, sent_at, timestamp_ms, normalised),
    )
    for field in changed:
        rules.normalised(field)
    return link
