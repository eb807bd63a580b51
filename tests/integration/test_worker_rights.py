"""The worker's role: everything that a worker does, and nothing more."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime

import asyncpg
import pytest

from counterfoil.database.counters import Drift, find_drift, repair
from counterfoil.database.files import sql_folder
from counterfoil.database.migrate import available, migrate
from counterfoil.database.queries import sql, statements
from counterfoil.events import Rules
from counterfoil.ingest import dead_letters
from counterfoil.ingest.partitions import Partition
from counterfoil.ingest.records import Malformed, milliseconds_of
from counterfoil.ingest.retry import retry_dead_letter
from counterfoil.routing import COUNTERS, routes
from counterfoil.scheduling import verify_counters
from counterfoil.vouchers.schedule import expire_claims
from support.builders import (
    CANCELED,
    PLACED,
    a_cancellation,
    a_claim_event,
    a_promotion,
    a_record,
    a_redemption_event,
    a_scan_event,
    a_voucher_event,
    an_impression_event,
    an_order,
    later,
    records_of,
)
from support.forgetting import forget
from support.postgres_ledgers import coupon_counts, promo_counts
from support.postgres_road import plain_settings, scribes
from support.roles import owner_and_worker
from support.voucher_model import counts_of, exact, stored_counts, stored_ledgers

NOW = datetime.now(UTC)
TABLES = [table for migration in available() for table in migration.tables]
DELETABLE = {
    "affiliate_coupon_owners",
    "outbox",
    "alert_cooldowns",
    "scan_rates",
    "low_stock_episodes",
    "verifications",
}
"""No ledgers: whose coupon a code is, now; what is to be published; what was told, found and is usual of late."""

LEDGERS = (
    "affiliate_coupon_usages",
    "promo_code_uses",
    "order_cancellations",
    "affiliate_coupon_adjustments",
)


@pytest.fixture(scope="module")
def roles(postgres_server):
    """An owner and a worker's login, in a database that the owner has migrated: (owner's dsn, worker's dsn)."""
    with owner_and_worker(postgres_server.dsn) as addresses:
        yield addresses


@pytest.fixture
async def worker_db(roles):
    connection = await asyncpg.connect(roles[1])
    transaction = connection.transaction()
    await transaction.start()
    yield connection
    await transaction.rollback()
    await connection.close()


async def denied(db, statement) -> bool:
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        async with db.transaction():
            await db.execute(statement)
    return True


async def test_the_road_works_with_the_workers_rights(roles):
    async with scribes(roles[1]) as (worker,):
        await worker.write(
            [
                *records_of(
                    an_order("1", codes=["A"], promotions=[a_promotion("P")]),
                    b"not json",
                    an_order("2", codes=["A"]),
                ),
                *records_of(a_cancellation("2"), partition=CANCELED),
            ]
        )
        await worker.write(
            records_of(an_order("1", codes=["A", "B"], promotions=[a_promotion("P", bonus=3)]), first=3)
        )
        async with worker.pool.acquire() as connection:
            assert await coupon_counts(connection) == {"A": (1, 1), "B": (1, 1), "P": (1, 1)}
            assert await promo_counts(connection) == {"P": (1, 3)}
            known = {
                route.topic: (route, Rules.of(plain_settings())) for route in routes(plain_settings(), b"key")
            }
            letter = await connection.fetchval("SELECT id FROM dead_letters")
            assert (await retry_dead_letter(connection, letter, known)).outcome == "refused"
            await worker.positions.restart(connection, PLACED, 4, 0, "recreated")
            assert await find_drift(connection, COUNTERS) == []


async def test_vouchers_are_counted_with_the_workers_rights(roles):
    """Told of, told of again with what stands instead, expired, opened, looked through by `verify` and mended."""
    told = [
        [
            a_voucher_event("w1", expires_at=later(1)),
            an_impression_event("w1", impression_id="i", timestamp=later(seconds)),
            a_scan_event("w1", user_id="c1", location='{"city": "Graz"}', timestamp=later(-seconds)),
            a_claim_event("w1", "c1", timestamp=later(seconds)),
            a_claim_event("w1", "c2"),
            a_redemption_event("w1", "c1", attempt_id="a", timestamp=later(seconds)),
        ]
        for seconds in (90_000, 5)
    ]
    async with scribes(roles[1]) as (worker,):
        for n, events in enumerate(told):
            batch = []
            for topic in {event.topic for event in events}:
                own = [event for event in events if event.topic == topic]
                batch += records_of(*own, partition=Partition(topic, 0), first=n * len(own))
            sent_at = milliseconds_of(later(90_000))
            await worker.write([replace(record, timestamp=sent_at) for record in batch])
        assert await expire_claims(worker.pool, plain_settings()) == 1
        async with worker.pool.acquire() as connection:
            assert await stored_counts(connection) == counts_of(await stored_ledgers(connection), NOW)
            await connection.execute("UPDATE vouchers SET expires_at = NULL WHERE id = 'w1'")
            statuses = "SELECT customer_id, status FROM customer_vouchers WHERE voucher_id = 'w1' ORDER BY 1"
            assert dict(await connection.fetch(statuses)) == {"c1": "REDEEMED", "c2": "CLAIMED"}
            assert await find_drift(connection, COUNTERS) == []
            assert await repair(connection, COUNTERS, [Drift("vouchers", "w1", "scan_count", "0", "2")]) == 1
            assert await exact(connection)


async def test_verify_repairs_with_the_workers_rights(worker_db):
    await worker_db.execute("INSERT INTO affiliate_coupon_usages (order_id, code) VALUES ('v', 'V')")
    await worker_db.execute("UPDATE affiliate_coupons SET times_used = 9 WHERE code = 'V'")
    drifts = [d for counter in COUNTERS for d in await worker_db.fetch(sql(counter.drift)) if d["key"] == "V"]
    assert len(drifts) == 1
    for name in ("lock_affiliate_coupon", "recount_affiliate_coupon"):
        await worker_db.execute(sql(name), "V")
    assert await repair(worker_db, COUNTERS, []) == 0
    assert (await coupon_counts(worker_db))["V"] == (1, 1)


def statements_of(file: str) -> set[str]:
    text = (sql_folder() / "queries" / file).read_text(encoding="utf-8")
    return set(re.findall(r"^-- name: (\w+)", text, re.MULTILINE))


async def test_the_worker_erases_nobody(roles):
    """Who owns the tables does, by `counterfoil forget`."""
    connection = await asyncpg.connect(roles[1])
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await forget(connection, "c1")
    await connection.close()


async def test_drift_is_looked_at_twice_and_kept_and_dead_letters_forgotten_with_the_workers_rights(roles):
    async with asyncpg.create_pool(roles[1], min_size=0, max_size=2) as pool:
        async with pool.acquire() as connection:
            await connection.execute("INSERT INTO affiliate_coupons (code, times_used) VALUES ('W', 4)")
            assert [drift.key for drift in await find_drift(connection, COUNTERS)] == ["W"]
            await dead_letters.park(connection, "c", [Malformed(a_record(9, b"{"), "not_json", "why")])
            letter = await connection.fetchval("SELECT max(id) FROM dead_letters")
            assert await dead_letters.drop(connection, [letter], "alice", "why") == [letter]
            await connection.execute(
                "UPDATE dead_letters SET resolved_at = now() - interval '9 days' WHERE id = $1", letter
            )
        assert await dead_letters.forget_dead_letters(pool, 7) == 1
        assert await verify_counters(COUNTERS, pool, plain_settings(database_url=roles[1])) == 1
        async with pool.acquire() as connection:
            await repair(connection, COUNTERS, await find_drift(connection, COUNTERS))
            assert await find_drift(connection, COUNTERS) == []


@pytest.mark.parametrize(
    "name", sorted(statements().keys() - statements_of("forget.sql") - statements_of("shadow.sql"))
)
async def test_every_named_statement_is_allowed_to_the_worker(worker_db, name):
    text = sql(name)
    count = len(set(re.findall(r"\$\d+", text)))
    try:
        async with worker_db.transaction():
            await worker_db.execute(
                "SET LOCAL statement_timeout = '1s'"
            )  # with nulls some reach back to the year 1
            await worker_db.fetch(text, *[None] * count)
    except asyncpg.InsufficientPrivilegeError:
        raise
    except asyncpg.PostgresError:
        pass  # nothing but nulls makes no sense to some; rights are checked before


@pytest.mark.parametrize("table", [*TABLES, "counterfoil_migrations"])
async def test_the_worker_reads_every_table(worker_db, table):
    assert await worker_db.fetchval(f"SELECT count(*) FROM {table}") >= 0


@pytest.mark.parametrize("table", TABLES)
async def test_the_worker_deletes_and_truncates_nothing(worker_db, table):
    if table not in DELETABLE:
        assert await denied(worker_db, f"DELETE FROM {table}")
    assert await denied(worker_db, f"TRUNCATE {table}")


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE mine ()",
        "ALTER TABLE affiliate_coupons ADD COLUMN mine text",
        "ALTER TABLE affiliate_coupon_usages DISABLE TRIGGER ALL",
        "DROP TABLE promo_codes",
        "DROP TRIGGER fold_inserted ON affiliate_coupon_usages",
        "CREATE OR REPLACE FUNCTION fold_promo_uses_deleted() RETURNS trigger LANGUAGE plpgsql "
        "AS 'BEGIN RETURN NULL; END'",
        "UPDATE affiliate_coupon_adjustments SET delta = 0",
        "UPDATE promo_code_adjustments SET delta = 0",
        "UPDATE stream_positions_retired SET reason = ''",
        "INSERT INTO counterfoil_migrations (name, checksum) VALUES ('9999', '')",
        "SET session_replication_role = replica",
    ],
)
async def test_the_worker_defines_nothing_and_rewrites_no_operators_row(worker_db, statement):
    assert await denied(worker_db, statement)


async def test_a_worker_that_migrates_on_start_finds_nothing_due(roles):
    assert await migrate(roles[1]) == []


async def test_nobody_may_run_what_runs_as_the_owner(worker_db):
    """A trigger function among them would run its owner's rights over a table of anybody's own making."""
    open_to_all = await worker_db.fetch(
        """SELECT p.oid::regprocedure::text FROM pg_proc AS p
           WHERE p.prosecdef AND p.pronamespace = current_schema()::regnamespace
             AND (p.proacl IS NULL OR EXISTS (SELECT FROM aclexplode(p.proacl) WHERE grantee = 0))"""
    )
    assert open_to_all == []


def test_the_grants_name_every_table():
    granted = (sql_folder() / "grants.sql").read_text(encoding="utf-8")
    assert [table for table in TABLES if not re.search(rf"\b{table}\b", granted)] == []
