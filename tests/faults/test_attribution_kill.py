"""Killed, stopped and cut off while orders are settled: each fact counts once, and what is posted is what is owed."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import pytest

from counterfoil.embedded.postgres import EmbeddedPostgres
from counterfoil.settings import DEFAULT_TOPICS
from support.affiliate_traffic import Document, MixedTraffic, assert_settled, documents, publish
from support.apache_kafka import ApacheKafka
from support.http_client import Client, Reply
from support.ledgers import (
    assert_accounts_close,
    blocked_backend,
    blocked_backends,
    dead_letters,
    everything_is_read,
    positions,
)
from support.probes import NOT_LISTENING, holds, metric
from support.servers import StartWorker
from support.stream import Stream
from support.waiting import eventually
from support.worker import Worker

pytestmark = pytest.mark.kafka

SETTINGS = {"attribute_by_coupon": "true", "default_commission_percent": 10}
ALL = 3 * len(DEFAULT_TOPICS)
"""The partitions of every topic."""

SETTLING = "SELECT query LIKE 'COMMIT%' FROM pg_stat_activity WHERE pid = $1"


@pytest.fixture
async def db(db: asyncpg.Connection) -> asyncpg.Connection:
    """With an affiliate that is paused, owners of coupons, and an order that was settled before."""
    await db.execute(
        "INSERT INTO affiliates (handle, name, pixel_id, status) VALUES ('two', 'Two', 'p2', 'paused')"
    )
    await db.execute("INSERT INTO affiliate_coupon_owners (code, pixel_id) VALUES ('A', 'p1')")
    await db.execute("INSERT INTO order_settlements (order_id) VALUES ('o0')")
    return db


@asynccontextmanager
async def settling(db: asyncpg.Connection, stream: Stream, facts: list[Document]) -> AsyncIterator[int]:
    """Publish facts, and hold one of their orders: yields the backend in which a worker's COMMIT waits for it."""
    async with db.transaction():
        await db.execute("SELECT FROM order_settlements WHERE order_id = 'o0' FOR UPDATE")
        await publish(stream, facts)
        backend = await blocked_backend(db)
        assert await db.fetchval(SETTLING, backend)
        yield backend


async def assert_exact(db: asyncpg.Connection, stream: Stream, facts: list[Document]) -> None:
    """Everything is read and settled, nothing was parked, and no record was counted twice."""
    await everything_is_read(db, stream)
    await assert_settled(db, facts)
    assert await dead_letters(db) == []
    await assert_accounts_close(db, stream)


async def read_so_far(db: asyncpg.Connection) -> int:
    return int(await db.fetchval("SELECT coalesce(sum(next_offset - first_offset), 0) FROM stream_positions"))


async def duplicates(db: asyncpg.Connection) -> int:
    return int(await db.fetchval("SELECT sum(duplicates) FROM stream_positions"))


def about_one_order(count: int = 300) -> list[Document]:
    """Facts of which many are about the order that is held, so that every batch is."""
    facts = documents(count, seed=count, orders=20)
    return [{"topic": "conversion", "timestamp": facts[0]["timestamp"], "order_id": "o0", "pixel_id": "p1",
             "revenue": "10.00"}, *facts]  # fmt: skip


@pytest.mark.parametrize("backend_ends", ["by itself", pytest.param("by force", marks=pytest.mark.slow)])
async def test_sigkill_while_the_commit_settles_leaves_all_or_nothing_and_the_next_worker_goes_on(
    backend_ends: str, stream: Stream, db: asyncpg.Connection, start_worker: StartWorker
) -> None:
    """A server goes on with a COMMIT whose client is gone: the next worker finds everything counted, or nothing."""
    facts = about_one_order()
    await stream.create(partitions=1)
    worker = await start_worker(stream.kafka, **SETTINGS)
    async with settling(db, stream, facts) as backend:
        worker.kill()
        if backend_ends == "by force":
            await db.execute("SELECT pg_terminate_backend($1)", backend)
    await eventually(lambda: is_gone(db, backend))
    assert (await read_so_far(db) > 0) is (backend_ends == "by itself")

    await start_worker(stream.kafka, **SETTINGS)
    await assert_exact(db, stream, facts)


@pytest.mark.slow
async def test_a_worker_that_starts_while_a_dead_ones_commit_settles_waits_for_it_and_counts_nothing_twice(
    stream: Stream, db: asyncpg.Connection, start_worker: StartWorker
) -> None:
    facts = about_one_order()
    await stream.create(partitions=1)
    worker = await start_worker(stream.kafka, **SETTINGS)
    async with settling(db, stream, facts):
        worker.kill()
        successor = await start_worker(stream.kafka, ready_within=None, **SETTINGS)
        await eventually(lambda: both_wait(db))
    await assert_exact(db, stream, facts)
    assert await metric(successor, "stale_assignments_total") > 0


async def test_sigkill_between_the_settled_commit_and_kafkas_reads_nothing_twice(
    own_stream: Stream, own_apache_kafka: ApacheKafka, db: asyncpg.Connection, start_worker: StartWorker
) -> None:
    facts = about_one_order()
    first, second = facts[:200], facts[200:]
    await own_stream.create(partitions=1)
    worker = await start_worker(own_apache_kafka, **SETTINGS)
    async with settling(db, own_stream, first):
        own_apache_kafka.pause()  # from now on no offset can be committed to it
    await eventually(lambda: read_so_far(db))
    worker.kill()
    own_apache_kafka.resume()
    assert await own_stream.committed() != await positions(db)

    await start_worker(own_apache_kafka, **SETTINGS)
    await publish(own_stream, second)
    await assert_exact(db, own_stream, facts)


async def test_a_worker_stopped_while_its_commit_settles_wakes_to_what_it_has_counted(
    stream: Stream, db: asyncpg.Connection, start_worker: StartWorker
) -> None:
    facts = about_one_order(400)
    first, second = facts[:300], facts[300:]
    await stream.create()
    sleeper = await start_worker(stream.kafka, **SETTINGS)
    async with settling(db, stream, first):
        sleeper.pause()
        other = await start_worker(stream.kafka, ready_within=None, **SETTINGS)
        await eventually(lambda: holds(other, ALL), ignoring=NOT_LISTENING)
        await eventually(lambda: both_wait(db))
    await everything_is_read(db, stream)
    await assert_settled(db, first)

    sleeper.resume()
    await publish(stream, second)
    await sleeper.ready()
    await assert_exact(db, stream, facts)


async def test_a_connection_cut_while_the_commit_settles_costs_nothing(
    stream: Stream, db: asyncpg.Connection, start_worker: StartWorker
) -> None:
    facts = about_one_order()
    await stream.create(partitions=1)
    worker = await start_worker(stream.kafka, **SETTINGS)
    async with settling(db, stream, facts):
        for attempt in range(1, 4):
            backend = await blocked_backend(db)
            assert await db.fetchval(SETTLING, backend)
            await db.execute("SELECT pg_terminate_backend($1)", backend)
            await eventually(lambda attempt=attempt: has_tried(worker, attempt))
    await assert_exact(db, stream, facts)
    assert worker.exit_code is None


@pytest.mark.slow
async def test_an_order_that_is_held_for_too_long_is_settled_by_a_later_attempt(
    stream: Stream, db: asyncpg.Connection, start_worker: StartWorker
) -> None:
    facts = about_one_order()
    await stream.create(partitions=1)
    worker = await start_worker(stream.kafka, database_timeout_s=0.7, **SETTINGS)
    async with settling(db, stream, facts):
        await eventually(lambda: has_tried(worker, 2))
    await assert_exact(db, stream, facts)
    assert worker.exit_code is None


async def test_a_payout_whose_worker_was_killed_is_paid_once_when_it_is_asked_for_again(
    stream: Stream, db: asyncpg.Connection, start_worker: StartWorker
) -> None:
    await db.execute(
        """INSERT INTO partners (id) VALUES ('px');
           INSERT INTO commissions (partner_id, order_id, amount, earnings, currency, status)
           VALUES ('px', 'o0', 100, 10, 'USD', 'approved')"""
    )
    first = await start_worker(stream.kafka, only="http")
    other = await start_worker(stream.kafka, only="http")
    async with db.transaction():
        await db.execute("SELECT FROM order_settlements WHERE order_id = 'o0' FOR UPDATE")
        asking = asyncio.create_task(pay(first))
        backend = await blocked_backend(db)
        first.kill()
        with contextlib.suppress(*NOT_LISTENING):
            await asking
    await eventually(lambda: is_gone(db, backend))
    answers = [await pay(other) for _ in range(2)]
    assert [(answer.status, answer.json["amount"]) for answer in answers] == [(201, "10.00")] * 2
    assert await db.fetchval("SELECT array_agg(amount) FROM payouts") == [10]


async def pay(worker: Worker) -> Reply:
    """Ask for a payout, always the same."""
    return await Client(worker.port).post(
        "/api/partners/px/payouts", {"currency": "USD"}, idempotency_key="once"
    )


async def crashes(
    stream: Stream, postgres: EmbeddedPostgres, start_worker: StartWorker, *, times: int, records: int
) -> None:
    """Let PostgreSQL crash again and again under facts of every topic."""
    await stream.create()
    workers = [await start_worker(stream.kafka, database_url=postgres.dsn, **SETTINGS) for _ in range(2)]
    facts = documents(records, seed=times)
    async with MixedTraffic(stream, facts, chunk=records // 40) as traffic:
        for crash in range(1, times + 1):
            await traffic.reached(crash * records // (times + 1))
            await asyncio.to_thread(postgres.restart, immediate=True)
    db = await asyncpg.connect(postgres.dsn)
    try:
        await assert_exact(db, stream, facts)
        assert await duplicates(db) == len(facts) - await db.fetchval(
            "SELECT sum(applied) FROM stream_positions"
        )
    finally:
        await db.close()
    assert [worker.exit_code for worker in workers] == [None, None]


async def test_postgresql_crashing_under_facts_of_every_topic_loses_and_doubles_nothing(
    stream: Stream, own_postgres: EmbeddedPostgres, start_worker: StartWorker
) -> None:
    await crashes(stream, own_postgres, start_worker, times=1, records=1_000)


@pytest.mark.slow
async def test_postgresql_crashing_many_times_under_facts_of_every_topic_loses_and_doubles_nothing(
    stream: Stream, own_postgres: EmbeddedPostgres, start_worker: StartWorker
) -> None:
    await crashes(stream, own_postgres, start_worker, times=15, records=15_000)


async def kills(
    stream: Stream, db: asyncpg.Connection, start_worker: StartWorker, *, times: int, records: int
) -> None:
    """Kill worker after worker at moments of chance, while facts of every topic flow."""
    await stream.create()
    dice = random.Random(times)
    facts = documents(records, seed=times)
    settings = SETTINGS | {"batch_max_records": 100}
    workers = [await start_worker(stream.kafka, **settings) for _ in range(2)]
    async with MixedTraffic(stream, facts, chunk=records // 40) as traffic:
        for kill in range(1, times + 1):
            await traffic.reached(kill * records // (times + 1))
            workers.pop(dice.randrange(2)).kill()
            workers.append(await start_worker(stream.kafka, ready_within=None, **settings))
            seen = await read_so_far(db)
            await eventually(lambda seen=seen: goes_on(db, seen, len(facts)), deadline=60)
    await assert_exact(db, stream, facts)
    assert [worker.exit_code for worker in workers] == [None, None]


@pytest.mark.slow
async def test_workers_killed_many_times_while_facts_of_every_topic_flow_count_each_once(
    stream: Stream, db: asyncpg.Connection, start_worker: StartWorker
) -> None:
    await kills(stream, db, start_worker, times=25, records=25_000)


async def is_gone(db: asyncpg.Connection, backend: int) -> bool:
    return not await db.fetchval("SELECT EXISTS (SELECT FROM pg_stat_activity WHERE pid = $1)", backend)


async def both_wait(db: asyncpg.Connection) -> bool:
    return len(await blocked_backends(db)) == 2


async def has_tried(worker: Worker, attempts: int) -> bool:
    return await metric(worker, "batch_retries_total") >= attempts


async def goes_on(db: asyncpg.Connection, seen: int, most: int) -> bool:
    """Whether more was read than that, or everything."""
    now = await read_so_far(db)
    return now > seen or now >= most
