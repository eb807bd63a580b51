"""The wire contract of `conversion`: an order is claimed for a pixel or a link."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import ClassVar

import msgspec

from counterfoil.errors import InvalidEvent
from counterfoil.events import rules as rule
from counterfoil.events.envelope import EnvelopeFields, Headers, Id, Money, Opener, Time
from counterfoil.events.rules import MISSING_FIELD, Normalised, Rules
from counterfoil.events.writing import json_bytes, money_text, time_text


class Conversion(msgspec.Struct, kw_only=True, frozen=True, gc=False):
    """An order that somebody's pixel or link has brought.

    A decoded one names a pixel, a link or both, and always has its timestamp, in UTC, and a currency.
    """

    topic: ClassVar[str] = "conversion"

    order_id: str
    revenue: Decimal
    pixel_id: str | None = None
    link_id: str | None = None
    commission: Decimal | None = None
    currency: str = None  # type: ignore[assignment]  # absent only before it was read
    click_id: str | None = None
    timestamp: datetime = None  # type: ignore[assignment]  # absent only before Kafka has given it one

    @property
    def key(self) -> str:
        """The key of the Kafka record."""
        return self.order_id

    @property
    def identity(self) -> str:
        """What names this fact among those of its topic."""
        named = f"link:{self.link_id}" if self.pixel_id is None else f"pixel:{self.pixel_id}"
        return f"{self.order_id}:{named}"

    def to_json(self) -> bytes:
        """The value of the Kafka record; raises InvalidEvent for what cannot be written exactly."""
        return json_bytes(
            {
                "order_id": self.order_id,
                "pixel_id": self.pixel_id,
                "link_id": self.link_id,
                "revenue": money_text(self.revenue, "revenue"),
                "commission": money_text(self.commission, "commission"),
                "currency": self.currency,
                "click_id": self.click_id,
                "timestamp": time_text(self.timestamp, "timestamp"),
            }
        )


class _Wire(EnvelopeFields, gc=False):
    order_id: Id = None
    order_id_camel: Id = msgspec.field(name="orderId", default=None)
    pixel_id: Id = None
    pixel_id_camel: Id = msgspec.field(name="pixelId", default=None)
    link_id: Id = None
    link_id_camel: Id = msgspec.field(name="linkId", default=None)
    revenue: Money = None
    commission: Money = None
    currency: str | None = None
    currency_code: str | None = None
    currency_code_camel: str | None = msgspec.field(name="currencyCode", default=None)
    click_id: Id = None
    click_id_camel: Id = msgspec.field(name="clickId", default=None)
    timestamp: Time = None
    converted_at: Time = None
    converted_at_camel: Time = msgspec.field(name="convertedAt", default=None)
    created_at: Time = None
    created_at_camel: Time = msgspec.field(name="createdAt", default=None)


_opener = Opener(
    Conversion.topic,
    _Wire,
    own_ids=("order_id", "orderId", "pixel_id", "pixelId", "link_id", "linkId", "click_id", "clickId"),
)


def decode_conversion(value: bytes | None, headers: Headers, timestamp_ms: int, rules: Rules) -> Conversion:
    """The event in a record, checked and normalised; raises InvalidEvent with the first rule it breaks.

    `timestamp_ms` is the record's own timestamp in epoch milliseconds, negative when it has none.
    """
    changed: list[str] = []
    normalised = changed.append
    wire, sent_at, _ = _opener.open(value, headers, rules.max_event_bytes, normalised)
    orders = (("order_id", wire.order_id), ("orderId", wire.order_id_camel))
    clicks = (("click_id", wire.click_id), ("clickId", wire.click_id_camel))
    order_id = rule.required(rule.first_identity(orders, "order_id", normalised), "order_id")
    pixel_id, link_id = _named(wire, normalised)
    conversion = Conversion(
        order_id=order_id,
        pixel_id=pixel_id,
        link_id=link_id,
        revenue=rule.required(rule.money(wire.revenue, "revenue", normalised), "revenue"),
        commission=rule.money(wire.commission, "commission", normalised),
        currency=_currency(wire, normalised) or rules.default_currency,
        click_id=rule.first_identity(clicks, "click_id", normalised),
        timestamp=_time(wire, sent_at, timestamp_ms, normalised),
    )
    for field in changed:
        rules.normalised(field)
    return conversion


def _named(wire: _Wire, normalised: Normalised) -> tuple[str | None, str | None]:
    """The pixel and the link, of which there must be one."""
    pixels = (("pixel_id", wire.pixel_id), ("pixelId", wire.pixel_id_camel))
    links = (("link_id", wire.link_id), ("linkId", wire.link_id_camel))
    pixel_id = rule.first_identity(pixels, "pixel_id", normalised)
    link_id = rule.first_identity(links, "link_id", normalised)
    if pixel_id is None and link_id is None:
        raise InvalidEvent(MISSING_FIELD, "pixel_id", "is required, or link_id")
    return pixel_id, link_id


def _currency(wire: _Wire, normalised: Normalised) -> str | None:
    currencies = (
        ("currency", wire.currency),
        ("currency_code", wire.currency_code),
        ("currencyCode", wire.currency_code_camel),
    )
    return rule.first_currency(currencies, "currency", normalised)


def _time(wire: _Wire, sent_at: object, timestamp_ms: int, normalised: Normalised) -> datetime:
    times = (
        ("timestamp", wire.timestamp),
        ("converted_at", wire.converted_at),
        ("convertedAt", wire.converted_at_camel),
        ("created_at", wire.created_at),
        ("createdAt", wire.created_at_camel),
    )
    return rule.occurred_at(times, sent_at, timestamp_ms, normalised)
