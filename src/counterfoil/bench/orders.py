"""The orders of a bench, and how they get into a topic before the clock runs."""

from __future__ import annotations

import json
import random
import zlib
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from aiokafka import AIOKafkaProducer

from counterfoil.kafka.connection import client_options
from counterfoil.settings import Settings

SEED = 2026
CODES = 500
HOT_CODE = "PARTNER-HOT"
BATCH_BYTES = 128 * 1024
APART = timedelta(milliseconds=20)

_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


class Order(NamedTuple):
    """A plain order with one code."""

    order_id: str
    code: str
    placed_at: datetime

    @property
    def value(self) -> bytes:
        """Its JSON, 170 bytes or so."""
        fields = {
            "order_id": self.order_id,
            "timestamp": self.placed_at.isoformat(),
            "currency": "EUR",
            "total": "129.90",
            "customer_id": f"cus_{self.order_id[6:]}",
            "codes": [self.code],
        }
        return json.dumps(fields, separators=(",", ":")).encode()


def sample_orders(count: int, *, seed: int = SEED) -> list[Order]:
    """Orders of the last hours, 20 ms apart, their ids in the order of time (ULIDs); 500 codes, evenly."""
    dice = random.Random(seed)  # noqa: S311 - sample data
    first = datetime.now(UTC).replace(microsecond=0) - count * APART - timedelta(minutes=1)
    times = (first + number * APART for number in range(count))
    return [Order(_ulid(dice, at), f"PARTNER-{dice.randrange(CODES):04}", at) for at in times]


def with_one_code(orders: Sequence[Order]) -> list[Order]:
    """The same orders, all with the same code."""
    return [order._replace(code=HOT_CODE) for order in orders]


def _ulid(dice: random.Random, at: datetime) -> str:
    bits = (int(at.timestamp() * 1000) << 80) | dice.getrandbits(80)
    return "order_" + "".join(_CROCKFORD[(bits >> shift) & 31] for shift in range(125, -1, -5))


async def preload(settings: Settings, topic: str, partitions: int, orders: Sequence[Order]) -> None:
    """Put the orders into a topic, spread by their ids, and wait until Kafka has acknowledged them."""
    producer = AIOKafkaProducer(**client_options(settings), acks="all", max_batch_size=BATCH_BYTES)
    await producer.start()
    try:
        for partition in range(partitions):
            mine = [o for o in orders if zlib.crc32(o.order_id.encode()) % partitions == partition]
            await _fill(producer, topic, partition, mine)
    finally:
        await producer.stop()


async def _fill(producer: AIOKafkaProducer, topic: str, partition: int, orders: Sequence[Order]) -> None:
    batch = producer.create_batch()
    for order in orders:
        record = {"key": order.order_id.encode(), "value": order.value, "timestamp": None}
        if batch.append(**record) is None:
            await (await producer.send_batch(batch, topic, partition=partition))
            batch = producer.create_batch()
            batch.append(**record)
    if batch.record_count():
        await (await producer.send_batch(batch, topic, partition=partition))
