"""What is due by the clock: partitions ahead, holding periods that end, rates that are to be asked for again.

Every job may run in any number of workers at once, and again after it failed: it does what is due, and nothing twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import NamedTuple

import asyncpg
import structlog

from counterfoil.clicks.store import CLICK_PARTITIONS
from counterfoil.database import counters, verifications
from counterfoil.database.connection import Connection
from counterfoil.database.partitions import keep_partitions
from counterfoil.database.pool import UNREACHABLE, connect, one_line
from counterfoil.database.queries import sql
from counterfoil.ingest.dead_letters import forget_dead_letters
from counterfoil.inventory.low_stock import SCAN, take_scan
from counterfoil.inventory.store import STOCK_PARTITIONS, set_default_threshold
from counterfoil.partners.rates import ensure_default_rate, refresh_rates
from counterfoil.settings import Settings
from counterfoil.vouchers.schedule import expire_claims
from counterfoil.vouchers.store import SCAN_PARTITIONS
from counterfoil.vouchers.watch import LOOKS, take_turn

log = structlog.get_logger("counterfoil.schedule")


VERIFY = "verify_counters"

VERIFY_LOOK = timedelta(minutes=1)
"""How often is looked whether a recount is due: one that failed is made up for soon, by whichever worker."""

SHOWN_DRIFTS = 5
GIVE_BACK_WITHIN_S = 2.0


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


async def verify_counters(counted: Sequence[counters.Counter], pool: asyncpg.Pool, settings: Settings) -> int:
    """Recount every counter, where that is due and no other worker does; answers how many numbers are wrong.

    It has a connection of its own, whose statements may take as long as they take.
    """
    async with pool.acquire() as connection:
        claimed_at = await connection.fetchval(sql("claim_turn"), VERIFY, settings.verify_interval_s)
    if claimed_at is None:
        return 0
    try:
        found = await _recount(counted, settings)
        async with pool.acquire() as connection, connection.transaction():
            await verifications.keep(connection, found)
    except BaseException:
        await _give_back(pool, settings, claimed_at)
        raise
    _tell_of(found)
    return found.drifted


async def _recount(counted: Sequence[counters.Counter], settings: Settings) -> counters.Verification:
    connection = await connect(settings, "verify", patient=True)
    try:
        return await counters.verify(connection, counted, keep=verifications.KEPT_OF_A_TABLE)
    finally:
        await connection.close(timeout=GIVE_BACK_WITHIN_S)


async def _give_back(pool: asyncpg.Pool, settings: Settings, claimed_at: datetime) -> None:
    """Who is stopped or fails leaves the turn to whoever comes next; who is killed leaves it to the next turn."""
    with contextlib.suppress(*UNREACHABLE, asyncpg.PostgresError):
        async with asyncio.timeout(GIVE_BACK_WITHIN_S), pool.acquire() as connection:
            await connection.execute(sql("give_turn_back"), VERIFY, settings.verify_interval_s, claimed_at)


def _tell_of(found: counters.Verification) -> None:
    seconds = round(found.seconds, 3)
    if not found.drifted:
        log.info("counters_verified", rows=sum(c.rows for c in found.tables.values()), seconds=seconds)
        return
    log.error(
        "counters_drifted",
        drifted=found.drifted,
        tables={table: checked.drifted for table, checked in found.tables.items() if checked.drifted},
        first=[
            f"{d.table} {d.key} {d.counter}: {d.stored} is {d.counted}" for d in found.drift[:SHOWN_DRIFTS]
        ],
        seconds=seconds,
    )


async def forget_old_letters(pool: asyncpg.Pool, settings: Settings) -> int:
    """Delete dead letters that were resolved long ago, where a retention is set; answers how many."""
    days = settings.dead_letter_retention_days
    gone = 0 if days is None else await forget_dead_letters(pool, days)
    if gone:
        log.info("dead_letters_forgotten", count=gone)
    return gone


JOBS = (
    Job("approve_commissions", timedelta(minutes=1), approve_commissions),
    Job("expire_claims", timedelta(minutes=1), expire_claims),
    Job("keep_click_partitions", timedelta(hours=1), keep_click_partitions),
    Job("keep_scan_partitions", timedelta(hours=1), keep_scan_partitions),
    Job("keep_stock_partitions", timedelta(hours=1), keep_stock_partitions),
    Job("refresh_rates", timedelta(minutes=1), refresh_rates),
    Job("forget_dead_letters", timedelta(hours=1), forget_old_letters),
    *(Job(look.name, timedelta(minutes=1), partial(take_turn, look)) for look in LOOKS),
)


def jobs(settings: Settings, counted: Sequence[counters.Counter] = ()) -> tuple[Job, ...]:
    """Every job, those too that are as often as the settings say; `counted` is recounted where that is not off."""
    scan = Job(SCAN, settings.stock_scan_interval_s, take_scan)
    if not settings.verify_interval_s:
        return (*JOBS, scan)
    look = min(VERIFY_LOOK, settings.verify_interval_s)
    return (*JOBS, scan, Job(VERIFY, look, partial(verify_counters, counted)))


async def prepare(connection: Connection, settings: Settings) -> None:
    """What the settings say that is kept in the database, before the first event is judged by it."""
    if await ensure_default_rate(connection, settings):
        log.info("default_rate_changed", percent=str(settings.default_commission_percent))
    if await set_default_threshold(connection, settings.default_stock_threshold):
        log.info("default_threshold_changed", threshold=settings.default_stock_threshold)


async def run_forever(
    pool: asyncpg.Pool, settings: Settings, counted: Sequence[counters.Counter] = ()
) -> None:
    """Do every job now and whenever it is due, until cancelled; `counted` is what is recounted."""
    async with asyncio.TaskGroup() as group:
        for job in jobs(settings, counted):
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
