"""Which offsets of a log were read: what is live of other records is not the log's to tell."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence

from counterfoil.database.connection import Connection
from counterfoil.ingest.partitions import Partition
from counterfoil.ingest.positions import Account, Positions
from counterfoil.ingest.records import Record, next_offset
from counterfoil.replaying.kafka_log import KafkaLog
from counterfoil.replaying.sources import Read, Source, Stretch

GROUP = "shadow"
"""The consumer group of a shadow's positions, which stand in its own schema."""

Run = tuple[int, int]
"""Offsets that follow one another: the first, and the one after the last."""

# The table is made with the shadow's schema, by no migration.
_ADD = """
INSERT INTO shadow_offsets AS s (source_id, offsets) VALUES ($1, $2::text::int8multirange)
ON CONFLICT (source_id) DO UPDATE SET offsets = s.offsets + excluded.offsets
"""
_LOAD = "SELECT source_id, offsets::text AS offsets FROM shadow_offsets"


class NotedSource:
    """A source of which is noted what it has read; `runs` is by partition, in order. A log `grows`, a file does not."""

    def __init__(self, source: Source) -> None:
        self.runs: dict[Partition, list[Run]] = {}
        self.grows = isinstance(source, KafkaLog)
        self._source = source

    @property
    def notes(self) -> list[str]:
        """Those of the source."""
        return self._source.notes

    @notes.setter
    def notes(self, notes: list[str]) -> None:
        self._source.notes = notes

    async def open(self) -> list[Stretch]:
        """As the source has it."""
        return await self._source.open()

    def seek(self, partition: Partition, offset: int) -> None:
        """As the source has it."""
        self._source.seek(partition, offset)

    async def read(self, ends: Mapping[Partition, int]) -> AsyncIterator[Read]:
        """As the source has it."""
        async with contextlib.aclosing(self._source.read(ends)) as reads:  # type: ignore[type-var] # generators all
            async for read in reads:
                self.runs.setdefault(read.partition, []).extend(runs_of(read.records))
                yield read

    async def close(self) -> None:
        """As the source has it."""
        await self._source.close()

    def within(self, partition: Partition, first: int, end: int) -> list[Run]:
        """What was read between two offsets; what lies before is forgotten."""
        left = [run for run in self.runs.get(partition, ()) if run[1] > first]
        self.runs[partition] = left
        return [(max(start, first), min(stop, end)) for start, stop in left if start < end]


class ShadowPositions(Positions):
    """Where a shadow stands, and what it has read, written in the transaction of each batch."""

    def __init__(self, cluster_id: str, source: NotedSource) -> None:
        super().__init__(cluster_id, GROUP)
        self.source_ids: dict[Partition, int] = {}
        self._source = source

    async def advance(self, connection: Connection, accounts: Sequence[Account]) -> None:
        """Write the accounts of held positions, and the offsets that were read."""
        await super().advance(connection, accounts)
        for account in accounts:
            runs = self._source.within(account.partition, account.first_offset, account.next_offset)
            if runs:
                await connection.execute(_ADD, self.source_ids[account.partition], multirange(runs))


async def offsets_read(connection: Connection) -> dict[int, str]:
    """Source id → the offsets that were read of it, as an int8multirange."""
    return {row["source_id"]: row["offsets"] for row in await connection.fetch(_LOAD)}


def runs_of(records: Sequence[Record]) -> list[Run]:
    """The offsets of some records, in order, as runs."""
    runs: list[Run] = []
    for record in records:
        if runs and runs[-1][1] == record.offset:
            runs[-1] = (runs[-1][0], next_offset(record))
        else:
            runs.append((record.offset, next_offset(record)))
    return runs


def multirange(runs: Sequence[Run]) -> str:
    """Runs as PostgreSQL reads an int8multirange."""
    return "{" + ",".join(f"[{start},{stop})" for start, stop in runs) + "}"
