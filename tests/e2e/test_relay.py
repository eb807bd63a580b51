"""The relay of real workers: what was raised comes out of Kafka, at least once, in order, under one id."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from counterfoil.embedded.broker import EmbeddedBroker
from counterfoil.embedded.ports import free_port
from support.alerts import NOON, PARTITIONS, TOPIC, listening, nothing_waits, raise_numbers
from support.probes import metric, readiness
from support.servers import Broker, StartWorker, servers_folder
from support.waiting import eventually


@pytest.fixture
def own_broker() -> Iterator[EmbeddedBroker]:
    """An embedded broker for this test alone, on a port of its own; not started."""
    with servers_folder() as folder:
        own = EmbeddedBroker(folder / "broker", port=free_port())
        yield own
        own.stop()


async def test_each_alert_comes_out_once_as_it_was_raised_however_many_relays_there_are(
    broker: Broker, topic_prefix: str, db: asyncpg.Connection, start_worker: StartWorker
) -> None:
    topic = f"{topic_prefix}{TOPIC}"
    workers = [await start_worker(broker, only="relay", topic_partitions=PARTITIONS) for _ in range(2)]
    async with listening(broker.bootstrap_servers, topic) as listener:
        ids = [alert_id for n in range(1, 41) for alert_id in await raise_numbers(db, n)]
        assert await listener.hears(40) == list(zip(range(1, 41), ids, strict=True))
        last = await raise_numbers(db, 41, voucher_id="v-2")
        assert (await listener.hears(41))[-1] == (41, *last)
        record = listener.records[-1]
    assert record.key == b"v-2"
    assert json.loads(record.value) == {
        "alert_id": last[0],
        "voucher_id": "v-2",
        "value": 41,
        "occurred_at": NOON,
    }
    assert dict(record.headers) == {
        "content-type": b"application/json",
        "ce_specversion": b"1.0",
        "ce_id": f"{TOPIC}:{last[0]}".encode(),
        "ce_source": b"/counterfoil/alerts",
        "ce_type": TOPIC.encode(),
        "ce_time": NOON.encode(),
    }
    await eventually(lambda: nothing_waits(db))
    relayed = [await metric(worker, "relayed_total", topic=topic) for worker in workers]
    assert sum(relayed) == 41
    assert [await worker.terminate() for worker in workers] == [0, 0]
    assert await db.fetchval("SELECT count(*) FROM alerts") == 41  # the history stays


async def test_a_relay_killed_after_publishing_repeats_the_records_and_skips_none(
    broker: Broker, topic_prefix: str, db: asyncpg.Connection, start_worker: StartWorker
) -> None:
    ids = await raise_numbers(db, 1, 2, 3)
    async with listening(broker.bootstrap_servers, f"{topic_prefix}{TOPIC}") as listener:
        async with db.transaction():
            await db.execute("SELECT FROM outbox FOR UPDATE")  # published, they cannot be deleted
            killed = await start_worker(broker, only="relay")
            told = [(1, ids[0]), (2, ids[1]), (3, ids[2])]
            assert await listener.hears(3) == told
            await eventually(lambda: db.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"))
            killed.kill()
        ids = await raise_numbers(db, 4)
        await start_worker(broker, only="relay", ready_within=None)
        assert await listener.hears(7) == [*told, *told, (4, ids[0])]
    await eventually(lambda: nothing_waits(db))


async def test_without_kafka_the_worker_is_ready_and_its_alerts_wait(
    own_broker: EmbeddedBroker, topic_prefix: str, db: asyncpg.Connection, start_worker: StartWorker
) -> None:
    ids = await raise_numbers(db, 1, 2)
    away = Broker(f"127.0.0.1:{own_broker._fixed_port}", "not there yet", 1_000)
    worker = await start_worker(away, only="relay")
    await eventually(lambda: metric(worker, "outbox_rows"))
    await eventually(lambda: "relay_put_off" in worker.log_tail())
    assert (await readiness(worker))[0] == 200
    await asyncio.to_thread(own_broker.start)
    async with listening(own_broker.bootstrap_servers, f"{topic_prefix}{TOPIC}") as listener:
        assert await listener.hears(2) == [(1, ids[0]), (2, ids[1])]
    await asyncio.to_thread(own_broker.kill)
    await raise_numbers(db, 3)
    assert await worker.terminate(8) == 0  # nor does it wait for Kafka on its way out
    assert await db.fetchval("SELECT count(*) FROM outbox") == 1


async def test_failed_redemptions_are_seen_by_the_schedule_and_told_by_the_relay(
    broker: Broker, topic_prefix: str, db: asyncpg.Connection, start_worker: StartWorker
) -> None:
    now = datetime.now(UTC)
    attempts = [(f"a-{n}", now - timedelta(seconds=n), "v-1", "b-1") for n in range(12)]
    await db.executemany(
        "INSERT INTO redemption_attempts (attempt_id, attempted_at, voucher_id, business_id) VALUES ($1, $2, $3, $4)",
        attempts,
    )
    async with listening(broker.bootstrap_servers, f"{topic_prefix}{TOPIC}") as listener:
        await start_worker(broker, only="schedule,relay", ready_within=None)
        await listener.hears(1)
        alert = json.loads(listener.records[0].value)
    assert (alert["kind"], alert["voucher_id"], alert["limit"]) == ("failed-redemptions", "v-1", 10)
    assert listener.records[0].key == b"v-1"
