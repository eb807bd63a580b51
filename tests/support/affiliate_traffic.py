"""Facts of affiliates and partners: as the model takes them, as a shop publishes them, and what they must come to."""

from __future__ import annotations

import dataclasses
import json
import random
import re
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

import asyncpg

from counterfoil.database.counters import find_drift
from counterfoil.routing import COUNTERS
from counterfoil.settings import DEFAULT_TOPICS
from support import samples
from support.attribution_model import Outcome, World, model, stored
from support.factories import Message, a_message
from support.stream import Flow, Stream

Document = dict[str, Any]

SHAPES = ("snake_case", "camelCase", "structured", "binary", "bus", "eventName")
"""How one and the same fact may be wrapped."""

TIMES = [f"2025-11-{day}:59:5{second}Z" for day in ("05T11", "05T23", "06T23") for second in range(8)]
BASES = ["https://one.example.com/a", "http://www.two.example.org", "https://three.co.uk/x?y"]
BROWSERS = [
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0 Safari/537.36",
    "Mozilla/5.0 (X11; Linux x86_64; rv:144.0) Gecko/20100101 Firefox/144.0",
]
BOT = "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"

ID_FIELDS = {"click": "pixel_id", "user.created": "user_id", "link.created": "link_id"}
"""What a topic's records are keyed by; the others by their order."""


def documents(count: int, seed: int, *, orders: int | None = None) -> list[Document]:
    """Facts of all topics about few orders, pixels, links and users, so that they meet often."""
    dice = random.Random(seed)
    return [a_document(dice, number, orders or max(count // 6, 3)) for number in range(count)]


def a_document(dice: random.Random, number: int, orders: int) -> Document:
    """One fact; `number` tells clicks apart, since of two contents of one click either may stand."""
    kinds = {
        "conversion": lambda: {**_whose(dice), "revenue": _money(dice), **_some(dice, currency=_currency(dice))},
        "order.placed": lambda: {"total": _money(dice), "codes": dice.sample("ABC", k=2)},
        "order.refunded": lambda: {"refund_id": f"r{dice.randrange(3)}", "amount": _money(dice)},
        "order.canceled": dict,
        "user.created": lambda: {"user_id": f"u{dice.randrange(9)}", "name": dice.choice(["Ann", "Bo"])},
        "link.created": lambda: {
            "link_id": f"l{dice.randrange(9)}",
            "url": dice.choice(BASES),
            **_some(dice, user_id=f"u{dice.randrange(9)}", pixel_id=f"p{dice.randrange(5)}"),
        },
        "click": lambda: {
            "click_id": f"c{number}",
            "pixel_id": f"p{dice.randrange(5)}",
            "ip_address": f"203.0.113.{dice.randrange(1, 20)}",
            "user_agent": dice.choice([*BROWSERS, BOT]),
        },
    }  # fmt: skip
    topic = dice.choices(list(kinds), weights=[8, 4, 4, 1, 1, 1, 8])[0]
    order = {"order_id": f"o{dice.randrange(orders)}"} if topic not in ID_FIELDS else {}
    return {"topic": topic, "timestamp": dice.choice(TIMES), **order, **kinds[topic]()}


def _whose(dice: random.Random) -> Document:
    pixel, link = {"pixel_id": f"p{dice.randrange(5)}"}, {"link_id": f"l{dice.randrange(9)}"}
    return dice.choice([pixel, pixel, link, pixel | link, pixel | {"commission": _money(dice)}])


def _some(dice: random.Random, **fields: Any) -> Document:
    return {name: value for name, value in fields.items() if dice.random() < 0.7}


def _money(dice: random.Random) -> str:
    return f"{dice.randrange(20_000) / 100:.2f}"


def _currency(dice: random.Random) -> str:
    return dice.choice(["USD", "USD", "JPY", "BHD"])


def message(document: Document, shape: str = "snake_case") -> Message:
    """A document as its record, in one of the shapes."""
    topic = document["topic"]
    payload = {name: value for name, value in document.items() if name != "topic"}
    key = payload[ID_FIELDS.get(topic, "order_id")]
    if shape == "binary":
        headers = samples.cloud_event_headers(key, topic)
        return dataclasses.replace(a_message(payload, key=key), headers=headers)
    wrapped = {
        "snake_case": payload,
        "camelCase": _in_camel_case(payload),
        "structured": samples.cloud_event(key, payload, topic),
        "bus": samples.bus_event(payload, topic),
        "eventName": samples.bus_event(_in_camel_case(payload), topic, name="eventName"),
    }
    return a_message(wrapped[shape], key=key)


def _in_camel_case(payload: Document) -> Document:
    """The same names in camelCase, and the time in epoch milliseconds."""
    time = datetime.fromisoformat(payload["timestamp"])
    named = {re.sub(r"_(\w)", lambda found: found[1].upper(), name): value for name, value in payload.items()}
    return named | {"timestamp": round(time.timestamp() * 1_000)}


async def publish(stream: Stream, facts: Iterable[Document], shapes: Sequence[str] = SHAPES[:1]) -> None:
    """Send facts to their topics, in turn in each of the shapes."""
    by_topic: dict[str, list[Message]] = {}
    for number, fact in enumerate(facts):
        by_topic.setdefault(fact["topic"], []).append(message(fact, shapes[number % len(shapes)]))
    for topic, messages in by_topic.items():
        await stream.publish_stubbornly(messages, topic=stream.topic(topic))


class MixedTraffic(Flow[Document]):
    """Facts of all topics that keep coming."""

    async def publish(self, chunk: Sequence[Document]) -> None:
        await publish(self._stream, chunk)


async def world_of(db: asyncpg.Connection) -> World:
    """What an operator has set, as the database has it."""
    statuses = await db.fetch("SELECT pixel_id, status, valid_from FROM affiliate_status_changes")
    rates = await db.fetch("SELECT program_id, percent, valid_from FROM program_rates")
    defaults = await db.fetch("SELECT percent, valid_from FROM default_rates")
    owners = await db.fetch("SELECT code, pixel_id FROM affiliate_coupon_owners")
    return World([*map(tuple, statuses)], [*map(tuple, rates)], [*map(tuple, defaults)], dict(owners))


async def assert_settled(db: asyncpg.Connection, facts: Iterable[Document]) -> None:
    """The tables are those of the model, and what is posted is what is owed."""
    found, expected = await stored(db), model(facts, await world_of(db))
    for field in dataclasses.fields(expected):  # table by table, or nobody could read what differs
        too_many, missing = _left(found, expected, field.name), _left(expected, found, field.name)
        assert not too_many + missing, f"{field.name}: has {too_many}, and not {missing}"
    assert await find_drift(db, COUNTERS) == []
    assert await db.fetchval("SELECT count(*) FROM settlements_due") == 0


def _left(one: Outcome, other: Outcome, table: str) -> list[Any]:
    """The rows of one table that the other has not."""
    rows, known = getattr(one, table), getattr(other, table)
    if isinstance(rows, dict):
        rows, known = rows.items(), known.items()
    return [row for row in rows if row not in known]


MALFORMED: dict[str, list[Any]] = {
    "order.placed": [{"codes": ["A"]}, {"order_id": "1", "total": "-1"}],
    "order.canceled": [{"reason": "no order"}],
    "order.refunded": [{"order_id": "1", "amount": "1"}, {"order_id": "1", "refund_id": "r", "amount": "1e3"}],
    "click": [{"click_id": "c"}, {"pixel_id": "p1", "timestamp": "2025-11-05"}],
    "conversion": [
        {"order_id": "1", "revenue": "1"},
        {"order_id": "1", "pixel_id": "p1"},
        {"order_id": "1", "pixel_id": "p1", "revenue": "1", "currency": "dollars"},
    ],
    "user.created": [{"name": "Ann"}, {"name": "order.placed", "data": {"user_id": "u1"}}],
    "link.created": [{"link_id": "l1", "url": "/a/path/alone"}, {"url": "https://one.example.com"}],
}  # fmt: skip
"""By topic what can't become an event."""


def malformed(topic: str) -> list[Message]:
    """What is to be parked from this topic."""
    return [Message(b"not json", b"key"), *(Message(json.dumps(bad).encode()) for bad in MALFORMED[topic])]


assert set(MALFORMED) <= set(DEFAULT_TOPICS)
