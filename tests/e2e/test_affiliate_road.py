"""Affiliates and partners end to end: events from Kafka and HTTP end in what the contract's model says."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import asyncpg
import pytest

from support import samples
from support.affiliate_traffic import (
    BOT,
    BROWSERS,
    SHAPES,
    assert_settled,
    documents,
    malformed,
    message,
    publish,
)
from support.attribution_model import stored
from support.command import counterfoil
from support.factories import a_click, a_conversion, a_link, a_message, a_refund, a_user
from support.http_client import Client
from support.ledgers import account, assert_accounts_close, dead_letters, everything_is_read
from support.servers import Broker, StartWorker
from support.stream import Stream
from support.waiting import eventually

pytestmark = pytest.mark.kafka

SETTINGS = {"attribute_by_coupon": "true", "default_commission_percent": "7.5", "batch_max_records": 300}


async def set_the_world(db: asyncpg.Connection) -> None:
    """An operator's settings, before the first event."""
    await db.execute("INSERT INTO affiliates (handle, name, pixel_id) VALUES ('one', 'One', 'p1')")
    await db.execute(
        "INSERT INTO affiliates (handle, name, pixel_id, status) VALUES ('two', 'Two', 'p2', 'paused')"
    )
    await db.execute("INSERT INTO affiliate_coupon_owners (code, pixel_id) VALUES ('A', 'p1'), ('B', 'p3')")


async def publish_all(stream: Stream, facts: list[dict], seed: int) -> set[tuple[str, int, int]]:
    """Send facts shuffled, some doubled, in every shape, malformed ones between; answers where the malformed are."""
    dice = random.Random(seed)
    sent = [*facts, *dice.choices(facts, k=len(facts) // 3)]
    dice.shuffle(sent)
    refused = set()
    for topic in dict.fromkeys(fact["topic"] for fact in sent):
        good = [message(fact, dice.choice(SHAPES)) for fact in sent if fact["topic"] == topic]
        bad = malformed(topic)
        mixed = [*good, *bad]
        dice.shuffle(mixed)
        name = stream.topic(topic)
        places = await stream.publish(*mixed, topic=name)
        refused |= {(name, *place) for place, sent_one in zip(places, mixed, strict=True) if sent_one in bad}
    return refused


async def test_all_topics_shuffled_doubled_and_in_every_shape_end_in_the_tables_of_the_model(
    stream: Stream, db: asyncpg.Connection, start_worker: StartWorker, database_url: str
) -> None:
    await stream.create(partitions=2)
    await set_the_world(db)
    facts = documents(2_500, seed=1)
    worker = await start_worker(stream.kafka, **SETTINGS)
    refused = await publish_all(stream, facts, seed=2)
    await everything_is_read(db, stream)

    await assert_settled(db, facts)
    letters = await dead_letters(db)
    assert {(row["topic"], row["partition"], row["offset"]) for row in letters} == refused
    assert len(letters) == len(refused)
    await assert_accounts_close(db, stream)
    assert (await counterfoil("verify", database_url=database_url)).code == 0

    assert await worker.terminate() == 0
    again = f"{stream.group}.again"
    await start_worker(stream.kafka, consumer_group=again, **SETTINGS)
    await everything_is_read(db, stream, group=again)
    await assert_settled(db, facts)
    assert len(await dead_letters(db)) == len(refused)
    assert all([(await account(db, topic)).closes for topic in stream.topics])


async def test_every_shape_of_a_fact_is_the_same_row(
    stream: Stream, db: asyncpg.Connection, start_worker: StartWorker
) -> None:
    """One record of each shape, all of one content: the first is applied, the others are its doubles."""
    await stream.create(partitions=1)
    facts = {fact["topic"]: fact for fact in documents(200, seed=3)}
    for topic, fact in facts.items():
        await stream.publish(*(message(fact, shape) for shape in SHAPES), topic=stream.topic(topic))
    await start_worker(stream.kafka)
    await everything_is_read(db, stream)

    assert await dead_letters(db) == []
    for topic in facts:
        found = await account(db, stream.topic(topic))
        assert (topic, found.applied, found.duplicates) == (topic, 1, len(SHAPES) - 1)


async def test_refunds_as_shopify_and_medusa_send_them_take_back_their_share(
    stream: Stream, db: asyncpg.Connection, start_worker: StartWorker
) -> None:
    await stream.create(partitions=1)
    shopify, medusa = "6200407294252", "order_01"
    sold = [
        a_conversion(shopify, revenue="174.10", commission="17.41"),
        a_conversion(medusa, revenue="88.98", commission="8.90", currency="EUR"),
    ]
    await stream.publish(*sold, topic=stream.conversions)
    returned = [a_message(samples.shopify_refund(int(shopify))), a_message(samples.medusa_refund(medusa))]
    await stream.publish(*returned, *returned, topic=stream.refunded)
    await start_worker(stream.kafka)
    await everything_is_read(db, stream)

    assert await dead_letters(db) == []
    owed = {
        r["order_id"]: (r["refunded"], r["commission"])
        for r in await db.fetch("SELECT * FROM aff_attributions")
    }
    assert owed == {
        shopify: (Decimal("87.05"), Decimal("8.70")),  # half of 17.41 is 8.705: to even
        medusa: (Decimal("44.49"), Decimal("4.45")),
    }
    assert (await account(db, stream.refunded)).duplicates == 2


async def test_facts_without_an_id_of_their_own_count_once_however_often_the_log_is_read(
    stream: Stream, db: asyncpg.Connection, start_worker: StartWorker
) -> None:
    await stream.create(partitions=2)
    clicks = [a_message({"pixel_id": "p1", "ip_address": "203.0.113.7"}, key="p1") for _ in range(20)]
    tracked = [a_click("p2", click_id="c1"), a_message({"pixel_id": "p2"})]
    await stream.publish(*clicks, *tracked, topic=stream.clicks)
    groups = [f"{stream.group}.one", f"{stream.group}.other"]
    for group in groups:
        await start_worker(stream.kafka, consumer_group=group, ready_within=None)
    for group in groups:
        await everything_is_read(db, stream, group=group)

    assert {key[0]: counts[:2] for key, counts in (await stored(db)).daily.items()} == {
        "p1": (20, 1),
        "p2": (2, 1),
    }
    found = await account(db, stream.clicks)
    assert (found.applied, found.duplicates) == (22, 22)


async def test_the_embedded_broker_carries_every_topic(
    broker: Broker, topic_prefix: str, db: asyncpg.Connection, start_worker: StartWorker
) -> None:
    facts = documents(300, seed=4)
    async with Stream(broker, topic_prefix) as stream:
        await stream.create(partitions=1)
        await start_worker(broker, ready_within=None, kafka_idempotence="false", **SETTINGS)
        await publish(stream, facts, SHAPES)
        await everything_is_read(db, stream)
    await assert_settled(db, facts)
    assert await dead_letters(db) == []
    await assert_accounts_close(db, stream)


# HTTP → Kafka → numbers

AFFILIATES = "/api/affiliates"
BLOG = f"{AFFILIATES}/blog"
EARNINGS, PAYOUTS = (f"/api/partners/pn_u1/{what}" for what in ("earnings", "payouts"))


@pytest.fixture
async def client(stream: Stream, start_worker: StartWorker) -> Client:
    """The HTTP of a worker that approves what is sold, and pays ten percent."""
    await stream.create(partitions=1)
    worker = await start_worker(stream.kafka, commission_hold_days=0, default_commission_percent=10)
    return Client(worker.port)


async def shows(client: Client, path: str, **expected: Any) -> dict[str, Any]:
    """The answer to a GET, once it shows what is expected."""

    async def found() -> dict[str, Any] | None:
        answer = (await client.get(path)).json
        return answer if expected.items() <= answer.items() else None

    return await eventually(found, deadline=20, every=0.05)


async def owes(client: Client, **balance: str) -> None:
    """Wait until the partner's balance in USD is this."""

    async def owed() -> bool:
        (found,) = (await client.get(EARNINGS)).json.get("balances") or [{}]
        return balance.items() <= found.items()

    await eventually(owed, deadline=20, every=0.05)


def ago(**time: float) -> str:
    return (datetime.now(UTC) - timedelta(**time)).isoformat()


async def test_reloads_bots_and_late_clicks_count_as_what_they_are(client: Client) -> None:
    pixel = (await client.post(AFFILIATES, {"handle": "blog", "name": "Blog"})).json["pixelId"]
    click = {"pixelId": pixel, "landingPage": "/"}
    for agent in (BROWSERS[0], BROWSERS[0], BROWSERS[0], BROWSERS[1], BOT):
        assert (await client.post(f"{AFFILIATES}/track/click", click, user_agent=agent)).status == 202
    for days in (29, 30, 31):
        late = click | {"timestamp": ago(days=days)}
        assert (await client.post(f"{AFFILIATES}/track/click", late, user_agent=BROWSERS[0])).status == 202

    found = await shows(client, BLOG, clicks30d=5, uniqueClicks30d=3, botClicks30d=1)
    assert [(day["clicks"], day["uniqueClicks"], day["botClicks"]) for day in found["daily"]] == [
        (1, 1, 0),
        *[(0, 0, 0)] * 28,
        (4, 2, 1),
    ]
    assert found["daily"][-1]["day"] == datetime.now(UTC).date().isoformat()
    longer = await shows(client, f"{BLOG}?days=32", clicks=7)
    assert (longer["clicks30d"], len(longer["daily"])) == (5, 32)


async def test_what_is_sold_is_earned_approved_and_paid_once(
    client: Client, stream: Stream, start_worker: StartWorker
) -> None:
    pixel = (await client.post(AFFILIATES, {"handle": "blog", "name": "Blog"})).json["pixelId"]
    await stream.publish(a_user("u1", name="Ann"), topic=stream.users)
    await stream.publish(a_link("l1", user_id="u1", pixel_id=pixel), topic=stream.links)
    sale = {"pixelId": pixel, "orderId": "1", "revenue": "100.00", "timestamp": ago(minutes=5)}
    assert (await client.post(f"{AFFILIATES}/track/conversion", sale)).status == 202
    await owes(client, pending="10.00")
    assert (await client.post(f"{AFFILIATES}/track/conversion", sale)).status == 409
    earlier = sale | {"revenue": 50, "timestamp": ago(minutes=6)}
    assert (await client.post(f"{AFFILIATES}/track/conversion", earlier)).status == 202
    await owes(client, pending="5.00")
    assert (await client.post(PAYOUTS, {"currency": "USD"})).status == 409  # it is not approved yet

    await start_worker(stream.kafka, only="schedule", commission_hold_days=0, default_commission_percent=10)
    await owes(client, pending="0.00", approved="5.00")
    paid = await client.post(PAYOUTS, {"currency": "USD", "reference": "SEPA 1"}, idempotency_key="k")
    again = await client.post(PAYOUTS, {"currency": "USD", "reference": "SEPA 1"}, idempotency_key="k")
    assert (paid.status, paid.json["amount"], again.json) == (201, "5.00", paid.json)
    assert (await client.post(PAYOUTS, {"currency": "USD"})).status == 409

    await stream.publish(a_refund("1", amount="20"), topic=stream.refunded)
    await owes(client, paid="5.00", approved="-2.00")  # taken off the next payout
    assert (await client.post(PAYOUTS, {"currency": "USD"})).status == 409
    await shows(client, BLOG, conversions=1, revenue={"USD": "50.00"}, commission={"USD": "3.00"})


async def test_a_paused_affiliate_earns_nothing_for_what_is_sold_meanwhile(client: Client) -> None:
    pixel = (await client.post(AFFILIATES, {"handle": "blog", "name": "Blog"})).json["pixelId"]

    async def sold(order_id: str) -> None:
        sale = {"pixelId": pixel, "orderId": order_id, "revenue": "10.00"}
        assert (await client.post(f"{AFFILIATES}/track/conversion", sale)).status == 202

    await sold("1")
    assert (await client.patch(BLOG, {"status": "paused"})).json["status"] == "paused"
    await sold("2")
    assert (await client.patch(BLOG, {"status": "active"})).json["status"] == "active"
    await sold("3")
    await shows(client, BLOG, conversions=3, revenue={"USD": "30.00"}, commission={"USD": "2.00"})
