"""A worker is killed at the worst moments: each fact counts exactly once all the same."""

from __future__ import annotations

import asyncpg
import pytest

from support.apache_kafka import ApacheKafka
from support.factories import a_malformed_order, order_ids, orders
from support.ledgers import (
    account,
    assert_accounts_close,
    assert_exact,
    blocked_backend,
    dead_letters,
    everything_is_read,
    positions,
    usages,
)
from support.servers import StartWorker
from support.stream import Stream
from support.waiting import eventually

pytestmark = pytest.mark.kafka

BACKEND_LIVES = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE pid = $1)"


@pytest.mark.parametrize("blocked_on", ["affiliate_coupons", "affiliate_coupon_usages", "stream_positions"])
async def test_sigkill_inside_the_transaction_leaves_nothing_and_the_next_worker_counts_exactly(
    blocked_on: str, stream: Stream, db: asyncpg.Connection, start_worker: StartWorker
) -> None:
    ids = order_ids(300)
    await stream.create()
    worker = await start_worker(stream.kafka)
    async with db.transaction():
        await db.execute(f"LOCK TABLE {blocked_on} IN EXCLUSIVE MODE")
        await stream.publish(*orders(ids))
        backend = await blocked_backend(db)
        worker.kill()
    await eventually(lambda: is_gone(db, backend))
    assert await usages(db) == []
    assert set((await positions(db)).values()) == {0}

    await start_worker(stream.kafka)
    await everything_is_read(db, stream)
    await assert_exact(db, ids)
    found = await account(db, stream.placed)
    assert (found.applied, found.duplicates, found.skipped) == (300, 0, 0)


async def test_sigkill_between_database_commit_and_offset_commit_reads_nothing_twice(
    own_stream: Stream, own_apache_kafka: ApacheKafka, db: asyncpg.Connection, start_worker: StartWorker
) -> None:
    first, second = order_ids(300), order_ids(100)
    await own_stream.create()
    worker = await start_worker(own_apache_kafka)
    async with db.transaction():
        await db.execute("LOCK TABLE affiliate_coupons IN EXCLUSIVE MODE")
        await own_stream.publish(*orders(first), a_malformed_order())
        await blocked_backend(db)
        own_apache_kafka.pause()  # from now on no offset can be committed to it
    await eventually(lambda: has_written(db, own_stream, 301))
    worker.kill()
    own_apache_kafka.resume()
    stored = await positions(db)
    assert await own_stream.committed() != stored

    await start_worker(own_apache_kafka)
    await own_stream.publish(*orders(second))
    await everything_is_read(db, own_stream)

    assert await usages(db) == sorted((order_id, "SPRING") for order_id in first + second)
    found = await account(db, own_stream.placed)
    assert (found.applied, found.duplicates, found.dead, found.skipped) == (400, 0, 1, 0)
    assert len(await dead_letters(db)) == 1
    await assert_accounts_close(db, own_stream)


async def test_sigterm_finishes_the_batch_and_leaves_kafkas_offsets_at_the_stored_positions(
    stream: Stream, db: asyncpg.Connection, start_worker: StartWorker
) -> None:
    ids = order_ids(2_000)
    await stream.create()
    worker = await start_worker(stream.kafka, batch_max_records=100)
    await stream.publish(*orders(ids))
    await eventually(lambda: has_written(db, stream, 1))
    assert await worker.terminate() == 0

    stored = {place: offset for place, offset in (await positions(db)).items() if offset}
    assert await stream.committed() == stored
    assert len(await usages(db)) == sum(stored.values())
    await start_worker(stream.kafka)
    await everything_is_read(db, stream)
    await assert_exact(db, ids)
    assert (await account(db, stream.placed)).duplicates == 0


async def has_written(db: asyncpg.Connection, stream: Stream, at_least: int) -> bool:
    return (await account(db, stream.placed)).read >= at_least


async def is_gone(db: asyncpg.Connection, backend: int) -> bool:
    return not await db.fetchval(BACKEND_LIVES, backend)
