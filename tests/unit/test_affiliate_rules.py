"""What an affiliate may be called, and what its days add up to."""

from __future__ import annotations

from contextlib import suppress
from datetime import date, timedelta
from decimal import Decimal
from urllib.parse import quote

from hypothesis import given
from hypothesis import strategies as st

from counterfoil.affiliates.rules import Tally, by_day, read_handle, read_name, totals
from counterfoil.errors import RequestError

DIGITS = {"": 2, "EUR": 2, "JPY": 0}

tallies = st.lists(
    st.builds(
        lambda day, currency, counts, amounts: Tally(
            date(2026, 1, 1) + timedelta(days=day), currency, DIGITS[currency], *counts, *amounts
        ),
        st.integers(0, 4),
        st.sampled_from(list(DIGITS)),
        st.tuples(*[st.integers(0, 9)] * 4),
        st.tuples(*[st.decimals(0, 10**6, places=2)] * 2),
    )
)


@given(st.text(max_size=300))
def test_a_handle_that_is_taken_stands_in_an_address_as_it_is(handle: str) -> None:
    with suppress(RequestError):
        assert quote(read_handle(handle), safe="") == handle
        assert handle not in {"", ".", ".."}


@given(st.text(max_size=300))
def test_a_name_that_is_taken_is_one_line(name: str) -> None:
    with suppress(RequestError):
        kept = read_name(name)
        assert kept == read_name(kept)
        assert len(kept.splitlines()) == 1


@given(tallies)
def test_the_days_add_up_to_the_span(found: list[Tally]) -> None:
    found.sort(key=lambda tally: tally.day)
    days = [sums for _, sums in by_day(found)]
    span = totals(found)
    for name in ("clicks", "unique_clicks", "bot_clicks", "conversions"):
        assert getattr(span, name) == sum(getattr(day, name) for day in days)
    for name in ("revenue", "commission"):
        for currency, amount in getattr(span, name).items():
            per_day = [Decimal(getattr(day, name).get(currency, 0)) for day in days]
            assert Decimal(amount) == sum(per_day)


@given(tallies)
def test_a_day_stands_once_and_only_currencies_with_conversions_are_named(found: list[Tally]) -> None:
    found.sort(key=lambda tally: tally.day)
    days = [day for day, _ in by_day(found)]
    assert days == sorted(set(days))
    paid = {tally.currency for tally in found if tally.conversions}
    assert set(totals(found).revenue) == set(totals(found).commission) == paid
