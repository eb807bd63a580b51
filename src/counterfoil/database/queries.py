"""Named statements from sql/queries/*.sql, each under a line `-- name: statement_name`."""

from __future__ import annotations

import re
from functools import cache

from counterfoil.database.files import sql_folder

_NAME = re.compile(r"^-- name: (\w+)\s*$", re.MULTILINE)


@cache
def statements() -> dict[str, str]:
    """Statement name → SQL text, of every file; raises ValueError when a name stands twice."""
    found: dict[str, str] = {}
    for path in sorted((sql_folder() / "queries").glob("*.sql")):
        parts = _NAME.split(path.read_text(encoding="utf-8"))
        for name, text in zip(parts[1::2], parts[2::2], strict=True):
            if name in found:
                raise ValueError(f"{path.name}: the statement {name} stands twice")
            found[name] = text.strip().rstrip(";")
    return found


def sql(name: str) -> str:
    """The text of one statement; raises KeyError for a name that no file holds."""
    return statements()[name]
