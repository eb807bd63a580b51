"""What a worker needs to be allowed, read from grants.sql, and what the role of the address is not."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from counterfoil.database.connection import Connection
from counterfoil.database.files import sql_folder
from counterfoil.database.queries import sql

_GRANT = re.compile(r"GRANT (?P<rights>[^;]*?)\sON\s(?P<names>[^;]*?)\sTO counterfoil_worker;", re.DOTALL)
_RIGHT = re.compile(r"(?P<right>[A-Z]+)(?:\s*\((?P<columns>[^)]*)\))?")
_COMMENT = re.compile(r"--.*$", re.MULTILINE)


class Right(NamedTuple):
    """A privilege on a table or on one of its columns; `column` is '' for the whole table."""

    table: str
    privilege: str
    column: str = ""

    def __str__(self) -> str:
        return f"{self.privilege} on {self.table}" + (f" ({self.column})" if self.column else "")


def needed_rights(text: str | None = None) -> tuple[list[Right], list[str]]:
    """The rights on tables, and the functions that a worker calls, as the file of grants has them."""
    if text is None:
        text = (sql_folder() / "grants.sql").read_text(encoding="utf-8")
    rights: list[Right] = []
    functions: list[str] = []
    for grant in _GRANT.finditer(_COMMENT.sub("", text)):
        names = grant["names"].strip()
        if names.startswith("FUNCTION"):
            functions += [name.strip() for name in re.findall(r"\w+\([^)]*\)", names)]
        elif not names.startswith("SCHEMA"):
            rights += _on_tables(grant["rights"], re.findall(r"\w+", names))
    return rights, functions


def _on_tables(rights: str, tables: Iterable[str]) -> Iterator[Right]:
    for table in tables:
        for found in _RIGHT.finditer(rights):
            for column in re.findall(r"\w+", found["columns"] or "") or [""]:
                yield Right(table, found["right"], column)


async def missing_rights(connection: Connection) -> list[str]:
    """What the connection's role would need and has not; of tables and functions that are there."""
    rights, functions = needed_rights()
    columns = ([r.table for r in rights], [r.privilege for r in rights], [r.column for r in rights])
    rows = await connection.fetch(sql("find_missing_rights"), *columns)
    lacking = [str(Right(row["name"], row["privilege"], row["column"])) for row in rows]
    rows = await connection.fetch(sql("find_missing_function_rights"), functions)
    return lacking + [f"EXECUTE on {row['name']}" for row in rows]
