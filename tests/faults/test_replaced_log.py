"""A topic is deleted and made again: what it holds now counts, what it held before stays counted."""

from __future__ import annotations

import asyncpg
import pytest

from support.factories import order_ids, orders
from support.ledgers import Account, account, assert_accounts_close, assert_exact, everything_is_read
from support.servers import StartWorker
from support.stream import Stream
from support.waiting import eventually

pytestmark = pytest.mark.kafka

RETIRED = "stream_positions_retired"


async def assert_both_logs_counted(
    db: asyncpg.Connection, stream: Stream, old: list[str], new: list[str]
) -> None:
    await eventually(lambda: is_retired(db, stream))
    await everything_is_read(db, stream)
    await assert_exact(db, old + new)
    now = await account(db, stream.placed)
    assert now == Account(read=len(new), applied=len(new), duplicates=0, dead=0, skipped=0)
    before = await account(db, stream.placed, RETIRED)
    assert before == Account(read=len(old), applied=len(old), duplicates=0, dead=0, skipped=0)
    assert all(row["reason"] for row in await db.fetch(f"SELECT reason FROM {RETIRED}"))
    await assert_accounts_close(db, stream)


async def is_retired(db: asyncpg.Connection, stream: Stream) -> bool:
    return bool(await db.fetchval(f"SELECT count(*) FROM {RETIRED} WHERE topic = $1", stream.placed))


@pytest.mark.parametrize("count", [20, 100, 250], ids=["shorter", "as long", "longer"])
async def test_a_topic_recreated_while_no_worker_runs_is_read_from_its_beginning(
    count: int, stream: Stream, db: asyncpg.Connection, start_worker: StartWorker
) -> None:
    old, new = order_ids(100), order_ids(count)
    await stream.create(partitions=1)
    worker = await start_worker(stream.kafka)
    await stream.publish(*orders(old))
    await everything_is_read(db, stream)
    assert await worker.terminate() == 0
    await stream.recreate(stream.placed, partitions=1)
    await stream.publish(*orders(new))
    await start_worker(stream.kafka)

    await assert_both_logs_counted(db, stream, old, new)


@pytest.mark.parametrize("count", [20, 250], ids=["shorter", "longer"])
async def test_a_topic_recreated_under_a_running_worker_is_read_from_its_beginning(
    count: int, stream: Stream, db: asyncpg.Connection, start_worker: StartWorker
) -> None:
    old, new = order_ids(100), order_ids(count)
    await stream.create(partitions=1)
    worker = await start_worker(stream.kafka)
    await stream.publish(*orders(old))
    await everything_is_read(db, stream)
    await stream.recreate(stream.placed, partitions=1)
    await stream.publish(*orders(new))

    await assert_both_logs_counted(db, stream, old, new)
    await worker.ready()
