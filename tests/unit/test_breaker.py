"""The breaker: the share of malformed among the last 1,000 records, once that many were read."""

from __future__ import annotations

from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from counterfoil.ingest.breaker import WINDOW, Breaker


def test_it_trips_not_before_a_whole_window_was_read():
    breaker = Breaker(0.5)
    assert not any(breaker.saw(0, then_malformed=True) for _ in range(WINDOW - 1))
    assert breaker.saw(0, then_malformed=True)


def test_it_trips_at_its_limit_and_not_below():
    breaker = Breaker(0.5)
    for _ in range(WINDOW // 2 - 1):
        breaker.saw(1, then_malformed=True)
    assert not breaker.saw(2)
    assert breaker.share == pytest.approx(0.499)
    assert breaker.saw(0, then_malformed=True)


def test_it_stays_tripped():
    breaker = Breaker(0.1)
    breaker.saw(WINDOW - 100)
    for _ in range(100):
        breaker.saw(0, then_malformed=True)
    assert breaker.saw(100 * WINDOW)
    assert breaker.tripped


def test_a_limit_of_one_switches_it_off():
    breaker = Breaker(1)
    assert not any(breaker.saw(0, then_malformed=True) for _ in range(2 * WINDOW))


def test_what_was_long_ago_is_forgotten():
    breaker = Breaker(0.5)
    for _ in range(WINDOW - 1):
        breaker.saw(0, then_malformed=True)
    breaker = Breaker(0.9)
    for _ in range(800):
        breaker.saw(0, then_malformed=True)
    breaker.saw(WINDOW)
    assert breaker.share == 0


def test_nothing_read_is_no_share():
    assert Breaker(0.5).share == 0


@given(runs=st.lists(st.tuples(st.integers(0, 400), st.booleans(), st.integers(1, 60)), max_size=40))
def test_the_share_is_that_of_the_last_window(runs):
    breaker, window = Breaker(1), deque(maxlen=WINDOW)
    for well_formed, malformed, times in runs:
        for _ in range(times if malformed else 1):
            breaker.saw(well_formed // times, then_malformed=malformed)
            window.extend([False] * (well_formed // times) + [True] * malformed)
    assert breaker.share == pytest.approx(sum(window) / len(window) if window else 0)
