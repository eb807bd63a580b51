"""What is worth an alert: far above what is usual, whatever one odd day was like, and never by ignorance."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from random import Random

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from counterfoil.vouchers.alert_rules import (
    Conversion,
    Count,
    Peers,
    ScanRule,
    Window,
    failed_redemptions_alert,
    low_conversion_alert,
    scan_limit,
    scan_rate_alert,
    usual_scans,
)

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
KINDS = ("voucher", "device", "address")
NOBODY = Peers()
WINDOW = Window(NOON, timedelta(minutes=5))


def a_rule(factor: float = 10, ceiling: int | None = None, **fewest: int) -> ScanRule:
    least = {"voucher": 100, "device": 30, "address": 100} | fewest
    return ScanRule(timedelta(minutes=5), factor, least, ceiling)


rates = st.floats(0, 10_000)
histories = st.lists(rates, max_size=8)
known = st.lists(rates, min_size=3, max_size=8)
kinds = st.sampled_from(KINDS)
rules = st.builds(a_rule, st.floats(1, 100), st.none() | st.integers(1, 10**6), voucher=st.integers(1, 10**4))
peers = st.builds(Peers, histories, rates, st.integers(0, 100))


def test_the_rule_by_example() -> None:
    usual_days = [20.0, 25.0, 22.0, 300.0, 21.0]  # one of them an attack
    limit = scan_limit("voucher", usual_days, NOBODY, a_rule())
    assert limit == 221  # ten times the 22 of a usual day's busiest hour, and one more
    told = scan_rate_alert(Count("voucher", "v-1", "v-1", 221), limit, WINDOW)
    assert told is not None
    assert (told.subject, told.cause) == ("v-1", "voucher:v-1")
    assert msgspec.json.decode(msgspec.json.encode(told.payload)) == {
        "kind": "scan-rate",
        "voucher_id": "v-1",
        "value": 221,
        "limit": 221,
        "window": 300,
        "occurred_at": "2026-03-01T12:00:00Z",
    }
    assert scan_rate_alert(Count("voucher", "v-1", "v-1", 220), limit, WINDOW) is None


@pytest.mark.parametrize("kind", ["device", "address"])
def test_an_alert_of_a_device_or_an_address_names_it_and_the_voucher_that_it_scanned_most(kind: str) -> None:
    told = scan_rate_alert(Count(kind, "x", "v-1", 500), 100, WINDOW)
    assert told is not None
    assert (told.subject, told.cause, told.payload["subject"]) == ("v-1", f"{kind}:x", {kind: "x"})


@given(kinds, histories, peers, rules)
def test_a_limit_is_never_below_the_least_one(
    kind: str, days: list[float], others: Peers, rule: ScanRule
) -> None:
    limit = scan_limit(kind, days, others, rule)
    assert limit is None or limit >= rule.fewest[kind]


@given(kinds, known, peers, rules, st.data())
def test_what_is_within_the_factor_of_most_of_its_days_raises_nothing(
    kind: str, days: list[float], others: Peers, rule: ScanRule, data: st.DataObject
) -> None:
    limit = scan_limit(kind, days, others, rule)
    busier = sorted(days)[(len(days) - 1) // 2 :]  # at least half of them
    scans = data.draw(st.integers(0, int(rule.factor * min(busier))))
    assert limit is not None
    assert scans < limit


@given(kinds, known, st.lists(st.floats(0, 10**9), min_size=1, max_size=7), peers, rules)
def test_attacks_on_fewer_days_than_not_never_become_usual(
    kind: str, days: list[float], attacks: list[float], others: Peers, rule: ScanRule
) -> None:
    assume(len(attacks) < len(days))
    assert usual_scans([*days, *attacks], others) <= max(days)
    assert scan_limit(kind, [*days, *attacks], others, rule) <= scan_limit(
        kind, [max(days)] * 3, others, rule
    )


@given(kinds, histories, peers, rules, st.randoms(use_true_random=False))
def test_the_order_of_days_says_nothing(
    kind: str, days: list[float], others: Peers, rule: ScanRule, random: Random
) -> None:
    shuffled = random.sample(days, len(days))
    assert scan_limit(kind, days, others, rule) == scan_limit(kind, shuffled, others, rule)


@given(kinds, known, peers, peers, rules)
def test_who_has_a_past_is_not_compared_with_others(
    kind: str, days: list[float], some: Peers, others: Peers, rule: ScanRule
) -> None:
    assert scan_limit(kind, days, some, rule) == scan_limit(kind, days, others, rule)


@given(kinds, st.lists(rates, max_size=2), st.lists(rates, max_size=2), st.integers(0, 19), rates, rules)
def test_a_cold_start_raises_nothing_below_the_ceiling(
    kind: str, days: list[float], peer_days: list[float], subjects: int, middle: float, rule: ScanRule
) -> None:
    limit = scan_limit(kind, days, Peers(peer_days, middle, subjects), rule)
    if rule.ceiling is None:
        assert limit is None
    else:
        assert limit == max(rule.ceiling, rule.fewest[kind])


@given(kinds, st.lists(rates, max_size=2), known, rates, rules)
def test_who_is_new_is_compared_with_the_busy_ones_and_with_what_he_had(
    kind: str, days: list[float], peer_days: list[float], middle: float, rule: ScanRule
) -> None:
    by_peers = scan_limit(kind, [], Peers(peer_days), rule)
    limit = scan_limit(kind, days, Peers(peer_days), rule)
    by_itself = max((scan_limit(kind, [day] * 3, NOBODY, rule) for day in days[:1]), default=0)
    assert limit >= by_peers
    if len(days) == 1:
        assert limit == max(by_peers, by_itself)
    now = Peers((), middle, 20)
    assert scan_limit(kind, [], now, rule) == scan_limit(kind, [], Peers([middle] * 3), rule)


@given(kinds, histories, peers, rules, st.floats(1, 100))
def test_a_greater_factor_never_lowers_a_limit(
    kind: str, days: list[float], others: Peers, rule: ScanRule, more: float
) -> None:
    limit = scan_limit(kind, days, others, rule)
    higher = scan_limit(kind, days, others, rule._replace(factor=rule.factor * more))
    assert (limit is None) == (higher is None)
    assert limit is None or higher >= limit


@given(kinds, st.integers(1, 10**4), st.floats(1, 100), st.integers(0, 10**4))
def test_what_is_not_noted_would_not_have_made_a_limit(
    kind: str, fewest: int, factor: float, scans: int
) -> None:
    rule = a_rule(factor, **{kind: fewest})
    assume(scans < rule.noted(kind))
    assert scan_limit(kind, [float(scans)] * 3, NOBODY, rule) == fewest


def test_failed_redemptions_tell_how_many_and_of_how_many() -> None:
    told = failed_redemptions_alert("v-1", 12, 10, Window(NOON, timedelta(minutes=15)))
    assert (told.kind, told.subject, told.cause) == ("failed-redemptions", "v-1", "v-1")
    assert (told.payload["value"], told.payload["limit"], told.payload["window"]) == (12, 10, 900)


def test_low_conversion_is_one_cause_a_day() -> None:
    told, later, tomorrow = (
        low_conversion_alert(
            Conversion("v-1", 1_500, 7), 0.01, Window(NOON + timedelta(hours=hours), timedelta(days=7))
        )
        for hours in (0, 11, 12)
    )
    assert (told.payload["value"], told.payload["limit"], told.payload["window"]) == (0.004667, 0.01, 604_800)
    assert (told.payload["scans"], told.payload["claims"]) == (1_500, 7)
    assert told.cause == later.cause != tomorrow.cause
