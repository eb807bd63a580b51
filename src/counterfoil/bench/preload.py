"""How samples get into a topic before the clock runs."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Protocol

from aiokafka import AIOKafkaProducer

from counterfoil.kafka.connection import client_options
from counterfoil.settings import Settings

BATCH_BYTES = 128 * 1024


class Sample(Protocol):
    """An event that is published in a bench."""

    @property
    def key(self) -> str:
        """The key of its record."""

    @property
    def value(self) -> bytes:
        """Its JSON."""


async def preload(settings: Settings, topic: str, partitions: int, samples: Sequence[Sample]) -> None:
    """Put the samples into a topic, spread by their keys, and wait until Kafka has acknowledged them."""
    producer = AIOKafkaProducer(**client_options(settings), acks="all", max_batch_size=BATCH_BYTES)
    await producer.start()
    try:
        for partition in range(partitions):
            mine = [s for s in samples if zlib.crc32(s.key.encode()) % partitions == partition]
            await _fill(producer, topic, partition, mine)
    finally:
        await producer.stop()


async def _fill(producer: AIOKafkaProducer, topic: str, partition: int, samples: Sequence[Sample]) -> None:
    batch = producer.create_batch()
    for sample in samples:
        record = {"key": sample.key.encode(), "value": sample.value, "timestamp": None}
        if batch.append(**record) is None:
            await (await producer.send_batch(batch, topic, partition=partition))
            batch = producer.create_batch()
            batch.append(**record)
    if batch.record_count():
        await (await producer.send_batch(batch, topic, partition=partition))
