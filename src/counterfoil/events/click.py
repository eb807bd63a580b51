"""The wire contract of `click`: somebody has followed an affiliate's link."""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar, Final

import msgspec

from counterfoil.events import rules as rule
from counterfoil.events.envelope import EnvelopeFields, Headers, Id, Opener, Time
from counterfoil.events.rules import MAX_URL, Normalised, Rules
from counterfoil.events.writing import json_bytes, time_text

MAX_USER_AGENT: Final = 1_024


class Click(msgspec.Struct, kw_only=True, frozen=True, gc=False):
    """A click on an affiliate's pixel; a decoded one always has its timestamp, in UTC.

    `ip_address` is the whole address in its canonical text: what of it is kept is decided by whoever keeps it.
    """

    topic: ClassVar[str] = "click"

    pixel_id: str
    click_id: str | None = None
    ip_address: str | None = None
    user_agent: str | None = None
    referrer: str | None = None
    landing_page: str | None = None
    link_id: str | None = None
    timestamp: datetime = None  # type: ignore[assignment]  # absent only before Kafka has given it one

    @property
    def key(self) -> str:
        """The key of the Kafka record."""
        return self.pixel_id

    @property
    def identity(self) -> str | None:
        """What names this fact among those of its topic; None where only its record does."""
        return self.click_id

    def to_json(self) -> bytes:
        """The value of the Kafka record; raises InvalidEvent for what cannot be written exactly."""
        return json_bytes(
            {
                "click_id": self.click_id,
                "pixel_id": self.pixel_id,
                "ip_address": self.ip_address,
                "user_agent": self.user_agent,
                "referrer": self.referrer,
                "landing_page": self.landing_page,
                "link_id": self.link_id,
                "timestamp": time_text(self.timestamp, "timestamp"),
            }
        )


class _Wire(EnvelopeFields, gc=False):
    # the usual fields first, in the usual order: the decoder looks for a key from the last one on
    click_id: Id = None
    pixel_id: Id = None
    ip_address: str | None = None
    user_agent: str | None = None
    referrer: str | None = None
    landing_page: str | None = None
    link_id: Id = None
    timestamp: Time = None
    id: Id = None
    clicked_at: Time = None
    created_at: Time = None
    click_id_camel: Id = msgspec.field(name="clickId", default=None)
    pixel_id_camel: Id = msgspec.field(name="pixelId", default=None)
    ip_address_camel: str | None = msgspec.field(name="ipAddress", default=None)
    user_agent_camel: str | None = msgspec.field(name="userAgent", default=None)
    landing_page_camel: str | None = msgspec.field(name="landingPage", default=None)
    link_id_camel: Id = msgspec.field(name="linkId", default=None)
    clicked_at_camel: Time = msgspec.field(name="clickedAt", default=None)
    created_at_camel: Time = msgspec.field(name="createdAt", default=None)


_opener = Opener(
    Click.topic, _Wire, own_ids=("click_id", "clickId", "pixel_id", "pixelId", "link_id", "linkId")
)


def decode_click(value: bytes | None, headers: Headers, timestamp_ms: int, rules: Rules) -> Click:
    """The event in a record, checked and normalised; raises InvalidEvent with the first rule it breaks.

    `timestamp_ms` is the record's own timestamp in epoch milliseconds, negative when it has none.
    """
    changed: list[str] = []
    normalised = changed.append
    wire, sent_at, source = _opener.open(value, headers, rules.max_event_bytes, normalised)
    # Only the usual fields are read here; the others are rare, and asking for each of them has a price.
    plain = type(source) is bytes and rule.is_plain(source)  # else each text is looked through by itself
    user_agent, referrer, landing_page = wire.user_agent, wire.referrer, wire.landing_page
    if not (plain and user_agent and len(user_agent) <= MAX_USER_AGENT):
        user_agent = _user_agent(wire, normalised)
    if referrer is not None and not (plain and referrer and len(referrer) <= MAX_URL):
        referrer = rule.free_text(referrer, "referrer", normalised, limit=MAX_URL)
    if not (plain and landing_page and len(landing_page) <= MAX_URL):
        landing_page = _landing_page(wire, normalised)
    click = Click(
        pixel_id=rule.identity(wire.pixel_id, "pixel_id", normalised) or _other_pixel_id(wire, normalised),
        click_id=rule.identity(wire.click_id, "click_id", normalised) or _other_click_id(wire, normalised),
        ip_address=(
            rule.ip_address(wire.ip_address_camel, "ip_address", normalised, "ipAddress")
            if wire.ip_address is None
            else rule.ip_address(wire.ip_address, "ip_address", normalised)
        ),
        user_agent=user_agent,
        referrer=referrer,
        landing_page=landing_page,
        link_id=(
            None
            if wire.link_id is None and wire.link_id_camel is None
            else rule.first_identity(
                (("link_id", wire.link_id), ("linkId", wire.link_id_camel)), "link_id", normalised
            )
        ),
        timestamp=(
            _other_time(wire, sent_at, timestamp_ms, normalised)
            if wire.timestamp is None
            else rule.event_time(wire.timestamp, "timestamp", timestamp_ms, normalised)
        ),
    )
    for field in changed:
        rules.normalised(field)
    return click


def _other_pixel_id(wire: _Wire, normalised: Normalised) -> str:
    pixel_id = rule.identity(wire.pixel_id_camel, "pixel_id", normalised, "pixelId")
    if pixel_id is None:
        raise rule.missing("pixel_id")
    return pixel_id


def _other_click_id(wire: _Wire, normalised: Normalised) -> str | None:
    others = (("clickId", wire.click_id_camel), ("id", wire.id))
    return rule.first_identity(others, "click_id", normalised)


def _user_agent(wire: _Wire, normalised: Normalised) -> str | None:
    found = (("user_agent", wire.user_agent), ("userAgent", wire.user_agent_camel))
    return rule.first_free_text(found, "user_agent", normalised, MAX_USER_AGENT)


def _landing_page(wire: _Wire, normalised: Normalised) -> str | None:
    found = (("landing_page", wire.landing_page), ("landingPage", wire.landing_page_camel))
    return rule.first_free_text(found, "landing_page", normalised, MAX_URL)


def _other_time(wire: _Wire, sent_at: object, timestamp_ms: int, normalised: Normalised) -> datetime:
    others = (
        ("clicked_at", wire.clicked_at),
        ("clickedAt", wire.clicked_at_camel),
        ("created_at", wire.created_at),
        ("createdAt", wire.created_at_camel),
    )
    return rule.occurred_at(others, sent_at, timestamp_ms, normalised)
