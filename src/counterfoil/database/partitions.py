"""The upkeep of a ledger that is partitioned by time: partitions made ahead, and closed where there is a retention."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import structlog

from counterfoil.database.connection import Connection
from counterfoil.database.queries import sql

log = structlog.get_logger("counterfoil.database")

MONTHS_AHEAD = 3

CLOSES_WITHIN_S = 3_600.0
"""A month is counted before it is closed; nobody waits for that, and nothing is locked meanwhile."""


@dataclass(frozen=True, slots=True)
class PartitionedLedger:
    """The statements of a ledger: `make` takes how many months ahead, `close` a day; both answer partitions."""

    make: str
    close: str


async def keep_partitions(
    connection: Connection, ledger: PartitionedLedger, retention_days: int | None
) -> None:
    """Make the partitions of the months ahead, and close those older than the retention where there is one.

    Any number of workers may: one does it at a time, and the next finds it done. Raises LockNotAvailableError where the
    ledger is in use for long; nothing is lost by trying again later.
    """
    for row in await connection.fetch(sql(ledger.make), MONTHS_AHEAD):
        log.info("partition_made", partition=row["partition"])
    if retention_days is not None:
        before = datetime.now(UTC).date() - timedelta(days=retention_days)
        async with connection.transaction():
            await connection.execute(sql("take_as_long_as_it_takes"))
            closed = await connection.fetch(sql(ledger.close), before, timeout=CLOSES_WITHIN_S)
        for row in closed:
            log.info("partition_closed", partition=row["partition"])
