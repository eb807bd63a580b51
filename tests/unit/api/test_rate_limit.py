"""So many requests a minute from one client, and a bound on what is remembered of all."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from counterfoil.api.rate_limit import MINUTE_S, LatestMinute, Windows


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def windows(limit: int, remembered: int = 1_000) -> tuple[Windows, Clock]:
    clock = Clock()
    return Windows(limit, remembered, clock), clock


def test_what_is_over_the_limit_waits_for_the_minute_to_end() -> None:
    limiter, clock = windows(3)
    assert [limiter.wait_s(b"a") for _ in range(3)] == [0, 0, 0]
    clock.now = 45
    assert limiter.wait_s(b"a") == 15
    assert limiter.wait_s(b"b") == 0
    clock.now = 60
    assert [limiter.wait_s(b"a") for _ in range(4)] == [0, 0, 0, 60]


def test_the_client_that_was_silent_longest_is_forgotten() -> None:
    limiter, _ = windows(1, remembered=2)
    for client in (b"a", b"b", b"a", b"c"):
        limiter.wait_s(client)
    assert len(limiter) == 2
    assert limiter.wait_s(b"a") > 0
    assert limiter.wait_s(b"b") == 0


quarters = st.integers(0, 400).map(lambda quarters: quarters / 4)  # so that sums are exact
steps = st.lists(st.tuples(quarters, st.integers(0, 3)), max_size=60)


@given(st.integers(1, 5), steps)
def test_no_window_lets_through_more_than_the_limit_and_who_waits_may_pass(limit: int, steps) -> None:
    limiter, clock = windows(limit)
    passed: dict[bytes, list[float]] = {}
    for pause, number in steps:
        clock.now += pause
        client = bytes([number])
        wait_s = limiter.wait_s(client)
        times = passed.setdefault(client, [])
        if wait_s == 0:
            times.append(clock.now)
        else:
            assert 0 < wait_s <= MINUTE_S
            assert len([at for at in times if at > clock.now - MINUTE_S]) >= limit
    for times in passed.values():
        began_at = None
        for at in times:
            if began_at is None or at - began_at >= MINUTE_S:
                began_at, count = at, 0
            count += 1
            assert count <= limit


@given(st.lists(st.binary(min_size=1, max_size=8), max_size=100), st.integers(1, 10))
def test_memory_is_bounded_whoever_asks(clients: list[bytes], remembered: int) -> None:
    limiter, _ = windows(2, remembered)
    for client in clients:
        limiter.wait_s(client)
        assert len(limiter) <= remembered


def test_in_no_minute_are_there_more_than_the_limit() -> None:
    clock = Clock()
    latest, done = LatestMinute(10, clock), []
    for clock.now in [0, *[59.5] * 9, *[60.1] * 10, 119.4, 119.6]:
        if latest.wait_s() == 0:
            done.append(clock.now)
    assert done == [0, *[59.5] * 9, 60.1, 119.6]
