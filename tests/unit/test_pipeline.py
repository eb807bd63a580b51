"""The road with a scripted consumer and a scripted writer: what happens when either side is in trouble."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import Any

import pytest
import tenacity

from counterfoil.errors import HaltingFailure, PoisonRecord, TransientFailure
from counterfoil.events import Rules
from counterfoil.ingest.batches import Batch
from counterfoil.ingest.breaker import WINDOW, Breaker
from counterfoil.ingest.decoding import Decoder
from counterfoil.ingest.partitions import Anchor, Partition
from counterfoil.ingest.pipeline import Pipeline, runs
from counterfoil.ingest.positions import Account, Positions
from counterfoil.ingest.routes import Route
from counterfoil.ingest.writer import Planned, Written
from counterfoil.telemetry.health import Health
from counterfoil.telemetry.metrics import Metrics
from support.builders import PLACED, a_record, a_state
from support.waiting import eventually

OTHER = Partition(PLACED.topic, 1)
POSITIONS = Positions("cluster-1", "counterfoil")


class ScriptedConsumer:
    """Remembers what it was told."""

    def __init__(self, *held: Partition) -> None:
        self.held = frozenset(held)
        self.sought: list[tuple[Partition, int]] = []
        self.paused: set[Partition] = set()

    def seek(self, partition: Partition, offset: int) -> None:
        self.sought.append((partition, offset))

    def pause(self, *partitions: Partition) -> None:
        self.paused |= set(partitions)

    def resume(self, *partitions: Partition) -> None:
        self.paused -= set(partitions)

    def assignment(self) -> frozenset[Partition]:
        return self.held


class ScriptedWriter:
    """Keeps what it is given to write; fails as it is told, and at poisonous values."""

    def __init__(self) -> None:
        self.failures: list[Exception] = []
        self.stale: set[Partition] = set()
        self.poison: set[int] = set()
        self.attempts = 0
        self.written: list[list[int]] = []
        self.batches: list[Batch] = []
        self.parked: list[int] = []
        self.kinds: set[str] = set()
        self.observed: dict[str, list[float]] = {}
        self.gate = asyncio.Event()
        self.gate.set()

    async def plan(self, batch: Batch) -> Planned:
        return Planned(batch, ())

    async def write(self, planned: Planned, positions: Positions) -> Written:
        self.attempts += 1
        await self.gate.wait()
        if self.failures:
            raise self.failures.pop(0)
        batch = planned.batch.without(self.stale)
        if self.poison & {offset for chunk in batch.chunks for offset in chunk.offsets}:
            raise PoisonRecord("23514 some_constraint")
        self.parked += [m.record.offset for chunk in batch.chunks for m in chunk.malformed]
        self.kinds |= {m.kind for chunk in batch.chunks for m in chunk.malformed}
        self.batches.append(batch)
        self.written.append([record.offset for chunk in batch.chunks for record in chunk.records])
        accounts = [
            Account(partition, chunks[0].first_offset, chunks[-1].next_offset)
            for partition, chunks in batch.by_partition().items()
        ]
        stale = frozenset(self.stale & set(planned.batch.by_partition()))
        return Written(tuple(accounts), stale, observed=self.observed)


class Road:
    """A pipeline on scripted ends, and what it reported."""

    def __init__(self, *held: Partition, max_records: int = 1_000, limit: float = 1) -> None:
        self.consumer, self.writer = ScriptedConsumer(*held), ScriptedWriter()
        self.health, self.metrics = Health(), Metrics()
        self.halted: list[HaltingFailure] = []
        self.relocated: list[tuple[Partition, str | None]] = []
        self.committed: dict[Partition, int] = {}
        route = Route("order.placed", PLACED.topic, self.decode, [])
        self.pipeline = Pipeline(
            decoders={PLACED.topic: Decoder(route, Rules(), Breaker(limit), self.metrics)},
            writer=self.writer,  # type: ignore[arg-type]
            health=self.health,
            metrics=self.metrics,
            max_records=max_records,
            halt=self.halted.append,
        )
        self.pipeline.consumer = lambda: self.consumer
        self.pipeline.relocate = lambda state, reason: self.relocated.append((state.partition, reason))
        self.pipeline.committed = self.committed.update
        self.pipeline.hold(POSITIONS, [a_state(partition=partition, sought=None) for partition in held])

    @staticmethod
    def decode(value: bytes | None, *_: Any) -> str:
        if value == b"bad":
            raise ValueError("bad")
        return "an event"

    async def settled(self) -> bool:
        return await self.pipeline.settle(5)

    @property
    def offsets(self) -> list[int]:
        return [offset for batch in self.writer.written for offset in batch]


@asynccontextmanager
async def a_road(*held: Partition, **options: Any):
    road = Road(*(held or (PLACED,)), **options)
    tasks = [
        asyncio.create_task(work()) for work in (road.pipeline.plan_forever, road.pipeline.write_forever)
    ]
    yield road
    for task in tasks:
        task.cancel()
    for outcome in await asyncio.gather(*tasks, return_exceptions=True):
        assert outcome is None or isinstance(outcome, asyncio.CancelledError)


@pytest.fixture(autouse=True)
def without_waiting(monkeypatch):
    """A retry comes at once."""
    monkeypatch.setattr(
        "counterfoil.ingest.pipeline.wait_random_exponential", lambda **_: tenacity.wait_none()
    )


def poll(*offsets: int, value: bytes = b"{}", partition: Partition = PLACED):
    return [a_record(offset, value, partition=partition.partition) for offset in offsets]


async def test_what_is_taken_is_written_and_committed_once():
    async with a_road() as road:
        await road.pipeline.take(poll(0, 1, 2))
        await road.pipeline.take(poll(1, 2, 3))
        assert await road.settled()
    assert road.offsets == [0, 1, 2, 3]
    assert road.committed == {PLACED: 4}
    assert road.metrics.value("records_total", {"topic": PLACED.topic, "outcome": "applied"}) == 4


async def test_while_one_batch_commits_the_next_is_gathered():
    async with a_road() as road:
        road.writer.gate.clear()
        await road.pipeline.take(poll(0))
        await eventually(lambda: road.writer.attempts)
        for offset in (1, 2, 3):
            await road.pipeline.take(poll(offset))
        assert not road.pipeline._idle.is_set()
        road.writer.gate.set()
        assert await road.settled()
    assert road.writer.written == [[0], [1, 2, 3]]


async def poll_after_poll(road, polls):
    for n in range(polls):
        await road.pipeline.take(poll(2 * n, 2 * n + 1))


async def test_no_batch_is_larger_than_the_setting_but_for_a_single_poll():
    async with a_road(max_records=3) as road:
        road.writer.gate.clear()
        taking = asyncio.create_task(poll_after_poll(road, 6))
        await eventually(lambda: road.writer.attempts)
        road.writer.gate.set()
        await taking
        await road.pipeline.take(poll(*range(12, 20)))
        assert await road.settled()
    assert [len(batch) for batch in road.writer.written][-1] == 8
    assert max(len(batch) for batch in road.writer.written[:-1]) <= 3
    assert road.offsets == list(range(20))


async def test_taking_waits_while_the_database_is_behind():
    async with a_road(max_records=2) as road:
        road.writer.gate.clear()
        for offset in (0, 2, 4):
            taking = asyncio.create_task(road.pipeline.take(poll(offset, offset + 1)))
            await asyncio.sleep(0)
        await eventually(lambda: road.writer.attempts)
        last = asyncio.create_task(road.pipeline.take(poll(6, 7)))
        for _ in range(20):
            await asyncio.sleep(0)
        assert not last.done()
        road.writer.gate.set()
        await asyncio.gather(taking, last)
        assert await road.settled()
    assert road.offsets == list(range(8))


async def test_an_outage_is_waited_out_and_the_same_batch_is_written_whole():
    async with a_road() as road:
        road.writer.failures = [TransientFailure("08006 gone")] * 3
        await road.pipeline.take(poll(0, 1, 2))
        assert await road.settled()
    assert road.writer.written == [[0, 1, 2]]
    assert not road.pipeline.in_trouble
    assert road.health.check("database").ok
    assert road.consumer.paused == set()


async def test_what_the_slices_observe_is_counted_once_and_only_when_it_is_committed():
    async with a_road() as road:
        road.writer.observed = {"wallet_size": [1.0, 3.0], "scan_to_claim_seconds": [90.0]}
        road.writer.failures = [TransientFailure("40P01")] * 2
        road.writer.gate.clear()
        await road.pipeline.take(poll(0))
        await eventually(lambda: road.writer.attempts)
        assert road.metrics.value("wallet_size_count") == 0
        road.writer.gate.set()
        assert await road.settled()
    assert (road.metrics.value("wallet_size_count"), road.metrics.value("wallet_size_sum")) == (2, 4)
    assert road.metrics.value("scan_to_claim_seconds_bucket", {"le": "300.0"}) == 1
    assert road.metrics.value("scan_to_claim_seconds_bucket", {"le": "60.0"}) == 0


async def test_in_trouble_nothing_is_taken_and_nothing_is_lost():
    async with a_road() as road:
        road.writer.failures = [TransientFailure("08006 gone")] * 2
        blocked = asyncio.Event()
        first = road.writer.write

        async def fail_then_wait(planned, positions):
            if len(road.writer.failures) == 1:
                await blocked.wait()
            return await first(planned, positions)

        road.writer.write = fail_then_wait
        await road.pipeline.take(poll(0, 1))
        await eventually(lambda: road.pipeline.in_trouble)
        assert road.consumer.paused == {PLACED}
        assert not road.health.check("database").ok
        await road.pipeline.take(poll(2, 3))
        assert road.consumer.sought[-1] == (PLACED, 2)
        blocked.set()
        assert await road.settled()
        assert road.consumer.paused == set()
        await road.pipeline.take(poll(2, 3))
        assert await road.settled()
    assert road.offsets == [0, 1, 2, 3]


@pytest.mark.parametrize("poison", [{0}, {5}, {9}, {0, 9}, {3, 4}, set(range(10))])
async def test_poison_is_isolated_and_parked_and_its_neighbours_are_written(poison):
    async with a_road() as road:
        road.writer.poison = set(poison)
        await road.pipeline.take(poll(*range(10)))
        assert await road.settled()
    assert sorted(road.offsets) == list(range(10))
    assert road.offsets == sorted(road.offsets)
    assert sorted(road.writer.parked) == sorted(poison)
    assert road.halted == []


async def test_an_outage_while_poison_is_isolated_parks_no_good_record():
    async with a_road() as road:
        road.writer.poison = {5}
        road.writer.failures = [
            PoisonRecord("first"),
            TransientFailure("08006 gone"),
            TransientFailure("40P01"),
        ]
        await road.pipeline.take(poll(*range(8)))
        assert await road.settled()
    assert road.writer.parked == [5]
    assert road.offsets == list(range(8))


@pytest.mark.parametrize("kind", ["database", "before_retention"])
async def test_a_refused_record_is_parked_under_the_kind_of_its_refusal(kind):
    async with a_road() as road:
        road.writer.failures = [PoisonRecord("23514 some_constraint", kind)]
        await road.pipeline.take(poll(0))
        assert await road.settled()
    assert road.writer.kinds == {kind}
    assert road.metrics.value("dead_letters_total", {"topic": PLACED.topic, "kind": kind}) == 1


async def test_records_that_a_refusal_names_are_parked_at_once_and_the_others_written():
    async with a_road(PLACED, OTHER) as road:
        source = road.pipeline.states[PLACED].source_id
        named = frozenset({(source, 3), (source, 7)})
        road.writer.failures = [PoisonRecord("too late", "before_retention", named)]
        await road.pipeline.take(poll(*range(10)))
        assert await road.settled()
    assert (road.writer.attempts, road.writer.parked) == (2, [3, 7])
    assert road.writer.written == [list(range(10))]


async def test_a_refusal_that_names_what_is_not_there_is_isolated_by_halves():
    async with a_road() as road:
        road.writer.poison = {2}
        road.writer.failures = [PoisonRecord("23514", sources=frozenset({(77, 1)}))]
        await road.pipeline.take(poll(*range(4)))
        assert await road.settled()
    assert road.writer.parked == [2]
    assert road.offsets == [0, 1, 2, 3]


async def test_a_refused_record_that_cannot_be_parked_halts():
    async with a_road() as road:
        road.writer.failures = [PoisonRecord("one"), PoisonRecord("two")]
        await road.pipeline.take(poll(0))
        await eventually(lambda: road.halted)
    assert "cannot be parked" in str(road.halted[0])
    assert road.writer.written == []


async def test_a_halting_failure_stops_and_parks_nothing():
    async with a_road() as road:
        road.writer.failures = [HaltingFailure("42P01 no such table")]
        await road.pipeline.take(poll(0))
        await eventually(lambda: road.halted)
        await road.pipeline.take(poll(1))
        assert (road.writer.written, road.writer.parked) == ([], [])


async def test_after_a_halt_nobody_waits_for_what_is_never_written():
    """A worker that halts should end at once, not after the time that a drain may take."""
    async with a_road() as road:
        road.writer.failures = [HaltingFailure("42P01 no such table")]
        road.writer.gate.clear()
        await road.pipeline.take(poll(0))
        await eventually(lambda: road.writer.attempts)
        await road.pipeline.take(poll(1))
        road.writer.gate.set()
        await eventually(lambda: road.halted)
        started = asyncio.get_running_loop().time()
        await road.pipeline.settle(1)
        assert asyncio.get_running_loop().time() - started < 0.5


async def test_a_stale_partition_is_forgotten_and_located_anew():
    async with a_road(PLACED, OTHER) as road:
        road.writer.stale = {PLACED}
        await road.pipeline.take([*poll(0, 1), *poll(0, partition=OTHER)])
        assert await road.settled()
    assert road.relocated == [(PLACED, None)]
    assert road.committed == {OTHER: 1}
    assert set(road.pipeline.states) == {OTHER}
    assert road.metrics.value("stale_assignments_total") == 1


async def test_what_was_taken_away_is_not_written():
    async with a_road(PLACED, OTHER) as road:
        road.writer.gate.clear()
        road.writer.failures = [TransientFailure("08006 gone")]
        await road.pipeline.take([*poll(0, 1), *poll(0, partition=OTHER)])
        await eventually(lambda: road.writer.attempts)
        await road.pipeline.take(poll(2, 3))
        road.pipeline.forget([PLACED])
        road.writer.gate.set()
        assert await road.settled()
    assert road.committed == {OTHER: 1}
    assert road.offsets == [0]


async def test_chunks_of_an_earlier_holding_are_not_written_for_a_later_one():
    async with a_road() as road:
        road.writer.gate.clear()
        road.writer.failures = [TransientFailure("08006 gone")]
        await road.pipeline.take(poll(0, 1))
        await eventually(lambda: road.writer.attempts)
        road.pipeline.forget([PLACED])
        road.pipeline.hold(POSITIONS, [a_state(sought=None)])
        road.writer.gate.set()
        assert await road.settled()
        assert road.writer.written == []
        await road.pipeline.take(poll(0, 1))
        assert await road.settled()
    assert road.offsets == [0, 1]


async def test_records_of_a_partition_whose_position_is_unknown_wait():
    async with a_road(PLACED) as road:
        road.consumer.held = frozenset({PLACED, OTHER})
        await road.pipeline.take(poll(5, partition=OTHER))
        assert road.consumer.paused == {OTHER}
        road.pipeline.hold(POSITIONS, [a_state(5, partition=OTHER, sought=None)])
        assert road.consumer.sought[-1] == (OTHER, 5)
        assert road.consumer.paused == set()


async def test_reading_begins_at_the_last_record_of_the_account():
    async with a_road() as road:
        road.pipeline.forget([PLACED])
        road.pipeline.hold(POSITIONS, [a_state(7, sought=None, anchor=Anchor(6, 1_000))])
        assert road.consumer.sought[-1] == (PLACED, 6)
        await road.pipeline.take([a_record(6, timestamp=2_000)])
    assert road.relocated == [(PLACED, "the record at offset 6 is another one")]
    assert PLACED not in road.pipeline.states


async def test_a_gap_is_sought_before_it_is_skipped():
    async with a_road() as road:
        await road.pipeline.take(poll(0, 3))
        assert road.consumer.sought[-1] == (PLACED, 1)
        await road.pipeline.take(poll(3))
        assert await road.settled()
    assert road.offsets == [0, 3]
    assert road.committed == {PLACED: 4}


async def test_a_gap_before_the_logs_beginning_is_lost_and_others_are_not():
    asked: list[Partition] = []

    async def begins_at_4(partition: Partition) -> int:
        asked.append(partition)
        return 4

    async with a_road() as road:
        road.pipeline.log_begin = begins_at_4
        for _ in range(3):
            await road.pipeline.take(poll(4, 5, 8))
        assert await road.settled()
    assert road.offsets == [4, 5, 8]
    lost = [chunk.lost for batch in road.writer.batches for chunk in batch.chunks]
    assert [stretch for stretch in lost if stretch] == [(0, 4)]
    assert set(asked) == {PLACED}


async def test_a_gap_is_read_once_more_where_kafka_does_not_say_where_the_log_begins():
    answers = [None, 4]

    async def sometimes(_partition: Partition) -> int | None:
        return answers.pop(0)

    async with a_road() as road:
        road.pipeline.log_begin = sometimes
        await road.pipeline.take(poll(4, 5))
        await road.pipeline.take(poll(4, 5))
        assert await road.settled()
        assert road.offsets == []
        assert road.consumer.sought[-1] == (PLACED, 0)
        await road.pipeline.take(poll(4, 5))
        assert await road.settled()
    assert road.offsets == [4, 5]
    assert answers == []


async def test_a_tripped_breaker_pauses_its_topic_and_says_so():
    async with a_road(limit=0.5) as road:
        await road.pipeline.take(poll(*range(WINDOW + 10), value=b"bad"))
        assert await road.settled()
        assert road.consumer.paused == {PLACED}
        assert road.consumer.sought[-1] == (PLACED, WINDOW - 1)
        assert "mend the producer" in road.health.check("breaker").detail
        await road.pipeline.take(poll(WINDOW - 1))
        assert await road.settled()
    assert len(road.writer.parked) == WINDOW - 1
    assert road.metrics.value("paused", {"topic": PLACED.topic}) == 1


async def test_after_closing_nothing_is_taken_and_what_was_taken_is_written():
    async with a_road() as road:
        road.writer.gate.clear()
        await road.pipeline.take(poll(0))
        road.pipeline.close()
        await road.pipeline.take(poll(1))
        assert not await road.pipeline.settle(0.01)
        road.writer.gate.set()
        assert await road.settled()
    assert road.offsets == [0]


async def test_closing_frees_a_poll_that_waits_for_room():
    async with a_road(max_records=1) as road:
        road.writer.gate.clear()
        polls = [asyncio.create_task(road.pipeline.take(poll(n))) for n in range(4)]
        await eventually(lambda: road.writer.attempts)
        road.pipeline.close()
        async with asyncio.timeout(5):
            await asyncio.gather(*polls)


async def test_an_idle_road_settles_at_once():
    async with a_road() as road:
        assert await road.pipeline.settle(0)


def test_a_poll_is_taken_apart_by_partition():
    records = [*poll(0, 1), *poll(4, partition=OTHER)]
    assert list(runs(records)) == [(PLACED, records[:2]), (OTHER, records[2:])]
    assert list(runs(records[:2])) == [(PLACED, records[:2])]
    assert list(runs([])) == []


async def test_records_fetched_before_a_partition_was_held_anew_are_not_judged_by_its_new_position():
    """Else they would look like a log that begins anew, and the account of a live one would be retired."""
    relocated = []
    async with a_road(PLACED, OTHER) as road:
        road.pipeline.relocate = lambda state, reason: relocated.append(reason)
        taking = asyncio.create_task(
            road.pipeline.take([*poll(*range(500)), *poll(*range(50, 60), partition=OTHER)])
        )
        await asyncio.sleep(0)  # the first partition is being decoded
        road.pipeline.forget([OTHER])
        road.pipeline.hold(POSITIONS, [a_state(1_000, partition=OTHER, anchor=Anchor(999, 123))])
        await taking
    assert relocated == []
