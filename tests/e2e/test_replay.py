"""However often a fact is published, and in whatever order, it counts once."""

from __future__ import annotations

import asyncpg
import pytest

from support.factories import a_cancellation, an_order, order_ids, orders
from support.ledgers import account, assert_accounts_close, assert_exact, counted, everything_is_read, usages
from support.servers import StartWorker
from support.stream import Stream

pytestmark = pytest.mark.kafka


async def test_doubles_leave_the_counters_unchanged_and_are_accounted_for(
    stream: Stream, db: asyncpg.Connection, start_worker: StartWorker
) -> None:
    await stream.create()
    ids = order_ids(500)
    published = orders(ids)
    await stream.publish(*published)
    await start_worker(stream.kafka)
    await everything_is_read(db, stream)
    await assert_exact(db, ids)

    await stream.publish(*published, *published)
    await everything_is_read(db, stream)

    await assert_exact(db, ids)
    found = await account(db, stream.placed)
    assert (found.read, found.applied, found.duplicates, found.dead, found.skipped) == (1500, 500, 1000, 0, 0)
    await assert_accounts_close(db, stream)


async def test_doubles_in_one_batch_count_once(
    stream: Stream, db: asyncpg.Connection, start_worker: StartWorker
) -> None:
    await stream.create(partitions=1)
    ids = order_ids(100)
    await stream.publish(*orders(ids + ids + ids, codes=["SPRING", "VIP"]))
    await start_worker(stream.kafka)
    await everything_is_read(db, stream)

    await assert_exact(db, ids, codes=["SPRING", "VIP"])
    found = await account(db, stream.placed)
    assert (found.applied, found.duplicates) == (100, 200)


async def test_a_second_group_replays_the_log_and_changes_nothing(
    stream: Stream, db: asyncpg.Connection, start_worker: StartWorker
) -> None:
    await stream.create()
    ids = order_ids(500)
    await stream.publish(*orders(ids))
    worker = await start_worker(stream.kafka)
    await everything_is_read(db, stream)
    assert await worker.terminate() == 0

    another = f"{stream.group}.another"
    await start_worker(stream.kafka, consumer_group=another)
    await everything_is_read(db, stream, group=another)

    await assert_exact(db, ids)
    both = await account(db, stream.placed)
    assert (both.read, both.applied, both.duplicates) == (1000, 500, 500)


async def test_orders_without_codes_are_applied_each_time(
    stream: Stream, db: asyncpg.Connection, start_worker: StartWorker
) -> None:
    await stream.create(partitions=1)
    without = an_order(codes=[])
    await stream.publish(without, without, an_order(codes=["", None, "  "]))
    await start_worker(stream.kafka)
    await everything_is_read(db, stream)

    assert await usages(db) == []
    found = await account(db, stream.placed)
    assert (found.applied, found.duplicates, found.dead) == (3, 0, 0)


@pytest.mark.parametrize("first", ["order.placed", "order.canceled"])
async def test_a_canceled_order_does_not_count_whichever_came_first(
    first: str, stream: Stream, db: asyncpg.Connection, start_worker: StartWorker
) -> None:
    await stream.create()
    ids = order_ids(200)
    canceled = ids[::4]
    steps = {
        "order.placed": lambda: stream.publish(*orders(ids)),
        "order.canceled": lambda: stream.publish(*map(a_cancellation, canceled), topic=stream.canceled),
    }
    await start_worker(stream.kafka)
    await steps.pop(first)()
    await everything_is_read(db, stream)
    await steps.popitem()[1]()
    await everything_is_read(db, stream)
    await stream.publish(*orders(ids))  # a cancellation is final: the order's double changes nothing
    await everything_is_read(db, stream)

    assert await usages(db) == sorted((order_id, "SPRING") for order_id in set(ids) - set(canceled))
    assert await counted(db) == {"SPRING": 150}
    marked = await db.fetchval("SELECT count(*) FROM affiliate_coupon_usages WHERE reversed_at IS NOT NULL")
    assert marked == 50
    assert (await account(db, stream.placed)).duplicates == 200
    await assert_accounts_close(db, stream)


async def test_placed_and_canceled_at_once_in_two_workers_count_exactly(
    stream: Stream, db: asyncpg.Connection, start_worker: StartWorker
) -> None:
    await stream.create()
    ids = order_ids(2_000)
    canceled = ids[::2]
    await stream.publish(*orders(ids, codes=["SPRING", "VIP"]))
    await stream.publish(*map(a_cancellation, canceled), topic=stream.canceled)
    await start_worker(stream.kafka, consumers="order.placed", batch_max_records=100, ready_within=None)
    await start_worker(
        stream.kafka, consumers="order.canceled", batch_max_records=100, consumer_group=f"{stream.group}2"
    )
    await everything_is_read(db, stream)

    assert await counted(db) == {"SPRING": 1_000, "VIP": 1_000}
    assert {order_id for order_id, _ in await usages(db)} == set(ids) - set(canceled)
    await assert_accounts_close(db, stream)
