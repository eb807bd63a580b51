"""`replay --mode apply` writes what is missing down the live road, and each fact counts once all the same."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator

import asyncpg
import pytest

from counterfoil.replaying.comparing import digest_of
from support.databases import address_of, clone, drop
from support.factories import Message, a_malformed_order, a_message, an_order, new_id, order_ids, orders
from support.ledgers import (
    blocked_backend,
    counted,
    dead_letters,
    everything_is_read,
    usages,
)
from support.mixed_log import Fact, mixed_log
from support.replaying import Replays
from support.roles import owner_and_worker
from support.servers import Broker, Server, StartWorker
from support.stream import Stream


@pytest.fixture
async def stream(broker: Broker, topic_prefix: str) -> AsyncIterator[Stream]:
    """This test's topics on whatever broker there is."""
    async with Stream(broker, topic_prefix) as stream:
        yield stream


@pytest.fixture
def replays(stream: Stream, database_url: str) -> Replays:
    return Replays(stream, database_url)


@pytest.fixture
def another_database_url(postgres_server: Server, template_database: str) -> Iterator[str]:
    """The address of a second fresh, migrated database."""
    name = clone(template_database, postgres_server.dsn)
    yield address_of(name, postgres_server.dsn)
    drop(name, postgres_server.dsn)


@pytest.mark.kafka
async def test_what_is_missing_is_written_and_live_positions_and_committed_offsets_stay(
    apache_kafka: Broker,
    topic_prefix: str,
    database_url: str,
    db: asyncpg.Connection,
    start_worker: StartWorker,
) -> None:
    async with Stream(apache_kafka, topic_prefix) as stream:
        await stream.create()
        ids = order_ids(200)
        await stream.publish(*orders(ids), a_malformed_order())
        worker = await start_worker(apache_kafka, only="ingest")
        await everything_is_read(db, stream)
        assert await worker.terminate() == 0
        committed, rows = await stream.committed(), await db.fetch("TABLE stream_positions")
        await db.execute("DELETE FROM affiliate_coupon_usages WHERE order_id = ANY($1::text[])", ids[:7])
        assert await counted(db) == {"SPRING": 193}

        applied = await Replays(stream, database_url).apply("order.placed")

        assert (applied.code, applied.topic(stream.placed)["applied"]) == (0, 7)
        assert applied.topic(stream.placed)["already_there"] == 193
        assert await usages(db) == sorted((i, "SPRING") for i in ids)
        assert await counted(db) == {"SPRING": 200}
        assert await db.fetch("TABLE stream_positions") == rows
        assert await stream.committed() == committed


async def test_its_account_closes_and_says_what_it_came_to(
    stream: Stream, replays: Replays, db: asyncpg.Connection
) -> None:
    await stream.create(partitions=2)
    ids = order_ids(50)
    await stream.publish(*orders(ids), *orders(ids[:10]), a_malformed_order())

    applied = await replays.apply("order.placed")

    row = await db.fetchrow(
        """SELECT sum(applied) AS applied, sum(duplicates) AS duplicates, sum(dead) AS dead, sum(passed_over) AS passed,
                  bool_and(next_offset = end_offset) AS done FROM replay_positions WHERE replay_id = $1""",
        applied.summary["replay_id"],
    )
    assert tuple(row) == (50, 10, 1, 0, True)
    assert await db.fetchval("SELECT finished_at IS NOT NULL FROM replays")
    assert await db.fetchval("SELECT count(*) FROM stream_positions") == 0


async def test_a_second_replay_finds_everything_there_and_changes_nothing(
    stream: Stream, replays: Replays, db: asyncpg.Connection
) -> None:
    await stream.create()
    await publish_facts(stream, some_facts(400))
    await replays.apply("--all")
    before = await digest_of(db)

    again = await replays.apply("--all")

    assert await digest_of(db) == before
    assert again.summary["totals"]["released"] == again.summary["totals"]["overwritten"] == 0
    assert (await replays.check("--all")).code == 0


@pytest.mark.slow
async def test_two_at_once_beside_live_traffic_come_to_what_one_alone_does(
    stream: Stream,
    replays: Replays,
    db: asyncpg.Connection,
    start_worker: StartWorker,
    another_database_url: str,
) -> None:
    await stream.create()
    facts = some_facts(1_500)
    await publish_facts(stream, facts[:500])
    worker = await start_worker(stream.kafka, only="ingest", batch_max_records=50)
    replaying = [asyncio.create_task(replays.apply("--all", batch_max_records=70)) for _ in range(2)]
    await publish_facts(stream, facts[500:])
    both = await asyncio.gather(*replaying)
    await everything_is_read(db, stream)
    after = await replays.apply("--all")
    assert await worker.terminate() == 0

    alone = Replays(stream, another_database_url)
    assert (await alone.apply("--all")).code == 0
    other = await asyncpg.connect(another_database_url)
    assert [replayed.code for replayed in (*both, after)] == [0, 0, 0]
    assert await digest_of(db) == await digest_of(other)
    await other.close()
    assert (await replays.check("--all")).code == 0


async def test_the_end_is_that_of_the_beginning_while_live_traffic_goes_on(
    stream: Stream, replays: Replays, db: asyncpg.Connection
) -> None:
    await stream.create()
    await stream.publish(*orders(order_ids(300)))
    async with db.transaction():
        await db.execute("LOCK TABLE affiliate_coupon_usages IN EXCLUSIVE MODE")
        replaying = asyncio.create_task(replays.apply("order.placed", batch_max_records=100))
        await blocked_backend(db, who="replay")
        await stream.publish(*orders(order_ids(300)))

    applied = await replaying

    assert applied.topic(stream.placed)["read"] == 300
    assert len(await usages(db)) == 300


async def test_rows_that_differ_are_put_right_when_asked(
    stream: Stream, replays: Replays, db: asyncpg.Connection
) -> None:
    await stream.create()
    await publish_facts(stream, some_facts(600))
    await replays.apply("--all")
    before = await digest_of(db)
    await alter_some_rows(db)
    wrong = await replays.check("--all")
    assert await digest_of(db) != before

    applied = await replays.apply("--all", "--overwrite")

    assert applied.summary["totals"]["overwritten"] == wrong.summary["totals"]["differs"] > 0
    assert (await replays.check("--all")).code == 0
    assert await digest_of(db) == before


async def test_the_workers_role_is_enough(stream: Stream, postgres_server: Server) -> None:
    await stream.create()
    await publish_facts(stream, some_facts(600))
    with owner_and_worker(postgres_server.dsn) as (owner, worker):
        replays = Replays(stream, worker)
        assert (await replays.apply("--all")).code == 0
        db = await asyncpg.connect(owner)
        try:
            await alter_some_rows(db)
        finally:
            await db.close()
        assert (await replays.check("--all")).code == 1
        assert (await replays.apply("--all", "--overwrite")).code == 0
        assert (await replays.check("--all")).code == 0


async def test_a_row_that_stands_by_its_ledgers_rule_is_put_right_only_when_asked(
    stream: Stream, replays: Replays, db: asyncpg.Connection
) -> None:
    await stream.create(partitions=1)
    await stream.publish(an_order(order_id="a", timestamp="2026-03-01T12:00:00Z"))
    await replays.apply("order.placed")
    await db.execute(
        "UPDATE affiliate_coupon_usages SET occurred_at = '2026-02-01Z'"
    )  # the earlier one stands
    times = "SELECT occurred_at::date::text FROM affiliate_coupon_usages"

    await replays.apply("order.placed")
    assert await db.fetchval(times) == "2026-02-01"
    await replays.apply("order.placed", "--overwrite")
    assert await db.fetchval(times) == "2026-03-01"


async def test_a_parked_record_that_is_good_now_is_written_and_resolved(
    stream: Stream, replays: Replays, db: asyncpg.Connection
) -> None:
    await stream.create(partitions=1)
    await stream.publish(an_order(order_id="long", note="x" * 500), a_malformed_order())
    await replays.apply("order.placed", max_event_bytes=200)
    assert await usages(db) == []

    applied = await replays.apply("order.placed")

    assert await usages(db) == [("long", "SPRING")]
    assert applied.summary["totals"]["released"] == 1
    assert [(r["offset"], r["resolution"], r["resolved_at"] is None) for r in await dead_letters(db)] == [
        (0, "replayed", False),
        (1, None, True),
    ]
    assert (await replays.apply("order.placed")).summary["totals"]["released"] == 0


@pytest.mark.parametrize(("options", "raised"), [((), 0), (("--with-alerts",), 1)])
async def test_no_alert_is_raised_unless_asked(
    options: tuple[str, ...], raised: int, stream: Stream, replays: Replays, db: asyncpg.Connection
) -> None:
    await stream.create(partitions=1)
    change = a_message({"event_id": new_id("event"), "sku": "A", "new_stock": 1}, key="A")
    await stream.publish(change, topic=stream.topic("stock-change"))

    await replays.apply("stock-change", *options)

    assert await db.fetchval("SELECT stock FROM inventory_products WHERE sku = 'A'") == 1
    assert await db.fetchval("SELECT count(*) FROM alerts") == raised


async def test_no_more_than_so_many_records_a_second_are_written(
    stream: Stream, replays: Replays, db: asyncpg.Connection
) -> None:
    await stream.create(partitions=1)
    await stream.publish(*orders(order_ids(90)))

    began = time.monotonic()
    applied = await replays.apply("order.placed", "--max-rate", "30")

    assert applied.topic(stream.placed)["applied"] == 90
    assert 2.0 <= applied.summary["seconds"] <= time.monotonic() - began
    assert applied.summary["rate"] < 46


async def test_the_summary_has_the_same_names_in_every_mode(stream: Stream, replays: Replays) -> None:
    await stream.create(partitions=1)
    await stream.publish(an_order())
    checked, applied = await replays.check("order.placed"), await replays.apply("order.placed")

    assert checked.summary.keys() == applied.summary.keys() >= {
        "mode", "window", "topics", "totals", "missing", "differs", "malformed", "notes", "seconds", "rate",
        "resumed", "replay_id",
    }  # fmt: skip
    assert checked.summary["topics"][0].keys() == applied.summary["topics"][0].keys()
    assert (checked.summary["mode"], applied.summary["mode"]) == ("check", "apply")
    assert checked.summary["replay_id"] is None


async def test_a_topic_that_kafka_does_not_have_is_said(stream: Stream, replays: Replays) -> None:
    ended = await replays.command("replay", "order.placed")
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith(f"counterfoil: {stream.placed}: Kafka at ")
    assert ended.err.endswith(" has no such topic\n")
    assert ended.err.count("\n") == 1

    await stream.create(partitions=1)
    ended = await replays.command("replay", "order.placed", "--partition", "3")
    assert (ended.code, ended.err) == (
        2, f"counterfoil: --partition 3: {stream.placed} has partition 0 alone\n",
    )  # fmt: skip


async def test_kafka_away_is_one_line_and_exit_code_3(replays: Replays, stream: Stream) -> None:
    ended = await replays.command("replay", "order.placed", kafka_bootstrap_servers="127.0.0.1:1")
    assert (ended.code, ended.out, ended.err.count("\n")) == (3, "", 1)
    assert ended.err.startswith("counterfoil: Kafka at 127.0.0.1:1: ")
    assert ended.err.endswith("; nothing was written\n")


def some_facts(count: int) -> list[Fact]:
    """Of every topic, with doubles, contradictions and malformed ones."""
    return list(mixed_log(count, end_ms=int(time.time() * 1000), prefix=new_id("mixed")))


async def publish_facts(stream: Stream, facts: list[Fact]) -> None:
    by_topic: dict[str, list[Message]] = {}
    for fact in facts:
        by_topic.setdefault(fact.topic, []).append(fact.message)
    for topic, messages in by_topic.items():
        await stream.publish(*messages, topic=stream.topic(topic))


async def alter_some_rows(db: asyncpg.Connection) -> None:
    """As somebody would by hand, in ledgers of every kind."""
    for statement in (
        "UPDATE affiliate_coupon_usages SET occurred_at = occurred_at - interval '1 day' WHERE {some}",
        "UPDATE aff_clicks SET user_agent = 'somebody else', source_id = source_id WHERE {some}",
        "UPDATE conversions SET revenue = revenue + 5 WHERE {some}",
        "UPDATE order_refunds SET amount = amount + 1 WHERE {some}",
        "UPDATE voucher_scans SET scan_type = 'BUSINESS' WHERE scan_type = 'CUSTOMER' AND {some}",
        "UPDATE inventory_events SET new_stock = new_stock + 3 WHERE new_stock IS NOT NULL",  # they are few
    ):
        changed = await db.execute(statement.format(some="source_offset % 7 = 0"))
        assert changed != "UPDATE 0", statement
