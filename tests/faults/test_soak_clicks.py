"""Clicks by the million: the rate does not fall as their ledger grows, and every day of it is counted exactly.

`make soak` runs the long form; COUNTERFOIL_SOAK_CLICKS says how long.
"""

from __future__ import annotations

import os
import random
import shutil
import tempfile
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path

import asyncpg
import pytest

from counterfoil.clicks.handlers import RecordClicks
from counterfoil.clicks.store import CLICK_COUNTS
from counterfoil.database.counters import find_drift
from counterfoil.database.facts import Facts
from counterfoil.database.migrate import migrate
from counterfoil.embedded.postgres import EmbeddedPostgres
from counterfoil.events import Click
from counterfoil.settings import IpPolicy
from support.builders import NOON
from support.databases import run_apart

CLICKS = int(os.environ.get("COUNTERFOIL_SOAK_CLICKS", "20_000_000"))
FEW = 40_000
STEPS = 8
BATCH = 5_000
DAYS = 90
PIXELS = 500
BOT = "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"
BROWSERS = [f"Mozilla/5.0 (X11; Linux x86_64; rv:{n}.0) Gecko/20100101 Firefox/{n}.0" for n in range(80, 130)]


@pytest.fixture
def on_disk() -> Iterator[str]:
    """The address of a PostgreSQL with room for millions: the tests' other ones lie in memory."""
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


class Traffic:
    """Clicks that come in the order of time, a day's worth of them for each of 90 days that end at noon."""

    def __init__(self, rows: int) -> None:
        self._dice = random.Random(rows)
        self._start = NOON - timedelta(days=DAYS)
        self._apart = timedelta(days=DAYS) / rows
        self._pixels = [f"00000000-0000-4000-8000-{n:012}" for n in range(PIXELS)]

    def batch(self, first: int, count: int) -> Facts[Click]:
        """The clicks of these numbers."""
        return Facts(
            [self._click(n) for n in range(first, first + count)],
            [1] * count,
            list(range(first, first + count)),
        )

    def _click(self, number: int) -> Click:
        visitor = self._dice.getrandbits(17)
        at: datetime = self._start + number * self._apart
        return Click(
            click_id=f"{number:020}",
            pixel_id=self._dice.choice(self._pixels),
            ip_address=f"10.{visitor >> 16}.{visitor >> 8 & 255}.{visitor & 255}",
            user_agent=BOT if visitor % 10 == 0 else BROWSERS[visitor % 50],
            landing_page="https://shop.example/products/the-bag",
            timestamp=at,
        )


async def grow(address: str, rows: int) -> list[float]:
    """Clicks a second of each step, their making not counted; the ledger is compared with its counts at the end."""
    db = await asyncpg.connect(address)
    try:
        await db.execute(
            "SELECT make_click_partition(m::date) FROM generate_series($1::date, $2::date, interval '1 month') AS m",
            (NOON - timedelta(days=DAYS)).replace(day=1).date(),
            NOON.date(),
        )
        handler, traffic = RecordClicks(b"key", IpPolicy.TRUNCATE), Traffic(rows)
        rates = [await _step(db, handler, traffic, *ends) for ends in _steps(rows)]
        assert await db.fetchval("SELECT sum(clicks + bot_clicks) FROM affiliate_daily") == rows
        assert await find_drift(db, [CLICK_COUNTS]) == []
    finally:
        await db.close()
    return rates


def _steps(rows: int) -> Iterator[tuple[int, int]]:
    return pairwise(round(step * rows / STEPS) for step in range(STEPS + 1))


async def _step(
    db: asyncpg.Connection, handler: RecordClicks, traffic: Traffic, start: int, stop: int
) -> float:
    spent = 0.0
    for first in range(start, stop, BATCH):
        facts = traffic.batch(first, min(BATCH, stop - first))
        began = time.monotonic()
        plan = await handler.plan(facts)
        async with db.transaction():
            await handler.write(db, plan)
        spent += time.monotonic() - began
    return (stop - start) / spent


async def test_soak_of_a_few_clicks_is_counted_exactly(database_url: str) -> None:
    assert len(await grow(database_url, FEW)) == STEPS


@pytest.mark.slow
async def test_soak_the_rate_of_clicks_stays_flat_as_the_ledger_grows(
    on_disk: str, capsys: pytest.CaptureFixture[str]
) -> None:
    rates = await grow(on_disk, CLICKS)
    with capsys.disabled():
        for step, rate in enumerate(rates, start=1):
            print(f"{step * CLICKS // STEPS:>12,} rows: {rate:,.0f} clicks/s, without Kafka")
    assert rates[-1] > 0.6 * max(rates[:2])
