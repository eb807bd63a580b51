"""Recounts in one snapshot: no false alarm whatever happens meanwhile, by turns, kept, and told of."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta

import asyncpg
import pytest
from structlog.testing import capture_logs

from counterfoil import scheduling
from counterfoil.database import counters, verifications
from counterfoil.database.counters import Drift, find_drift, repair, verify
from counterfoil.database.verifications import last, sample_verification
from counterfoil.routing import COUNTERS
from counterfoil.scheduling import jobs, verify_counters
from counterfoil.telemetry.metrics import Metrics
from support.postgres_ledgers import a_promo_code, connections, waits_for_a_lock
from support.postgres_road import plain_settings

USAGE = "INSERT INTO affiliate_coupon_usages (order_id, code) VALUES ('1', 'A')"
WRONG = "UPDATE affiliate_coupons SET times_used = 9 WHERE code = 'A'"
THAT = Drift("affiliate_coupons", "A", "times_used", "9", "1")


def between_looks(monkeypatch, work: Callable[[str], Awaitable[object]]) -> None:
    """Do something before each table is looked at, its name being given."""
    look = counters._look

    async def after_work(connection, counter, keep):
        await work(counter.table)
        return await look(connection, counter, keep)

    monkeypatch.setattr(counters, "_look", after_work)


# One snapshot


async def test_all_tables_are_counted_as_they_stood_at_one_time(db, database_url, monkeypatch):
    await db.execute(USAGE)
    async with connections(database_url, 1) as (writer,):

        async def write(table: str) -> None:
            await writer.execute(
                "INSERT INTO affiliate_coupon_usages (order_id, code) VALUES ('1', $1)", f"of {table}"
            )
            await writer.execute("INSERT INTO promo_codes (code) VALUES ($1)", f"of {table}")

        between_looks(monkeypatch, write)
        found = await verify(db, COUNTERS)
    rows = {table: checked.rows for table, checked in found.tables.items() if checked.rows}
    assert (rows, found.drift) == ({"affiliate_coupons": 1}, [])
    assert found.tables.keys() == {counter.table for counter in COUNTERS}
    assert found.snapshot_at <= await db.fetchval("SELECT clock_timestamp()")


@pytest.mark.parametrize(
    "table",
    ["affiliate_coupon_usages", "affiliate_coupon_adjustments", "order_cancellations", "promo_code_uses"],
)
async def test_a_ledger_that_is_truncated_while_all_is_counted_is_no_drift(
    db, database_url, monkeypatch, table
):
    await db.execute(f"{USAGE}, ('2', 'A')")
    await db.execute("INSERT INTO affiliate_coupon_adjustments (code, delta) VALUES ('A', 4)")
    await db.execute("INSERT INTO order_cancellations (order_id) VALUES ('2')")
    promo = await a_promo_code(db)
    await db.execute("INSERT INTO promo_code_uses (promo_code_id, bonus_amount) VALUES ($1, 5)", promo)
    async with connections(database_url, 1) as (operator,):
        once = iter([f"TRUNCATE {table}"])

        async def truncate(_: str) -> None:
            if statement := next(once, None):
                await operator.execute(statement)

        between_looks(monkeypatch, truncate)
        found = await verify(db, COUNTERS)
    assert found.drift == []


async def test_what_is_wrong_is_named_beside_a_truncate(db, database_url, monkeypatch):
    await db.execute(USAGE)
    await db.execute(WRONG)
    promo = await a_promo_code(db)
    await db.execute("INSERT INTO promo_code_uses (promo_code_id) VALUES ($1)", promo)
    async with connections(database_url, 1) as (operator,):
        once = iter(["TRUNCATE promo_code_uses"])

        async def truncate(_: str) -> None:
            if statement := next(once, None):
                await operator.execute(statement)

        between_looks(monkeypatch, truncate)
        assert (await verify(db, COUNTERS)).drift == [THAT]


async def test_a_table_that_was_looked_at_is_held_no_longer(db, database_url, monkeypatch):
    """Whoever truncates waits for one statement at most, and whoever writes does not queue behind him."""
    async with connections(database_url, 1, lock_timeout="2000") as (operator,):

        async def truncate(table: str) -> None:
            if table == COUNTERS[-1].table:  # all others were looked at
                await operator.execute("TRUNCATE affiliate_coupon_usages, promo_code_uses, voucher_scans")

        between_looks(monkeypatch, truncate)
        assert await find_drift(db, COUNTERS) == []


async def test_nobody_truncates_in_a_second_look(db, database_url, monkeypatch):
    await db.execute(USAGE)
    await db.execute(WRONG)
    seen: list[str] = []
    refused: list[str] = []
    async with connections(database_url, 1, lock_timeout="50") as (operator,):

        async def truncate(table: str) -> None:
            if table in seen:
                with pytest.raises(asyncpg.LockNotAvailableError):
                    await operator.execute("TRUNCATE affiliate_coupon_usages")
                refused.append(table)
            seen.append(table)

        between_looks(monkeypatch, truncate)
        assert await find_drift(db, COUNTERS) == [THAT]
    assert refused == ["affiliate_coupons"]


async def test_the_second_look_gives_way_to_who_holds_a_table_and_comes_back(db, database_url, monkeypatch):
    monkeypatch.setattr(counters, "LOCK_TIMEOUT_MS", 20)
    monkeypatch.setattr(counters, "PAUSE_S", 0.01)
    await db.execute(USAGE)
    await db.execute(WRONG)
    async with connections(database_url, 2) as (operator, observer):
        held = operator.transaction()
        await held.start()
        await operator.execute("LOCK TABLE outbox IN ACCESS EXCLUSIVE MODE")  # not what is looked at
        looking = asyncio.create_task(find_drift(db, COUNTERS))
        for _ in range(3):
            await waits_for_a_lock(observer, db)
        assert not looking.done()
        await held.rollback()
        assert await looking == [THAT]


async def test_a_second_look_that_never_gets_its_tables_fails_and_says_nothing_wrong(
    db, database_url, monkeypatch
):
    monkeypatch.setattr(counters, "LOCK_TIMEOUT_MS", 20)
    monkeypatch.setattr(counters, "LOCKED_WITHIN_S", 0.1)
    await db.execute(USAGE)
    await db.execute(WRONG)
    async with connections(database_url, 1) as (operator,), operator.transaction():
        await operator.execute("LOCK TABLE outbox IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(asyncpg.LockNotAvailableError):
            await find_drift(db, COUNTERS)
    assert not db.is_in_transaction()


async def test_of_much_drift_so_much_is_kept_and_all_of_it_counted(db):
    await db.execute(
        "INSERT INTO affiliate_coupons (code, times_used) SELECT g, 1 FROM generate_series(1, 2500) g"
    )
    found = await verify(db, COUNTERS, keep=3)
    assert (len(found.drift), found.drifted, found.tables["affiliate_coupons"].drifted) == (3, 2500, 2500)


async def test_who_asks_hears_how_far_it_is(db):
    heard: list[tuple[str, int, int]] = []
    await verify(db, COUNTERS, lambda *told: heard.append(told))
    assert heard[0] == (COUNTERS[0].table, 0, len(COUNTERS))
    assert [done for _, done, _ in heard] == list(range(len(COUNTERS) + 1))


async def test_verification_changes_nothing(db):
    await db.execute(USAGE)
    await db.execute(WRONG)
    await db.execute("SET default_transaction_read_only = on")
    assert await find_drift(db, COUNTERS) == [THAT]


# What else is derived: the marks of canceled orders


async def test_a_canceled_orders_usage_that_is_not_marked_is_found_and_mended(db):
    promo = await a_promo_code(db)
    await db.execute(f"{USAGE}, ('2', 'A')")
    await db.execute("INSERT INTO promo_code_uses (promo_code_id, order_id) VALUES ($1, '1')", promo)
    await db.execute("INSERT INTO order_cancellations (order_id, canceled_at) VALUES ('1', '2026-03-01Z')")
    await db.execute("UPDATE affiliate_coupon_usages SET reversed_at = NULL")
    await db.execute("UPDATE promo_code_uses SET reversed_at = NULL")
    found = await find_drift(db, COUNTERS)
    assert found == [
        Drift("affiliate_coupon_usages (reversed)", "1", "reversed_at of A", "never", "2026-03-01 00:00:00"),
        Drift("promo_code_uses (reversed)", "1", "reversed_at of SPRING", "never", "2026-03-01 00:00:00"),
    ]
    assert await repair(db, COUNTERS, found) == 2
    assert await find_drift(db, COUNTERS) == []
    assert await db.fetchval("SELECT times_used FROM affiliate_coupons") == 1
    assert await db.fetchval("SELECT times_used FROM promo_codes") == 0


async def test_a_mark_that_no_cancellation_made_is_somebodys_own(db):
    await db.execute(USAGE)
    await db.execute("UPDATE affiliate_coupon_usages SET reversed_at = now()")
    assert await find_drift(db, COUNTERS) == []


# By the schedule


@asynccontextmanager
async def pools(database_url: str):
    async with asyncpg.create_pool(database_url, min_size=0, max_size=4) as pool:
        yield pool, plain_settings(database_url=database_url)


async def test_the_schedule_keeps_what_it_found_and_says_it_loudly(db, database_url):
    await db.execute(USAGE)
    await db.execute(WRONG)
    async with pools(database_url) as (pool, settings):
        with capture_logs() as logs:
            assert await verify_counters(COUNTERS, pool, settings) == 1
    [told] = [entry for entry in logs if entry["log_level"] == "error"]
    assert (told["event"], told["drifted"], told["tables"]) == (
        "counters_drifted",
        1,
        {"affiliate_coupons": 1},
    )
    assert told["first"] == ["affiliate_coupons A times_used: 9 is 1"]
    kept = await last(db)
    assert kept is not None
    assert (kept.drifted, kept.drifted_in, kept.checked["affiliate_coupons"]) == (
        1,
        {"affiliate_coupons": 1},
        1,
    )
    assert kept.drift == [
        {"table": "affiliate_coupons", "key": "A", "counter": "times_used", "stored": "9", "counted": "1"}
    ]
    assert kept.started_at <= kept.finished_at


async def test_of_all_workers_one_recounts_in_each_stretch_of_time(db, database_url):
    async with pools(database_url) as (pool, settings):
        await asyncio.gather(*(verify_counters(COUNTERS, pool, settings) for _ in range(4)))
        await verify_counters(COUNTERS, pool, settings)
        assert await db.fetchval("SELECT count(*) FROM verifications") == 1
        await db.execute("UPDATE job_turns SET turn = turn - interval '1 hour'")
        await verify_counters(COUNTERS, pool, settings)
    assert await db.fetchval("SELECT count(*) FROM verifications") == 2


async def test_a_recount_that_fails_is_made_up_for_by_whoever_comes_next(db, database_url, monkeypatch):
    async with pools(database_url) as (pool, settings):
        with monkeypatch.context() as broken:

            async def fails(*_: object, **__: object) -> None:
                raise OSError("cut")

            broken.setattr(counters, "verify", fails)
            with pytest.raises(OSError, match="cut"):
                await verify_counters(COUNTERS, pool, settings)
        assert await last(db) is None
        await verify_counters(COUNTERS, pool, settings)
    assert await last(db) is not None


async def test_a_recount_may_take_longer_than_any_statement_of_the_worker(db, database_url, monkeypatch):
    slow = next(counter for counter in COUNTERS if counter.table == "promo_codes")
    real = counters.sql
    monkeypatch.setattr(
        counters,
        "sql",
        lambda name: "SELECT count(*) FROM (SELECT pg_sleep(0.4)) AS s" if name == slow.size else real(name),
    )
    async with pools(database_url) as (pool, settings):
        hasty = settings.model_copy(update={"database_timeout_s": timedelta(seconds=0.1)})
        assert await verify_counters(COUNTERS, pool, hasty) == 0
    assert await last(db) is not None


def test_an_interval_of_nothing_is_off():
    assert scheduling.VERIFY in {job.name for job in jobs(plain_settings(), COUNTERS)}
    assert scheduling.VERIFY not in {job.name for job in jobs(plain_settings(verify_interval_s=0), COUNTERS)}


async def test_every_worker_shows_the_latest_recount_and_nothing_before_the_first(db, database_url):
    metrics = Metrics()
    await sample_verification(db, metrics)
    assert b"counterfoil_counter_drift{" not in metrics.exposition()[0]
    await db.execute(USAGE)
    await db.execute(WRONG)
    async with pools(database_url) as (pool, settings):
        await verify_counters(COUNTERS, pool, settings)
        await sample_verification(db, metrics)
        assert metrics.value("counter_drift", {"table": "affiliate_coupons"}) == 1
        assert b'counterfoil_counter_drift{table="promo_codes"} 0.0' in metrics.exposition()[0]
        assert metrics.value("verified_timestamp_seconds") > 1_700_000_000
        await repair(db, COUNTERS, [THAT])
        await db.execute("DELETE FROM job_turns")
        await verify_counters(COUNTERS, pool, settings)
    await sample_verification(db, metrics)
    assert metrics.value("counter_drift", {"table": "affiliate_coupons"}) == 0


async def test_old_recounts_are_let_go_of_and_the_latest_stays(db):
    await db.execute(
        "INSERT INTO verifications (started_at, seconds, checked, drifted) "
        "SELECT now() - g * interval '60 days', 1, '{}', 0 FROM generate_series(1, 4) AS g"
    )
    found = await verify(db, [])
    await verifications.keep(db, found)
    ages = await db.fetch("SELECT (now() - started_at) AS age FROM verifications ORDER BY 1")
    assert [row["age"].days for row in ages] == [0, 60]
    assert (
        json.loads(await db.fetchval("SELECT checked FROM verifications ORDER BY started_at DESC LIMIT 1"))
        == {}
    )


async def test_a_repair_that_live_traffic_is_in_the_way_of_is_made_again(db):
    class Unlucky:
        """The second row that it locks is the one that others wait for us with, once."""

        def __init__(self) -> None:
            self.executed = 0

        def transaction(self):
            return db.transaction()

        async def execute(self, *arguments):
            self.executed += 1
            if self.executed == 3:
                raise asyncpg.DeadlockDetectedError("deadlock detected")
            return await db.execute(*arguments)

    await db.execute("INSERT INTO affiliate_coupon_usages (order_id, code) VALUES ('1', 'A'), ('1', 'B')")
    await db.execute("UPDATE affiliate_coupons SET times_used = 7")
    assert await repair(Unlucky(), COUNTERS, await find_drift(db, COUNTERS)) == 2
    assert await find_drift(db, COUNTERS) == []
