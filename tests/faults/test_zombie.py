"""A worker is stopped for longer than its session: another takes over, and what the first wakes up to do is refused."""

from __future__ import annotations

import asyncpg
import pytest

from counterfoil.settings import DEFAULT_TOPICS
from support.factories import order_ids, orders
from support.ledgers import (
    account,
    assert_accounts_close,
    assert_exact,
    blocked_backend,
    blocked_backends,
    everything_is_read,
)
from support.probes import NOT_LISTENING, holds, metric
from support.servers import StartWorker
from support.stream import Stream
from support.waiting import eventually

pytestmark = pytest.mark.kafka

ALL = 3 * len(DEFAULT_TOPICS)
"""The partitions of every topic."""


async def test_a_stopped_workers_partitions_go_on_and_it_rejoins_without_counting_twice(
    stream: Stream, db: asyncpg.Connection, start_worker: StartWorker
) -> None:
    before, meanwhile, after = order_ids(300), order_ids(300), order_ids(300)
    await stream.create()
    sleeper = await start_worker(stream.kafka)
    other = await start_worker(stream.kafka)
    await stream.publish(*orders(before))
    sleeper.pause()
    await stream.publish(*orders(meanwhile))
    await eventually(lambda: holds(other, ALL), ignoring=NOT_LISTENING)
    await everything_is_read(db, stream)

    sleeper.resume()
    await stream.publish(*orders(after))
    await sleeper.ready()
    await everything_is_read(db, stream)

    await assert_exact(db, before + meanwhile + after)
    found = await account(db, stream.placed)
    assert (found.applied, found.duplicates) == (900, 0)
    await assert_accounts_close(db, stream)


async def test_a_zombie_that_wakes_after_its_transaction_was_cut_is_fenced(
    stream: Stream, db: asyncpg.Connection, start_worker: StartWorker
) -> None:
    ids, after = order_ids(500), order_ids(100)
    await stream.create()
    zombie = await start_worker(stream.kafka, database_timeout_s=2)
    async with db.transaction():
        await db.execute("LOCK TABLE affiliate_coupons IN EXCLUSIVE MODE")
        await stream.publish(*orders(ids))
        await blocked_backend(db)
        zombie.pause()
        other = await start_worker(stream.kafka, ready_within=None, database_timeout_s=2)
        await eventually(lambda: holds(other, ALL), ignoring=NOT_LISTENING)
    await everything_is_read(db, stream)  # once PostgreSQL has cut the zombie's idle transaction
    await assert_exact(db, ids)

    zombie.resume()
    await stream.publish(*orders(after))
    await zombie.ready()
    await everything_is_read(db, stream)
    await assert_exact(db, ids + after)
    found = await account(db, stream.placed)
    assert (found.applied, found.duplicates) == (600, 0)
    await assert_accounts_close(db, stream)


async def test_a_zombie_that_wakes_in_time_commits_and_its_successors_batch_is_fenced(
    stream: Stream, db: asyncpg.Connection, start_worker: StartWorker
) -> None:
    ids = order_ids(500)
    await stream.create()
    zombie = await start_worker(stream.kafka)
    async with db.transaction():
        await db.execute("LOCK TABLE affiliate_coupons IN EXCLUSIVE MODE")
        await stream.publish(*orders(ids))
        await blocked_backend(db)
        zombie.pause()
        other = await start_worker(stream.kafka, ready_within=None)
        await eventually(lambda: holds(other, ALL), ignoring=NOT_LISTENING)
        await eventually(lambda: both_wait(db))  # the successor waits for the zombie's positions
    zombie.resume()
    await everything_is_read(db, stream)

    await eventually(lambda: metric(other, "stale_assignments_total"))
    await assert_exact(db, ids)
    found = await account(db, stream.placed)
    assert (found.applied, found.duplicates) == (500, 0)
    await assert_accounts_close(db, stream)


async def both_wait(db: asyncpg.Connection) -> bool:
    return len(await blocked_backends(db)) == 2
