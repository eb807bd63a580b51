"""How an event is written as JSON: snake_case, RFC 3339 in UTC, money as plain decimal strings."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal

import msgspec

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
