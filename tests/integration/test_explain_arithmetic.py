"""The arithmetic of an explanation: formulas to be done again, commissions, refused uses, numbers as of a time."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import asyncpg
import pytest

from counterfoil.events import Rules
from counterfoil.explaining import AT_KINDS, explain
from counterfoil.explaining.arithmetic import MOST_TERMS, rate_formula, sum_of, terms
from counterfoil.explaining.cells import Known
from counterfoil.explaining.rows import Span
from counterfoil.explaining.view import sections
from counterfoil.ingest.partitions import Partition
from support.builders import a_click_event, a_conversion_event, a_refund_event, an_order, records_of
from support.postgres_road import CLUSTER, plain_settings, scribes

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


@pytest.fixture
async def shop(db):
    """10 percent since ever, the affiliate h of the pixel p1, his partner px, and today is the day after."""
    await db.execute("SELECT set_config('counterfoil.today', '2026-03-02', false)")
    await db.execute("INSERT INTO default_rates (percent, valid_from) VALUES (10, '-infinity')")
    await db.execute("INSERT INTO affiliates (handle, name, pixel_id) VALUES ('h', 'H', 'p1')")
    await db.execute("UPDATE affiliate_status_changes SET valid_from = '2020-01-01Z'")
    await db.execute("INSERT INTO partners (id) VALUES ('px')")
    await db.execute(
        "INSERT INTO links (id, url, named_partner_id, pixel_id, occurred_at) "
        "VALUES ('l', 'u', 'px', 'p1', '2020-01-01Z')"
    )
    return db


async def a_sale(db, order="1", revenue="49.90", *, commission=None, currency="USD", at=NOON):
    await db.execute(
        """INSERT INTO conversions (order_id, beneficiary, pixel_id, revenue, commission, currency, occurred_at)
           VALUES ($1, 'pixel:p1', 'p1', $2, $3, $4, $5)""",
        order,
        Decimal(revenue),
        None if commission is None else Decimal(commission),
        currency,
        at,
    )


async def a_refund(db, amount, *, order="1", refund="r", at=NOON + HOUR):
    await db.execute(
        "INSERT INTO order_refunds (order_id, refund_id, amount, occurred_at) VALUES ($1, $2, $3, $4)",
        order,
        refund,
        Decimal(amount),
        at,
    )


async def explained(db, kind, key, **span):
    return await explain(db, kind, key, Rules.of(plain_settings()), Span(**span))


def computed(report):
    return [(row["number"], row["formula"], row["comes_to"]) for row in report["arithmetic"]]


def text_of(report):
    return "\n".join(
        section.title + "".join("\n" + " | ".join(map(str, row.values())) for row in section.rows or ())
        for section in sections(report)
    )


# Formulas


@pytest.mark.parametrize(
    ("facts", "formula"),
    [
        ({}, "10 % × 49.90 = 4.99"),
        ({"refund": "10"}, "10 % × (49.90 − 10.00) = 3.99"),
        ({"refund": "10.05"}, "10 % × (49.90 − 10.05) = 3.985, half to even = 3.98"),
        ({"refund": "99"}, "10 % × (49.90 − 49.90) = 0.00"),
        ({"commission": "7"}, "7.00 as the conversion says = 7.00"),
        ({"commission": "7", "refund": "24.95"}, "7.00 × (49.90 − 24.95) ÷ 49.90 = 3.50"),
        ({"commission": "7", "refund": "10"}, "7.00 × (49.90 − 10.00) ÷ 49.90, half to even = 5.60"),
        ({"canceled": True}, "canceled: 0.00"),
        ({"paused": True}, "the affiliate was paused: 0.00"),
    ],
)
async def test_the_target_of_an_order_is_a_formula(shop, facts, formula):
    if "paused" in facts:
        await shop.execute("UPDATE affiliate_status_changes SET status = 'paused'")
    await a_sale(shop, commission=facts.get("commission"))
    if "refund" in facts:
        await a_refund(shop, facts["refund"])
    if "canceled" in facts:
        await shop.execute("INSERT INTO order_cancellations (order_id) VALUES ('1')")
    report = await explained(shop, "order", "1")
    for row in report["arithmetic"][::2]:
        assert row["formula"] == formula
    assert formula in text_of(report) or facts == {"paused": True}


async def test_what_is_posted_is_the_sum_of_its_rows_and_is_told_where_it_is_not(shop):
    await a_sale(shop)
    await a_refund(shop, "10")
    report = await explained(shop, "order", "1")
    assert computed(report)[1] == ("posted to pixel:p1 in USD", "4.99 − 1.00", "3.99")
    assert report["agrees"]
    await shop.execute("UPDATE commissions SET earnings = 5 WHERE kind = 'sale'")
    found = await explained(shop, "order", "1")
    formula = "5.00 − 1.00 = 4.00, and the target: 3.99"
    assert computed(found)[1] == ("posted to pixel:p1 in USD", formula, "3.99")
    assert (found["arithmetic"][1]["stored"], found["arithmetic"][1]["agrees"], found["agrees"]) == (
        "4.00",
        False,
        False,
    )
    assert f"{formula} | ≠ 4.00" in text_of(found)


async def test_earnings_that_are_right_of_a_wrong_amount_say_what_differs(shop):
    await a_sale(shop)
    await shop.execute("UPDATE commissions SET amount = 50")
    found = await explained(shop, "order", "1")
    assert not found["agrees"]
    assert "4.99 USD | 4.99 USD | differs: posted of 50.00 USD, not of 49.90 USD" in text_of(found)


def test_sums_are_written_out_as_long_as_they_can_be_read():
    assert sum_of(["4.99", "-1.00", "-3.99"]) == "4.99 − 1.00 − 3.99"
    assert sum_of(["-1"]) == "−1"
    assert sum_of([]) == "0"
    assert sum_of(["1"] * (MOST_TERMS + 1)) == f"the sum of {MOST_TERMS + 1} rows"
    assert terms((12, "usages"), (-2, "reversed"), (5, "adjusted")) == "12 usages − 2 reversed + 5 adjusted"
    assert rate_formula("33.3333", "1.00", "0.33") == "33.3333 % × 1.00 = 0.333333, half to even = 0.33"


async def test_the_numbers_of_a_coupon_and_a_promo_code_are_rows_and_adjustments(shop):
    await shop.execute(
        "INSERT INTO affiliate_coupon_usages (order_id, code) VALUES ('1', 'A'), ('2', 'A'), ('3', 'A')"
    )
    await shop.execute("INSERT INTO order_cancellations (order_id) VALUES ('3')")
    await shop.execute("INSERT INTO affiliate_coupon_adjustments (code, delta) VALUES ('A', 5), ('A', -1)")
    coupon = await explained(shop, "coupon", "A")
    assert computed(coupon) == [
        ("times_used", "3 usages − 1 reversed + 4 by 2 adjustments", 6),
        ("usage_count", "3 usages − 1 reversed", 2),
    ]
    await shop.execute("UPDATE affiliate_coupons SET times_used = 7")
    coupon = await explained(shop, "coupon", "A")
    assert (coupon["arithmetic"][0]["stored"], coupon["arithmetic"][0]["agrees"]) == (7, False)
    assert "3 usages − 1 reversed + 4 by 2 adjustments = 6 | ≠ 7" in text_of(coupon)


async def test_closed_clicks_are_a_part_of_their_own(db):
    await db.execute("SELECT set_config('counterfoil.today', '2026-03-02', false)")
    for number, day in enumerate(("2026-02-10", "2026-02-11", "2026-03-01")):
        await db.execute(
            "INSERT INTO aff_clicks (click_id, pixel_id, occurred_at, visitor) "
            "VALUES ($1, 'p1', $2::text::timestamptz, 1)",
            str(number),
            f"{day}Z",
        )
    await db.fetch("SELECT close_click_partitions('2026-03-01')")
    report = await explained(db, "affiliate", "p1")
    assert computed(report)[0] == ("clicks", "1 in the ledger + 2 closed", 3)
    assert report["agrees"]


async def test_what_a_partner_has_earned_is_a_sum_by_status_and_each_payout_one_of_rows(shop):
    await a_sale(shop, "1")
    await a_sale(shop, "2", "100")
    await shop.fetchval("SELECT approve_commissions(0)")
    payout = await shop.fetchval("SELECT pay_commissions('px', 'USD', 'r', 'me')")
    await a_refund(shop, "10")
    await a_sale(shop, "3", "5")
    report = await explained(shop, "partner", "px")
    assert computed(report) == [
        (
            "earned in USD",
            "−1.00 approved by 1 row + 14.99 paid by 2 rows + 0.50 pending by 1 row",
            "14.49",
        ),
        (f"payout {payout}", "14.99 of 2 rows, in USD", "14.99"),
    ]


async def test_a_payout_that_is_wrong_is_told_however_short_the_list_of_them_is(shop):
    payouts = []
    for order in ("1", "2"):
        await a_sale(shop, order)
        await shop.fetchval("SELECT approve_commissions(0)")
        payouts.append(await shop.fetchval("SELECT pay_commissions('px', 'USD', 'r', 'me')"))
    assert (await explained(shop, "partner", "px", limit=1))["agrees"]
    await shop.execute("UPDATE payouts SET amount = 9 WHERE id = $1", payouts[0])
    found = await explained(shop, "partner", "px", limit=1)
    wrong = {"counter": f"payout {payouts[0]}", "stored": "9.00", "counted": "4.99"}
    assert ([row["id"] for row in found["payouts"]], found["drift"]) == ([payouts[1]], [wrong])


async def test_a_payout_of_no_row_comes_to_nothing(shop):
    payout = await shop.fetchval(
        "INSERT INTO payouts (partner_id, amount, currency, reference, actor) "
        "VALUES ('px', 5, 'USD', 'r', 'me') RETURNING id"
    )
    found = await explained(shop, "partner", "px")
    assert computed(found) == [(f"payout {payout}", "0.00 of 0 rows, in USD", "0.00")]
    assert not found["agrees"]


@pytest.mark.parametrize(
    ("counter", "currency"),
    [("clicks", ""), ("conversions", "USD"), ("revenue", "USD"), ("commission", "USD")],
)
async def test_days_that_are_wrong_by_the_same_amount_are_told_though_their_sum_is_right(
    shop, counter, currency
):
    for order, at in (("1", NOON - 24 * HOUR), ("2", NOON)):
        await a_sale(shop, order, at=at)
        await shop.execute(
            "INSERT INTO aff_clicks (click_id, pixel_id, occurred_at) VALUES ($1, 'p1', $2)", order, at
        )
    span = {"days": 36_500, "limit": 10}
    assert (await explained(shop, "affiliate", "h", **span))["drift"] == []
    for day, by in (("2026-02-28", 1), ("2026-03-01", -1)):
        await shop.execute(
            f"UPDATE affiliate_daily SET {counter} = {counter} + {by} WHERE day = '{day}' AND currency = '{currency}'"
        )
    found = await explained(shop, "affiliate", "h", **span)
    name = f"{counter} in {currency}" if currency else counter
    assert [row["counter"] for row in found["drift"]] == [f"{name} on 2026-03-01", f"{name} on 2026-02-28"]
    assert not found["agrees"]


async def test_orders_that_are_posted_wrong_by_the_same_amount_are_told_though_their_sum_is_right(shop):
    await a_sale(shop, "1")
    await a_sale(shop, "2")
    assert (await explained(shop, "affiliate", "h"))["agrees"]
    for order, by in (("1", 1), ("2", -1)):
        await shop.execute(
            "UPDATE commissions SET earnings = earnings + $2 WHERE order_id = $1", order, Decimal(by)
        )
    found = await explained(shop, "affiliate", "h")
    assert found["drift"] == [
        {"counter": "posted for order 1", "stored": "5.990000", "counted": "4.990000"},
        {"counter": "posted for order 2", "stored": "3.990000", "counted": "4.990000"},
    ]
    assert not found["agrees"]


# A commission


async def test_a_commission_tells_its_cause_its_rate_and_the_sum_that_it_is_part_of(shop):
    await a_sale(shop)
    await a_refund(shop, "10")
    sale, reversal = [r["id"] for r in await shop.fetch("SELECT id FROM commissions ORDER BY id")]
    found = await explained(shop, "commission", str(sale))
    assert (found["commission"]["cause"], found["commission"]["why"]) == (
        "conversion#1",
        "the order's conversion",
    )
    assert computed(found)[:2] == [
        ("earnings of this row", "10 % × 49.90 = 4.99", "4.99"),
        ("posted with this row", "0.00 + 4.99, before it and by it", "4.99"),
    ]
    found = await explained(shop, "commission", str(reversal))
    assert found["commission"]["why"] == "a refund took back its share"
    assert computed(found)[:3] == [
        ("earnings of this row", "10 % × −10.00 = −1.00", "-1.00"),
        ("posted with this row", "4.99 − 1.00, before it and by it", "3.99"),
        ("target of pixel:p1 in USD", "10 % × (49.90 − 10.00) = 3.99", "3.99"),
    ]
    assert found["order"]["conversions"][0]["revenue"] == "49.90"
    shown = text_of(found)
    assert "refunded#2" in shown
    assert "since ever" in shown or "default_rates" in shown


@pytest.mark.parametrize("key", ["0", "-1", "1.5", "99999999999999999999", "x", "1; DROP TABLE commissions"])
async def test_a_commission_that_there_is_not_is_none(shop, key):
    assert await explained(shop, "commission", key) is None


async def test_an_imported_commission_says_so(shop):
    commission = await shop.fetchval(
        """INSERT INTO commissions (order_id, partner_id, amount, earnings, currency, occurred_at)
           VALUES ('9', 'px', 100, 7, 'EUR', $1) RETURNING id""",
        NOON,
    )
    await a_refund(shop, "50", order="9")
    found = await explained(shop, "commission", str(commission))
    assert (found["commission"]["origin"], found["commission"]["why"]) == (
        "manual",
        "written by hand or imported",
    )
    assert (
        "target of partner:px in EUR",
        "imported rows, less what was refunded of them",
        "3.50",
    ) in computed(found)
    assert found["agrees"]


# Cells that lead on


async def test_what_a_row_names_leads_to_its_own_explanation(shop):
    await a_sale(shop)
    report = await explained(shop, "partner", "px")
    cells = [cell for section in sections(report) for row in section.rows or () for cell in row.values()]
    leads = {(cell.kind, cell.key) for cell in cells if isinstance(cell, Known)}
    commission = await shop.fetchval("SELECT id FROM commissions")
    assert leads == {("affiliate", "p1"), ("order", "1"), ("commission", str(commission))}


# What was refused


async def test_a_promo_use_that_does_not_stand_is_shown_with_its_record(shop):
    promo = await shop.fetchval("INSERT INTO promo_codes (code) VALUES ('P') RETURNING id")
    await shop.execute(
        "INSERT INTO promo_code_uses (promo_code_id, order_id, bonus_amount) VALUES ($1, '1', 2)", promo
    )
    source = await shop.fetchval(
        "INSERT INTO stream_sources (cluster_id, topic, \"partition\") VALUES ($1, 'order.placed', 3) RETURNING id",
        CLUSTER,
    )
    content = {"code": "P", "occurred_at": "2026-03-01T12:00:00+00:00", "bonus_amount": 9, "shop_id": None}
    await shop.execute(
        "INSERT INTO refused_facts VALUES ('1', 'order.placed', $1, $2, 41)", json.dumps(content), source
    )
    for kind, key, of_what in (("promo", "P", "1"), ("order", "1", "P")):
        report = await explained(shop, kind, key)
        [refused] = report["refused_facts"]
        assert (refused["of_what"], refused["content"]["bonus_amount"]) == (of_what, 9)
        assert (refused["source"]["partition"], refused["source"]["offset"]) == (3, 41)
        assert report["totals"]["refused_facts"] == 1
        assert "refused: the earlier content stands, then the smaller | order.placed/3@41" in text_of(report)
    for at, refused in ((NOON - HOUR, 0), (NOON, 1)):
        assert len((await explained(shop, "promo", "P", at=at))["refused_facts"]) == refused


async def test_rows_name_the_record_that_they_came_from_or_that_they_are_by_hand(shop, database_url):
    async with scribes(database_url) as (worker,):
        await worker.write(records_of(an_order("1", codes=["A"])))
    await shop.execute("INSERT INTO affiliate_coupon_usages (order_id, code) VALUES ('2', 'A')")
    shown = text_of(await explained(shop, "coupon", "A"))
    assert "order.placed/0@0" in shown
    assert "by hand" in shown


# As of a time


async def test_a_coupon_as_of_a_time_shows_the_rows_of_then_as_they_stood(shop):
    await shop.execute(
        "INSERT INTO affiliate_coupon_usages (order_id, code, occurred_at) VALUES ('1', 'A', $1), ('2', 'A', $2)",
        NOON,
        NOON + 2 * HOUR,
    )
    await shop.execute(
        "INSERT INTO order_cancellations (order_id, canceled_at) VALUES ('1', $1)", NOON + HOUR
    )
    at_noon = await explained(shop, "coupon", "A", at=NOON)
    assert computed(at_noon)[0] == ("times_used", "1 usages + 0 by 0 adjustments", 1)
    assert [(u["order_id"], u["reversed_at"]) for u in at_noon["usages"]] == [("1", None)]
    assert (at_noon["at"], at_noon["stored"], at_noon["agrees"]) == (NOON, None, True)
    later = await explained(shop, "coupon", "A", at=NOON + HOUR)
    assert (computed(later)[0][2], later["usages"][0]["reversed_at"]) == (0, NOON + HOUR)
    assert "As of 2026-03-01 12:00:00: of the facts up to then alone." in text_of(at_noon)


async def test_a_promo_code_as_of_a_time(shop):
    promo = await shop.fetchval("INSERT INTO promo_codes (code) VALUES ('P') RETURNING id")
    for order, at in (("1", NOON), ("2", NOON + HOUR)):
        await shop.execute(
            "INSERT INTO promo_code_uses (promo_code_id, order_id, bonus_amount, occurred_at) VALUES ($1, $2, 2, $3)",
            promo,
            order,
            at,
        )
    await shop.execute(
        "INSERT INTO promo_code_adjustments (promo_code_id, delta, bonus_delta, created_at) VALUES ($1, 3, 1, $2)",
        promo,
        NOON + HOUR,
    )
    assert [row[2] for row in computed(await explained(shop, "promo", "P", at=NOON))] == [1, 1, "2", "2"]
    assert [row[2] for row in computed(await explained(shop, "promo", "P", at=NOON + HOUR))] == [
        5,
        2,
        "5",
        "4",
    ]


async def test_an_affiliate_as_of_a_time_shows_the_days_up_to_then(shop, database_url):
    async with scribes(database_url) as (worker,):
        for first, click_id in enumerate(("c1", "c2")):
            click = a_click_event(click_id=click_id, pixel_id="p1", timestamp=NOON + first * HOUR)
            await worker.write(records_of(click, partition=Partition("click", 0), first=first))
        sale = a_conversion_event("1", pixel_id="p1", revenue=Decimal(100), timestamp=NOON)
        await worker.write(records_of(sale, partition=Partition("conversion", 0)))
        refund = a_refund_event("1", amount=Decimal(40), timestamp=NOON + HOUR)
        await worker.write(records_of(refund, partition=Partition("order.refunded", 0)))
    noon = await explained(shop, "affiliate", "h", at=NOON)
    assert {name: comes_to for name, _, comes_to in computed(noon)} == {
        "clicks": 1,
        "unique_clicks": 1,
        "bot_clicks": 0,
        "conversions in USD": 1,
        "revenue in USD": "100.00",
        "commission in USD": "10.00",
    }
    assert (noon["totals"]["clicks"], len(noon["clicks"]), noon["clicks"][0]["click_id"]) == (1, 1, "c1")
    later = await explained(shop, "affiliate", "h", at=NOON + HOUR)
    assert [row[2] for row in computed(later)] == [2, 1, 0, 1, "100.00", "6.00"]
    assert later["attributions"][0]["refunded"] == "40.00"
    assert text_of(later)


async def test_a_partner_as_of_a_time_shows_what_was_open_then(shop):
    await a_sale(shop, "1")
    await a_sale(shop, "2", "100", at=NOON + HOUR)
    await a_refund(shop, "10", at=NOON + 2 * HOUR)
    await shop.fetchval("SELECT approve_commissions(0)")
    await shop.fetchval("SELECT pay_commissions('px', 'USD', 'r', 'me')")
    await shop.execute("UPDATE payouts SET created_at = $1", NOON + 3 * HOUR)
    seen = [computed(await explained(shop, "partner", "px", at=NOON + n * HOUR)) for n in range(4)]
    assert seen == [
        [("open in USD", "4.99 earned − 0.00 paid", "4.99")],
        [("open in USD", "14.99 earned − 0.00 paid", "14.99")],
        [("open in USD", "13.99 earned − 0.00 paid", "13.99")],
        [("open in USD", "13.99 earned − 13.99 paid", "0.00")],
    ]
    report = await explained(shop, "partner", "px", at=NOON + 2 * HOUR)
    assert [(c["order_id"], c["earnings"]) for c in report["commissions"]] == [("2", "10.00"), ("1", "3.99")]
    assert (report["totals"]["commissions"], report["totals"]["payouts"]) == (2, 0)
    assert text_of(report)


async def test_a_connection_reads_times_as_before_when_it_has_explained(shop):
    await explained(shop, "coupon", "A")
    assert isinstance(await shop.fetchval("SELECT 'infinity'::timestamptz"), datetime)
    assert await shop.fetchval("SELECT $1::timestamptz", NOON) == NOON
    assert {"coupon", "promo", "affiliate", "partner"} == AT_KINDS


async def test_the_arithmetic_adds_up_while_orders_come_and_go(shop, database_url):
    """Each report is of one snapshot: on live traffic no sum is of two moments."""
    stop = asyncio.Event()

    async def shoppers(number):
        connection = await asyncpg.connect(database_url)
        try:
            for n in range(1_000):
                order = f"{number}-{n}"
                await connection.execute(
                    "INSERT INTO affiliate_coupon_usages (order_id, code) VALUES ($1, 'A')", order
                )
                await a_sale(connection, order)
                if n % 2:
                    await connection.execute("INSERT INTO order_cancellations (order_id) VALUES ($1)", order)
                if stop.is_set():
                    return
        finally:
            await connection.close()

    traffic = [asyncio.create_task(shoppers(number)) for number in range(2)]
    seen = set()
    for _ in range(25):
        for kind, key in (("coupon", "A"), ("affiliate", "h"), ("partner", "px")):
            report = await explained(shop, kind, key)
            assert report is None or report["agrees"], report["drift"]
            if kind == "coupon" and report:
                seen.add(report["stored"]["times_used"])
                assert (
                    report["counted"]["usages"] + report["totals"]["reversed"] == report["totals"]["usages"]
                )
    stop.set()
    await asyncio.gather(*traffic)
    assert len(seen) > 5
