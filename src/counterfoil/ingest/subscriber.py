"""The FastStream subscriber: raw batches, our own parser and decoder, nothing acknowledged by the framework."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Sequence

import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError
from faststream import AckPolicy
from faststream.kafka import KafkaBroker
from faststream.kafka.message import FAKE_CONSUMER, KafkaAckableMessage, KafkaMessage

from counterfoil.errors import DependencyUnreachable
from counterfoil.ingest.rebalance import Rebalance
from counterfoil.kafka.cluster import Cluster
from counterfoil.kafka.connection import faststream_security
from counterfoil.kafka.tolerant import tolerate_header_names
from counterfoil.settings import Settings
from counterfoil.telemetry.health import Health
from counterfoil.telemetry.logging import adopt_library_loggers

log = structlog.get_logger("counterfoil.ingest")

POLL_RECORDS = 500
"""Records of one poll: aiokafka unpacks them in one go, which holds the loop for about 1.5 ms."""

FETCH_BYTES = 8 * 1024 * 1024
START_WITHIN_S = 60.0
STOP_WITHIN_S = 10.0
RETRY_S = 3.0

Take = Callable[[tuple[ConsumerRecord, ...]], Awaitable[None]]


async def parse(records: tuple[ConsumerRecord, ...]) -> KafkaMessage:
    """A message that carries the raw records; the framework's own parser decodes headers, and dies of some."""
    return KafkaAckableMessage(raw_message=records, body=b"", headers={}, consumer=FAKE_CONSUMER)


async def decode(message: KafkaMessage) -> tuple[ConsumerRecord, ...]:
    """The raw records, untouched."""
    return message.raw_message


class Subscription:
    """Keeps a consumer running: started in the background, with deadlines, again after any failure."""

    def __init__(  # noqa: PLR0913
        self,
        settings: Settings,
        *,
        topics: Sequence[str],
        group: str,
        cluster: Cluster,
        take: Take,
        rebalance: Rebalance,
        health: Health,
    ) -> None:
        self._settings = settings
        self._topics = list(topics)
        self._group = group
        self._cluster = cluster
        self._take = take
        self._rebalance = rebalance
        self._health = health
        self._subscriber: object | None = None
        self._broker: KafkaBroker | None = None
        self._restart = asyncio.Event()

    @property
    def consumer(self) -> AIOKafkaConsumer | None:
        """The running consumer; None while there is none."""
        return getattr(self._subscriber, "consumer", None)

    def restart(self, reason: str) -> None:
        """Give up the consumer and join the group with a new one."""
        log.warning("consumer_restart", reason=reason)
        self._restart.set()

    async def run_forever(self) -> None:
        """Hold a consumer until cancelled."""
        while True:
            self._restart.clear()
            try:
                await self._start()
                await self._restart.wait()
            except (KafkaError, DependencyUnreachable, OSError, TimeoutError) as error:
                reason = str(error) or type(error).__name__
                self._health.check("kafka").failed(reason)
                log.warning("kafka_away", reason=reason, next_in_s=RETRY_S)
                await self.stop()
                await asyncio.sleep(RETRY_S)
            else:
                await self.stop()

    async def stop(self) -> None:
        """Leave the group, or give up trying after a while."""
        broker, self._broker, self._subscriber = self._broker, None, None
        self._health.check("group").failed("no consumer")
        if broker is not None:
            with contextlib.suppress(Exception):
                await asyncio.wait_for(broker.stop(), STOP_WITHIN_S)

    async def _start(self) -> None:
        created = await self._cluster.create_topics(self._topics, self._settings.topic_partitions)
        if created:
            log.info("topics_created", topics=created, partitions=self._settings.topic_partitions)
        self._broker = self._build()
        async with asyncio.timeout(START_WITHIN_S):
            await self._broker.start()

    def _build(self) -> KafkaBroker:
        settings = self._settings
        broker = KafkaBroker(
            settings.kafka_bootstrap_servers.split(","),
            client_id="counterfoil",
            security=faststream_security(settings),
            consumer_only=True,
            allow_auto_create_topics=False,
            apply_types=False,
            graceful_timeout=STOP_WITHIN_S,
            logger=logging.getLogger("faststream"),
            log_level=logging.DEBUG,
        )
        session_ms = int(settings.kafka_session_timeout_ms.total_seconds() * 1000)
        wait_ms = int(settings.batch_max_wait_ms.total_seconds() * 1000)
        subscriber = broker.subscriber(
            *self._topics,
            batch=True,
            group_id=self._group,
            max_records=min(POLL_RECORDS, settings.batch_max_records),
            batch_timeout_ms=wait_ms,
            fetch_max_wait_ms=max(wait_ms, 10),
            fetch_max_bytes=FETCH_BYTES,
            auto_offset_reset="earliest",
            isolation_level="read_committed",
            session_timeout_ms=session_ms,
            heartbeat_interval_ms=session_ms // 3,
            listener=self._rebalance,
            ack_policy=AckPolicy.MANUAL,
            parser=parse,
            decoder=decode,
        )
        subscriber(self._handle)
        tolerate_header_names()
        adopt_library_loggers()  # FastStream has just given its own a handler
        self._subscriber = subscriber
        return broker

    async def _handle(self, records: tuple[ConsumerRecord, ...]) -> None:
        """Hand the records on; no exception leaves, and after one every partition is sought back."""
        try:
            await self._take(records)
        except Exception:
            log.exception("take_failed")
            self._seek_back(records)

    def _seek_back(self, records: tuple[ConsumerRecord, ...]) -> None:
        consumer = self.consumer
        first: dict[TopicPartition, int] = {}
        for record in records:
            first.setdefault(TopicPartition(record.topic, record.partition), record.offset)
        for partition, offset in first.items():
            if consumer is not None and partition in consumer.assignment():
                consumer.seek(partition, offset)
