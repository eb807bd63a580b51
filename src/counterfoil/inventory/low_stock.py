"""The low-stock scan: finds what no change has told of, and what is low still once its cooldown is over."""

from __future__ import annotations

from datetime import timedelta
from typing import NamedTuple

import asyncpg
import structlog

from counterfoil.database.connection import Connection
from counterfoil.database.queries import sql
from counterfoil.settings import Settings

log = structlog.get_logger("counterfoil.inventory")

SCAN = "scan_stock"

AT_ONCE = 500
"""Products that are held together; a change of one of them waits for the others."""

MOST_LISTED = 1_000


class LowProduct(NamedTuple):
    """A product whose stock is below its threshold."""

    sku: str
    name: str
    stock: int
    threshold: int


class LowStock(NamedTuple):
    """The products that are lowest against their thresholds, and how many are low in all."""

    products: list[LowProduct]
    in_all: int


async def take_scan(pool: asyncpg.Pool, settings: Settings) -> int:
    """Scan, where it is due and no other worker has; answers how many alerts were raised.

    The turn is held by a transaction of its own. A worker that was stopped has lost it when it wakes, and
    goes no further.
    """
    async with pool.acquire() as holder, holder.transaction():
        if await holder.fetchval(sql("claim_turn"), SCAN, settings.stock_scan_interval_s) is None:
            return 0
        return await _scan(pool, settings, holder)


async def scan(pool: asyncpg.Pool, settings: Settings, acquire_within_s: float | None = None) -> int:
    """Scan now, whoever else does; answers how many alerts were raised.

    Raises TimeoutError when no connection is free in time.
    """
    return await _scan(pool, settings, None, acquire_within_s)


async def _scan(
    pool: asyncpg.Pool, settings: Settings, holder: Connection | None, acquire_within_s: float | None = None
) -> int:
    raised, last = 0, ""
    cooldown: timedelta = settings.alert_cooldown_s
    async with pool.acquire(timeout=acquire_within_s) as connection:
        while True:
            if holder is not None:
                await holder.execute(sql("still_here"))  # raises once its transaction has been cut
            async with connection.transaction():
                found = await connection.fetch(
                    sql("hold_products_to_tell_of"), last, settings.alert_policy, cooldown, AT_ONCE
                )
                skus = [row["sku"] for row in found]
                if skus:
                    raised += await connection.fetchval(
                        sql("raise_low_stock_of"), skus, settings.alert_policy, cooldown
                    )
            if len(skus) < AT_ONCE:
                break
            last = skus[-1]
    if raised:
        log.info("low_stock_found", alerts=raised)
    return raised


async def find_low_stock(connection: Connection, limit: int = MOST_LISTED) -> LowStock:
    """What is low now, the lowest share of its threshold first."""
    rows = await connection.fetch(sql("find_low_stock"), limit)
    products = [LowProduct(row["sku"], row["name"], row["stock"], row["threshold"]) for row in rows]
    return LowStock(products, rows[0]["total"] if rows else 0)
