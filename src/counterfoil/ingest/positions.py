"""Positions in the database: where each partition has been read to, and its account."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import asyncpg

from counterfoil.database.connection import Connection
from counterfoil.database.queries import sql
from counterfoil.ingest.partitions import Anchor, Partition, PartitionState
from counterfoil.ingest.records import milliseconds_of, timestamp_of

FirstOffsets = Callable[[list[Partition]], Awaitable[Mapping[Partition, int]]]
"""Partitions → the first offset that the log still holds of each."""


@dataclass(slots=True)
class Account:
    """What became of the records of one partition in a batch.

    `lost` are the stretches, first and next offset, of those skipped that Kafka deleted before they were read.
    """

    partition: Partition
    first_offset: int
    next_offset: int
    dead: int = 0
    duplicates: int = 0
    skipped: int = 0
    last_offset: int | None = None
    last_timestamp: int | None = None
    lost: tuple[tuple[int, int], ...] = ()

    @property
    def applied(self) -> int:
        """Records that added or changed a row or had nothing to add: all the others."""
        return self.next_offset - self.first_offset - self.dead - self.duplicates - self.skipped


class Positions:
    """The positions of one consumer group on one cluster."""

    def __init__(self, cluster_id: str, group: str) -> None:
        self.cluster_id = cluster_id
        self.group = group

    async def load(
        self, connection: Connection, partitions: Iterable[Partition], first_offsets: FirstOffsets
    ) -> list[PartitionState]:
        """The state of each partition; an account is opened, at the log's beginning, where there is none."""
        wanted = sorted(partitions)
        found = await self._find(connection, wanted)
        new = [partition for partition in wanted if partition not in found]
        if new:
            offsets = await first_offsets(new)
            await connection.execute(
                sql("create_positions"), self.cluster_id, self.group, *_split(new), [offsets[p] for p in new]
            )
            found |= await self._find(connection, new)
        sources = await _sources(connection, self.cluster_id, wanted)
        return [_state(self.cluster_id, p, sources[p], found[p]) for p in wanted]

    async def lock(self, connection: Connection, partitions: Iterable[Partition]) -> dict[Partition, int]:
        """Hold the positions of these partitions until the transaction ends; partition → next offset."""
        rows = await connection.fetch(
            sql("lock_positions"), self.cluster_id, self.group, *_split(sorted(partitions))
        )
        return {Partition(row["topic"], row["partition"]): row["next_offset"] for row in rows}

    async def advance(self, connection: Connection, accounts: Sequence[Account]) -> None:
        """Write the accounts of held positions."""
        await connection.execute(
            sql("advance_positions"),
            self.cluster_id,
            self.group,
            *_split([account.partition for account in accounts]),
            [account.next_offset for account in accounts],
            [account.applied for account in accounts],
            [account.duplicates for account in accounts],
            [account.dead for account in accounts],
            [account.skipped for account in accounts],
            [account.last_offset for account in accounts],
            [None if a.last_timestamp is None else timestamp_of(a.last_timestamp) for a in accounts],
        )
        lost = [(account.partition, *stretch) for account in accounts for stretch in account.lost]
        if lost:
            partitions, firsts, nexts = zip(*lost, strict=True)
            await connection.execute(
                sql("record_lost_offsets"), self.cluster_id, self.group, *_split(partitions), firsts, nexts
            )

    async def restart(
        self, connection: Connection, partition: Partition, seen: int, first_offset: int, reason: str
    ) -> None:
        """Retire the account of a log that is gone and open one at the beginning of the log in its place.

        Does nothing when the position no longer stands where it was seen: another worker was first.
        """
        key = (self.cluster_id, self.group, partition.topic, partition.partition, seen)
        async with connection.transaction():
            await connection.execute(sql("retire_position"), *key, reason)
            await connection.execute(sql("restart_position"), *key, first_offset)

    async def _find(
        self, connection: Connection, partitions: list[Partition]
    ) -> dict[Partition, asyncpg.Record]:
        rows = await connection.fetch(sql("find_positions"), self.cluster_id, self.group, *_split(partitions))
        return {Partition(row["topic"], row["partition"]): row for row in rows}


async def find_or_create_source(connection: Connection, cluster_id: str, partition: Partition) -> int:
    """The number of one log partition."""
    return (await _sources(connection, cluster_id, [partition]))[partition]


async def _sources(
    connection: Connection, cluster_id: str, partitions: list[Partition]
) -> dict[Partition, int]:
    found = await _find_sources(connection, cluster_id, partitions)
    new = [partition for partition in partitions if partition not in found]
    if new:
        await connection.execute(sql("create_sources"), cluster_id, *_split(new))
        found |= await _find_sources(connection, cluster_id, new)
    return found


async def _find_sources(
    connection: Connection, cluster_id: str, partitions: list[Partition]
) -> dict[Partition, int]:
    rows = await connection.fetch(sql("find_sources"), cluster_id, *_split(partitions))
    return {Partition(row["topic"], row["partition"]): row["id"] for row in rows}


def _state(cluster_id: str, partition: Partition, source_id: int, row: asyncpg.Record) -> PartitionState:
    anchor = None
    if row["last_offset"] is not None and row["last_record_at"] is not None:
        anchor = Anchor(row["last_offset"], milliseconds_of(row["last_record_at"]))
    position = row["next_offset"]
    return PartitionState(partition, source_id, position, position, anchor, cluster_id=cluster_id)


def _split(partitions: Sequence[Partition]) -> tuple[list[str], list[int]]:
    return [p.topic for p in partitions], [p.partition for p in partitions]
