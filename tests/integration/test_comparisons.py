"""What ledgers hold beside what a log says: what is missing, what differs, and what is no difference."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from counterfoil.database.comparison import Comparison, Rows, asked, by_index
from counterfoil.database.counters import find_drift
from counterfoil.database.queries import sql
from counterfoil.events import Event, StockChange
from counterfoil.ingest.partitions import Partition
from counterfoil.ingest.records import Record
from counterfoil.routing import COUNTERS
from support.builders import (
    NOON,
    a_cancellation,
    a_claim_event,
    a_click_event,
    a_conversion_event,
    a_link_event,
    a_promotion,
    a_redemption_event,
    a_refund_event,
    a_scan_event,
    a_user_event,
    a_voucher_event,
    an_impression_event,
    an_order,
    later,
    records_of,
)
from support.comparing import comparers, ledgers
from support.postgres_ledgers import EVERYTHING, connections, empty, waits_for_a_lock
from support.roles import owner_and_worker
from support.schedules import run, schedules

SECOND = timedelta(seconds=1)
STOCK = (
    "inventory_events",
    "inventory_products",
    "refused_stock_changes",
    "alerts",
    "outbox",
    "alert_cooldowns",
)


def of(*events: Event, first: int = 0) -> list[Record]:
    """Events of one type as records of their topic."""
    return records_of(*events, partition=Partition(events[0].topic, 0), first=first)


@dataclass(frozen=True)
class Ledger:
    """A ledger, the values of an event's row in it, its key's columns and the others that the event decides."""

    table: str
    event: Event
    key: tuple[str, ...]
    columns: tuple[str, ...]


ORDER = an_order(
    "1",
    total=Decimal(7),
    currency="EUR",
    customer_address="m",
    shop_id="m",
    promotions=[a_promotion("P", base=2, bonus=5)],
)
A_STOCK_CHANGE = StockChange(
    sku="m",
    event_id="e1",
    event_type="change",
    old_stock=5,
    new_stock=7,
    quantity_delta=2,
    metadata='{"m": 1}',
    name="m",
    threshold=5,
    unit_price=Decimal(5),
    supplier="m",
    timestamp=NOON,
)
TEXTS = {"metadata": '{"m": 1}', "device_info": '{"m": 1}', "location": '{"m": 1}'}

LEDGERS = (
    Ledger("affiliate_coupon_usages", ORDER, ("order_id", "code"), ("occurred_at", "reversed_at")),
    Ledger(
        "promo_code_uses",
        ORDER,
        ("order_id",),
        (
            "occurred_at",
            "bonus_amount",
            "base_reward",
            "customer_address",
            "shop_id",
            "total_reward",
            "reversed_at",
        ),
    ),
    Ledger("order_totals", ORDER, ("order_id",), ("occurred_at", "total", "currency")),
    Ledger("order_cancellations", a_cancellation("1", reason="m"), ("order_id",), ("canceled_at", "reason")),
    Ledger(
        "order_refunds",
        a_refund_event("1", currency="EUR"),
        ("order_id", "refund_id"),
        ("occurred_at", "amount", "currency"),
    ),
    Ledger(
        "conversions",
        a_conversion_event("1", commission=3, pixel_id="m", link_id="m", click_id="m", currency="EUR"),
        ("order_id", "beneficiary"),
        ("occurred_at", "revenue", "commission", "currency", "link_id", "click_id", "pixel_id"),
    ),
    Ledger(
        "aff_clicks",
        a_click_event(
            "m",
            click_id="c1",
            link_id="m",
            ip_address="192.0.2.7",
            user_agent="m",
            referrer="m",
            landing_page="m",
        ),
        ("click_id", "occurred_at"),
        (
            "pixel_id",
            "link_id",
            "ip_address",
            "user_agent",
            "referrer",
            "landing_page",
            "visitor",
            "is_bot",
        ),
    ),
    Ledger("shop_users", a_user_event(name="m", email="m"), ("id",), ("name", "email", "occurred_at")),
    Ledger(
        "links",
        a_link_event(user_id="m", partner_id="m", pixel_id="m"),
        ("id",),
        ("url", "user_id", "named_partner_id", "program_id", "pixel_id", "occurred_at"),
    ),
    Ledger(
        "vouchers",
        a_voucher_event(business_id="m", title="m", expires_at=later(10_000)),
        ("id",),
        ("created_at", "business_id", "title", "expires_at"),
    ),
    Ledger(
        "voucher_impressions",
        an_impression_event("m", impression_id="i1"),
        ("impression_id",),
        ("occurred_at", "voucher_id"),
    ),
    Ledger(
        "customer_vouchers",
        a_claim_event(metadata='{"m": 1}'),
        ("customer_id", "voucher_id"),
        ("claimed_at", "metadata"),
    ),
    Ledger(
        "redemption_attempts",
        a_redemption_event("m", "m", attempt_id="a1", business_id="m", failure_reason="m", **TEXTS),
        ("attempt_id",),
        (
            "attempted_at",
            "voucher_id",
            "business_id",
            "customer_id",
            "successful",
            "failure_reason",
            "device_info",
            "location",
            "metadata",
        ),
    ),
    Ledger(
        "voucher_scans",
        a_scan_event("m", scan_id="s1", user_id="m", ip_address="192.0.2.7", user_agent="m", **TEXTS),
        ("scan_id", "occurred_at"),
        (
            "voucher_id",
            "user_id",
            "scan_type",
            "scan_source",
            "device_info",
            "location",
            "ip_address",
            "user_agent",
            "metadata",
        ),
    ),
    Ledger(
        "inventory_events",
        A_STOCK_CHANGE,
        ("occurred_at", "event_id"),
        (
            "sku",
            "event_type",
            "old_stock",
            "new_stock",
            "quantity_delta",
            "metadata",
            "name",
            "threshold",
            "unit_price",
            "supplier",
        ),
    ),
)
BY_TABLE = {ledger.table: ledger for ledger in LEDGERS}

ELSE = {
    "scan_type": ("BUSINESS", "BUSINESS"),
    "scan_source": ("LINK", "SHARE"),
    "currency": ("AAA", "ZZZ"),
    "event_type": ("aaa", "zzz"),
}
"""What stands for a smaller and for a larger value where not every text will do."""

UNKNOWN: dict[str, Any] = {
    **dict.fromkeys(("reversed_at", "expires_at"), NOON),
    **dict.fromkeys(("commission", "unit_price"), Decimal(5)),
    **dict.fromkeys(("old_stock", "new_stock", "quantity_delta", "threshold"), 5),
}
"""Between what values those of a column lie where none is known; else it is text."""


def smaller_and_larger(column: str, value: Any) -> tuple[Any, Any]:
    """Two other values of a column; of what has no order, two others."""
    if column in ELSE:
        return ELSE[column]
    if column in TEXTS:
        return '{"0": 0}', '{"zz": [1, 2]}'
    if isinstance(value, bool):
        return not value, not value
    if value is None:
        value = UNKNOWN.get(column, "m")
    if isinstance(value, datetime):
        return value - SECOND, value + SECOND
    if isinstance(value, str):
        return "0", "zz"
    return value - 1, value + 1


async def alter(db: asyncpg.Connection, table: str, column: str, value: Any) -> None:
    """Write one column of a table's only row by hand."""
    await db.execute(f"UPDATE {table} SET {column} = $1", value)


each_ledger = pytest.mark.parametrize("ledger", LEDGERS, ids=lambda ledger: ledger.table)


@each_ledger
async def test_a_row_altered_by_hand_differs_from_its_record_and_is_set_right(db, database_url, ledger):
    records = of(ledger.event)
    async with comparers(database_url) as (worker, comparer, _):
        await worker.write(records)
        before = await ledgers(db, sources=True)
        for column in ledger.columns:
            stored = await db.fetchval(f"SELECT {column} FROM {ledger.table}")
            for value in smaller_and_larger(column, stored):
                await alter(db, ledger.table, column, value)

                (found,) = await comparer.differences(db, records)
                assert (found.table, found.verdict, found.columns()) == (ledger.table, "differs", (column,))
                assert (found.stored[column], found.wanted[column]) == (value, stored)
                assert (found.source_id, found.source_offset) == (comparer.source_id(records[0]), 0)

                assert await comparer.overwrite(db, records) == 1
                assert await ledgers(db, sources=True) == before, (column, value)
                assert await comparer.overwrite(db, records) == 0
        assert await comparer.differences(db, records) == []
    assert await find_drift(db, COUNTERS) == []


@each_ledger
async def test_a_deleted_row_is_missing_and_is_written_again(db, database_url, ledger):
    records = of(ledger.event)
    async with comparers(database_url) as (worker, comparer, replay):
        await worker.write(records)
        before = await ledgers(db, sources=True)
        key = tuple(await db.fetchrow(f"SELECT {', '.join(ledger.key)} FROM {ledger.table}"))
        await db.execute(f"DELETE FROM {ledger.table}")

        (found,) = await comparer.differences(db, records)
        assert (found.table, found.key[: len(key)], found.verdict) == (ledger.table, key, "missing")
        assert found.stored is None
        assert await comparer.overwrite(db, records) == 0  # adding is the writer's
        await replay.write(records)
        assert await ledgers(db, sources=True) == before
        assert await comparer.differences(db, records) == []


@each_ledger
async def test_where_a_row_came_from_and_when_it_was_written_is_no_difference(db, database_url, ledger):
    records = of(ledger.event)
    async with comparers(database_url) as (worker, comparer, _):
        await worker.write(records)
        await db.execute(f"UPDATE {ledger.table} SET source_id = NULL, source_offset = 99")
        if ledger.table == "vouchers":
            await db.execute("UPDATE vouchers SET updated_at = '2000-01-01Z'")
        assert await comparer.differences(db, records) == []


@each_ledger
async def test_every_column_that_an_event_decides_is_compared(db, database_url, ledger):
    """Columns that are not here are counted, derived, generated, or a person's."""
    async with comparers(database_url) as (worker, comparer, _):
        found = [
            comparison
            for comparison, rows in await comparer.comparisons(db, of(ledger.event))
            if comparison.table == ledger.table and rows
        ]
        await worker.write(of(ledger.event))
        await db.execute(f"DELETE FROM {ledger.table}")
        (missing,) = [d for d in await comparer.differences(db, of(ledger.event)) if d.table == ledger.table]
    assert found[0].columns[-2:] == ("source_id", "source_offset")
    assert set(missing.wanted) - {"code"} == {*ledger.key, *ledger.columns} - {"code"}


SAME_AGAIN = {
    "order.placed": [
        an_order("1", codes=["A", "B"], total=Decimal(2), currency="EUR", promotions=[a_promotion("P")]),
        an_order(
            "1", codes=["B"], timestamp=later(), total=Decimal(1), promotions=[a_promotion("P", bonus=1)]
        ),
        an_order("1", codes=["A"], timestamp=later(-1), promotions=[a_promotion("P", bonus=9)]),
        an_order("1", codes=["A", "B"], total=Decimal(2), currency="EUR", promotions=[a_promotion("P")]),
        an_order("2"),
        an_order("3", codes=["C"], promotions=[a_promotion("Q"), a_promotion("Q", bonus=1)]),
    ],
    "order.canceled": [a_cancellation("1", reason="b"), a_cancellation("1", reason="a"), a_cancellation("9")],
    "order.refunded": [
        a_refund_event("1", amount=2),
        a_refund_event("1", amount=1),
        a_refund_event("1", amount=2),
    ],
    "conversion": [
        a_conversion_event("1"),
        a_conversion_event("1", revenue=9),
        a_conversion_event("1", link_id="l1"),
        a_conversion_event("1"),
    ],
    "click": [
        a_click_event(click_id="c1"),
        a_click_event("px-2", click_id="c1"),
        a_click_event(click_id="c1", timestamp=later()),
        a_click_event("px-2", click_id="c1", timestamp=later()),
        a_click_event(),
    ],
    "link.created": [
        a_link_event(user_id="u1"),
        a_link_event(url="https://example.com", partner_id="p1"),
        a_link_event(timestamp=later(-5)),
    ],
    "user.created": [a_user_event(name="b"), a_user_event(name="a"), a_user_event(name="b")],
    "redemption": [
        a_redemption_event("v1", "c9", attempt_id="a1"),
        a_redemption_event("v2", "c1", attempt_id="a1"),
        a_redemption_event("v1", "c1", successful=False),
    ],
    "claim": [a_claim_event(), a_claim_event(timestamp=later(-1)), a_claim_event(metadata='{"a": 1}')],
    "voucher.created": [a_voucher_event(title="b"), a_voucher_event(title="a"), a_voucher_event(title="a")],
    "impression": [an_impression_event(impression_id="i1"), an_impression_event("v2", impression_id="i1")],
    "scan": [a_scan_event(scan_id="s1"), a_scan_event("v2", scan_id="s1"), a_scan_event()],
    "stock-change": [
        StockChange(sku="k1", event_id="e1", new_stock=3, timestamp=NOON),
        StockChange(sku="k2", event_id="e1", new_stock=2, timestamp=NOON),
        StockChange(sku="k1", event_id="e1", new_stock=3, timestamp=NOON),
    ],
}
"""Of each topic what is told twice, in other words, after what it meets, or without an id."""


@pytest.mark.parametrize("topics", [list(SAME_AGAIN), [*reversed(SAME_AGAIN)]], ids=["one", "other"])
async def test_what_was_recorded_does_not_differ_whichever_came_first_and_in_whatever_window(
    db, database_url, topics
):
    async with comparers(database_url) as (worker, comparer, _):
        for topic in topics:
            await worker.write(of(*SAME_AGAIN[topic]))
        for topic, events in SAME_AGAIN.items():
            records = of(*events)
            assert await comparer.differences(db, records) == [], topic
            for record in records:  # the window that holds this one alone: it may be one that lost
                assert await comparer.differences(db, [record]) == [], (topic, record.offset)


async def test_a_row_is_known_by_any_record_of_the_window_that_tells_of_it(db, database_url):
    """Two partitions tell the same; the second was written first, and a smaller content by hand stands against both."""
    order = an_order("1", codes=["A"], promotions=[a_promotion("P")])
    one, other = (records_of(order, partition=Partition("order.placed", n)) for n in (0, 1))
    async with comparers(database_url) as (worker, comparer, _):
        await worker.write(other)
        await worker.write(one)
        before = await ledgers(db, sources=True)
        await db.execute("UPDATE affiliate_coupon_usages SET occurred_at = occurred_at - interval '1 day'")
        await db.execute("UPDATE promo_code_uses SET bonus_amount = 0")
        found = await comparer.differences(db, [*one, *other])
        assert [(d.table, d.columns()) for d in found] == [
            ("affiliate_coupon_usages", ("occurred_at",)),
            ("affiliate_coupon_usages", ("occurred_at",)),
            ("promo_code_uses", ("bonus_amount",)),
        ]
        assert await comparer.differences(db, one) == []
        assert await comparer.overwrite(db, [*one, *other]) == 3
        assert await ledgers(db, sources=True) == before

        await db.execute("UPDATE affiliate_coupon_usages SET occurred_at = occurred_at + interval '1 day'")
        found = await comparer.differences(db, [*one, *other])
        assert [d.key for d in found] == [("1", "A"), ("1", "P")]  # each once, though two records tell of it
        assert await comparer.overwrite(db, [*one, *other]) == 2


async def test_of_a_click_told_twice_in_one_window_each_is_compared_with_its_own_record(db, database_url):
    one = of(a_click_event("px-1", click_id="c1"))
    other = records_of(a_click_event("px-2", click_id="c1"), partition=Partition("click", 1))
    async with comparers(database_url) as (worker, comparer, _):
        await worker.write(other)
        await worker.write(one)
        await alter(db, "aff_clicks", "pixel_id", "px-1")
        (found,) = await comparer.differences(db, [*one, *other])
        assert (found.stored["pixel_id"], found.wanted["pixel_id"]) == ("px-1", "px-2")
        assert await comparer.overwrite(db, [*one, *other]) == 1
        assert await db.fetchval("SELECT pixel_id FROM aff_clicks") == "px-2"


@pytest.mark.parametrize("table", ["affiliate_coupon_usages", "promo_code_uses"])
async def test_a_consequence_that_is_not_drawn_is_found_by_the_order_and_by_its_cancellation(
    db, database_url, table
):
    orders, canceled = of(ORDER), of(a_cancellation("1", timestamp=later(5)))
    async with comparers(database_url) as (worker, comparer, _):
        await worker.write([*orders, *canceled])
        for wrong in (None, later(9)):
            for records in (orders, canceled):
                await alter(db, table, "reversed_at", wrong)
                (found,) = await comparer.differences(db, records)
                assert (found.table, found.columns()) == (table, ("reversed_at",))
                assert (found.stored["reversed_at"], found.wanted["reversed_at"]) == (wrong, later(5))
                assert await comparer.overwrite(db, records) == 1
                assert await db.fetchval(f"SELECT reversed_at FROM {table}") == later(5)
    assert await find_drift(db, COUNTERS) == []


async def test_a_record_that_lost_sets_a_consequence_right_and_nothing_else(db, database_url):
    orders = of(ORDER, an_order("1", timestamp=later(), promotions=[a_promotion("P")]))
    async with comparers(database_url) as (worker, comparer, _):
        await worker.write(orders)
        before = await ledgers(db, sources=True)
        for table in ("affiliate_coupon_usages", "promo_code_uses"):
            await alter(db, table, "reversed_at", NOON)
        found = await comparer.differences(db, orders[1:])
        assert [d.columns() for d in found] == [("reversed_at",), ("reversed_at",)]
        assert await comparer.overwrite(db, orders[1:]) == 2
        assert await ledgers(db, sources=True) == before


async def test_what_a_link_names_is_missing_where_somebody_has_deleted_it(db, database_url):
    links = of(a_link_event(partner_id="p1"), a_link_event("l2", partner_id="p1"))
    async with comparers(database_url) as (worker, comparer, _):
        await worker.write(links)
        await db.execute("DELETE FROM programs; DELETE FROM partners")
        found = await comparer.differences(db, links)
        assert [(d.table, d.key, d.verdict, d.source_offset) for d in found] == [
            ("programs", ("cultgaia.com",), "missing", 0),
            ("partners", ("p1",), "missing", 0),
        ]
        assert await comparer.overwrite(db, links) == 0


async def test_a_link_in_an_imported_program_does_not_differ(db, database_url):
    await db.execute("INSERT INTO programs (id, base_domain) VALUES ('theirs', 'cultgaia.com')")
    links = of(a_link_event())
    async with comparers(database_url) as (worker, comparer, _):
        await worker.write(links)
        assert await db.fetchval("SELECT program_id FROM links") == "theirs"
        assert await comparer.differences(db, links) == []


async def test_a_user_that_a_backfill_made_gives_way_to_what_is_told_of_him(db, database_url):
    await db.execute("INSERT INTO shop_users (id, occurred_at) VALUES ('u1', '2026-01-01Z')")
    users = of(a_user_event(name="Ada"))
    async with comparers(database_url) as (_, comparer, _):
        (found,) = await comparer.differences(db, users)
        assert (found.verdict, found.columns()) == ("differs", ("name", "occurred_at"))
        assert await comparer.overwrite(db, users) == 1
        assert await db.fetchval("SELECT name FROM partners WHERE id = 'pn_u1'") == "Ada"


async def test_a_link_that_gets_its_user_back_gets_his_partner_too(db, database_url):
    links = of(a_link_event(user_id="u1"))
    async with comparers(database_url) as (worker, comparer, _):
        await worker.write([*of(a_user_event("u1"), a_user_event("u2")), *links])
        await db.execute("UPDATE links SET user_id = 'u2', partner_id = 'pn_u2'")
        await comparer.overwrite(db, links)
        assert tuple(await db.fetchrow("SELECT user_id, partner_id FROM links")) == ("u1", "pn_u1")


async def test_a_partner_that_a_person_has_given_to_a_link_stays(db, database_url):
    links = of(a_link_event())
    async with comparers(database_url) as (worker, comparer, _):
        await worker.write(links)
        await db.execute("UPDATE links SET partner_id = 'p7', url = 'https://example.com'")
        (found,) = await comparer.differences(db, links)
        assert found.columns() == ("url",)
        await comparer.overwrite(db, links)
        assert await db.fetchval("SELECT partner_id FROM links") == "p7"


async def test_a_redemption_without_its_claim_leaves_the_claim_missing(db, database_url):
    claims = of(a_claim_event())
    async with comparers(database_url) as (worker, comparer, replay):
        await worker.write(of(a_redemption_event(attempt_id="a1")))
        (found,) = await comparer.differences(db, claims)
        assert (found.table, found.key, found.verdict) == ("customer_vouchers", ("c1", "v1"), "missing")
        assert await comparer.overwrite(db, claims) == 0
        await replay.write(claims)
        assert await comparer.differences(db, claims) == []


async def test_a_voucher_that_only_its_scans_are_known_of_is_missing(db, database_url):
    vouchers = of(a_voucher_event())
    async with comparers(database_url) as (worker, comparer, _):
        await worker.write(of(a_scan_event()))
        (found,) = await comparer.differences(db, vouchers)
        assert (found.table, found.key, found.verdict) == ("vouchers", ("v1",), "missing")


async def test_the_log_of_an_alert_is_no_stock_change_that_differs(db, database_url):
    """Somebody publishes a change under an alert's id and time: it does not stand, and nothing is to be set right."""
    async with comparers(database_url) as (_, comparer, _):
        await db.execute(
            """INSERT INTO alerts (alert_id, kind, subject, cause, payload, raised_at)
               VALUES ('m', 'low-stock', 'k', 'c', '{}', $1)""",
            NOON,
        )
        await db.execute(
            """INSERT INTO inventory_events (event_id, occurred_at, sku, event_type, new_stock)
               VALUES ('m', $1, 'k', 'low_stock', 9)""",
            NOON,
        )
        change = StockChange(sku="k", event_id="m", new_stock=1, timestamp=NOON)
        assert await comparer.differences(db, of(change)) == []


async def test_months_that_are_closed_are_not_compared(db, database_url):
    """Their rows are gone, and their sums are kept: nothing is missing."""
    old = datetime(2026, 1, 5, tzinfo=NOON.tzinfo)
    events = [(a_click_event("p", click_id="c1", timestamp=at), "aff_clicks") for at in (old, NOON)] + [
        (a_scan_event(scan_id="s1", timestamp=at), "voucher_scans") for at in (old, NOON)
    ]
    events += [
        (StockChange(sku="k", event_id="e1", new_stock=1, timestamp=at), "inventory_events")
        for at in (old, NOON)
    ]
    async with comparers(database_url) as (worker, comparer, _):
        for topic in ("click", "scan", "stock-change"):
            await worker.write(of(*(event for event, _ in events if event.topic == topic)))
        for statement in ("close_click_partitions", "close_scan_partitions", "close_inventory_partitions"):
            await db.fetch(sql(statement), date(2026, 2, 1))
        for topic, table in (
            ("click", "aff_clicks"),
            ("scan", "voucher_scans"),
            ("stock-change", "inventory_events"),
        ):
            records = of(*(event for event, _ in events if event.topic == topic))
            assert await comparer.differences(db, records) == []
            await db.execute(f"DELETE FROM {table}")
            assert [d.verdict for d in await comparer.differences(db, records)] == ["missing"]


async def test_the_worker_may_compare_and_overwrite(postgres_server):
    with owner_and_worker(postgres_server.dsn) as (_, worker_address):
        async with comparers(worker_address) as (worker, comparer, _):
            db = await asyncpg.connect(worker_address)
            for ledger in LEDGERS:
                worker.states.clear()
                await db.execute("UPDATE stream_positions SET next_offset = 0, applied = 0, duplicates = 0")
                await worker.write(of(ledger.event))
                column = ledger.columns[0]
                value = smaller_and_larger(column, await db.fetchval(f"SELECT {column} FROM {ledger.table}"))[
                    1
                ]
                await alter(db, ledger.table, column, value)
                assert await comparer.overwrite(db, of(ledger.event)) >= 1
                assert await comparer.differences(db, of(ledger.event)) == []
            await db.close()


async def test_what_differs_is_looked_at_again_once_it_is_held(db, database_url):
    """A smaller content is being written meanwhile: it is waited for, and stands."""
    refunds = of(a_refund_event("1", amount=5))
    async with comparers(database_url) as (worker, comparer, _):
        await worker.write(refunds)
        await alter(db, "order_refunds", "amount", 9)
        async with connections(database_url, 1) as (other,):
            writing = db.transaction()
            await writing.start()
            await db.execute("UPDATE order_refunds SET amount = 1, source_offset = 1")
            overwriting = asyncio.create_task(comparer.overwrite(other, refunds))
            async with connections(database_url, 1) as (observer,):
                await waits_for_a_lock(observer, other)
            await writing.commit()
            assert await overwriting == 0
        assert await db.fetchval("SELECT amount FROM order_refunds") == 1


async def test_rows_are_looked_up_one_by_one_whatever_a_young_table_seems_to_be(db, database_url):
    """What was planned for a table of one row is kept for a while: it must not read the table of a million whole."""
    async with comparers(database_url) as (worker, comparer, _):
        for event in {ledger.event.topic: ledger.event for ledger in LEDGERS}.values():
            await worker.write(of(event))
        await db.execute("ANALYZE")
        async with db.transaction():
            plans = []
            for ledger in LEDGERS:
                for comparison, rows in await comparer.comparisons(db, of(ledger.event)):
                    async with by_index(db):
                        plans += [await explained(db, comparison, rows)] if rows else []
            assert await db.fetchval("SHOW enable_seqscan") == "on"
    assert len(plans) >= len(LEDGERS)
    for plan in plans:
        assert "Seq Scan" not in plan, plan
        assert "Nested Loop" in plan, plan


async def explained(db: asyncpg.Connection, comparison: Comparison, rows: Rows) -> str:
    """How a comparison would be looked for."""
    lines = [line for line in sql(comparison.find).splitlines() if not line.startswith("--")]
    return "\n".join(
        row[0] for row in await db.fetch("EXPLAIN " + "\n".join(lines), *asked(comparison, rows))
    )


# Any set of events, and whatever a person may do to its rows.


def documents_of(dice: random.Random, count: int) -> list[dict[str, Any]]:
    """Events of every topic, of few orders and vouchers, so that many meet; a click or scan says one thing."""

    def any_of(letter: str, of_how_many: int = 3) -> str:
        return f"{letter}{dice.randrange(of_how_many)}"

    def metadata() -> dict[str, Any]:
        return {"metadata": {"a": dice.randrange(2)}} if dice.random() < 0.5 else {}

    def promotion() -> dict[str, Any]:
        return {"code": any_of("P"), "bonus_amount": str(dice.randrange(3))}

    makers = {
        "order.placed": lambda: {
            "order_id": any_of("o"), "codes": [any_of("A") for _ in range(dice.randrange(3))],
            "promotions": [promotion() for _ in range(dice.randrange(3))], "total": dice.randrange(3),
        },
        "order.canceled": lambda: {"order_id": any_of("o", 5), "reason": any_of("r")},
        "order.refunded": lambda: {"order_id": any_of("o"), "refund_id": any_of("r"), "amount": dice.randrange(3)},
        "conversion": lambda: {
            "order_id": any_of("o"), "revenue": dice.randrange(9), **dice.choice([{"pixel_id": any_of("x")}, {}]),
            "link_id": any_of("l"),
        },
        "click": lambda: dice.choice([{"click_id": f"c{n}", "pixel_id": f"x{n}"} for n in range(4)]),
        "user.created": lambda: {"user_id": any_of("u"), "name": any_of("n")},
        "link.created": lambda: {
            "link_id": any_of("l"), "url": f"https://{any_of('shop')}.com/", "user_id": any_of("u"),
            **dice.choice([{"partner_id": any_of("p")}, {}]), "pixel_id": any_of("x"),
        },
        "voucher.created": lambda: {"voucher_id": any_of("v"), "title": any_of("t")},
        "impression": lambda: {"voucher_id": any_of("v"), **dice.choice([{"impression_id": any_of("i")}, {}])},
        "claim": lambda: {"voucher_id": any_of("v"), "customer_id": any_of("c"), **metadata()},
        "redemption": lambda: {
            "voucher_id": any_of("v"), "customer_id": any_of("c"), "business_id": any_of("b"),
            "successful": dice.random() < 0.6, **dice.choice([{"attempt_id": any_of("a")}, {}]), **metadata(),
        },
        "scan": lambda: dice.choice([
            {"scan_id": f"s{n}", "voucher_id": f"v{n % 3}", "user_id": f"c{n % 3}"} for n in range(5)
        ]) | {"scan_type": "CUSTOMER", "scan_source": "LINK"},
        "stock-change": lambda: {
            "event_id": any_of("e"), "sku": any_of("k"), **metadata(),
            **dice.choice([{"new_stock": dice.randrange(50)}, {"quantity_delta": dice.randrange(5)}]),
        },
    }  # fmt: skip
    topics = [dice.choice(list(makers)) for _ in range(count)]
    return [
        {"topic": topic, "timestamp": f"2026-03-01T12:00:0{dice.randrange(3)}Z", **makers[topic]()}
        for topic in topics
    ]


TELLING = {"customer_vouchers": "claimed_at IS NOT NULL", "vouchers": "created_at IS NOT NULL"}
"""Which rows an event has told of, where there are others."""


DRAWN = "reversed_at IS NOT DISTINCT FROM (SELECT canceled_at FROM order_cancellations WHERE order_id = t.order_id)"


async def told(db: asyncpg.Connection) -> dict[tuple[Any, ...], tuple[Any, ...]]:
    """(table, key) → what an event decides of the row, and of a reversal whether it is its order's cancellation."""
    found = {}
    for ledger in LEDGERS:
        uses = ledger.table == "promo_code_uses"
        key = (
            "order_id, (SELECT code FROM promo_codes AS p WHERE p.id = promo_code_id)"
            if uses
            else ", ".join(ledger.key)
        )
        size = 2 if uses else len(ledger.key)
        columns = ", ".join(ledger.columns).replace("reversed_at", DRAWN)
        rows = await db.fetch(
            f"SELECT {key}, {columns} FROM {ledger.table} AS t "
            f"WHERE source_id IS NOT NULL AND {TELLING.get(ledger.table, 'true')}"
        )
        found |= {(ledger.table, *tuple(row)[:size]): tuple(row)[size:] for row in rows}
    return found


async def tamper(db: asyncpg.Connection, dice: random.Random) -> None:
    """Delete or alter a random row by hand."""
    ledger = dice.choice(LEDGERS)
    where = f"source_id IS NOT NULL AND {TELLING.get(ledger.table, 'true')}"
    place = await db.fetchrow(
        f"SELECT tableoid::regclass AS part, ctid, * FROM {ledger.table} WHERE {where} ORDER BY random() LIMIT 1"
    )
    if place is None:
        return
    at = f"tableoid = '{place['part']}'::regclass AND ctid = '({place['ctid'][0]},{place['ctid'][1]})'"
    if dice.random() < 0.4 and ledger.table != "vouchers":  # its counts would go with it
        await db.execute(f"DELETE FROM {ledger.table} WHERE {at}")
        return
    column = dice.choice(ledger.columns)
    value = smaller_and_larger(column, place[column])[dice.randrange(2)]
    if isinstance(value, Decimal | int) and value < 0 and column != "quantity_delta":
        value = 77
    await db.execute(f"UPDATE {ledger.table} SET {column} = $1 WHERE {at}", value)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32), schedule=schedules, count=st.integers(1, 60))
async def test_of_any_events_exactly_what_a_person_has_altered_is_found_and_healed(
    db, database_url, seed, schedule, count
):
    dice = random.Random(seed)
    await empty(db, (*EVERYTHING, *STOCK))
    async with comparers(database_url) as (worker, comparer, replay):
        logs = await run(schedule, documents_of(dice, count), [worker])
        records = [record for log in logs.values() for record in log]
        assert await comparer.differences(db, records) == []

        before, rows = await told(db), await ledgers(db)
        for _ in range(dice.randrange(5)):
            await tamper(db, dice)
        after = await told(db)
        expected = {
            (*place, "missing" if place not in after else "differs")
            for place, content in before.items()
            if after.get(place) != content
        }
        found = {(d.table, *d.key, d.verdict) for d in await comparer.differences(db, records)}
        assert found == expected

        step = dice.randint(1, 9)
        in_batches = [
            log[start : start + step] for log in logs.values() for start in range(0, len(log), step)
        ]
        seen = {(d.table, *d.key) for batch in in_batches for d in await comparer.differences(db, batch)}
        assert seen == {place[:-1] for place in expected}  # the same, looked for in parts

        for batch in in_batches:
            await comparer.heal(db, replay, batch)
        assert await ledgers(db) == rows
        assert await comparer.differences(db, records) == []
    assert await find_drift(db, COUNTERS) == []
