"""What is not read is told of: positions that stand still, records deleted unread, topics that nobody reads."""

from __future__ import annotations

import asyncpg
import pytest

from support.factories import order_ids, orders
from support.ledgers import account, assert_accounts_close, assert_exact, everything_is_read
from support.probes import metric
from support.servers import StartWorker
from support.stream import Stream
from support.waiting import eventually
from support.worker import Worker

pytestmark = pytest.mark.kafka

EACH_SECOND = {"gap_check_interval_s": 1, "standstill_after_s": 1}


async def shows(worker: Worker, name: str, topic: str, value: float) -> None:
    await eventually(lambda: has(worker, name, topic, value), every=0.1)


async def has(worker: Worker, name: str, topic: str, value: float) -> bool:
    return await metric(worker, name, topic=topic) == value


async def lost(db: asyncpg.Connection) -> list[tuple[str, int, int, int]]:
    rows = await db.fetch(
        'SELECT topic, "partition", first_offset, next_offset FROM lost_offsets ORDER BY noticed_at'
    )
    return [tuple(row) for row in rows]


async def test_what_was_deleted_before_it_was_read_is_named_and_kept(
    stream: Stream, db: asyncpg.Connection, start_worker: StartWorker
) -> None:
    read, deleted, left = order_ids(50), order_ids(20), order_ids(10)
    await stream.create(partitions=1)
    worker = await start_worker(stream.kafka)
    await stream.publish(*orders(read))
    await everything_is_read(db, stream)
    assert await worker.terminate() == 0
    await stream.publish(*orders(deleted))
    await stream.publish(*orders(left))
    await stream.delete_before(stream.placed, 70)
    worker = await start_worker(stream.kafka, **EACH_SECOND)
    await everything_is_read(db, stream)

    await assert_exact(db, read + left)
    assert (await account(db, stream.placed)).skipped == 20
    await assert_accounts_close(db, stream)
    assert await lost(db) == [(stream.placed, 0, 50, 70)]
    assert '"event": "offsets_lost_to_retention"' in worker.log_tail()
    await shows(worker, "offsets_lost", stream.placed, 20)


@pytest.mark.slow
async def test_what_is_deleted_unread_is_told_of_before_anything_comes_after_it(
    stream: Stream, db: asyncpg.Connection, start_worker: StartWorker
) -> None:
    read, deleted, last = order_ids(5), order_ids(20), order_ids(1)
    await stream.create(partitions=1)
    worker = await start_worker(stream.kafka)
    await stream.publish(*orders(read))
    await everything_is_read(db, stream)
    assert await worker.terminate() == 0
    await stream.publish(*orders(deleted))
    await stream.delete_before(stream.placed, 25)
    worker = await start_worker(stream.kafka, **EACH_SECOND)

    await shows(worker, "offsets_lost", stream.placed, 20)
    assert await lost(db) == []
    assert await metric(worker, "positions_standing_still") == 0
    assert '"event": "records_deleted_unread"' in worker.log_tail()
    await stream.publish(*orders(last))
    await everything_is_read(db, stream)
    assert await lost(db) == [(stream.placed, 0, 5, 25)]
    await shows(worker, "offsets_lost", stream.placed, 20)
    await assert_exact(db, read + last)


async def test_markers_and_aborted_records_are_neither_lost_nor_a_standstill(
    stream: Stream, db: asyncpg.Connection, start_worker: StartWorker
) -> None:
    first, second = order_ids(5), order_ids(5)
    await stream.create(partitions=1)
    worker = await start_worker(stream.kafka, **EACH_SECOND)
    await stream.publish_in_transaction(*orders(first, partition=0))
    await stream.publish_in_transaction(*orders(order_ids(3), partition=0), abort=True)
    await stream.publish_in_transaction(*orders(second, partition=0))
    await stream.publish_in_transaction(*orders(order_ids(3), partition=0), abort=True)
    await everything_is_read(db, stream)
    still_since = await db.fetchval(
        "SELECT max(updated_at) FROM stream_positions WHERE topic = $1", stream.placed
    )
    await eventually(lambda: db.fetchval("SELECT clock_timestamp() - $1 > interval '4 s'", still_since))

    await assert_exact(db, first + second)
    assert (await account(db, stream.placed)).skipped > 0
    assert await lost(db) == []
    assert await metric(worker, "positions_standing_still") == 0
    assert "position_stands_still" not in worker.log_tail()


async def test_positions_stand_still_and_partitions_are_nobodys_until_a_worker_reads_them(
    stream: Stream, db: asyncpg.Connection, start_worker: StartWorker
) -> None:
    await stream.create(partitions=2)
    reader = await start_worker(stream.kafka)
    await stream.publish(*orders(order_ids(20), partition=0), *orders(order_ids(20), partition=1))
    await everything_is_read(db, stream)
    assert await reader.terminate() == 0
    scheduler = await start_worker(stream.kafka, only="schedule", **EACH_SECOND)
    await shows(scheduler, "partitions_without_consumer", stream.placed, 2)
    assert await metric(scheduler, "positions_standing_still") == 0

    await stream.publish(*orders(order_ids(3), partition=1))
    await shows(scheduler, "positions_standing_still", stream.placed, 1)
    assert await metric(scheduler, "positions_standing_still") == 1

    await start_worker(stream.kafka, only="ingest")
    await everything_is_read(db, stream)
    await shows(scheduler, "positions_standing_still", stream.placed, 0)
    await shows(scheduler, "partitions_without_consumer", stream.placed, 0)
    said = scheduler.log_tail()
    assert said.count('"event": "position_stands_still"') == 1  # not again each second
    assert said.count('"event": "gap_closed"') == 2


async def test_a_topic_that_every_worker_leaves_out_has_no_consumer(
    stream: Stream, db: asyncpg.Connection, start_worker: StartWorker
) -> None:
    await stream.create(partitions=1)
    await stream.publish(*orders(order_ids(1)))
    await stream.publish(*orders(order_ids(1)), topic=stream.clicks)
    worker = await start_worker(stream.kafka, consumers="order.placed,order.canceled", **EACH_SECOND)

    await shows(worker, "partitions_without_consumer", stream.clicks, 1)
    assert await metric(worker, "partitions_without_consumer") == 1  # the others hold nothing
    assert await metric(worker, "partitions_missing") == 0


async def test_partitions_that_are_gone_are_missing(
    stream: Stream, db: asyncpg.Connection, start_worker: StartWorker
) -> None:
    await stream.create(partitions=3)
    reader = await start_worker(stream.kafka)
    await stream.publish(*(order for n in range(3) for order in orders(order_ids(2), partition=n)))
    await everything_is_read(db, stream)
    assert await reader.terminate() == 0
    await stream.recreate(stream.placed, partitions=1)

    scheduler = await start_worker(stream.kafka, only="schedule", **EACH_SECOND)
    await shows(scheduler, "partitions_missing", stream.placed, 2)
    assert await metric(scheduler, "partitions_missing") == 2
