"""Publishes events to Kafka, idempotently, and tells where each went."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple, Self
from uuid import uuid4

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, KafkaTimeoutError

from counterfoil.errors import DependencyUnreachable
from counterfoil.events import Event
from counterfoil.kafka.connection import client_options
from counterfoil.settings import Settings, load_settings

START_WITHIN_S = 15.0
STOP_WITHIN_S = 10.0
CUT_OFF_WITHIN_S = 1.0
ANSWER_WITHIN_S = 40.0

HeaderList = Sequence[tuple[str, bytes | None]]

_NOTHING = object()
"""Stands for a null value: aiokafka takes no record whose key and value are both null, though Kafka does."""


class Published(NamedTuple):
    """Where Kafka has put a record; it is acknowledged by all in-sync replicas."""

    topic: str
    partition: int
    offset: int


class Publisher:
    """An asynchronous publisher of typed events.

    ::

        async with Publisher() as publisher:
            await publisher.publish(events.OrderPlaced(order_id="1001", codes=["SPRING"]))

    Takes its addresses and topic names from the settings (environment and `.env`) unless given. Raises
    DependencyUnreachable when Kafka does not answer a request within `answer_within_s`, and with
    `kafka_idempotence` off also when it has not acknowledged an event by then; an idempotent producer never
    gives an event up.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        answer_within_s: float = ANSWER_WITHIN_S,
        largest_record: int | None = None,
        **overrides: Any,
    ) -> None:
        self._settings = settings or load_settings(**overrides)
        self._largest = largest_record or max(self._settings.max_event_bytes + 64 * 1024, 1_048_576)
        self._names = self._settings.topics | self._settings.outgoing_topics
        self._answer_within_ms = int(answer_within_s * 1_000)
        self._producer: AIOKafkaProducer | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> AIOKafkaProducer:
        """Connect to Kafka; DependencyUnreachable when it does not answer within 15 s."""
        producer = AIOKafkaProducer(
            **client_options(self._settings),
            acks="all",
            enable_idempotence=self._settings.kafka_idempotence,
            linger_ms=5,
            max_batch_size=256 * 1024,
            max_request_size=self._largest,
            value_serializer=lambda value: None if value is _NOTHING else value,
            request_timeout_ms=self._answer_within_ms,
        )
        try:
            await asyncio.wait_for(producer.start(), START_WITHIN_S)
        except BaseException as error:
            await producer.stop()
            if isinstance(error, (KafkaError, OSError, TimeoutError)):
                raise self._unreachable(error) from error
            raise
        self._producer = producer
        return producer

    async def stop(self, within_s: float = STOP_WITHIN_S) -> None:
        """Send what is left and disconnect; what Kafka does not take in that time is given up."""
        producer, self._producer = self._producer, None
        if producer is None:
            return
        stopping = asyncio.create_task(producer.stop())
        await asyncio.wait({stopping}, timeout=within_s)
        if not stopping.done():
            producer._message_accumulator.fail_all(KafkaTimeoutError())  # it would wait for each of these
            await producer.client.close()
            await asyncio.wait({stopping}, timeout=CUT_OFF_WITHIN_S)
        if stopping.done():
            stopping.exception()  # of no use to anybody now

    async def publish(self, event: Event) -> Published:
        """Send one event and wait until Kafka has acknowledged it."""
        return await self.send(event.topic, event.key, event.to_json(), event_headers(event))

    async def publish_many(self, many: Iterable[Event]) -> list[Published]:
        """Send events in order, and wait until Kafka has acknowledged every one."""
        sent = [await self.enqueue(e.topic, e.key, e.to_json(), event_headers(e)) for e in many]
        return await self.acknowledge(sent)

    async def send(
        self, topic: str, key: str | None, value: bytes | None, headers: HeaderList | None = None
    ) -> Published:
        """Send bytes as they are to a topic, named by its default name, and wait for the acknowledgement."""
        return await self._acknowledged(await self.enqueue(topic, key, value, headers))

    async def enqueue(
        self, topic: str, key: str | bytes | None, value: bytes | None, headers: HeaderList | None = None
    ) -> asyncio.Future[Any]:
        """Hand bytes to the producer's buffer; the future ends with Kafka's acknowledgement."""
        producer = self._producer or await self.start()
        name = self._names.get(topic, topic)
        try:
            future: asyncio.Future[Any] = await producer.send(
                name,
                _NOTHING if value is None else value,
                key=key.encode() if isinstance(key, str) else key,
                headers=headers,
            )
        except (KafkaError, OSError, TimeoutError) as error:
            raise self._unreachable(error) from error
        return future

    async def acknowledge(self, futures: Iterable[asyncio.Future[Any]]) -> list[Published]:
        """Wait until Kafka has acknowledged what was enqueued."""
        return [await self._acknowledged(future) for future in futures]

    async def _acknowledged(self, future: asyncio.Future[Any]) -> Published:
        try:
            metadata = await future
        except (KafkaError, OSError, TimeoutError) as error:
            raise self._unreachable(error) from error
        return Published(metadata.topic, metadata.partition, metadata.offset)

    def _unreachable(self, error: BaseException) -> DependencyUnreachable:
        return DependencyUnreachable(
            f"Kafka at {self._settings.kafka_bootstrap_servers}: {str(error) or type(error).__name__}"
        )


def event_headers(event: Event) -> HeaderList:
    """The headers of a CloudEvents 1.0 binary message: the value stays the plain object."""
    time = event.timestamp or datetime.now(UTC)
    identity = event.identity or uuid4()
    return [
        ("content-type", b"application/json"),
        ("ce_specversion", b"1.0"),
        ("ce_id", f"{event.topic}:{identity}".encode()),
        ("ce_source", b"/counterfoil/publisher"),
        ("ce_type", event.topic.encode()),
        ("ce_time", time.isoformat().encode()),
    ]
