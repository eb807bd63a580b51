"""Every shape that a topic may carry arrives as the same rows."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from decimal import Decimal

import asyncpg
import pytest

from support import samples
from support.factories import Message, a_message, an_order, order_ids
from support.ledgers import account, assert_accounts_close, counted, dead_letters, everything_is_read, usages
from support.servers import StartWorker
from support.stream import Stream

pytestmark = pytest.mark.kafka

PLACED_AT = datetime(2025, 11, 6, 20, tzinfo=UTC)
CANCELED_AT = datetime(2025, 11, 7, 20, tzinfo=UTC)
BLOG = {"TECHBLOG10"}
MEDUSA = {"TECHBLOG10", "FREESHIP", "CARTONLY"}
SHOPIFY_IDS = (6_200_407_294_252, 6_200_407_294_253)


def in_binary_mode(payload: object, order_id: str, event: str = "order.placed") -> Message:
    headers = samples.cloud_event_headers(order_id, event)
    return dataclasses.replace(a_message(payload, key=order_id), headers=headers)


async def test_every_shape_of_an_order_arrives_as_the_right_usages(
    stream: Stream, db: asyncpg.Connection, start_worker: StartWorker
) -> None:
    ids = order_ids(9)
    expected: dict[str, tuple[Message, set[str]]] = {
        ids[0]: (a_message(samples.plain_snake(ids[0])), BLOG | {"VIP"}),
        ids[1]: (a_message(samples.plain_camel(ids[1])), BLOG | {"VIP"}),
        ids[2]: (a_message(samples.cloud_event(ids[2], {"id": ids[2], "codes": ["TECHBLOG10"]})), BLOG),
        ids[3]: (in_binary_mode({"id": ids[3], "codes": ["TECHBLOG10"]}, ids[3]), BLOG),
        ids[4]: (a_message(samples.bus_event(samples.expanded_medusa_order(ids[4]))), MEDUSA),
        ids[5]: (a_message(samples.bus_event(samples.plain_camel(ids[5]), name="eventName")), BLOG | {"VIP"}),
        ids[6]: (a_message(samples.expanded_medusa_order(ids[6])), MEDUSA),
        ids[7]: (a_message(samples.bus_event({"id": ids[7]})), set()),
        ids[8]: (
            a_message(samples.cloud_event(ids[8], samples.bus_event(samples.plain_snake(ids[8])))),
            BLOG | {"VIP"},
        ),
        str(SHOPIFY_IDS[0]): (a_message(samples.shopify_order(SHOPIFY_IDS[0])), BLOG),
    }
    await stream.create()
    await stream.publish(*(message for message, _ in expected.values()))
    await start_worker(stream.kafka)
    await everything_is_read(db, stream)

    assert await dead_letters(db) == []
    assert await usages(db) == sorted(
        (order_id, code) for order_id, (_, codes) in expected.items() for code in codes
    )
    assert await counted(db) == {"TECHBLOG10": 9, "VIP": 4, "FREESHIP": 2, "CARTONLY": 2}
    assert {
        row["occurred_at"] for row in await db.fetch("SELECT occurred_at FROM affiliate_coupon_usages")
    } == {PLACED_AT}
    found = await account(db, stream.placed)
    assert (found.applied, found.duplicates) == (10, 0)


async def test_rewarded_entries_arrive_as_promo_uses_in_snake_and_camel_case(
    stream: Stream, db: asyncpg.Connection, start_worker: StartWorker
) -> None:
    snake, camel = order_ids(2)
    await stream.create()
    await stream.publish(a_message(samples.plain_snake(snake)), a_message(samples.plain_camel(camel)))
    await start_worker(stream.kafka)
    await everything_is_read(db, stream)

    rows = await db.fetch(
        """SELECT u.order_id, p.code, u.base_reward, u.bonus_amount, u.total_reward, u.shop_id, u.customer_address
           FROM promo_code_uses AS u JOIN promo_codes AS p ON p.id = u.promo_code_id"""
    )
    use = ("TECHBLOG10", Decimal("1.50"), Decimal("0.25"), Decimal("1.75"), "shop_7", "0xabc")
    assert {tuple(row) for row in rows} == {(snake, *use), (camel, *use)}
    count = await db.fetchrow("SELECT code, times_used, total_bonus_issued FROM promo_codes")
    assert tuple(count) == ("TECHBLOG10", 2, Decimal("0.50"))


async def test_every_shape_of_a_cancellation_takes_its_order_back(
    stream: Stream, db: asyncpg.Connection, start_worker: StartWorker
) -> None:
    ids = order_ids(6)
    at = "2025-11-07T20:00:00Z"
    shapes = [
        a_message({"order_id": ids[0], "timestamp": at, "reason": "customer"}),
        a_message({"orderId": ids[1], "canceledAt": 1_762_545_600_000, "cancelReason": "customer"}),
        a_message(
            samples.cloud_event(
                ids[2], {"id": ids[2], "timestamp": at, "reason": "customer"}, "order.canceled"
            )
        ),
        in_binary_mode({"id": ids[3], "timestamp": at, "reason": "customer"}, ids[3], "order.canceled"),
        a_message(
            samples.bus_event({"id": ids[4], "canceled_at": at, "reason": "customer"}, "order.canceled")
        ),
        a_message(samples.shopify_cancellation(SHOPIFY_IDS[1])),
    ]
    taken_back = [*ids[:5], str(SHOPIFY_IDS[1])]
    await stream.create()
    await stream.publish(
        *(an_order(order_id=order_id, codes=["SPRING"]) for order_id in [*taken_back, ids[5]])
    )
    await stream.publish(*shapes, topic=stream.canceled)
    await start_worker(stream.kafka)
    await everything_is_read(db, stream)

    assert await dead_letters(db) == []
    assert await usages(db) == [(ids[5], "SPRING")]
    assert await counted(db) == {"SPRING": 1}
    rows = await db.fetch("SELECT order_id, canceled_at, reason FROM order_cancellations")
    assert {tuple(row) for row in rows} == {(order_id, CANCELED_AT, "customer") for order_id in taken_back}


async def test_an_event_of_another_topic_is_parked_not_counted(
    stream: Stream, db: asyncpg.Connection, start_worker: StartWorker
) -> None:
    await stream.create()
    await stream.publish(a_message(samples.bus_event({"id": "1"}, "order.canceled")))
    await start_worker(stream.kafka)
    await everything_is_read(db, stream)

    (letter,) = await dead_letters(db)
    assert letter["error_kind"] == "wrong_event"
    assert await db.fetchval("SELECT count(*) FROM order_cancellations") == 0
    await assert_accounts_close(db, stream)
