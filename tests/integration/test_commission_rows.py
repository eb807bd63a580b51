"""Commissions row by row: one for a sale, one more for each correction, and what is paid is paid once."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction

import asyncpg
import iso4217
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from counterfoil.database.counters import find_drift, repair
from counterfoil.routing import COUNTERS
from support.postgres_ledgers import connections, waits_for_a_lock

AT = datetime(2026, 3, 1, tzinfo=UTC)
LATER = AT + timedelta(days=1)


@pytest.fixture
async def shop(db):
    """A database where 10 percent is paid, and an affiliate whose pixel is p1."""
    await db.execute("INSERT INTO default_rates (percent, valid_from) VALUES (10, '2020-01-01Z')")
    await db.execute("INSERT INTO affiliates (handle, name, pixel_id) VALUES ('h', 'H', 'p1')")
    return db


async def convert(db, order_id="1", revenue="100", *, pixel="p1", link=None, at=AT, **given):
    beneficiary = f"pixel:{pixel}" if pixel else f"link:{link}"
    await db.execute(
        """INSERT INTO conversions (order_id, beneficiary, pixel_id, link_id, revenue, commission, currency,
                                    occurred_at)
           VALUES ($1, $2, $3, $4, $5, $6, $7, $8)""",
        order_id,
        beneficiary,
        pixel,
        link,
        Decimal(revenue),
        Decimal(given["commission"]) if "commission" in given else None,
        given.get("currency", "USD"),
        at,
    )


async def refund(db, amount, *, refund_id="r1", order_id="1", currency=None):
    await db.execute(
        "INSERT INTO order_refunds (order_id, refund_id, amount, currency, occurred_at) VALUES ($1, $2, $3, $4, $5)",
        order_id,
        refund_id,
        Decimal(amount),
        currency,
        LATER,
    )


async def cancel(db, order_id="1"):
    await db.execute(
        "INSERT INTO order_cancellations (order_id, canceled_at) VALUES ($1, $2)", order_id, LATER
    )


async def link(db, link_id="l1", *, user=None, partner=None, pixel=None, program="a_1"):
    await db.execute(
        """INSERT INTO links (id, url, user_id, named_partner_id, pixel_id, program_id, occurred_at)
           VALUES ($1, 'https://a.com', $2, $3, $4, $5, $6)""",
        link_id,
        user,
        partner,
        pixel,
        program,
        AT,
    )


async def rows(db, order_id="1"):
    """(kind, cause without its number, earnings, status) of each row, as posted."""
    found = await db.fetch("SELECT * FROM commissions WHERE order_id = $1 ORDER BY id", order_id)
    return [(r["kind"], r["cause"].partition("#")[0], float(r["earnings"]), r["status"]) for r in found]


async def test_a_sale_is_one_row(shop):
    await convert(shop)
    assert await rows(shop) == [("sale", "conversion", 10, "pending")]
    row = await shop.fetchrow("SELECT * FROM commissions")
    assert (row["amount"], row["rate_percent"], row["rate_source"]) == (100, 10, "default")
    assert row["occurred_at"] == AT


async def test_each_refund_is_one_row_more_and_refunds_beyond_the_revenue_count_as_the_revenue(shop):
    await convert(shop)
    await refund(shop, "30")
    await refund(shop, "20.05", refund_id="r2")
    await refund(shop, "500", refund_id="r3")
    assert await rows(shop) == [
        ("sale", "conversion", 10, "canceled"),
        ("reversal", "refunded", -3, "canceled"),
        ("reversal", "refunded", -2, "canceled"),  # what is left, 4.995, is 5.00
        ("reversal", "refunded", -5, "canceled"),
    ]
    assert await shop.fetchval("SELECT occurred_at FROM commissions ORDER BY id DESC LIMIT 1") == LATER


async def test_a_refund_before_its_order_makes_one_row_of_what_is_left(shop):
    await refund(shop, "30")
    await convert(shop)
    assert await rows(shop) == [("sale", "conversion", 7, "pending")]


async def test_a_refund_in_another_currency_is_not_subtracted_and_one_without_is_the_orders(shop):
    await convert(shop, currency="EUR")
    await refund(shop, "30", currency="USD")
    assert len(await rows(shop)) == 1
    await refund(shop, "30", refund_id="r2")
    assert (await rows(shop))[1:] == [("reversal", "refunded", -3, "pending")]


async def test_a_cancellation_takes_back_the_whole_and_nobody_claims_anything(shop):
    await convert(shop)
    await refund(shop, "30")
    await cancel(shop)
    assert await rows(shop) == [
        ("sale", "conversion", 10, "canceled"),
        ("reversal", "refunded", -3, "canceled"),
        ("reversal", "canceled", -7, "canceled"),
    ]
    assert await shop.fetchval("SELECT status FROM aff_attributions") == "reversed"
    assert await shop.fetch("SELECT * FROM affiliate_daily WHERE currency <> ''") == []


async def test_an_earlier_conversion_moves_the_whole_to_another_affiliate(shop):
    await convert(shop)
    await refund(shop, "30")
    await convert(shop, pixel="p0", at=AT - timedelta(seconds=1), revenue="80")
    assert await rows(shop) == [
        ("sale", "conversion", 10, "canceled"),
        ("reversal", "refunded", -3, "canceled"),
        ("reversal", "moved", -7, "canceled"),
        ("sale", "conversion", 5, "pending"),
    ]
    assert await shop.fetchval("SELECT pixel_id FROM aff_attributions") == "p0"


async def test_a_row_learns_its_partner_when_he_becomes_known(shop):
    await convert(shop, pixel=None, link="l1")
    await link(shop, user="u1")
    assert await shop.fetchval("SELECT partner_id FROM commissions") is None
    await shop.execute("INSERT INTO shop_users (id, name) VALUES ('u1', 'Ann')")
    row = await shop.fetchrow("SELECT * FROM commissions")
    assert (row["partner_id"], row["program_id"], row["link_id"]) == ("pn_u1", "a_1", "l1")
    assert await shop.fetchval("SELECT count(*) FROM commissions") == 1


async def test_a_rate_that_becomes_known_posts_the_difference(shop):
    await link(shop, partner="px", pixel="p1")
    await convert(shop)
    await shop.execute(
        "INSERT INTO programs (id, base_domain, commission_percent) VALUES ('a_1', 'a.com', 12.5)"
    )
    assert await rows(shop) == [("sale", "conversion", 10, "pending"), ("sale", "rate", 2.5, "pending")]
    source = await shop.fetchrow("SELECT rate_percent, rate_source FROM aff_attributions")
    assert tuple(source) == (Decimal("12.5"), "program")


async def test_a_later_rate_and_a_later_pause_leave_earlier_sales_alone(shop):
    await shop.execute("UPDATE affiliate_status_changes SET valid_from = '2020-01-01Z'")
    await convert(shop)
    await shop.execute("INSERT INTO default_rates (percent, valid_from) VALUES (50, $1)", LATER)
    await shop.execute("UPDATE affiliates SET status = 'paused'")
    assert await rows(shop) == [("sale", "conversion", 10, "pending")]
    await convert(shop, "2", at=datetime.now(UTC) + timedelta(minutes=1))
    assert await rows(shop, "2") == []
    found = await shop.fetchrow("SELECT * FROM aff_attributions WHERE order_id = '2'")
    assert (found["revenue"], found["commission"], found["rate_source"]) == (100, 0, "paused")


async def test_a_pause_that_is_dated_back_takes_back_what_was_posted(shop):
    await convert(shop)
    await shop.execute(
        "INSERT INTO affiliate_status_changes (pixel_id, status, valid_from) VALUES ('p1', 'paused', $1)", AT
    )
    assert await rows(shop) == [
        ("sale", "conversion", 10, "canceled"),
        ("reversal", "paused", -10, "canceled"),
    ]


@pytest.mark.parametrize(
    ("currency", "revenue", "given", "expected"),
    [
        ("USD", "0.25", {}, "0.02"),  # 0.025
        ("USD", "0.35", {}, "0.04"),  # 0.035
        ("JPY", "25", {}, "2"),  # 2.5
        ("JPY", "35", {}, "4"),  # 3.5
        ("BHD", "0.0250", {}, "0.002"),  # 0.0025
        ("USD", "99.99", {"commission": "9.99"}, "9.99"),
        ("USD", "0", {"commission": "5"}, "5"),
        ("XXX", "1.05", {}, "0.10"),  # 0.105, in no currency of ISO 4217
    ],
)
async def test_earnings_are_rounded_half_even_to_the_currencys_digits(
    shop, currency, revenue, given, expected
):
    await convert(shop, revenue=revenue, currency=currency, **given)
    assert await shop.fetchval("SELECT earnings FROM commissions") == Decimal(expected)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    numerator=st.decimals(0, 10**15, places=6),
    denominator=st.decimals("0.000001", 10**9, places=6),
    digits=st.integers(0, 4),
)
async def test_half_even_is_exact(shared_db, numerator, denominator, digits):
    found = await shared_db.fetchval("SELECT half_even($1, $2, $3)", numerator, denominator, digits)
    assert Fraction(found) == Fraction(
        round(Fraction(numerator) / Fraction(denominator) * 10**digits), 10**digits
    )


async def test_the_currencies_are_those_of_iso_4217(db):
    stored = dict(await db.fetch("SELECT code, digits FROM currencies"))
    assert stored == {c.code: c.exponent for c in iso4217.Currency if c.exponent is not None}


LARGEST = "99999999999999.999999"
"""Of one event's amounts; rounded to cents it is more than any."""


@pytest.mark.parametrize("commission", [{}, {"commission": LARGEST}], ids=["by rate", "its own"])
@pytest.mark.parametrize("revenue", [LARGEST, "0.000001"])
async def test_the_largest_amounts_are_settled_refunded_and_canceled(shop, revenue, commission):
    await shop.execute("INSERT INTO default_rates (percent, valid_from) VALUES (100, $1)", AT)
    await convert(shop, revenue=revenue, **commission)
    owed = Decimal("1e14") if commission or revenue == LARGEST else Decimal(0)
    assert await shop.fetchval("SELECT commission FROM aff_attributions") == owed
    assert await find_drift(shop, COUNTERS) == []
    await refund(shop, LARGEST)
    await cancel(shop)
    assert await shop.fetchval("SELECT sum(earnings) FROM commissions") == 0
    assert await find_drift(shop, COUNTERS) == []


async def test_a_cancellation_takes_back_imported_rows_whatever_they_come_to(shop):
    for _ in range(3):
        await shop.execute(
            """INSERT INTO commissions (partner_id, link_id, order_id, amount, earnings, currency)
               VALUES ('px', 'l', '1', $1, $1, 'USD')""",
            Decimal(LARGEST),
        )
    await cancel(shop)
    assert await shop.fetchval("SELECT sum(earnings) FROM commissions") == 0


# Paying


async def payable(db, partner="px"):
    await link(db, partner=partner, pixel="p1")
    await convert(db)
    assert await db.fetchval("SELECT approve_commissions(0)") == 1


async def pay(db, currency="USD"):
    return await db.fetchval("SELECT pay_commissions('px', $1, 'transfer 7', 'me')", currency)


async def test_a_sale_is_approved_when_its_holding_period_is_over(shop):
    await convert(shop, at=datetime.now(UTC) - timedelta(days=30, minutes=1))
    await convert(shop, "2", at=datetime.now(UTC) - timedelta(days=29, hours=23))
    assert await shop.fetchval("SELECT approve_commissions(30)") == 1
    assert await shop.fetchval("SELECT approve_commissions(30)") == 0
    assert [r[3] for r in await rows(shop)] == ["approved"]
    assert [r[3] for r in await rows(shop, "2")] == ["pending"]
    assert await shop.fetchval("SELECT status FROM aff_attributions WHERE order_id = '1'") == "approved"


async def test_a_payout_marks_what_it_paid_and_pays_nothing_twice(shop):
    await payable(shop)
    payout = await pay(shop)
    assert await pay(shop) is None
    assert await rows(shop) == [("sale", "conversion", 10, "paid")]
    found = await shop.fetchrow("SELECT * FROM payouts")
    assert (found["id"], found["amount"], found["currency"], found["reference"]) == (
        payout,
        10,
        "USD",
        "transfer 7",
    )
    assert await shop.fetchval("SELECT payout_id FROM commissions") == payout
    assert await shop.fetchval("SELECT status FROM aff_attributions") == "paid"


async def test_a_refund_after_the_payout_is_clawed_back_from_the_next_one(shop):
    await payable(shop)
    await pay(shop)
    await refund(shop, "30")
    assert await rows(shop) == [("sale", "conversion", 10, "paid"), ("reversal", "refunded", -3, "approved")]
    assert await pay(shop) is None  # less than nothing
    await convert(shop, "2")
    await shop.fetchval("SELECT approve_commissions(0)")
    await pay(shop)
    assert await shop.fetchval("SELECT amount FROM payouts ORDER BY id DESC LIMIT 1") == 7
    assert await shop.fetchval("SELECT count(*) FROM commissions WHERE status <> 'paid'") == 0


async def test_a_sale_that_moves_after_its_payout_is_clawed_back_and_paid_to_the_other(shop):
    await payable(shop)
    await pay(shop)
    await convert(shop, pixel="p0", at=AT - timedelta(seconds=1))
    assert await rows(shop) == [
        ("sale", "conversion", 10, "paid"),
        ("reversal", "moved", -10, "approved"),
        ("sale", "conversion", 10, "pending"),
    ]


async def test_two_payouts_at_once_pay_once(shop, database_url):
    await payable(shop)
    async with connections(database_url, 6) as crowd:
        paid = await asyncio.gather(*(pay(connection) for connection in crowd))
    assert len([payout for payout in paid if payout is not None]) == 1
    assert await shop.fetchval("SELECT sum(amount) FROM payouts") == 10


async def test_a_payout_and_a_cancellation_at_once_leave_no_paid_row_without_its_clawback(shop, database_url):
    await payable(shop)
    async with connections(database_url, 2) as (one, other):
        for order in ("canceled first", "paid first"):
            await convert(shop, order)
            await shop.fetchval("SELECT approve_commissions(0)")
            first = one.transaction()
            await first.start()
            work = (
                (cancel(one, order), pay(other))
                if order == "canceled first"
                else (pay(one), cancel(other, order))
            )
            await work[0]
            await one.execute("SET CONSTRAINTS ALL IMMEDIATE")
            second = asyncio.create_task(work[1])
            await asyncio.sleep(0.05)
            await first.commit()
            await second
    owed = await shop.fetchval(
        "SELECT sum(earnings) FROM commissions WHERE status IN ('paid', 'approved', 'pending')"
    )
    paid = await shop.fetchval("SELECT sum(amount) FROM payouts")
    payable_now = await shop.fetchval("SELECT sum(earnings) FROM commissions WHERE status = 'approved'")
    assert owed == 10  # order 1 alone
    assert paid + payable_now == 10


async def test_a_row_approved_by_hand_during_a_payout_waits_for_the_next_one(shop, database_url):
    """What is marked as paid is what was summed, row for row."""
    await payable(shop)
    await shop.execute(
        """INSERT INTO commissions (partner_id, order_id, amount, earnings, currency, status)
           VALUES ('px', '1', 1, 1, 'USD', 'pending')"""
    )
    async with connections(database_url, 2) as (one, other):
        held = one.transaction()
        await held.start()
        await one.execute("LOCK TABLE payouts IN SHARE MODE")  # the payout has its sum, and waits
        paying = asyncio.create_task(pay(other))
        await waits_for_a_lock(shop, other, kind="relation")
        await shop.execute("UPDATE commissions SET status = 'approved' WHERE origin = 'manual'")
        await held.commit()
        payout = await paying
    of_rows = await shop.fetchval("SELECT sum(earnings) FROM commissions WHERE payout_id = $1", payout)
    assert await shop.fetchval("SELECT amount FROM payouts") == of_rows


# By hand


async def test_an_imported_row_is_a_fact_of_its_own(shop):
    await shop.execute(
        """INSERT INTO commissions (order_id, partner_id, link_id, amount, earnings, currency, status)
           VALUES ('old', 'px', 'l9', 80, 8, 'USD', 'paid')"""
    )
    assert await rows(shop, "old") == [("sale", "imported", 8, "paid")]
    await refund(shop, "40", order_id="old")
    assert (await rows(shop, "old"))[1:] == [("reversal", "refunded", -4, "approved")]
    await cancel(shop, "old")
    assert (await rows(shop, "old"))[2:] == [("reversal", "canceled", -4, "approved")]


async def test_a_conversion_of_an_imported_order_pays_nothing_twice(shop):
    await link(shop, "l9", partner="px", program=None)
    await shop.execute(
        """INSERT INTO commissions (order_id, partner_id, link_id, amount, earnings, currency, status)
           VALUES ('old', 'px', 'l9', 80, 8, 'USD', 'paid')"""
    )
    await convert(shop, "old", "80", pixel=None, link="l9")
    assert await rows(shop, "old") == [("sale", "imported", 8, "paid")]


async def test_an_order_imported_in_two_rows_loses_its_refund_in_proportion(shop):
    await shop.execute(
        """INSERT INTO commissions (order_id, partner_id, link_id, amount, earnings, currency, status)
           VALUES ('old', 'px', 'l8', 60, 6, 'USD', 'paid'), ('old', 'px', 'l9', 40, 4, 'USD', 'paid')"""
    )
    await refund(shop, "50", order_id="old")
    assert sorted((await rows(shop, "old"))[2:], key=lambda row: row[2]) == [
        ("reversal", "refunded", -3, "approved"),
        ("reversal", "refunded", -2, "approved"),
    ]


async def test_an_imported_row_that_is_corrected_by_hand_is_settled_anew(shop):
    await shop.execute(
        """INSERT INTO commissions (order_id, partner_id, link_id, amount, earnings, currency)
           VALUES ('old', 'px', 'l9', 80, 8, 'USD')"""
    )
    await refund(shop, "40", order_id="old")
    await shop.execute("UPDATE commissions SET earnings = 16 WHERE origin = 'manual'")
    assert sum(row[2] for row in await rows(shop, "old")) == 8
    await shop.execute("DELETE FROM commissions WHERE origin = 'manual'")
    assert sum(row[2] for row in await rows(shop, "old")) == 0
    assert await find_drift(shop, COUNTERS) == []


async def test_an_imported_order_that_loses_its_attribution_keeps_what_was_imported(shop):
    await shop.execute(
        """INSERT INTO commissions (order_id, partner_id, link_id, amount, earnings, currency)
           VALUES ('old', 'px', 'l9', 80, 8, 'USD')"""
    )
    await convert(shop, "old", "100")
    assert (await rows(shop, "old"))[1:] == [
        ("reversal", "moved", -8, "canceled"),
        ("sale", "conversion", 10, "pending"),
    ]
    await shop.execute("DELETE FROM conversions")
    assert [row[1] for row in await rows(shop, "old")][3:] == ["withdrawn", "corrected"]
    assert sum(row[2] for row in await rows(shop, "old")) == 8


@pytest.mark.parametrize("origin", ["manual", "settled"])
@pytest.mark.parametrize("cause", ["canceled#1", "canceled", "#", "canceled#99999999999999999999", ""])
async def test_a_cause_that_was_written_by_hand_is_in_nobodys_way(shop, cause, origin):
    await shop.execute(
        """INSERT INTO commissions (order_id, beneficiary, kind, cause, origin, amount, earnings, currency)
           VALUES ('1', 'pixel:p1', 'reversal', $1, $2, 0, 0, 'USD')""",
        cause,
        origin,
    )
    await convert(shop)
    await cancel(shop)
    assert sum(row[2] for row in await rows(shop)) == 0


async def test_thousands_of_statements_in_a_transaction_are_settled_once(shop):
    async with shop.transaction():
        for number in range(3_000):
            await convert(shop, f"{number}")
        began = asyncio.get_running_loop().time()
        await shop.execute("SET CONSTRAINTS ALL IMMEDIATE")
        took_s = asyncio.get_running_loop().time() - began
    assert await shop.fetchval("SELECT sum(earnings) FROM commissions") == 30_000
    assert took_s < 5


@pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE"])
async def test_an_old_snapshot_is_refused(shop, level):
    """It would not see the status, the link or the refund that its own locks have just waited for."""
    with pytest.raises(asyncpg.FeatureNotSupportedError):
        await shop.execute(
            f"""BEGIN ISOLATION LEVEL {level};
                INSERT INTO order_refunds (order_id, refund_id, amount) VALUES ('1', 'r', 1); COMMIT"""
        )
    await shop.execute("ROLLBACK")


@pytest.mark.parametrize(
    "by_hand",
    [
        "DELETE FROM commissions",
        "UPDATE commissions SET earnings = 1",
        "UPDATE commissions SET status = 'approved'",
        "UPDATE commissions SET payout_id = NULL",
        "UPDATE commissions SET partner_id = 'other'",
    ],
)
async def test_what_was_paid_stands(shop, by_hand):
    await payable(shop)
    await pay(shop)
    with pytest.raises(asyncpg.RestrictViolationError) as refused:
        await shop.execute(by_hand)
    assert refused.value.constraint_name == "paid_rows_stand"


async def test_a_payout_that_was_changed_is_drift_that_a_person_must_judge(shop):
    await payable(shop)
    await pay(shop)
    await shop.execute("UPDATE payouts SET amount = 11")
    drift = await find_drift(shop, COUNTERS)
    assert [(d.table, d.counter, d.stored, d.counted) for d in drift] == [
        ("payouts", "amount", "11.000000", "10.000000")
    ]
    await repair(shop, COUNTERS, drift)
    assert await find_drift(shop, COUNTERS) == drift


async def test_the_status_of_an_attribution_follows_its_commissions(shop):
    await payable(shop)
    await pay(shop)
    await refund(shop, "30")
    assert await shop.fetchval("SELECT status FROM aff_attributions") == "approved"  # a clawback is open
    await cancel(shop)
    await shop.execute("DELETE FROM order_cancellations")
    assert await shop.fetchval("SELECT status FROM aff_attributions") == "approved"


async def test_a_link_of_no_pixel_that_the_conversion_names_is_its_link(shop):
    await link(shop, "l1", partner="px")
    await convert(shop, link="l1")
    row = await shop.fetchrow("SELECT * FROM commissions")
    assert (row["beneficiary"], row["partner_id"], row["link_id"]) == ("pixel:p1", "px", "l1")


@pytest.mark.parametrize("table", ["links", "commissions", "partner_users", "program_enrollments"])
async def test_a_blank_partner_is_refused(shop, table):
    columns = await shop.fetch(
        """SELECT column_name AS name, data_type AS type FROM information_schema.columns
           WHERE table_name = $1 AND is_nullable = 'NO' AND column_default IS NULL AND is_identity = 'NO'
             AND column_name <> 'partner_id'""",
        table,
    )
    names = ", ".join(["partner_id", *(c["name"] for c in columns)])
    values = ", ".join(["''", *("1" if c["type"] == "numeric" else "'USD'" for c in columns)])
    with pytest.raises(asyncpg.CheckViolationError) as refused:
        await shop.execute(f"INSERT INTO {table} ({names}) VALUES ({values})")
    assert refused.value.constraint_name == "partner_id_not_blank"


@pytest.mark.parametrize(
    "by_hand",
    [
        "UPDATE aff_attributions SET commission = 99",
        "DELETE FROM aff_attributions",
        "UPDATE commissions SET earnings = 99",
        "DELETE FROM commissions",
        "TRUNCATE commissions",
        "UPDATE commissions SET partner_id = 'somebody'",
        "UPDATE affiliate_daily SET revenue = 99 WHERE currency <> ''",
        "DELETE FROM affiliate_daily WHERE currency <> ''",
        "INSERT INTO affiliate_daily (pixel_id, day, currency, conversions) VALUES ('px', '2026-03-01', 'EUR', 1)",
    ],
)
async def test_what_is_overwritten_by_hand_is_found_and_repaired(shop, by_hand):
    await convert(shop)
    await shop.execute(by_hand)
    drift = await find_drift(shop, COUNTERS)
    assert drift
    await repair(shop, COUNTERS, drift)
    assert await find_drift(shop, COUNTERS) == []
    assert await shop.fetchval("SELECT sum(earnings) FROM commissions") == 10


@pytest.mark.parametrize(
    "by_hand",
    [
        "DELETE FROM conversions",
        "TRUNCATE conversions",
        "UPDATE conversions SET revenue = 50",
        "UPDATE conversions SET pixel_id = 'p7', beneficiary = 'pixel:p7'",
        "UPDATE conversions SET order_id = '7'",
        "DELETE FROM order_refunds",
        "TRUNCATE order_refunds",
        "UPDATE order_refunds SET amount = 1",
        "DELETE FROM order_cancellations",
        "TRUNCATE order_cancellations",
        "DELETE FROM links",
        "TRUNCATE links",
        "UPDATE links SET pixel_id = 'p2'",
        "DELETE FROM affiliate_status_changes",
        "DELETE FROM default_rates",
        "TRUNCATE default_rates",
        "UPDATE default_rates SET percent = 1",
        "UPDATE affiliates SET status = 'paused'",
    ],
)
async def test_facts_changed_by_hand_are_settled_in_the_same_transaction(shop, by_hand):
    await link(shop, partner="px", pixel="p1")
    await convert(shop)
    await convert(shop, "2", "50", pixel="p2")
    await refund(shop, "30")
    await cancel(shop, "2")
    await shop.execute(by_hand)
    assert await find_drift(shop, COUNTERS) == []
    assert await shop.fetchval("SELECT count(*) FROM settlements_due") == 0
