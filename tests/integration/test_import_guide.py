"""docs/import.md, run as it stands on an older system's tables."""

from __future__ import annotations

import re
from decimal import Decimal
from pathlib import Path

import pytest

from counterfoil.database.counters import find_drift
from counterfoil.partners.backfill import backfill_partners
from counterfoil.partners.rules import program_id
from counterfoil.routing import COUNTERS

GUIDE = Path(__file__).parents[2] / "docs" / "import.md"
BLOCKS = re.findall(r"^```sql\n(.*?)^```", GUIDE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
CREATE, *TAKE_OVER, WHY, COMPARE, DROP = BLOCKS

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


async def take_over(db) -> None:
    for block in TAKE_OVER:
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
