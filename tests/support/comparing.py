"""A log compared with the ledgers, and ledgers as they were written: what comparisons are tested with."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import asyncpg

from counterfoil.database import locks
from counterfoil.database.comparison import (
    ComparesRows,
    Comparison,
    Difference,
    Rows,
    find_differences,
    overwrite,
)
from counterfoil.ingest.batches import Batch
from counterfoil.ingest.partitions import Partition
from counterfoil.ingest.records import Record
from support.postgres_road import Scribe, plain_settings

EVERY_LEDGER = plain_settings(attribute_by_coupon=True)
"""Orders' totals are kept too."""

UNLIKE = {
    "promo_code_uses": "id",
    "partners": "created_at",
    "partner_users": "created_at",
    "programs": "created_at",
    "program_enrollments": "created_at",
}
"""What of a row is another once it was written anew, besides where and when it came from."""

TOLD = {"vouchers": "created_at IS NOT NULL"}

TABLES = (
    "affiliate_coupon_usages",
    "promo_code_uses",
    "order_cancellations",
    "order_refunds",
    "order_totals",
    "conversions",
    "aff_clicks",
    "shop_users",
    "links",
    "partners",
    "partner_users",
    "programs",
    "program_enrollments",
    "vouchers",
    "voucher_impressions",
    "customer_vouchers",
    "redemption_attempts",
    "voucher_scans",
    "inventory_events",
)


class Comparer(Scribe):
    """Reads records again, as a group of its own that may begin anywhere, and compares what they say."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        super().__init__(pool, group="comparer", settings=EVERY_LEDGER)

    async def batch_of(self, records: Sequence[Record]) -> Batch:
        """A batch of these records, wherever they begin."""
        first: dict[Partition, int] = {}
        for record in records:
            first.setdefault(Partition(record.topic, record.partition), record.offset)
        await self.hold(first)
        for partition, offset in first.items():
            self.states[partition].stored = self.states[partition].expected = offset
        return await super().batch_of(records)

    def source_id(self, record: Record) -> int:
        """The number of the partition that a record came from."""
        return self.states[Partition(record.topic, record.partition)].source_id

    async def comparisons(
        self, connection: asyncpg.Connection, records: Sequence[Record]
    ) -> list[tuple[Comparison, Rows]]:
        """The rows that these records ask to be compared, of all handlers: each can say so."""
        planned = await self.writer.plan(await self.batch_of(records))
        found = []
        for _, steps in planned.steps:
            for handler, plan in steps:
                assert isinstance(handler, ComparesRows)
                found += await handler.comparisons(connection, plan)
        return found

    async def differences(self, db: asyncpg.Connection, records: Sequence[Record]) -> list[Difference]:
        """What differs from these records, found where nothing may be written."""
        async with db.transaction(readonly=True):
            return [
                difference
                for comparison, rows in await self.comparisons(db, records)
                for difference in await find_differences(db, comparison, rows)
            ]

    async def overwrite(self, db: asyncpg.Connection, records: Sequence[Record]) -> int:
        """Set right what differs from these records; how many rows."""
        async with db.transaction():
            found = await self.comparisons(db, records)
            await locks.hold(db, [lock for comparison, _ in found for lock in comparison.locks])
            return sum([await overwrite(db, comparison, rows) for comparison, rows in found])

    async def heal(self, db: asyncpg.Connection, writer: Scribe, records: Sequence[Record]) -> None:
        """Overwrite what differs from these records, and let another group write what is missing."""
        await self.overwrite(db, records)
        await writer.write(records)


@asynccontextmanager
async def comparers(address: str) -> AsyncIterator[tuple[Scribe, Comparer, Scribe]]:
    """A worker's writing half, a comparer, and the writing half of a worker in a group that has read nothing yet."""
    async with asyncpg.create_pool(address, min_size=0, max_size=6) as pool:
        worker, replay = (
            Scribe(pool, group=group, settings=EVERY_LEDGER) for group in ("counterfoil", "replay")
        )
        try:
            yield worker, Comparer(pool), replay
        finally:
            await worker.writer.close()
            await replay.writer.close()


async def ledgers(db: asyncpg.Connection, *, sources: bool = False) -> dict[str, list[str]]:
    """Table → its rows as text, without when they were written, and where they came from unless that is asked for.

    A voucher that no event has told of is no row: it is made for a scan by hand, and stays.
    """
    left_out = ["updated_at"] if sources else ["updated_at", "source_id", "source_offset"]
    return {
        table: [
            row["row"]
            for row in await db.fetch(
                f"SELECT (to_jsonb(t) - $1::text[])::text AS row FROM {table} AS t "
                f"WHERE {TOLD.get(table, 'true')} ORDER BY 1",
                [*left_out, UNLIKE.get(table, "")],
            )
        ]
        for table in TABLES
    }
