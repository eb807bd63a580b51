"""Every counter recounted from its ledger: real drift is found and mended, traffic is no drift."""

from __future__ import annotations

import asyncio
import itertools

import pytest

from counterfoil.database.counters import Drift, count_rows, find_drift, repair
from counterfoil.ingest.partitions import Partition
from counterfoil.routing import COUNTERS
from support.builders import an_order, records_of
from support.postgres_ledgers import (
    a_promo_code,
    assert_counters_equal_ledgers,
    connections,
    coupon_counts,
    promo_counts,
    waits_for_a_lock,
)
from support.postgres_road import scribes

SOME_ROWS = """
INSERT INTO affiliate_coupon_usages (order_id, code) VALUES ('1', 'A'), ('2', 'A'), ('3', 'B');
INSERT INTO affiliate_coupon_adjustments (code, delta) VALUES ('A', 10), ('C', 3);
INSERT INTO promo_codes (code) VALUES ('P'), ('Q');
INSERT INTO promo_code_uses (promo_code_id, bonus_amount) SELECT id, 2.5 FROM promo_codes WHERE code = 'P';
INSERT INTO promo_code_adjustments (promo_code_id, delta, bonus_delta) SELECT id, 4, 1 FROM promo_codes;
"""


async def mended(db) -> list[Drift]:
    """What had drifted; afterwards nothing has."""
    found = await find_drift(db, COUNTERS)
    assert await repair(db, COUNTERS, found) == len({(d.table, d.key) for d in found})
    assert await find_drift(db, COUNTERS) == []
    await assert_counters_equal_ledgers(db)
    return found


async def test_what_has_not_drifted_is_no_drift(db):
    assert await find_drift(db, COUNTERS) == []
    await db.execute(SOME_ROWS)
    assert await find_drift(db, COUNTERS) == []
    counted = await count_rows(db, COUNTERS)
    assert {table: count for table, count in counted.items() if count} == {
        "affiliate_coupons": 3,
        "promo_codes": 2,
    }
    assert await repair(db, COUNTERS, []) == 0


@pytest.mark.parametrize(
    ("tampering", "found"),
    [
        (
            "UPDATE affiliate_coupons SET times_used = 99 WHERE code = 'A'",
            [Drift("affiliate_coupons", "A", "times_used", "99", "12")],
        ),
        (
            "UPDATE affiliate_coupons SET usage_count = 0 WHERE code = 'B'",
            [Drift("affiliate_coupons", "B", "usage_count", "0", "1")],
        ),
        (
            "DELETE FROM affiliate_coupons WHERE code = 'A'",
            [
                Drift("affiliate_coupons", "A", "times_used", None, "12"),
                Drift("affiliate_coupons", "A", "usage_count", None, "2"),
            ],
        ),
        (
            "INSERT INTO affiliate_coupons (code, times_used) VALUES ('UNUSED', 5)",
            [Drift("affiliate_coupons", "UNUSED", "times_used", "5", "0")],
        ),
        (
            "UPDATE promo_codes SET times_used = 0 WHERE code = 'P'",
            [Drift("promo_codes", "P", "times_used", "0", "5")],
        ),
        (
            "UPDATE promo_codes SET total_bonus_issued = 7 WHERE code = 'Q'",
            [Drift("promo_codes", "Q", "total_bonus_issued", "7.000000", "1.000000")],
        ),
        (
            "ALTER TABLE affiliate_coupon_usages DISABLE TRIGGER fold_deleted; DELETE FROM affiliate_coupon_usages; "
            "ALTER TABLE affiliate_coupon_usages ENABLE TRIGGER fold_deleted",
            [
                Drift("affiliate_coupons", "A", "times_used", "12", "10"),
                Drift("affiliate_coupons", "A", "usage_count", "2", "0"),
                Drift("affiliate_coupons", "B", "times_used", "1", "0"),
                Drift("affiliate_coupons", "B", "usage_count", "1", "0"),
            ],
        ),
    ],
)
async def test_a_number_that_is_not_its_ledgers_is_found_and_mended(db, tampering, found):
    await db.execute(SOME_ROWS)
    await db.execute(tampering)
    assert await mended(db) == found


async def test_a_coupon_without_any_usage_left_is_compared_as_well(db):
    """The drift statement of the write-up joined only codes that had uses."""
    await db.execute(SOME_ROWS)
    await db.execute("DELETE FROM affiliate_coupon_usages WHERE code = 'B'")
    await db.execute("UPDATE affiliate_coupons SET times_used = 1, usage_count = 1 WHERE code = 'B'")
    assert [d.key for d in await mended(db)] == ["B", "B"]


async def test_traffic_and_truncates_are_no_drift(db, database_url):
    async with scribes(database_url, 2) as workers:
        done = asyncio.Event()
        looks = 0

        async def work(number: int) -> None:
            codes = ["A", "B", "C"]
            for n in itertools.count():
                if n >= 30 and looks > 10:
                    return
                orders = [an_order(f"{number}.{n}.{m}", codes=codes) for m in range(20)]
                await workers[number].write(
                    records_of(*orders, partition=Partition("order.placed", number), first=20 * n)
                )

        async def truncate() -> None:
            async with connections(database_url, 1) as (operator,):
                while not done.is_set():
                    await operator.execute("TRUNCATE affiliate_coupon_usages")
                    await asyncio.sleep(0.01)

        async def look() -> None:
            nonlocal looks
            while not done.is_set():
                assert await find_drift(db, COUNTERS) == []
                looks += 1

        async def traffic() -> None:
            await asyncio.gather(work(0), work(1))
            done.set()

        async with asyncio.timeout(60):
            await asyncio.gather(traffic(), truncate(), look())
    await assert_counters_equal_ledgers(db)


async def test_what_commits_while_a_row_is_mended_is_counted(db, database_url):
    """The row is held by a writer whose usages the repair cannot see yet: it waits, and then counts them."""
    await db.execute(SOME_ROWS)
    await db.execute("UPDATE affiliate_coupons SET times_used = 99 WHERE code = 'A'")
    drifts = await find_drift(db, COUNTERS)
    async with connections(database_url, 2) as (writer, mender):
        opened = writer.transaction()
        await opened.start()
        await writer.execute("INSERT INTO affiliate_coupon_usages (order_id, code) VALUES ('new', 'A')")
        mending = asyncio.create_task(repair(mender, COUNTERS, drifts))
        await waits_for_a_lock(db, mender)
        await opened.commit()
        assert await mending == 1
    assert (await coupon_counts(db))["A"] == (13, 3)
    assert await find_drift(db, COUNTERS) == []


async def test_what_is_counted_while_a_promo_code_is_mended_is_counted(db, database_url):
    await a_promo_code(db)
    await db.execute("UPDATE promo_codes SET times_used = 9")
    drifts = await find_drift(db, COUNTERS)
    async with connections(database_url, 2) as (writer, mender):
        opened = writer.transaction()
        await opened.start()
        await writer.execute(
            "INSERT INTO promo_code_uses (promo_code_id, bonus_amount) SELECT id, 5 FROM promo_codes"
        )
        mending = asyncio.create_task(repair(mender, COUNTERS, drifts))
        await waits_for_a_lock(db, mender)
        await opened.commit()
        await mending
    assert await promo_counts(db) == {"SPRING": (1, 5)}
