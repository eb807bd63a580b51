"""How answers are written: names, times, amounts."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from counterfoil.api.writing import amount_text, camel_case, time_text


@pytest.mark.parametrize(
    ("amount", "digits", "expected"),
    [
        ("0", 2, "0.00"),
        ("0", 0, "0"),
        ("1250", 2, "1250.00"),
        ("1250.000000", 2, "1250.00"),
        ("12.345000", 2, "12.345"),
        ("900.000000", 0, "900"),
        ("1.5", 3, "1.500"),
        ("1E+3", 2, "1000.00"),
        ("-0.500000", 2, "-0.50"),
        ("99999999999999999999999999999999.123456", 2, "99999999999999999999999999999999.123456"),
    ],
)
def test_an_amount_has_its_currency_s_digits_and_no_superfluous_zeros(amount, digits, expected) -> None:
    assert amount_text(Decimal(amount), digits) == expected


@given(st.decimals(allow_nan=False, allow_infinity=False, places=6), st.integers(0, 4))
def test_an_amount_is_written_exactly(amount: Decimal, digits: int) -> None:
    text = amount_text(amount, digits)
    decimals = text.partition(".")[2]
    assert Decimal(text) == amount
    assert len(decimals) == digits or (len(decimals) > digits and not decimals.endswith("0"))


def test_a_time_is_in_utc_to_the_millisecond() -> None:
    zone = timezone(timedelta(hours=2))
    assert time_text(datetime(2025, 11, 6, 22, 0, 0, 123999, zone)) == "2025-11-06T20:00:00.123Z"
    assert time_text(datetime(2025, 11, 6, 20, tzinfo=UTC)) == "2025-11-06T20:00:00.000Z"


def test_names_are_in_camel_case() -> None:
    assert [camel_case(n) for n in ("id", "pixel_id", "clicks_30d")] == ["id", "pixelId", "clicks30d"]
