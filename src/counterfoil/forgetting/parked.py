"""Dead letters that name somebody: their bytes are erased, and they are resolved."""

from __future__ import annotations

from collections.abc import AsyncIterator

import asyncpg

from counterfoil.database.connection import Connection
from counterfoil.database.queries import sql
from counterfoil.forgetting.erasure import Erasure, Tell, in_transaction, rows_of
from counterfoil.forgetting.naming import Naming

PAGE = 50
"""Records read at once: each may have a megabyte."""


async def count_parked(connection: Connection, naming: Naming, tell: Tell, topic: str | None = None) -> int:
    """How many parked records name them."""
    return sum([len(ids) async for ids in _named(connection, naming, tell, topic)])


async def erase_parked(
    connection: Connection, naming: Naming, erasure: Erasure, tell: Tell, topic: str | None = None
) -> None:
    """Erase the bytes of the parked records that name them."""
    async for ids in _named(connection, naming, tell, topic):

        async def erase(ids: list[int] = ids) -> int:
            return await rows_of(connection, "erase_dead_letters", ids)

        erasure.erased["dead_letters"] += await in_transaction(connection, erase)


async def _named(
    connection: Connection, naming: Naming, tell: Tell, topic: str | None
) -> AsyncIterator[list[int]]:
    after, read = 0, 0
    while page := await connection.fetch(sql("parked_after"), after, topic, PAGE):
        after = page[-1]["id"]
        read += len(page)
        tell("dead_letters", read, read)
        if ids := [row["id"] for row in page if _names(naming, row)]:
            yield ids


def _names(naming: Naming, row: asyncpg.Record) -> bool:
    told = (row["value"], row["headers"].encode(), row["error"].encode())
    return naming.in_record(row["topic"], row["key"], *told)
