"""From publish to row: how long an order takes at a steady rate."""

from __future__ import annotations

import asyncio
import statistics
import time
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count

from counterfoil.bench.orders import Order
from counterfoil.bench.sources import Ground
from counterfoil.bench.worker import until_accounted, worker
from counterfoil.publishing import Published, Publisher

RATE = 1_000
"""Events a second."""

WARM_UP = 1_000
LOOK_EVERY_S = 0.001


@dataclass(frozen=True)
class Latency:
    """Milliseconds from handing an event to the publisher until its row can be seen by another connection."""

    events: int
    p50_ms: float
    p99_ms: float
    max_ms: float


async def measure_latency(
    ground: Ground, schema: str, topic: str, group: str, orders: Sequence[Order]
) -> Latency:
    """Publish the orders at 1,000 a second, the first second of them to warm up.

    A row is seen when its partition's position has passed it: both come with the same commit. Looked for every
    millisecond, so a figure is too long by that at most. A commit's own timestamp would leave out its fsync.
    """
    warm_up = min(WARM_UP, len(orders) // 2)
    seen: dict[int, list[tuple[int, float]]] = defaultdict(list)
    async with worker(ground, schema, topic, group) as child, Publisher(ground.settings) as publisher:
        await _publish(publisher, topic, orders[:warm_up])
        await until_accounted(ground, child, group, warm_up)
        looking = asyncio.create_task(_look(ground, group, seen))
        try:
            published = await _publish(publisher, topic, orders[warm_up:])
            await asyncio.sleep(0)
            while not all(_seen_at(seen, place) for _, place in published):
                if looking.done() or child.exit_code is not None:
                    raise TimeoutError
                await asyncio.sleep(0.05)
        finally:
            looking.cancel()
            await asyncio.gather(looking, return_exceptions=True)
    times = sorted((_seen_at(seen, place) - sent_at) * 1000 for sent_at, place in published)
    cuts = statistics.quantiles(times, n=100, method="inclusive")
    return Latency(len(times), cuts[49], cuts[98], times[-1])


async def _publish(
    publisher: Publisher, topic: str, orders: Sequence[Order]
) -> list[tuple[float, Published]]:
    """Publish at a steady rate; when each was handed over, and where it went."""
    began = time.perf_counter()
    sent = []
    for number, order in enumerate(orders):
        await asyncio.sleep(max(0.0, began + number / RATE - time.perf_counter()))
        at = time.perf_counter()
        sent.append((at, await publisher.enqueue(topic, order.order_id, order.value)))
    places = await publisher.acknowledge(future for _, future in sent)
    return [(at, place) for (at, _), place in zip(sent, places, strict=True)]


async def _look(ground: Ground, group: str, seen: dict[int, list[tuple[int, float]]]) -> None:
    for _ in count():
        rows = await ground.connection.fetch(
            'SELECT "partition", next_offset FROM stream_positions WHERE consumer_group = $1', group
        )
        now = time.perf_counter()
        for partition, next_offset in rows:
            moves = seen[partition]
            if not moves or moves[-1][0] != next_offset:
                moves.append((next_offset, now))
        await asyncio.sleep(LOOK_EVERY_S)


def _seen_at(seen: dict[int, list[tuple[int, float]]], place: Published) -> float:
    """When its partition's position was first seen beyond a record; 0 when not yet."""
    moves = seen[place.partition]
    index = bisect_left(moves, (place.offset + 1, 0.0))
    return moves[index][1] if index < len(moves) else 0.0
