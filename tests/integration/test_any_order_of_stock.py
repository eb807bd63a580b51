"""The central promise for inventory: every product is a function of the set of stock changes alone.

Whatever the order of absolutes, deltas, restocks and details, of doubles, batches, workers and crashes: equal tables,
and not one stock that is not its ledger's.
"""

from __future__ import annotations

import json
import random
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from counterfoil.database.counters import find_drift
from counterfoil.ingest.partitions import Partition
from counterfoil.inventory.store import STOCK_COUNTS
from support.builders import a_record
from support.inventory_model import (
    INVENTORY,
    LOG,
    changes_of,
    exact,
    products_of,
    stored_changes,
    stored_products,
)
from support.postgres_ledgers import empty
from support.postgres_road import Scribe
from support.schedules import Schedule, accounts_close, run

NOW = datetime.now(UTC).replace(microsecond=0)
THIS_MONTH = NOW.replace(day=1, hour=0, minute=0, second=0)
LONG_AGO = datetime(2020, 2, 29, tzinfo=UTC)
"""A time that has no partition of its own."""

STOCK = Partition("stock-change", 0)
TIMES = [
    (at + timedelta(microseconds=microseconds)).isoformat()
    for at in (LONG_AGO, THIS_MONTH, NOW - timedelta(seconds=9))  # there the months meet, and two partitions
    for microseconds in (-1, 0, 1)
]
"""The last of them are young enough for alerts."""

SKUS = ["hot", "hot", "hot", "S2", "ü3"]
"""Few, and one of them more often, so that changes meet."""

pieces = st.sampled_from([-(2**31), -7, -1, 0, 1, 4, 9, 40, 2**31 - 1])
absolutes = st.fixed_dictionaries({"new_stock": pieces})
deltas = st.fixed_dictionaries({"quantity_delta": pieces})
both = st.fixed_dictionaries({"new_stock": pieces, "old_stock": pieces}, optional={"quantity_delta": pieces})
loose = st.fixed_dictionaries({"new_stock": pieces, "quantity_delta": pieces})
remembering = st.fixed_dictionaries({"quantity_delta": pieces, "old_stock": pieces})
stocks = st.one_of(absolutes, deltas, deltas, both, loose, remembering)
others = st.fixed_dictionaries(
    {"sku": st.sampled_from(SKUS)},
    optional={
        "event_id": st.sampled_from(["a", "B", "ä", "e4"]),
        "timestamp": st.sampled_from(TIMES),
        "event_type": st.sampled_from(["sale", "change", " Restock", "replenishment", "low_stock"]),
        "metadata": st.sampled_from([{}, {"b": 1}, {"aa": 1.5, "b": None}, {"b": "ä"}]),
        "name": st.sampled_from(["Bag", "bag", "Täsche"]),
        "threshold": st.sampled_from([0, 5, 10, 2**31 - 1]),
        "unit_price": st.sampled_from(["0", "24.5", 24.51, "99999999999999.999999"]),
        "supplier": st.sampled_from(["Loom", "loom & co"]),
    },
)
changes = st.builds(lambda stock, other: {"topic": STOCK.topic, **other, **stock}, stocks, others)
schedules = st.builds(
    Schedule,
    seed=st.integers(0, 2**32),
    partitions=st.integers(1, 2),
    crashes=st.booleans(),
    sent_at=st.just(NOW),
)


@pytest.fixture
async def pool(database_url):
    """Connections that outlive an example: what the triggers' functions have planned is planned once."""
    async with asyncpg.create_pool(database_url, min_size=0, max_size=6) as pool:
        yield pool


@asynccontextmanager
async def fresh_workers(pool, count):
    """Workers that have learned nothing yet."""
    workers = [Scribe(pool) for _ in range(count)]
    try:
        yield workers
    finally:
        for worker in workers:
            await worker.writer.close()


async def start_afresh(db):
    await empty(db, [*INVENTORY, "dead_letters", "stream_positions", "stream_sources"])


async def tables_are_those_of_the_model(db, logs) -> bool:
    """Rows, refusals and products are what these logs come to, and the log of alerts is that of the alerts."""
    expected = changes_of(logs)
    assert await stored_changes(db) == expected
    assert await stored_products(db) == products_of(expected)
    assert await find_drift(db, [STOCK_COUNTS]) == []
    logged = f"SELECT event_id, occurred_at, sku FROM inventory_events WHERE {LOG} ORDER BY 1"
    told = "SELECT alert_id, raised_at, subject FROM alerts ORDER BY 1"
    assert [*map(tuple, await db.fetch(logged))] == [*map(tuple, await db.fetch(told))]
    return await accounts_close(db, logs)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    documents=st.lists(changes, min_size=1, max_size=12), one=schedules, other=schedules, workers=st.integers(1, 2)
)  # fmt: skip
async def test_a_product_is_a_function_of_the_set_of_stock_changes(db, pool, documents, one, other, workers):
    for schedule in (one, other):
        await start_afresh(db)
        async with fresh_workers(pool, workers) as crowd:
            logs = await run(schedule, documents, crowd)
        assert await tables_are_those_of_the_model(db, logs)


CHANGE = {"sku": "s1", "event_id": "e1", "timestamp": TIMES[0]}
SALE = CHANGE | {"event_type": "sale", "quantity_delta": -1}
CONTENTS = [
    (CHANGE, {"new_stock": 3}, {"new_stock": 4}),
    (CHANGE, {"new_stock": -3}, {"new_stock": 3}),
    (CHANGE, {"quantity_delta": 50}, {"new_stock": 4}),
    (CHANGE, {"quantity_delta": -5}, {"quantity_delta": 5}),
    (CHANGE, {"new_stock": 3}, {"new_stock": 3, "quantity_delta": 1}),
    (CHANGE, {"new_stock": 3, "old_stock": 2}, {"new_stock": 3, "old_stock": 1}),
    (SALE, {"sku": "S1"}, {"sku": "s1"}),
    (SALE, {"sku": "z"}, {"sku": "ä"}),
    (SALE, {}, {"event_type": "restock"}),
    (SALE, {"event_type": "low_stock"}, {"event_type": "restock"}),
    (SALE, {"event_type": "damage"}, {"event_type": "low_stock"}),
    (SALE, {}, {"old_stock": 0}),
    (SALE, {"old_stock": -1}, {"old_stock": 0}),
    (SALE, {"metadata": {"b": 1}}, {"metadata": {"aa": 1}}),
    (SALE, {"metadata": {"b": "é"}}, {"metadata": {"b": "z"}}),
    (SALE, {}, {"name": "bag"}),
    (SALE, {"name": "Bag"}, {"name": "bag"}),
    (SALE, {"name": "é"}, {"name": "z"}),
    (SALE, {"threshold": 5}, {"threshold": 50}),
    (SALE, {"threshold": 0}, {}),
    (SALE, {"unit_price": "9.5"}, {"unit_price": "10"}),
    (SALE, {"unit_price": 0}, {}),
    (SALE, {"supplier": "Loom"}, {"supplier": "loom"}),
    (SALE, {"supplier": "Loom"}, {}),
    (SALE | {"event_type": "low_stock"}, {"name": "Bag"}, {"name": "bag"}),
]


@pytest.mark.parametrize("in_one_batch", [True, False])
async def test_of_contents_that_differ_in_one_thing_the_same_stands(db, pool, in_one_batch):
    """Everything that is told decides, here and in the database alike, whichever comes first."""
    for common, one, other in CONTENTS:
        for contents in ((one, other), (other, one)):
            log = log_of(*(common | content for content in contents))
            await start_afresh(db)
            async with fresh_workers(pool, 1) as (worker,):
                for batch in [log] if in_one_batch else [log[:1], log[1:]]:
                    await worker.write(batch)
            assert await tables_are_those_of_the_model(db, {STOCK: log}), contents


def log_of(*documents):
    return [a_record(n, json.dumps(d).encode(), topic=STOCK.topic) for n, d in enumerate(documents)]


async def test_a_resend_with_the_same_id_and_another_time_is_another_change(db, pool):
    log = log_of(*(CHANGE | {"timestamp": time, "quantity_delta": 2} for time in TIMES[:3]))
    async with fresh_workers(pool, 1) as (worker,):
        await worker.write(log)
    assert (await stored_products(db))["s1"].stock == 6
    assert await exact(db)


async def test_many_stock_changes_end_in_the_tables_of_the_model(db, pool):
    """The same with more products than the small alphabets have, and long batches."""
    dice = random.Random(5)
    documents = [a_document(dice) for _ in range(3_000)]
    schedule = Schedule(seed=3, partitions=2, crashes=True, batch=400, sent_at=NOW)
    async with fresh_workers(pool, 2) as workers:
        logs = await run(schedule, documents, workers)
    assert await tables_are_those_of_the_model(db, logs)


def a_document(dice):
    told = {
        "event_id": f"e{dice.randrange(900)}",
        "event_type": dice.choice(["sale", "change", "restock", "count", "low_stock"]),
        "name": f"n{dice.randrange(9)}",
        "threshold": dice.randrange(20),
        "unit_price": str(dice.randrange(9)),
        "supplier": f"of {dice.randrange(3)}",
        "metadata": {"warehouse": dice.randrange(3)},
    }
    stock = {"new_stock": dice.randrange(-5, 50)} if dice.random() < 0.3 else {}
    return {
        "topic": STOCK.topic,
        "sku": f"s{min(dice.randrange(60), dice.randrange(60))}",
        "timestamp": (THIS_MONTH - timedelta(seconds=dice.randrange(40) * 20_000)).isoformat(),
        "quantity_delta": dice.randrange(-9, 10),
        **stock,
        **{name: value for name, value in told.items() if dice.random() < 0.4},
    }
