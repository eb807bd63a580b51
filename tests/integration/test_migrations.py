"""Migrations: each once, one process at a time, and never over what is not ours."""

from __future__ import annotations

import asyncio
import uuid

import asyncpg
import pytest

from counterfoil.database import migrate as migrations
from counterfoil.database.files import sql_folder
from counterfoil.database.migrate import available, migrate, migration_status
from counterfoil.errors import SchemaMismatch
from support.databases import address_of, drop, execute
from support.postgres_ledgers import coupon_counts
from support.postgres_road import scribes

NAMES = [migration.name for migration in available()]


@pytest.fixture
def empty_url(postgres_server):
    """The address of a database with nothing in it."""
    name = f"counterfoil_empty_{uuid.uuid4().hex[:12]}"
    execute(postgres_server.dsn, f'CREATE DATABASE "{name}"')
    yield address_of(name, postgres_server.dsn)
    drop(name, postgres_server.dsn)


@pytest.fixture
async def empty_db(empty_url):
    connection = await asyncpg.connect(empty_url)
    yield connection
    connection.terminate()


@pytest.fixture
def a_package(tmp_path, monkeypatch):
    """A version of the package with other migrations: the folder of its files, to be changed."""
    folder = tmp_path / "sql"
    (folder / "migrations").mkdir(parents=True)
    for migration in available():
        (folder / "migrations" / f"{migration.name}.sql").write_text(migration.text, encoding="utf-8")
    (folder / "grants.sql").write_text(
        (sql_folder() / "grants.sql").read_text(encoding="utf-8"), encoding="utf-8"
    )
    monkeypatch.setattr(migrations, "sql_folder", lambda: folder)
    return folder / "migrations"


async def by_hand(db):
    """The tables, made as `psql -f` does."""
    for migration in available():
        await db.execute(migration.text)


def test_migrations_are_numbered_in_order_and_name_their_tables():
    assert [name[:4] for name in NAMES] == [f"{n:04}" for n in range(1, len(NAMES) + 1)]
    tables = [table for migration in available() for table in migration.tables]
    assert len(tables) == len(set(tables))
    assert {"affiliate_coupons", "promo_code_uses", "stream_positions", "dead_letters"} <= set(tables)


async def test_everything_is_applied_once(empty_url, empty_db):
    assert await migrate(empty_url) == NAMES
    assert await migrate(empty_url) == []
    assert [state.name for state in await migration_status(empty_db, "public") if state.applied_at] == NAMES


async def test_before_the_first_migration_everything_is_due(empty_db):
    assert [(s.name, s.applied_at) for s in await migration_status(empty_db, "public")] == [
        (n, None) for n in NAMES
    ]


@pytest.mark.parametrize("count", [2, 5])
async def test_several_that_start_at_once_apply_each_migration_once(empty_url, empty_db, count):
    applied = await asyncio.gather(*(migrate(empty_url, "shop") for _ in range(count)))
    assert sorted(applied) == [*[[]] * (count - 1), NAMES]
    assert await empty_db.fetchval("SELECT count(*) FROM shop.counterfoil_migrations") == len(NAMES)


async def test_another_schema_holds_everything_and_counts(empty_url, empty_db):
    await migrate(empty_url, "shop_1")
    assert await empty_db.fetchval("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == 0
    await empty_db.execute("INSERT INTO shop_1.affiliate_coupon_usages (order_id, code) VALUES ('1', 'A')")
    await empty_db.execute("SET search_path TO shop_1")
    assert await coupon_counts(empty_db) == {"A": (1, 1)}


async def test_two_schemas_of_one_database_do_not_meet(empty_url, empty_db):
    for schema in ("one", "two"):
        await migrate(empty_url, schema)
    await empty_db.execute("INSERT INTO one.affiliate_coupon_usages (order_id, code) VALUES ('1', 'A')")
    assert await empty_db.fetchval("SELECT count(*) FROM two.affiliate_coupons") == 0


async def test_a_file_that_changed_afterwards_is_refused(empty_url, a_package):
    await migrate(empty_url)
    with (a_package / f"{NAMES[0]}.sql").open("a") as file:
        file.write("-- a later thought\n")
    with pytest.raises(SchemaMismatch, match=f"migration {NAMES[0]} was applied with another text"):
        await migrate(empty_url)


async def test_a_database_ahead_of_this_version_is_refused(empty_url, a_package):
    (a_package / "9999_future.sql").write_text("CREATE TABLE future ();\n")
    assert (await migrate(empty_url))[-1] == "9999_future"
    (a_package / "9999_future.sql").unlink()
    with pytest.raises(SchemaMismatch, match="the database is ahead: it has migration 9999_future"):
        await migrate(empty_url)


async def test_a_new_migration_is_applied_to_what_is_there(empty_url, empty_db, a_package):
    await migrate(empty_url)
    await empty_db.execute("INSERT INTO affiliate_coupon_usages (order_id, code) VALUES ('1', 'A')")
    (a_package / "9999_next.sql").write_text("ALTER TABLE affiliate_coupons ADD COLUMN note text;\n")
    assert await migrate(empty_url) == ["9999_next"]
    assert await coupon_counts(empty_db) == {"A": (1, 1)}


async def test_a_migration_that_fails_leaves_nothing_of_any(empty_url, empty_db, a_package):
    (a_package / "9999_broken.sql").write_text("CREATE TABLE half (); SELECT 1 / 0;\n")
    with pytest.raises(asyncpg.DivisionByZeroError):
        await migrate(empty_url)
    assert await empty_db.fetchval("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == 0


@pytest.mark.parametrize("table", ["promo_codes", "dead_letters", "order_cancellations"])
async def test_a_table_that_we_did_not_make_is_refused_and_left_alone(empty_url, empty_db, table):
    await empty_db.execute(f"CREATE TABLE {table} (theirs integer)")
    with pytest.raises(SchemaMismatch, match=f"did not make: {table}"):
        await migrate(empty_url)
    assert await empty_db.fetchval(f"SELECT count(*) FROM {table}") == 0
    assert await empty_db.fetchval("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == 1


@pytest.mark.parametrize(
    "kind",
    ["VIEW dead_letters AS SELECT 1", "SEQUENCE dead_letters", "MATERIALIZED VIEW dead_letters AS SELECT 1"],
)
async def test_whatever_else_has_a_name_of_ours_is_refused(empty_url, empty_db, kind):
    await empty_db.execute(f"CREATE {kind}")
    with pytest.raises(SchemaMismatch, match="did not make: dead_letters"):
        await migrate(empty_url)


# Baseline


async def test_baseline_adopts_tables_made_from_the_same_sql_by_hand(empty_url, empty_db):
    await by_hand(empty_db)
    await empty_db.execute("INSERT INTO affiliate_coupon_usages (order_id, code) VALUES ('1', 'A')")
    with pytest.raises(SchemaMismatch, match="--baseline"):
        await migrate(empty_url)
    assert await migrate(empty_url, baseline=True) == NAMES
    assert await migrate(empty_url) == []
    assert await coupon_counts(empty_db) == {"A": (1, 1)}
    assert not await empty_db.fetchval("SELECT to_regnamespace('counterfoil_baseline') IS NOT NULL")


async def test_baseline_adopts_in_another_schema(empty_url, empty_db):
    await empty_db.execute("CREATE SCHEMA shop; SET search_path TO shop")
    await by_hand(empty_db)
    assert await migrate(empty_url, "shop", baseline=True) == NAMES


async def test_baseline_adopts_tables_of_another_month(empty_url, empty_db):
    """Which partitions there are depends on the month in which the same SQL was run."""
    await by_hand(empty_db)
    partitions = await empty_db.fetch(
        "SELECT inhrelid::regclass::text AS name FROM pg_inherits WHERE inhparent = 'aff_clicks'::regclass"
    )
    assert len(partitions) > 3
    for partition in partitions:
        if partition["name"] != "aff_clicks_default":
            await empty_db.execute(f"DROP TABLE {partition['name']}")
    assert await migrate(empty_url, baseline=True) == NAMES


@pytest.mark.parametrize(
    "difference",
    [
        "ALTER TABLE promo_codes ALTER times_used TYPE integer",
        "ALTER TABLE promo_code_uses ALTER bonus_amount TYPE numeric(12,2)",
        "ALTER TABLE affiliate_coupon_usages ALTER occurred_at DROP NOT NULL",
        "ALTER TABLE affiliate_coupon_usages ALTER occurred_at TYPE timestamp",
        "ALTER TABLE affiliate_coupons DROP CONSTRAINT usage_count_not_negative",
        "ALTER TABLE promo_code_uses DROP CONSTRAINT promo_code_uses_identity",
        "DROP TRIGGER fold_truncated ON promo_code_uses",
        "DROP TABLE order_cancellations",
        "ALTER TABLE affiliate_coupon_usages DISABLE TRIGGER fold_deleted",
        "CREATE OR REPLACE FUNCTION fold_promo_uses_deleted() RETURNS trigger LANGUAGE plpgsql "
        "AS 'BEGIN RETURN NULL; END'",
        'ALTER TABLE affiliate_coupons ALTER code TYPE text COLLATE "default"',
        "ALTER TABLE promo_codes ALTER times_used DROP DEFAULT",
        "DROP INDEX promo_code_uses_by_promo_code",
    ],
)
async def test_baseline_refuses_tables_that_are_otherwise(empty_url, empty_db, difference):
    await by_hand(empty_db)
    await empty_db.execute(difference)
    with pytest.raises(SchemaMismatch, match="--baseline: schema public was not made from this SQL"):
        await migrate(empty_url, baseline=True)
    assert not await empty_db.fetchval("SELECT to_regclass('counterfoil_migrations') IS NOT NULL")


async def test_baseline_of_an_empty_database_is_refused(empty_url):
    with pytest.raises(SchemaMismatch, match="--baseline"):
        await migrate(empty_url, baseline=True)


async def test_a_worker_reads_only_the_schema_of_its_settings(empty_url, empty_db):
    """What decides is the search path of the connection: nothing of ours names a schema."""
    await migrate(empty_url, "shop")
    from support.builders import an_order, records_of

    async with scribes(f"{empty_url}?options=-csearch_path%3Dshop") as (worker,):
        await worker.write(records_of(an_order("1", codes=["A"])))
    assert await empty_db.fetchval("SELECT times_used FROM shop.affiliate_coupons") == 1
