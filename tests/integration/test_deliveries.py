"""Notifications: each alert once on each channel, in few messages, and visibly given up where it cannot be told."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest
from structlog.testing import capture_logs

from counterfoil.database.facts import Facts
from counterfoil.errors import InvalidEvent
from counterfoil.events import LowStock
from counterfoil.notifications import deliveries
from counterfoil.notifications import delivery as delivering
from counterfoil.notifications import notifier as notifying
from counterfoil.notifications.channels import Gone, Refused, TryLater
from counterfoil.notifications.delivery import BACKOFF, Delivery, Timing, backoff, most_messages
from counterfoil.notifications.intake import RecordNotifications
from counterfoil.notifications.messages import Message, ToldAlert, message_of
from counterfoil.notifications.notifier import Notifier
from counterfoil.telemetry.metrics import Metrics
from support.told import HOUR, QUICK, RememberingChannel, all_are, record, statuses
from support.waiting import eventually

AT_ONCE = timedelta(0)
LEASE = timedelta(seconds=30)
DAY = timedelta(days=1)


BROKEN = (
    ConnectionResetError("gone"),
    asyncpg.InternalClientError("cannot switch to state 11; another operation (2) is in progress"),
    EOFError(),
    RuntimeError("a bug of ours"),
    asyncio.CancelledError(),  # though nobody cancels
)
"""What may come out of a statement; the second where the server ends the connection in that moment."""


def type_name(error: BaseException) -> str:
    return type(error).__name__


@pytest.fixture
async def pool(database_url: str) -> AsyncIterator[asyncpg.Pool]:
    async with asyncpg.create_pool(database_url, min_size=0, max_size=12) as pool:
        yield pool


async def claim(db: Any, lease: timedelta = LEASE, limit: int = 100) -> list[str]:
    return [c.alert.alert_id for c in await deliveries.claim_notifications(db, "one", lease, limit)]


async def the_row(db: asyncpg.Connection, alert_id: str, channel: str = "one") -> asyncpg.Record:
    row = await db.fetchrow(
        "SELECT * FROM notifications WHERE alert_id = $1 AND channel = $2", alert_id, channel
    )
    assert row is not None
    return row


# The rows


async def test_each_alert_waits_once_for_each_channel_however_often_it_comes(db: asyncpg.Connection) -> None:
    assert {tuple(row) for row in await record(db, "b", "a", "a", channels=("one", "two"))} == {
        (alert_id, channel, "pending") for alert_id in "ab" for channel in ("one", "two")
    }
    assert await record(db, "a", "b", channels=("one",)) == []
    assert await record(db, "a", channels=("one", "three")) == [("a", "three", "pending")]


async def test_what_is_old_when_it_comes_is_kept_and_not_told(db: asyncpg.Connection) -> None:
    await record(db, "old", age=HOUR + timedelta(seconds=5))
    await record(db, "young", age=HOUR - timedelta(minutes=1))
    assert await statuses(db) == {"old": "expired", "young": "pending"}
    assert await claim(db) == ["young"]


async def test_a_claim_is_the_claimers_until_its_lease_has_passed(db: asyncpg.Connection) -> None:
    await record(db, "a", "b")
    assert await claim(db, limit=1) == ["a"]
    assert await claim(db, timedelta(milliseconds=1)) == ["b"]
    assert await eventually(lambda: claim(db)) == ["b"]
    assert [(await the_row(db, alert_id))["attempts"] for alert_id in "ab"] == [1, 2]
    assert await claim(db) == []


async def test_a_claim_waits_for_nobody_who_holds_other_rows(
    db: asyncpg.Connection, pool: asyncpg.Pool
) -> None:
    await record(db, "a", "b", "c")
    async with pool.acquire() as other, other.transaction():
        assert await claim(other, limit=2) == ["a", "b"]
        async with asyncio.timeout(5):
            assert await claim(db) == ["c"]


async def test_of_many_that_ask_one_has_the_turn(db: asyncpg.Connection, pool: asyncpg.Pool) -> None:
    async def ask() -> bool:
        async with pool.acquire() as connection:
            return await deliveries.take_turn(connection, "one", timedelta(seconds=5))

    assert sorted(await asyncio.gather(*(ask() for _ in range(8)))) == [False] * 7 + [True]
    await deliveries.rest_channel(db, "one", AT_ONCE)
    assert await ask()


async def test_a_hold_is_not_shortened_by_another(db: asyncpg.Connection) -> None:
    assert await deliveries.take_turn(db, "one", AT_ONCE)
    await record(db, "a")
    for hold in (60, 5):
        await deliveries.hold_channel(db, "one", timedelta(seconds=hold))
    assert not await deliveries.take_turn(db, "one", timedelta(seconds=1))
    wait = await deliveries.seconds_to_next_message(db, "one", AT_ONCE)
    assert wait is not None
    assert 55 < wait <= 60


async def test_nothing_is_due_where_nothing_waits(db: asyncpg.Connection) -> None:
    await record(db, "old", age=2 * HOUR)
    await record(db, "theirs", channels=("two",))
    assert await deliveries.seconds_to_next_message(db, "one", AT_ONCE) is None
    await record(db, "ours")
    wait = await deliveries.seconds_to_next_message(db, "one", timedelta(seconds=10))
    assert wait is not None
    assert 5 < wait <= 10


async def test_what_another_has_taken_since_stays_his_unless_it_was_sent(db: asyncpg.Connection) -> None:
    await record(db, "a")
    (ours,) = await deliveries.claim_notifications(db, "one", timedelta(milliseconds=1), 1)
    (his,) = await eventually(lambda: deliveries.claim_notifications(db, "one", LEASE, 1))
    put_back = {"error": "too late", "next_in": AT_ONCE, "give_up_after": DAY}
    assert await deliveries.put_back(db, "one", [ours], **put_back) == []
    assert await statuses(db) == {"a": "sending"}
    assert len(await deliveries.mark_sent(db, "one", [ours])) == 1  # the channel has it: true whoever says so
    assert await deliveries.put_back(db, "one", [his], **put_back) == []
    assert await deliveries.mark_sent(db, "one", [his]) == []
    assert await statuses(db) == {"a": "sent"}


async def test_what_is_put_back_waits_or_has_failed(db: asyncpg.Connection) -> None:
    await record(db, "old", "young")
    await db.execute("UPDATE notifications SET created_at = now() - interval '1 day' WHERE alert_id = 'old'")
    claims = await deliveries.claim_notifications(db, "one", LEASE, 2)
    rows = await deliveries.put_back(
        db, "one", claims, error="no", next_in=timedelta(seconds=60), give_up_after=DAY
    )
    assert sorted(rows) == [("old", "failed"), ("young", "pending")]
    assert (await the_row(db, "old"))["error"] == "no"
    assert await claim(db) == []  # not before its time
    assert (await the_row(db, "young"))["next_attempt_at"] > datetime.now(UTC) + timedelta(seconds=50)


# Taking in


def low(alert_id: str, *, age: timedelta = AT_ONCE) -> LowStock:
    occurred_at = datetime.now(UTC) - age
    return LowStock(alert_id=alert_id, sku="A-1", name="W", stock=1, threshold=5, occurred_at=occurred_at)


async def test_alerts_become_rows_and_those_that_were_known_are_duplicates(db: asyncpg.Connection) -> None:
    handler = RecordNotifications(lambda: ["one", "two"], HOUR)
    old = low("old", age=2 * HOUR)
    facts = Facts([low("b"), old, low("a"), low("b")])
    outcome = await handler.write(db, await handler.plan(facts))
    assert (outcome.unchanged, outcome.changed()) == ({3}, {0, 1, 2})
    assert outcome.counted == {
        ("notifications", ("one", "expired")): 1,
        ("notifications", ("two", "expired")): 1,
    }
    row = await the_row(db, "a", "two")
    assert (row["topic"], row["subject"], row["status"]) == ("low-stock", "A-1", "pending")
    assert row["raised_at"] == facts.events[2].occurred_at
    again = await handler.write(db, await handler.plan(facts))
    assert (again.unchanged, again.counted) == ({0, 1, 2, 3}, {})


async def test_without_a_channel_an_alert_that_is_retried_is_refused() -> None:
    with pytest.raises(InvalidEvent, match="no channel is configured"):
        await RecordNotifications(list, HOUR).plan(Facts([low("a")]))


# The loop of a channel


def a_delivery(channel: Any, pool: Any, timing: Timing = QUICK, **options: Any) -> Delivery:
    return Delivery(channel, pool, timing, options.pop("metrics", None) or Metrics(), **options)


@asynccontextmanager
async def looping(*loops: Delivery) -> AsyncIterator[None]:
    """Let these loops run, and end with what they are at."""
    tasks = [asyncio.create_task(loop.run()) for loop in loops]
    try:
        yield
    finally:
        for loop in loops:
            loop.stop()
        await asyncio.gather(*tasks)


@asynccontextmanager
async def running(
    channels: Sequence[Any], pool: asyncpg.Pool, timing: Timing = QUICK, metrics: Metrics | None = None
) -> AsyncIterator[Notifier]:
    notifier = Notifier(channels, pool, timing, metrics or Metrics())
    crashes: list[BaseException] = []
    notifier.start(crashes.append)
    try:
        yield notifier
    finally:
        await notifier.stop()
    assert crashes == []


async def test_eight_loops_of_a_channel_send_each_alert_once(
    db: asyncpg.Connection, pool: asyncpg.Pool
) -> None:
    channels = [RememberingChannel() for _ in range(8)]
    alert_ids = [f"alert-{n:03}" for n in range(200)]
    async with looping(*(a_delivery(channel, pool) for channel in channels)):
        for start in range(0, 200, 10):
            await record(db, *alert_ids[start : start + 10])
        await eventually(lambda: all_are(db, "sent"))
    assert sorted(alert_id for channel in channels for alert_id in channel.told) == alert_ids
    assert await db.fetchval("SELECT max(attempts) FROM notifications") == 1


async def test_an_alert_is_told_on_every_channel_and_noted(
    db: asyncpg.Connection, pool: asyncpg.Pool
) -> None:
    await db.execute(
        "INSERT INTO inventory_events (event_id, occurred_at, sku, event_type, new_stock, threshold) "
        "VALUES ('e', now(), 'A-1', 'change', 1, 5)"
    )
    alert_id = await db.fetchval(
        "SELECT alert_id FROM raise_low_stock(ARRAY['A-1'], 'level', interval '5 minutes')"
    )
    channels, metrics = [RememberingChannel(name) for name in ("email", "webhook")], Metrics()
    await record(db, alert_id, channels=("email", "webhook"))
    async with running(channels, pool, metrics=metrics):
        for channel in channels:
            await eventually(lambda name=channel.name: all_are(db, "sent", name))
    assert [channel.taken for channel in channels] == [[(alert_id,)], [(alert_id,)]]
    metadata = "SELECT metadata - 'kind' FROM inventory_events WHERE event_type = 'low_stock'"
    assert json.loads(await db.fetchval(metadata)) == {"alertSent": True, "notifiers": ["email", "webhook"]}
    assert metrics.value("notifications_total", {"channel": "email", "status": "sent"}) == 1
    assert metrics.value("notification_seconds_count") == 2
    assert all(channel.closed for channel in channels)


async def test_alerts_that_come_together_are_one_message_and_so_is_what_comes_meanwhile(
    db: asyncpg.Connection, pool: asyncpg.Pool
) -> None:
    timing = replace(QUICK, spacing=timedelta(seconds=0.4), gather=timedelta(seconds=0.1))
    channel = RememberingChannel()
    async with running([channel], pool, timing):
        await record(db, "a")
        await record(db, "b")
        await eventually(lambda: len(channel.taken) == 1)
        for alert_id in "cde":
            await record(db, alert_id)
        await eventually(lambda: len(channel.taken) == 2)
    assert channel.taken == [("a", "b"), ("c", "d", "e")]
    assert channel.times[1] - channel.times[0] >= 0.39


async def test_of_several_workers_each_leaves_the_channel_its_rest(
    db: asyncpg.Connection, pool: asyncpg.Pool
) -> None:
    timing = replace(QUICK, spacing=timedelta(seconds=0.3))
    channels = [RememberingChannel() for _ in range(4)]
    async with looping(*(a_delivery(channel, pool, timing) for channel in channels)):
        await record(db, "a")
        await eventually(lambda: all_are(db, "sent"))
        for alert_id in "bcd":
            await record(db, alert_id)
        await eventually(lambda: all_are(db, "sent"))
    times = sorted(t for channel in channels for t in channel.times)
    assert sorted(itertools.chain.from_iterable(channel.taken for channel in channels)) == [
        ("a",),
        ("b", "c", "d"),
    ]
    assert times[1] - times[0] >= 0.29


async def test_what_is_not_taken_is_tried_again_after_longer_and_longer_times(
    db: asyncpg.Connection, pool: asyncpg.Pool
) -> None:
    waited: list[int] = []

    def wait_after(attempts: int) -> timedelta:
        waited.append(attempts)
        return timedelta(milliseconds=attempts)

    metrics = Metrics()
    channel = RememberingChannel("one", TryLater("busy"), TryLater("\0\udc00"), ConnectionError("a secret"))
    delivery = a_delivery(channel, pool, wait_after=wait_after, metrics=metrics)
    await record(db, "a")
    with capture_logs() as logs:
        async with looping(delivery):
            await eventually(lambda: all_are(db, "sent"))
    assert waited == [1, 2, 3]
    assert (channel.messages, channel.taken) == ([("a",)] * 4, [("a",)])
    row = await the_row(db, "a")
    assert (row["attempts"], row["error"]) == (4, None)
    assert metrics.value("notifications_total", {"channel": "one", "status": "pending"}) == 3
    assert "a secret" not in str(logs)


def test_the_wait_is_jittered_in_full_and_has_a_limit() -> None:
    for attempts, limit in ((1, 1), (2, 2), (5, 16), (9, 256), (10, 300), (10_000, 300)):
        waits = [backoff(attempts).total_seconds() for _ in range(200)]
        assert all(0 <= wait <= limit for wait in waits)
        assert max(waits) > limit / 2 > min(waits)
    assert BACKOFF.max == 300


async def test_retry_after_holds_the_whole_channel(db: asyncpg.Connection, pool: asyncpg.Pool) -> None:
    channel = RememberingChannel("one", TryLater("429", retry_after_s=0.6))
    delivery = a_delivery(channel, pool, wait_after=lambda _: AT_ONCE)
    async with looping(delivery):
        await record(db, "a")
        await eventually(lambda: channel.messages)
        await record(db, "b")
        await eventually(lambda: all_are(db, "sent"))
    assert channel.taken == [("a", "b")]
    assert channel.times[1] - channel.times[0] >= 0.59


async def test_what_a_channel_takes_no_more_has_failed_at_once(
    db: asyncpg.Connection, pool: asyncpg.Pool
) -> None:
    metrics = Metrics()
    channel = RememberingChannel("one", Gone("404 no_service"))
    delivery = a_delivery(channel, pool, metrics=metrics)
    await record(db, "a", "b")
    with capture_logs() as logs:
        async with looping(delivery):
            await eventually(lambda: all_are(db, "failed"))
    assert channel.messages == [("a", "b")]
    assert (await the_row(db, "b"))["error"] == "404 no_service"
    assert metrics.value("notifications_total", {"channel": "one", "status": "failed"}) == 2
    (entry,) = (entry for entry in logs if entry["event"] == "notifications_failed")
    assert (entry["log_level"], entry["count"], entry["alert_ids"]) == ("error", 2, ["a", "b"])
    await record(db, "c")
    async with looping(a_delivery(channel, pool)):
        await eventually(lambda: channel.taken)
    assert channel.told == ["c"]


class Picky(RememberingChannel):
    """Refuses every message that tells of one of these."""

    def __init__(self, *refused: str) -> None:
        super().__init__()
        self._refused = set(refused)

    async def send(self, message: Message) -> None:
        if self._refused.intersection(message.alert_ids):
            self.messages.append(message.alert_ids)
            raise Refused("400 invalid_blocks")
        await super().send(message)


@pytest.mark.parametrize("bad", ["a00", "a33", "a49"])
async def test_one_alert_that_is_refused_keeps_no_other_from_being_told(
    db: asyncpg.Connection, pool: asyncpg.Pool, bad: str
) -> None:
    timing = replace(QUICK, spacing=timedelta(seconds=30), gather=AT_ONCE)
    channel, metrics = Picky(bad), Metrics()
    alert_ids = [f"a{n:02}" for n in range(50)]
    await record(db, *alert_ids)
    await a_delivery(channel, pool, timing, metrics=metrics).send_next()  # one turn, whatever the spacing
    assert {i: s for i, s in (await statuses(db)).items() if s != "sent"} == {bad: "failed"}
    assert sorted(channel.told) == [i for i in alert_ids if i != bad]
    assert len(channel.messages) <= most_messages(50) == 13
    assert (await the_row(db, bad))["error"] == "400 invalid_blocks"
    assert metrics.value("notifications_total", {"channel": "one", "status": "failed"}) == 1
    assert await db.fetchval("SELECT max(attempts) FROM notifications") == 1
    wait = await deliveries.seconds_to_next_message(db, "one", AT_ONCE)
    assert wait is None
    await record(db, "later")
    wait = await deliveries.seconds_to_next_message(db, "one", AT_ONCE)
    assert wait is not None
    assert wait > 20  # the next ordinary message keeps the spacing


async def test_a_channel_that_refuses_everything_gets_few_messages_at_a_time(
    db: asyncpg.Connection, pool: asyncpg.Pool
) -> None:
    alert_ids = [f"a{n:02}" for n in range(50)]
    channel = Picky(*alert_ids)
    await record(db, *alert_ids)
    delivery = a_delivery(channel, pool, replace(QUICK, gather=AT_ONCE), wait_after=lambda _: AT_ONCE)
    await delivery.send_next()
    assert len(channel.messages) == most_messages(50)
    assert set((await statuses(db)).values()) == {"failed", "pending"}
    async with looping(delivery):
        await eventually(lambda: all_are(db, "failed"))
    assert channel.told == []


async def test_where_many_are_refused_the_others_wait_for_their_turn_and_no_longer(
    db: asyncpg.Connection, pool: asyncpg.Pool
) -> None:
    alert_ids = [f"a{n:03}" for n in range(100)]
    channel = Picky(*alert_ids[5::10])
    await record(db, *alert_ids)
    async with looping(a_delivery(channel, pool, wait_after=lambda _: timedelta(hours=1))):
        await eventually(lambda: no_more_wait(db))
    assert {i for i, s in (await statuses(db)).items() if s == "failed"} == set(alert_ids[5::10])
    assert sorted(channel.told) == [i for i in alert_ids if i not in alert_ids[5::10]]


async def test_what_is_halved_stays_ours_however_long_each_half_takes(
    db: asyncpg.Connection, pool: asyncpg.Pool
) -> None:
    now = 0.0

    class Slow(Picky):
        async def send(self, message: Message) -> None:
            nonlocal now
            now += 9.0  # of the 10 s of an attempt, and of the 30 s of a lease
            await super().send(message)

    channel = Slow("a5", "a6")
    alert_ids = [f"a{n}" for n in range(8)]
    await record(db, *alert_ids)
    async with looping(a_delivery(channel, pool, clock=lambda: now)):
        await eventually(lambda: no_more_wait(db))
    assert {i for i, s in (await statuses(db)).items() if s == "failed"} == {"a5", "a6"}
    assert sorted(channel.told) == ["a0", "a1", "a2", "a3", "a4", "a7"]


async def no_more_wait(db: asyncpg.Connection) -> bool:
    return not {"pending", "sending"}.intersection((await statuses(db)).values())


async def test_a_half_that_another_has_taken_meanwhile_is_left_to_him(
    db: asyncpg.Connection, pool: asyncpg.Pool
) -> None:
    class Robbed(Picky):
        async def send(self, message: Message) -> None:
            if len(message.alert_ids) == 4:
                await db.execute("UPDATE notifications SET attempts = 2 WHERE alert_id IN ('b', 'c', 'd')")
            await super().send(message)

    channel = Robbed("a")
    await record(db, "a", "b", "c", "d")
    await a_delivery(channel, pool, replace(QUICK, gather=AT_ONCE)).send_next()
    assert channel.messages == [("a", "b", "c", "d"), ("a",)]
    assert await statuses(db) == {"a": "failed", "b": "sending", "c": "sending", "d": "sending"}


async def test_a_channel_that_pauses_amid_the_halves_is_left_alone(
    db: asyncpg.Connection, pool: asyncpg.Pool
) -> None:
    channel = RememberingChannel("one", Refused("400"), TryLater("429", retry_after_s=60))
    await record(db, "a", "b", "c")
    await a_delivery(channel, pool, replace(QUICK, gather=AT_ONCE)).send_next()
    assert channel.messages == [("a", "b", "c"), ("a",)]
    assert await all_are(db, "pending")
    assert {(await the_row(db, alert_id))["error"] for alert_id in "abc"} == {"429"}
    wait = await deliveries.seconds_to_next_message(db, "one", AT_ONCE)
    assert wait is not None
    assert wait > 50


async def test_what_cannot_be_put_into_words_keeps_no_other_from_being_told(
    db: asyncpg.Connection, pool: asyncpg.Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def composing(alerts: Sequence[ToldAlert]) -> Message:
        if any(alert.alert_id == "c" for alert in alerts):
            raise OverflowError("int too large")
        return message_of(alerts)

    monkeypatch.setattr(delivering, "message_of", composing)
    channel = RememberingChannel()
    await record(db, *"abcde")
    await a_delivery(channel, pool, replace(QUICK, gather=AT_ONCE)).send_next()
    assert sorted(channel.told) == ["a", "b", "d", "e"]
    assert {i: s for i, s in (await statuses(db)).items() if s != "sent"} == {"c": "pending"}
    assert (await the_row(db, "c"))["error"] == "OverflowError"


@pytest.mark.parametrize("digits", [401, 5_000])
async def test_a_number_that_nobody_can_read_keeps_no_alert_from_being_told(
    db: asyncpg.Connection, pool: asyncpg.Pool, digits: int
) -> None:
    await record(db, "a", "b")
    await db.execute(
        "UPDATE notifications SET payload = jsonb_set(payload, '{stock}', ('1' || repeat('0', $1))::jsonb) "
        "WHERE alert_id = 'a'",
        digits - 1,
    )
    channel = RememberingChannel()
    async with running([channel], pool):
        await eventually(lambda: all_are(db, "sent"))
    assert sorted(channel.told) == ["a", "b"]


async def test_a_channel_that_gives_itself_up_is_tried_again(
    db: asyncpg.Connection, pool: asyncpg.Pool
) -> None:
    channel = RememberingChannel("one", asyncio.CancelledError("a secret"))
    await record(db, "a")
    with capture_logs() as logs:
        async with looping(a_delivery(channel, pool, wait_after=lambda _: AT_ONCE)):
            await eventually(lambda: all_are(db, "sent"))
    assert channel.messages == [("a",)] * 2
    assert "a secret" not in str(logs)


async def test_a_loop_that_ends_by_itself_is_reported(
    db: asyncpg.Connection, pool: asyncpg.Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    crashes: list[BaseException] = []
    notifier = Notifier([RememberingChannel()], pool, QUICK, Metrics())
    monkeypatch.setattr(Delivery, "run", lambda _: asyncio.sleep(0))
    notifier.start(crashes.append)
    await eventually(lambda: crashes)
    assert "tell one" in str(crashes[0])
    await notifier.stop()
    assert len(crashes) == 1


async def test_a_channel_whose_row_is_gone_is_told_all_the_same(
    db: asyncpg.Connection, pool: asyncpg.Pool
) -> None:
    channel = RememberingChannel()
    async with running([channel], pool):
        await record(db, "a")
        await eventually(lambda: all_are(db, "sent"))
        await db.execute("TRUNCATE notification_channels")
        await record(db, "b")
        await eventually(lambda: all_are(db, "sent"), deadline=5)
    assert channel.told == ["a", "b"]


async def test_what_waits_for_too_long_is_given_up_and_the_error_stays(
    db: asyncpg.Connection, pool: asyncpg.Pool
) -> None:
    timing = replace(QUICK, give_up_after=timedelta(seconds=0.3))
    channel = RememberingChannel("one", *[TryLater("no route")] * 1_000)
    delivery = a_delivery(channel, pool, timing, wait_after=lambda _: timedelta(milliseconds=50))
    await record(db, "a")
    async with looping(delivery):
        await eventually(lambda: all_are(db, "failed"))
    assert len(channel.messages) > 1
    assert (await the_row(db, "a"))["error"] == "no route"


async def test_what_waits_for_a_channel_that_is_gone_is_given_up_too(
    db: asyncpg.Connection, pool: asyncpg.Pool
) -> None:
    await record(db, "overdue", "leased", "young", channels=("gone",))
    await record(db, "a", channels=("one",))
    old = "UPDATE notifications SET created_at = now() - interval '2 days' WHERE alert_id <> 'young'"
    await db.execute(old)
    leased = "UPDATE notifications SET status = 'sending', lease_until = now() + interval '1 minute'"
    await db.execute(f"{leased} WHERE alert_id = 'leased'")
    metrics = Metrics()
    with capture_logs() as logs:
        await Notifier([RememberingChannel()], pool, QUICK, metrics).look()
    assert await statuses(db, "gone") == {"overdue": "failed", "leased": "sending", "young": "pending"}
    assert (await the_row(db, "overdue", "gone"))["error"] == "no such channel is configured"
    assert (await the_row(db, "a"))["error"] == "never tried"
    assert [entry["log_level"] for entry in logs] == ["error", "error"]
    assert metrics.value("notifications_pending", {"channel": "gone"}) == 2
    assert metrics.value("notifications_pending", {"channel": "one"}) == 0
    assert metrics.value("notifications_total", {"channel": "gone", "status": "failed"}) == 1


async def test_a_lease_that_has_passed_is_not_used(db: asyncpg.Connection, pool: asyncpg.Pool) -> None:
    clock = itertools.chain(
        [100.0, 100.0 + 30.0 - 9.9], itertools.repeat(200.0)
    )  # the worker was stopped in between
    channel = RememberingChannel()
    delivery = a_delivery(channel, pool, clock=lambda: next(clock))
    await record(db, "a")
    await asyncio.sleep((await delivery.send_next()).total_seconds())
    await delivery.send_next()
    assert channel.messages == []
    assert await statuses(db) == {"a": "pending"}
    assert "lease" in (await the_row(db, "a"))["error"]


async def test_a_channel_that_hangs_is_cut_off_and_holds_up_nobody(
    db: asyncpg.Connection, database_url: str
) -> None:
    timing = replace(QUICK, lease=timedelta(seconds=1.5))
    hanging = RememberingChannel("hangs", *[asyncio.Event()] * 100)
    well = RememberingChannel("one")
    async with (
        asyncpg.create_pool(database_url, min_size=0, max_size=1) as pool,
        running([hanging, well], pool, timing),
    ):
        await record(db, "a", channels=("hangs", "one"))
        await eventually(lambda: hanging.messages)
        for alert_id in "bcdef":
            began = time.monotonic()
            await record(db, alert_id, channels=("one",))
            await eventually(lambda: all_are(db, "sent"))
            assert time.monotonic() - began < 0.5
        await eventually(lambda: len(hanging.messages) > 1)  # cut off, and tried again
    assert (await the_row(db, "a", "hangs"))["error"]


def short_deadlines(monkeypatch: pytest.MonkeyPatch) -> Timing:
    """An attempt takes half a second, and what is not under way is left sooner."""
    monkeypatch.setattr(notifying, "FINISH_WITHIN_S", 0.1)
    monkeypatch.setattr(notifying, "LET_GO_WITHIN_S", 0.1)
    return replace(QUICK, lease=timedelta(seconds=1.5), gather=AT_ONCE)


@asynccontextmanager
async def stopping(
    channel: Any, pool: asyncpg.Pool, timing: Timing, begun: Callable[[], object]
) -> AsyncIterator[None]:
    """Runs until this is the case, and is being stopped in the block."""
    notifier = Notifier([channel], pool, timing, Metrics())
    notifier.start(lambda error: pytest.fail(str(error)))
    await eventually(begun)
    ending = asyncio.create_task(notifier.stop())
    yield
    await ending


async def test_stopping_waits_for_a_channel_that_hangs_until_its_deadline_and_no_longer(
    db: asyncpg.Connection, pool: asyncpg.Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    timing = short_deadlines(monkeypatch)
    channel = RememberingChannel("one", asyncio.Event())
    await record(db, "a")
    async with stopping(channel, pool, timing, lambda: channel.messages):
        began = time.monotonic()
    assert time.monotonic() - began < 1
    assert await statuses(db) == {"a": "pending"}
    assert (await the_row(db, "a"))["error"] == "no answer within 0.5 s"
    next_one = RememberingChannel()
    async with running([next_one], pool):  # and nobody waits for a lease, or for a turn
        await eventually(lambda: all_are(db, "sent"), deadline=3)
    assert next_one.told == ["a"]


async def test_stopping_waits_for_an_answer_that_takes_longer_than_what_is_not_under_way(
    db: asyncpg.Connection, pool: asyncpg.Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    timing = short_deadlines(monkeypatch)
    answer = asyncio.Event()
    channel = RememberingChannel("one", answer)
    await record(db, "a")
    async with stopping(channel, pool, timing, lambda: channel.messages):
        asyncio.get_running_loop().call_later(0.3, answer.set)
    assert await statuses(db) == {"a": "sent"}
    assert channel.taken == [("a",)]


async def test_what_cannot_be_written_down_before_the_end_stays_taken_until_its_lease_ends(
    db: asyncpg.Connection, pool: asyncpg.Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refusing(*_: Any) -> list[float]:
        raise ConnectionResetError("gone")

    monkeypatch.setattr(deliveries, "mark_sent", refusing)
    channel = RememberingChannel()
    await record(db, "a")
    async with stopping(channel, pool, short_deadlines(monkeypatch), lambda: channel.taken):
        pass
    assert await statuses(db) == {"a": "sending"}
    assert (await the_row(db, "a"))["error"] is None


async def test_stopping_begins_no_further_half(
    db: asyncpg.Connection, pool: asyncpg.Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    timing, answer = short_deadlines(monkeypatch), asyncio.Event()
    channel = RememberingChannel("one", Refused("400"), answer)
    await record(db, *"abcd")
    async with stopping(channel, pool, timing, lambda: len(channel.messages) == 2):
        await asyncio.sleep(0)
        answer.set()
    assert await statuses(db) == {"a": "sent", "b": "sent", "c": "pending", "d": "pending"}
    assert len(channel.messages) == 2
    assert await claim(db) == ["c", "d"]  # at once


async def test_stopping_finishes_the_message_under_way(db: asyncpg.Connection, pool: asyncpg.Pool) -> None:
    answer = asyncio.Event()
    channel = RememberingChannel("one", answer)
    notifier = Notifier([channel], pool, QUICK, Metrics())
    notifier.start(lambda error: pytest.fail(str(error)))
    await record(db, "a")
    await eventually(lambda: channel.messages)
    stopping = asyncio.create_task(notifier.stop())
    await asyncio.sleep(0)
    await record(db, "b")
    answer.set()
    await stopping
    assert await statuses(db) == {"a": "sent", "b": "pending"}


@pytest.mark.parametrize("error", BROKEN, ids=type_name)
async def test_what_a_channel_has_taken_is_not_sent_again_because_it_could_not_be_written_down(
    db: asyncpg.Connection, pool: asyncpg.Pool, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    mark_sent, tried = deliveries.mark_sent, []

    async def refusing(*arguments: Any) -> list[float]:
        tried.append(1)
        if len(tried) < 4:
            raise error
        return await mark_sent(*arguments)

    monkeypatch.setattr(deliveries, "mark_sent", refusing)
    channel = RememberingChannel()
    async with running([channel], pool):
        await record(db, "a")
        await eventually(lambda: all_are(db, "sent"))
    assert (channel.taken, len(tried)) == ([("a",)], 4)


@pytest.mark.parametrize("error", BROKEN[:-1], ids=type_name)
async def test_whatever_goes_wrong_what_waits_is_looked_after(
    db: asyncpg.Connection, pool: asyncpg.Pool, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    count, tried = deliveries.count_pending_notifications, []

    async def failing(connection: Any) -> dict[str, int]:
        tried.append(1)
        if len(tried) == 1:
            raise error
        return await count(connection)

    monkeypatch.setattr(deliveries, "count_pending_notifications", failing)
    monkeypatch.setattr(notifying, "LOOK_EVERY_S", 0.01)
    metrics = Metrics()
    await record(db, "a", channels=("gone",))
    async with running([], pool, metrics=metrics):
        await eventually(lambda: metrics.value("notifications_pending", {"channel": "gone"}) == 1)


async def test_a_connection_that_is_cut_stops_no_loop(db: asyncpg.Connection, pool: asyncpg.Pool) -> None:
    channel = RememberingChannel()
    async with running([channel], pool):
        await record(db, "a")
        await eventually(lambda: all_are(db, "sent"))
        await db.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        await record(db, "b")
        await eventually(lambda: all_are(db, "sent"))
    assert channel.told == ["a", "b"]
