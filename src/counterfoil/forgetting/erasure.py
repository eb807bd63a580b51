"""What an erasure found and did, and how it writes: under live traffic, in transactions that nobody waits for long."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import asyncpg
from tenacity import retry, retry_if_exception_type, stop_after_attempt, wait_random

from counterfoil.database.connection import Connection
from counterfoil.database.queries import sql

CHUNK = 500
"""Rows of a person in one transaction; those of one voucher, or of one day's clicks, are never parted."""

T = TypeVar("T")

Tell = Callable[[str, int, int], None]
"""Hears of progress: what is being done, how many rows are, and how many there were to do."""


@dataclass(slots=True)
class Erasure:
    """Rows that were erased, or in a dry run would be, by table; what the person is called from now on.

    `keeps_account` says that the person is known as a user whose links may earn something: that id stays.
    """

    kind: str
    dry_run: bool
    instead: str | None = None
    was_forgotten: bool = False
    keeps_account: bool = False
    erased: Counter[str] = field(default_factory=Counter)

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "kind": self.kind,
            "dry_run": self.dry_run,
            "instead": self.instead,
            "was_forgotten": self.was_forgotten,
            "keeps_account": self.keeps_account,
            "erased": {table: count for table, count in sorted(self.erased.items()) if count},
        }


async def rows_of(connection: Connection, statement: str, *arguments: object) -> int:
    """How many rows a statement has changed, by what it answers: their number, or else its own status."""
    status = await connection.execute(sql(statement), *arguments)
    return int(status.rpartition(" ")[2])


@retry(
    retry=retry_if_exception_type((asyncpg.DeadlockDetectedError, asyncpg.SerializationError)),
    stop=stop_after_attempt(5),
    wait=wait_random(0, 0.5),
    reraise=True,
)
async def in_transaction(connection: Connection, work: Callable[[], Awaitable[T]]) -> T:
    """Work in a transaction of its own, again where live traffic was in the way."""
    async with connection.transaction():
        return await work()
