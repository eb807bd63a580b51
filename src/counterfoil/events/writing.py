"""How an event is written as JSON: snake_case, RFC 3339 in UTC, money as plain decimal strings."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal

import msgspec

from counterfoil.errors import InvalidEvent
from counterfoil.events import document
from counterfoil.events.objects import EMPTY_OBJECT
from counterfoil.events.rules import invalid

_encode = msgspec.json.Encoder().encode


def json_bytes(fields: Mapping[str, object]) -> bytes:
    """The fields as one JSON object, without the absent ones; raises InvalidEvent for what JSON lacks."""
    try:
        return _encode({name: value for name, value in fields.items() if value is not None and value != []})
    except UnicodeEncodeError:
        raise invalid("", "must hold no lone surrogates") from None
    except TypeError:
        raise invalid("", "must be made of strings, times and decimals") from None


def time_text(moment: datetime | None, field: str) -> str | None:
    """The moment in UTC; one without a zone is refused."""
    if moment is None:
        return None
    if not isinstance(moment, datetime) or moment.tzinfo is None:
        raise invalid(field, "must be a datetime with zone")
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat() + "Z"


def money_text(amount: Decimal | None, field: str) -> str | None:
    """The amount in plain digits; a float, being inexact, is refused."""
    if amount is None:
        return None
    if type(amount) not in {Decimal, int}:
        raise invalid(field, "must be a Decimal")
    exact = Decimal(amount)
    if not exact.is_finite() or exact.adjusted() >= 14:
        raise invalid(field, "must be finite and below 10^14")
    return format(exact, "f")


def object_json(value: object, field: str) -> msgspec.Raw | None:
    """An object, given as a dict or as its JSON, to be written as it is; raises InvalidEvent for anything else."""
    if value is None:
        return None
    text = _encoded_object(value, field)
    try:
        found = document.parse(b"[%b]" % text)  # as deep as it will be in the event
    except InvalidEvent:
        found = None
    if not (isinstance(found, list) and len(found) == 1 and isinstance(found[0], dict)):
        raise invalid(field, "must be a JSON object")
    return msgspec.Raw(text)


def details_json(value: object, field: str) -> msgspec.Raw | None:
    """The same for an object that is empty where it is missing: then it is not written."""
    return None if value in (EMPTY_OBJECT, {}) else object_json(value, field)


def _encoded_object(value: object, field: str) -> bytes:
    try:
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, allow_nan=False)
        return text.encode()
    except UnicodeEncodeError:
        raise invalid(field, "must hold no lone surrogates") from None
    except (TypeError, ValueError, RecursionError):
        raise invalid(field, "must be made of JSON's own types, and finite") from None
