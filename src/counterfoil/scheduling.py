"""What is due by the clock: partitions ahead, holding periods that end, rates that are to be asked for again.

Every job may run in any number of workers at once, and again after it failed: it does what is due, and nothing twice.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from functools import partial
from typing import NamedTuple

import asyncpg
import structlog

from counterfoil.clicks.store import CLICK_PARTITIONS
from counterfoil.database.connection import Connection
from counterfoil.database.partitions import keep_partitions
from counterfoil.database.pool import UNREACHABLE, one_line
from counterfoil.database.queries import sql
from counterfoil.inventory.low_stock import SCAN, take_scan
from counterfoil.inventory.store import STOCK_PARTITIONS, set_default_threshold
from counterfoil.partners.rates import ensure_default_rate, refresh_rates
from counterfoil.settings import Settings
from counterfoil.vouchers.schedule import expire_claims
from counterfoil.vouchers.store import SCAN_PARTITIONS
from counterfoil.vouchers.watch import LOOKS, take_turn

log = structlog.get_logger("counterfoil.schedule")


class Job(NamedTuple):
    """Something to be done again and again, `every` so often."""

    name: str
    every: timedelta
    work: Callable[[asyncpg.Pool, Settings], Awaitable[object]]


async def approve_commissions(pool: asyncpg.Pool, settings: Settings) -> int:
    """Approve the commissions whose holding period is over; answers how many."""
    approved = 0
    while True:
        async with pool.acquire() as connection:
            count = await connection.fetchval(sql("approve_commissions"), settings.commission_hold_days)
        if not count:
            break
        approved += count
    if approved:
        log.info("commissions_approved", count=approved)
    return approved


async def keep_click_partitions(pool: asyncpg.Pool, settings: Settings) -> None:
    """Make partitions of clicks ahead, and close those whose retention is over."""
    async with pool.acquire() as connection:
        await keep_partitions(connection, CLICK_PARTITIONS, settings.retention_days_clicks)


async def keep_scan_partitions(pool: asyncpg.Pool, settings: Settings) -> None:
    """Make partitions of scans ahead, and close those whose retention is over."""
    async with pool.acquire() as connection:
        await keep_partitions(connection, SCAN_PARTITIONS, settings.retention_days_scans)


async def keep_stock_partitions(pool: asyncpg.Pool, settings: Settings) -> None:
    """Make partitions of stock changes ahead, and close those whose retention is over."""
    async with pool.acquire() as connection:
        await keep_partitions(connection, STOCK_PARTITIONS, settings.retention_days_stock)


JOBS = (
    Job("approve_commissions", timedelta(minutes=1), approve_commissions),
    Job("expire_claims", timedelta(minutes=1), expire_claims),
    Job("keep_click_partitions", timedelta(hours=1), keep_click_partitions),
    Job("keep_scan_partitions", timedelta(hours=1), keep_scan_partitions),
    Job("keep_stock_partitions", timedelta(hours=1), keep_stock_partitions),
    Job("refresh_rates", timedelta(minutes=1), refresh_rates),
    *(Job(look.name, timedelta(minutes=1), partial(take_turn, look)) for look in LOOKS),
)


def jobs(settings: Settings) -> tuple[Job, ...]:
    """Every job, those too that are as often as the settings say."""
    return (*JOBS, Job(SCAN, settings.stock_scan_interval_s, take_scan))


async def prepare(connection: Connection, settings: Settings) -> None:
    """What the settings say that is kept in the database, before the first event is judged by it."""
    if await ensure_default_rate(connection, settings):
        log.info("default_rate_changed", percent=str(settings.default_commission_percent))
    if await set_default_threshold(connection, settings.default_stock_threshold):
        log.info("default_threshold_changed", threshold=settings.default_stock_threshold)


async def run_forever(pool: asyncpg.Pool, settings: Settings) -> None:
    """Do every job now and whenever it is due, until cancelled."""
    async with asyncio.TaskGroup() as group:
        for job in jobs(settings):
            group.create_task(_repeat(job, pool, settings), name=job.name)


async def _repeat(
    job: Job,
    pool: asyncpg.Pool,
    settings: Settings,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> None:
    while True:
        due = clock() + job.every.total_seconds()  # from the beginning of the work, however long it takes
        try:
            await job.work(pool, settings)
        except (*UNREACHABLE, asyncpg.PostgresError) as error:
            next_in_s = round(max(0.0, due - clock()), 1)
            log.warning("job_failed", job=job.name, reason=one_line(error), next_in_s=next_in_s)
        await sleep(max(0.0, due - clock()))
