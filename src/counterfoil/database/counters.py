"""Counters and the ledgers behind them: recounted in one snapshot, compared, and put right."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime

import asyncpg
from tenacity import retry, retry_if_exception_type, stop_after_attempt, wait_random

from counterfoil.database.connection import Connection
from counterfoil.database.queries import sql

LOCK_TIMEOUT_MS = 700
"""Less than PostgreSQL's deadlock_timeout: who looks gives way before anybody's TRUNCATE is ended for its sake."""

LOCKED_WITHIN_S = 60.0
PAUSE_S = 0.2

READ_AT_ONCE = 1_000
"""Rows of drift that are asked for together: of a ledger that was emptied behind its triggers there are millions."""


@dataclass(frozen=True, slots=True)
class Counter:
    """A table of counters and the statements that check it.

    `drift` answers (key, counter, stored, counted) of every one that is wrong; `lock` holds the row of a key and
    `recount` sets it to what its ledgers say; `size` counts the rows.
    """

    table: str
    drift: str
    lock: str
    recount: str
    size: str


@dataclass(frozen=True, slots=True, order=True)
class Drift:
    """A stored number that is not what its ledger says; None where the row is missing."""

    table: str
    key: str
    counter: str
    stored: str | None
    counted: str


@dataclass(frozen=True, slots=True)
class Checked:
    """What became of one table: its rows, how many numbers are wrong, and those of them that were kept."""

    rows: int
    drifted: int
    drift: tuple[Drift, ...] = ()


@dataclass(frozen=True, slots=True)
class Verification:
    """A recount of all counters as they stood at one time."""

    snapshot_at: datetime
    seconds: float
    tables: dict[str, Checked]

    @property
    def drift(self) -> list[Drift]:
        """What is wrong, in order, as far as it was kept."""
        return sorted(drift for checked in self.tables.values() for drift in checked.drift)

    @property
    def drifted(self) -> int:
        """How many numbers are wrong."""
        return sum(checked.drifted for checked in self.tables.values())


Tell = Callable[[str, int, int], None]
"""Hears which table is looked at, how many were before it, and of how many."""


def nobody(_table: str, _done: int, _of: int) -> None:
    """Where nobody waits."""


async def verify(
    connection: Connection, counters: Sequence[Counter], tell: Tell = nobody, keep: int | None = None
) -> Verification:
    """Recount every counter in one snapshot; of each table at most `keep` wrong numbers are kept, else all.

    A snapshot is consistent on live traffic, except across a TRUNCATE, or a partition that is dropped: their rows are
    gone from it at once. So what seems wrong is looked at again, in a snapshot that begins when no such thing can
    happen. No lock outlasts the statement that took it, in the first look.
    """
    began = time.monotonic()
    tables: dict[str, Checked] = {}
    async with _snapshot(connection):
        snapshot_at = await connection.fetchval("SELECT clock_timestamp()")
        for number, counter in enumerate(counters):
            tell(counter.table, number, len(counters))
            tables[counter.table] = await _look(connection, counter, keep)
    suspects = [counter for counter in counters if tables[counter.table].drifted]
    if suspects:
        async with _snapshot_of_held_tables(connection):
            for counter in suspects:
                tell(f"{counter.table} once more", len(counters), len(counters))
                tables[counter.table] = await _look(connection, counter, keep)
    tell("", len(counters), len(counters))
    return Verification(snapshot_at, time.monotonic() - began, tables)


async def find_drift(connection: Connection, counters: Sequence[Counter]) -> list[Drift]:
    """Every number that is wrong, of these counters."""
    return (await verify(connection, counters)).drift


async def _look(connection: Connection, counter: Counter, keep: int | None) -> Checked:
    """Compare one table in the snapshot that is open; the locks that this took are given back."""
    savepoint = connection.transaction()
    await savepoint.start()
    try:
        rows: int = await connection.fetchval(sql(counter.size))
        drifted, kept = 0, list[Drift]()
        async for row in connection.cursor(sql(counter.drift), prefetch=READ_AT_ONCE):
            drifted += 1
            if keep is None or len(kept) < keep:
                kept.append(Drift(counter.table, row["key"], row["counter"], row["stored"], row["counted"]))
    finally:
        await savepoint.rollback()
    return Checked(rows, drifted, tuple(kept))


@asynccontextmanager
async def _snapshot(connection: Connection) -> AsyncIterator[None]:
    """One snapshot for all that is read; a caller's own transaction is taken as it is."""
    if connection.is_in_transaction():
        yield
        return
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        yield


@asynccontextmanager
async def _snapshot_of_held_tables(connection: Connection) -> AsyncIterator[None]:
    """A snapshot that is taken once every table is held: until its end none is truncated, and no partition goes."""
    if connection.is_in_transaction():
        yield
        return
    names = [row["name"] for row in await connection.fetch(sql("list_tables"))]
    end = time.monotonic() + LOCKED_WITHIN_S
    while True:
        transaction = connection.transaction(isolation="repeatable_read", readonly=True)
        await transaction.start()
        try:
            await _hold(connection, names)
        except asyncpg.LockNotAvailableError:
            await transaction.rollback()
            if time.monotonic() > end:
                raise
            await asyncio.sleep(PAUSE_S)
            continue
        except BaseException:
            await transaction.rollback()
            raise
        break
    try:
        yield
    finally:
        await transaction.rollback()


async def _hold(connection: Connection, names: Sequence[str]) -> None:
    """Nothing here takes the transaction's snapshot: LOCK and SET need none."""
    await connection.execute(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT_MS}ms'")
    await connection.execute(f"LOCK TABLE {', '.join(names)} IN ACCESS SHARE MODE")
    await connection.execute("SET LOCAL lock_timeout TO DEFAULT")


async def count_rows(connection: Connection, counters: Sequence[Counter]) -> dict[str, int]:
    """Table → how many counters it holds."""
    return {counter.table: await connection.fetchval(sql(counter.size)) for counter in counters}


async def repair(connection: Connection, counters: Sequence[Counter], drifts: Sequence[Drift]) -> int:
    """Set drifted rows to what their ledgers say, under live traffic; answers how many rows.

    The row is locked first and recounted in a fresh statement: what commits meanwhile is folded in after us.
    """
    by_table = {counter.table: counter for counter in counters}
    rows = {(drift.table, drift.key) for drift in drifts}
    work = {(by_table[table].lock, by_table[table].recount, key) for table, key in rows}
    for lock, recount, key in sorted(work):  # what several tables count of one key is recounted once
        await _repair_one(connection, lock, recount, key)
    return len(rows)


@retry(
    retry=retry_if_exception_type((asyncpg.DeadlockDetectedError, asyncpg.SerializationError)),
    stop=stop_after_attempt(5),
    wait=wait_random(0, 0.5),
    reraise=True,
)
async def _repair_one(connection: Connection, lock: str, recount: str, key: str) -> None:
    """Again where live traffic was in the way: those that are behind it are not to wait for another command."""
    async with connection.transaction():
        await connection.execute(sql(lock), key)
        await connection.execute(sql(recount), key)
