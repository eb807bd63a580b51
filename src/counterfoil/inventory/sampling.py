"""What the metrics tell of all products together: looked at once a minute, beside the road and not on it."""

from __future__ import annotations

import asyncio

import asyncpg
import structlog

from counterfoil.database.connection import Connection
from counterfoil.database.pool import one_line
from counterfoil.database.queries import sql
from counterfoil.telemetry.metrics import Metrics

log = structlog.get_logger("counterfoil.inventory")

EVERY_S = 60.0


async def run_forever(pool: asyncpg.Pool, metrics: Metrics) -> None:
    """Sample now and every minute, until cancelled; a failure leaves the gauges as they are."""
    while True:
        try:
            async with pool.acquire() as connection:
                await sample_products(connection, metrics)
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            log.warning("sampling_failed", reason=one_line(error), next_in_s=EVERY_S)
        await asyncio.sleep(EVERY_S)


async def sample_products(connection: Connection, metrics: Metrics) -> None:
    """All products, and those that are low."""
    (row,) = await connection.fetch(sql("sample_products"))
    metrics.products.set(row["products"])
    metrics.low_stock_products.set(row["low"])
