"""Copies of dead letters on `<topic>.dlq`, as Kafka Connect writes them: at least once, each partition's in order.

What is parked while the setting is on says so in its row, in the transaction that parks it; a copy is no more due once
Kafka has acknowledged it. Whoever is killed in between leaves it due, and it is published again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from itertools import groupby
from operator import attrgetter
from typing import NamedTuple

import asyncpg
import structlog
from aiokafka.errors import (
    CorruptRecordException,
    InvalidTimestampError,
    MessageSizeTooLargeError,
    RecordListTooLargeError,
)

from counterfoil.database.connection import Connection
from counterfoil.database.pool import connect, one_line
from counterfoil.database.queries import sql
from counterfoil.errors import DependencyUnreachable
from counterfoil.ingest.records import Headers, headers_from_json
from counterfoil.kafka.cluster import Cluster
from counterfoil.notifications.publishing_loop import ANSWER_WITHIN_S, SHORTEST_PAUSE_S, PublishingLoop
from counterfoil.publishing import Publisher
from counterfoil.settings import Settings
from counterfoil.telemetry.metrics import Metrics

log = structlog.get_logger("counterfoil.ingest")

SUFFIX = ".dlq"

AT_ONCE = 200
BYTES_AT_ONCE = 4 * 1024 * 1024
"""Copies of one transaction, at most; a single one may be larger."""

LARGEST_RECORD = 64 * 1024 * 1024
"""What is larger is not even shown to Kafka, which would cut the connection."""

POLL_S = 2.0

SET_ASIDE_S = 10.0
"""How long a topic that Kafka refuses is left alone, so that it holds up no other."""

REFUSAL_LENGTH = 300

REFUSED_ALONE = (
    MessageSizeTooLargeError,
    RecordListTooLargeError,
    InvalidTimestampError,
    CorruptRecordException,
)
"""What Kafka says of a batch that holds a record which it will never take."""


class Copy(NamedTuple):
    """A parked record that is to be published."""

    id: int
    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Headers
    kind: str
    error: str


class Outcome(NamedTuple):
    """What became of a topic's copies: those that Kafka has, those that it never takes and why, and what failed."""

    done: list[int]
    refused: dict[int, str]
    failure: Exception | None = None


def copied_headers(copy: Copy) -> list[tuple[str, bytes | None]]:
    """The record's own headers as they came, and behind them where it came from and why it was parked.

    The bytes of a name that is not UTF-8 are written as `\\xff`: our client sends no other names.
    """
    told = {
        "topic": copy.topic,
        "partition": str(copy.partition),
        "offset": str(copy.offset),
        "exception.class.name": copy.kind,
        "exception.message": copy.error,
    }
    own = [
        (name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace"), value)
        for name, value in copy.headers
    ]
    return [*own, *((f"__connect.errors.{name}", text.encode()) for name, text in told.items())]


class DeadLetterCopies(PublishingLoop):
    """Publishes copies, beside the relay."""

    name = "dead_letter_copies"

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        super().__init__(settings, metrics)
        self._made: set[str] = set()
        self._aside: dict[str, float] = {}

    async def publish_all(self) -> None:
        """Publish whatever comes until told to stop; raises what is in the way."""
        self._made.clear()
        self._connection = connection = await connect(self._settings, "dead letter copies")
        while not self._stopping.is_set():
            self._metrics.dead_letter_copies_waiting.set(await connection.fetchval(sql("count_copies_due")))
            if not await self._publish_next(connection):
                await self._rest(self._stopping, POLL_S)

    async def _publish_next(self, connection: Connection) -> int:
        """Publish what is due and note it; answers how many. Where another relay is at it: none."""
        now = time.monotonic()
        self._aside = {topic: until for topic, until in self._aside.items() if until > now}
        async with connection.transaction():
            if not await connection.fetchval(sql("hold_copies")):
                return 0
            rows = await connection.fetch(sql("next_copies"), list(self._aside), AT_ONCE, BYTES_AT_ONCE)
            if not rows:
                return 0
            copies = [_copy(row) for row in rows]
            outcomes = await self._publish(copies)
            done = [letter_id for outcome in outcomes for letter_id in outcome.done]
            refused = {key: why for outcome in outcomes for key, why in outcome.refused.items()}
            await connection.execute(sql("note_copied"), done)
            await connection.execute(sql("note_not_copied"), list(refused), list(refused.values()))
        self._tell(copies, set(done), refused)
        if done or refused:
            self._pause_s = SHORTEST_PAUSE_S
        elif failure := next((outcome.failure for outcome in outcomes if outcome.failure), None):
            raise failure
        return len(done) + len(refused)

    async def _publish(self, copies: Sequence[Copy]) -> list[Outcome]:
        """Publish copies, each topic by itself: one that Kafka refuses holds up no other."""
        if self._publisher is None:
            publisher = Publisher(
                self._settings, answer_within_s=ANSWER_WITHIN_S, largest_record=LARGEST_RECORD
            )
            await publisher.start()
            self._publisher = publisher
        by_topic = groupby(sorted(copies, key=attrgetter("topic", "id")), key=attrgetter("topic"))
        topics = {topic: list(of_topic) for topic, of_topic in by_topic}
        await self._make_topics(topics)
        outcomes = await asyncio.gather(
            *(self._publish_in_time(self._publisher, of_topic) for of_topic in topics.values())
        )
        for topic, outcome in zip(topics, outcomes, strict=True):
            if outcome.failure is not None:
                self._set_aside(topic, outcome.failure)
        return outcomes

    async def _make_topics(self, topics: dict[str, list[Copy]]) -> None:
        """Make what is missing, each by itself; those that cannot be made are taken out, and set aside."""
        missing = [topic for topic in topics if topic not in self._made]
        if not missing:
            return
        cluster = Cluster(self._settings)
        try:
            await (
                cluster.cluster_id()
            )  # raises where it is Kafka that is away, and not a topic that is refused
            for topic in missing:
                try:
                    await cluster.create_topics([topic + SUFFIX], self._settings.topic_partitions)
                except DependencyUnreachable as error:
                    self._set_aside(topic, error)
                    del topics[topic]
                else:
                    self._made.add(topic)
        finally:
            await cluster.close()

    def _set_aside(self, topic: str, error: Exception) -> None:
        self._made.discard(topic)
        self._aside[topic] = time.monotonic() + SET_ASIDE_S
        log.warning(
            "dead_letter_copies_set_aside",
            topic=topic + SUFFIX,
            reason=one_line(error),
            next_in_s=SET_ASIDE_S,
        )

    @staticmethod
    async def _publish_in_time(publisher: Publisher, copies: Sequence[Copy]) -> Outcome:
        outcome = Outcome([], {})
        try:
            async with asyncio.timeout(ANSWER_WITHIN_S + 1):
                left = await _publish_together(publisher, copies, outcome)
                failure = await _publish_one_by_one(publisher, left, outcome)
        except (DependencyUnreachable, TimeoutError) as error:
            failure = error
        return outcome._replace(failure=failure)

    def _tell(self, copies: Sequence[Copy], done: set[int], refused: dict[int, str]) -> None:
        for copy in copies:
            if copy.id in done:
                self._metrics.dead_letters_copied.labels(copy.topic).inc()
            elif copy.id in refused:
                place = {"topic": copy.topic, "partition": copy.partition, "offset": copy.offset}
                log.warning("dead_letter_not_copied", id=copy.id, **place, reason=refused[copy.id])


async def _publish_together(publisher: Publisher, copies: Sequence[Copy], outcome: Outcome) -> list[Copy]:
    """Publish the copies of a topic; answers those that are to be published one by one.

    Kafka takes or refuses a batch whole. What comes behind one that it did not take, from the same partition, is
    published again after it.
    """
    sent = [await _enqueued(publisher, copy) for copy in copies]
    left: list[Copy] = []
    broken: set[int] = set()
    for copy, future in zip(copies, sent, strict=True):
        if isinstance(future, DependencyUnreachable) and isinstance(future.__cause__, REFUSED_ALONE):
            outcome.refused[copy.id] = _refusal(future.__cause__)  # it was in no batch
            continue
        error = await _error_of(publisher, future)
        if error is not None:
            broken.add(copy.partition)
        if copy.partition in broken:
            left.append(copy)
        else:
            outcome.done.append(copy.id)
    return left


async def _publish_one_by_one(
    publisher: Publisher, copies: Sequence[Copy], outcome: Outcome
) -> Exception | None:
    """Publish each once the one before it is; notes those that Kafka never takes, and answers what ended it."""
    for copy in copies:
        error = await _error_of(publisher, await _enqueued(publisher, copy))
        if error is None:
            outcome.done.append(copy.id)
        elif isinstance(error.__cause__, REFUSED_ALONE):
            outcome.refused[copy.id] = _refusal(error.__cause__)
        else:
            return error
    return None


def _refusal(error: BaseException) -> str:
    return f"Kafka does not take it: {one_line(error)}"[:REFUSAL_LENGTH]


async def _enqueued(publisher: Publisher, copy: Copy) -> asyncio.Future[object] | DependencyUnreachable:
    try:
        return await publisher.enqueue(copy.topic + SUFFIX, copy.key, copy.value, copied_headers(copy))
    except DependencyUnreachable as error:
        return error


async def _error_of(
    publisher: Publisher, sent: asyncio.Future[object] | DependencyUnreachable
) -> DependencyUnreachable | None:
    if isinstance(sent, DependencyUnreachable):
        return sent
    try:
        await publisher.acknowledge([sent])
    except DependencyUnreachable as error:
        return error
    return None


def _copy(row: asyncpg.Record) -> Copy:
    return Copy(
        id=row["id"],
        topic=row["topic"],
        partition=row["partition"],
        offset=row["offset"],
        key=row["key"],
        value=row["value"],
        headers=headers_from_json(row["headers"]),
        kind=row["error_kind"],
        error=row["error"],
    )
