"""How rows get into a ledger: optimistic COPY, and a merge where keys are there already.

COPY into a table with statement triggers is the fastest way in, but a single known key fails the whole of it. A known
key is rare: redelivered records were dropped by their position. A producer's double comes soon after its first, so the
keys of late are remembered and asked for; where doubles are many the merge is taken at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Iterable, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, TypeAlias

import asyncpg

from counterfoil.database.connection import Connection
from counterfoil.database.queries import sql
from counterfoil.database.turns import TURNS

Key: TypeAlias = tuple[Any, ...]
Row: TypeAlias = tuple[Any, ...]

COPY_SLICE = 500
"""Rows encoded before the loop may turn: about a millisecond."""

REMEMBERED = 50_000
"""Keys of a generation; two generations are kept, about 8 MB."""

MERGES_AFTER_CONFLICT = 8
"""Batches that are merged outright once a COPY has met a known key."""


@dataclass(frozen=True, slots=True)
class LedgerTable:
    """A ledger's table and statements.

    A row is a tuple in the order of `columns`, its key the first `key_size` values. `insert` and `replace` answer the
    keys that they changed, `find` those that are there; `replace` is None where the first that came stands.
    """

    table: str
    columns: tuple[str, ...]
    key_size: int
    insert: str
    find: str
    replace: str | None


class Ledger:
    """Writes rows into one ledger, with what was learned from the batches before."""

    def __init__(self, table: LedgerTable) -> None:
        self.table = table
        self._recent: set[int] = set()
        self._older: set[int] = set()
        self._merges_due = 0
        self._key = itemgetter(*range(table.key_size))

    async def write(self, connection: Connection, rows: Sequence[Row]) -> set[Key]:
        """Write rows, sorted by key and distinct in it; answer the keys of those that changed nothing.

        The caller owns the transaction.
        """
        if not rows:
            return set()
        hashes = list(map(hash, map(self._key, rows)))
        unchanged = await self._write(connection, rows, hashes)
        self._remember(hashes)
        return unchanged

    async def _write(self, connection: Connection, rows: Sequence[Row], hashes: list[int]) -> set[Key]:
        if self._merges_due:
            self._merges_due -= 1
            return await self._merge(connection, rows)
        known = await self._known(connection, rows, hashes)
        if len(known) * 2 > len(rows):
            return await self._merge(connection, rows)
        fresh = [row for row in rows if self._key(row) not in known] if known else rows
        if await self._copy(connection, fresh):
            if not known:
                return set()
            old = [row for row in rows if self._key(row) in known]
            return known - await self._replace(connection, old)
        self._merges_due = MERGES_AFTER_CONFLICT
        return await self._merge(connection, rows)

    async def _known(self, connection: Connection, rows: Sequence[Row], hashes: list[int]) -> set[Key]:
        """Those keys, of the ones seen of late, that are in the ledger."""
        recent, older = self._recent, self._older
        if recent.isdisjoint(hashes) and older.isdisjoint(hashes):
            return set()
        suspects = [row for row, seen in zip(rows, hashes, strict=True) if seen in recent or seen in older]
        found = await connection.fetch(sql(self.table.find), *_columns(suspects, self.table.key_size))
        return {tuple(record) for record in found}

    async def _copy(self, connection: Connection, rows: Sequence[Row]) -> bool:
        if not rows:
            return True
        savepoint = connection.transaction()
        await savepoint.start()
        try:
            await connection.copy_records_to_table(
                self.table.table, records=_in_slices(rows), columns=self.table.columns
            )
        except asyncpg.UniqueViolationError:
            await savepoint.rollback()
            return False
        await savepoint.commit()
        return True

    async def _merge(self, connection: Connection, rows: Sequence[Row]) -> set[Key]:
        added = await connection.fetch(sql(self.table.insert), *_columns(rows, len(self.table.columns)))
        if len(added) == len(rows):
            self._merges_due = 0
            return set()
        if len(added) * 2 < len(rows):  # a replay: it goes on
            self._merges_due = max(self._merges_due, 1)
        keys = {tuple(record) for record in added}
        old = [row for row in rows if self._key(row) not in keys]
        replaced = await self._replace(connection, old)
        return {self._key(row) for row in old} - replaced

    async def _replace(self, connection: Connection, rows: Sequence[Row]) -> set[Key]:
        if not rows or self.table.replace is None:
            return set()
        changed = await connection.fetch(sql(self.table.replace), *_columns(rows, len(self.table.columns)))
        return {tuple(record) for record in changed}

    def _remember(self, hashes: Iterable[int]) -> None:
        if len(self._recent) > REMEMBERED:
            self._recent, self._older = set(), self._recent
        self._recent.update(hashes)


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
