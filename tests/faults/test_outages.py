"""Kafka or PostgreSQL goes away under traffic: nothing good is parked, nothing is lost, nothing counts twice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import pytest

from counterfoil.embedded.postgres import EmbeddedPostgres
from support.apache_kafka import ApacheKafka
from support.factories import order_ids, orders
from support.ledgers import account, assert_accounts_close, assert_exact, blocked_backend, everything_is_read
from support.probes import livez, metric
from support.servers import StartWorker
from support.stream import Stream, Traffic
from support.waiting import eventually
from support.worker import Worker

pytestmark = pytest.mark.kafka


@asynccontextmanager
async def connected(postgres: EmbeddedPostgres) -> AsyncIterator[asyncpg.Connection]:
    db = await asyncpg.connect(postgres.dsn)
    try:
        yield db
    finally:
        await db.close()


async def assert_all_counted(db: asyncpg.Connection, stream: Stream, ids: list[str], worker: Worker) -> None:
    await everything_is_read(db, stream)
    await assert_exact(db, ids)
    await assert_accounts_close(db, stream)
    assert worker.exit_code is None


async def test_a_broker_killed_and_started_again_under_traffic_loses_nothing(
    own_stream: Stream, own_apache_kafka: ApacheKafka, db: asyncpg.Connection, start_worker: StartWorker
) -> None:
    await own_stream.create()
    worker = await start_worker(own_apache_kafka)
    async with Traffic(own_stream, order_ids(2_000)) as traffic:
        await traffic.reached(500)
        await asyncio.to_thread(own_apache_kafka.kill)
        await asyncio.to_thread(own_apache_kafka.start)
        await traffic.reached(2_000)

    await assert_all_counted(db, own_stream, traffic.ids, worker)
    assert (await account(db, own_stream.placed)).skipped == 0
    await worker.ready()


async def test_postgresql_crashing_under_traffic_loses_nothing_and_parks_nothing(
    stream: Stream, own_postgres: EmbeddedPostgres, start_worker: StartWorker
) -> None:
    await stream.create()
    worker = await start_worker(stream.kafka, database_url=own_postgres.dsn, batch_max_records=50)
    async with Traffic(stream, order_ids(2_000)) as traffic:
        for share in (500, 1_000):
            await traffic.reached(share)
            await asyncio.to_thread(own_postgres.restart, immediate=True)

    async with connected(own_postgres) as db:
        await assert_all_counted(db, stream, traffic.ids, worker)
        assert (await account(db, stream.placed)).duplicates == 0


async def outage(
    stream: Stream, postgres: EmbeddedPostgres, start_worker: StartWorker, *, attempts: int, seconds: float
) -> None:
    """Take the database away for so many attempts and seconds, under traffic."""
    await stream.create()
    worker = await start_worker(stream.kafka, database_url=postgres.dsn)
    async with Traffic(stream, order_ids(50_000), chunk=20) as traffic:
        await traffic.reached(200)
        await asyncio.to_thread(postgres.stop)
        async with asyncio.timeout(300):
            await asyncio.sleep(seconds)  # an outage of this length is what is tested
            await eventually(lambda: has_tried(worker, attempts), deadline=200)
        await asyncio.to_thread(postgres.start)
        traffic.enough()

    async with connected(postgres) as db:
        await assert_all_counted(db, stream, traffic.ids, worker)
    await worker.ready()


async def has_tried(worker: Worker, attempts: int) -> bool:
    assert await livez(worker) == 200
    return await metric(worker, "batch_retries_total") >= attempts


async def test_a_database_that_is_away_for_seconds_costs_nothing(
    stream: Stream, own_postgres: EmbeddedPostgres, start_worker: StartWorker
) -> None:
    await outage(stream, own_postgres, start_worker, attempts=5, seconds=8)


@pytest.mark.slow
async def test_a_database_that_is_away_for_a_minute_costs_nothing(
    stream: Stream, own_postgres: EmbeddedPostgres, start_worker: StartWorker
) -> None:
    await outage(stream, own_postgres, start_worker, attempts=8, seconds=60)


async def test_a_connection_killed_inside_the_transaction_costs_nothing(
    stream: Stream, db: asyncpg.Connection, start_worker: StartWorker
) -> None:
    ids = order_ids(500)
    await stream.create()
    worker = await start_worker(stream.kafka)
    async with db.transaction():
        await db.execute("LOCK TABLE affiliate_coupons IN EXCLUSIVE MODE")
        await stream.publish(*orders(ids))
        for attempt in range(1, 4):
            backend = await blocked_backend(db)
            await db.execute("SELECT pg_terminate_backend($1)", backend)
            await eventually(lambda attempt=attempt: has_tried(worker, attempt))

    await assert_all_counted(db, stream, ids, worker)
    found = await account(db, stream.placed)
    assert (found.applied, found.duplicates) == (500, 0)


async def test_a_statement_that_waits_too_long_for_a_lock_is_tried_again(
    stream: Stream, db: asyncpg.Connection, start_worker: StartWorker
) -> None:
    ids = order_ids(100)
    await stream.create()
    worker = await start_worker(stream.kafka, database_timeout_s=0.5)
    async with db.transaction():
        await db.execute("LOCK TABLE affiliate_coupons IN EXCLUSIVE MODE")
        await stream.publish(*orders(ids))
        await eventually(lambda: has_tried(worker, 2))

    await assert_all_counted(db, stream, ids, worker)
