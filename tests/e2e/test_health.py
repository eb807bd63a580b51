"""In every phase of a worker's life `/livez` answers 200, and `/readyz` says what is missing."""

from __future__ import annotations

from typing import Any

import asyncpg
import pytest

from counterfoil.embedded.postgres import EmbeddedPostgres
from support.apache_kafka import ApacheKafka
from support.factories import order_ids, orders
from support.ledgers import assert_exact, blocked_backend, everything_is_read
from support.probes import NOT_LISTENING, failing_checks, is_unready_for, livez, metric, readiness
from support.servers import StartWorker
from support.stream import Stream
from support.waiting import eventually
from support.worker import Worker

pytestmark = pytest.mark.kafka


async def test_a_worker_started_before_kafka_and_postgresql_exist_consumes_when_they_appear(
    own_stream: Stream,
    own_apache_kafka: ApacheKafka,
    own_postgres: EmbeddedPostgres,
    start_worker: StartWorker,
) -> None:
    ids = order_ids(100)
    await own_stream.create()
    await own_stream.publish(*orders(ids))
    await own_stream.disconnect()
    own_apache_kafka.stop()
    own_postgres.stop()

    worker = await start_worker(own_apache_kafka, ready_within=None, database_url=own_postgres.dsn)
    await is_unready_for(worker, "database")
    assert (await worker.get("/startupz"))[0] == 503
    assert (await readiness(worker))[1]["phase"] == "starting"

    own_postgres.start()
    await is_unready_for(worker, "kafka")
    assert "database" not in await failing_checks(worker)
    assert (await worker.get("/startupz"))[0] == 200

    own_apache_kafka.start()
    await worker.ready()
    db = await asyncpg.connect(own_postgres.dsn)
    await everything_is_read(db, own_stream)
    await assert_exact(db, ids)
    await db.close()


async def test_a_worker_is_not_ready_before_the_positions_of_its_partitions_are_read(
    stream: Stream, db: asyncpg.Connection, start_worker: StartWorker
) -> None:
    await stream.create(partitions=3)
    held = 3 * len(stream.topics)
    async with db.transaction():
        await db.execute("LOCK TABLE stream_positions IN ACCESS EXCLUSIVE MODE")
        worker = await start_worker(stream.kafka, ready_within=None)
        told = ""
        while f"unknown for {held}" not in told:
            status, body = await eventually(lambda: readiness(worker), ignoring=NOT_LISTENING)
            assert status == 503, body
            told = body["checks"].get("lag", {}).get("detail", "")
    await worker.ready()


async def test_readyz_names_kafka_while_it_is_away_and_recovers(
    own_stream: Stream, own_apache_kafka: ApacheKafka, db: asyncpg.Connection, start_worker: StartWorker
) -> None:
    before, after = order_ids(50), order_ids(50)
    await own_stream.create()
    worker = await start_worker(own_apache_kafka)
    assert await failing_checks(worker) == {}
    await own_stream.publish(*orders(before))
    await everything_is_read(db, own_stream)

    own_apache_kafka.pause()  # connections stay open, nothing is answered
    told = await is_unready_for(worker, "kafka")
    assert own_apache_kafka.bootstrap_servers in told
    own_apache_kafka.resume()
    await worker.ready()

    own_apache_kafka.kill()
    await is_unready_for(worker, "kafka")
    own_apache_kafka.start()
    await worker.ready()
    await own_stream.publish_stubbornly(orders(after))
    await everything_is_read(db, own_stream)
    await assert_exact(db, before + after)


async def test_readyz_names_the_database_while_it_is_away_and_recovers(
    stream: Stream, own_postgres: EmbeddedPostgres, start_worker: StartWorker
) -> None:
    await stream.create()
    worker = await start_worker(stream.kafka, database_url=own_postgres.dsn)
    own_postgres.stop()
    await is_unready_for(worker, "database")  # without a record to write
    ids = order_ids(100)
    await stream.publish(*orders(ids))
    await eventually(lambda: metric(worker, "batch_retries_total"))  # and with some
    status, body = await readiness(worker)
    assert (status, body["checks"]["kafka"]["ok"]) == (503, True)
    assert "postgres://" not in str(body)

    own_postgres.start()
    await worker.ready()
    db = await asyncpg.connect(own_postgres.dsn)
    await everything_is_read(db, stream)
    await assert_exact(db, ids)
    await db.close()


async def test_a_draining_worker_is_live_not_ready_and_finishes_its_batch(
    stream: Stream, db: asyncpg.Connection, start_worker: StartWorker
) -> None:
    ids = order_ids(200)
    await stream.create(partitions=1)
    worker = await start_worker(stream.kafka)
    async with db.transaction():
        await db.execute("LOCK TABLE affiliate_coupons IN EXCLUSIVE MODE")
        await stream.publish(*orders(ids))
        await blocked_backend(db)
        worker.ask_to_end()
        status, body = await eventually(lambda: is_draining(worker), ignoring=NOT_LISTENING)
        assert (status, body["phase"]) == (503, "draining")
        assert await livez(worker) == 200

    assert await worker.ended() == 0
    await assert_exact(db, ids)


async def is_draining(worker: Worker) -> tuple[int, dict[str, Any]] | None:
    status, body = await readiness(worker)
    return (status, body) if body["phase"] == "draining" else None


async def test_a_worker_drains_and_exits_0_with_the_database_away(
    stream: Stream, own_postgres: EmbeddedPostgres, start_worker: StartWorker
) -> None:
    await stream.create()
    worker = await start_worker(stream.kafka, database_url=own_postgres.dsn)
    own_postgres.stop()
    ids = order_ids(100)
    await stream.publish(*orders(ids))
    await eventually(lambda: metric(worker, "batch_retries_total"))
    assert await worker.terminate() == 0

    own_postgres.start()
    await start_worker(stream.kafka, database_url=own_postgres.dsn)
    db = await asyncpg.connect(own_postgres.dsn)
    await everything_is_read(db, stream)
    await assert_exact(db, ids)
    await db.close()


async def test_a_worker_exits_0_with_kafka_away(
    own_stream: Stream, own_apache_kafka: ApacheKafka, start_worker: StartWorker
) -> None:
    await own_stream.create()
    worker = await start_worker(own_apache_kafka)
    own_apache_kafka.kill()
    await is_unready_for(worker, "kafka")

    assert await worker.terminate(deadline=60) == 0


async def test_sigterm_before_anything_was_there_exits_0(
    start_worker: StartWorker, own_postgres: EmbeddedPostgres
) -> None:
    own_postgres.stop()
    nowhere = ApacheKafka(own_postgres.data_dir / "never")
    worker = await start_worker(nowhere, ready_within=None, database_url=own_postgres.dsn)
    await is_unready_for(worker, "database")

    assert await worker.terminate() == 0


async def test_sigterm_ends_a_worker_that_waits_for_another_migration(
    stream: Stream, db: asyncpg.Connection, start_worker: StartWorker
) -> None:
    async with db.transaction():
        await db.execute("SELECT pg_advisory_xact_lock(3087, 0)")
        worker = await start_worker(stream.kafka, ready_within=None)
        await eventually(
            lambda: db.fetchval(
                "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted "
                "AND database = (SELECT oid FROM pg_database WHERE datname = current_database()))"
            )
        )
        assert await worker.terminate(deadline=10) == 0
