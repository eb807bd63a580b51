"""Comparing two databases names exactly the rows whose content is not the same, whatever else is written beside it."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager

import asyncpg
import pytest

from counterfoil.database.migrate import available
from counterfoil.replaying.compared import BY_TABLE, COMPARED
from counterfoil.replaying.comparing import Comparing, digest_of
from counterfoil.replaying.taken import BY_HAND, CLOSINGS, RULES
from support.databases import address_of, clone, drop, run_apart
from support.postgres_road import plain_settings
from support.shadows import documents, logs_of, read_live

CHANGES = {
    "text": "{0} || '!'",
    "integer": "{0} + 1",
    "smallint": "{0} + 1",
    "bigint": "{0} + 1",
    "numeric": "{0} + 1",
    "date": "{0} + 1",
    "boolean": "NOT {0}",
    "jsonb": """'{{"altered": true}}'::jsonb""",
    "timestamp with time zone": "{0} + interval '1 second'",
    "bytea": "'\\x00'::bytea",
}
"""By type, another value; where there is none, one."""

EMPTY = {
    "text": "'!'",
    "jsonb": "'{{}}'::jsonb",
    "timestamp with time zone": "now()",
    "bytea": "'\\x00'::bytea",
    "boolean": "true",
}

BY_CONTENT = {
    (
        "aff_attributions",
        "is_reversed",
    ): "status = CASE status WHEN 'reversed' THEN 'pending' ELSE 'reversed' END",
    (
        "customer_vouchers",
        "is_redeemed",
    ): "status = CASE status WHEN 'REDEEMED' THEN 'CLAIMED' ELSE 'REDEEMED' END",
    ("commissions", "partners"): "partner_id = coalesce(partner_id, '') || '!'",
}
"""What changes a content that is no column."""

EXEMPT_ONLY = {
    ("promo_code_uses", "promo_code_id"): "its promo code's name is compared",
    ("aff_attributions", "status"): "whether it is reversed is compared",
    ("customer_vouchers", "status"): "whether it is redeemed is compared",
    ("commissions", "partner_id"): "compared in sums",
    ("promo_codes", "id"): "its uses hang on it",
}
"""Columns that are no content, and that something compared is told by."""

SHOWN = {
    "partners": "id LIKE 'pn\\_%'",
    "commissions": """(order_id, beneficiary, currency) IN (
        SELECT order_id, beneficiary, currency FROM commissions GROUP BY 1, 2, 3 HAVING sum(earnings) > 0)""",
    "inventory_products": "isfinite(counted_from)",
    "affiliate_daily": "conversions > 0",
    "promo_code_uses": "order_id IS NOT NULL",
}
"""Which row of a table is altered, where not any."""

NOT_COMPARED = {
    "stream_positions", "stream_positions_retired", "stream_sources", "settlements_due", "order_settlements",
    "idempotency_answers", "outbox", "alerts", "alert_cooldowns", "job_turns", "scan_rates", "low_stock_episodes",
    "notifications", "notification_channels", "verifications", "replays", "replay_positions", "lost_offsets",
    "currencies", "partitioned_ledgers", "ledger_bounds", "counterfoil_migrations",
}  # fmt: skip
"""Where records stand, what was told and done of late, and what a migration has filled."""


@pytest.fixture(scope="module")
def addresses(postgres_server, template_database):
    """A database with rows in every table that is compared, free of constraints, and a copy of it."""
    one = clone(template_database, postgres_server.dsn)
    address = address_of(one, postgres_server.dsn)

    async def fill():
        connection = await asyncpg.connect(address)
        await connection.execute("INSERT INTO default_rates (percent, valid_from) VALUES (10, '2000-01-01Z')")
        await connection.execute("INSERT INTO affiliate_coupon_owners (code, pixel_id) VALUES ('A', 'p1')")
        settings = plain_settings(attribute_by_coupon=True)
        await read_live(address, logs_of(documents(900, seed=3)), settings=settings)
        await connection.close()

    async def loosen():
        connection = await asyncpg.connect(address)
        for row in await connection.fetch(
            "SELECT conrelid::regclass AS relation, conname FROM pg_constraint "
            "WHERE connamespace = 'public'::regnamespace AND contype IN ('c', 'f') AND coninhcount = 0"
        ):
            await connection.execute(f'ALTER TABLE {row["relation"]} DROP CONSTRAINT "{row["conname"]}"')
        await connection.close()

    run_apart(fill)
    other = clone(one, postgres_server.dsn)
    run_apart(loosen)
    yield address, address_of(other, postgres_server.dsn)
    for name in (one, other):
        drop(name, postgres_server.dsn)


@pytest.fixture
async def sides(addresses):
    """A connection to each; what a test writes into the first is rolled back, and no trigger hears of it."""
    live, shadow = [await asyncpg.connect(address) for address in addresses]
    transaction = live.transaction()
    await transaction.start()
    await live.execute("SET LOCAL session_replication_role = replica")
    yield live, shadow
    await transaction.rollback()
    for connection in (live, shadow):
        await connection.close()


@asynccontextmanager
async def undone(connection):
    """Take back what was written inside."""
    savepoint = connection.transaction()
    await savepoint.start()
    yield
    await savepoint.rollback()


async def columns_of(connection, table):
    """Column → type, without those that the database computes."""
    rows = await connection.fetch(
        """SELECT column_name, data_type FROM information_schema.columns
           WHERE table_schema = 'public' AND table_name = $1 AND is_generated = 'NEVER' ORDER BY ordinal_position""",
        table,
    )
    assert rows, table
    return {row["column_name"]: row["data_type"] for row in rows}


def changed(column, kind):
    quoted = f'"{column}"'
    empty = EMPTY.get(kind, "1" if kind != "date" else "current_date")
    return f"{quoted} = coalesce({CHANGES[kind].format(quoted)}, {empty.format()})"


async def row_of(connection, table):
    """Where the row stands that is altered."""
    where = SHOWN.get(table, "true")
    return await connection.fetchval(
        f"SELECT ROW(tableoid, ctid)::text FROM {table} WHERE {where} ORDER BY tableoid, ctid LIMIT 1"
    )


async def key_of(connection, compared, row):
    """The key of the row that stands there, as it is compared."""
    names = ", ".join(f'"{name}"' for name in compared.key)
    table = compared.table
    if table == "promo_code_uses":
        names = "(SELECT code FROM promo_codes AS p WHERE p.id = promo_code_id), order_id, NULL"
    text = await connection.fetchval(
        f"SELECT jsonb_build_array({names})::text FROM {table} WHERE ROW(tableoid, ctid)::text = $1", row
    )
    return json.dumps(json.loads(text, parse_float=str))


async def differences(sides, compared):
    found = await Comparing(*sides).compare(compared, 10)
    assert found.found == len(found.differences)
    return {(d.verdict, json.dumps(list(d.key.values()))) for d in found.differences}


@pytest.mark.parametrize("compared", COMPARED, ids=lambda compared: compared.table)
async def test_any_content_that_is_altered_is_named_by_its_key(sides, compared):
    live, _ = sides
    assert await differences(sides, compared) == set()
    columns = await columns_of(live, compared.table)
    row = await row_of(live, compared.table)
    key = await key_of(live, compared, row)
    for column in compared.content:
        change = BY_CONTENT.get((compared.table, column)) or changed(column, columns[column])
        async with undone(live):
            await live.execute(
                f"UPDATE {compared.table} SET {change} WHERE ROW(tableoid, ctid)::text = $1", row
            )
            assert await differences(sides, compared) == {("differs", key)}, column


@pytest.mark.parametrize("compared", COMPARED, ids=lambda compared: compared.table)
async def test_a_row_that_is_gone_or_added_is_named_by_its_key(sides, compared):
    live, shadow = sides
    columns = await columns_of(live, compared.table)
    row = await row_of(live, compared.table)
    key = await key_of(live, compared, row)
    async with undone(live):
        await delete_key(live, compared, row)
        assert await differences(sides, compared) == {("missing", key)}
        assert await differences((shadow, live), compared) == {("only live", key)}

    name = next(name for name in compared.key if name in columns and name != "topic")
    async with undone(live):
        await live.execute(
            f"UPDATE {compared.table} SET {changed(name, columns[name])} WHERE ROW(tableoid, ctid)::text = $1",
            row,
        )
        found = {verdict for verdict, _ in await differences(sides, compared)}
        assert "only live" in found


async def delete_key(live, compared, row):
    if compared.table == "commissions":
        await live.execute(
            """DELETE FROM commissions AS c USING commissions AS k
               WHERE ROW(k.tableoid, k.ctid)::text = $1
                 AND (c.order_id, c.beneficiary, c.currency) = (k.order_id, k.beneficiary, k.currency)""",
            row,
        )
    else:
        await live.execute(f"DELETE FROM {compared.table} WHERE ROW(tableoid, ctid)::text = $1", row)


@pytest.mark.parametrize("compared", COMPARED, ids=lambda compared: compared.table)
async def test_what_only_tells_when_or_from_where_a_row_was_written_is_no_difference(sides, compared):
    live, _ = sides
    row = await row_of(live, compared.table)
    for column, kind in (await columns_of(live, compared.table)).items():
        if column in (*compared.key, *compared.content, "id") or (compared.table, column) in EXEMPT_ONLY:
            continue  # an id is made in the order of coming, and may not be written
        async with undone(live):
            await live.execute(
                f"UPDATE {compared.table} SET {changed(column, kind)} WHERE ROW(tableoid, ctid)::text = $1",
                row,
            )
            assert await differences(sides, compared) == set(), column


@pytest.mark.parametrize(
    ("table", "before", "after"),
    [
        ("aff_attributions", "pending", "approved"),
        ("customer_vouchers", "CLAIMED", "EXPIRED"),
        ("commissions", "pending", "paid"),
    ],
)
async def test_a_status_that_people_or_the_clock_set_is_no_difference(sides, table, before, after):
    live, _ = sides
    assert (
        await live.execute(f"UPDATE {table} SET status = $1 WHERE status = $2", after, before) != "UPDATE 0"
    )
    assert await differences(sides, BY_TABLE[table]) == set()


async def test_equal_ledgers_have_equal_digests_and_others_another(sides):
    live, shadow = sides
    assert await digest_of(live) == await digest_of(shadow)
    await live.execute("UPDATE voucher_hourly SET link_scans = link_scans + 1 WHERE voucher_id = 'v1'")
    ours, theirs = await digest_of(live), await digest_of(shadow)
    assert [table for table in ours if ours[table] != theirs[table]] == ["voucher_hourly"]


async def test_a_digest_does_not_hang_on_what_a_session_shows(addresses):
    address = addresses[0]
    plain = await asyncpg.connect(address)
    other = await asyncpg.connect(
        address,
        server_settings={"timezone": "Asia/Tokyo", "datestyle": "SQL, DMY", "extra_float_digits": "0"},
    )
    assert await digest_of(plain) == await digest_of(other)
    await plain.close()
    await other.close()


async def test_of_many_differences_the_first_are_shown_and_all_are_counted(sides, monkeypatch):
    monkeypatch.setattr("counterfoil.replaying.comparing.ROWS_AT_ONCE", 20)
    live, _ = sides
    count = int((await live.execute("DELETE FROM affiliate_coupon_usages")).split()[1])
    found = await Comparing(*sides).compare(BY_TABLE["affiliate_coupon_usages"], 3)
    keys = [list(difference.key.values()) for difference in found.differences]
    wanted = await sides[1].fetch(
        """SELECT order_id, code FROM affiliate_coupon_usages
           ORDER BY jsonb_build_array(order_id, code)::text COLLATE "C" LIMIT 3"""
    )
    assert (found.missing, found.found, keys) == (count, count, [list(row) for row in wanted])


def test_every_table_is_compared_or_taken_over_or_named_here():
    made = {table for migration in available() for table in migration.tables}
    known = {table.table for table in (*COMPARED, *RULES, *BY_HAND, CLOSINGS)}
    partitions = {table for table in made if table.endswith("_default")}
    assert made - known - partitions - NOT_COMPARED == set()
