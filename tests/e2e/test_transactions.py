"""A transactional producer: what it aborts never counts, and its markers are accounted for."""

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


async def publish_transactions(
    stream: Stream, *, committed: list[list[str]], aborted: list[list[str]]
) -> None:
    for good, bad in zip(committed, aborted, strict=True):
        await stream.publish_in_transaction(*orders(good, partition=0))
        await stream.publish_in_transaction(*orders(bad, partition=0), abort=True)


@pytest.mark.parametrize("while_running", [False, True], ids=["read later", "read while published"])
async def test_aborted_records_and_markers_are_skipped_and_the_account_closes(
    while_running: bool, stream: Stream, db: asyncpg.Connection, start_worker: StartWorker
) -> None:
    await stream.create(partitions=1)
    committed = [order_ids(20) for _ in range(5)]
    aborted = [order_ids(7) for _ in range(5)]
    last = order_ids(1)
    if while_running:
        await start_worker(stream.kafka)
    await publish_transactions(stream, committed=committed, aborted=aborted)
    await stream.publish(*orders(last, partition=0))
    if not while_running:
        await start_worker(stream.kafka)
    await everything_is_read(db, stream)

    await assert_exact(db, [order_id for ids in committed for order_id in ids] + last)
    found = await account(db, stream.placed)
    markers = 10
    assert (found.applied, found.duplicates, found.dead, found.skipped) == (101, 0, 0, 5 * 7 + markers)
    await assert_accounts_close(db, stream)


async def test_markers_at_the_end_of_the_log_are_no_lag(
    stream: Stream, db: asyncpg.Connection, start_worker: StartWorker
) -> None:
    await stream.create(partitions=1)
    ids = order_ids(10)
    worker = await start_worker(stream.kafka)
    await stream.publish_in_transaction(*orders(ids, partition=0))
    await stream.publish_in_transaction(*orders(order_ids(3), partition=0), abort=True)
    await everything_is_read(db, stream)

    await assert_exact(db, ids)
    await eventually(lambda: nothing_is_behind(worker, len(ids)), deadline=10)


async def nothing_is_behind(worker: Worker, position: int) -> bool:
    """Whether the worker has looked since it came to this position, and finds nothing left to read."""
    return await metric(worker, "position") == position and await metric(worker, "lag_records") == 0
