"""docs/import.md, run as it stands on an older system's tables."""

from __future__ import annotations

import re
from decimal import Decimal
from pathlib import Path

import pytest

from counterfoil.database.counters import find_drift
from counterfoil.database.pool import create_pool
from counterfoil.inventory.low_stock import scan
from counterfoil.partners.backfill import backfill_partners
from counterfoil.partners.rules import program_id
from counterfoil.routing import COUNTERS
from support.postgres_road import plain_settings

GUIDE = Path(__file__).parents[2] / "docs" / "import.md"
COMMISSIONS, _, VOUCHERS = GUIDE.read_text(encoding="utf-8").partition("\n## Vouchers\n")
VOUCHERS, _, INVENTORY = VOUCHERS.partition("\n## Inventory\n")


def blocks(text: str) -> list[str]:
    return re.findall(r"^```sql\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


CREATE, *TAKE_OVER, WHY, COMPARE, DROP = blocks(COMMISSIONS)
CREATE_VOUCHERS, *TAKE_OVER_VOUCHERS, COMPARE_VOUCHERS, DROP_VOUCHERS = blocks(VOUCHERS)
CREATE_STOCK, *TAKE_OVER_STOCK, COMPARE_STOCK, DROP_STOCK = blocks(INVENTORY)

OLD = (
    """INSERT INTO old.users VALUES
       ('u1', 'Ann', 'ann@example.com', 'pa', '2024-01-01Z'), ('u2', 'Bob', '', '', '2024-01-02Z'),
       ('u3', NULL, NULL, NULL, NULL)""",
    "INSERT INTO old.partners VALUES ('pa', 'Ann GmbH', NULL, NULL), ('pb', 'Agency', NULL, NULL)",
    "INSERT INTO old.partner_users VALUES ('pa', 'u1'), ('pb', 'u3')",
    "INSERT INTO old.programs VALUES ('cultgaia_TOKEN', 'www.CultGaia.com', 12.5)",
    """INSERT INTO old.links VALUES
       ('l1', 'https://cultgaia.com/bag', 'u1', 'pa', 'cultgaia_TOKEN', '2024-02-01Z'),
       ('l2', 'https://shop.cultgaia.com/', 'u2', '', '', '2024-02-01Z'),
       ('l3', 'https://other.de', 'u9', NULL, NULL, '2024-02-01Z'),
       ('l4', 'https://other.de', '', '', NULL, '2024-02-01Z')""",
    """INSERT INTO old.commissions VALUES
       ('c1', 'o1', 'l1', 'pa', 'cultgaia_TOKEN', 100, 12.5, 'eur', 'paid', '2024-03-01Z'),
       ('c2', 'o2', 'l2', '', '', 80, 8, 'EUR', 'processed', '2024-03-02Z'),
       ('c3', 'o3', 'l3', NULL, NULL, 10, 1, 'USD', 'pending', '2024-03-03Z'),
       ('c4', '', 'l1', '', NULL, 0, 5, 'EUR', 'approved', '2024-03-04Z'),
       ('c5', 'o5', 'l4', '', NULL, 10, 1, 'EUR', 'pending', '2024-03-05Z'),
       ('c6', 'o6', 'l1', 'pa', NULL, 50, 5, 'EUR', 'fraud', '2024-03-06Z'),
       ('c7', 'o7', '', '', NULL, 50, 5, 'EUR', 'pending', '2024-03-07Z')""",
)


async def take_over(db, blocks=TAKE_OVER) -> None:
    for block in blocks:
        async with db.transaction():
            await db.execute(block)


async def partners_by_order(db) -> dict[str, str | None]:
    return dict(await db.fetch("SELECT order_id, partner_id FROM commissions WHERE cause LIKE 'imported#%'"))


@pytest.fixture
async def imported(db):
    """The database once the whole guide was followed, up to where the old tables go."""
    await db.execute(CREATE)
    for statement in OLD:
        await db.execute(statement)
    await take_over(db)
    report = await backfill_partners(db, dry_run=False, tell=lambda *_: None)
    assert report.is_clean
    assert (report.left.commissions_null, report.left.commissions_blank, report.left.commissions_invalid) == (
        2,
        0,
        0,
    )
    assert report.left.users_without_default_partner == 0
    assert (report.left.links_without_partner, report.left.links_of_unknown_users) == (1, 1)
    return db


async def test_every_commission_that_can_have_a_partner_has_the_right_one(imported):
    assert await partners_by_order(imported) == {
        "o1": "pa",
        "o2": "pn_u2",
        "o3": "pn_u9",
        "imported-c4": "pa",
        "o5": None,
        "o6": "pa",
        "o7": None,
    }
    defaults = await imported.fetch("SELECT id, default_partner_id FROM shop_users")
    assert dict(defaults) == {"u1": "pa", "u2": "pn_u2", "u3": "pb", "u9": "pn_u9"}


async def test_links_belong_to_the_imported_program_or_to_one_of_their_address(imported):
    programs = dict(await imported.fetch("SELECT id, program_id FROM links"))
    other = program_id("other.de")
    assert programs == {"l1": "cultgaia_TOKEN", "l2": "cultgaia_TOKEN", "l3": other, "l4": other}
    assert await imported.fetchval("SELECT percent FROM program_rates") == Decimal("12.5")


async def test_the_comparison_shows_equal_sums(imported):
    ours, theirs = [part for part in COMPARE.split(";\n") if part.strip()]
    mine = {tuple(row) for row in await imported.fetch(ours)}
    names = {"processed": "approved", "fraud": "canceled"}
    summed: dict[tuple, list] = {}
    for currency, status, count, earnings in await imported.fetch(theirs):
        total = summed.setdefault((currency, names.get(status, status)), [0, Decimal(0)])
        total[0] += count
        total[1] += earnings
    assert mine == {(*key, *total) for key, total in summed.items()}


async def test_the_guide_can_be_followed_again(imported):
    tables = ("partners", "partner_users", "shop_users", "programs", "program_rates", "links", "commissions")
    before = [await imported.fetch(f"SELECT * FROM {table} ORDER BY 1, 2") for table in tables]
    await take_over(imported)
    assert [await imported.fetch(f"SELECT * FROM {table} ORDER BY 1, 2") for table in tables] == before


async def test_what_has_no_partner_is_explained(imported):
    found = await imported.fetch(WHY)
    assert {row["order_id"]: row["why"] for row in found} == {"o5": "link is nobody's", "o7": "names no link"}


async def test_a_refund_of_a_paid_order_is_owed_back_and_a_conversion_of_one_posts_the_difference(imported):
    await imported.execute("INSERT INTO order_refunds (order_id, refund_id, amount) VALUES ('o1', 'r1', 40)")
    rows = await imported.fetch(
        "SELECT earnings, status, partner_id FROM commissions WHERE order_id = 'o1' ORDER BY id"
    )
    assert [tuple(row) for row in rows] == [(Decimal("12.5"), "paid", "pa"), (Decimal(-5), "approved", "pa")]
    await imported.execute(
        "INSERT INTO conversions (order_id, beneficiary, link_id, revenue, commission, currency) "
        "VALUES ('o2', 'link:l2', 'l2', 80, 9, 'EUR')"
    )
    total = await imported.fetchval("SELECT sum(earnings) FROM commissions WHERE order_id = 'o2'")
    assert total == 9


async def test_all_of_it_adds_up_and_the_old_tables_can_go(imported):
    assert await find_drift(imported, COUNTERS) == []
    await imported.execute(DROP)
    assert await imported.fetchval("SELECT to_regclass('old.commissions') IS NULL")


async def test_blanks_are_refused_from_then_on(imported):
    for table, column in (
        ("commissions", "partner_id"),
        ("links", "partner_id"),
        ("shop_users", "default_partner_id"),
    ):
        assert await imported.fetchval(
            "SELECT convalidated FROM pg_constraint WHERE conrelid = $1::text::regclass AND conname = $2",
            table,
            f"{column}_not_blank",
        )


# Vouchers


def uuid(number: int) -> str:
    return f"0f8fad5b-d9cb-469f-a165-{number:012}"


V1, V2, V3, C1, C2, C3, B1 = (uuid(number) for number in range(7))

OLD_VOUCHERS = (
    f"""INSERT INTO old."Voucher" VALUES
        ('{V1}', '{B1}', 'A fifth off', '2025-01-01Z', '2030-01-01Z', 10, 2, 3),
        ('{V2}', NULL, NULL, '2025-01-02Z', NULL, 1, 0, 0), ('{V3}', NULL, NULL, NULL, NULL, NULL, NULL, NULL)""",
    f"""INSERT INTO old."VoucherScan" VALUES
        ('{uuid(20)}', '{V1}', '{C1}', 'CUSTOMER', 'CAMERA', NULL, '{{"city": "Bonn"}}', 'x', '2025-02-01Z', NULL),
        ('{uuid(21)}', '{V1}', NULL, 'BUSINESS', 'LINK', '{{}}', NULL, NULL, '2025-02-02Z', '{{}}'),
        ('{uuid(22)}', '{V1}', '{C2}', 'CUSTOMER', 'SHARE', NULL, 'null', NULL, NULL, NULL),
        ('{uuid(25)}', '{V1}', '{C1}', 'CUSTOMER', 'SHARE', NULL, 'null', NULL, '2025-02-02 09:00Z', NULL),
        ('{uuid(23)}', '{V2}', '{C2}', 'CUSTOMER', 'SHARE', '{{}}', NULL, NULL, '2025-03-02Z', '{{}}'),
        ('{uuid(24)}', '{V2}', '{C2}', 'CUSTOMER', 'SHARE', '{{}}', NULL, NULL, '2025-03-02Z', '{{}}')""",
    f"""INSERT INTO old."CustomerVoucher" VALUES
        ('{C1}', '{V1}', '2025-02-03Z', 'CLAIMED', '{{"push": true}}', '2025-02-04Z', NULL),
        ('{C2}', '{V1}', '2025-02-04Z', 'REDEEMED', NULL, NULL, '{{"from": "mail"}}'),
        ('{C3}', '{V2}', '2025-02-04Z', 'EXPIRED', NULL, NULL, NULL)""",
    f"""INSERT INTO old."RedemptionAttempt" VALUES
        ('{uuid(30)}', '{V1}', '{B1}', '{C1}', '2025-02-05Z', false, 'closed', '{{}}', NULL, NULL),
        ('{uuid(31)}', '{V1}', '{B1}', '{C1}', '2025-02-06Z', true, NULL, NULL, NULL, '{{}}'),
        ('{uuid(32)}', '{V2}', '{B1}', NULL, '2025-02-07Z', true, NULL, '{{}}', NULL, '{{}}')""",
)
COUNTED = (
    "vouchers",
    "voucher_hourly",
    "voucher_places",
    "voucher_place_months",
    "voucher_scanner_days",
    "voucher_returns",
    "voucher_daily",
    "customer_vouchers",
)


@pytest.fixture
async def vouchers(db):
    """The database once the vouchers' part of the guide was followed, after a scan of V3 that came by an event."""
    await db.execute(
        "INSERT INTO voucher_scans (scan_id, voucher_id, occurred_at, scan_type, scan_source) "
        "VALUES ('s1', $1, '2025-05-01Z', 'CUSTOMER', 'CAMERA')",
        V3,
    )
    await db.execute(CREATE_VOUCHERS)
    for statement in OLD_VOUCHERS:
        await db.execute(statement)
    await take_over(db, TAKE_OVER_VOUCHERS)
    return db


async def counted(db) -> dict[str, list]:
    """Everything that is counted of vouchers, without the times of writing."""
    rows = {table: await db.fetch(f"SELECT * FROM {table}") for table in COUNTED}
    return {
        table: sorted(
            repr({name: value for name, value in row.items() if name != "updated_at"}) for row in found
        )
        for table, found in rows.items()
    }


async def test_vouchers_count_what_they_counted_before(vouchers):
    rows = await vouchers.fetch(
        "SELECT id, scan_count, claim_count, redemption_count, impressions FROM vouchers ORDER BY id"
    )
    assert [tuple(row) for row in rows] == [(V1, 10, 2, 1, 3), (V2, 2, 1, 1, 0), (V3, 1, 0, 0, 0)]
    title = "SELECT title, business_id, created_at IS NULL FROM vouchers WHERE id = $1"
    assert tuple(await vouchers.fetchrow(title, V1)) == ("A fifth off", B1, False)
    assert tuple(await vouchers.fetchrow(title, V3)) == (None, None, True)


async def test_scans_without_rows_are_a_closing_of_a_day_before_all_others(vouchers):
    closings = await vouchers.fetch("SELECT key, day::text, sums ->> 'reason' AS reason FROM ledger_closings")
    assert [tuple(row) for row in closings] == [(V1, "1999-12-31", "opening balance")]
    hour = await vouchers.fetchrow(
        "SELECT scans, anonymous_scans FROM voucher_hourly WHERE voucher_id = $1 ORDER BY hour LIMIT 1", V1
    )
    assert tuple(hour) == (7, 7)
    users = "SELECT sum(users) FROM voucher_returns WHERE voucher_id = $1 AND previous_day = '-infinity'"
    assert await vouchers.fetchval(users, V1) == 1


async def test_wallets_keep_what_is_known_of_them(vouchers):
    rows = await vouchers.fetch(
        """SELECT customer_id, status, claimed_at::date::text AS claimed, redeemed_at::date::text AS redeemed,
                  first_scanned_at::date::text AS scanned, notification_preferences::text AS preferences
           FROM customer_vouchers ORDER BY voucher_id, customer_id"""
    )
    assert [tuple(row) for row in rows] == [
        (C1, "REDEEMED", "2025-02-03", "2025-02-06", "2025-02-01", '{"push": true}'),
        (C2, "REDEEMED", "2025-02-04", None, None, "{}"),
        (C3, "EXPIRED", "2025-02-04", None, None, "{}"),
    ]


async def test_each_month_with_scans_has_a_partition(vouchers):
    assert await vouchers.fetchval("SELECT count(*) FROM voucher_scans_default") == 0
    assert await vouchers.fetchval("SELECT count(*) FROM voucher_scans_2025_02") == 3


async def test_what_is_imported_verifies_and_survives_a_repair(vouchers):
    assert await find_drift(vouchers, COUNTERS) == []
    before = await counted(vouchers)
    await vouchers.execute("UPDATE vouchers SET scan_count = 0")
    await vouchers.execute("DELETE FROM voucher_hourly")
    assert await find_drift(vouchers, COUNTERS) != []
    await vouchers.fetch("SELECT recount_vouchers(array_agg(id)) FROM vouchers")
    assert await counted(vouchers) == before


async def test_months_can_be_closed_after_an_import(vouchers):
    before = await counted(vouchers)
    closed = await vouchers.fetch("SELECT close_scan_partitions('2025-03-15')")
    assert [row[0] for row in closed] == ["voucher_scans_2025_02"]
    assert await find_drift(vouchers, COUNTERS) == []
    assert await counted(vouchers) == before
    days = await vouchers.fetch("SELECT day::text FROM ledger_closings WHERE key = $1 ORDER BY day", V1)
    assert [row["day"] for row in days] == ["1999-12-31", "2025-02-01", "2025-02-02"]


async def test_the_vouchers_part_can_be_followed_again(vouchers):
    ledgers = ("voucher_scans", "voucher_impressions", "redemption_attempts", "ledger_closings")
    before = (
        await counted(vouchers),
        [await vouchers.fetchval(f"SELECT count(*) FROM {name}") for name in ledgers],
    )
    await take_over(vouchers, TAKE_OVER_VOUCHERS)
    assert before == (
        await counted(vouchers),
        [await vouchers.fetchval(f"SELECT count(*) FROM {name}") for name in ledgers],
    )


async def test_the_comparison_shows_the_vouchers_that_count_otherwise_than_before(vouchers):
    found = await vouchers.fetch(COMPARE_VOUCHERS)
    assert [row["id"] for row in found] == [
        V2,
        V3,
    ]  # one has more rows than it counted, one had a scan meanwhile
    await vouchers.execute(DROP_VOUCHERS)
    assert await vouchers.fetchval("""SELECT to_regclass('old."Voucher"') IS NULL""")


# Inventory

OLD_STOCK = (
    """INSERT INTO old.inventory_products VALUES
       (1, 'ANVIL', 'Anvil', 18, 20, 49.99, 'ACME', '2025-02-01 08:00'), (2, 'BOLT', '', 7, NULL, NULL, '', NULL),
       (3, 'CRATE', 'Crate', -2, 0, NULL, NULL, '2025-03-05'), (4, '', 'nobody', 1, 1, NULL, NULL, NULL),
       (5, 'DRUM', 'Drum', NULL, -1, NULL, NULL, NULL)""",
    """INSERT INTO old.inventory_events VALUES
       (1, 'ANVIL', 'restocked', 0, 25, 25, NULL, '2025-02-01 08:00'),
       (2, 'ANVIL', 'Sale', 25, 18, -6, '{"order": 7}', '2025-03-01 09:00'),
       (3, 'ANVIL', 'low_stock', 25, 18, -7, '{"alertSent": true, "notifiers": ["webhook"]}', '2025-03-01 09:01'),
       (4, 'BOLT', 'sold out!', NULL, NULL, -3, NULL, '2025-03-02'),
       (5, 'BOLT', NULL, NULL, NULL, NULL, NULL, '2025-03-03'),
       (6, 'ELSE', 'count', NULL, 4, NULL, NULL, '2025-03-04'),
       (7, 'ANVIL', 'sale', 18, 1, -17, NULL, now() AT TIME ZONE 'UTC' + interval '1 hour')""",
)


@pytest.fixture
async def stock(db):
    """The database once the part on inventory was followed, while ANVIL was sold once and BOLT was made."""
    await db.execute("INSERT INTO inventory_products (sku, name) VALUES ('BOLT', 'Bolt M6')")
    await db.execute(CREATE_STOCK)
    for statement in OLD_STOCK:
        await db.execute(statement)
    await db.execute(
        "INSERT INTO inventory_events (event_id, occurred_at, sku, quantity_delta) "
        "SELECT 'sale', taken_at + interval '1 s', 'ANVIL', -1 FROM old.export"
    )
    await take_over(db, TAKE_OVER_STOCK)
    return db


async def products(db) -> dict[str, tuple]:
    """SKU → what is known of it."""
    rows = await db.fetch(
        """SELECT sku, name, stock, threshold, unit_price, supplier,
                  to_char(last_restocked AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI') AS restocked,
                  created_at IS NOT NULL AS made
           FROM inventory_products"""
    )
    return {row["sku"]: tuple(row)[1:] for row in rows}


async def test_products_have_the_stock_that_they_had_and_what_has_moved_since(stock):
    assert await products(stock) == {
        "ANVIL": ("Anvil", 17, 20, Decimal("49.99"), "ACME", "2025-02-01 08:00", True),
        "BOLT": ("Bolt M6", 7, 10, None, None, None, True),
        "CRATE": ("Crate", -2, 0, None, None, "2025-03-05 00:00", True),
        "DRUM": ("Drum", 0, 10, None, None, None, True),
        "ELSE": ("ELSE", 4, 10, None, None, None, False),
    }
    assert await find_drift(stock, COUNTERS) == []


async def test_events_are_history_each_in_the_partition_of_its_month(stock):
    rows = await stock.fetch(
        """SELECT event_id, event_type, old_stock, new_stock, quantity_delta, metadata::text FROM inventory_events
           WHERE event_id ~ '^imported-[0-9]' ORDER BY occurred_at, event_id"""
    )
    assert [tuple(row) for row in rows] == [
        ("imported-1", "restocked", 0, 25, 25, "{}"),
        ("imported-2", "sale", 25, 18, -7, '{"order": 7}'),
        ("imported-3", "low_stock", 25, 18, -7, '{"alertSent": true, "notifiers": ["webhook"]}'),
        ("imported-4", "change", None, None, -3, "{}"),
        ("imported-5", "change", None, None, 0, "{}"),
        ("imported-6", "count", None, 4, None, "{}"),
    ]
    assert await stock.fetchval("SELECT count(*) FROM inventory_events_default") == 0
    assert await stock.fetchval("SELECT count(*) FROM inventory_events_2025_02") == 2


async def test_the_part_on_inventory_can_be_followed_again(stock):
    before = await products(stock), await stock.fetchval("SELECT count(*) FROM inventory_events")
    await take_over(stock, TAKE_OVER_STOCK)
    assert before == (await products(stock), await stock.fetchval("SELECT count(*) FROM inventory_events"))


async def test_months_of_stock_can_be_closed_after_an_import(stock):
    before = await products(stock)
    closed = await stock.fetch("SELECT close_inventory_partitions('2025-04-01')")
    assert [row[0] for row in closed] == ["inventory_events_2025_02", "inventory_events_2025_03"]
    assert await products(stock) == before
    assert await find_drift(stock, COUNTERS) == []


async def test_what_is_low_after_an_import_is_told_by_the_next_scan(stock, database_url):
    async with await create_pool(plain_settings(database_url=database_url), "test", 2) as pool:
        assert await scan(pool, plain_settings()) == 5
    found = await stock.fetch("SELECT subject FROM alerts ORDER BY 1")
    assert [row["subject"] for row in found] == ["ANVIL", "BOLT", "CRATE", "DRUM", "ELSE"]


async def test_the_comparison_shows_the_products_that_have_moved_since(stock):
    found = await stock.fetch(COMPARE_STOCK)
    assert [(row["sku"], row["old_stock"], row["stock"]) for row in found] == [("ANVIL", 18, 17)]
    await stock.execute(DROP_STOCK)
    assert await stock.fetchval("SELECT to_regclass('old.inventory_products') IS NULL")
