"""A replay is killed, told to end, run twice, or loses a server: each fact counts once, and it goes on."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import asyncpg
import pytest

from counterfoil.embedded.process import KEPT_VARIABLES
from counterfoil.replaying.comparing import digest_of
from support.apache_kafka import ApacheKafka
from support.factories import order_ids, orders
from support.ledgers import assert_exact, blocked_backend, counted, everything_is_read, usages
from support.replaying import Replays
from support.servers import Broker, StartWorker
from support.stream import Stream, Traffic
from support.waiting import eventually
from support.worker import python_path

SMALL = {"batch_max_records": 100}


@pytest.fixture
async def stream(broker: Broker, topic_prefix: str) -> AsyncIterator[Stream]:
    """This test's topics on whatever broker there is."""
    async with Stream(broker, topic_prefix) as stream:
        yield stream


@pytest.fixture
def replays(stream: Stream, database_url: str) -> Replays:
    return Replays(stream, database_url)


Begin = Callable[..., Awaitable["Running"]]


class Running:
    """A `replay` that is under way."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    async def ended(self) -> tuple[int, str]:
        """Exit code and standard error."""
        _, err = await asyncio.wait_for(self._process.communicate(), 60)
        assert self._process.returncode is not None
        return self._process.returncode, err.decode()

    async def kill(self) -> None:
        if self._process.returncode is None:
            self._process.kill()
            await self._process.communicate()


async def started(replays: Replays, *arguments: str, **settings: object) -> Running:
    environment = {name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ}
    given = replays.settings | SMALL | settings
    environment |= {f"COUNTERFOIL_{name.upper()}": str(value) for name, value in given.items()}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "counterfoil", "replay", *arguments),
        cwd="/",
        env=environment | {"PYTHONPATH": python_path()},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    return Running(process)


@pytest.fixture
async def begun() -> AsyncIterator[Begin]:
    """Begin a `replay`; killed at the end."""
    processes: list[Running] = []

    async def begin(replays: Replays, *arguments: str, **settings: object) -> Running:
        processes.append(await started(replays, *arguments, **settings))
        return processes[-1]

    yield begin
    for process in processes:
        await process.kill()


async def done(db: asyncpg.Connection) -> int:
    """How far the replays have come, all of them together."""
    return int(await db.fetchval("SELECT coalesce(sum(next_offset - first_offset), 0) FROM replay_positions"))


@pytest.mark.parametrize("blocked_on", ["affiliate_coupons", "replay_positions"])
async def test_sigkill_inside_the_transaction_leaves_nothing_of_it_and_the_next_goes_on(
    begun: Begin, blocked_on: str, stream: Stream, replays: Replays, db: asyncpg.Connection
) -> None:
    await stream.create(partitions=1)
    ids = order_ids(500)
    await stream.publish(*orders(ids))
    running = await begun(replays, "order.placed", "--mode", "apply", "--max-rate", "100")
    await eventually(lambda: done(db))
    async with db.transaction():
        await db.execute(f"LOCK TABLE {blocked_on} IN EXCLUSIVE MODE")
        backend = await blocked_backend(db, who="replay")
        running.send(signal.SIGKILL)
        assert (await running.ended())[0] == -signal.SIGKILL
    await eventually(lambda: is_gone(db, backend))
    await a_while_passes(db)
    stood = await done(db)
    assert len(await usages(db)) == stood < 500

    resumed = await replays.apply("order.placed")

    assert resumed.summary["resumed"] is True
    assert "goes on with replay 1" in resumed.told
    assert resumed.topic(stream.placed) | {"read": 500, "applied": 500} == resumed.topic(stream.placed)
    await assert_exact(db, ids)
    assert await db.fetchval("SELECT count(*) FROM replays") == 1


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
async def test_told_to_end_it_ends_at_once_says_how_to_go_on_and_can_be_begun_anew(
    begun: Begin, number: signal.Signals, code: int, stream: Stream, replays: Replays, db: asyncpg.Connection
) -> None:
    await stream.create(partitions=1)
    ids = order_ids(400)
    await stream.publish(*orders(ids))
    running = await begun(replays, "order.placed", "--mode", "apply", "--max-rate", "100")
    await eventually(lambda: done(db))
    told_at = time.monotonic()
    running.send(number)
    ended, said = await running.ended()

    assert time.monotonic() - told_at < 5  # two seconds on a machine that has time
    assert ended == code
    assert "; the same command goes on from there" in said
    assert "Traceback" not in said
    assert len(await usages(db)) == await done(db) < 400

    anew = await replays.apply("order.placed", "--restart")
    assert (anew.summary["resumed"], anew.topic(stream.placed)["read"]) == (False, 400)
    await assert_exact(db, ids)


@pytest.mark.slow
async def test_a_killed_and_resumed_one_beside_another_and_live_traffic_comes_to_the_same(
    begun: Begin, stream: Stream, replays: Replays, db: asyncpg.Connection, start_worker: StartWorker
) -> None:
    await stream.create()
    ids = order_ids(600)
    await stream.publish(*orders(ids))
    worker = await start_worker(stream.kafka, only="ingest", **SMALL)
    async with Traffic(stream, order_ids(600)) as traffic:
        first = await begun(replays, "order.placed", "--mode", "apply", "--max-rate", "20")
        await eventually(lambda: done(db))
        other = await begun(replays, "order.placed", "--mode", "apply", "--max-rate", "400")
        await eventually(lambda: several_have_moved(db))
        first.send(signal.SIGKILL)
        assert (await first.ended())[0] == -signal.SIGKILL
        assert (await other.ended())[0] == 0
        await a_while_passes(db)
        resumed = await replays.apply("order.placed")
    await everything_is_read(db, stream)
    assert await worker.terminate() == 0

    assert resumed.code == 0
    await assert_exact(db, [*ids, *traffic.ids])
    before = await digest_of(db)
    await replays.apply("order.placed")
    assert await digest_of(db) == before


@pytest.mark.parametrize("count", [20, 900], ids=["shorter", "longer"])
async def test_a_log_that_was_made_anew_meanwhile_is_read_from_its_beginning(
    count: int, begun: Begin, stream: Stream, replays: Replays, db: asyncpg.Connection
) -> None:
    await stream.create(partitions=1)
    await stream.publish(*orders(order_ids(500)))
    running = await begun(replays, "order.placed", "--mode", "apply", "--max-rate", "100")
    await eventually(lambda: done(db))
    running.send(signal.SIGTERM)
    await running.ended()
    stood, ids = await done(db), order_ids(count)
    assert 20 < stood < 500
    await stream.recreate(stream.placed, partitions=1)
    await stream.publish(*orders(ids))

    anew = await replays.apply("order.placed")

    assert (anew.code, anew.summary["resumed"]) == (0, False)
    assert "begins anew, and does not go on with replay 1" in anew.told
    assert anew.topic(stream.placed) | {"read": count, "applied": count} == anew.topic(stream.placed)
    assert len(await usages(db)) == stood + count
    assert await db.fetchval("SELECT count(*) FROM replays WHERE finished_at IS NULL") == 0


@pytest.mark.slow
async def test_one_that_another_took_over_ends_and_says_so(
    begun: Begin, stream: Stream, replays: Replays, db: asyncpg.Connection
) -> None:
    await stream.create(partitions=1)
    ids = order_ids(500)
    await stream.publish(*orders(ids))
    running = await begun(replays, "order.placed", "--mode", "apply", "--max-rate", "100")
    await eventually(lambda: done(db))
    running.send(signal.SIGSTOP)  # and nobody touches it any more: the next waits to see that

    resumed = await replays.apply("order.placed")
    running.send(signal.SIGCONT)
    code, said = await running.ended()

    assert resumed.summary["resumed"] is True
    assert (code, said.count("\n")) == (1, 1)
    assert "another process has taken this replay over" in said
    await assert_exact(db, ids)


@pytest.mark.slow
async def test_a_topic_that_is_gone_meanwhile_holds_up_nothing(
    begun: Begin, stream: Stream, replays: Replays, db: asyncpg.Connection
) -> None:
    await stream.create(partitions=1)
    await stream.publish(*orders(order_ids(400)))
    running = await begun(replays, "order.placed", "--mode", "apply", "--max-rate", "100")
    await eventually(lambda: done(db))
    running.send(signal.SIGTERM)
    await running.ended()
    await db.execute(
        """INSERT INTO replay_positions (replay_id, cluster_id, topic, "partition", first_offset, next_offset,
                                         end_offset)
           SELECT replay_id, cluster_id, 'gone', 0, 0, 0, 10 FROM replay_positions"""
    )

    resumed = await replays.apply("order.placed")

    assert (resumed.code, resumed.summary["resumed"]) == (0, True)
    assert resumed.topic(stream.placed)["read"] == 400


async def test_whoever_finds_his_replay_to_be_anothers_leaves_it_to_him(
    begun: Begin, stream: Stream, replays: Replays, db: asyncpg.Connection
) -> None:
    await stream.create(partitions=1)
    await stream.publish(*orders(order_ids(500)))
    running = await begun(replays, "order.placed", "--mode", "apply", "--max-rate", "100")
    await eventually(lambda: done(db))
    await db.execute("UPDATE replay_positions SET next_offset = 499, applied = 499")

    code, said = await running.ended()

    assert (code, said.count("\n")) == (1, 1)
    assert await db.fetchval("SELECT touched_at > now() - interval '1 minute' FROM replays")


@pytest.mark.parametrize(("setting", "value"), [("code_case", "upper"), ("attribute_by_coupon", "true")])
async def test_one_that_was_begun_under_other_settings_is_not_gone_on_with(
    setting: str, value: str, begun: Begin, stream: Stream, replays: Replays, db: asyncpg.Connection
) -> None:
    await stream.create(partitions=1)
    await stream.publish(*orders(order_ids(400)))
    running = await begun(replays, "order.placed", "--mode", "apply", "--max-rate", "100")
    await eventually(lambda: done(db))
    running.send(signal.SIGTERM)
    await running.ended()

    other = await replays.apply("order.placed", **{setting: value})

    assert other.summary["resumed"] is False
    assert (await replays.check("order.placed", **{setting: value})).code == 0


@pytest.mark.slow
async def test_a_database_that_comes_back_is_waited_for(
    begun: Begin, stream: Stream, replays: Replays, db: asyncpg.Connection
) -> None:
    await stream.create(partitions=1)
    ids = order_ids(400)
    await stream.publish(*orders(ids))
    running = await begun(replays, "order.placed", "--mode", "apply", "--max-rate", "200")
    await eventually(lambda: done(db))
    await db.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'counterfoil replay' "
        "AND datname = current_database()"
    )

    code, said = await running.ended()

    assert code == 0, said
    await assert_exact(db, ids)


@pytest.mark.slow
@pytest.mark.kafka
async def test_a_kafka_that_goes_away_and_comes_back_is_waited_for(
    begun: Begin, own_stream: Stream, own_apache_kafka: ApacheKafka, database_url: str, db: asyncpg.Connection
) -> None:
    await own_stream.create(partitions=1)
    ids = order_ids(20_000)
    await own_stream.publish(*orders(ids))
    running = await begun(
        Replays(own_stream, database_url), "order.placed", "--mode", "apply", "--max-rate", "4000"
    )
    await eventually(lambda: done(db))
    own_apache_kafka.kill()
    own_apache_kafka.start()

    code, said = await running.ended()

    assert code == 0, said
    assert await counted(db) == {"SPRING": 20_000}


async def several_have_moved(db: asyncpg.Connection) -> bool:
    moved = "SELECT count(DISTINCT replay_id) FROM replay_positions WHERE next_offset > first_offset"
    return bool(await db.fetchval(moved) == 2)


async def a_while_passes(db: asyncpg.Connection) -> None:
    """So that a process which is gone need not be waited for."""
    await db.execute("UPDATE replays SET touched_at = touched_at - interval '1 minute'")


async def is_gone(db: asyncpg.Connection, backend: int) -> bool:
    return not await db.fetchval("SELECT EXISTS (SELECT FROM pg_stat_activity WHERE pid = $1)", backend)
