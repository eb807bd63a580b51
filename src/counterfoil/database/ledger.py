"""How rows get into a ledger: optimistic COPY, and a merge where keys are there already.

COPY into a table with statement triggers is the fastest way in, but a single known key fails the whole of it. A known
key is rare: redelivered records were dropped by their position. A producer's double comes soon after its first, so the
keys of late are remembered and asked for; where doubles are many the merge is taken at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, TypeAlias

import asyncpg

from counterfoil.database.binary_copy import EncodeRows, binary_copy
from counterfoil.database.connection import Connection
from counterfoil.database.facts import Outcome, Plan
from counterfoil.database.queries import sql
from counterfoil.database.turns import TURNS

Key: TypeAlias = tuple[Any, ...]
Row: TypeAlias = tuple[Any, ...]
JoinColumns: TypeAlias = Callable[[Sequence[Sequence[Any]]], Sequence[str]]

COPY_SLICE = 500
"""Rows encoded before the loop may turn: about a millisecond."""

REMEMBERED = 50_000
"""Keys of a generation; two generations are kept, about 8 MB."""

MERGES_AFTER_CONFLICT = 8
"""Batches that are merged outright once a COPY has met a known key."""


@dataclass(frozen=True, slots=True)
class LedgerTable:
    """A ledger's table and statements.

    A row is a tuple in the order of `columns`, its key the first `key_size` values, and the first `deciding` values say
    whether it stands against one of the same key. `insert` and `replace` answer the keys that they changed, `find_new`
    those that either would change; `replace` is None where the first that came stands. `keep_refused` keeps what does
    not stand, where money hangs on it. Where rows are so many that asyncpg's encoding is too dear, `encode` does it
    instead, and `join` makes of the deciding columns what `find_new` takes.
    """

    table: str
    columns: tuple[str, ...]
    key_size: int
    deciding: int
    insert: str
    find_new: str
    replace: str | None
    encode: EncodeRows | None = None
    join: JoinColumns | None = None
    keep_refused: str | None = None


class Ledger:
    """Writes rows into one ledger, with what was learned from the batches before."""

    def __init__(self, table: LedgerTable) -> None:
        self.table = table
        self._recent: set[int] = set()
        self._older: set[int] = set()
        self._merges_due = 0
        self._replaying = False
        self._replaced = 0
        self._key = _key_getter(table.key_size)

    async def write(self, connection: Connection, rows: Sequence[Row]) -> set[Key]:
        """Write rows, sorted by key and distinct in it; answer the keys of those that changed nothing.

        The caller owns the transaction.
        """
        if not rows:
            return set()
        hashes = list(map(hash, map(self._key, rows)))
        if self._merges_due:
            self._merges_due -= 1
            unchanged = await self._merge(connection, rows)
        else:
            unchanged = await self._write(connection, rows, hashes)
        self._remember(hashes)
        return unchanged

    async def write_plan(self, connection: Connection, plan: Plan[Any]) -> Outcome:
        """Write a plan's rows, and keep what does not stand; the caller owns the transaction."""
        self._replaced = 0
        known = await self.write(connection, plan.rows)
        size = self.table.key_size
        doubtful = [*(row for row in plan.rows if row[:size] in known), *plan.others]
        return plan.outcome(known, size, await self._refuse(connection, doubtful))

    async def _refuse(self, connection: Connection, rows: Sequence[Row]) -> int:
        """Keep those of some written rows whose content does not stand; how many that are, with those just replaced."""
        if self.table.keep_refused is None:
            return 0
        if not rows:
            return self._replaced
        return self._replaced + len(
            await connection.fetch(sql(self.table.keep_refused), *_columns(rows, len(self.table.columns)))
        )

    async def _write(self, connection: Connection, rows: Sequence[Row], hashes: list[int]) -> set[Key]:
        unchanged = await self._unchanged(connection, self._seen_of_late(rows, hashes))
        fresh = [row for row in rows if self._key(row) not in unchanged] if unchanged else rows
        if not await self._copy(connection, fresh):
            self._merges_due = MERGES_AFTER_CONFLICT
            unchanged |= await self._merge(connection, fresh)
        return unchanged

    def _seen_of_late(self, rows: Sequence[Row], hashes: list[int]) -> Sequence[Row]:
        recent, older = self._recent, self._older
        if recent.isdisjoint(hashes) and older.isdisjoint(hashes):
            return ()
        return [row for row, seen in zip(rows, hashes, strict=True) if seen in recent or seen in older]

    async def _unchanged(self, connection: Connection, rows: Sequence[Row]) -> set[Key]:
        """The keys of those rows that the ledger has already."""
        if not rows:
            return set()
        columns: Sequence[Any] = _columns(rows, self.table.deciding)
        if self.table.join is not None:
            columns = self.table.join(columns)
        found = await connection.fetch(sql(self.table.find_new), *columns)
        return set(map(self._key, rows)).difference(map(tuple, found))

    async def _copy(self, connection: Connection, rows: Sequence[Row]) -> bool:
        if not rows:
            return True
        savepoint = connection.transaction()
        await savepoint.start()
        try:
            await self._feed(connection, rows)
        except asyncpg.UniqueViolationError:
            await savepoint.rollback()
            return False
        await savepoint.commit()
        return True

    async def _feed(self, connection: Connection, rows: Sequence[Row]) -> None:
        table = self.table
        if table.encode is None:
            await connection.copy_records_to_table(
                table.table, records=_in_slices(rows), columns=table.columns
            )
        else:
            await connection.copy_to_table(
                table.table, source=binary_copy(rows, table.encode), columns=table.columns, format="binary"
            )

    async def _merge(self, connection: Connection, rows: Sequence[Row]) -> set[Key]:
        """Add what is not there, and let the smaller content stand where something is."""
        unchanged: set[Key] = set()
        count = len(rows)
        if self._replaying:  # most of it is there, and one look is cheaper than two refusals
            unchanged = await self._unchanged(connection, rows)
            fresh = len(unchanged) < count
            rows = [row for row in rows if self._key(row) not in unchanged] if fresh else ()
        if rows:
            added = {
                tuple(record)
                for record in await connection.fetch(
                    sql(self.table.insert), *_columns(rows, len(self.table.columns))
                )
            }
            old = [row for row in rows if self._key(row) not in added]
            unchanged |= {self._key(row) for row in old} - await self._replace(connection, old)
        if not unchanged:
            self._merges_due = 0
        self._replaying = 2 * len(unchanged) > count
        if self._replaying:
            self._merges_due = max(self._merges_due, 1)
        return unchanged

    async def _replace(self, connection: Connection, rows: Sequence[Row]) -> set[Key]:
        if not rows or self.table.replace is None:
            return set()
        changed = await connection.fetch(sql(self.table.replace), *_columns(rows, len(self.table.columns)))
        self._replaced += len(changed)
        return {tuple(record) for record in changed}

    def _remember(self, hashes: Iterable[int]) -> None:
        if len(self._recent) > REMEMBERED:
            self._recent, self._older = set(), self._recent
        self._recent.update(hashes)


def _key_getter(size: int) -> Callable[[Row], Key]:
    if size == 1:
        return lambda row: (row[0],)
    return itemgetter(*range(size))


async def _in_slices(rows: Sequence[Row]) -> AsyncIterator[Row]:
    """The rows, letting the loop turn between slices."""
    with TURNS.feeding():
        for start in range(0, len(rows), COPY_SLICE):
            if start:
                await asyncio.sleep(0)
            for row in rows[start : start + COPY_SLICE]:
                yield row


def _columns(rows: Collection[Row], count: int) -> list[list[Any]]:
    """Rows turned into the first `count` columns, as unnest takes them."""
    return [list(column) for column in list(zip(*rows, strict=True))[:count]]
