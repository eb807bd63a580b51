"""`counterfoil explain sku`: the rows behind a product's stock, whether it is their sum, and what was told of it."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest

from counterfoil.events import Rules, StockChange
from counterfoil.explaining import KINDS, explain
from counterfoil.explaining.rows import Span
from counterfoil.explaining.view import AGREES, DISAGREES, VIEWS, sections
from counterfoil.ingest.partitions import Partition
from support.builders import NOON, later, records_of
from support.postgres_road import plain_settings, scribes

CHANGES = Partition("stock-change", 0)
NEVER_TOO_OLD = 10**9


def a_change(sku: str = "A", **told: Any) -> StockChange:
    """A decoded stock change."""
    return StockChange(sku=sku, **({"timestamp": NOON} | told))


COUNTED = (
    a_change(event_id="e1", new_stock=50, name="Anvil", threshold=20),
    a_change(event_id="e2", timestamp=later(10), new_stock=100, metadata='{"source": "till"}'),
    a_change(event_id="e3", timestamp=later(20), quantity_delta=-7, event_type="sale"),
    a_change(event_id="e4", timestamp=later(5), quantity_delta=-30, event_type="sale"),
    a_change(event_id="e5", timestamp=later(30), quantity_delta=4, event_type="restock"),
)
"""They come to 100 − 7 + 4."""


async def tell(address: str, *changes: StockChange, first: int = 0) -> None:
    async with scribes(address, settings=plain_settings(alert_max_age_s=NEVER_TOO_OLD)) as (worker,):
        await worker.write(records_of(*changes, partition=CHANGES, first=first))


@pytest.fixture
async def told(db, database_url):
    """A product that was counted twice and has moved since."""
    await tell(database_url, *COUNTED)
    return db


@pytest.fixture
async def report(database_url):
    """The report of the product A, or of another."""

    async def report(sku="A", **span):
        connection = await asyncpg.connect(database_url)
        try:
            return await explain(connection, "sku", sku, Rules(), Span(**span))
        finally:
            connection.terminate()

    return report


def shown(report) -> str:
    """The prose and the cells that a terminal shows."""
    return "\n".join(f"{section.title}\n{section.rows or ''}" for section in sections(report))


def test_what_can_be_explained_can_be_shown():
    assert KINDS.keys() == VIEWS.keys() == AGREES.keys()


# What its stock is made of


async def test_the_stock_is_the_latest_absolute_and_each_delta_after_it(told, report):
    found = await report()
    assert (found["stored"]["stock"], found["counted"]["stock"]) == (97, 97)
    assert (found["absolute"]["event_id"], found["absolute"]["stock"]) == ("e2", 100)
    assert found["absolute"]["source"]["offset"] == 1
    assert found["deltas"] == {"deltas": 2, "sum": -3}
    assert found["agrees"]
    assert (
        "Stock 97: 100 counted 2026-03-01 12:00:10 by e2 (change, stock-change/0@1), -3 by 2 deltas since then."
        in shown(found)
    )


async def test_its_changes_stand_newest_first_with_the_stock_after_each(told, report):
    found = await report()
    assert [(row["event_id"], row["part"], row["stock_after"]) for row in found["changes"]] == [
        ("e5", "delta", 97),
        ("e3", "delta", 93),
        ("e2", "absolute", 100),
        ("e4", "before", None),
        ("e1", "before", None),
    ]
    assert {row["source"]["topic"] for row in found["changes"]} == {"stock-change"}
    assert found["changes"][2]["metadata"] == {"source": "till"}  # what an event calls source is no source
    assert "name Anvil, threshold 20" in shown(found)


async def test_without_an_absolute_the_deltas_count_from_nothing(db, report, database_url):
    await tell(
        database_url, a_change(event_id="e1", quantity_delta=-2), a_change(event_id="e2", quantity_delta=7)
    )
    found = await report()
    assert (found["absolute"], found["deltas"]) == (None, {"deltas": 2, "sum": 5})
    assert [row["stock_after"] for row in found["changes"]] == [5, -2]
    assert "Stock 5: nobody has counted it, +5 by 2 deltas." in shown(found)


async def test_what_stands_of_its_details_is_said_with_who_told_it(told, report):
    found = await report()
    product = found["product"]
    assert (product["name"], product["threshold"], product["unit_price"]) == ("Anvil", 20, None)
    assert [(row["field"], row["value"], row["stands"]) for row in found["details"]] == [
        ("name", "Anvil", True),
        ("threshold", "20", True),
    ]
    assert "told 2026-03-01 12:00:00 by e1" in shown(found)
    await told.execute("UPDATE inventory_products SET threshold = 5, unit_price = 9.5")
    found = await report()
    assert (found["product"]["unit_price"], found["details"][1]["stands"], found["agrees"]) == (
        "9.50",
        False,
        True,
    )
    assert "by hand; told 2026-03-01 12:00:00 by e1: 20" in shown(found)


async def test_what_gave_way_is_shown_as_refused(told, report, database_url):
    await tell(database_url, a_change(event_id="e2", timestamp=later(10), new_stock=101), first=5)
    found = await report()
    assert found["counted"]["stock"] == 97
    (refused,) = found["refused_changes"]
    assert (refused["content"]["new_stock"], refused["source"]["offset"]) == (101, 5)
    assert found["totals"]["refused_changes"] == 1
    assert "new_stock 101" in shown(found)
    assert "refused: " in shown(found)


async def test_a_product_that_nothing_has_moved_is_explained(db, report):
    await db.execute("INSERT INTO inventory_products (sku, name) VALUES ('A', 'Anvil')")
    found = await report()
    assert (found["counted"]["stock"], found["changes"], found["agrees"]) == (0, [], True)
    assert "Stock 0: nobody has counted it, no delta." in shown(found)
    assert AGREES["sku"] in shown(found)


async def test_a_sku_is_found_as_events_would_spell_it(told, report):
    assert (await report(" A "))["id"] == "A"
    assert await report("a") is None
    assert await report("nobody") is None


@pytest.mark.parametrize(
    ("by_hand", "counters"),
    [
        ("UPDATE inventory_products SET stock = 9", {"stock"}),
        ("UPDATE inventory_products SET last_restocked = NULL", {"last_restocked"}),
        ("UPDATE inventory_products SET counted_from = '-infinity', counted_from_event = ''",
         {"counted_from", "counted_from_event"}),
        ("DELETE FROM inventory_events WHERE event_id = 'e3'", {"stock"}),
        ("DELETE FROM inventory_products", {"stock", "last_restocked", "counted_from", "counted_from_event"}),
    ],
)  # fmt: skip
async def test_what_was_overwritten_is_told(told, report, by_hand, counters):
    async with told.transaction():
        await told.execute("SET LOCAL session_replication_role = replica")
        await told.execute(by_hand)
    found = await report()
    assert {drift["counter"] for drift in found["drift"]} == counters
    assert not found["agrees"]
    assert DISAGREES in shown(found)


# How much of it


async def test_a_list_that_is_cut_says_how_long_it_is(told, report):
    found = await report(limit=1)
    assert [row["event_id"] for row in found["changes"]] == ["e5"]
    assert (found["totals"]["changes"], found["deltas"]["deltas"]) == (5, 2)
    assert "Stock changes (1 of 5, newest first)" in shown(found)
    assert found["absolute"]["event_id"] == "e2"


async def test_numbers_of_any_size_are_told_as_json(told, report):
    await told.execute(
        """UPDATE inventory_events SET metadata = format('{"big": 1%s}', repeat('0', 5000))::jsonb
           WHERE event_id = 'e2'"""
    )
    found = json.loads(json.dumps(await report(), default=str, allow_nan=False))
    assert len(found["changes"][2]["metadata"]["big"]) == 5001


# What was told when it was low


async def test_alerts_are_shown_with_what_became_of_them_on_each_channel(told, report, database_url):
    await tell(database_url, a_change(event_id="e6", timestamp=later(60), quantity_delta=-90), first=5)
    (alert,) = (await report())["alerts"]
    assert (alert["stock"], alert["threshold"], alert["previous_stock"], alert["kind"]) == (7, 20, 97, "low")
    assert alert["notifications"] == []
    assert "no channel" in shown(await report())
    await told.execute(
        """INSERT INTO notifications
             (alert_id, channel, status, attempts, topic, subject, payload, raised_at, sent_at, error)
           VALUES ($1, 'webhook', 'sent', 1, 'low-stock', 'A', '{}', $2, $2, NULL),
                  ($1, 'email', 'pending', 3, 'low-stock', 'A', '{}', $2, NULL, 'refused [/red]')""",
        alert["alert_id"],
        NOON,
    )
    found = await report()
    assert [
        (told["channel"], told["status"], told["attempts"]) for told in found["alerts"][0]["notifications"]
    ] == [("email", "pending", 3), ("webhook", "sent", 1)]
    assert "email pending, 3 tries: refused [/red], webhook at 2026-03-01 12:00:00" in shown(found)
    assert found["product"]["level_told_at"] == alert["raised_at"]
    assert "this level was told at " in shown(found)
    assert "low_stock" not in {row["event_type"] for row in found["changes"]}
    assert found["totals"]["alerts"] == 1


async def test_the_episode_that_a_product_is_in_is_shown(told, report):
    await told.execute("INSERT INTO low_stock_episodes (sku, told_stock) VALUES ('A', 9)")
    assert "told at a stock of 9, since " in shown(await report())


# What is closed


async def test_closed_months_are_shown_with_the_stock_that_they_came_to(db, report):
    old = datetime(2025, 3, 1, tzinfo=UTC)
    for number, (new_stock, delta) in enumerate([(40, None), (None, -5)]):
        await db.execute(
            "INSERT INTO inventory_events (event_id, occurred_at, sku, new_stock, quantity_delta) "
            "VALUES ($1, $2, 'A', $3, $4)",
            f"old {number}",
            old + timedelta(hours=number),
            new_stock,
            delta,
        )
    await db.execute("INSERT INTO inventory_events (event_id, sku, quantity_delta) VALUES ('new', 'A', -1)")
    await db.fetch("SELECT close_inventory_partitions('2025-04-01')")
    found = await report()
    assert (found["closing"]["stock"], found["counted"]["stock"], found["agrees"]) == (35, 34, True)
    assert found["absolute"]["is_closed"]
    assert [row["event_id"] for row in found["changes"]] == ["new"]
    text = shown(found)
    assert (
        "What occurred before 2025-04-01 00:00:00 is closed: a stock of 35, counted from 2025-03-01 00:00:00."
        in text
    )
    assert "Stock 34: 35 counted 2025-03-01 00:00:00 by old 0 (closed), -1 by 1 delta since then." in text


async def test_a_closing_of_deltas_alone_counts_like_one(db, report):
    await db.execute(
        "INSERT INTO inventory_events (event_id, occurred_at, sku, quantity_delta) "
        "VALUES ('old', '2025-03-01Z', 'A', 6)"
    )
    await db.fetch("SELECT close_inventory_partitions('2025-04-01')")
    found = await report()
    assert (found["absolute"], found["deltas"], found["agrees"]) == (None, {"deltas": 1, "sum": 6}, True)
    assert "a stock of 6, of deltas alone." in shown(found)
