"""Attribution by coupon follows the usages of an order, whoever writes them and whichever comes first."""

from __future__ import annotations

import asyncio

import pytest

from counterfoil.database.counters import find_drift
from counterfoil.routing import COUNTERS
from support.postgres_ledgers import connections, waits_for_a_lock

USAGE = "INSERT INTO affiliate_coupon_usages (order_id, code) VALUES ('1', '{}')"
TOTAL = "INSERT INTO order_totals (order_id, total, currency) VALUES ('1', 100, 'USD')"
OWNER = "INSERT INTO affiliate_coupon_owners (code, pixel_id) VALUES ('A', 'p1')"


@pytest.fixture
async def shop(db):
    """A database in which two affiliates own a coupon each."""
    await db.execute("INSERT INTO affiliate_coupon_owners (code, pixel_id) VALUES ('A', 'p1'), ('B', 'p2')")
    return db


async def attributed(db) -> list[str]:
    """Whom orders are attributed to, as stored; it is what the facts say."""
    assert await find_drift(db, COUNTERS) == []
    return [row["pixel_id"] for row in await db.fetch("SELECT pixel_id FROM aff_attributions")]


async def test_a_code_that_a_later_event_of_the_order_names_counts_as_well(shop):
    """Of two totals the first stands; the usage is new all the same."""
    await shop.execute(f"{USAGE.format('C')}; {TOTAL}")
    assert await attributed(shop) == []
    await shop.execute(USAGE.format("B"))
    assert await attributed(shop) == ["p2"]
    await shop.execute(USAGE.format("A"))  # of several owners the smaller pixel
    assert await attributed(shop) == ["p1"]


@pytest.mark.parametrize(
    ("change", "left"),
    [
        ("DELETE FROM affiliate_coupon_usages WHERE code = 'A'", ["p2"]),
        ("DELETE FROM affiliate_coupon_usages", []),
        ("UPDATE affiliate_coupon_usages SET code = 'C' WHERE code = 'A'", ["p2"]),
        ("UPDATE affiliate_coupon_usages SET order_id = '2' WHERE code = 'A'", ["p2"]),
        ("TRUNCATE affiliate_coupon_usages", []),
    ],
)
async def test_usages_changed_by_hand_change_whom_their_order_is_attributed_to(shop, change, left):
    await shop.execute(f"{USAGE.format('A')}; {USAGE.format('B')}; {TOTAL}")
    assert await attributed(shop) == ["p1"]
    await shop.execute(change)
    assert await attributed(shop) == left


async def test_usages_that_nobody_owns_settle_nothing(shop):
    await shop.execute(USAGE.format("C"))
    assert await shop.fetchval("SELECT count(*) FROM order_settlements") == 0


@pytest.mark.parametrize("facts", [(TOTAL, OWNER), (OWNER, TOTAL)], ids=["total first", "owner first"])
async def test_a_total_and_an_owner_in_two_open_transactions_meet_though_the_usage_is_old(
    db, database_url, facts
):
    """As where attribution by coupon was switched on later, and the log is read again."""
    await db.execute(USAGE.format("A"))
    async with connections(database_url, 2) as (one, other):
        opened = one.transaction()
        await opened.start()
        await one.execute(facts[0])
        await one.execute("SET CONSTRAINTS ALL IMMEDIATE")
        meeting = asyncio.create_task(other.execute(facts[1]))
        await waits_for_a_lock(db, other, kind="advisory")
        await opened.commit()
        await meeting
    assert await attributed(db) == ["p1"]


@pytest.mark.parametrize("fact", ["a link", "a status"])
async def test_a_usage_alone_meets_what_its_attribution_hangs_on(shop, database_url, fact):
    """The total was there before: the usage is what makes the attribution."""
    facts = {
        "a link": "INSERT INTO links (id, url, program_id, pixel_id) VALUES ('l', 'https://a.com', 'a_1', 'p1')",
        "a status": "INSERT INTO affiliate_status_changes (pixel_id, status) VALUES ('p1', 'paused')",
    }
    await shop.execute(TOTAL)
    async with connections(database_url, 2) as (one, other):
        opened = one.transaction()
        await opened.start()
        await one.execute(USAGE.format("A"))
        await one.execute("SET CONSTRAINTS ALL IMMEDIATE")
        meeting = asyncio.create_task(other.execute(facts[fact]))
        await waits_for_a_lock(shop, other, kind="advisory")
        await opened.commit()
        await meeting
    assert await attributed(shop) == ["p1"]
