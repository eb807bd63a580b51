"""What the pages show: rates from sums, parts that are kept, values that can be read."""

from __future__ import annotations

import asyncio
import threading
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import asyncpg
import pytest

from counterfoil.app import Worker
from counterfoil.console import overview, pages
from counterfoil.console.overview import KEPT_S, Kept, lag_by_topic
from counterfoil.console.pages import Live
from counterfoil.console.rates import KEPT, Account, Look, Rates
from counterfoil.console.rendering import ago, money_text, payload, rate_text, visible
from counterfoil.settings import Settings
from counterfoil.telemetry.health import Health
from counterfoil.telemetry.metrics import Metrics

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def a_look(seconds: float, **topics: int) -> Look:
    accounts = {name: Account(records, 0, 0, 0, None) for name, records in topics.items()}
    return Look(NOON + timedelta(seconds=seconds), accounts)


def rates_of(*looks: Look) -> Rates:
    rates = Rates()
    for look in looks:
        rates.add(look)
    return rates


# Rates


def test_a_rate_is_the_difference_of_two_sums() -> None:
    rates = rates_of(a_look(0, click=100), a_look(2, click=300), a_look(4, click=300))
    times, series = rates.series()
    assert times == [int(NOON.timestamp()) + 2, int(NOON.timestamp()) + 4]
    assert series == {"click": [100.0, 0.0]}
    assert rates.now("click") == 50


def test_the_present_rate_is_that_of_the_last_ten_seconds() -> None:
    assert rates_of(a_look(0, click=0), a_look(60, click=6_000), a_look(70, click=6_100)).now("click") == 10


def test_duplicates_and_dead_records_count_as_read_and_gaps_do_not() -> None:
    looks = [
        Look(NOON + timedelta(seconds=s), {"click": Account(n, n, n, 1_000 * n, None)})
        for s, n in ((0, 0), (1, 10))
    ]
    assert rates_of(*looks).now("click") == 30


def test_a_topic_begins_at_nothing_and_a_silent_one_is_not_drawn() -> None:
    times, series = rates_of(a_look(0, scan=5), a_look(2, scan=5, click=20)).series()
    assert len(times) == 1
    assert series == {"click": [10.0]}


def test_what_is_older_than_five_minutes_is_forgotten() -> None:
    rates = rates_of(*(a_look(2 * step, click=step) for step in range(1_000)))
    assert len(rates.series()[0]) == KEPT.total_seconds() / 2


def test_before_the_first_look_there_is_nothing() -> None:
    assert Rates().series() == ([], {})
    assert Rates().now("click") == 0
    assert rates_of(a_look(0, click=9)).now("click") == 0


# Parts


class Pool:
    """Stands where a pool stands; each acquired connection is itself."""

    def acquire(self, timeout: float) -> Pool:
        return self

    async def __aenter__(self) -> Pool:
        return self

    async def __aexit__(self, *_: object) -> None:
        return None


class Question:
    """Answers how often it was asked, or raises; each time takes a second of the clock."""

    def __init__(self, takes_s: float = 0.0) -> None:
        self.now = 0.0
        self.asked = 0
        self.error: Exception | None = None
        self._takes_s = takes_s

    async def __call__(self, _connection: Any) -> int:
        self.now += self._takes_s
        self.asked += 1
        if self.error:
            raise self.error
        return self.asked

    def kept(self) -> Kept[int]:
        return Kept(self, clock=lambda: self.now)


async def value_of(kept: Kept[int], **options: Any) -> int | None:
    return (await kept.part(Pool(), **options)).value  # type: ignore[arg-type]


async def test_two_who_look_at_once_are_one_who_asks() -> None:
    question = Question()
    kept = question.kept()
    assert [await value_of(kept), await value_of(kept)] == [1, 1]
    question.now += 2
    assert await value_of(kept) == 2
    assert await value_of(kept, fresh=True) == 3


async def test_what_is_slow_is_asked_for_seldom() -> None:
    question = Question(takes_s=1.0)
    kept = question.kept()
    await value_of(kept)
    question.now += 19
    assert await value_of(kept) == 1
    question.now += 2
    assert await value_of(kept) == 2


async def test_a_failure_is_not_kept_for_as_long_as_an_answer() -> None:
    question = Question(takes_s=5.0)
    kept = question.kept()
    question.error = ConnectionRefusedError()
    assert await value_of(kept) is None
    question.error = None
    question.now += KEPT_S
    assert await value_of(kept) == 2


async def test_what_was_asked_for_since_is_fresh_for_all_who_wait() -> None:
    question = Question(takes_s=1.0)
    kept = question.kept()
    await value_of(kept)
    answers = await asyncio.gather(*(value_of(kept, fresh=True) for _ in range(5)))
    assert answers[0] == 2
    assert question.asked <= 3


class Silent(Pool):
    """A pool of which no connection can be had, or whose connection cannot even be given back."""

    def __init__(self, *, gives: bool) -> None:
        self._gives = gives

    async def __aenter__(self) -> Pool:
        if not self._gives:
            await asyncio.Event().wait()
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.shield(asyncio.Event().wait())


@pytest.mark.parametrize("gives", [True, False])
async def test_a_silent_database_is_waited_for_once_and_not_by_each_part(monkeypatch, gives: bool) -> None:
    monkeypatch.setattr(overview, "LONGEST_S", 0.2)
    looking = overview.Looking(Health(), Metrics(), Rates(), lambda: Silent(gives=gives))  # type: ignore[arg-type, return-value]
    async with asyncio.timeout(0.6):
        seen = await looking.overview()
    parts = (seen.counters, seen.low_stock, seen.dead_letters, seen.alerts)
    assert {part.trouble for part in parts} == {"not counted: no answer within 0.2 s"}


async def test_all_parts_are_asked_for_anew_after_something_was_changed(monkeypatch) -> None:
    asked: list[bool] = []

    async def part(_self: object, _pool: object, *, fresh: bool = False) -> overview.Part[None]:
        asked.append(fresh)
        return overview.Part(None)

    monkeypatch.setattr(Kept, "part", part)
    await overview.Looking(Health(), Metrics(), Rates(), lambda: None).overview(fresh=True)
    assert asked == [True] * 5


async def test_a_page_is_rendered_once_for_all_who_look() -> None:
    now, made = 0.0, []

    async def make(fresh: bool) -> str:
        made.append(fresh)
        await asyncio.sleep(0)
        return f"page {len(made)}"

    live = Live(make, clock=lambda: now)
    assert await asyncio.gather(*(live.text() for _ in range(20))) == ["page 1"] * 20
    assert await live.text(fresh=True) == "page 2"
    now += KEPT_S / 2
    assert await live.text() == "page 2"
    now += KEPT_S
    assert await live.text() == "page 3"
    assert made == [False, True, False]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (asyncpg.UndefinedTableError("x"), "run `counterfoil migrate`"),
        (ConnectionRefusedError(), "the database cannot be reached"),
        (asyncpg.TooManyConnectionsError("x"), "the database cannot be reached"),
        (TimeoutError(), "no answer within 2.5 s"),
    ],
)
async def test_what_cannot_be_had_says_why(error: Exception, said: str) -> None:
    question = Question()
    question.error = error
    part = await question.kept().part(Pool())  # type: ignore[arg-type]
    assert part.value is None
    assert said in part.trouble


async def test_without_a_pool_the_database_is_away() -> None:
    assert (await Question().kept().part(None)).trouble == "the database cannot be reached"


async def test_a_fault_of_ours_is_not_hidden() -> None:
    question = Question()
    question.error = KeyError("x")
    with pytest.raises(KeyError):
        await question.kept().part(Pool())  # type: ignore[arg-type]


def test_lag_is_summed_by_topic() -> None:
    metrics = Metrics()
    for topic, partition, lag in (("click", 0, 3), ("click", 1, 4), ("scan", 0, 0)):
        metrics.lag_records.labels(topic, partition).set(lag)
    assert lag_by_topic(metrics) == {"click": 7, "scan": 0}


# Values


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("plain ünï ⚠", "plain ünï ⚠"),
        ("a\r\nb\tc\0", "a\\u000d\\u000ab\\u0009c\\u0000"),
        ("\u2028\u2029\u202e\u200b\ufeff\x85", "\\u2028\\u2029\\u202e\\u200b\\ufeff\\u0085"),
        ("\U000e0041", "\\U000e0041"),
        (None, "None"),
        (7, "7"),
    ],
)
def test_what_cannot_be_seen_is_written_as_its_number(given: object, shown: str) -> None:
    assert visible(given) == shown


def test_a_long_text_is_cut_before_it_is_written() -> None:
    assert visible("\0" * 10, 3) == "\\u0000" * 3 + "…"
    assert visible("abc", 3) == "abc"


def test_a_value_is_shown_as_text_or_as_its_bytes() -> None:
    assert payload(b'{"a":\r\n "\xc3\xbc"}', 14) == '{"a":\\u000d\n "ü"}'
    assert payload(None, None) == "null"
    assert payload(b"", 0) == ""
    assert payload("aä".encode()[:2], 100) == "a"
    assert payload(b"\xff\x00<b>", 5).split() == ["ff", "00", "3c", "62", "3e", "..<b>"]
    assert len(payload(b"\xff" * 4_096, 4_096).splitlines()) == 16


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "0 s ago"),
        (59, "59 s ago"),
        (60, "1 min ago"),
        (7_199, "1 h ago"),
        (200_000, "2 d ago"),
        (-5, "0 s ago"),
    ],
)
def test_an_age_is_told_in_the_largest_unit(seconds: int, said: str) -> None:
    assert ago(NOON - timedelta(seconds=seconds), NOON) == said


def test_amounts_are_exact_and_rates_short() -> None:
    assert money_text(Decimal("1234567.5"), 2) == "1,234,567.50"
    assert money_text(Decimal(-1204), 0) == "\u22121,204"
    assert money_text(Decimal("0.000001"), 2) == "0.000001"
    assert [rate_text(rate) for rate in (0.0, 0.25, 99.96, 1234.5)] == ["0", "0.2", "100.0", "1,234"]


# The first page


async def test_the_first_page_is_prepared_where_the_database_is_still_away(monkeypatch) -> None:
    prepared = threading.Event()
    monkeypatch.setattr(pages, "prepare", prepared.set)
    async with Worker(Settings(_env_file=None, http_port=0))._http():
        assert await asyncio.to_thread(prepared.wait, 5)
