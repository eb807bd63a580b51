"""Numbers as of an event time: a function of the facts up to then alone, whatever came later and in whatever order."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from counterfoil.affiliates.store import find_affiliates, report_on_affiliate
from counterfoil.api.as_of import moment_text, parse_moment
from counterfoil.api.requests import Listing
from counterfoil.coupons.routes import find_coupons
from counterfoil.database.queries import sql
from counterfoil.partners.earnings import Filter, find_balances, find_sums
from counterfoil.partners.earnings_at import find_balances_at, find_commissions_at, find_sums_at
from counterfoil.promos.routes import find_promo_codes
from support import attribution_events, attribution_model, contract_model, order_events
from support.attribution_model import World
from support.postgres_ledgers import empty
from support.postgres_road import plain_settings, scribes
from support.schedules import Schedule, run, schedules

ALL = Listing(None, 100, 0)
FAR = datetime(2027, 1, 1, tzinfo=UTC)
TODAY = datetime(2026, 3, 2, tzinfo=UTC)
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)

of_orders = st.sampled_from([NOON + timedelta(seconds=n) for n in (-1, 0, 1, 2)] + [FAR])
of_attribution = st.sampled_from(
    [time + timedelta(microseconds=n) for time in attribution_events.INSTANTS for n in (-1, 0)] + [FAR]
)


def until(documents, at):
    return [d for d in documents if datetime.fromisoformat(d["timestamp"]) <= at]


async def stay_on(db, day):
    await db.execute("SELECT set_config('counterfoil.today', $1, false)", day.date().isoformat())


# Coupons and promo codes


async def coupons(db, at=None):
    return [(c.code, c.times_used) for c in await find_coupons(db, ALL, at)]


async def promos(db, at=None):
    return [(p.code, p.times_used, p.total_bonus_issued) for p in await find_promo_codes(db, ALL, at)]


def ranked(counts):
    """Code → count and what else, as the lists have them: the most used first."""
    return sorted(((code, *rest) for code, rest in counts.items()), key=lambda row: (-row[1], row[0]))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(documents=order_events.facts, schedule=schedules, at=of_orders)
async def test_counts_as_of_a_time_are_those_of_the_orders_up_to_then(
    db, database_url, documents, schedule, at
):
    expected = contract_model.model(until(documents, at))
    await empty(db)
    async with scribes(database_url, 2) as workers:
        await run(schedule, documents, workers)
        assert await coupons(db, at) == ranked(
            {code: (used,) for code, (used, _) in expected.coupons.items()}
        )
        assert await promos(db, at) == ranked(expected.promos)
        assert await coupons(db, FAR) == await coupons(db)
        assert await promos(db, FAR) == await promos(db)
        whole = await coupons(db, at), await promos(db, at)
        await empty(db)
        if until(documents, at):
            await run(schedule, until(documents, at), workers)
    assert (await coupons(db), await promos(db)) == whole


async def test_adjustments_count_from_the_time_at_which_they_were_made(db):
    promo = await db.fetchval("INSERT INTO promo_codes (code) VALUES ('P') RETURNING id")
    for hour, delta in ((1, 5), (2, -2)):
        made_at = NOON + timedelta(hours=hour)
        await db.execute(
            "INSERT INTO affiliate_coupon_adjustments (code, delta, created_at) VALUES ('A', $1, $2)",
            delta,
            made_at,
        )
        await db.execute(
            "INSERT INTO promo_code_adjustments (promo_code_id, delta, bonus_delta, created_at) "
            "VALUES ($1, $2, $3, $4)",
            promo,
            delta,
            Decimal(delta),
            made_at,
        )
    seen = [
        (await coupons(db, NOON + timedelta(hours=n)), await promos(db, NOON + timedelta(hours=n)))
        for n in range(3)
    ]
    assert seen == [
        ([], []),
        ([("A", 5)], [("P", 5, 5)]),
        ([("A", 3)], [("P", 3, 3)]),
    ]
    latest = await find_coupons(db, ALL, NOON + timedelta(hours=1.5))
    assert latest[0].updated_at == NOON + timedelta(hours=1)


async def test_a_cancellation_counts_from_its_own_time(db):
    hour = timedelta(hours=1)
    promo = await db.fetchval("INSERT INTO promo_codes (code) VALUES ('P') RETURNING id")
    await db.execute(
        "INSERT INTO affiliate_coupon_usages (order_id, code, occurred_at) VALUES ('1', 'A', $1)", NOON
    )
    await db.execute(
        "INSERT INTO promo_code_uses (order_id, promo_code_id, bonus_amount, occurred_at) VALUES ('1', $1, 2, $2)",
        promo,
        NOON,
    )
    await db.execute("INSERT INTO order_cancellations (order_id, canceled_at) VALUES ('1', $1)", NOON + hour)
    moments = (NOON - hour, NOON, NOON + hour - timedelta(microseconds=1), NOON + hour)
    seen = [(await coupons(db, at), await promos(db, at)) for at in moments]
    used, taken_back = ([("A", 1)], [("P", 1, 2)]), ([("A", 0)], [("P", 0, 0)])
    assert seen == [([], []), used, used, taken_back]


async def test_codes_that_count_nothing_stand_in_the_list_of_now(db):
    await db.execute("INSERT INTO promo_codes (code) VALUES ('P')")
    await db.execute("INSERT INTO affiliate_coupons (code) VALUES ('A')")
    assert (await coupons(db, FAR), await promos(db, FAR)) == ([("A", 0)], [("P", 0, 0)])
    assert (await coupons(db, NOON), await promos(db, NOON)) == ([], [])


# Affiliates and partners


async def days_at(db, pixels, at):
    """As the model has them; a day that counts nothing is none."""
    last = await db.fetchval("SELECT last_day_at($1)", at)
    rows = await db.fetch(
        "SELECT * FROM affiliate_days_at($1, $2, $3, $4)", sorted(pixels), last - timedelta(days=29), last, at
    )
    found = {(r["pixel_id"], r["day"], r["currency"]): tuple(r)[3:] for r in rows}
    assert len(found) == len(rows)
    return {key: counts for key, counts in found.items() if any(counts)}


async def targets_at(db, orders, at):
    rows = await db.fetch("SELECT * FROM order_targets_at($1, $2)", sorted(orders), at)
    return {
        r["order_id"]: (
            r["beneficiary"], r["pixel_id"], r["link_id"], r["partner_id"], r["program_id"], r["revenue"],
            r["refunded"], r["earnings"], r["currency"], r["rate_source"], r["canceled_at"] is not None,
            r["occurred_at"],
        )
        for r in rows
    }  # fmt: skip


async def earned_at(db, at, partners):
    """(partner, program, currency) → earnings, as the model has it."""
    found = {}
    for partner in partners:
        sums = await find_sums_at(db, Filter(partner), at, ["program"], None, 0)
        found |= {
            (partner, s.program_id, s.currency): Decimal(s.earnings) for s in sums if Decimal(s.earnings)
        }
    return found


PIXELS = {"p1", "p2", "P3"}
PARTNERS = ["px", "pn_u1", "pn_U2"]


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    documents=st.lists(
        st.one_of(
            attribution_events.facts.map(tuple),
            attribution_events.clicks.map(lambda c: (c,)),
        ),
        min_size=1,
        max_size=4,
    ).map(lambda groups: [d for group in groups for d in group]),
    world=attribution_events.worlds(),
    schedule=schedules,
    at=of_attribution,
)
async def test_what_was_owed_as_of_a_time_is_of_the_events_up_to_then(
    db, database_url, documents, world, schedule, at
):
    expected = attribution_model.model(until(documents, at), world)
    await empty(db)
    await stay_on(db, min(at, TODAY))
    interludes = attribution_events.interludes(db, world)
    async with scribes(database_url, 2, settings=plain_settings(attribute_by_coupon=True)) as workers:
        await run(schedule, documents, workers, interludes)
    orders = {d["order_id"] for d in documents if "order_id" in d}
    assert await targets_at(db, orders, at) == expected.attributions
    assert await days_at(db, PIXELS, at) == {key: row for key, row in expected.daily.items() if any(row)}
    assert await earned_at(db, at, PARTNERS) == {
        key: earned for key, earned in expected.earned.items() if key[0] in PARTNERS
    }
    await as_now(db)


async def as_now(db):
    """As of a time that is not yet, every number is what it is now."""
    await stay_on(db, TODAY)
    differing = await db.fetch(
        "SELECT * FROM order_targets_at((SELECT array_agg(order_id) FROM order_settlements), $1) "
        "EXCEPT SELECT * FROM order_targets((SELECT array_agg(order_id) FROM order_settlements))",
        FAR,
    )
    assert differing == []
    for partner in PARTNERS:
        live = {b.currency: Decimal(b.total) for b in await find_balances(db, partner)}
        then = {b.currency: Decimal(b.total) for b in await find_balances_at(db, partner, FAR)}
        assert {c: t for c, t in live.items() if t} == {c: t for c, t in then.items() if t}
        live_sums = await find_sums(db, Filter(partner), ["program", "link"], None, 0)
        then_sums = await find_sums_at(db, Filter(partner), FAR, ["program", "link"], None, 0)
        assert told(live_sums) == told(then_sums)
    for pixel in PIXELS:
        live_days = await db.fetch(sql("affiliate_days"), pixel, 30)
        assert await db.fetch(sql("affiliate_days_as_of"), pixel, 30, FAR) == live_days


def told(sums):
    return {
        (s.program_id, s.link_id, s.currency): (Decimal(s.amount), Decimal(s.earnings))
        for s in sums
        if Decimal(s.amount) or Decimal(s.earnings)
    }


async def test_many_events_as_of_any_time_come_to_what_the_model_says(db, database_url):
    dice = random.Random(9)
    documents = [attribution_events.a_document(dice) for _ in range(3_000)]
    world = World(
        statuses=[("p1", "paused", attribution_events.INSTANTS[4])],
        defaults=[(Decimal("7.5"), attribution_events.INSTANTS[2])],
        owners={"A": "p2"},
    )
    async with scribes(database_url, 2, settings=plain_settings(attribute_by_coupon=True)) as workers:
        schedule = Schedule(seed=4, partitions=2, crashes=True, batch=400)
        await run(schedule, documents, workers, attribution_events.interludes(db, world))
    pixels = {f"p{n}" for n in range(9)}
    partners = [f"pn_u{n}" for n in range(30)]
    orders = {d["order_id"] for d in documents if "order_id" in d}
    for at in attribution_events.INSTANTS:
        await stay_on(db, at)
        expected = attribution_model.model(until(documents, at), world)
        assert await targets_at(db, orders, at) == expected.attributions
        assert await days_at(db, pixels, at) == {key: row for key, row in expected.daily.items() if any(row)}
        assert await earned_at(db, at, partners) == {
            k: e for k, e in expected.earned.items() if k[0] in partners
        }


async def test_a_link_and_its_user_are_known_from_their_own_times_on(db):
    await db.execute("INSERT INTO default_rates (percent, valid_from) VALUES (10, '-infinity')")
    await db.execute(
        "INSERT INTO conversions (order_id, beneficiary, link_id, revenue, currency, occurred_at) "
        "VALUES ('1', 'link:l', 'l', 50, 'USD', $1)",
        NOON,
    )
    await db.execute(
        "INSERT INTO links (id, url, user_id, pixel_id, program_id, occurred_at) VALUES ('l', 'u', 'u', 'p1', 'g', $1)",
        NOON + timedelta(hours=1),
    )
    await db.execute(
        "INSERT INTO shop_users (id, name, occurred_at) VALUES ('u', 'Ann', $1)", NOON + timedelta(hours=2)
    )
    found = [
        await db.fetchrow(
            "SELECT pixel_id, program_id, partner_id, earnings FROM order_targets_at(ARRAY['1'], $1)",
            NOON + timedelta(hours=hour),
        )
        for hour in range(3)
    ]
    assert [tuple(row) for row in found] == [
        (None, None, None, 5),
        ("p1", "g", None, 5),
        ("p1", "g", "pn_u", 5),
    ]
    assert await db.fetchval("SELECT partner_of_link_at(l, $1) FROM links AS l", NOON) is None
    earned = [await find_balances_at(db, "pn_u", NOON + timedelta(hours=hour)) for hour in (1, 2)]
    assert [[b.total for b in found] for found in earned] == [[], ["5.00"]]


async def test_an_affiliate_is_shown_with_the_status_and_the_days_of_the_time(db):
    await stay_on(db, TODAY)
    await db.execute("INSERT INTO affiliates (handle, name, pixel_id) VALUES ('h', 'H', 'p1')")
    await db.execute("UPDATE affiliate_status_changes SET valid_from = '2026-01-01Z'")
    await db.execute(
        "INSERT INTO affiliate_status_changes (pixel_id, status, valid_from) VALUES ('p1', 'paused', '2026-02-01Z')"
    )
    for click, time in (("a", NOON - timedelta(days=29)), ("b", NOON), ("c", NOON + timedelta(hours=1))):
        await db.execute(
            "INSERT INTO aff_clicks (click_id, pixel_id, occurred_at, visitor) VALUES ($1, 'p1', $2, 7)",
            click,
            time,
        )
    noon = await report_on_affiliate(db, "h", "USD", 30, NOON)
    assert (noon.status, noon.clicks, noon.clicks_30d, noon.unique_clicks) == ("paused", 2, 2, 2)
    assert (noon.daily[0].day, noon.daily[-1].day) == ((NOON - timedelta(days=29)).date(), NOON.date())
    assert (noon.at, [s.status for s in noon.status_history]) == (
        "2026-03-01T12:00:00.000Z",
        ["active", "paused"],
    )
    before = await report_on_affiliate(db, "h", "USD", 30, NOON - timedelta(days=29))
    assert (before.status, before.clicks, len(before.status_history)) == ("active", 1, 1)
    assert (await report_on_affiliate(db, "h", "USD", 30, NOON + timedelta(hours=2))).clicks == 3
    assert [
        a.handle for a in await find_affiliates(db, "USD", status="active", at=NOON - timedelta(days=40))
    ] == ["h"]
    assert await find_affiliates(db, "USD", status="active", at=NOON) == []
    future, live = (
        await report_on_affiliate(db, "h", "USD", 30, FAR),
        await report_on_affiliate(db, "h", "USD", 30),
    )
    assert (future.daily, future.clicks_30d) == (live.daily, live.clicks_30d)


async def test_clicks_of_a_day_that_is_closed_are_those_of_the_whole_day(db):
    for click, hour in (("a", 1), ("b", 23)):
        await db.execute(
            "INSERT INTO aff_clicks (click_id, pixel_id, occurred_at, visitor) VALUES ($1, 'p1', $2, $3)",
            click,
            datetime(2026, 2, 3, hour, tzinfo=UTC),
            hour,
        )
    at = datetime(2026, 2, 3, 12, tzinfo=UTC)
    assert list((await days_at(db, ["p1"], at)).values()) == [(1, 1, 0, 0, 0, 0)]
    await db.fetch("SELECT close_click_partitions('2026-03-01')")
    assert list((await days_at(db, ["p1"], at)).values()) == [(2, 2, 0, 0, 0, 0)]


async def a_commission(db, order, earnings, *, amount="100", at=NOON, **fields):
    columns = {
        "order_id": order, "partner_id": "px", "amount": Decimal(amount), "earnings": Decimal(earnings),
        "currency": "EUR", "occurred_at": at, **fields,
    }  # fmt: skip
    places = ", ".join(f"${n}" for n in range(1, len(columns) + 1))
    await db.execute(f"INSERT INTO commissions ({', '.join(columns)}) VALUES ({places})", *columns.values())


async def balances(db, at):
    return [(b.currency, b.total, b.paid, b.open) for b in await find_balances_at(db, "px", at)]


async def test_imported_commissions_count_from_their_own_time_and_lose_what_was_refunded_by_then(db):
    await a_commission(db, "1", "10")
    await a_commission(db, "2", "4", amount="40", at=NOON + timedelta(hours=1))
    await db.execute(
        "INSERT INTO order_refunds (order_id, refund_id, amount, occurred_at) VALUES ('1', 'r', 25, $1)",
        NOON + timedelta(hours=2),
    )
    await db.execute(
        "INSERT INTO order_cancellations (order_id, canceled_at) VALUES ('2', $1)", NOON + timedelta(hours=3)
    )
    seen = [await balances(db, NOON + timedelta(hours=hour)) for hour in range(-1, 4)]
    assert seen == [
        [],
        [("EUR", "10.00", "0.00", "10.00")],
        [("EUR", "14.00", "0.00", "14.00")],
        [("EUR", "11.50", "0.00", "11.50")],
        [("EUR", "7.50", "0.00", "7.50")],
    ]
    live = await find_balances(db, "px")
    assert live[0].total == seen[-1][0][1]
    shown = await find_commissions_at(db, Filter("px"), NOON + timedelta(hours=3), 10, 0)
    assert [(c.order_id, c.refunded, c.earnings, c.canceled) for c in shown] == [
        ("2", "0.00", "0.00", True),
        ("1", "25.00", "7.50", False),
    ]


async def test_of_an_order_that_was_imported_in_parts_those_count_that_were_there(db):
    await a_commission(db, "1", "10")
    await a_commission(db, "1", "4", at=NOON + timedelta(hours=1))
    assert await balances(db, NOON) == [("EUR", "10.00", "0.00", "10.00")]
    assert await balances(db, NOON + timedelta(hours=1)) == [("EUR", "14.00", "0.00", "14.00")]


async def test_a_sale_by_a_link_that_has_no_pixel_is_its_partners(db):
    await db.execute("INSERT INTO default_rates (percent, valid_from) VALUES (10, '-infinity')")
    await db.execute(
        "INSERT INTO links (id, url, named_partner_id, occurred_at) VALUES ('l', 'u', 'px', $1)", NOON
    )
    await db.execute(
        "INSERT INTO conversions (order_id, beneficiary, link_id, revenue, currency, occurred_at) "
        "VALUES ('1', 'link:l', 'l', 50, 'EUR', $1)",
        NOON,
    )
    assert await balances(db, NOON) == [("EUR", "5.00", "0.00", "5.00")]


async def test_a_row_that_somebody_has_canceled_is_none_at_any_time(db):
    await a_commission(db, "1", "10", status="canceled")
    await a_commission(db, "2", "5")
    live = await find_balances(db, "px")
    assert (live[0].total, await balances(db, FAR)) == ("5.00", [("EUR", "5.00", "0.00", "5.00")])


async def test_payouts_count_from_the_time_at_which_they_were_made(db):
    await a_commission(db, "1", "10")
    await db.fetchval("SELECT approve_commissions(0)")
    await db.fetchval("SELECT pay_commissions('px', 'EUR', 'r', 'me')")
    await db.execute("UPDATE payouts SET created_at = $1", NOON + timedelta(hours=1))
    assert await balances(db, NOON) == [("EUR", "10.00", "0.00", "10.00")]
    assert await balances(db, NOON + timedelta(hours=1)) == [("EUR", "10.00", "10.00", "0.00")]
    await db.execute(
        "INSERT INTO order_refunds (order_id, refund_id, amount, occurred_at) VALUES ('1', 'r', 50, $1)",
        NOON + timedelta(hours=2),
    )
    assert await balances(db, NOON + timedelta(hours=2)) == [("EUR", "5.00", "10.00", "-5.00")]


# Times


@pytest.mark.parametrize(
    "text", ["", "now", "2026-01-01", "2026-01-01T00:00:00", "0001-01-01T00:00:00+01:00", "1767225600"]
)
def test_a_time_without_zone_is_refused(text):
    with pytest.raises(ValueError, match="RFC 3339 time with zone"):
        parse_moment(text)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2016-12-31T23:59:60Z", "2017-01-01T00:00:00.000Z"),
        ("2026-01-01t00:00:00z", "2026-01-01T00:00:00.000Z"),
        ("2026-01-01T00:00:00.1234567Z", "2026-01-01T00:00:00.123456Z"),
        ("1999-12-31T23:00:00-01:00", "2000-01-01T00:00:00.000Z"),
        ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00.000Z"),
        ("9999-12-31T23:59:59Z", "9999-12-31T23:59:59.000Z"),
    ],
)
def test_each_time_that_an_event_may_have_can_be_asked_for_and_those_before_them(text, moment):
    assert moment_text(parse_moment(text)) == moment


def test_a_time_is_said_as_exactly_as_it_was_asked_for():
    assert moment_text(parse_moment("2026-01-01T01:00:00+01:00")) == "2026-01-01T00:00:00.000Z"
    assert moment_text(parse_moment("2026-01-01T00:00:00.123456Z")) == "2026-01-01T00:00:00.123456Z"
