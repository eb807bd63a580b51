"""Asks the database once a second whether it is there, for the readiness probe."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import asyncpg

from counterfoil.database.pool import one_line
from counterfoil.telemetry.health import Health

INTERVAL_S = 1.0
ANSWER_WITHIN_S = 3.0


async def watch_database(pool: asyncpg.Pool, health: Health, in_trouble: Callable[[], bool]) -> None:
    """Write the check `database` until cancelled; a writer that is in trouble says itself when it is over."""
    check = health.check("database")
    while True:
        try:
            async with asyncio.timeout(ANSWER_WITHIN_S), pool.acquire() as connection:
                await connection.execute("SELECT 1")
        except Exception as error:  # noqa: BLE001 - whatever it is, the database does not answer as it should
            check.failed(one_line(error))
        else:
            if not in_trouble():
                check.passed()
        await asyncio.sleep(INTERVAL_S)
