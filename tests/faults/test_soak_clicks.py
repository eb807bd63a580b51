"""Clicks by the million: the rate does not fall as their ledger grows, and every day of it is counted exactly.

`make soak` runs the long form; COUNTERFOIL_SOAK_CLICKS says how long.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from datetime import datetime

import asyncpg
import pytest

from counterfoil.clicks.handlers import RecordClicks
from counterfoil.clicks.store import CLICK_COUNTS
from counterfoil.database.counters import find_drift
from counterfoil.events import Click
from counterfoil.settings import IpPolicy
from support.soak import STEPS, first_days, grow, postgres_on_disk

CLICKS = int(os.environ.get("COUNTERFOIL_SOAK_CLICKS", "20_000_000"))
FEW = 40_000
PIXELS = 500
BOT = "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"
BROWSERS = [f"Mozilla/5.0 (X11; Linux x86_64; rv:{n}.0) Gecko/20100101 Firefox/{n}.0" for n in range(80, 130)]


@pytest.fixture
def on_disk() -> Iterator[str]:
    with postgres_on_disk() as address:
        yield address


class Clicks:
    """Clicks of 130,000 visitors on 500 pixels, one in ten a bot's."""

    def __init__(self, rows: int) -> None:
        self._dice = random.Random(rows)
        self._pixels = [f"00000000-0000-4000-8000-{n:012}" for n in range(PIXELS)]

    def event(self, number: int, at: datetime) -> Click:
        visitor = self._dice.getrandbits(17)
        return Click(
            click_id=f"{number:020}",
            pixel_id=self._dice.choice(self._pixels),
            ip_address=f"10.{visitor >> 16}.{visitor >> 8 & 255}.{visitor & 255}",
            user_agent=BOT if visitor % 10 == 0 else BROWSERS[visitor % 50],
            landing_page="https://shop.example/products/the-bag",
            timestamp=at,
        )


async def grow_clicks(address: str, rows: int) -> list[float]:
    """Clicks a second of each step; the ledger is compared with its counts at the end."""
    db = await asyncpg.connect(address)
    try:
        await db.execute("SELECT make_click_partition(day) FROM unnest($1::date[]) AS day", first_days())
        rates = await grow(db, RecordClicks(b"key", IpPolicy.TRUNCATE), Clicks(rows), rows)
        assert await db.fetchval("SELECT sum(clicks + bot_clicks) FROM affiliate_daily") == rows
        assert await find_drift(db, [CLICK_COUNTS]) == []
    finally:
        await db.close()
    return rates


async def test_soak_of_a_few_clicks_is_counted_exactly(database_url: str) -> None:
    assert len(await grow_clicks(database_url, FEW)) == STEPS


@pytest.mark.slow
async def test_soak_the_rate_of_clicks_stays_flat_as_the_ledger_grows(
    on_disk: str, capsys: pytest.CaptureFixture[str]
) -> None:
    rates = await grow_clicks(on_disk, CLICKS)
    with capsys.disabled():
        for step, rate in enumerate(rates, start=1):
            print(f"{step * CLICKS // STEPS:>12,} rows: {rate:,.0f} clicks/s, without Kafka")
    assert rates[-1] > 0.6 * max(rates[:2])
