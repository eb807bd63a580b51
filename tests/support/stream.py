"""The topics of one test on a Kafka broker: make them, fill them, and know how far they reach."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any, Generic, Protocol, Self, TypeVar

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic, RecordsToDelete
from aiokafka.errors import KafkaError, TopicAlreadyExistsError

from counterfoil.settings import DEFAULT_TOPICS
from support.factories import Message, orders
from support.waiting import eventually

T = TypeVar("T")


class Kafka(Protocol):
    """Anything with an address."""

    @property
    def bootstrap_servers(self) -> str: ...


class Stream:
    """The topics of one test; `ends` is by partition the offset after what was published."""

    def __init__(self, kafka: Kafka, prefix: str) -> None:
        self.kafka = kafka
        self.placed = f"{prefix}order.placed"
        self.canceled = f"{prefix}order.canceled"
        self.refunded = f"{prefix}order.refunded"
        self.clicks = f"{prefix}click"
        self.conversions = f"{prefix}conversion"
        self.users = f"{prefix}user.created"
        self.links = f"{prefix}link.created"
        self.vouchers = f"{prefix}voucher.created"
        self.impressions = f"{prefix}impression"
        self.scans = f"{prefix}scan"
        self.claims = f"{prefix}claim"
        self.redemptions = f"{prefix}redemption"
        self.topics = [f"{prefix}{name}" for name in DEFAULT_TOPICS]
        self.group = f"{prefix}group"
        self._prefix = prefix
        self.ends: dict[tuple[str, int], int] = {}
        self._producer: AIOKafkaProducer | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.disconnect()

    def topic(self, name: str) -> str:
        """The name of a topic here, by its default name."""
        return f"{self._prefix}{name}"

    async def create(self, *, partitions: int = 3) -> None:
        """Make every topic."""
        async with self.admin() as admin:
            await _create(admin, self.topics, partitions)

    async def recreate(self, topic: str, *, partitions: int) -> None:
        """Delete a topic and make it again, empty; what was published to it is forgotten here too."""
        await self.disconnect()
        async with self.admin() as admin:
            await admin.delete_topics([topic])
            await eventually(lambda: _is_gone(admin, topic), every=0.1)
            await _create(admin, [topic], partitions, may_exist=True)  # a consumer's question makes it, too
        self.ends = {place: end for place, end in self.ends.items() if place[0] != topic}

    async def delete_before(self, topic: str, offset: int, *, partition: int = 0) -> None:
        """Let a partition's log begin at this offset, as retention does."""
        async with self.admin() as admin:
            await admin.delete_records({TopicPartition(topic, partition): RecordsToDelete(offset)})

    async def publish(self, *messages: Message, topic: str | None = None) -> list[tuple[int, int]]:
        """Send to `placed`, or to another topic; the partition and offset of each, once Kafka has them all."""
        topic = topic or self.placed
        producer = await self._connected()
        futures = [await _send(producer, topic, message) for message in messages]
        places = [(answer.partition, answer.offset) for answer in [await future for future in futures]]
        for partition, offset in places:
            self._reached(topic, partition, offset)
        return places

    async def publish_stubbornly(self, messages: Sequence[Message], topic: str | None = None) -> None:
        """Send, and send again whatever Kafka has not acknowledged, for as long as that takes."""
        while True:
            try:
                async with asyncio.timeout(15):
                    await self.publish(*messages, topic=topic)
            except (KafkaError, OSError, TimeoutError):
                await self.disconnect()
            else:
                return

    async def publish_in_transaction(self, *messages: Message, abort: bool = False) -> None:
        """Send in one transaction of a producer of its own, and commit it or abort it."""
        producer = AIOKafkaProducer(
            bootstrap_servers=self.kafka.bootstrap_servers, transactional_id=f"{self.placed}.producer"
        )
        async with producer:
            await producer.begin_transaction()
            futures = [await _send(producer, self.placed, message) for message in messages]
            answers = [await future for future in futures]
            await (producer.abort_transaction() if abort else producer.commit_transaction())
        for answer in answers if not abort else ():
            self._reached(self.placed, answer.partition, answer.offset)

    async def disconnect(self) -> None:
        """Let go of the producer; the next publishing makes another."""
        producer, self._producer = self._producer, None
        if producer is not None:
            with contextlib.suppress(KafkaError, OSError, TimeoutError):
                async with asyncio.timeout(10):
                    await producer.stop()

    async def committed(self) -> dict[tuple[str, int], int]:
        """The group's committed offsets in Kafka."""
        async with self.admin() as admin:
            found = await admin.list_consumer_group_offsets(self.group)
        return {
            (place.topic, place.partition): meta.offset for place, meta in found.items() if meta.offset >= 0
        }

    async def log_ends(self) -> dict[tuple[str, int], int]:
        """Where the log of each partition ends, markers and aborted records included."""
        async with AIOKafkaConsumer(bootstrap_servers=self.kafka.bootstrap_servers) as consumer:
            places = [
                TopicPartition(topic, partition)
                for topic in self.topics
                for partition in consumer.partitions_for_topic(topic) or await _partitions(consumer, topic)
            ]
            return {(p.topic, p.partition): end for p, end in (await consumer.end_offsets(places)).items()}

    @contextlib.asynccontextmanager
    async def admin(self) -> AsyncIterator[AIOKafkaAdminClient]:
        """A connected admin client."""
        admin = AIOKafkaAdminClient(bootstrap_servers=self.kafka.bootstrap_servers)
        try:
            await admin.start()
            yield admin
        finally:
            await admin.close()

    async def _connected(self) -> AIOKafkaProducer:
        if self._producer is None:
            producer = AIOKafkaProducer(
                bootstrap_servers=self.kafka.bootstrap_servers, acks="all", linger_ms=2
            )
            try:
                await producer.start()
            except BaseException:
                await producer.stop()
                raise
            self._producer = producer
        return self._producer

    def _reached(self, topic: str, partition: int, offset: int) -> None:
        place = (topic, partition)
        self.ends[place] = max(self.ends.get(place, 0), offset + 1)


class Flow(Generic[T]):
    """What keeps coming while something is broken; `sent` is what Kafka has acknowledged of it."""

    def __init__(self, stream: Stream, due: Iterable[T], *, chunk: int = 50, pause: float = 0.05) -> None:
        self._stream = stream
        self._due = list(due)
        self._chunk = chunk
        self._pause = pause
        self._enough = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.sent: list[T] = []

    async def publish(self, chunk: Sequence[T]) -> None:
        """Send some of it, however long that takes."""
        raise NotImplementedError

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._flow())
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        assert self._task is not None
        if kind is not None:
            self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=kind is not None)

    async def reached(self, count: int, deadline: float = 60.0) -> None:
        """Wait until that much was acknowledged."""
        await eventually(lambda: len(self.sent) >= min(count, len(self._due)), deadline=deadline)

    def enough(self) -> None:
        """Send no more."""
        self._enough.set()

    async def _flow(self) -> None:
        for start in range(0, len(self._due), self._chunk):
            if self._enough.is_set():
                return
            chunk = self._due[start : start + self._chunk]
            await self.publish(chunk)
            self.sent += chunk
            await asyncio.sleep(self._pause)  # a flow, not a flood


class Traffic(Flow[str]):
    """Orders that keep coming, by their ids."""

    @property
    def ids(self) -> list[str]:
        return self.sent

    async def publish(self, chunk: Sequence[str]) -> None:
        await self._stream.publish_stubbornly(orders(chunk))


async def _send(producer: AIOKafkaProducer, topic: str, message: Message) -> asyncio.Future[Any]:
    return await producer.send(
        topic,
        message.value,
        key=message.key,
        partition=message.partition,
        headers=list(message.headers) or None,
        timestamp_ms=message.timestamp_ms,
    )


async def _create(
    admin: AIOKafkaAdminClient, topics: list[str], partitions: int, *, may_exist: bool = False
) -> None:
    answer = await admin.create_topics([NewTopic(topic, partitions, 1) for topic in topics])
    fine = {0, TopicAlreadyExistsError.errno} if may_exist else {0}
    refused = [error for error in answer.topic_errors if error[1] not in fine]
    assert not refused, refused
    await eventually(lambda: _have_leaders(admin, topics, partitions), every=0.05)


async def _have_leaders(admin: AIOKafkaAdminClient, topics: list[str], partitions: int) -> bool:
    described = [topic["partitions"] for topic in await admin.describe_topics(topics)]
    return all(
        len(found) == partitions and all(partition["leader"] >= 0 for partition in found)
        for found in described
    )


async def _is_gone(admin: AIOKafkaAdminClient, topic: str) -> bool:
    return topic not in await admin.list_topics()


async def _partitions(consumer: AIOKafkaConsumer, topic: str) -> set[int]:
    await consumer._client._wait_on_metadata(topic)
    return consumer.partitions_for_topic(topic) or set()
