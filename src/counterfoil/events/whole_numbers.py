"""The input rule of whole numbers: stock, thresholds, and what an alert has counted."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from typing import Any, Final, NamedTuple

from counterfoil.events.rules import Candidates, Normalised, Number, invalid

Whole = Any  # the decoder's hook keeps a float's own text, which it does for untyped fields alone


class Range(NamedTuple):
    """The numbers from `least` to `most`, both among them."""

    least: int
    most: int


INT4: Final = Range(-(2**31), 2**31 - 1)
INT8: Final = Range(-(2**63), 2**63 - 1)
COUNTS: Final = Range(0, INT4.most)
LARGE_COUNTS: Final = Range(0, INT8.most)


def whole_number(
    value: object, field: str, normalised: Normalised, path: str = "", span: Range = INT4
) -> int | None:
    """A JSON number that is an integer, however it is written; null is missing."""
    if value is None:
        return None
    if type(value) is Number:
        found = _integral(value.literal)
        normalised(field)
    else:
        found = value if type(value) is int else None  # JSON's true is no 1
    if found is None or not span.least <= found <= span.most:
        raise invalid(path or field, f"must be a whole number from {span.least} to {span.most}")
    return found


def first_whole_number(
    candidates: Candidates, field: str, normalised: Normalised, span: Range = INT4
) -> int | None:
    """The first whole number given among the candidates."""
    for path, value in candidates:
        if value is not None:
            return whole_number(value, field, normalised, path, span)
    return None


def _integral(literal: str) -> int | None:
    """The number as an integer; None where it is none, or has far more digits than any range."""
    if not literal.lower().partition("e")[0].strip("-0."):
        return 0  # whatever its exponent
    try:
        number = Decimal(literal)
    except InvalidOperation:  # an exponent of twenty digits
        return None
    is_integral = number.adjusted() <= 20 and number == number.to_integral_value()
    return int(number) if is_integral else None
