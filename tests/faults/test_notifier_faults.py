"""A notifier is killed or stopped, or its channel fails: each alert is told, and again only where nobody can know."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from counterfoil.notifications.notifier import FINISH_WITHIN_S
from support.servers import Broker, StartWorker
from support.slack_sink import Answer, SlackSink, slack_sink
from support.told import all_are, record
from support.waiting import eventually
from support.worker import Worker

CHANNEL = "webhook"

QUICK = {"only": "notify", "notify_spacing_s": 0.1, "notify_lease_s": 3}
"""One attempt takes a second."""

NO_KAFKA = Broker("127.0.0.1:9", "none: what waits in the database is told without Kafka", 1_000)


@pytest.fixture
async def sink() -> AsyncIterator[SlackSink]:
    async with slack_sink() as sink:
        yield sink


@pytest.fixture
async def other_db(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(database_url)
    yield connection
    connection.terminate()


async def starts(start_worker: StartWorker, sink: SlackSink, **settings: object) -> Worker:
    return await start_worker(NO_KAFKA, ready_within=None, slack_webhook_url=sink.url, **(QUICK | settings))


async def an_alert_waits(db: asyncpg.Connection) -> str:
    alert_id = str(uuid.uuid4())
    await record(db, alert_id, channels=(CHANNEL,))
    return alert_id


async def is_blocked(db: asyncpg.Connection) -> bool:
    return bool(await db.fetchval("SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted)"))


async def attempts(db: asyncpg.Connection) -> list[int]:
    return [row["attempts"] for row in await db.fetch("SELECT attempts FROM notifications")]


async def test_a_notifier_killed_between_the_answer_and_its_commit_repeats_the_alert_once(
    db: asyncpg.Connection, other_db: asyncpg.Connection, sink: SlackSink, start_worker: StartWorker
) -> None:
    answer = asyncio.Event()
    sink.plan(Answer(when=answer))
    alert_id = await an_alert_waits(db)
    killed = await starts(start_worker, sink)
    await sink.has(1)
    async with db.transaction():
        await db.execute("SELECT FROM notifications FOR UPDATE")
        answer.set()
        await eventually(lambda: is_blocked(other_db))  # it has the answer, and cannot write it down
        killed.kill()
    await starts(start_worker, sink)
    await sink.has(2)
    await eventually(lambda: all_are(db, "sent", CHANNEL))
    assert len(sink.posts) == 2
    assert [alert_id in json.dumps(post) for post in sink.posts] == [True, True]
    assert sink.posts[0] == sink.posts[1]
    assert await attempts(db) == [2]


async def test_a_notifier_stopped_for_longer_than_its_lease_sends_nothing_that_another_has_sent(
    db: asyncpg.Connection, sink: SlackSink, start_worker: StartWorker
) -> None:
    sink.plan(Answer(hangs=True))
    await an_alert_waits(db)
    stopped = await starts(start_worker, sink)
    await sink.has(1)
    stopped.pause()
    await starts(start_worker, sink)
    await eventually(lambda: all_are(db, "sent", CHANNEL))
    stopped.resume()
    second = await an_alert_waits(db)
    await eventually(lambda: all_are(db, "sent", CHANNEL))
    await eventually(lambda: "notifications_taken_by_another" in stopped.log_file.read_text())
    assert await all_are(db, "sent", CHANNEL)
    assert len(sink.posts) == 3  # the one without an answer, its repetition, and the second alert
    assert second in json.dumps(sink.posts[2])
    assert sorted(await attempts(db)) == [1, 2]


async def test_a_channel_that_limits_fails_and_hangs_gets_the_alert_in_the_end(
    db: asyncpg.Connection, sink: SlackSink, start_worker: StartWorker
) -> None:
    sink.plan(
        Answer(429, {"Retry-After": "2"}), Answer(500), Answer(hangs=True), Answer(503, {"Retry-After": "1"})
    )
    await an_alert_waits(db)
    worker = await starts(start_worker, sink)
    await sink.has(1)
    await an_alert_waits(db)  # must not be told either while the channel asks to be left alone
    await sink.has(5, deadline=60)
    await eventually(lambda: all_are(db, "sent", CHANNEL))
    waits = [later - sooner for sooner, later in zip(sink.times, sink.times[1:], strict=False)]
    assert waits[0] >= 2
    assert max(await attempts(db)) <= 5
    log = worker.log_file.read_text()  # the whole: what is at its end depends on how busy the machine is
    assert "secret" not in log
    assert "answered 429" in log


async def test_a_channel_that_refuses_is_given_up_at_once_and_the_error_is_shown(
    db: asyncpg.Connection, sink: SlackSink, start_worker: StartWorker
) -> None:
    sink.plan(Answer(404))
    await an_alert_waits(db)
    await starts(start_worker, sink)
    await eventually(lambda: all_are(db, "failed", CHANNEL))
    assert "404" in await db.fetchval("SELECT error FROM notifications")
    assert len(sink.posts) == 1


async def test_sigterm_waits_for_no_channel_that_hangs(
    db: asyncpg.Connection, sink: SlackSink, start_worker: StartWorker
) -> None:
    sink.plan(Answer(hangs=True))
    await an_alert_waits(db)
    worker = await starts(start_worker, sink, notify_lease_s=9)
    await sink.has(1)
    began = time.monotonic()
    assert await worker.terminate() == 0
    assert time.monotonic() - began < 8  # the attempt's own deadline, 3 s, and what else ends
    assert await all_are(db, "pending", CHANNEL)
    assert "no answer" in await db.fetchval("SELECT error FROM notifications")
    await starts(start_worker, sink)
    await eventually(lambda: all_are(db, "sent", CHANNEL), deadline=15)


async def test_sigterm_waits_for_the_answer_to_what_is_under_way(
    db: asyncpg.Connection, sink: SlackSink, start_worker: StartWorker
) -> None:
    answer = asyncio.Event()
    sink.plan(Answer(when=answer))
    await an_alert_waits(db)
    worker = await starts(start_worker, sink, notify_lease_s=30)
    await sink.has(1)
    worker.ask_to_end()
    asyncio.get_running_loop().call_later(FINISH_WITHIN_S + 1, answer.set)
    assert await worker.ended() == 0
    assert await all_are(db, "sent", CHANNEL)
    assert (len(sink.posts), await attempts(db)) == (1, [1])


async def test_what_waits_for_a_channel_that_is_gone_is_given_up(
    db: asyncpg.Connection, sink: SlackSink, start_worker: StartWorker
) -> None:
    await record(db, "a", channels=("email",))
    await db.execute("UPDATE notifications SET created_at = $1", datetime.now(UTC) - timedelta(days=2))
    await starts(start_worker, sink)
    await eventually(lambda: all_are(db, "failed", "email"))
    assert sink.posts == []
