"""The engine: batches follow on one another, are as large as they may be, and no faster than they may be."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping

import pytest

from counterfoil.errors import DependencyUnreachable, HaltingFailure, PoisonRecord, TransientFailure
from counterfoil.events import EVENT_TYPES, Rules
from counterfoil.ingest.batches import Batch
from counterfoil.ingest.positions import Positions
from counterfoil.ingest.routes import Route
from counterfoil.ingest.writer import Planned, Written
from counterfoil.replaying import engine as engines
from counterfoil.replaying.engine import Engine, Pace
from counterfoil.replaying.sources import Read, Stretch
from support.builders import CANCELED, PLACED, a_record, a_state
from support.postgres_road import plain_settings

ROUTES = [Route(p.topic, p.topic, EVENT_TYPES[p.topic].decode, ()) for p in (PLACED, CANCELED)]
POSITIONS = Positions("cluster-1", "a replay")


class Log:
    """A source of given reads; each is (partition, offsets that hold a record, next offset)."""

    def __init__(self, *reads) -> None:
        self.notes: list[str] = []
        self.sought: dict[object, int] = {}
        self._reads = reads

    async def open(self) -> list[Stretch]:
        return []

    def seek(self, partition, offset) -> None:
        self.sought[partition] = offset

    async def read(self, ends: Mapping[object, int]) -> AsyncIterator[Read]:
        at = dict(self.sought)
        for partition, offsets, following in self._reads:
            records = [a_record(o, b'{"id": 1}', topic=partition.topic) for o in offsets]
            yield Read(partition, records, at[partition], following)
            at[partition] = following
            await asyncio.sleep(0)

    async def close(self) -> None:
        pass


class Books:
    """Writes into a list; `failing` are raised one after another before."""

    def __init__(self, *failing: Exception, stale: bool = False) -> None:
        self.batches: list[Batch] = []
        self._failing = list(failing)
        self._stale = stale

    async def plan(self, batch: Batch) -> Planned:
        return Planned(batch, ())

    async def write(self, planned: Planned, positions: Positions) -> Written:
        if self._failing:
            raise self._failing.pop(0)
        self.batches.append(planned.batch)
        return Written((), frozenset({PLACED} if self._stale else ()))

    def runs(self, partition=PLACED) -> list[tuple[int, int, list[int]]]:
        return [
            (chunk.first_offset, chunk.next_offset, [r.offset for r in chunk.records])
            for batch in self.batches
            for chunk in batch.chunks
            if chunk.partition == partition
        ]


async def replayed(log, books, *, most=100, pace=None, states=(PLACED,), told=None):
    moved: dict[object, int] = {}
    engine = Engine(
        ROUTES, Rules.of(plain_settings()), books, pace or Pace(), moved.update,
        tell=(told if told is not None else []).append, batch_records=most,
    )  # fmt: skip
    await engine.run(log, dict.fromkeys(states, 1000), POSITIONS, [a_state(partition=p) for p in states])
    return moved


async def test_chunks_follow_on_one_another_and_what_lies_between_belongs_to_them():
    books = Books()
    moved = await replayed(
        Log((PLACED, [0, 1], 2), (PLACED, [5], 9), (PLACED, [], 20), (PLACED, [20], 21)), books
    )
    assert books.runs() == [(0, 2, [0, 1]), (2, 20, [5]), (20, 21, [20])]
    assert moved == {PLACED: 21}


async def test_a_stretch_without_any_record_moves_the_position():
    books = Books()
    assert await replayed(Log((PLACED, [], 500), (PLACED, [], 1_000)), books) == {PLACED: 1_000}
    assert books.runs() == [(0, 1_000, [])]


async def test_batches_are_cut_to_what_they_may_hold():
    books = Books()
    reads = [(PLACED, range(n, n + 40), n + 40) for n in range(0, 400, 40)]
    await replayed(Log(*reads), books, most=64)
    sizes = [len(batch) for batch in books.batches]
    assert sum(sizes) == 400
    assert set(sizes[:-1]) == {64}
    assert [first for first, _, _ in books.runs()][1:] == [end for _, end, _ in books.runs()][:-1]


async def test_several_partitions_share_a_batch():
    books = Books()
    log = Log((PLACED, [0], 1), (CANCELED, [0], 1), (PLACED, [1], 2))
    await replayed(log, books, states=(PLACED, CANCELED))
    assert (len(books.batches), books.runs(CANCELED)) == (1, [(0, 1, [0])])


async def test_records_pass_no_faster_than_they_may():
    books = Books()
    began = time.monotonic()
    await replayed(Log((PLACED, range(60), 60)), books, pace=Pace(100))
    assert time.monotonic() - began < 0.5  # a second's worth may pass at once
    await replayed(Log((PLACED, range(30), 30)), books, pace=Pace(20))
    assert [len(batch) for batch in books.batches] == [60, 20, 10]
    assert time.monotonic() - began >= 1


async def test_what_the_database_refuses_is_parked_alone():
    class Refusing(Books):
        async def write(self, planned, positions):
            if any(5 in chunk.offsets for chunk in planned.batch.chunks):
                raise PoisonRecord("22003", "database")
            return await super().write(planned, positions)

    books = Refusing()
    await replayed(Log((PLACED, [], 3), (PLACED, range(3, 9), 12)), books)
    assert [m.record.offset for b in books.batches for c in b.chunks for m in c.malformed] == [5]
    assert sorted(r.offset for b in books.batches for c in b.chunks for r in c.records) == list(range(3, 9))
    assert [first for first, _, _ in books.runs()][1:] == [end for _, end, _ in books.runs()][:-1]


async def test_a_database_that_is_away_is_tried_again_and_said(monkeypatch):
    told: list[str] = []
    books = Books(TransientFailure("57P01 gone"), TransientFailure("57P01 gone"))
    await replayed(Log((PLACED, [0], 1)), books, told=told)
    assert books.runs() == [(0, 1, [0])]
    assert [line.partition(";")[0] for line in told] == ["PostgreSQL: 57P01 gone"] * 2

    monkeypatch.setattr(engines, "GIVE_UP_S", 0)
    with pytest.raises(DependencyUnreachable, match="57P01 gone"):
        await replayed(Log((PLACED, [0], 1)), Books(TransientFailure("57P01 gone")), told=told)


async def test_a_position_that_another_moved_ends_it_but_not_one_that_our_broken_commit_did():
    with pytest.raises(HaltingFailure, match="another process has taken this replay over"):
        await replayed(Log((PLACED, [0], 1)), Books(stale=True))
    assert await replayed(Log((PLACED, [0], 1)), Books(TransientFailure("08006"), stale=True)) == {PLACED: 1}


async def test_an_error_of_the_source_comes_out_as_it_is():
    class Broken(Log):
        async def read(self, ends):
            raise DependencyUnreachable("Kafka at nowhere: away")
            yield

    with pytest.raises(DependencyUnreachable, match="Kafka at nowhere"):
        await replayed(Broken(), Books())
