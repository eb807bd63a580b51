"""`counterfoil explain`: every row behind a number, why it stands or does not, and whether the number is their sum."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from counterfoil import cli, explaining
from counterfoil.database.queries import sql
from counterfoil.events import Rules
from counterfoil.explaining.rows import Span
from counterfoil.explaining.view import AGREES, DISAGREES, VIEWS
from counterfoil.ingest.partitions import Partition
from counterfoil.settings import PREFIX
from support.builders import (
    a_cancellation,
    a_click_event,
    a_conversion_event,
    a_link_event,
    a_promotion,
    a_refund_event,
    a_user_event,
    an_order,
    later,
    records_of,
)
from support.postgres_road import CLUSTER, plain_settings, scribes

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
TODAY = "2026-03-03"
NOBODY_LISTENS = "postgres://shop:s3cret@127.0.0.1:1/shop"


@pytest.fixture
def run(monkeypatch, tmp_path, database_url):
    """Run `counterfoil explain …` on this test's database: exit code, standard output, standard error."""
    for name in os.environ:
        if name.upper().startswith(PREFIX) or name.upper().endswith("DATABASE_URL"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(f"{PREFIX}DATABASE_URL", database_url)
    monkeypatch.setenv("COLUMNS", "300")  # a table of a test does not fold

    async def run(*arguments, **settings):
        for name, value in settings.items():
            monkeypatch.setenv(f"{PREFIX}{name.upper()}", value)
        result = await asyncio.to_thread(CliRunner().invoke, cli.app, ["explain", *arguments])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result.exit_code, result.stdout, result.stderr

    return run


@pytest.fixture
def report(run):
    """The report that `counterfoil explain … --json` prints."""

    async def report(*arguments, **settings):
        code, output, errors = await run(*arguments, "--json", **settings)
        assert (code, errors) == (0, "")
        return json.loads(output)

    return report


@pytest.fixture
async def shop(db):
    """10 percent since ever, the affiliate h of the pixel p1 since 2020, and today is two days after it all."""
    database = await db.fetchval("SELECT current_database()")
    await db.execute(f"ALTER DATABASE {database} SET counterfoil.today = '{TODAY}'")
    await db.execute(
        "INSERT INTO default_rates (percent, valid_from, actor) VALUES (10, '-infinity', 'settings')"
    )
    await an_affiliate(db, "h", "p1")
    return db


async def an_affiliate(db, handle, pixel, since="2020-01-01Z"):
    await db.execute(
        "INSERT INTO affiliates (handle, name, pixel_id) VALUES ($1, upper($1), $2)", handle, pixel
    )
    await db.execute(
        f"UPDATE affiliate_status_changes SET valid_from = '{since}', actor = 'me' WHERE pixel_id = $1", pixel
    )


async def a_claim(
    db, order="1", revenue="100", *, pixel="p1", link=None, at=AT, commission=None, currency="USD"
):
    await db.execute(
        """INSERT INTO conversions (order_id, beneficiary, pixel_id, link_id, revenue, commission, currency,
                                    occurred_at)
           VALUES ($1, $2, $3, $4, $5, $6, $7, $8)""",
        order,
        f"pixel:{pixel}" if pixel else f"link:{link}",
        pixel,
        link,
        Decimal(revenue),
        None if commission is None else Decimal(commission),
        currency,
        at,
    )


async def a_refund(db, amount, refund="r1", order="1", currency=None):
    await db.execute(
        "INSERT INTO order_refunds (order_id, refund_id, amount, currency, occurred_at) VALUES ($1, $2, $3, $4, $5)",
        order,
        refund,
        Decimal(amount),
        currency,
        AT + timedelta(days=1),
    )


async def a_link(db, link="l1", *, user=None, partner=None, pixel="p1", program="a_1", at=AT):
    await db.execute(
        """INSERT INTO links (id, url, user_id, named_partner_id, pixel_id, program_id, occurred_at)
           VALUES ($1, 'https://a.com', $2, $3, $4, $5, $6)""",
        link,
        user,
        partner,
        pixel,
        program,
        at,
    )


async def paid(db, partner="px", currency="USD"):
    await db.fetchval("SELECT approve_commissions(0)")
    return await db.fetchval("SELECT pay_commissions($1, $2, 'transfer 7', 'me')", partner, currency)


# An order: who claims it


async def test_every_claim_is_shown_with_what_speaks_against_it_and_the_one_that_stands_first(shop, report):
    await a_claim(shop, pixel="p2")
    await a_claim(shop, pixel="p1")
    await a_claim(shop, pixel=None, link="l1")
    await a_claim(shop, pixel="p0", at=AT + timedelta(microseconds=1))
    found = await report("order", "1")
    assert [(c["beneficiary"], c["stands"], c["refused_as"]) for c in found["conversions"]] == [
        ("pixel:p1", True, None),
        ("pixel:p2", False, "larger_pixel"),
        ("link:l1", False, "link_against_pixel"),
        ("pixel:p0", False, "later"),
    ]
    assert found["attribution"]["beneficiary"] == "pixel:p1"
    assert found["conversions"][0]["handle"] == "h"


async def test_of_two_links_at_the_same_time_the_larger_is_refused(shop, report):
    await a_claim(shop, pixel=None, link="l2")
    await a_claim(shop, pixel=None, link="l1")
    found = await report("order", "1")
    assert [(c["link_id"], c["refused_as"]) for c in found["conversions"]] == [
        ("l1", None),
        ("l2", "larger_link"),
    ]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sets(
        st.tuples(st.sampled_from([None, "a", "B", "é"]), st.sampled_from([None, "l", "M"])).filter(any),
        min_size=1,
        max_size=6,
    ),
    st.lists(st.integers(0, 2), min_size=6, max_size=6),
)
async def test_the_claim_that_is_said_to_stand_is_the_one_that_is_attributed(shared_db, claims, seconds):
    by_beneficiary = {f"pixel:{pixel}" if pixel else f"link:{link}": (pixel, link) for pixel, link in claims}
    async with shared_db.transaction():
        for (pixel, link), second in zip(by_beneficiary.values(), seconds, strict=False):
            await a_claim(shared_db, pixel=pixel, link=link, at=AT + timedelta(seconds=second))
        found = await shared_db.fetch(sql("explain_claims"), "1")
        target = await shared_db.fetchval("SELECT beneficiary FROM order_targets(ARRAY['1'])")
        await shared_db.execute("DELETE FROM conversions")
    assert [c["beneficiary"] for c in found if c["stands"]] == [target]
    assert all((c["refused_as"] is None) == c["stands"] for c in found)


# An order: what takes it back, what is posted


async def test_refunds_say_which_of_them_count(shop, report):
    await a_claim(shop)
    await a_refund(shop, "30")
    await a_refund(shop, "5", "r2", currency="EUR")
    await a_refund(shop, "500", "r3", currency="USD")
    found = await report("order", "1")
    assert [(r["refund_id"], r["amount"], r["counts"], r["refused_as"]) for r in found["refunds"]] == [
        ("r1", "30.00", True, None),
        ("r2", "5.00", False, "other_currency"),
        ("r3", "500.00", True, None),
    ]
    assert (found["attribution"]["refunded"], found["attribution"]["refunds_are_capped"]) == ("100.00", True)


async def test_a_refund_of_an_order_that_nobody_sold_yet_counts_later(shop, report):
    await a_refund(shop, "30")
    found = await report("order", "1")
    assert (found["attribution"], found["refunds"][0]["refused_as"]) == (None, "no_sale")


async def test_every_posted_row_is_shown_with_its_running_sum_and_payout(shop, report):
    await a_link(shop, partner="px")
    await a_claim(shop)
    payout = await paid(shop)
    await a_refund(shop, "30")
    await shop.execute("INSERT INTO order_cancellations (order_id, canceled_at) VALUES ('1', $1)", AT)
    found = await report("order", "1")
    assert [
        (c["kind"], c["cause"], c["earnings"], c["running_sum"], c["status"], c["payout_id"])
        for c in found["commissions"]
    ] == [
        ("sale", "conversion#1", "10.00", "10.00", "paid", payout),
        ("reversal", "refunded#2", "-3.00", "7.00", "approved", None),
        ("reversal", "canceled#3", "-7.00", "0.00", "approved", None),
    ]
    assert found["commissions"][0]["payout_reference"] == "transfer 7"
    assert [(b["target_earnings"], b["posted_earnings"]) for b in found["balances"]] == [("0.00", "0.00")]
    assert (found["attribution"]["status"], found["attribution"]["target_amount"]) == ("reversed", "0.00")
    assert found["cancellation"]["canceled_at"] == "2026-03-01T12:00:00+00:00"
    assert found["posted_is_target"]
    assert found["agrees"]


async def test_running_sums_are_those_of_each_beneficiary(shop, report):
    await a_claim(shop)
    await a_claim(shop, pixel="p0", at=AT - timedelta(seconds=1), revenue="80")
    found = await report("order", "1")
    assert [(c["beneficiary"], c["running_sum"]) for c in found["commissions"]] == [
        ("pixel:p1", "10.00"),
        ("pixel:p1", "0.00"),
        ("pixel:p0", "8.00"),
    ]


async def test_a_currency_has_its_own_digits(shop, report):
    await a_claim(shop, revenue="1500", currency="JPY")
    assert (await report("order", "1"))["commissions"][0]["earnings"] == "150"


async def test_a_row_that_was_written_by_hand_is_told_from_its_target(shop, report, run):
    await a_claim(shop)
    await shop.execute("UPDATE commissions SET earnings = 99")
    found = await report("order", "1")
    assert (found["posted_is_target"], found["agrees"]) == (False, False)
    assert [(b["target_earnings"], b["posted_earnings"]) for b in found["balances"]] == [("10.00", "99.00")]
    assert DISAGREES in (await run("order", "1"))[1]


async def test_an_attribution_that_was_overwritten_is_told_from_its_facts(shop, report):
    await a_claim(shop)
    await shop.execute("UPDATE aff_attributions SET revenue = 7, partner_id = 'somebody'")
    assert (await report("order", "1"))["drift"] == [
        {"counter": "partner_id", "stored": "somebody", "counted": None},
        {"counter": "revenue", "stored": "7.000000", "counted": "100.000000"},
    ]


async def test_an_order_that_was_imported_is_explained_by_its_rows(shop, report):
    await shop.execute(
        """INSERT INTO commissions (order_id, partner_id, link_id, amount, earnings, currency, status)
           VALUES ('old', 'px', 'l9', 80, 8, 'USD', 'paid')"""
    )
    await a_refund(shop, "40", order="old")
    found = await report("order", "old")
    assert (found["attribution"], found["refunds"][0]["counts"]) == (None, True)
    assert [(c["origin"], c["running_sum"]) for c in found["commissions"]] == [
        ("manual", "8.00"),
        ("settled", "4.00"),
    ]
    assert found["posted_is_target"]


# An order: why it is attributed as it is


async def test_the_rate_of_the_orders_own_time_is_named_with_its_row(shop, report):
    await a_link(shop, partner="px")
    for percent, since in ((20, "2026-02-01Z"), (30, "2026-04-01Z")):
        await shop.execute(
            f"INSERT INTO program_rates (program_id, percent, valid_from, actor) VALUES ('a_1', $1, '{since}', 'me')",
            Decimal(percent),
        )
    await a_claim(shop)
    await a_claim(shop, "2", at=AT - timedelta(days=90))
    now, before = [(await report("order", order))["attribution"] for order in ("1", "2")]
    assert (now["rate"]["table"], now["rate"]["percent"], now["rate_percent"]) == (
        "program_rates",
        "20",
        "20",
    )
    assert (now["rate"]["valid_from"], now["rate"]["earliest_known"]) == ("2026-02-01T00:00:00+00:00", False)
    assert (before["rate"]["percent"], before["rate"]["earliest_known"]) == ("20", True)


async def test_a_default_rate_since_ever_is_named_as_such(shop, report):
    await a_claim(shop)
    rate = (await report("order", "1"))["attribution"]["rate"]
    assert (rate["table"], rate["percent"], rate["valid_from"], rate["actor"]) == (
        "default_rates",
        "10",
        "-infinity",
        "settings",
    )


async def test_a_conversion_that_names_its_commission_needs_no_rate(shop, report):
    await a_claim(shop, commission="12.5")
    found = (await report("order", "1"))["attribution"]
    assert (found["rate_source"], found["rate"], found["target_earnings"]) == ("conversion", None, "12.50")


async def test_a_paused_affiliate_is_shown_with_the_status_of_the_orders_time(shop, report, run):
    await shop.execute(
        """INSERT INTO affiliate_status_changes (pixel_id, status, valid_from, actor)
           VALUES ('p1', 'paused', '2026-02-28Z', 'Ann'), ('p1', 'active', '2026-03-02Z', 'Bob')"""
    )
    await a_claim(shop)
    found = (await report("order", "1"))["attribution"]
    assert (found["rate_source"], found["target_earnings"]) == ("paused", "0.00")
    assert found["affiliate_status"] == {
        "status": "paused",
        "valid_from": "2026-02-28T00:00:00+00:00",
        "actor": "Ann",
        "earliest_known": False,
    }
    assert "paused since 2026-02-28 00:00:00 by Ann" in (await run("order", "1"))[1]


async def test_a_pixel_of_nobody_is_said(shop, run):
    await a_claim(shop, pixel="p9")
    assert "no affiliate has this pixel yet" in (await run("order", "1"))[1]


@pytest.mark.parametrize(
    ("named", "chosen", "link_from", "refused_as"),
    [
        (None, "l1", "first_of_pixel", None),
        ("l2", "l2", "conversion", None),
        ("other", "l1", "first_of_pixel", "of_another_pixel"),
        ("l9", "l1", "first_of_pixel", "not_known"),
    ],
)
async def test_the_link_is_named_with_how_it_was_found(shop, report, named, chosen, link_from, refused_as):
    await a_link(shop, "l2", at=AT + timedelta(days=1), partner="py")
    await a_link(shop, "l1", partner="px")
    await a_link(shop, "other", pixel="p2")
    await a_claim(shop, link=named)
    found = (await report("order", "1"))["attribution"]
    assert (found["link_id"], found["link_from"], found["named_link_refused_as"]) == (
        chosen,
        link_from,
        refused_as,
    )
    assert found["partner_id"] == found["link"]["partner_id"] == {"l1": "px", "l2": "py"}[chosen]


async def test_the_partner_is_named_with_where_the_link_has_him_from(shop, report):
    await a_link(shop, user="u1")
    await a_claim(shop)
    assert (await report("order", "1"))["attribution"]["link"]["partner_from"] is None
    await shop.execute("INSERT INTO shop_users (id, name) VALUES ('u1', 'Ann')")
    found = (await report("order", "1"))["attribution"]
    assert (found["partner_id"], found["partner_name"], found["link"]["partner_from"]) == (
        "pn_u1",
        "Ann",
        "default_of_user",
    )


# An order: by coupon


@pytest.fixture
async def couponed(shop):
    """An order with three codes, of which two are affiliates'."""
    await an_affiliate(shop, "g", "p2")
    await shop.execute(
        "INSERT INTO affiliate_coupon_owners (code, pixel_id) VALUES ('B', 'p1'), ('A', 'p2'), ('D', 'p1')"
    )
    await shop.execute(
        "INSERT INTO affiliate_coupon_usages (order_id, code) VALUES ('1', 'A'), ('1', 'B'), ('1', 'C'), ('1', 'D')"
    )
    return shop


async def the_total(db):
    await db.execute(
        "INSERT INTO order_totals (order_id, total, currency, occurred_at) VALUES ('1', 50, 'USD', $1)", AT
    )


async def test_of_several_coupons_the_one_that_attributes_the_order_is_named(couponed, report, run):
    await the_total(couponed)
    found = await report("order", "1")
    assert [(u["code"], u["owner"], u["stands"], u["refused_as"]) for u in found["coupon_usages"]] == [
        ("A", "g", False, "larger_pixel"),
        ("B", "h", True, None),
        ("C", None, False, "nobodys_coupon"),
        ("D", "h", False, "larger_code"),
    ]
    attribution = found["attribution"]
    assert (attribution["origin"], attribution["code"], attribution["handle"]) == ("coupon", "B", "h")
    assert (attribution["target_earnings"], found["order_total"]["total"]) == ("5.00", "50.00")
    assert "B, and no conversion" in (await run("order", "1"))[1]


async def test_a_coupon_attributes_nothing_where_no_total_was_kept(couponed, report):
    found = await report("order", "1")
    assert found["attribution"] is None
    assert found["coupon_usages"][1]["refused_as"] == "no_order_total"


async def test_a_coupon_attributes_nothing_beside_a_conversion(couponed, report):
    await the_total(couponed)
    await a_claim(couponed)
    assert (await report("order", "1"))["coupon_usages"][1]["refused_as"] == "conversion_stands"


# Sources


async def test_each_fact_names_the_record_that_it_came_from(shop, database_url, report, run):
    async with scribes(database_url, settings=plain_settings(attribute_by_coupon=True)) as (worker,):
        await worker.write(
            [
                *records_of(a_user_event("u1"), partition=Partition("user.created", 0)),
                *records_of(
                    a_link_event("l1", url="https://a.com", user_id="u1", pixel_id="p1"),
                    partition=Partition("link.created", 0),
                ),
                *records_of(a_conversion_event("1", pixel_id="p1"), partition=Partition("conversion", 2)),
                *records_of(a_refund_event("1"), partition=Partition("order.refunded", 0)),
                *records_of(a_cancellation("1"), partition=Partition("order.canceled", 0)),
                *records_of(
                    an_order("0"),
                    an_order(
                        "1", codes=["A"], promotions=[a_promotion("P")], total=Decimal(10), currency="USD"
                    ),
                    partition=Partition("order.placed", 1),
                ),
                *records_of(
                    a_click_event("p1", link_id="l1", timestamp=later(-60)), partition=Partition("click", 0)
                ),
            ]
        )
    found = await report("order", "1")
    places = {
        "conversion": found["conversions"][0],
        "order.refunded": found["refunds"][0],
        "order.canceled": found["cancellation"],
        "link.created": found["attribution"]["link"],
    }
    for topic, row in places.items():
        partition = 2 if topic == "conversion" else 0
        assert row["source"] == {
            "cluster_id": CLUSTER,
            "topic": topic,
            "partition": partition,
            "offset": 0,
        }
    placed = {"cluster_id": CLUSTER, "topic": "order.placed", "partition": 1, "offset": 1}
    of_placed = (found["coupon_usages"][0], found["promo_uses"][0], found["order_total"])
    assert [row["source"] for row in of_placed] == [placed] * 3
    assert (await report("coupon", "A"))["usages"][0]["source"] == placed
    assert (await report("promo", "P"))["uses"][0]["source"] == placed
    assert (await report("affiliate", "h"))["clicks"][0]["source"]["topic"] == "click"
    assert (await report("affiliate", "h"))["links"][0]["source"]["topic"] == "link.created"
    assert (await report("partner", "pn_u1"))["links"][0]["source"]["topic"] == "link.created"
    shown = (await run("order", "1"))[1]
    assert "conversion/2@0" in shown
    assert f"sources are records of the cluster {CLUSTER}" in shown


async def test_records_of_two_clusters_are_told_apart(shop, run):
    for cluster, code in (("one", "A"), ("two", "B")):
        source = await shop.fetchval(
            """INSERT INTO stream_sources (cluster_id, topic, "partition")
               VALUES ($1, 'order.placed', 0) RETURNING id""",
            cluster,
        )
        await shop.execute(
            "INSERT INTO affiliate_coupon_usages (order_id, code, source_id, source_offset) VALUES ('1', $1, $2, 5)",
            code,
            source,
        )
    shown = (await run("order", "1"))[1]
    assert "one/order.placed/0@5" in shown
    assert "two/order.placed/0@5" in shown


async def test_a_row_by_hand_has_no_source(shop, report, run):
    await a_claim(shop)
    assert (await report("order", "1"))["conversions"][0]["source"] is None
    assert "by hand" in (await run("order", "1"))[1]


# Coupons and promo codes


async def test_a_coupon_is_explained_by_usages_adjustments_and_owner(shop, report):
    await shop.execute(
        """INSERT INTO affiliate_coupon_usages (order_id, code, occurred_at)
           SELECT n::text, 'A', '2026-03-01Z'::timestamptz + n * interval '1 minute' FROM generate_series(1, 60) AS n"""
    )
    await shop.execute("INSERT INTO order_cancellations (order_id, canceled_at) VALUES ('60', '2026-03-02Z')")
    await shop.execute(
        "INSERT INTO affiliate_coupon_adjustments (code, delta, reason, actor) VALUES ('A', 7, 'opening balance', 'me')"
    )
    await shop.execute("INSERT INTO affiliate_coupon_owners (code, pixel_id) VALUES ('A', 'p1')")
    found = await report("coupon", "A")
    assert (found["stored"]["times_used"], found["stored"]["usage_count"]) == (66, 59)
    assert found["counted"] == {"usages": 59, "adjusted_by": 7}
    assert found["totals"] == {"usages": 60, "reversed": 1, "adjustments": 1}
    assert (found["owner"]["handle"], found["owner"]["pixel_id"]) == ("h", "p1")
    assert (len(found["usages"]), found["usages"][0]["order_id"]) == (50, "60")
    assert found["usages"][0]["reversed_at"] == "2026-03-02T00:00:00+00:00"
    assert found["usages"][1]["reversed_at"] is None
    assert (found["adjustments"][0]["delta"], found["adjustments"][0]["reason"]) == (7, "opening balance")
    assert (found["drift"], found["agrees"]) == ([], True)


async def test_a_list_that_is_cut_says_how_long_it_is(shop, run, report):
    await shop.execute(
        "INSERT INTO affiliate_coupon_usages (order_id, code) SELECT n::text, 'A' FROM generate_series(1, 1200) AS n"
    )
    assert "Usages (3 of 1,200, newest first)" in (await run("coupon", "A", "--limit", "3"))[1]
    assert "Usages (1,200, newest first)" in (await run("coupon", "A", "--limit", "2000"))[1]
    assert len((await report("coupon", "A", "--limit", "3"))["usages"]) == 3


async def test_a_coupon_that_was_overwritten_shows_its_drift(shop, report, run):
    await shop.execute("INSERT INTO affiliate_coupon_usages (order_id, code) VALUES ('1', 'A')")
    await shop.execute("UPDATE affiliate_coupons SET times_used = 5")
    drift = [{"counter": "times_used", "stored": 5, "counted": 1}]
    assert (await report("coupon", "A"))["drift"] == drift
    assert DISAGREES in (await run("coupon", "A"))[1]
    await shop.execute("DELETE FROM affiliate_coupons")
    assert [d["stored"] for d in (await report("coupon", "A"))["drift"]] == [None, None]


async def test_a_coupon_that_was_never_used_is_known_by_its_owner(shop, report):
    await shop.execute("INSERT INTO affiliate_coupon_owners (code, pixel_id) VALUES ('A', 'p9')")
    found = await report("coupon", "A")
    assert (found["owner"]["handle"], found["stored"]["times_used"], found["agrees"]) == (None, None, True)


async def test_a_promo_code_is_explained_by_uses_and_adjustments(shop, report, run):
    code_id = await shop.fetchval("INSERT INTO promo_codes (code) VALUES ('P') RETURNING id")
    await shop.execute(
        """INSERT INTO promo_code_uses (promo_code_id, order_id, base_reward, bonus_amount, total_reward, occurred_at)
           VALUES ($1, '1', 10, 2.5, 12.5, '2026-03-01Z'), ($1, '2', 10, 1, 11, '2026-03-02Z'),
                  ($1, NULL, 0, 4, 4, '2026-03-03Z')""",
        code_id,
    )
    await shop.execute("INSERT INTO order_cancellations (order_id, canceled_at) VALUES ('2', '2026-03-02Z')")
    await shop.execute(
        "INSERT INTO promo_code_adjustments (promo_code_id, delta, bonus_delta) VALUES ($1, 3, 0.25)", code_id
    )
    found = await report("promo", "P")
    assert {
        name: found["stored"][name] for name in ("times_used", "use_count", "total_bonus_issued", "use_bonus")
    } == {
        "times_used": 5,
        "use_count": 2,
        "total_bonus_issued": "6.75",
        "use_bonus": "6.5",
    }
    assert found["counted"] == {"uses": 2, "adjusted_by": 3, "bonus": "6.5", "bonus_adjusted_by": "0.25"}
    assert [(u["order_id"], u["bonus_amount"], u["reversed_at"] is None) for u in found["uses"]] == [
        (None, "4", True),
        ("2", "1", False),
        ("1", "2.5", True),
    ]
    assert found["agrees"]
    assert AGREES["promo"] in (await run("promo", "P"))[1]
    await shop.execute("UPDATE promo_codes SET use_bonus = 99")
    assert (await report("promo", "P"))["drift"] == [
        {"counter": "use_bonus", "stored": "99", "counted": "6.5"}
    ]


# Affiliates


async def a_click(db, click, *, pixel="p1", at=AT, visitor=1, is_bot=False):
    await db.execute(
        "INSERT INTO aff_clicks (click_id, pixel_id, occurred_at, visitor, is_bot) VALUES ($1, $2, $3, $4, $5)",
        click,
        pixel,
        at,
        visitor,
        is_bot,
    )


@pytest.fixture
async def busy(shop):
    """An affiliate with clicks, two sales, a canceled one, and what is older than 30 days."""
    await a_click(shop, "c1")
    await a_click(shop, "c2", at=AT + timedelta(seconds=1))
    await a_click(shop, "c3", visitor=2, is_bot=True)
    await a_click(shop, "c4", at=AT - timedelta(days=40))
    await a_click(shop, "other", pixel="p2")
    await a_claim(shop)
    await a_claim(shop, "2", "60", currency="EUR")
    await a_claim(shop, "3", "20")
    await a_claim(shop, "4", at=AT - timedelta(days=40))
    await a_claim(shop, "5", pixel="p2")
    await a_refund(shop, "30")
    await shop.execute("INSERT INTO order_cancellations (order_id) VALUES ('3')")
    return shop


async def test_an_affiliate_is_explained_by_his_days_clicks_and_orders(busy, report):
    found = await report("affiliate", "h")
    assert (found["affiliate"]["handle"], found["pixel_id"], found["days"]) == ("h", "p1", 30)
    assert [(s["status"], s["actor"]) for s in found["status_history"]] == [("active", "me")]
    assert found["click_sums"] == {
        "clicks": 2,
        "unique_clicks": 1,
        "bot_clicks": 1,
        "counted_clicks": 2,
        "counted_unique_clicks": 1,
        "counted_bot_clicks": 1,
        "closed_clicks": 0,
        "closed_unique_clicks": 0,
        "closed_bot_clicks": 0,
    }
    assert [c["click_id"] for c in found["clicks"]] == ["c2", "c1", "c3"]
    assert [(d["day"], d["currency"], d["clicks"], d["revenue"]) for d in found["daily"]] == [
        ("2026-03-01", "", 2, "0"),
        ("2026-03-01", "EUR", 0, "60.00"),
        ("2026-03-01", "USD", 0, "100.00"),
    ]
    assert [(a["order_id"], a["commission"], a["status"]) for a in found["attributions"]] == [
        ("1", "7.00", "pending"),
        ("2", "6.00", "pending"),
        ("3", "0.00", "reversed"),
    ]
    assert [
        (s["currency"], s["conversions"], s["revenue"], s["commission"], s["posted"]) for s in found["sums"]
    ] == [("EUR", 1, "60.00", "6.00", "6.00"), ("USD", 1, "100.00", "7.00", "7.00")]
    assert [(s["currency"], s["status"], s["orders"]) for s in found["states"]] == [
        ("EUR", "pending", 1),
        ("USD", "pending", 1),
        ("USD", "reversed", 1),
    ]
    assert found["totals"] == {"links": 0, "clicks": 3, "attributions": 3}
    assert (found["drift"], found["agrees"]) == ([], True)


async def test_more_days_show_more(busy, report):
    found = await report("affiliate", "h", "--days", "60", "--limit", "1")
    assert (found["days"], found["totals"]["clicks"], found["totals"]["attributions"]) == (60, 4, 4)
    assert (len(found["clicks"]), len(found["attributions"]), len(found["daily"])) == (1, 1, 5)
    assert (await report("affiliate", "h", "--days", "1"))["totals"]["clicks"] == 0


async def test_an_affiliate_is_found_by_his_pixel_and_a_pixel_of_nobody_is_explained_as_well(
    busy, report, run
):
    assert (await report("affiliate", "p1"))["affiliate"]["handle"] == "h"
    found = await report("affiliate", "p2")
    assert (found["affiliate"], found["click_sums"]["clicks"], found["sums"][0]["conversions"]) == (
        None,
        1,
        1,
    )
    assert "Pixel p2: no affiliate has it yet" in (await run("affiliate", "p2"))[1]


async def test_a_handle_beats_another_ones_pixel(busy, report):
    await an_affiliate(busy, "p1", "p7")
    assert (await report("affiliate", "p1"))["pixel_id"] == "p7"


@pytest.mark.parametrize(
    ("by_hand", "counter"),
    [
        ("UPDATE affiliate_daily SET clicks = 9 WHERE currency = ''", "clicks"),
        ("UPDATE affiliate_daily SET revenue = 9 WHERE currency = 'EUR'", "revenue in EUR"),
        ("DELETE FROM affiliate_daily WHERE currency = 'EUR'", "commission in EUR"),
        ("UPDATE commissions SET earnings = 9 WHERE order_id = '2'", "posted in EUR"),
    ],
)
async def test_sums_that_were_overwritten_are_told_from_the_ledgers(busy, report, run, by_hand, counter):
    await busy.execute(by_hand)
    found = await report("affiliate", "h")
    assert counter in [drift["counter"] for drift in found["drift"]]
    shown = (await run("affiliate", "h"))[1]
    assert "≠" in shown
    assert DISAGREES in shown


async def test_an_affiliates_coupons_and_links_are_shown(shop, report):
    await shop.execute("INSERT INTO affiliate_coupon_owners (code, pixel_id) VALUES ('A', 'p1'), ('B', 'p1')")
    await shop.execute("INSERT INTO affiliate_coupon_usages (order_id, code) VALUES ('1', 'A')")
    await a_link(shop, "l2", at=AT + timedelta(days=1))
    await a_link(shop, "l1", partner="px")
    found = await report("affiliate", "h", "--limit", "1")
    assert [(c["code"], c["times_used"]) for c in found["coupons"]] == [("A", 1), ("B", 0)]
    assert ([link["id"] for link in found["links"]], found["totals"]["links"]) == (["l1"], 2)


# Partners


async def test_a_partner_is_explained_by_users_links_balances_and_payouts(shop, report, run):
    await shop.execute("INSERT INTO shop_users (id, name, email) VALUES ('u1', 'Ann', 'ann@example.com')")
    await a_link(shop, user="u1")
    await a_claim(shop)
    payout = await paid(shop, "pn_u1")
    await a_refund(shop, "30")
    await a_claim(shop, "2", "60", currency="EUR")
    found = await report("partner", "pn_u1")
    assert (found["partner"]["name"], found["partner"]["email"]) == ("Ann", "ann@example.com")
    assert found["totals"] == {"users": 1, "links": 1, "enrollments": 1, "payouts": 1, "commissions": 3}
    assert ([u["user_id"] for u in found["users"]], [link["id"] for link in found["links"]]) == (
        ["u1"],
        ["l1"],
    )
    assert [(e["program_id"], e["status"], e["origin"]) for e in found["enrollments"]] == [
        ("a_1", "approved", "link")
    ]
    assert [(b["currency"], b["status"], b["commissions"], b["earnings"]) for b in found["balances"]] == [
        ("EUR", "pending", 1, "6.00"),
        ("USD", "approved", 1, "-3.00"),
        ("USD", "paid", 1, "10.00"),
    ]
    assert [(p["id"], p["amount"], p["counted"], p["reference"]) for p in found["payouts"]] == [
        (payout, "10.00", "10.00", "transfer 7")
    ]
    assert sorted(c["earnings"] for c in found["commissions"]) == ["-3.00", "10.00", "6.00"]
    assert found["agrees"]
    assert AGREES["partner"] in (await run("partner", "pn_u1"))[1]


async def test_a_payout_that_is_not_the_sum_of_its_rows_is_said(shop, report):
    await a_link(shop, partner="px")
    await a_claim(shop)
    payout = await paid(shop)
    await shop.execute("UPDATE payouts SET amount = 9")
    assert (await report("partner", "px"))["drift"] == [
        {"counter": f"payout {payout}", "stored": "9.00", "counted": "10.00"}
    ]


async def test_a_partner_who_is_only_named_is_explained(shop, report, run):
    await a_link(shop, partner="px")
    found = await report("partner", "px")
    assert (found["partner"], found["totals"]["links"]) == (None, 1)
    assert "Partner px: named by rows, and not known otherwise" in (await run("partner", "px"))[1]


# Reading


async def test_everything_is_read_in_one_snapshot_and_nothing_can_be_written(shop, monkeypatch):
    async def look(connection, key, span):
        return {
            "agrees": True,
            "isolation": await connection.fetchval("SHOW transaction_isolation"),
            "read_only": await connection.fetchval("SHOW transaction_read_only"),
        }

    monkeypatch.setitem(explaining.KINDS, "order", look)
    found = await explaining.explain(shop, "order", "1", Rules(), Span())
    assert (found["isolation"], found["read_only"]) == ("repeatable read", "on")


async def test_what_disagrees_is_looked_at_again(shop, monkeypatch):
    answers = iter([False, True])

    async def look(connection, key, span):
        return {"agrees": next(answers)}

    monkeypatch.setitem(explaining.KINDS, "order", look)
    assert (await explaining.explain(shop, "order", "1", Rules(), Span()))["agrees"]


async def test_times_beyond_pythons_are_told(shop, report, run):
    for order, time in (("1", "infinity"), ("2", "20000-01-01Z"), ("3", "4000-01-01 BC")):
        await shop.execute(
            f"INSERT INTO affiliate_coupon_usages (order_id, code, occurred_at) VALUES ('{order}', 'A', '{time}')"
        )
    found = await report("coupon", "A")
    assert [usage["occurred_at"] for usage in found["usages"]] == [
        "infinity",
        "beyond the year 9999",
        "before the year 1",
    ]
    assert "infinity" in (await run("coupon", "A"))[1]


ORDER_KEYS = {
    "conversions",
    "coupon_usages",
    "promo_uses",
    "refused_facts",
    "refunds",
    "cancellation",
    "order_total",
    "attribution",
    "commissions",
    "balances",
    "posted_is_target",
    "arithmetic",
    "totals",
}
CODE_KEYS = {"stored", "counted", "arithmetic", "totals", "adjustments"}
KEYS = {
    "order": ORDER_KEYS,
    "coupon": CODE_KEYS | {"owner", "usages"},
    "promo": CODE_KEYS | {"uses", "refused_facts"},
    "affiliate": {
        "pixel_id",
        "affiliate",
        "days",
        "status_history",
        "coupons",
        "totals",
        "links",
        "daily",
        "click_sums",
        "sums",
        "states",
        "attributions",
        "clicks",
        "arithmetic",
    },
    "partner": {
        "partner",
        "totals",
        "users",
        "links",
        "enrollments",
        "balances",
        "payouts",
        "commissions",
        "arithmetic",
    },
    "commission": {"commission", "order", "arithmetic"},
    "voucher": {
        "voucher",
        "days",
        "stored",
        "compared",
        "unique_users",
        "totals",
        "daily",
        "states",
        "places",
        "wallets",
        "attempts",
        "failures",
        "refused_facts",
        "closings",
        "scans",
        "scans_found",
        "arithmetic",
    },
    "sku": {
        "product",
        "stored",
        "counted",
        "absolute",
        "deltas",
        "details",
        "totals",
        "changes",
        "closing",
        "refused_changes",
        "alerts",
        "arithmetic",
    },
}


def id_of(kind, key="X"):
    """A commission alone has a number for an id: that of the first."""
    return "1" if kind == "commission" else key


@pytest.fixture
async def one_of_each(shop):
    """Something that is called X of each kind."""
    await an_affiliate(shop, "X", "p2")
    await shop.execute("INSERT INTO promo_codes (code) VALUES ('X')")
    await shop.execute("INSERT INTO affiliate_coupon_usages (order_id, code) VALUES ('X', 'X')")
    await shop.execute("INSERT INTO partners (id) VALUES ('X')")
    await shop.execute("INSERT INTO vouchers (id) VALUES ('X')")
    await shop.execute("INSERT INTO inventory_products (sku, name) VALUES ('X', 'X')")
    await a_claim(shop, "other")
    return shop


@pytest.mark.parametrize("kind", explaining.KINDS)
async def test_the_names_in_json_are_stable(one_of_each, report, kind):
    found = await report(kind, id_of(kind))
    assert found.keys() == KEYS[kind] | {"kind", "id", "drift", "agrees"}
    assert (found["kind"], found["id"], found["agrees"]) == (kind, id_of(kind), True)


@pytest.mark.parametrize("kind", explaining.KINDS)
async def test_every_kind_is_shown_on_a_terminal(one_of_each, run, kind):
    code, shown, errors = await run(kind, id_of(kind))
    assert (code, errors) == (0, "")
    assert shown.splitlines()[0].rpartition(" ")[2]
    assert AGREES[kind] in shown
    assert VIEWS.keys() == AGREES.keys() == explaining.KINDS.keys()


# Exit codes


@pytest.mark.parametrize("kind", explaining.KINDS)
async def test_what_nothing_is_known_of_is_one_line_and_exit_code_1(db, run, kind):
    assert await run(kind, "nobody") == (1, "", f"counterfoil: nothing is known of the {kind} nobody\n")
    assert (await run(kind, "nobody", "--json"))[:2] == (1, "")


@pytest.mark.parametrize(
    "arguments",
    [
        ["order"],
        ["order", ""],
        ["order", "1", "--limit", "5"],
        ["order", "1", "--at", "2026-01-01T00:00:00Z"],
        ["coupon", "A", "--at", "2026-01-01T00:00:00"],
        ["partner", "A", "--at", "yesterday"],
        ["commission", ""],
        ["coupon", "A", "--limit", "0"],
        ["coupon", "A", "--days", "3"],
        ["affiliate", "h", "--days", "0"],
        ["affiliate", "h", "--days", "99999999999"],
        ["voucher", "v", "--days", "0"],
        ["sku", "1", "--days", "3"],
        ["pixel", "1"],
    ],
)
async def test_wrong_use_is_exit_code_2(db, run, arguments):
    assert (await run(*arguments))[0] == 2


def in_process(monkeypatch, capfd, *arguments):
    """Run `counterfoil …` as the installed command does: exit code, standard output, standard error."""
    monkeypatch.setattr(sys, "argv", ["counterfoil", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    output, errors = capfd.readouterr()
    return ended.value.code, output, errors


def test_a_database_that_does_not_answer_is_one_line_and_exit_code_3(run, monkeypatch, capfd):
    monkeypatch.setenv(f"{PREFIX}DATABASE_URL", NOBODY_LISTENS)
    code, output, errors = in_process(monkeypatch, capfd, "explain", "order", "1")
    assert (code, output) == (3, "")
    assert errors.startswith("counterfoil: PostgreSQL at postgres://shop:•••@127.0.0.1:1/shop: ")
    assert errors.count("\n") == 1


def test_a_database_without_our_tables_is_one_line_and_exit_code_2(run, monkeypatch, capfd):
    monkeypatch.setenv(f"{PREFIX}DB_SCHEMA", "nowhere")
    code, output, errors = in_process(monkeypatch, capfd, "explain", "order", "1")
    assert (code, output) == (2, "")
    assert "run `counterfoil migrate` first" in errors


# Ids as they come


HOSTILE = [
    "\x1b[31mred\x1b[0m",
    "[bold red]markup[/]",
    "a\nb",
    "'; DROP TABLE conversions; --",
    "%s$1{}",
    "\u202egnp.exe",
    "\u2028",
    "日本" * 100,
    "x" * 5_000,
    "--json",
]


@pytest.mark.parametrize("kind", explaining.KINDS)
async def test_a_hostile_id_of_nobody_is_one_line(db, run, kind):
    for key in [*HOSTILE, "\0", "a\0b", "\udc80", " "]:
        code, shown, errors = await run(kind, "--", key)
        assert (code, shown) == (1, "")
        assert errors.startswith(f"counterfoil: nothing is known of the {kind} ")
        assert errors.count("\n") == 1
        assert errors[:-1].isprintable()


@pytest.mark.parametrize("key", HOSTILE)
async def test_a_hostile_id_in_the_tables_is_shown_as_text(shop, run, report, key):
    if len(key) > 2_000:
        key = key[:255]
    await an_affiliate(shop, key, key + "p")
    await shop.execute("INSERT INTO affiliate_coupon_owners (code, pixel_id) VALUES ($1, $2)", key, key + "p")
    await shop.execute("INSERT INTO affiliate_coupon_usages (order_id, code) VALUES ($1, $1)", key)
    await shop.execute("INSERT INTO promo_codes (code) VALUES ($1)", key)
    await shop.execute("INSERT INTO partners (id, name, email) VALUES ($1, $1, $1)", key)
    await a_link(shop, key, partner=key, pixel=key + "p")
    await a_claim(shop, key, pixel=key + "p", link=key)
    await a_claim(shop, key, pixel=None, link=key)
    await a_click(shop, key, pixel=key + "p")
    await shop.execute(
        "INSERT INTO vouchers (id, business_id, title, created_at) VALUES ($1, $1, $1, now())", key
    )
    await shop.execute("INSERT INTO customer_vouchers (customer_id, voucher_id) VALUES ($1, $1)", key)
    await shop.execute(
        "INSERT INTO inventory_events (event_id, sku, new_stock, name, supplier, metadata) "
        "VALUES ($1, $1, 1, $1, $1, jsonb_build_object('k', $1::text))",
        key,
    )
    await shop.fetch("SELECT raise_low_stock(ARRAY[$1::text], 'level', '5 minutes')", key)
    for kind in explaining.KINDS:
        code, shown, _ = await run(kind, "--", id_of(kind, key))
        assert code == 0
        assert all(character.isprintable() for character in shown.replace("\n", ""))
        printable = "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in key).replace(
            "\\u000a", "\\n"
        )
        assert id_of(kind, printable) in shown.splitlines()[0]
        code, output, _ = await run(kind, "--json", "--", id_of(kind, key))
        assert (code, json.loads(output)["id"]) == (0, id_of(kind, key))


async def test_an_id_is_found_as_an_event_may_spell_it(shop, report):
    key = "0f8fad5b-d9cb-469f-a165-70867728950e"
    await a_claim(shop, key)
    assert (await report("order", f"  {key.upper()} "))["id"] == key
    await shop.execute("INSERT INTO affiliate_coupon_usages (order_id, code) VALUES ('1', 'SPRING')")
    assert (await report("coupon", " SPRING\u2003"))["id"] == "SPRING"
    assert (await report("coupon", "spring", code_case="upper"))["id"] == "SPRING"


async def test_a_content_that_does_not_stand_is_shown_as_refused(shop, database_url, run, report):
    async with scribes(database_url) as (worker,):
        for first, amount in ((0, 5), (1, 3), (2, 4)):
            refund = a_refund_event("1", refund_id="r", amount=Decimal(amount))
            written = await worker.write(
                records_of(refund, partition=Partition("order.refunded", 0), first=first)
            )
            assert written.refused == ({} if first == 0 else {"order.refunded": 1})
    refused = (await report("order", "1"))["refused_facts"]
    assert [(row["of_what"], row["content"]["amount"]) for row in refused] == [("r", 4), ("r", 5)]
    assert [row["source"]["offset"] for row in refused] == [2, 0]
    _, shown, _ = await run("order", "1")
    assert shown.count("refused: the earlier content stands, then the smaller") == 2


async def test_an_id_as_it_stands_in_the_tables_is_found_first(shop, report):
    await shop.execute("INSERT INTO affiliate_coupon_usages (order_id, code) VALUES ('1', ' A'), ('2', 'A')")
    assert (await report("coupon", " A"))["usages"][0]["order_id"] == "1"


async def test_a_number_is_explained_as_of_a_time(shop, report, run):
    await shop.execute(
        "INSERT INTO affiliate_coupon_usages (order_id, code, occurred_at) VALUES ('1', 'A', $1)", AT
    )
    before = await report("coupon", "A", "--at", "2026-03-01T12:59:59.999999+01:00")
    assert (before["at"], before["counted"]["usages"]) == ("2026-03-01T11:59:59.999999+00:00", 0)
    assert (await report("coupon", "A", "--at", "2026-03-01T12:00:00Z"))["counted"]["usages"] == 1
    code, shown, _ = await run("coupon", "A", "--at", "2026-03-01T12:00:00Z")
    assert (code, "As of 2026-03-01 12:00:00: of the facts up to then alone." in shown) == (0, True)
    code, _, errors = await run("coupon", "A", "--at", "2026-03-01T12:00:00")
    assert (code, "--at" in errors) == (2, True)
