"""What the metrics tell of all vouchers together: looked at once a minute, beside the road and not on it."""

from __future__ import annotations

import asyncio
from math import nan

import asyncpg
import structlog

from counterfoil.database.connection import Connection
from counterfoil.database.pool import one_line
from counterfoil.database.queries import sql
from counterfoil.telemetry.metrics import Metrics

log = structlog.get_logger("counterfoil.vouchers")

EVERY_S = 60.0


async def run_forever(pool: asyncpg.Pool, metrics: Metrics) -> None:
    """Sample now and every minute, until cancelled; a failure leaves the gauges as they are."""
    while True:
        try:
            async with pool.acquire() as connection:
                await sample_scans(connection, metrics)
                await sample_conversion(connection, metrics)
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            log.warning("sampling_failed", reason=one_line(error), next_in_s=EVERY_S)
        await asyncio.sleep(EVERY_S)


async def sample_scans(connection: Connection, metrics: Metrics) -> None:
    """The last full minute."""
    (row,) = await connection.fetch(sql("sample_scans"))
    metrics.scans_per_minute.set(row["scans"])
    metrics.unique_scanners.set(row["users"])
    metrics.scan_places.set(row["places"])


async def sample_conversion(connection: Connection, metrics: Metrics) -> None:
    """Today, as far as it has come."""
    (row,) = await connection.fetch(sql("sample_conversion"))
    metrics.scan_to_claim_ratio.set(row["claims"] / row["scans"] if row["scans"] else nan)
    metrics.claim_to_redemption_ratio.set(row["redemptions"] / row["claims"] if row["claims"] else nan)
