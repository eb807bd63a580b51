"""What is left of an event whose person is forgotten: the pseudonym, and what is counted."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from decimal import Decimal
from math import floor
from typing import Any

from msgspec.structs import replace

from counterfoil.errors import InvalidEvent
from counterfoil.events.claim import Claim
from counterfoil.events.objects import EMPTY_OBJECT
from counterfoil.events.order_placed import OrderPlaced
from counterfoil.events.redemption import Redemption
from counterfoil.events.rules import identity
from counterfoil.events.scan import Scan
from counterfoil.events.user_created import UserCreated

Pseudonym = Callable[[str | None], str | None]
"""The pseudonym of a person's id; None where the person is not forgotten."""

LONGEST_NAME = 60
"""Of a city or a country, as `scan_place` in the database cuts it."""


def name_people(events: Sequence[Any]) -> bool:
    """Whether rows that these events, all of one type, ask for may name a person."""
    if not events or type(events[0]) not in _ERASE:
        return False
    return type(events[0]) is not OrderPlaced or any(map(_names_a_person, events))


def without_forgotten(events: list[Any], pseudonym: Pseudonym) -> list[Any]:
    """The events, all of one type, and of forgotten people what is left of theirs."""
    if not events or type(events[0]) not in _ERASE:
        return events
    person_of, erase = _PERSON[type(events[0])], _ERASE[type(events[0])]
    return [
        event if (name := pseudonym(person_of(event))) is None else erase(event, name) for event in events
    ]


def place_only(location: str | None) -> str | None:
    """Of a location what its place is made from, and nothing else: `scan_place` in the database is the rule."""
    if location is None:
        return None
    told = json.loads(location, parse_float=Decimal, parse_int=Decimal)
    kept = _names(told) or _field(told)
    return json.dumps(kept, ensure_ascii=False, separators=(",", ":")) if kept else None


def _names(told: dict[str, Any]) -> dict[str, object]:
    countries = (told.get(key) for key in ("country", "countryCode", "country_code"))
    named = {"city": told.get("city"), "country": next((c for c in countries if c is not None), None)}
    cut = {key: name.strip(" ")[:LONGEST_NAME] for key, name in named.items() if isinstance(name, str)}
    return {key: _as_it_is_cut(name) for key, name in cut.items() if name}


def _as_it_is_cut(name: str) -> str:
    """A name that is cut to the same again, where it was cut after a blank."""
    return f"{name}." if name.endswith(" ") else name


def _field(told: dict[str, Any]) -> dict[str, object]:
    latitude = told.get("latitude", told.get("lat"))
    longitude = told.get("longitude", told.get("lon", told.get("lng")))
    if not isinstance(latitude, Decimal) or not isinstance(longitude, Decimal):
        return {}
    if abs(latitude) > 90 or abs(longitude) > 180:
        return {}
    return {"lat": floor(latitude), "lng": floor(longitude)}


def _claim(event: Claim, name: str) -> Claim:
    return replace(event, customer_id=name, metadata=EMPTY_OBJECT)


def _redemption(event: Redemption, name: str) -> Redemption:
    return replace(
        event,
        customer_id=name,
        failure_reason=None,
        device_info=EMPTY_OBJECT,
        location=None,
        metadata=EMPTY_OBJECT,
    )


def _scan(event: Scan, name: str) -> Scan:
    return replace(
        event,
        user_id=name,
        device_info=EMPTY_OBJECT,
        location=place_only(event.location),
        ip_address=None,
        user_agent=None,
        metadata=EMPTY_OBJECT,
    )


def _user(event: UserCreated, _name: str) -> UserCreated:
    """The id stays: it is the account that a partner is paid by."""
    return replace(event, name=None, email=None)


def _order(event: OrderPlaced, name: str) -> OrderPlaced:
    return replace(event, customer_address=name)


def _names_a_person(event: OrderPlaced) -> bool:
    return bool(event.promotions and event.customer_address)


def _person_of_order(event: OrderPlaced) -> str | None:
    """The address as an id: its text is free, and kept as it came."""
    if not _names_a_person(event):
        return None
    try:
        return identity(event.customer_address, "customer_address", lambda _field: None)
    except InvalidEvent:
        return event.customer_address


_ERASE: dict[type, Callable[[Any, str], Any]] = {
    Claim: _claim,
    Redemption: _redemption,
    Scan: _scan,
    UserCreated: _user,
    OrderPlaced: _order,
}

_PERSON: dict[type, Callable[[Any], str | None]] = {
    Claim: lambda event: event.customer_id,
    Redemption: lambda event: event.customer_id,
    Scan: lambda event: event.user_id,
    UserCreated: lambda event: event.user_id,
    OrderPlaced: _person_of_order,
}
