"""How answers are written: names in camelCase, times to the millisecond, amounts as decimal strings."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated

from msgspec import Meta

Time = Annotated[str, Meta(extra_json_schema={"format": "date-time"})]
"""RFC 3339 in UTC: `2025-11-06T20:00:00.000Z`."""

Amount = Annotated[str, Meta(extra_json_schema={"format": "decimal"})]
"""A decimal string with at least the digits of its currency."""


def time_text(moment: datetime) -> Time:
    """The moment in UTC, to the millisecond."""
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"


def amount_text(amount: Decimal, digits: int) -> Amount:
    """The exact amount with at least so many decimals, and none beyond that are 0."""
    whole, _, fraction = f"{amount:f}".partition(".")
    fraction = fraction.rstrip("0").ljust(digits, "0")
    return f"{whole}.{fraction}" if fraction else whole


def camel_case(name: str) -> str:
    """`pixel_id` → `pixelId`, and unlike msgspec's own renaming `clicks_30d` → `clicks30d`."""
    first, *others = name.split("_")
    return first + "".join(word.capitalize() for word in others)
