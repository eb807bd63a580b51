"""PostgreSQL's binary COPY format, for the ledgers where encoding a row is what a record costs most.

asyncpg encodes rows too, but in one go for a list, which holds the loop, or row by awaited row: 1.4 and 2.1 µs against
1.2 for a row of five columns. https://www.postgresql.org/docs/current/sql-copy.html#SQL-COPY-FILE-FORMATS
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from counterfoil.database.turns import TURNS

HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
TRAILER = b"\xff\xff"

ENCODE_SLICE = 500
"""Rows encoded before the loop may turn: about 0.3 ms."""

_YEAR_2000 = datetime(2000, 1, 1, tzinfo=UTC)

EncodeRows = Callable[[Sequence[Any]], bytes]
"""Rows → their tuples in the format, without header and trailer."""


def timestamptz(moment: datetime) -> int:
    """A time as PostgreSQL has it: microseconds since 2000."""
    since = moment - _YEAR_2000
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


async def binary_copy(rows: Sequence[Any], encode: EncodeRows) -> AsyncIterator[bytes]:
    """The whole stream of a COPY, letting the loop turn between slices."""
    with TURNS.feeding():
        yield HEADER
        for start in range(0, len(rows), ENCODE_SLICE):
            if start:
                await asyncio.sleep(0)
            yield encode(rows[start : start + ENCODE_SLICE])
        yield TRAILER
