"""Says what is missing, what differs and what is malformed; every statement of it runs in a READ ONLY transaction."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import blake2b
from typing import Any

import asyncpg

from counterfoil.database.comparison import Difference, find_differences
from counterfoil.database.connection import Connection
from counterfoil.database.queries import sql
from counterfoil.ingest.batches import Batch, Chunk
from counterfoil.ingest.failures import classify
from counterfoil.ingest.partitions import Partition, PartitionState
from counterfoil.ingest.positions import Positions
from counterfoil.ingest.records import Malformed, timestamp_of
from counterfoil.ingest.routes import Route
from counterfoil.ingest.writer import Planned, Writer, Written
from counterfoil.replaying.applying import compared
from counterfoil.replaying.sources import Stretch

BEFORE_RETENTION = "before_retention"

CLOSED_LEDGERS = {"click": "aff_clicks", "scan": "voucher_scans", "stock-change": "inventory_events"}
"""Event type → its ledger, of those whose old months retention may close."""

Source = tuple[int, int]
"""A record by the number of its partition and its offset."""


@dataclass
class Found:
    """What a check has found of one topic; `unread` are records that the live group has not come to yet."""

    read: int = 0
    events: int = 0
    unread: int = 0
    malformed: int = 0
    not_parked: int = 0
    missing: int = 0
    differs: int = 0
    wanting: int = 0
    kinds: Counter[str] = field(default_factory=Counter)

    @property
    def already_there(self) -> int:
        """Records of which everything is as they say."""
        return self.events - self.wanting - self.unread


@dataclass
class Findings:
    """What a check has found, and the first so many rows of each kind.

    `identities` are by topic and verdict the numbers of all rows that it has told of.
    """

    limit: int
    topics: dict[str, Found] = field(default_factory=dict)
    missing: list[dict[str, Any]] = field(default_factory=list)
    differs: list[dict[str, Any]] = field(default_factory=list)
    malformed: list[dict[str, Any]] = field(default_factory=list)
    identities: dict[tuple[str, str], array[int]] = field(default_factory=dict)
    _seen: set[int] = field(default_factory=set)

    def of(self, topic: str) -> Found:
        """What was found of a topic."""
        return self.topics.setdefault(topic, Found())

    def note(self, difference: Difference, place: Mapping[str, Any]) -> None:
        """A row that is not as a record says; one that several records tell of counts once."""
        identity = _identity(difference)
        if identity in self._seen:
            return
        self._seen.add(identity)
        self.identities.setdefault((place["topic"], difference.verdict), array("Q")).append(identity)
        found = self.of(place["topic"])
        if difference.verdict == "missing":
            found.missing += 1
        else:
            found.differs += 1
        rows = self.missing if difference.verdict == "missing" else self.differs
        if len(rows) < self.limit:
            rows.append(
                {
                    **place,
                    "table": difference.table,
                    "key": list(difference.key),
                    "columns": list(difference.columns()),
                    "stored": difference.stored,
                    "wanted": difference.wanted,
                }
            )

    def note_malformed(self, malformed: Malformed, place: Mapping[str, Any], *, parked: bool) -> None:
        """A record that cannot be counted."""
        found = self.of(malformed.record.topic)
        found.malformed += 1
        found.kinds[malformed.kind] += 1
        found.not_parked += not parked
        if len(self.malformed) < self.limit:
            self.malformed.append(
                {**place, "kind": malformed.kind, "error": malformed.reason, "parked": parked}
            )


def _identity(difference: Difference) -> int:
    """The number of a row, the same in every process: there may be millions, and a number is small."""
    name = repr((difference.table, difference.key)).encode()
    return int.from_bytes(blake2b(name, digest_size=8).digest())


class CheckingWriter:
    """Stands where a writer does, and compares.

    Each batch is compared in one snapshot, in which the live group's positions are read as well: what it has not come
    to is not missing yet.
    """

    def __init__(
        self, pool: asyncpg.Pool, routes: Sequence[Route], findings: Findings, timeout_s: float
    ) -> None:
        self._pool = pool
        self._findings = findings
        self._timeout_s = timeout_s
        self._names = {route.topic: route.name for route in routes}
        self._planner = Writer(pool, routes, timeout_s)

    async def plan(self, batch: Batch) -> Planned:
        """Let the slices decide what they would write."""
        return await self._planner.plan(batch)

    async def write(self, planned: Planned, positions: Positions) -> Written:
        """Compare a batch; `positions` are those of the live group. Raises what a writer raises."""
        try:
            async with self._pool.acquire(timeout=self._timeout_s) as connection:
                snapshot = connection.transaction(isolation="repeatable_read", readonly=True)
                async with snapshot:
                    found = await self._compare(connection, planned, positions)
        except Exception as error:
            raise classify(error) from error
        found()
        return Written((), frozenset())

    async def _compare(
        self, connection: Connection, planned: Planned, positions: Positions
    ) -> Callable[[], None]:
        """What a batch comes to, to be noted once it is known whole: an attempt that fails is made again."""
        planned = await self._planner.plan_as_seen(connection, planned)
        chunks = planned.batch.chunks
        live = await _live_positions(connection, positions, planned.batch.by_partition())
        closed = await self._closed(connection, chunks)
        malformed = [m for chunk in chunks for m in chunk.malformed if _is_read(live, chunk, m.record.offset)]
        parked = await _parked(connection, positions.cluster_id, malformed)
        differences = []
        for _, steps in planned.steps:
            for comparison, rows in await compared(connection, steps):
                differences += await find_differences(connection, comparison, rows)

        def note() -> None:
            self._note(chunks, live, closed, differences)
            for each in malformed:
                where = (each.record.topic, each.record.partition, each.record.offset)
                self._findings.note_malformed(each, _place(each), parked=where in parked)
            for each in (m for found in closed.values() for m in found.values()):
                self._findings.note_malformed(each, _place(each), parked=True)

        return note

    def _note(
        self,
        chunks: Sequence[Chunk],
        live: Mapping[Partition, int],
        closed: Mapping[int, Mapping[int, Malformed]],
        differences: Sequence[Difference],
    ) -> None:
        partitions = {chunk.state.source_id: chunk.partition for chunk in chunks}
        wanting: dict[str, set[Source]] = {}
        for difference in differences:
            partition = partitions[difference.source_id]
            offset = difference.source_offset
            if offset >= live.get(partition, offset + 1) or offset in closed.get(difference.source_id, ()):
                continue
            place = {"topic": partition.topic, "partition": partition.partition, "offset": offset}
            self._findings.note(difference, place)
            wanting.setdefault(partition.topic, set()).add((difference.source_id, offset))
        for chunk in chunks:
            found = self._findings.of(chunk.partition.topic)
            gone = closed.get(chunk.state.source_id, {})
            found.read += len(chunk.records)
            good = [offset for offset in chunk.offsets if offset not in gone]
            found.events += len(good)
            found.unread += sum(not _is_read(live, chunk, offset) for offset in good)
        for topic, sources in wanting.items():
            self._findings.of(topic).wanting += len(sources)

    async def _closed(
        self, connection: Connection, chunks: Sequence[Chunk]
    ) -> dict[int, dict[int, Malformed]]:
        """By source and offset the records older than what their ledger still takes."""
        bounds = {
            row["ledger"]: row["closed_before"] for row in await connection.fetch(sql("find_ledger_bounds"))
        }
        found: dict[int, dict[int, Malformed]] = {}
        for chunk in chunks if bounds else ():
            bound = bounds.get(CLOSED_LEDGERS.get(self._names[chunk.partition.topic], ""))
            if bound is not None:
                found.setdefault(chunk.state.source_id, {}).update(_older(chunk, bound))
        return found


def _older(chunk: Chunk, bound: datetime) -> dict[int, Malformed]:
    old = {
        offset for event, offset in zip(chunk.events, chunk.offsets, strict=True) if event.timestamp < bound
    }
    reason = f"the ledger is closed before {bound:%Y-%m-%d}"
    return {r.offset: Malformed(r, BEFORE_RETENTION, reason) for r in chunk.records if r.offset in old}


def _is_read(live: Mapping[Partition, int], chunk: Chunk, offset: int) -> bool:
    """Whether the live group has come to this record; where there is no group, everything should have been read."""
    return offset < live.get(chunk.partition, offset + 1)


def _place(malformed: Malformed) -> dict[str, Any]:
    record = malformed.record
    return {"topic": record.topic, "partition": record.partition, "offset": record.offset}


async def _live_positions(
    connection: Connection, positions: Positions, partitions: Collection[Partition]
) -> dict[Partition, int]:
    rows = await connection.fetch(
        sql("find_positions"),
        positions.cluster_id,
        positions.group,
        [p.topic for p in partitions],
        [p.partition for p in partitions],
    )
    return {Partition(row["topic"], row["partition"]): row["next_offset"] for row in rows}


async def _parked(
    connection: Connection, cluster_id: str, malformed: Sequence[Malformed]
) -> set[tuple[str, int, int]]:
    if not malformed:
        return set()
    rows = await connection.fetch(
        sql("find_parked"),
        cluster_id,
        [m.record.topic for m in malformed],
        [m.record.partition for m in malformed],
        [m.record.offset for m in malformed],
        [timestamp_of(m.record.timestamp) for m in malformed],
    )
    return {(row["topic"], row["partition"], row["offset"]) for row in rows}


async def states_of(
    connection: Connection, cluster_id: str, stretches: Sequence[Stretch]
) -> list[PartitionState]:
    """Each stretch from its beginning; a partition without a number has none given here: none of its rows is there."""
    partitions = [stretch.partition for stretch in stretches]
    rows = await connection.fetch(
        sql("find_sources"), cluster_id, [p.topic for p in partitions], [p.partition for p in partitions]
    )
    known = {Partition(row["topic"], row["partition"]): row["id"] for row in rows}
    return [
        PartitionState(
            stretch.partition,
            known.get(stretch.partition, -number),
            stretch.first_offset,
            stretch.first_offset,
            cluster_id=cluster_id,
        )
        for number, stretch in enumerate(stretches, start=1)
    ]
