"""The road without Kafka: records through the real decoders, routes, writer and positions into PostgreSQL."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager

import asyncpg

from counterfoil.events import Rules
from counterfoil.ingest.batches import Batch
from counterfoil.ingest.breaker import Breaker
from counterfoil.ingest.decoding import Decoder
from counterfoil.ingest.partitions import Partition, PartitionState
from counterfoil.ingest.positions import Positions
from counterfoil.ingest.records import Record
from counterfoil.ingest.writer import Writer, Written
from counterfoil.routing import routes
from counterfoil.settings import Settings, load_settings
from counterfoil.telemetry.metrics import Metrics

CLUSTER = "cluster-1"


def plain_settings(**given: object) -> Settings:
    """Settings of this test alone: no `.env` is read."""
    return load_settings(_env_file=None, **given)


class Scribe:
    """One worker's writing half: it holds partitions, reads records and writes batches."""

    def __init__(
        self,
        pool: asyncpg.Pool,
        *,
        group: str = "counterfoil",
        timeout_s: float = 30.0,
        settings: Settings | None = None,
    ) -> None:
        settings = settings or plain_settings()
        self.pool = pool
        known = routes(settings, b"a key of tests")
        self.writer = Writer(pool, known, timeout_s)
        self.positions = Positions(CLUSTER, group)
        self.states: dict[Partition, PartitionState] = {}
        rules, metrics = Rules.of(settings), Metrics()
        self._decoders = {route.topic: Decoder(route, rules, Breaker(1), metrics) for route in known}

    async def hold(self, partitions: Collection[Partition]) -> None:
        """Read the positions of these partitions, opening accounts at offset 0."""

        async def from_zero(wanted: list[Partition]) -> Mapping[Partition, int]:
            return dict.fromkeys(wanted, 0)

        async with self.pool.acquire() as connection:
            for state in await self.positions.load(connection, partitions, from_zero):
                self.states[state.partition] = state

    async def batch_of(self, records: Sequence[Record]) -> Batch:
        """A batch of these records, each partition's in order and following its position."""
        by_partition: dict[Partition, list[Record]] = {}
        for record in records:
            by_partition.setdefault(Partition(record.topic, record.partition), []).append(record)
        if missing := by_partition.keys() - self.states.keys():
            await self.hold(missing)
        return Batch(
            [
                await self._decoders[partition.topic].decode(self.states[partition], run)
                for partition, run in by_partition.items()
            ]
        )

    async def write(self, records: Sequence[Record]) -> Written:
        """Write these records in one transaction, and move on."""
        written = await self.write_unseen(records)
        for account in written.accounts:
            state = self.states[account.partition]
            state.stored = state.expected = account.next_offset
        return written

    async def write_unseen(self, records: Sequence[Record]) -> Written:
        """Write these records, and not notice that they are written."""
        return await self.write_batch(await self.batch_of(records))

    async def write_batch(self, batch: Batch) -> Written:
        """Plan and write one batch."""
        return await self.writer.write(await self.writer.plan(batch), self.positions)


@asynccontextmanager
async def scribes(address: str, count: int = 1, **options: object) -> AsyncIterator[list[Scribe]]:
    """Some workers' writing halves on one pool."""
    async with asyncpg.create_pool(address, min_size=0, max_size=2 * count + 2) as pool:
        workers = [Scribe(pool, **options) for _ in range(count)]  # type: ignore[arg-type]
        try:
            yield workers
        finally:  # a pool waits for its connections
            for worker in workers:
                await worker.writer.close()
