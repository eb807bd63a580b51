"""What is due by the clock: claims whose voucher has expired."""

from __future__ import annotations

import asyncpg
import structlog

from counterfoil.database.queries import sql
from counterfoil.settings import Settings

log = structlog.get_logger("counterfoil.vouchers")

EXPIRED_AT_ONCE = 5_000


async def expire_claims(pool: asyncpg.Pool, settings: Settings) -> int:  # noqa: ARG001 - as every job
    """Mark the claims of vouchers whose time has passed without redemption; answers how many."""
    expired = 0
    async with pool.acquire() as connection:
        while count := await connection.fetchval(sql("expire_claims"), EXPIRED_AT_ONCE):
            expired += count
    if expired:
        log.info("claims_expired", count=expired)
    return expired
