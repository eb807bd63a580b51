"""Scans by the million, mostly by users who come back: the rate does not fall, and no roll-up drifts.

`make soak` runs the long form; COUNTERFOIL_SOAK_SCANS says how long.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from datetime import datetime

import asyncpg
import pytest

from counterfoil.database.counters import find_drift
from counterfoil.events import Scan
from counterfoil.settings import IpPolicy
from counterfoil.vouchers.handlers import RecordScans
from counterfoil.vouchers.store import VOUCHER_COUNTERS
from support.soak import STEPS, first_days, grow, postgres_on_disk

SCANS = int(os.environ.get("COUNTERFOIL_SOAK_SCANS", "10_000_000"))
FEW = 20_000
VOUCHERS = 300
USERS = 200_000
REGULARS = 500
"""Users of one voucher, the first, who come to it day after day."""


@pytest.fixture
def on_disk() -> Iterator[str]:
    with postgres_on_disk() as address:
        yield address


class Scans:
    """Scans of 300 vouchers, some of them by far the most, and one in ten by the regulars of one of them."""

    def __init__(self, rows: int) -> None:
        self._dice = random.Random(rows)

    def event(self, number: int, at: datetime) -> Scan:
        dice = self._dice
        voucher, user = int(dice.random() ** 2 * VOUCHERS), f"user-{dice.randrange(USERS)}"
        if dice.random() < 0.1:
            voucher, user = 0, f"regular-{dice.randrange(REGULARS)}"
        return Scan(
            scan_id=f"{dice.getrandbits(128):032x}",
            voucher_id=f"voucher-{voucher:03}",
            user_id=user if dice.random() < 0.6 else None,
            scan_type="CUSTOMER",
            scan_source=dice.choice(("CAMERA", "LINK")),
            device_info='{"os":"iOS 19.0"}',
            location=f'{{"city":"City {dice.randrange(40)}"}}' if dice.random() < 0.3 else None,
            timestamp=at,
        )


async def grow_scans(address: str, rows: int) -> list[float]:
    """Scans a second of each step; every roll-up is compared with the ledger at the end."""
    db = await asyncpg.connect(address)
    try:
        await db.execute(
            "SELECT make_partition('voucher_scans', day) FROM unnest($1::date[]) AS day", first_days()
        )
        rates = await grow(db, RecordScans(b"key", IpPolicy.TRUNCATE), Scans(rows), rows)
        assert await db.fetchval("SELECT sum(scan_count) FROM vouchers") == rows
        assert await find_drift(db, VOUCHER_COUNTERS) == []
    finally:
        await db.close()
    return rates


async def test_soak_of_a_few_scans_is_counted_exactly(database_url: str) -> None:
    assert len(await grow_scans(database_url, FEW)) == STEPS


@pytest.mark.slow
async def test_soak_the_rate_of_scans_stays_flat_as_the_ledger_grows(
    on_disk: str, capsys: pytest.CaptureFixture[str]
) -> None:
    rates = await grow_scans(on_disk, SCANS)
    with capsys.disabled():
        for step, rate in enumerate(rates, start=1):
            print(f"{step * SCANS // STEPS:>12,} rows: {rate:,.0f} scans/s, without Kafka")
    assert rates[-1] > 0.6 * max(rates[:2])
