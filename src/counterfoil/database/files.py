"""Where the package's SQL lies: beside the source in a checkout, inside the package in a wheel."""

from __future__ import annotations

from functools import cache
from pathlib import Path


@cache
def sql_folder() -> Path:
    """The folder that holds `migrations/`, `queries/` and `grants.sql`."""
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "sql", package.parents[1] / "sql"):
        if (folder / "migrations").is_dir():
            return folder
    raise FileNotFoundError(f"no sql/migrations in {package} or beside its source")
