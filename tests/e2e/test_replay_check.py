"""`replay` without a mode says what is missing, what differs and what is malformed, and writes nothing."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import asyncpg
import pytest

from support.factories import (
    Message,
    a_cancellation,
    a_claim,
    a_click,
    a_conversion,
    a_malformed_order,
    a_redemption,
    a_refund,
    a_scan,
    an_order,
    order_ids,
    orders,
)
from support.ledgers import dead_letters, everything_is_read
from support.replaying import Replays
from support.servers import Broker, StartWorker
from support.stream import Stream

EVERYTHING = "--all"


@pytest.fixture
async def stream(broker: Broker, topic_prefix: str) -> AsyncIterator[Stream]:
    """This test's topics on whatever broker there is."""
    async with Stream(broker, topic_prefix) as stream:
        yield stream


@pytest.fixture
def replays(stream: Stream, database_url: str) -> Replays:
    return Replays(stream, database_url)


async def test_what_was_never_written_is_missing_and_stays_so(
    stream: Stream, replays: Replays, db: asyncpg.Connection
) -> None:
    await stream.create()
    ids = order_ids(300)
    await stream.publish(*orders(ids), a_malformed_order())
    before = await what_is_there(db)

    checked = await replays.check("order.placed")

    assert checked.code == 1
    assert checked.topic(stream.placed) | {
        "read": 301, "missing": 300, "malformed": 1, "not_parked": 1, "already_there": 0, "applied": 0,
    } == checked.topic(stream.placed)  # fmt: skip
    assert await what_is_there(db) == before


async def test_deleted_and_altered_rows_of_every_ledger_are_named_and_nothing_else(
    stream: Stream, replays: Replays, db: asyncpg.Connection, start_worker: StartWorker
) -> None:
    await stream.create()
    ids = order_ids(40)
    await publish_some_of_everything(stream, ids)
    worker = await start_worker(stream.kafka, only="ingest")
    await everything_is_read(db, stream)
    assert await worker.terminate() == 0
    assert (await replays.check(EVERYTHING)).code == 0

    await db.execute("DELETE FROM affiliate_coupon_usages WHERE order_id = $1", ids[0])
    await db.execute("DELETE FROM aff_clicks WHERE click_id = 'click-7'")
    await db.execute("DELETE FROM redemption_attempts WHERE attempt_id = 'attempt-3'")
    await db.execute("UPDATE order_refunds SET amount = 77 WHERE refund_id = 'refund-2'")
    await db.execute("UPDATE voucher_scans SET user_agent = 'somebody else' WHERE scan_id = 'scan-5'")
    before = await what_is_there(db)
    checked = await replays.check(EVERYTHING)

    assert checked.code == 1
    assert {(row["table"], row["key"][0]) for row in checked.summary["missing"]} == {
        ("affiliate_coupon_usages", ids[0]),
        ("aff_clicks", "click-7"),
        ("redemption_attempts", "attempt-3"),
    }
    assert {(row["table"], *row["key"][:2], *row["columns"]) for row in checked.summary["differs"]} == {
        ("order_refunds", ids[2], "refund-2", "amount"),
        ("voucher_scans", "scan-5", (await scan_time(db)).isoformat(), "user_agent"),
    }
    assert checked.summary["totals"]["missing"] == 4  # an order of two codes among them
    assert checked.summary["totals"]["differs"] == 2
    assert await what_is_there(db) == before


async def test_what_the_live_group_has_not_come_to_is_not_missing(
    stream: Stream, replays: Replays, db: asyncpg.Connection, start_worker: StartWorker
) -> None:
    await stream.create(partitions=1)
    await stream.publish(*orders(order_ids(20)))
    worker = await start_worker(stream.kafka, only="ingest")
    await everything_is_read(db, stream)
    assert await worker.terminate() == 0
    await stream.publish(*orders(order_ids(5)), a_malformed_order())

    checked = await replays.check("order.placed")

    assert checked.code == 0
    found = checked.topic(stream.placed)
    assert (found["already_there"], found["unread"], found["missing"], found["malformed"]) == (20, 5, 0, 0)


async def test_a_parked_record_that_would_be_good_now_is_missing_and_one_that_is_not_parked_is_said(
    stream: Stream, replays: Replays, db: asyncpg.Connection
) -> None:
    await stream.create(partitions=1)
    await stream.publish(an_order(order_id="good-now"), a_malformed_order(), a_malformed_order())
    await replays.apply("order.placed")
    await db.execute("DELETE FROM affiliate_coupon_usages")
    await db.execute('UPDATE dead_letters SET "offset" = 0 WHERE "offset" = 1')

    checked = await replays.check("order.placed")

    assert [row["key"] for row in checked.summary["missing"]] == [["good-now", "SPRING"]]
    assert [(row["offset"], row["parked"]) for row in checked.summary["malformed"]] == [(1, False), (2, True)]
    assert checked.code == 1


async def test_records_of_closed_months_are_malformed_and_not_missing(
    stream: Stream, replays: Replays, db: asyncpg.Connection
) -> None:
    await stream.create(partitions=1)
    old, new = "2024-02-10T12:00:00Z", "2026-02-10T12:00:00Z"
    clicks = [a_click(click_id="old", timestamp=old), a_click(click_id="new", timestamp=new)]
    await stream.publish(*clicks, topic=stream.clicks)
    await replays.apply("click")
    await db.execute("SELECT close_click_partitions('2025-01-01')")

    checked = await replays.check("click")

    assert checked.code == 0
    assert checked.summary["malformed_kinds"] == [
        {"topic": stream.clicks, "kind": "before_retention", "records": 1}
    ]
    assert checked.topic(stream.clicks)["already_there"] == 1
    assert await dead_letters(db) == []

    applied = await replays.apply("click")
    assert applied.topic(stream.clicks)["malformed"] == 1
    assert [row["error_kind"] for row in await dead_letters(db)] == ["before_retention"]


async def test_it_reads_in_a_read_only_transaction(
    stream: Stream, replays: Replays, db: asyncpg.Connection, database_url: str
) -> None:
    """A role that may write nothing at all is enough."""
    await stream.create()
    await publish_some_of_everything(stream, order_ids(10))
    await replays.apply(EVERYTHING)
    await db.execute("ALTER DATABASE " + quoted(database_url) + " SET default_transaction_read_only = on")

    assert (await replays.check(EVERYTHING)).code == 0


async def test_a_schema_of_an_older_version_is_wrong_use_and_not_a_finding(
    stream: Stream, replays: Replays, db: asyncpg.Connection
) -> None:
    await stream.create(partitions=1)
    await stream.publish(a_click(), topic=stream.topic("click"))
    await db.execute("ALTER TABLE forgotten_visitors RENAME TO of_a_later_version")
    ended = await replays.command("replay", "click")
    assert (ended.code, ended.out, ended.err.count("\n")) == (2, "", 1)
    assert ended.err.endswith("does not exist; run `counterfoil migrate` first\n")


async def test_the_table_shows_what_is_missing_without_styling_what_events_say(
    stream: Stream, replays: Replays
) -> None:
    await stream.create(partitions=1)
    await stream.publish(an_order(order_id="[red]x[/red]\u202e"), an_order(order_id="[red]y[/red]"))

    ended = await replays.command("replay", "order.placed")

    assert ended.code == 1
    assert "[red]y[/red]" in ended.out
    assert "\u202e" not in ended.out
    assert "--mode apply puts that right" in ended.out


def quoted(database_url: str) -> str:
    return '"' + urlsplit(database_url).path[1:] + '"'


async def scan_time(db: asyncpg.Connection) -> object:
    return await db.fetchval("SELECT occurred_at FROM voucher_scans WHERE scan_id = 'scan-5'")


async def publish_some_of_everything(stream: Stream, ids: list[str]) -> None:
    """As many events of most kinds as there are ids."""
    at = "2026-03-01T12:00:00Z"
    numbers = range(len(ids))
    of: dict[str, list[Message]] = {
        stream.placed: [an_order(order_id=i, codes=["SPRING", "VIP"], timestamp=at) for i in ids],
        stream.canceled: [a_cancellation(i, timestamp=at) for i in ids[1::4]],
        stream.refunded: [
            a_refund(ids[n], refund_id=f"refund-{n}", amount="1.50", timestamp=at) for n in numbers
        ],
        stream.conversions: [a_conversion(i, timestamp=at) for i in ids],
        stream.clicks: [a_click(click_id=f"click-{n}", timestamp=at) for n in numbers],
        stream.scans: [a_scan(scan_id=f"scan-{n}", timestamp=at) for n in numbers],
        stream.claims: [a_claim(customer_id=f"c{n}", timestamp=at) for n in numbers],
        stream.redemptions: [
            a_redemption(customer_id=f"c{n}", attempt_id=f"attempt-{n}", timestamp=at) for n in numbers
        ],
    }
    for topic, messages in of.items():
        await stream.publish(*messages, topic=topic)


async def what_is_there(db: asyncpg.Connection) -> dict[str, str]:
    """Every row of every table, by table."""
    tables = await db.fetch(
        """SELECT format('%I', relname) AS name FROM pg_class
           WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"""
    )
    return {
        row["name"]: json.dumps(
            [str(r["r"]) for r in await db.fetch(f"SELECT t::text AS r FROM {row['name']} AS t ORDER BY 1")]
        )
        for row in tables
    }
