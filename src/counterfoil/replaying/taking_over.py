"""Takes over from the live tables what the log does not tell: rules of people, rows by hand, what is closed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime
from typing import Any, TypeAlias

from counterfoil.database.connection import Connection
from counterfoil.database.queries import sql
from counterfoil.replaying.taken import BY_HAND, CHOICES, CLOSINGS, LEDGERS, RULES, SCANNER_DAYS, Taken

BUFFERS = 8
"""Pieces of a copy that may be on their way from one connection to the other."""

ReadOffsets: TypeAlias = Mapping[int, str]
"""Source id → the offsets that were read of it, as an int8multirange."""

Amendments: TypeAlias = Mapping[str, Sequence[str]]
"""Table → what is done to the rows that are taken over, which stand in pg_temp.taken, before they are written."""

# The names in these texts are those of counterfoil.replaying.taken; values go as parameters.
_DELETE = "DELETE FROM {table} AS t WHERE {gone} AND NOT EXISTS (SELECT FROM pg_temp.taken AS k WHERE {same})"
_UPDATE = (
    "UPDATE {table} AS t SET {assignments} FROM pg_temp.taken AS k "
    "WHERE {same} AND ROW({ours}) IS DISTINCT FROM ROW({theirs})"
)
_OVERLAY = (
    "INSERT INTO shadow_overlaid SELECT '{table}' WHERE EXISTS ("
    "SELECT FROM {table} AS t JOIN pg_temp.taken AS k ON {same} WHERE t.source_id IS NOT NULL "
    "AND (t.source_id, t.source_offset) IS DISTINCT FROM (k.source_id, k.source_offset)) ON CONFLICT DO NOTHING"
)
_INSERT = (
    "INSERT INTO {table} ({columns}) OVERRIDING SYSTEM VALUE SELECT {columns} FROM pg_temp.taken AS k "
    "WHERE NOT EXISTS (SELECT FROM {table} AS t WHERE {same}) ORDER BY {key} ON CONFLICT DO NOTHING"
)


class TakingOver:
    """Makes the shadow's tables say what a snapshot of the live ones says of what the log does not tell.

    `again` is for a shadow that has taken over before: what is live no longer is taken away. `counts` is by ledger how
    many rows were taken over, by hand or of records that were not read.
    """

    def __init__(
        self,
        live: Connection,
        shadow: Connection,
        amendments: Amendments | None = None,
        *,
        again: bool = False,
    ) -> None:
        self.counts: dict[str, tuple[int, int]] = {}
        self._live = live
        self._shadow = shadow
        self._amendments = amendments or {}
        self._again = again

    async def take_rules(self) -> None:
        """What people have set, and what retention has closed."""
        for taken in RULES:
            await self._take(taken, ())
        await self._take_closings()

    async def give_back(self, read: ReadOffsets) -> bool:
        """Take away all rows of ledgers that were taken over before: what is read on meets what is live by now.

        False where some stand in the place of rows that had been read, and would have to be read again.
        """
        if await self._shadow.fetchval("SELECT EXISTS (SELECT FROM shadow_overlaid)"):
            return False
        for ledger in reversed(LEDGERS):
            taken = ledger.taken
            if taken.gone is not None:
                text = f"DELETE FROM {taken.table} AS t WHERE {taken.gone}"  # noqa: S608 - names
                await self._execute(text, (list(read), list(read.values())))
        return True

    async def take_rest(self, read: ReadOffsets) -> None:
        """Rows by hand, and those of records that were not read."""
        arguments = (list(read), list(read.values()))
        for ledger in LEDGERS:
            async with self._shadow.transaction():
                if await self._take_inside(ledger.taken, arguments):
                    self.counts[ledger.table] = await self._count_taken()
        for taken in (*BY_HAND, *CHOICES):
            await self._take(taken, arguments)

    async def take_live(self, table: str, ids: Sequence[str], times: Sequence[datetime]) -> None:
        """Let rows of a ledger that is partitioned by time say what the live ones say."""
        taken = next(ledger for ledger in LEDGERS if ledger.table == table).taken
        where = f"({', '.join(taken.key)}) IN (SELECT * FROM unnest($1::text[], $2::timestamptz[]))"  # noqa: S608 - names
        await self._take(taken._replace(where=where, gone=None, adds=False), (ids, times))

    async def _take(self, taken: Taken, arguments: Sequence[Any]) -> None:
        async with self._shadow.transaction():
            await self._take_inside(taken, arguments)

    async def _take_inside(self, taken: Taken, arguments: Sequence[Any]) -> bool:
        """Copy the rows beside their table, then make it say the same of them; False where there are none.

        What hangs on them is settled when the caller commits.
        """
        columns = ", ".join(taken.all_columns)
        await self._shadow.execute("DROP TABLE IF EXISTS pg_temp.taken")
        await self._shadow.execute(
            f"CREATE TEMP TABLE taken ON COMMIT DROP AS SELECT {columns} FROM {taken.table} LIMIT 0"  # noqa: S608 - names
        )
        count = await self._copy(taken, arguments)
        if not count and not (self._again or taken in RULES or taken is CLOSINGS):
            return False
        await self._shadow.execute("ANALYZE pg_temp.taken")
        for statement in (*self._amendments.get(taken.table, ()), *taken.prepare):
            await self._shadow.execute(statement)
        await self._write(taken, arguments)
        return True

    async def _write(self, taken: Taken, arguments: Sequence[Any]) -> None:
        if taken.gone is not None and (self._again or taken in RULES or taken is CLOSINGS):
            await self._execute(_text(_DELETE, taken), arguments)
        if "source_id" in taken.columns:
            await self._shadow.execute(_text(_OVERLAY, taken))
        if taken.columns:
            await self._shadow.execute(_text(_UPDATE, taken))
        if taken.adds:
            await self._shadow.execute(_text(_INSERT, taken))

    async def _execute(self, text: str, arguments: Sequence[Any]) -> None:
        await self._shadow.execute(text, *(arguments if "$1" in text else ()))

    async def _count_taken(self) -> tuple[int, int]:
        (row,) = await self._shadow.fetch(
            "SELECT count(*) FILTER (WHERE source_id IS NULL) AS by_hand, count(source_id) AS unread FROM pg_temp.taken"
        )
        return row["by_hand"], row["unread"]

    async def _copy(self, taken: Taken, arguments: Sequence[Any]) -> int:
        """Copy the rows from the live connection to the other as they come; answers how many they are."""
        pieces: asyncio.Queue[bytes | None] = asyncio.Queue(BUFFERS)
        text = taken.text

        async def read() -> None:
            given = arguments if "$1" in text else ()
            await self._live.copy_from_query(text, *given, output=pieces.put, format="binary")
            await pieces.put(None)

        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(read())
                written = both.create_task(
                    self._shadow.copy_to_table(
                        "taken",
                        schema_name="pg_temp",
                        source=_until_none(pieces),
                        columns=[column.strip('"') for column in taken.all_columns],
                        format="binary",
                    )
                )
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None
        return int(written.result().split()[-1])

    async def _take_closings(self) -> None:
        """Where retention has closed what is open here: the closings, and none of the rows that they stand for."""
        live, ours = [
            {row["ledger"]: row["closed_before"] for row in await side.fetch(sql("closed_ledgers"))}
            for side in (self._live, self._shadow)
        ]
        moved = {ledger: bound for ledger, bound in sorted(live.items()) if ours.get(ledger) != bound}
        if not moved:
            return
        async with self._shadow.transaction():
            for ledger, bound in moved.items():
                await self._shadow.execute(
                    f"DELETE FROM {ledger} WHERE occurred_at < $1",  # noqa: S608 - one of three names
                    bound,
                )
            await self._shadow.execute(sql("set_closed_ledgers"), list(moved), list(moved.values()))
            await self._take_inside(CLOSINGS, ())
            await self._take_inside(SCANNER_DAYS, ())
            for name in ("clicks", "scans", "stock"):
                await self._shadow.execute(sql(f"recount_closed_{name}"))
            await self._shadow.execute(sql("settle_closed_details"))


async def _until_none(pieces: asyncio.Queue[bytes | None]) -> AsyncIterator[bytes]:
    while (piece := await pieces.get()) is not None:
        yield piece


def _text(template: str, taken: Taken) -> str:
    columns = taken.columns
    return template.format(
        table=taken.table,
        gone=taken.gone,
        same=" AND ".join(f"t.{column} = k.{column}" for column in taken.key),
        key=", ".join(taken.key),
        columns=", ".join(taken.all_columns),
        assignments=", ".join(f"{column} = k.{column}" for column in columns),
        ours=", ".join(f"t.{column}" for column in columns),
        theirs=", ".join(f"k.{column}" for column in columns),
    )
