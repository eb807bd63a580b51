"""How many records a second all workers take in: the sums of the positions, looked at again and again."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise

import asyncpg
import structlog

from counterfoil.api.problems import is_away
from counterfoil.database.connection import Connection
from counterfoil.database.queries import sql

log = structlog.get_logger(__name__)

EVERY_S = 2.0
KEPT = timedelta(minutes=5)
NOW = timedelta(seconds=10)
"""Over how long the present rate is taken."""


@dataclass(frozen=True, slots=True)
class Account:
    """What became of a topic's records since the group began to read it."""

    applied: int
    duplicates: int
    dead: int
    skipped: int
    last_record_at: datetime | None

    @property
    def records(self) -> int:
        """All that were read; offsets without a record are none."""
        return self.applied + self.duplicates + self.dead


@dataclass(frozen=True, slots=True)
class Look:
    """The accounts of all topics at one time, by the database's clock."""

    at: datetime
    topics: Mapping[str, Account]


class Rates:
    """The looks of the last minutes, and what lies between them."""

    def __init__(self) -> None:
        self._looks: deque[Look] = deque()

    @property
    def last(self) -> Look | None:
        """The latest look, None before the first."""
        return self._looks[-1] if self._looks else None

    def add(self, look: Look) -> None:
        """Take in a look, and forget those that are too old."""
        self._looks.append(look)
        while self._looks[0].at < look.at - KEPT:
            self._looks.popleft()

    def now(self, topic: str) -> float:
        """Records of a topic per second, of late."""
        if self.last is None:
            return 0.0
        first = next(look for look in self._looks if look.at >= self.last.at - NOW)
        return _rate(first, self.last, topic)

    def series(self) -> tuple[list[int], dict[str, list[float]]]:
        """Times in seconds since 1970, and each topic's rate up to then; topics without a record are left out."""
        looks = list(self._looks)
        pairs = list(pairwise(looks))
        topics = self.last.topics if self.last else {}
        rates = {topic: [round(_rate(a, b, topic), 1) for a, b in pairs] for topic in topics}
        return [round(b.at.timestamp()) for _, b in pairs], {t: r for t, r in rates.items() if any(r)}


async def look_at_positions(connection: Connection, group: str) -> Look:
    """The accounts of a group as they stand."""
    rows = await connection.fetch(sql("sum_of_positions"), group)
    taken_at = rows[0]["taken_at"] if rows else await connection.fetchval("SELECT clock_timestamp()")
    return Look(taken_at, {row["topic"]: Account(*tuple(row)[1:6]) for row in rows})


async def sample_forever(pool: asyncpg.Pool, group: str, rates: Rates) -> None:
    """Look at the positions every two seconds, until cancelled; a database that is away leaves a gap."""
    while True:
        try:
            async with pool.acquire(timeout=EVERY_S) as connection:
                rates.add(await look_at_positions(connection, group))
        except Exception as error:
            if not is_away(error):
                log.exception("rates_failed")  # who only looks on must not stop the work
        await asyncio.sleep(EVERY_S)


def _rate(before: Look, after: Look, topic: str) -> float:
    seconds = (after.at - before.at).total_seconds()
    if seconds <= 0:
        return 0.0
    known = before.topics.get(topic)
    return (after.topics[topic].records - (known.records if known else 0)) / seconds
