"""What of the positions and the logs is a gap, by the rules alone."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from counterfoil.ingest.bounds import Bounds
from counterfoil.ingest.gaps import Gap, GapWatch, Kind, Known, Lost, Position, groups_of, judge
from counterfoil.ingest.partitions import Partition
from counterfoil.telemetry.metrics import Metrics
from support.postgres_road import plain_settings

GROUP = "counterfoil"
PLACED = Partition("order.placed", 0)
ALERTS = Partition("low-stock", 0)
SETTINGS = plain_settings(consumers=("order.placed",))

NOW = 1_000_000.0
LONG_AGO = int((NOW - 301) * 1000)
JUST_NOW = int((NOW - 1) * 1000)
IDLE = timedelta(seconds=301)


def known(
    *bounds: Bounds,
    next_offset: int | None = 5,
    idle: timedelta = IDLE,
    held: object = "all",
    **fields: object,
) -> Known:
    """One partition of `order.placed` with its log and position, held by a member."""
    of = {Partition("order.placed", n): b for n, b in enumerate(bounds)}
    stands = [] if next_offset is None else [Position(GROUP, p, next_offset, idle) for p in of]
    given = {
        "cluster_id": "cluster-1",
        "positions": stands,
        "leaders": {"order.placed": dict.fromkeys(range(len(bounds)), 1)},
        "bounds": of,
        "held": {GROUP: frozenset(of) if held == "all" else held},
        "lost": {},
    }
    return Known(**(given | fields))


def kinds(found: Known) -> list[Kind]:
    return [gap.kind for gap in judge(found, SETTINGS, NOW)]


def test_a_position_long_before_an_old_record_stands_still():
    assert judge(known(Bounds(0, 9, LONG_AGO)), SETTINGS, NOW) == [
        Gap(Kind.STANDS_STILL, GROUP, PLACED, 5, 9)
    ]


@pytest.mark.parametrize(
    "found",
    [
        known(Bounds(0, 5)),
        known(Bounds(0, 9)),
        known(Bounds(0, 9, LONG_AGO), idle=timedelta(seconds=299)),
        known(Bounds(0, 9, JUST_NOW)),
        known(Bounds(0, 3)),
    ],
    ids=[
        "all is read",
        "only markers follow",
        "it has just moved",
        "the record has just come",
        "a shorter log",
    ],
)
def test_a_position_that_waits_for_nothing_does_not_stand_still(found):
    assert kinds(found) == []


def test_a_log_that_begins_behind_a_position_has_lost_what_lies_between():
    assert judge(known(Bounds(8, 8)), SETTINGS, NOW) == [Gap(Kind.LEFT_UNREAD, GROUP, PLACED, 5, 8)]
    assert kinds(known(Bounds(5, 8))) == []


@pytest.mark.parametrize(
    ("found", "is_read"),
    [
        (known(Bounds(0, 5), held=frozenset()), False),
        (known(Bounds(0, 5), held=frozenset({PLACED})), True),
        (known(Bounds(0, 5), held=None), True),
        (known(Bounds(0, 5), next_offset=None, held={}), False),
        (known(Bounds(5, 5), held=frozenset()), True),
    ],
    ids=["no member holds it", "one does", "unknown, it was read", "never read", "it is empty"],
)
def test_a_partition_with_records_wants_a_consumer(found, is_read):
    assert kinds(found) == ([] if is_read else [Kind.WITHOUT_CONSUMER])


def test_alerts_want_a_consumer_only_where_somebody_has_read_them():
    log = {"bounds": {ALERTS: Bounds(0, 5)}, "leaders": {"order.placed": {0: 1}, "low-stock": {0: 1}}}
    assert kinds(known(next_offset=None, **log)) == []
    read = [Position("counterfoil-notify", ALERTS, 5, IDLE)]
    nobody = {"counterfoil-notify": frozenset()}
    assert kinds(replace(known(**log, positions=read), held=nobody)) == [Kind.WITHOUT_CONSUMER]


def test_alerts_want_a_consumer_only_where_there_is_a_channel():
    """Who has told of alerts once and has switched that off has positions that stand still for ever."""
    assert groups_of(SETTINGS) == [GROUP]
    told = plain_settings(slack_webhook_url="https://hooks.slack.com/services/T/B/x")
    assert groups_of(told) == [GROUP, "counterfoil-notify"]


def test_partitions_and_topics_that_are_not_there_are_missing():
    gone = Partition("order.placed", 1)
    positions = [Position(GROUP, PLACED, 5, IDLE), Position(GROUP, gone, 7, IDLE)]
    assert judge(known(Bounds(0, 5), positions=positions), SETTINGS, NOW) == [
        Gap(Kind.MISSING, GROUP, gone, 7, 7)
    ]
    assert judge(known(next_offset=None, leaders={}), SETTINGS, NOW) == [
        Gap(Kind.MISSING, GROUP, Partition("order.placed", -1), 0, 0)
    ]
    other = [Position(GROUP, Partition("renamed since", 0), 5, IDLE)]
    assert kinds(known(Bounds(0, 5), positions=[*positions[:1], *other])) == []


class Watched:
    """A watch that is shown what somebody else has found."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.metrics = Metrics()
        self.now = NOW
        self._watch = GapWatch(None, SETTINGS, self.metrics)  # type: ignore[arg-type]
        self._found: Known | None = None
        monkeypatch.setattr("counterfoil.ingest.gaps.find_gaps", self._find)
        monkeypatch.setattr("counterfoil.ingest.gaps.time.monotonic", lambda: self.now)

    async def _find(self, *_: object) -> tuple[Known, list[Gap]]:
        assert self._found is not None
        return self._found, judge(self._found, SETTINGS, NOW)

    async def shows(self, found: Known) -> dict[str, float]:
        self._found = found
        await self._watch.look()
        names = (
            "positions_standing_still",
            "offsets_lost",
            "partitions_without_consumer",
            "partitions_missing",
        )
        values = {name: self.metrics.value(name, {"topic": "order.placed"}) for name in names}
        return {name: value for name, value in values.items() if value}


@pytest.fixture
def watched(monkeypatch):
    return Watched(monkeypatch)


async def test_what_the_group_decides_is_believed_when_it_is_seen_twice(watched):
    unread = known(Bounds(0, 5), held=frozenset())
    assert await watched.shows(unread) == {}
    assert await watched.shows(unread) == {"partitions_without_consumer": 1}
    assert await watched.shows(known(Bounds(0, 5))) == {}
    assert await watched.shows(unread) == {}


async def test_what_is_lost_stays_lost_when_it_is_accounted_for(watched):
    assert await watched.shows(known(Bounds(8, 9))) == {"offsets_lost": 3}
    lost = {"order.placed": Lost(3, datetime.now(UTC))}
    assert await watched.shows(known(Bounds(8, 9), next_offset=9, lost=lost)) == {"offsets_lost": 3}
    assert await watched.shows(known(Bounds(11, 12), next_offset=9, lost=lost)) == {"offsets_lost": 5}


async def test_a_transaction_that_does_not_end_is_a_standstill_once_it_was_seen_for_long(watched):
    held_back = known(Bounds(0, 9, held_back=True))
    assert await watched.shows(held_back) == {}
    watched.now += 299
    assert await watched.shows(held_back) == {}
    watched.now += 2
    assert await watched.shows(held_back) == {"positions_standing_still": 1}
    assert await watched.shows(known(Bounds(0, 9, held_back=True), next_offset=7)) == {}
