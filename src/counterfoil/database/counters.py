"""Counters and the ledgers behind them: recounted, compared, and put right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from counterfoil.database.connection import Connection
from counterfoil.database.queries import sql


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


async def find_drift(connection: Connection, counters: Sequence[Counter]) -> list[Drift]:
    """Recount every counter, each by one statement; what is found is looked at again by a second one.

    A statement's snapshot is consistent on live traffic, except across a TRUNCATE: hence the second look. It is taken
    once the statement's tables are locked, a transaction's own before: a TRUNCATE in waiting would empty them in it.
    """
    found: list[Drift] = []
    for counter in counters:
        first = await _look(connection, counter)
        if first:
            places = {(drift.key, drift.counter) for drift in first}
            found += [d for d in await _look(connection, counter) if (d.key, d.counter) in places]
    return sorted(found)


async def _look(connection: Connection, counter: Counter) -> list[Drift]:
    async with connection.transaction(readonly=True):
        return [
            Drift(counter.table, row["key"], row["counter"], row["stored"], row["counted"])
            for row in await connection.fetch(sql(counter.drift))
        ]


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
        async with connection.transaction():
            await connection.execute(sql(lock), key)
            await connection.execute(sql(recount), key)
    return len(rows)
