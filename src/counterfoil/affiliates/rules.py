"""What an affiliate may be called, and what its days add up to."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import date
from decimal import Decimal
from itertools import groupby
from typing import NamedTuple

from counterfoil.api.problems import invalid_field
from counterfoil.api.requests import read_required_code
from counterfoil.api.writing import Amount, amount_text
from counterfoil.events.rules import BLANKS
from counterfoil.settings import CodeCase

_HANDLE = re.compile(r"[A-Za-z0-9._~-]{1,255}").fullmatch
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]").search

MAX_CODES = 1_000


class Tally(NamedTuple):
    """What a pixel counted on one day in one currency; the clicks stand in that of `''`."""

    day: date
    currency: str
    digits: int
    clicks: int
    unique_clicks: int
    bot_clicks: int
    conversions: int
    revenue: Decimal
    commission: Decimal


class Totals(NamedTuple):
    """What some tallies add up to; the amounts by currency."""

    clicks: int
    unique_clicks: int
    bot_clicks: int
    conversions: int
    revenue: dict[str, Amount]
    commission: dict[str, Amount]


def read_handle(handle: str) -> str:
    """A handle that can stand in an address as it is; raises 422 for another."""
    if not _HANDLE(handle) or handle in {".", ".."}:
        raise invalid_field(
            "handle", "must be 1 to 255 of the characters A-Z a-z 0-9 . _ ~ - and neither . nor .."
        )
    return handle


def read_name(name: str) -> str:
    """A name without blanks around it; raises 422 for one that is empty, too long or not printable."""
    bare = name.strip(BLANKS)
    if not 1 <= len(bare) <= 255 or _UNPRINTABLE(bare):
        raise invalid_field("name", "must be 1 to 255 characters, none of them a control character")
    return bare


def read_coupon_codes(codes: Sequence[str], code_case: CodeCase) -> list[str]:
    """Distinct codes by the rules of events, sorted; raises 422."""
    if len(codes) > MAX_CODES:
        raise invalid_field("couponCodes", f"must be at most {MAX_CODES} codes")
    return sorted(
        {read_required_code(code, code_case, f"couponCodes[{index}]") for index, code in enumerate(codes)}
    )


def totals(tallies: Sequence[Tally]) -> Totals:
    """The sums, with the currencies in which there are conversions."""
    paid = sorted(tally for tally in tallies if tally.conversions)
    return Totals(
        clicks=sum(tally.clicks for tally in tallies),
        unique_clicks=sum(tally.unique_clicks for tally in tallies),
        bot_clicks=sum(tally.bot_clicks for tally in tallies),
        conversions=sum(tally.conversions for tally in tallies),
        revenue=_by_currency((tally.currency, tally.revenue, tally.digits) for tally in paid),
        commission=_by_currency((tally.currency, tally.commission, tally.digits) for tally in paid),
    )


def by_day(tallies: Iterable[Tally]) -> list[tuple[date, Totals]]:
    """The totals of each day, of tallies that are sorted by day."""
    return [(day, totals(list(found))) for day, found in groupby(tallies, key=lambda tally: tally.day)]


def _by_currency(amounts: Iterable[tuple[str, Decimal, int]]) -> dict[str, Amount]:
    sums: dict[str, tuple[Decimal, int]] = {}
    for currency, amount, digits in amounts:
        so_far, _ = sums.get(currency, (Decimal(0), digits))
        sums[currency] = (so_far + amount, digits)
    return {currency: amount_text(*sums[currency]) for currency in sorted(sums)}
