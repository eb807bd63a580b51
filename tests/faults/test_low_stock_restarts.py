"""One alert a cooldown, however many workers scan, and however often they are killed and started again."""

from __future__ import annotations

import asyncio
import itertools

import asyncpg
import pytest

from support.servers import Broker, StartWorker
from support.waiting import eventually
from support.worker import Worker


@pytest.mark.parametrize(
    ("workers", "restarts"), [(2, 3), pytest.param(8, 20, marks=pytest.mark.slow)], ids=["a few", "many"]
)
async def test_workers_that_scan_and_restart_tell_of_a_low_product_once(
    db: asyncpg.Connection, broker: Broker, start_worker: StartWorker, workers: int, restarts: int
) -> None:
    await db.execute(
        "INSERT INTO inventory_products (sku, name, stock) VALUES ('A-1', 'Bag', 3), ('A-2', 'Box', 40)"
    )
    running = await asyncio.gather(
        *(start_worker(broker, only="schedule", stock_scan_interval_s=1) for _ in range(workers))
    )
    await eventually(lambda: db.fetchval("SELECT count(*) = 1 FROM alerts"))
    for worker in itertools.islice(itertools.cycle(running), restarts):
        await again(db, worker)
    turn = await last_turn(db)
    await eventually(lambda: turned(db, turn))

    assert [tuple(row) for row in await db.fetch("SELECT subject, cause FROM alerts")] == [("A-1", "3:A-1")]
    assert await db.fetchval("SELECT count(*) FROM outbox") == 1
    logged = await db.fetch("SELECT sku, new_stock FROM inventory_events WHERE event_type = 'low_stock'")
    assert [tuple(row) for row in logged] == [("A-1", 3)]

    await db.execute("UPDATE alert_cooldowns SET raised_at = raised_at - interval '5 minutes'")
    await eventually(lambda: db.fetchval("SELECT count(*) = 2 FROM alerts"))  # it is low still


async def again(db: asyncpg.Connection, worker: Worker) -> None:
    """Kill it, and start it anew; somebody scans meanwhile or afterwards."""
    worker.kill()
    turn = await last_turn(db)
    await worker.start()
    await eventually(lambda: turned(db, turn))


async def last_turn(db: asyncpg.Connection) -> object:
    return await db.fetchval("SELECT turn FROM job_turns WHERE job = 'scan_stock'")


async def turned(db: asyncpg.Connection, since: object) -> bool:
    return await last_turn(db) != since
