"""`replay --processes N` comes to what one process does, and leaves nothing running however it ends."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace

import asyncpg
import psutil
import pytest

from counterfoil.embedded.process import KEPT_VARIABLES
from counterfoil.replaying.comparing import digest_of
from support.factories import a_cancellation, new_id, order_ids, orders
from support.ledgers import blocked_backend, blocked_backends, usages
from support.mixed_log import Fact, mixed_log
from support.replaying import Replays
from support.servers import Broker
from support.stream import Stream
from support.waiting import eventually
from support.worker import python_path

ENDS_WITHIN_S = 2


@pytest.fixture
async def stream(broker: Broker, topic_prefix: str) -> AsyncIterator[Stream]:
    """This test's topics on whatever broker there is."""
    async with Stream(broker, topic_prefix) as stream:
        yield stream


@pytest.fixture
def replays(stream: Stream, database_url: str) -> Replays:
    return Replays(stream, database_url)


@pytest.fixture
async def replayed(stream: Stream, replays: Replays) -> None:
    """Facts of every kind in three partitions each, all of them written."""
    await stream.create()
    for fact in some_facts(900):
        await stream.publish(fact.message, topic=stream.topic(fact.topic))
    assert (await replays.apply("--all")).code == 0


def some_facts(count: int) -> Iterator[Fact]:
    return mixed_log(count, end_ms=int(time.time() * 1000), prefix=new_id("mixed"))


async def take_away_and_alter(db: asyncpg.Connection) -> None:
    for statement in (
        "DELETE FROM affiliate_coupon_usages WHERE source_offset % 5 = 0",
        "DELETE FROM voucher_scans WHERE source_offset % 5 = 1",
        "DELETE FROM dead_letters WHERE id % 2 = 0",
        "UPDATE conversions SET revenue = revenue + 5 WHERE source_offset % 3 = 0",
        "UPDATE order_refunds SET amount = amount + 1 WHERE source_offset % 3 = 0",
    ):
        assert not (await db.execute(statement)).endswith(" 0"), statement


@asynccontextmanager
async def started(replays: Replays, *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A replay that is under way."""
    environment = {name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ}
    environment |= {f"COUNTERFOIL_{name.upper()}": str(value) for name, value in replays.settings.items()}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "counterfoil", "replay", *arguments),
        cwd="/",
        env=environment | {"PYTHONPATH": python_path()},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def parts_of(process: asyncio.subprocess.Process, count: int) -> list[psutil.Process]:
    """Its children, once there are so many."""

    async def all_of_them() -> list[psutil.Process] | None:
        found = psutil.Process(process.pid).children(recursive=True)
        return found if len(found) == count else None

    return await eventually(all_of_them)


async def test_a_check_says_what_one_process_says(
    replayed: None, replays: Replays, db: asyncpg.Connection
) -> None:
    await take_away_and_alter(db)
    alone = await replays.check("--all", "--limit", "100000")

    shared = await replays.check("--all", "--limit", "100000", "--processes", "3")

    assert (alone.code, shared.code) == (1, 1)
    one, several = alone.summary, shared.summary
    assert several.keys() == one.keys()
    assert several["totals"] == one["totals"]
    assert several["totals"]["missing"] > 0 < several["totals"]["differs"]
    assert several["totals"]["not_parked"] > 0
    assert several["malformed_kinds"] == one["malformed_kinds"]
    for name in ("missing", "differs"):
        assert {(row["table"], *row["key"]) for row in several[name]} == {
            (row["table"], *row["key"]) for row in one[name]
        }
        assert len(several[name]) == several["totals"][name]
    places = [(row["topic"], row["partition"], row["offset"]) for row in several["malformed"]]
    assert places == sorted((row["topic"], row["partition"], row["offset"]) for row in one["malformed"])
    few = await replays.check("--all", "--limit", "2", "--processes", "2")
    assert [len(few.summary[name]) for name in ("missing", "differs", "malformed")] == [2, 2, 2]
    assert few.summary["totals"] == one["totals"]


async def test_an_apply_writes_what_one_process_writes(
    replayed: None, replays: Replays, db: asyncpg.Connection
) -> None:
    before = await digest_of(db)
    await take_away_and_alter(db)
    wrong = (await replays.check("--all")).summary["totals"]

    applied = await replays.apply("--all", "--overwrite", "--processes", "2")

    assert (applied.code, len(applied.summary["replays"])) == (0, 2)
    assert applied.summary["totals"]["overwritten"] == wrong["differs"]
    assert applied.summary["totals"]["read"] == wrong["read"]
    assert await digest_of(db) == before
    again = await replays.apply("--all", "--processes", "3")
    assert again.summary["totals"]["overwritten"] == again.summary["totals"]["released"] == 0
    assert await digest_of(db) == before
    assert (await replays.check("--all", "--processes", "2")).code == 0


@pytest.mark.slow
async def test_a_row_that_records_in_two_partitions_tell_of_is_said_once(
    stream: Stream, replays: Replays, db: asyncpg.Connection
) -> None:
    await stream.create(partitions=2)
    ids = order_ids(30)
    await stream.publish(*orders(ids, partition=0))
    await stream.publish(*orders(ids[:10], partition=1))
    await stream.publish(
        *(replace(a_cancellation(i), partition=1) for i in reversed(ids)), topic=stream.canceled
    )
    await replays.apply("--all")
    before = await digest_of(db)
    await db.execute("DELETE FROM affiliate_coupon_usages")
    await db.execute("DELETE FROM order_cancellations")

    shared = await replays.check("--all", "--processes", "2", "--limit", "1000")

    alone = await replays.check("--all")
    for name in ("read", "malformed", "missing", "differs"):
        assert shared.summary["totals"][name] == alone.summary["totals"][name]
    assert shared.summary["totals"]["missing"] == len(shared.summary["missing"]) == 60
    assert (await replays.apply("--all", "--processes", "2")).code == 0
    assert await digest_of(db) == before


@pytest.mark.slow
@pytest.mark.kafka
async def test_apache_kafka_is_read_by_several_processes_as_well(
    apache_kafka: Broker, topic_prefix: str, database_url: str, db: asyncpg.Connection
) -> None:
    async with Stream(apache_kafka, topic_prefix) as stream:
        await stream.create()
        await stream.publish(*orders(order_ids(500)))
        replays = Replays(stream, database_url)

        applied = await replays.apply("order.placed", "--processes", "3")

        assert (applied.code, applied.topic(stream.placed)["applied"]) == (0, 500)
        assert len(applied.summary["replays"]) == 3
        assert (await replays.check("--all", "--processes", "2")).code == 0
        assert len(await usages(db)) == 500


async def test_killed_it_leaves_no_process_and_the_same_command_goes_on_with_every_part(
    stream: Stream, replays: Replays, db: asyncpg.Connection
) -> None:
    await stream.create(partitions=2)
    await stream.publish(*orders(order_ids(20), partition=0), *orders(order_ids(500), partition=1))
    command = ("order.placed", "--mode", "apply", "--max-rate", "80", "--processes", "2")
    async with started(replays, *command, "--json") as replaying:
        parts = await parts_of(replaying, 2)
        await eventually(lambda: one_is_done_and_the_other_is_not(db))

        replaying.kill()

        gone, alive = await asyncio.to_thread(psutil.wait_procs, parts, 5)
        assert (len(gone), alive) == (2, [])
    left = await db.fetchval("SELECT sum(end_offset - next_offset) FROM replay_positions")

    applied = await replays.apply("order.placed", "--processes", "2")

    assert applied.told.count("\n") == applied.told.count("goes on with replays ") == 1
    assert f"Z, {left:,} to go; --restart begins anew" in applied.told
    assert (applied.code, applied.summary["resumed"], len(applied.summary["replays"])) == (0, True, 2)
    assert applied.topic(stream.placed)["applied"] == 520
    assert await db.fetchval("SELECT count(*) FROM replays WHERE finished_at IS NOT NULL") == 2
    assert await db.fetchval("SELECT count(*) FROM replays") == 2
    assert len(await usages(db)) == 520


async def one_is_done_and_the_other_is_not(db: asyncpg.Connection) -> bool:
    rows = await db.fetch(
        'SELECT end_offset - next_offset AS left, next_offset FROM replay_positions ORDER BY "partition"'
    )
    return len(rows) == 2 and rows[0]["left"] == 0 < rows[1]["left"] < 500


async def both_are_blocked(db: asyncpg.Connection) -> bool:
    return len(await blocked_backends(db, "replay")) == 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_interrupted_all_of_them_end_soon_and_it_says_how_to_go_on(
    number: signal.Signals, stream: Stream, replays: Replays, db: asyncpg.Connection
) -> None:
    await stream.create(partitions=2)
    await stream.publish(*orders(order_ids(100)))
    async with db.transaction():
        await db.execute("LOCK TABLE affiliate_coupon_usages IN EXCLUSIVE MODE")
        async with started(replays, "order.placed", "--mode", "apply", "--processes", "2") as replaying:
            parts = await parts_of(replaying, 2)
            await eventually(lambda: both_are_blocked(db))

            replaying.send_signal(number)

            out, told = await asyncio.wait_for(replaying.communicate(), ENDS_WITHIN_S)
            assert not any(part.is_running() for part in parts)
    assert (replaying.returncode, out) == (128 + number, b"")
    assert told.decode().count("\n") == 1
    assert "of 100" in told.decode()
    assert told.decode().endswith("the same command goes on from there\n")


@pytest.mark.slow
async def test_where_one_of_them_ends_all_do_and_one_line_says_why(
    stream: Stream, replays: Replays, db: asyncpg.Connection
) -> None:
    await stream.create(partitions=2)
    await stream.publish(*orders(order_ids(100)))
    async with db.transaction():
        await db.execute("LOCK TABLE affiliate_coupon_usages IN EXCLUSIVE MODE")
        async with started(replays, "order.placed", "--mode", "apply", "--processes", "2") as replaying:
            parts = await parts_of(replaying, 2)
            await blocked_backend(db, who="replay")

            parts[1].kill()

            out, told = await asyncio.wait_for(replaying.communicate(), 10)
            assert not any(part.is_running() for part in parts)
    assert (replaying.returncode, out) == (1, b"")
    assert told.decode() == "counterfoil: a process of it has ended (SIGKILL): it said nothing\n"


async def test_what_a_part_of_it_cannot_do_is_its_one_line(
    stream: Stream, replays: Replays, db: asyncpg.Connection
) -> None:
    await stream.create(partitions=2)
    await stream.publish(*orders(order_ids(10)))
    await db.execute("DROP TABLE replay_positions")

    ended = await replays.command("replay", "order.placed", "--mode", "apply", "--processes", "2")

    assert (ended.code, ended.out, ended.err.count("\n")) == (2, "", 1)
    assert 'relation "replay_positions" does not exist; run `counterfoil migrate` first' in ended.err

    away = "postgres://nobody@127.0.0.1:1/nothing"
    ended = await replays.command("replay", "order.placed", "--processes", "2", database_url=away)
    assert (ended.code, ended.out, ended.err.count("\n")) == (3, "", 1)
    assert ended.err.startswith("counterfoil: PostgreSQL at ")
    assert ended.err.endswith("; nothing was written\n")


@pytest.mark.slow
async def test_there_are_no_more_processes_than_shares_with_anything_to_read(
    stream: Stream, replays: Replays, db: asyncpg.Connection
) -> None:
    await stream.create(partitions=3)
    nothing = await replays.apply("order.placed", "--processes", "8")
    assert (nothing.code, nothing.summary["totals"]["read"], len(nothing.summary["replays"])) == (0, 0, 1)
    await stream.publish(*orders(order_ids(60)))

    applied = await replays.apply("order.placed", "--processes", "8")

    assert (applied.topic(stream.placed)["applied"], len(applied.summary["replays"])) == (60, 3)
    assert applied.summary["rate"] > 0
    one = await replays.apply("order.placed", "--partition", "1", "--processes", "8")
    assert len(one.summary["replays"]) == 1
    assert one.topic(stream.placed)["read"] < 60


@pytest.mark.slow
async def test_a_rate_is_for_all_of_them_together(stream: Stream, replays: Replays) -> None:
    await stream.create(partitions=2)
    await stream.publish(*orders(order_ids(90)))

    applied = await replays.apply("order.placed", "--max-rate", "30", "--processes", "2")

    assert applied.topic(stream.placed)["applied"] == 90
    assert applied.summary["seconds"] >= 2.0


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (
            ("--all", "--mode", "shadow", "--processes", "2"),
            "--processes: goes with --mode check or apply, not shadow",
        ),
        (
            ("--file", "orders.jsonl", "--processes", "2"),
            "--processes: goes with Kafka, not with --file, which is read from its beginning",
        ),
        (
            ("--all", "--processes", "4", "--max-rate", "3"),
            "--max-rate: takes at least one record a second for each of --processes",
        ),
        (
            ("--all", "--share", "2/2"),
            "--share: is what --processes gives each of its processes; not 2/2",
        ),
    ],
)
async def test_what_does_not_go_together_is_one_line(
    arguments: tuple[str, ...], line: str, replays: Replays
) -> None:
    ended = await replays.command("replay", *arguments)
    assert (ended.code, ended.out, ended.err) == (2, "", f"counterfoil: {line}\n")


@pytest.mark.parametrize("count", ["0", "33", "two"])
async def test_so_many_processes_there_cannot_be(count: str, replays: Replays) -> None:
    ended = await replays.command("replay", "--all", "--processes", count)
    assert (ended.code, ended.out) == (2, "")
    assert "--processes" in ended.err
