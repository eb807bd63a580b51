"""What the metrics tell of all products together."""

from __future__ import annotations

import asyncio

import asyncpg
from structlog.testing import capture_logs

from counterfoil.database import sampling
from counterfoil.database.sampling import sample_forever
from counterfoil.inventory.sampling import sample_products
from counterfoil.telemetry.metrics import Metrics
from support.waiting import eventually


async def test_the_gauges_show_all_products_and_those_that_are_low(shared_db):
    metrics = Metrics()
    await sample_products(shared_db, metrics)
    assert (metrics.value("products"), metrics.value("low_stock_products")) == (0, 0)
    await shared_db.execute(
        "INSERT INTO inventory_products (sku, name, stock, threshold) "
        "VALUES ('at', 'a', 10, 10), ('below', 'b', 9, 10), ('negative', 'c', -1, 0)"
    )
    await sample_products(shared_db, metrics)
    assert (metrics.value("products"), metrics.value("low_stock_products")) == (3, 2)


async def test_a_failure_leaves_the_gauges_and_the_next_look_sets_them(db, database_url, monkeypatch):
    monkeypatch.setattr(sampling, "EVERY_S", 0.01)
    metrics = Metrics()
    await db.execute("INSERT INTO inventory_products (sku, name) VALUES ('A', 'A')")
    await db.execute("ALTER TABLE inventory_products RENAME TO elsewhere")
    async with asyncpg.create_pool(database_url, min_size=0, max_size=1) as pool:
        with capture_logs() as logged:
            sampled = asyncio.create_task(sample_forever(pool, metrics, [sample_products]))
            await eventually(lambda: logged)
            assert (logged[0]["event"], metrics.value("products")) == ("sampling_failed", 0)
            await db.execute("ALTER TABLE elsewhere RENAME TO inventory_products")
            await eventually(lambda: metrics.value("products") == 1)
        sampled.cancel()
        await asyncio.gather(sampled, return_exceptions=True)
