"""`replay --mode shadow` beside live traffic: equal to the last row, and what is altered by hand is named."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from counterfoil.embedded.process import KEPT_VARIABLES
from support.databases import execute
from support.factories import a_malformed_order, a_message, an_order
from support.http_client import Client
from support.ledgers import everything_is_read
from support.mixed_log import Fact, mixed_log
from support.replaying import Replayed, Replays
from support.roles import as_role
from support.servers import Broker, Server, StartWorker
from support.stream import Flow, Stream
from support.waiting import eventually
from support.worker import python_path

SHADOW = ("--all", "--mode", "shadow")


@pytest.fixture
async def stream(broker: Broker, topic_prefix: str) -> AsyncIterator[Stream]:
    """This test's topics on whatever broker there is."""
    async with Stream(broker, topic_prefix) as stream:
        yield stream


@pytest.fixture
def replays(stream: Stream, database_url: str) -> Replays:
    return Replays(stream, database_url)


class Facts(Flow[Fact]):
    """Facts of all topics that keep coming."""

    async def publish(self, chunk: Sequence[Fact]) -> None:
        await publish(self._stream, chunk)


async def publish(stream: Stream, facts: Sequence[Fact]) -> None:
    for topic in sorted({fact.topic for fact in facts}):
        messages = [fact.message for fact in facts if fact.topic == topic]
        await stream.publish_stubbornly(messages, topic=stream.topic(topic))


def some(count: int, seed: int = 1, prefix: str = "") -> list[Fact]:
    return list(mixed_log(count, seed=seed, end_ms=time.time_ns() // 1_000_000, prefix=prefix))


def nothing_differs(replayed: Replayed) -> bool:
    assert replayed.summary["differences"] == [], replayed.summary["differences"]
    assert replayed.code == 0
    return True


class Operators:
    """People who go on doing what people do, until told that it is enough."""

    def __init__(self, client: Client, db: asyncpg.Connection) -> None:
        self._client = client
        self._db = db
        self._enough = asyncio.Event()
        self.rounds = 0

    async def work(self) -> None:
        while not self._enough.is_set():
            await self._act(self.rounds)
            self.rounds += 1
            await asyncio.sleep(0.05)  # people are slow

    def enough(self) -> None:
        self._enough.set()

    async def _act(self, n: int) -> None:
        client, db = self._client, self._db
        await client.post("/api/affiliates", {"handle": f"a{n}", "name": f"A{n}", "pixelId": f"px{n % 50}"})
        await client.patch(f"/api/affiliates/a{n // 2}", {"status": ("paused", "active")[n % 2]})
        await client.post("/admin/affiliate-coupons", {"code": f"CODE{n % 9}", "delta": n, "reason": "test"})
        await client.post(
            "/api/inventory/products", {"sku": f"SKU-{n}", "name": f"N{n}", "stock": n, "threshold": 3}
        )
        await client.send(
            "PUT", f"/api/inventory/products/SKU-{n // 3}", {"stock": 7 + n, "unitPrice": "3.50"}
        )
        await client.post("/api/affiliates/track/click", {"pixelId": f"px{n % 50}"})
        async with db.transaction():
            await db.execute("INSERT INTO default_rates (percent) VALUES ($1)", n % 30)
            await db.execute(
                "INSERT INTO program_rates (program_id, percent) SELECT id, $1 FROM programs ORDER BY id LIMIT 1",
                n % 20,
            )
        await db.execute(
            "INSERT INTO affiliate_coupon_usages (order_id, code) VALUES ($1, 'CODE1')", f"hand{n}"
        )
        await db.execute(
            """INSERT INTO commissions (partner_id, order_id, amount, earnings, currency)
               VALUES ('somebody', $1, 10, 1, 'USD')""",
            f"hand{n}",
        )
        await db.execute("SELECT approve_commissions(0)")
        await db.execute("SELECT pay_commissions('somebody', 'USD', 'test', 'ann')")


async def test_beside_live_traffic_and_people_at_work_live_and_shadow_are_the_same(
    stream: Stream,
    replays: Replays,
    db: asyncpg.Connection,
    start_worker: StartWorker,
    database_url: str,
) -> None:
    await stream.create(partitions=3)
    facts = some(9_000)
    await publish(stream, facts[:3_000])
    worker = await start_worker(stream.kafka, batch_max_records=300)
    operators = Operators(Client(worker.port), db)
    async with Facts(stream, facts[3_000:], chunk=20, pause=0.05) as flow:
        working = asyncio.create_task(operators.work())
        for _ in range(2):
            before = len(flow.sent)
            assert nothing_differs(await replays.replay(*SHADOW))
            assert len(flow.sent) > before
        operators.enough()
        flow.enough()
        await working
    assert operators.rounds > 10
    await everything_is_read(db, stream)

    last = await replays.replay(*SHADOW)

    assert nothing_differs(last)
    rows = {table["table"]: table["live"] for table in last.summary["tables"]}
    assert all(
        rows[table] > 0 for table in ("dead_letters", "commissions", "voucher_daily", "inventory_products")
    )
    assert await db.fetchval("SELECT count(*) FROM pg_namespace WHERE nspname LIKE '%shadow%'") == 0


async def test_what_was_altered_or_deleted_by_hand_is_named_with_what_hangs_on_it(
    stream: Stream, replays: Replays, db: asyncpg.Connection, start_worker: StartWorker
) -> None:
    await stream.create(partitions=2)
    await publish(stream, some(1_500))
    await stream.publish(an_order(order_id="x1", codes=["X"]), an_order(order_id="x2", codes=["X"]))
    worker = await start_worker(stream.kafka)
    await everything_is_read(db, stream)
    await worker.terminate()
    await db.execute("DELETE FROM affiliate_coupon_usages WHERE order_id = 'x1'")
    click = await db.fetchrow(
        """UPDATE aff_clicks SET referrer = 'x' WHERE click_id = (SELECT min(click_id) FROM aff_clicks)
           RETURNING click_id, to_jsonb(occurred_at) #>> '{}'"""
    )
    await db.execute(
        """INSERT INTO dead_letters (cluster_id, topic, "partition", "offset", record_timestamp, error_kind, error)
           SELECT cluster_id, topic, "partition", 1, now(), 'forged', '' FROM stream_sources
           WHERE topic LIKE '%click'"""
    )

    found = await replays.replay(*SHADOW)

    named = {(d["table"], d["verdict"], *map(str, d["key"].values())) for d in found.summary["differences"]}
    letters = {name for name in named if name[0] == "dead_letters"}
    assert found.code == 1
    assert named - letters == {
        ("affiliate_coupon_usages", "missing", "x1", "X"),
        ("affiliate_coupons", "differs", "X"),
        ("aff_clicks", "differs", *click),
    }
    assert {name[1] for name in letters} == {"only live"}

    text = await replays.command("replay", *SHADOW)
    assert text.code == 1
    assert "x1 · X" in text.out
    assert "referrer: x → none" in text.out


@pytest.mark.slow
async def test_a_parked_record_that_was_retried_is_no_difference(
    stream: Stream, replays: Replays, db: asyncpg.Connection, start_worker: StartWorker
) -> None:
    await stream.create(partitions=1)
    big = a_message({"order_id": "big", "codes": ["BIG"], "note": "x" * 2_000})
    await stream.publish(big, a_malformed_order(), an_order(order_id="small"))
    await start_worker(stream.kafka, max_event_bytes=1_000)
    await everything_is_read(db, stream)
    assert await db.fetchval("SELECT count(*) FROM dead_letters") == 2

    before = await replays.replay(*SHADOW)
    assert {(d["table"], d["verdict"]) for d in before.summary["differences"]} == {
        ("affiliate_coupon_usages", "missing"), ("affiliate_coupons", "missing"), ("dead_letters", "only live")
    }  # fmt: skip
    await replays.command("dead-letters", "retry", "--all")
    assert await db.fetchval("SELECT times_used FROM affiliate_coupons WHERE code = 'BIG'") == 1
    assert nothing_differs(await replays.replay(*SHADOW))


async def test_a_shadow_that_was_killed_is_gone_on_with(
    stream: Stream, replays: Replays, db: asyncpg.Connection, start_worker: StartWorker
) -> None:
    await stream.create(partitions=2)
    await publish(stream, some(6_000))
    worker = await start_worker(stream.kafka)
    await everything_is_read(db, stream)
    await worker.terminate()
    shadow = await begun(replays, "--max-rate", "500")
    read = await eventually(lambda: read_by_shadow(db), deadline=60)
    shadow.send_signal(signal.SIGKILL)
    await shadow.wait()

    resumed = await replays.replay(*SHADOW)

    assert nothing_differs(resumed)
    assert resumed.summary["resumed"]
    assert resumed.summary["records"] <= 6_000 - read + 500
    assert "goes on with the shadow of" in resumed.told


async def read_by_shadow(db: asyncpg.Connection) -> int:
    try:
        return int(
            await db.fetchval(
                "SELECT coalesce(sum(next_offset - first_offset), 0) FROM public_shadow.stream_positions"
            )
        )
    except (asyncpg.UndefinedTableError, asyncpg.InvalidSchemaNameError):
        return 0


async def begun(replays: Replays, *arguments: str) -> asyncio.subprocess.Process:
    environment = {name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ}
    environment |= {f"COUNTERFOIL_{name.upper()}": str(value) for name, value in replays.settings.items()}
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "counterfoil", "replay", *SHADOW, *arguments),
        cwd="/",
        env=environment | {"PYTHONPATH": python_path()},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )


@pytest.mark.slow
async def test_a_second_shadow_in_the_same_schema_waits_and_is_refused(
    stream: Stream, replays: Replays, db: asyncpg.Connection
) -> None:
    await stream.create(partitions=1)
    holder = await asyncpg.connect(str(replays.settings["database_url"]))
    await holder.execute("SELECT pg_advisory_lock(3088, hashtext('public_shadow'))")

    ended = await replays.command("replay", *SHADOW)

    assert (ended.code, ended.err.count("another shadow is being built there")) == (2, 1)
    await holder.close()


async def test_a_role_that_may_make_no_schema_is_told_which_right_it_lacks(
    stream: Stream, replays: Replays, postgres_server: Server, database_url: str
) -> None:
    await stream.create(partitions=1)
    execute(
        database_url,
        "CREATE ROLE shadowless LOGIN PASSWORD 'secret'; GRANT SELECT ON ALL TABLES IN SCHEMA public TO shadowless",
    )
    try:
        ended = await replays.command("replay", *SHADOW, database_url=as_role(database_url, "shadowless"))
    finally:
        execute(database_url, "DROP OWNED BY shadowless; DROP ROLE shadowless")
    assert ended.code == 2
    assert len(ended.err.strip().splitlines()) == 1
    assert "GRANT CREATE ON DATABASE" in ended.err


@pytest.mark.slow
async def test_a_window_that_is_narrower_than_the_log_is_proved_alone(
    stream: Stream, replays: Replays, db: asyncpg.Connection, start_worker: StartWorker
) -> None:
    await stream.create(partitions=2)
    await publish(stream, some(1_000, prefix="a"))
    await start_worker(stream.kafka)
    await everything_is_read(db, stream)
    between = await db.fetchval("SELECT clock_timestamp()")
    await publish(stream, some(1_000, prefix="b"))
    await everything_is_read(db, stream)

    late = await replays.replay(*SHADOW, "--from", between.isoformat())
    assert nothing_differs(late)
    assert "are taken over as they stand, and not proved" in " ".join(late.summary["notes"])
    assert late.summary["records"] > 0
    clicks = next(table for table in late.summary["tables"] if table["table"] == "aff_clicks")
    assert 0 < clicks["not_read"] < clicks["live"]
    assert nothing_differs(await replays.replay("scan", "claim", "--mode", "shadow", "--partition", "1"))


@pytest.mark.slow
async def test_an_archive_of_records_proves_what_it_holds(
    stream: Stream, replays: Replays, db: asyncpg.Connection, start_worker: StartWorker, tmp_path: Path
) -> None:
    await stream.create(partitions=2)
    await publish(stream, some(800))
    await start_worker(stream.kafka)
    await everything_is_read(db, stream)
    file = tmp_path / "archive.jsonl.gz"
    assert (await replays.command("export", "click", "scan", "-o", str(file))).code == 0

    shadow = await replays.replay("--mode", "shadow", "--file", str(file))

    assert nothing_differs(shadow)
    tables = {table["table"]: table for table in shadow.summary["tables"]}
    assert tables["aff_clicks"]["not_read"] == 0 < tables["aff_clicks"]["live"]
    assert 0 < tables["conversions"]["not_read"] == tables["conversions"]["live"]


@pytest.fixture
def shop() -> list[tuple[str, dict[str, Any]]]:
    """Three orders of two pixels, of which one has a partner; all that is owed can be counted by hand."""
    at = {"timestamp": "2026-03-01T12:00:00Z"}
    link = {"link_id": "l1", "url": "https://shop.example.com/a", "partner_id": "ann", "pixel_id": "px1"}
    eur = {"pixel_id": "px2", "currency": "EUR"}
    return [
        ("link.created", {**link, **at}),
        ("conversion", {"order_id": "o1", "pixel_id": "px1", "revenue": "100.00", "currency": "USD", **at}),
        ("conversion", {"order_id": "o2", "revenue": "50.00", **eur, **at}),
        ("conversion", {"order_id": "o3", "revenue": "30.00", "commission": "9.00", **eur, **at}),
        ("order.refunded", {"order_id": "o1", "refund_id": "r1", "amount": "20.00", **at}),
        ("conversion", {"order_id": "o4", "pixel_id": "px2", "revenue": "10.00", **at}),
        ("order.placed", {"order_id": "o5", "total": "200.00", "currency": "USD", "codes": ["ann"], **at}),
    ]  # fmt: skip


async def test_what_would_have_been_earned_is_what_is_counted_by_hand(
    shop: list[tuple[str, dict[str, Any]]],
    stream: Stream,
    replays: Replays,
    db: asyncpg.Connection,
    start_worker: StartWorker,
) -> None:
    await stream.create(partitions=1)
    await db.execute("INSERT INTO default_rates (percent, valid_from) VALUES (10, '2000-01-01Z')")
    for code, pixel in (("ann", "px1"), ("ANN", "px3")):  # of two that become one, the first stands
        await db.execute("INSERT INTO affiliate_coupon_owners (code, pixel_id) VALUES ($1, $2)", code, pixel)
    for topic, document in shop:
        await stream.publish(a_message(document), topic=stream.topic(topic))
    await start_worker(stream.kafka)
    await everything_is_read(db, stream)
    program = await db.fetchval("SELECT id FROM programs")
    earned = {("partner", "ann", "USD"): 8, ("pixel", "px2", "EUR"): 14, ("pixel", "px2", "USD"): 1}
    cases: dict[tuple[str, ...], tuple[int, dict[tuple[str, str, str], object]]] = {
        ("commission_percent=12",): (
            3, {("partner", "ann", "USD"): "9.6", ("pixel", "px2", "EUR"): 15, ("pixel", "px2", "USD"): "1.2"}
        ),
        ("commission_percent:example.com=50",): (1, {("partner", "ann", "USD"): 40}),
        (f"commission_percent:{program}=0", "commission_percent=20"): (
            3, {("partner", "ann", "USD"): 0, ("pixel", "px2", "EUR"): 19, ("pixel", "px2", "USD"): 2}
        ),
        ("attribute_by_coupon=true",): (1, {("partner", "ann", "USD"): 28}),
        ("attribute_by_coupon=true", "code_case=upper"): (1, {("partner", "ann", "USD"): 28}),
        ("default_currency=EUR",): (1, {("pixel", "px2", "EUR"): 15, ("pixel", "px2", "USD"): 0}),
    }  # fmt: skip
    for rules, (orders, changed) in cases.items():
        told = [option for rule in rules for option in ("--with", rule)]
        what_if = (await replays.replay(*SHADOW, *told)).summary["what_if"]
        found = {
            (e["kind"], e["name"], e["currency"]): (float(e["earned"]), float(e["would_have_earned"]))
            for e in what_if["earnings"]
        }
        wanted = {
            who: (float(amount), float(str(changed.get(who, amount)))) for who, amount in earned.items()
        }
        assert found == wanted, rules
        if rules != ("default_currency=EUR",):
            assert what_if["orders_that_differ"] == orders, rules

    shown = await replays.command("replay", *SHADOW, "--with", "commission_percent=12")
    assert (shown.code, "partner ann" in shown.out, "+1.6" in shown.out) == (0, True, True)


@pytest.mark.parametrize(
    "rule",
    [
        "commission_percent=101",
        "commission_percent=x",
        "commission_percent:nobody=1",
        "speed=1",
        "code_case=low",
        "x",
    ],
)
async def test_a_rule_that_is_none_is_refused_in_one_line(
    rule: str, stream: Stream, replays: Replays
) -> None:
    await stream.create(partitions=1)
    ended = await replays.command("replay", *SHADOW, "--with", rule)
    assert (ended.code, len(ended.err.strip().splitlines())) == (2, 1), ended
    assert f"--with {rule.partition('=')[0]}" in ended.err
