"""`verify` finds a counter that is not its ledger's sum, and mends it, beside a worker at work."""

from __future__ import annotations

import json

import asyncpg
import pytest

from support.command import counterfoil
from support.factories import order_ids, orders
from support.ledgers import counted, everything_is_read
from support.probes import metric
from support.servers import StartWorker
from support.stream import Stream
from support.waiting import eventually

pytestmark = pytest.mark.kafka


async def test_verify_finds_drift_and_repair_mends_it(
    stream: Stream, db: asyncpg.Connection, start_worker: StartWorker, database_url: str
) -> None:
    await stream.create()
    await stream.publish(*orders(order_ids(20), codes=["SPRING", "VIP"]))
    await start_worker(stream.kafka)
    await everything_is_read(db, stream)
    assert (await counterfoil("verify", database_url=database_url)).code == 0

    await db.execute("UPDATE affiliate_coupons SET times_used = 3, usage_count = 3 WHERE code = 'VIP'")
    await db.execute("INSERT INTO affiliate_coupons (code, times_used, usage_count) VALUES ('NEVER', 7, 7)")
    found = await counterfoil("verify", "--json", database_url=database_url)
    assert found.code == 1
    assert "VIP" in found.out
    assert "NEVER" in found.out
    assert "SPRING" not in found.out
    assert (await counted(db))["VIP"] == 3

    repaired = await counterfoil("verify", "--repair", "--json", database_url=database_url)
    assert (repaired.code, json.loads(repaired.out)["clean"]) == (0, True)
    assert await counted(db) == {"SPRING": 20, "VIP": 20, "NEVER": 0}
    assert (await counterfoil("verify", database_url=database_url)).code == 0


async def test_verify_beside_a_worker_at_work_reports_no_drift(
    stream: Stream, db: asyncpg.Connection, start_worker: StartWorker, database_url: str
) -> None:
    await stream.create()
    await stream.publish(*orders(order_ids(5_000)))
    await start_worker(stream.kafka, batch_max_records=50)
    codes = [(await counterfoil("verify", database_url=database_url)).code for _ in range(2)]
    await everything_is_read(db, stream)

    assert codes == [0, 0]


async def test_verify_says_that_the_database_is_away() -> None:
    ended = await counterfoil("verify", database_url="postgres://nobody@127.0.0.1:9/nothing")

    assert ended.code == 3
    assert len(ended.err.splitlines()) == 1


async def test_a_worker_recounts_by_the_clock_and_every_worker_shows_what_was_found(
    stream: Stream, db: asyncpg.Connection, start_worker: StartWorker
) -> None:
    await db.execute("INSERT INTO affiliate_coupons (code, times_used, usage_count) VALUES ('NEVER', 7, 7)")
    worker = await start_worker(stream.kafka, only="schedule", ready_within=None, verify_interval_s=3600)
    await eventually(lambda: db.fetchval("SELECT drifted FROM verifications"))
    await eventually(lambda: "counters_drifted" in worker.log_tail())
    assert "NEVER" in worker.log_tail()

    another = await start_worker(stream.kafka, only="relay")
    await eventually(lambda: metric(another, "counter_drift", table="affiliate_coupons"))
    assert await metric(another, "counter_drift", table="affiliate_coupons") == 2
    assert await metric(another, "counter_drift", table="promo_codes") == 0
    assert await metric(another, "verified_timestamp_seconds") > 0
    assert await db.fetchval("SELECT count(*) FROM verifications") == 1
    assert await worker.terminate() == 0


async def test_an_interval_of_nothing_recounts_nothing(
    stream: Stream, db: asyncpg.Connection, start_worker: StartWorker
) -> None:
    worker = await start_worker(stream.kafka, only="schedule", ready_within=None, verify_interval_s=0)
    await eventually(lambda: db.fetchval("SELECT count(*) FROM job_turns"))  # the others have begun
    assert await worker.terminate() == 0
    assert await db.fetchval("SELECT count(*) FROM verifications") == 0
