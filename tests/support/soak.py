"""A ledger that grows by the million: steps of equal size, the rate of each, on a PostgreSQL with room for it."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import asyncpg

from counterfoil.database.facts import Facts, Handler
from counterfoil.database.migrate import migrate
from counterfoil.embedded.postgres import EmbeddedPostgres
from support.builders import NOON
from support.databases import run_apart

STEPS = 8
BATCH = 5_000
DAYS = 90


class Traffic(Protocol):
    """Events that come in the order of time."""

    def event(self, number: int, at: datetime) -> Any:
        """The event of this number."""
        ...


@contextmanager
def postgres_on_disk() -> Iterator[str]:
    """The address of a migrated PostgreSQL with room for millions: the tests' other ones lie in memory."""
    folder = Path(tempfile.mkdtemp(prefix="counterfoil-soak-"))
    folder.chmod(0o711)
    postgres = EmbeddedPostgres(folder / "postgres", options={"max_wal_size": "4GB"})
    try:
        postgres.start()
        run_apart(lambda: migrate(postgres.dsn))
        yield postgres.dsn
    finally:
        postgres.remove()
        shutil.rmtree(folder, ignore_errors=True)


def first_days() -> list[Any]:
    """The first days of the months that traffic falls into."""
    days = (NOON - timedelta(days=back) for back in range(DAYS + 1))
    return sorted({day.date().replace(day=1) for day in days})


async def grow(db: asyncpg.Connection, handler: Handler, traffic: Traffic, rows: int) -> list[float]:
    """Write a day's worth of events for each of 90 days that end at noon; events a second of each step.

    Their making is not counted.
    """
    ends = pairwise(round(step * rows / STEPS) for step in range(STEPS + 1))
    return [await _step(db, handler, traffic, range(*end), timedelta(days=DAYS) / rows) for end in ends]


async def _step(
    db: asyncpg.Connection, handler: Handler, traffic: Traffic, numbers: range, apart: timedelta
) -> float:
    spent = 0.0
    for first in numbers[::BATCH]:
        some = range(first, min(first + BATCH, numbers.stop))
        start = NOON - timedelta(days=DAYS)
        facts = Facts([traffic.event(n, start + n * apart) for n in some], [1] * len(some), list(some))
        began = time.monotonic()
        plan = await handler.plan(facts)
        async with db.transaction():
            await handler.write(db, plan)
        spent += time.monotonic() - began
    return len(numbers) / spent
