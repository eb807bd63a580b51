"""The notifier of real workers: what is low on stock is told once on each channel, by Slack's webhook and by mail."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest

from support.command import counterfoil
from support.factories import Message
from support.mail_sink import MailSink, mail_sink
from support.probes import metric, readiness
from support.servers import Broker, StartWorker
from support.slack_sink import SlackSink, slack_sink
from support.stream import Stream
from support.told import all_are, statuses
from support.waiting import eventually

TOPIC = "low-stock"
SMALL = {"topic_partitions": 1, "database_timeout_s": 1, "notify_spacing_s": 0.1}


@pytest.fixture
async def slack() -> AsyncIterator[SlackSink]:
    async with slack_sink() as sink:
        yield sink


@pytest.fixture
def mail() -> Iterator[MailSink]:
    with mail_sink() as sink:
        yield sink


@pytest.fixture
async def alerts(broker: Broker, topic_prefix: str) -> AsyncIterator[Stream]:
    async with Stream(broker, topic_prefix) as stream:
        yield stream


def both(slack: SlackSink, mail: MailSink) -> dict[str, object]:
    return {
        "slack_webhook_url": slack.url,
        "smtp_host": "127.0.0.1",
        "smtp_port": mail.port,
        "mail_from": "Shop <shop@example.org>",
        "email_to": "ops@example.org",
        "notify_spacing_s": 0.2,
        "topic_partitions": 2,
    }


def an_alert(alert_id: str, sku: str = "A-1", *, age: timedelta = timedelta(0), **fields: Any) -> Message:
    value = {
        "alert_id": alert_id,
        "sku": sku,
        "name": "Widget",
        "stock": 3,
        "threshold": 5,
        "occurred_at": (datetime.now(UTC) - age).isoformat(),
        **fields,
    }
    return Message(json.dumps(value).encode(), sku.encode())


def a_change(sku: str, **fields: object) -> Message:
    """A product becomes low."""
    value = {"sku": sku, "new_stock": 2, "threshold": 5, "event_id": f"e-{sku}", **fields}
    return Message(json.dumps(value).encode(), sku.encode())


async def becomes_low(db: asyncpg.Connection, *skus: str) -> list[str]:
    """Products with 3 of 5 in stock, and the ids of the alerts that are raised of them."""
    await db.executemany(
        "INSERT INTO inventory_events (event_id, occurred_at, sku, event_type, new_stock, threshold, name) "
        "VALUES ($1, now(), $1, 'change', 3, 5, 'Widget')",
        [(sku,) for sku in skus],
    )
    rows = await db.fetch(
        "SELECT alert_id FROM raise_low_stock($1, 'level', interval '5 minutes')", list(skus)
    )
    return [row["alert_id"] for row in rows]


async def was_read(db: asyncpg.Connection, group: str, count: int) -> bool:
    query = "SELECT sum(next_offset - first_offset) FROM stream_positions WHERE consumer_group = $1"
    return await db.fetchval(query, group) == count


async def test_an_alert_is_told_on_each_channel_once_however_often_its_record_comes(
    broker: Broker,
    alerts: Stream,
    db: asyncpg.Connection,
    start_worker: StartWorker,
    slack: SlackSink,
    mail: MailSink,
) -> None:
    worker = await start_worker(broker, only="notify,relay", **both(slack, mail))
    assert set((await readiness(worker))[1]["checks"]) == {"database", "kafka", "group", "lag", "breaker"}
    assert "low-stock scan every 60 s, 2 notifier(s)" in worker.log_file.read_text()

    (alert_id,) = await becomes_low(db, "A-1")
    line = "⚠️ Low Stock Alert: A-1 (Widget) - Stock: 3 / Threshold: 5"
    assert await slack.has(1) == [line]
    await eventually(lambda: len(mail.mails) == 1)
    assert "A-1" in mail.mails[0]["Subject"]
    for channel in ("webhook", "email"):
        await eventually(lambda name=channel: all_are(db, "sent", name))
    metadata = await db.fetchval("SELECT metadata FROM inventory_events WHERE event_type = 'low_stock'")
    assert json.loads(metadata)["alertSent"] is True
    assert json.loads(metadata)["notifiers"] == ["email", "webhook"]

    topic, group = alerts.topic(TOPIC), f"{alerts.group}-notify"
    many = [f"B-{n:02}" for n in range(30)]
    await alerts.publish(an_alert(alert_id), an_alert("old", age=timedelta(hours=2)), topic=topic)
    await alerts.publish(Message(b"no alert", None), topic=topic)
    await becomes_low(db, *many)
    await eventually(lambda: was_read(db, group, 34))
    await eventually(lambda: len(mail.mails) >= 2)
    (_, digest, *_) = await slack.has(2)
    assert "B-00" in digest
    told = {**await statuses(db, "webhook")}
    assert (told.pop("old"), len(told)) == ("expired", 31)
    await eventually(lambda: everything_is_sent(db))
    assert len(slack.posts) <= 4  # 30 products were low at once
    assert sum(post["text"].count("A-1 ") for post in slack.posts) == 1
    assert await metric(worker, "notifications_total", channel="webhook", status="sent") == 31
    assert await metric(worker, "notifications_total", channel="email", status="expired") == 1
    assert await metric(worker, "notification_seconds_count") == 62
    account = await db.fetchrow(
        "SELECT sum(applied) AS applied, sum(duplicates) AS duplicates, sum(dead) AS dead "
        "FROM stream_positions WHERE consumer_group = $1",
        group,
    )
    assert dict(account) == {"applied": 32, "duplicates": 1, "dead": 1}
    assert await worker.terminate(10) == 0


async def everything_is_sent(db: asyncpg.Connection) -> bool:
    return not await db.fetchval("SELECT count(*) FROM notifications WHERE status IN ('pending', 'sending')")


async def test_a_stock_change_is_told_by_a_worker_in_all_its_roles(
    broker: Broker, alerts: Stream, db: asyncpg.Connection, start_worker: StartWorker, slack: SlackSink
) -> None:
    await alerts.create(partitions=1)
    worker = await start_worker(broker, slack_webhook_url=slack.url, **SMALL)
    await alerts.publish(a_change("A-1", name="<!channel>"), topic=alerts.topic("stock-change"))
    (text,) = await slack.has(1, deadline=60)
    assert text == "⚠️ Low Stock Alert: A-1 (&lt;!channel&gt;) - Stock: 2 / Threshold: 5"
    await eventually(lambda: all_are(db, "sent", "webhook"))
    groups = "SELECT DISTINCT consumer_group FROM stream_positions"
    assert {row[0] for row in await db.fetch(groups)} == {alerts.group, f"{alerts.group}-notify"}

    async with db.transaction():  # the notifier cannot write, and nothing else feels it
        await db.execute("LOCK TABLE notifications IN EXCLUSIVE MODE")
        await alerts.publish(a_change("A-2"), topic=alerts.topic("stock-change"))
        await eventually(lambda: metric(worker, "batch_retries_total"))
        await alerts.publish(a_change("A-3"), topic=alerts.topic("stock-change"))
        await eventually(
            lambda: db.fetchval("SELECT EXISTS (SELECT FROM inventory_products WHERE sku = 'A-3')")
        )
        assert (await readiness(worker))[0] == 200
    await eventually(lambda: db.fetchval("SELECT count(*) = 3 FROM notifications WHERE status = 'sent'"))
    assert await worker.terminate(20) == 0


async def test_without_a_channel_nothing_is_read(
    broker: Broker, alerts: Stream, db: asyncpg.Connection, start_worker: StartWorker
) -> None:
    await alerts.create(partitions=1)
    worker = await start_worker(broker, only="notify")
    assert set((await readiness(worker))[1]["checks"]) == {"database"}
    assert "0 notifier(s)" in worker.log_file.read_text()
    assert await worker.terminate(10) == 0
    assert await db.fetchval("SELECT count(*) FROM stream_positions") == 0


async def test_a_parked_alert_goes_down_the_road_again(
    broker: Broker,
    alerts: Stream,
    db: asyncpg.Connection,
    database_url: str,
    start_worker: StartWorker,
    slack: SlackSink,
) -> None:
    topic = alerts.topic(TOPIC)
    worker = await start_worker(
        broker, only="notify", slack_webhook_url=slack.url, max_event_bytes=300, topic_partitions=1
    )
    await alerts.publish(an_alert("too-long", name="W" * 200), Message(b"{}", None), topic=topic)
    await eventually(lambda: db.fetchval("SELECT count(*) = 2 FROM dead_letters"))
    settings = {"database_url": database_url, "topic_low_stock": topic}

    refused = await counterfoil("dead-letters", "retry", "--all", "--json", **settings)
    outcomes = [(row["outcome"], row["reason"]) for row in json.loads(refused.out)]
    assert refused.code == 1
    assert outcomes[0] == ("refused", "no channel is configured on which it could be told")
    shown = await counterfoil("dead-letters", "show", "1", "--json", **settings)
    assert json.loads(shown.out)["now"] == "accepted"

    retried = await counterfoil(
        "dead-letters", "retry", "--all", "--json", **settings, slack_webhook_url=slack.url
    )
    assert sorted(row["outcome"] for row in json.loads(retried.out)) == ["applied", "refused"]
    await slack.has(1)
    await eventually(lambda: all_are(db, "sent", "webhook"))
    assert await statuses(db, "webhook") == {"too-long": "sent"}
    assert await worker.terminate(10) == 0
