"""A long run: the rate does not fall as the ledger grows. `make soak`; COUNTERFOIL_SOAK_ORDERS says how long."""

from __future__ import annotations

import os
import time

import asyncpg
import pytest

from support.factories import an_order
from support.ledgers import assert_accounts_close, everything_is_read
from support.servers import StartWorker
from support.stream import Stream

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

ORDERS = int(os.environ.get("COUNTERFOIL_SOAK_ORDERS", "2_000_000"))
STEPS = 8


async def test_soak_the_rate_stays_flat_as_the_ledger_grows(
    stream: Stream, db: asyncpg.Connection, start_worker: StartWorker, capsys: pytest.CaptureFixture[str]
) -> None:
    await stream.create(partitions=4)
    await start_worker(stream.kafka)
    rates = []
    for step in range(STEPS):
        began = time.monotonic()
        for start in range(step * ORDERS // STEPS, (step + 1) * ORDERS // STEPS, 5_000):
            stop = min(start + 5_000, (step + 1) * ORDERS // STEPS)
            await stream.publish(
                *(an_order(order_id=f"order_{n:012}", codes=[f"C{n % 500}"]) for n in range(start, stop))
            )
        await everything_is_read(db, stream)
        rates.append((ORDERS // STEPS) / (time.monotonic() - began))
        with capsys.disabled():
            print(f"{(step + 1) * ORDERS // STEPS:>12,} rows: {rates[-1]:,.0f} orders/s, publishing included")
    assert await db.fetchval("SELECT sum(times_used) FROM affiliate_coupons") == ORDERS
    await assert_accounts_close(db, stream)
    assert rates[-1] > 0.6 * max(rates[:2])
