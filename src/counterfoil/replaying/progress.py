"""Where a replay that writes stands: its own accounts, beside the positions of the live groups."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import asyncpg

from counterfoil.database.connection import Connection
from counterfoil.database.queries import sql
from counterfoil.ingest.partitions import Anchor, Partition, PartitionState
from counterfoil.ingest.positions import Account, Positions, find_or_create_source
from counterfoil.ingest.records import milliseconds_of, timestamp_of
from counterfoil.replaying.sources import Stretch


class ReplayPositions(Positions):
    """The positions of one replay on one cluster, in `replay_positions`."""

    def __init__(self, replay_id: int, cluster_id: str) -> None:
        super().__init__(cluster_id, f"replay {replay_id}")
        self.replay_id = replay_id

    async def open(self, connection: Connection, stretches: Sequence[Stretch]) -> list[PartitionState]:
        """Where each stretch is to be read on from; an account is opened where there is none."""
        partitions = sorted(stretch.partition for stretch in stretches)
        by_partition = {stretch.partition: stretch for stretch in stretches}
        await connection.execute(
            sql("open_replay_positions"),
            self.replay_id,
            self.cluster_id,
            *_split(partitions),
            [by_partition[p].first_offset for p in partitions],
            [by_partition[p].end_offset for p in partitions],
        )
        found = await self._places(connection, partitions)
        return [
            PartitionState(
                partition,
                await find_or_create_source(connection, self.cluster_id, partition),
                found[partition]["next_offset"],
                found[partition]["next_offset"],
                _anchor(found[partition]),
                cluster_id=self.cluster_id,
            )
            for partition in partitions
        ]

    async def left(self, connection: Connection, stretches: Sequence[Stretch]) -> int:
        """How many offsets of these stretches have not been accounted for."""
        found = await self._places(connection, [stretch.partition for stretch in stretches])
        return sum(max(0, s.end_offset - found[s.partition]["next_offset"]) for s in stretches)

    async def _places(
        self, connection: Connection, partitions: Sequence[Partition]
    ) -> dict[Partition, asyncpg.Record]:
        rows = await connection.fetch(sql("find_replay_positions"), self.replay_id, *_split(partitions))
        return {Partition(row["topic"], row["partition"]): row for row in rows}

    async def lock(self, connection: Connection, partitions: Iterable[Partition]) -> dict[Partition, int]:
        """Hold the positions of these partitions until the transaction ends; partition → next offset."""
        rows = await connection.fetch(
            sql("lock_replay_positions"), self.replay_id, *_split(sorted(partitions))
        )
        return {Partition(row["topic"], row["partition"]): row["next_offset"] for row in rows}

    async def advance(self, connection: Connection, accounts: Sequence[Account]) -> None:
        """Write the accounts of held positions; what was passed over is what was skipped."""
        await connection.execute(
            sql("advance_replay_positions"),
            self.replay_id,
            *_split([account.partition for account in accounts]),
            [account.next_offset for account in accounts],
            [account.applied for account in accounts],
            [account.duplicates for account in accounts],
            [account.dead for account in accounts],
            [account.skipped for account in accounts],
            [account.last_offset for account in accounts],
            [None if a.last_timestamp is None else timestamp_of(a.last_timestamp) for a in accounts],
        )

    async def count(
        self, connection: Connection, overwritten: Mapping[Partition, int], released: Mapping[Partition, int]
    ) -> None:
        """Add rows that were put right and dead letters that went through to the accounts of held positions."""
        partitions = sorted({*overwritten, *released})
        if partitions:
            await connection.execute(
                sql("count_replayed"),
                self.replay_id,
                *_split(partitions),
                [overwritten.get(p, 0) for p in partitions],
                [released.get(p, 0) for p in partitions],
            )


def _anchor(row: asyncpg.Record) -> Anchor | None:
    """The last record that was read, to know its log again by; None where there was none."""
    if row["last_offset"] is None:
        return None
    return Anchor(row["last_offset"], milliseconds_of(row["last_record_at"]))


def _split(partitions: Sequence[Partition]) -> tuple[list[str], list[int]]:
    return [p.topic for p in partitions], [p.partition for p in partitions]
