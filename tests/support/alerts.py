"""Alerts in tests: raised by hand, and heard where they come out."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import asyncpg
from aiokafka import AIOKafkaConsumer, TopicPartition

from counterfoil.kafka.cluster import Cluster
from counterfoil.notifications.alerts import Alert, raise_alerts
from support.postgres_road import plain_settings

TOPIC = "voucher-alert"
NOON = "2026-03-01T12:00:00Z"
PARTITIONS = 2


def an_alert(
    subject: str = "v-1", *, cause: str | None = None, kind: str = "scan-rate", **payload: object
) -> Alert:
    return Alert(kind, subject, cause or subject, {"occurred_at": NOON, **payload})


async def raise_numbers(db: asyncpg.Connection, *numbers: int, voucher_id: str = "v-1") -> list[str]:
    """Raise an alert of its own cause for each number; their ids."""
    alerts = [
        an_alert(
            voucher_id, cause=f"{voucher_id} {number}", kind="scan-rate", voucher_id=voucher_id, value=number
        )
        for number in numbers
    ]
    return await raise_alerts(db, TOPIC, alerts, timedelta(minutes=5))


async def nothing_waits(db: asyncpg.Connection) -> bool:
    """Whether the outbox is empty."""
    return bool(await db.fetchval("SELECT count(*) = 0 FROM outbox"))


class Listener:
    """A consumer of the alerts; `records` are what it has heard, in order."""

    def __init__(self, consumer: AIOKafkaConsumer) -> None:
        self._consumer = consumer
        self.records: list[Any] = []

    async def hears(self, count: int, *, within: float = 20.0) -> list[tuple[int, str]]:
        """Wait until so many records have come; the number and the id of each."""
        await self.hears_records(count, within=within)
        values = [json.loads(record.value) for record in self.records]
        return [(value["value"], value["alert_id"]) for value in values]

    async def hears_records(self, count: int, *, within: float = 20.0) -> None:
        """Wait until so many records have come."""
        async with asyncio.timeout(within):
            while len(self.records) < count:
                for records in (await self._consumer.getmany(timeout_ms=100)).values():
                    self.records += records


@asynccontextmanager
async def listening(address: str, topic: str) -> AsyncIterator[Listener]:
    """Listen to a topic from its beginning; it is made where it is missing."""
    cluster = Cluster(plain_settings(kafka_bootstrap_servers=address))
    await cluster.create_topics([topic], PARTITIONS)
    await cluster.close()
    async with AIOKafkaConsumer(bootstrap_servers=address, enable_auto_commit=False) as consumer:
        places = [TopicPartition(topic, partition) for partition in range(PARTITIONS)]
        consumer.assign(places)
        await consumer.seek_to_beginning(*places)
        yield Listener(consumer)
