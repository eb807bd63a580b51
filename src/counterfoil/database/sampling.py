"""What the metrics tell of whole tables: looked at once a minute, beside the road and not on it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import asyncpg
import structlog

from counterfoil.database.connection import Connection
from counterfoil.database.pool import UNREACHABLE, one_line
from counterfoil.telemetry.metrics import Metrics

log = structlog.get_logger("counterfoil.database")

EVERY_S = 60.0

Sample = Callable[[Connection, Metrics], Awaitable[None]]


async def sample_forever(pool: asyncpg.Pool, metrics: Metrics, samples: Sequence[Sample]) -> None:
    """Take every sample now and each minute, until cancelled; one that fails leaves its gauges as they are."""
    while True:
        for sample in samples:
            try:
                async with pool.acquire() as connection:
                    await sample(connection, metrics)
            except (*UNREACHABLE, asyncpg.PostgresError) as error:
                log.warning(
                    "sampling_failed", sample=sample.__name__, reason=one_line(error), next_in_s=EVERY_S
                )
        await asyncio.sleep(EVERY_S)
