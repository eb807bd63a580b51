"""Takes the outbox to Kafka: at least once, each key's records in order, by one relay at a time.

A row goes in the transaction that has read it, once its record is acknowledged. A relay that is killed in between
leaves the row, and the next one publishes it again, under the same alert id.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import groupby
from operator import attrgetter
from typing import NamedTuple

import asyncpg

from counterfoil.database.connection import Connection
from counterfoil.database.pool import connect
from counterfoil.errors import DependencyUnreachable
from counterfoil.kafka.cluster import Cluster
from counterfoil.notifications import outbox
from counterfoil.notifications.outbox import OutboxRow
from counterfoil.notifications.publishing_loop import ANSWER_WITHIN_S, SHORTEST_PAUSE_S, PublishingLoop
from counterfoil.publishing import Publisher
from counterfoil.settings import Settings
from counterfoil.telemetry.metrics import Metrics

ROWS_OF_A_TOPIC = 500
"""Published in one transaction, at most."""

POLL_S = 5.0
"""How long a row may wait that nobody announced: behind PgBouncer, or since another relay died with it."""


class Outcome(NamedTuple):
    """What became of the rows of a topic: the ids of those that are done, and why others are not."""

    done: list[int]
    refusal: Exception | None


class Relay(PublishingLoop):
    """Publishes alerts."""

    name = "relay"

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        super().__init__(settings, metrics)
        self._topics = settings.outgoing_topics

    async def publish_all(self) -> None:
        """Publish whatever comes until told to stop; raises what is in the way."""
        connection = await self._connected()
        while not self._stopping.is_set():
            self._wake.clear()
            await self._observe(connection)
            if self._publisher is None:
                self._publisher = await self._connected_publisher()
            if not await self._publish_next(connection, self._publisher):
                await self._rest(self._wake, POLL_S)

    async def _publish_next(self, connection: Connection, publisher: Publisher) -> int:
        """Publish what is due and let go of it; answers how many records that were. Another relay's turn: none."""
        async with connection.transaction():
            if not await outbox.hold_outbox(connection):
                return 0
            rows = await outbox.next_rows(connection, self._topics, ROWS_OF_A_TOPIC)
            if not rows:
                return 0
            outcomes = await _publish(publisher, rows)
            done = [row_id for outcome in outcomes for row_id in outcome.done]
            await outbox.delete_rows(connection, done)
        self._count(rows, set(done))
        for outcome in outcomes:
            if outcome.refusal is not None:
                raise outcome.refusal
        self._pause_s = SHORTEST_PAUSE_S
        return len(done)

    async def _observe(self, connection: Connection) -> None:
        backlog = await outbox.measure(connection)
        self._metrics.outbox_rows.set(backlog.rows)
        self._metrics.outbox_oldest_seconds.set(backlog.oldest_s)

    def _count(self, rows: Sequence[OutboxRow], done: set[int]) -> None:
        for row in rows:
            if row.id in done:
                self._metrics.relayed.labels(self._topics[row.topic]).inc()

    # Connections

    async def _connected(self) -> asyncpg.Connection:
        """A connection of its own, which hears of new rows, and of its own end."""
        self._connection = connection = await connect(self._settings, "relay")
        connection.add_termination_listener(lambda _: self._wake.set())
        await connection.add_listener(
            await outbox.find_channel(connection), lambda *_announced: self._wake.set()
        )
        return connection

    async def _connected_publisher(self) -> Publisher:
        cluster = Cluster(self._settings)
        try:
            await cluster.create_topics(self._topics.values(), self._settings.topic_partitions)
        finally:
            await cluster.close()
        publisher = Publisher(self._settings, answer_within_s=ANSWER_WITHIN_S)
        await publisher.start()
        return publisher


async def _publish(publisher: Publisher, rows: Sequence[OutboxRow]) -> list[Outcome]:
    """Publish rows, each topic by itself: one that Kafka refuses holds up no other. None takes longer than allowed."""
    by_topic = groupby(sorted(rows, key=attrgetter("topic", "id")), key=attrgetter("topic"))
    return await asyncio.gather(*(_publish_in_time(publisher, list(of_topic)) for _, of_topic in by_topic))


async def _publish_in_time(publisher: Publisher, rows: Sequence[OutboxRow]) -> Outcome:
    try:
        async with asyncio.timeout(ANSWER_WITHIN_S + 1):
            return await _publish_in_order(publisher, rows)
    except (DependencyUnreachable, TimeoutError) as error:
        return Outcome([], error)


async def _publish_in_order(publisher: Publisher, rows: Sequence[OutboxRow]) -> Outcome:
    sent = [await publisher.enqueue(row.topic, row.key, row.value, row.headers) for row in rows]
    done: list[int] = []
    refused: dict[str, DependencyUnreachable] = {}
    for row, future in zip(rows, sent, strict=True):
        try:
            await publisher.acknowledge([future])
        except DependencyUnreachable as error:
            refused.setdefault(row.key, error)
        else:
            if row.key not in refused:  # else it comes once more, after the one before it
                done.append(row.id)
    return Outcome(done, next(iter(refused.values()), None))
