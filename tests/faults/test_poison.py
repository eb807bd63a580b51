"""The database refuses one record's content: that one is parked, and all around it count."""

from __future__ import annotations

import asyncpg
import pytest

from support.factories import a_click, a_conversion, an_order, order_ids, orders
from support.ledgers import account, assert_accounts_close, counted, dead_letters, everything_is_read
from support.servers import StartWorker
from support.stream import Stream
from support.waiting import eventually

pytestmark = pytest.mark.kafka

REFUSE = "ALTER TABLE affiliate_coupon_usages ADD CONSTRAINT refused CHECK (code <> 'POISON')"


async def test_one_poison_in_a_batch_of_a_thousand_is_parked_alone(
    stream: Stream, db: asyncpg.Connection, start_worker: StartWorker
) -> None:
    await db.execute(REFUSE)
    await stream.create(partitions=1)
    good = order_ids(999)
    poison = an_order(codes=["POISON", "SPRING"])
    await stream.publish(*orders(good[:637]), poison, *orders(good[637:]))
    await start_worker(stream.kafka)
    await everything_is_read(db, stream)

    assert await counted(db) == {"SPRING": 999}
    (letter,) = await dead_letters(db)
    assert (letter["offset"], letter["key"], letter["value"]) == (637, poison.key, poison.value)
    assert letter["error_kind"] == "database"
    assert "refused" in letter["error"]  # the constraint's name, and no value
    assert "POISON" not in letter["error"]
    found = await account(db, stream.placed)
    assert (found.read, found.applied, found.duplicates, found.dead) == (1_000, 999, 0, 1)
    await assert_accounts_close(db, stream)


async def test_poison_in_several_partitions_is_parked_and_the_rest_counts(
    stream: Stream, db: asyncpg.Connection, start_worker: StartWorker
) -> None:
    await db.execute(REFUSE)
    await stream.create(partitions=3)
    mixed = [m for order in orders(order_ids(300)) for m in (order,)]
    poison = [an_order(codes=["POISON"]) for _ in range(7)]
    await stream.publish(*mixed[:100], *poison[:3], *mixed[100:], *poison[3:])
    await start_worker(stream.kafka)
    await everything_is_read(db, stream)

    assert await counted(db) == {"SPRING": 300}
    assert sorted(letter["key"] for letter in await dead_letters(db)) == sorted(m.key for m in poison)
    await assert_accounts_close(db, stream)


async def test_a_click_of_a_month_that_is_closed_is_parked_as_such_and_its_neighbours_are_written(
    stream: Stream, db: asyncpg.Connection, start_worker: StartWorker
) -> None:
    await stream.create(partitions=1)
    await start_worker(stream.kafka, retention_days_clicks=30)
    await eventually(lambda: db.fetchval("SELECT closed_before FROM ledger_bounds"))
    late = a_click("p1", click_id="late", timestamp="2020-05-05T12:00:00Z")
    await stream.publish(*(a_click("p1") for _ in range(137)), late, *(a_click("p1") for _ in range(162)),
                         topic=stream.clicks)  # fmt: skip
    await stream.publish(*(a_conversion(order_id) for order_id in order_ids(20)), topic=stream.conversions)
    await everything_is_read(db, stream)

    (letter,) = await dead_letters(db)
    assert (letter["topic"], letter["offset"], letter["value"]) == (stream.clicks, 137, late.value)
    assert letter["error_kind"] == "before_retention"
    assert await db.fetchval("SELECT sum(clicks) FROM affiliate_daily") == 299
    assert await db.fetchval("SELECT count(*) FROM aff_clicks WHERE click_id = 'late'") == 0
    assert await db.fetchval("SELECT sum(conversions) FROM affiliate_daily") == 20
    found = await account(db, stream.clicks)
    assert (found.applied, found.dead) == (299, 1)
    await assert_accounts_close(db, stream)


async def test_a_missing_table_stops_the_worker_and_parks_nothing(
    stream: Stream, db: asyncpg.Connection, start_worker: StartWorker
) -> None:
    await stream.create(partitions=1)
    worker = await start_worker(stream.kafka)
    await db.execute("ALTER TABLE affiliate_coupon_usages RENAME TO hidden")
    ids = order_ids(50)
    await stream.publish(*orders(ids))
    assert await worker.ended() == 3
    assert await dead_letters(db) == []
    assert (await account(db, stream.placed)).read == 0

    await db.execute("ALTER TABLE hidden RENAME TO affiliate_coupon_usages")
    await start_worker(stream.kafka)
    await everything_is_read(db, stream)
    assert await counted(db) == {"SPRING": 50}
