"""A channel that hangs is not felt where stock changes are counted.

`make soak` runs it; COUNTERFOIL_SOAK_CHANGES says how many changes each pass reads.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
from collections.abc import Iterator
from statistics import median
from typing import NamedTuple

import pytest
from aiohttp import web

from counterfoil.bench.sources import Ground, ground
from counterfoil.bench.worker import measure
from support.sinks import WebhookSink, webhook_sink

CHANGES = int(os.environ.get("COUNTERFOIL_SOAK_CHANGES", "300_000"))
PRODUCTS = 20_000
LOW = 20
"""Products that are low from the first change on, and told of at every level."""

PASSES = 5
LEAST_SHARE = 0.95


class Change(NamedTuple):
    """A sale of one."""

    key: str
    value: bytes


def changes() -> Iterator[Change]:
    """What is in stock of each product, and then sales."""
    dice = random.Random(2026)
    for number in range(PRODUCTS):
        yield _change(number, {"new_stock": 9 if number < LOW else 1_000_000})
    for _ in range(CHANGES - PRODUCTS):
        yield _change(dice.randrange(PRODUCTS), {"quantity_delta": -1})


def _change(number: int, moved: dict[str, int]) -> Change:
    sku = f"SKU-{number:06}"
    return Change(sku, json.dumps({"sku": sku, "event_type": "sale", **moved}).encode())


async def never(request: web.Request) -> web.StreamResponse:
    """The answer that does not come."""
    await asyncio.Event().wait()
    raise AssertionError


async def rate(on: Ground, topic: str, name: str, webhook: str) -> float:
    """Changes a second of a worker that also relays and notifies, where there is a webhook to notify."""
    settings = {
        "COUNTERFOIL_TOPIC_LOW_STOCK": f"{on.name}.{name}.low",
        "COUNTERFOIL_SLACK_WEBHOOK_URL": webhook,
    }
    async with on.schema() as schema:
        run = await measure(
            on,
            schema,
            topic,
            f"{on.name}.{name}",
            CHANGES,
            event="stock-change",
            roles="ingest,relay,notify",
            settings=settings,
        )
        if webhook:
            assert await on.connection.fetchval("SELECT count(*) FROM notifications") > 0
    return run.per_second


@pytest.mark.slow
async def test_soak_a_channel_that_hangs_costs_ingest_less_than_a_twentieth() -> None:
    sink: WebhookSink
    async with ground() as on, webhook_sink() as sink:
        sink.answer = never
        topic = await on.topic("changes", list(changes()))
        shares = []
        for number in range(PASSES):
            without = await rate(on, topic, f"without{number}", "")
            beside = await rate(on, topic, f"beside{number}", sink.url)
            shares.append(beside / without)
            print(f"without {without:,.0f}/s, beside a channel that hangs {beside:,.0f}/s: {shares[-1]:.3f}")
        assert sink.posted
        assert median(shares) >= LEAST_SHARE
