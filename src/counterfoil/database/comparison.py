"""What ledgers hold, beside what the records of a log say that they hold."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias, TypeVar, runtime_checkable

import asyncpg

from counterfoil.database import locks
from counterfoil.database.connection import Connection
from counterfoil.database.facts import Facts, Plan
from counterfoil.database.locks import Lock
from counterfoil.database.queries import sql

E = TypeVar("E")

Row: TypeAlias = tuple[Any, ...]
Rows: TypeAlias = Sequence[Row]
Join: TypeAlias = Callable[[Sequence[Any]], str]


class Comparison(NamedTuple):
    """A ledger's table and the statements that compare it.

    A row to compare is a tuple in the order of `columns`: the first `key_size` values are its key, the last two the
    record that it came from. Both statements take the columns. `find` answers of each row that differs `n`, its number
    from 1 on, whether it is `missing`, and the stored values under their columns' names; as `wanted_<column>` what the
    row does not say, or not in this form; and as `stands`, where only a consequence may be wrong, whether the row's own
    content is to stand. `overwrite` answers the keys that it set right; it is None where a row is no more than its key.
    Before it `locks` are held, and by the statement `holds` the rows that are counted in, named by the column `held`.
    Where rows are so many that asyncpg's encoding is too dear, `joins` makes of each column the text that `find` takes.
    """

    table: str
    columns: tuple[str, ...]
    key_size: int
    find: str
    overwrite: str | None
    locks: tuple[Lock, ...] = ()
    holds: str | None = None
    held: str = ""
    joins: tuple[Join, ...] = ()


class Difference(NamedTuple):
    """A row that is not there, or not as the record of this source says.

    `stored` and `wanted` are contents by column, without sources; nothing is stored of what is missing.
    """

    table: str
    key: tuple[object, ...]
    verdict: Literal["missing", "differs"]
    stored: dict[str, object] | None
    wanted: dict[str, object]
    source_id: int
    source_offset: int

    def columns(self) -> tuple[str, ...]:
        """The columns whose values differ: of a missing row all."""
        stored = self.stored
        return tuple(name for name, value in self.wanted.items() if stored is None or stored[name] != value)


@runtime_checkable
class ComparesRows(Protocol):
    """A handler that says which rows of which ledgers its plan stands for."""

    async def comparisons(self, connection: Connection, plan: Any, /) -> Sequence[tuple[Comparison, Rows]]:
        """The rows to compare, without those of months that are closed; it reads, and makes nothing."""
        ...


async def find_differences(connection: Connection, comparison: Comparison, rows: Rows) -> list[Difference]:
    """Those of the rows that the ledger does not hold as they say, one a key; also where nothing may be written.

    A row is missing where there is none of its key. It differs where the one that stands would give way to it by the
    ledger's rule, or says that it came from this very record and has another content, or where a consequence is not
    drawn. A row that has lost against a smaller content is no difference.
    """
    found = await _find(connection, comparison, rows)
    return [_difference(comparison, row, record) for row, record in found]


async def overwrite(connection: Connection, comparison: Comparison, rows: Rows) -> int:
    """Set right those of the rows that differ, and answer how many; what is missing is the writer's to add.

    The caller owns the transaction and overwrites before it writes the same plan: what counts the rows is held here.
    """
    if not rows or comparison.overwrite is None:
        return 0
    await locks.hold(connection, comparison.locks)
    found = [each for each in await _find(connection, comparison, rows) if not each[1]["missing"]]
    if not found:
        return 0
    if comparison.holds is not None:
        at = comparison.columns.index(comparison.held)
        keys = {row[at] for row, _ in found} | {record[comparison.held] for _, record in found}
        await connection.execute(sql(comparison.holds), sorted(keys))
    return len(await connection.fetch(sql(comparison.overwrite), *_columns([row for row, _ in found])))


def told_rows(plan: Plan[Any], key_size: int) -> Rows:
    """A plan's rows to compare: the standing contents, each with every record of the batch that tells of its key.

    So a stored row is known that came from a record which another one of this batch has won against, or repeated.
    """
    return _with_sources(
        plan.rows, key_size, ((row[:key_size], *row[-2:]) for row in (*plan.others, *plan.again))
    )


def rows_told_by(
    facts: Facts[E], rows: Rows, key_size: int, keys_of: Callable[[E], Iterable[tuple[object, ...]]]
) -> Rows:
    """The same of rows that stand for all of these events, each of which tells of some keys."""
    sources = zip(facts.events, facts.source_ids, facts.offsets, strict=True)
    told = [(key, source_id, offset) for event, source_id, offset in sources for key in keys_of(event)]
    return rows if len(told) == len(rows) else _with_sources(rows, key_size, told)


def rows_since(rows: Rows, time_at: int, since: datetime | None) -> Rows:
    """Those of the rows, with a time at this place, that are not before another one; all where there is none."""
    return rows if since is None else [row for row in rows if row[time_at] >= since]


def _with_sources(rows: Rows, key_size: int, told: Iterable[tuple[tuple[object, ...], int, int]]) -> Rows:
    standing = {row[:key_size]: row for row in rows}
    again = [
        (*standing[key][:-2], source_id, offset)
        for key, source_id, offset in told
        if standing[key][-2:] != (source_id, offset)
    ]
    return [*rows, *again] if again else rows


async def _find(
    connection: Connection, comparison: Comparison, rows: Rows
) -> list[tuple[Row, asyncpg.Record]]:
    """The first of the rows of each key that the statement names, with what it answers."""
    if not rows:
        return []
    async with by_index(connection):
        records = await connection.fetch(sql(comparison.find), *asked(comparison, rows))
    found: dict[Row, tuple[Row, asyncpg.Record]] = {}
    for record in sorted(records, key=_number):
        row = rows[record["n"] - 1]
        found.setdefault(row[: comparison.key_size], (row, record))
    return list(found.values())


def _number(record: asyncpg.Record) -> int:
    return int(record["n"])


def _difference(comparison: Comparison, row: Row, record: asyncpg.Record) -> Difference:
    wanted = dict(zip(comparison.columns[:-2], row[:-2], strict=True))
    missing = record["missing"]
    if not missing and not record.get("stands", True):
        wanted = {name: record[name] for name in wanted}
    wanted |= {name[7:]: value for name, value in record.items() if name.startswith("wanted_")}
    return Difference(
        comparison.table,
        row[: comparison.key_size],
        "missing" if missing else "differs",
        None if missing else {name: record[name] for name in wanted},
        wanted,
        *row[-2:],
    )


@asynccontextmanager
async def by_index(connection: Connection) -> AsyncIterator[None]:
    """A statement here looks its rows up one by one: by a young table's statistics it would be read whole each time."""
    if not connection.is_in_transaction():
        async with connection.transaction(), by_index(connection):
            yield
        return
    before = await connection.fetchval(sql("plan_by_index"))
    yield
    await connection.execute(
        sql("plan_as_before"), before
    )  # where the statement failed the transaction is over


def asked(comparison: Comparison, rows: Rows) -> Sequence[Any]:
    """The rows' columns as the comparison's `find` takes them."""
    columns = _columns(rows)
    joins = comparison.joins
    return [join(column) for join, column in zip(joins, columns, strict=True)] if joins else columns


def _columns(rows: Rows) -> list[list[Any]]:
    return [list(column) for column in zip(*rows, strict=True)]
