"""The upkeep of the ledger of clicks: partitions made ahead, and closed where retention is switched on."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import structlog

from counterfoil.database.connection import Connection
from counterfoil.database.queries import sql
from counterfoil.settings import Settings

log = structlog.get_logger("counterfoil.clicks")

MONTHS_AHEAD = 3

CLOSES_WITHIN_S = 3_600.0
"""A month of clicks is counted before it is closed; nobody waits for that, and nothing is locked meanwhile."""


async def keep_partitions(connection: Connection, settings: Settings) -> None:
    """Make the partitions of the months ahead, and close those older than RETENTION_DAYS_CLICKS where it is set.

    Any number of workers may: one does it at a time, and the next finds it done. Raises LockNotAvailableError where the
    ledger is in use for long; nothing is lost by trying again later.
    """
    for row in await connection.fetch(sql("make_click_partitions"), MONTHS_AHEAD):
        log.info("partition_made", partition=row["partition"])
    if settings.retention_days_clicks is not None:
        before = datetime.now(UTC).date() - timedelta(days=settings.retention_days_clicks)
        async with connection.transaction():
            await connection.execute(sql("take_as_long_as_it_takes"))
            closed = await connection.fetch(sql("close_click_partitions"), before, timeout=CLOSES_WITHIN_S)
        for row in closed:
            log.info("partition_closed", partition=row["partition"])
