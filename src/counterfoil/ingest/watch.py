"""Looks once a second at what nobody reports by itself: lag, the age of unread records, a silent cluster."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Collection, Mapping

import structlog
from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError

from counterfoil.errors import DependencyUnreachable
from counterfoil.ingest.partitions import Partition, PartitionState
from counterfoil.ingest.pipeline import Pipeline
from counterfoil.ingest.rebalance import Commits, Locator
from counterfoil.ingest.subscriber import Subscription
from counterfoil.kafka.cluster import Cluster
from counterfoil.telemetry.health import Health
from counterfoil.telemetry.metrics import Metrics

log = structlog.get_logger("counterfoil.ingest")

INTERVAL_S = 1.0
POSITION_WITHIN_S = 0.5
STANDSTILL_S = 90.0
"""How long a group may go unjoined, or a lag unread, while Kafka answers, before the consumer is made anew."""

SHORT_LOG_S = 60.0
"""How long a log's end may lie before our position: a new leader serves an older one until its followers catch up."""


class Watch:
    """Writes health checks and gauges, and notices a consumer that has gone silent."""

    def __init__(  # noqa: PLR0913
        self,
        *,
        pipeline: Pipeline,
        locator: Locator,
        subscription: Subscription,
        commits: Commits,
        cluster: Cluster,
        health: Health,
        metrics: Metrics,
    ) -> None:
        self._pipeline = pipeline
        self._locator = locator
        self._subscription = subscription
        self._commits = commits
        self._cluster = cluster
        self._health = health
        self._metrics = metrics
        self._behind_since: dict[Partition, float] = {}
        self._short_since: dict[Partition, tuple[PartitionState, float]] = {}
        self._still: dict[Partition | None, tuple[int, float]] = {}
        self._shown: set[Partition] = set()

    async def run_forever(self) -> None:
        """Look, wait, look again, until cancelled."""
        while True:
            try:
                await self._look_at_kafka()
                await self._look_at_lag()
                await self._commits.flush(self._subscription.consumer)
            except Exception:
                log.exception("watch_failed")  # who only looks on must not stop the work
                self._health.check("lag").failed("the watch failed; see the log")
            await asyncio.sleep(INTERVAL_S)

    async def _look_at_kafka(self) -> None:
        check = self._health.check("kafka")
        try:
            cluster_id = await self._cluster.cluster_id()
        except DependencyUnreachable as error:
            check.failed(str(error))
            self._still.clear()
            self._short_since.clear()
            return
        check.passed()
        positions = self._pipeline.positions
        if positions is not None and positions.cluster_id != cluster_id:
            self._locator.request()

    async def _look_at_lag(self) -> None:
        consumer = self._subscription.consumer
        check = self._health.check("lag")
        if consumer is None:
            check.failed("no consumer yet")
            return
        held = consumer.assignment()
        lags = {
            partition: await self._lag(consumer, state)
            for partition, state in list(self._pipeline.states.items())
            if partition in held
        }
        unknown = [p for p in held if lags.get(p) is None]
        lags = {partition: lag for partition, lag in lags.items() if partition in self._pipeline.states}
        known = {partition: lag for partition, lag in lags.items() if lag is not None}
        self._show_lags(known)
        self._note_ages(lags)
        if unknown:
            check.failed(f"unknown for {len(unknown)} of {len(held)} partitions")
        else:
            check.passed(f"{sum(lag or 0 for lag in lags.values())} records")
        self._notice_standstill(held, lags)

    def _show_lags(self, lags: Mapping[Partition, int]) -> None:
        """Show the lag of these partitions, and no longer that of others; a second watch may show its own."""
        for topic, partition in self._shown - lags.keys():
            self._metrics.lag_records.remove(topic, partition)
        for place, lag in lags.items():
            self._metrics.lag_records.labels(place.topic, place.partition).set(lag)
            self._metrics.position.labels(place.topic, place.partition).set(
                self._pipeline.states[place].stored
            )
        self._shown = set(lags)

    async def _lag(self, consumer: AIOKafkaConsumer, state: PartitionState) -> int | None:
        """Records between the stored position and the log's end; None while the end is unknown."""
        if state.partition not in consumer.assignment():  # lost while another partition was looked at
            return None
        end = consumer.highwater(state.partition)
        if end is None:
            return None
        if end < state.stored:
            self._notice_short_log(state, int(end))
            return 0
        self._short_since.pop(state.partition, None)
        readable = consumer.last_stable_offset(state.partition) or 0
        if end > state.stored == state.expected and await self._has_read_to(
            consumer, state, readable if readable > 0 else end
        ):
            return 0  # what lies behind the last record are transaction markers, or an open transaction
        return int(end - state.stored)

    @staticmethod
    async def _has_read_to(consumer: AIOKafkaConsumer, state: PartitionState, end: int) -> bool:
        try:
            async with asyncio.timeout(POSITION_WITHIN_S):
                return bool(await consumer.position(state.partition) >= end)
        except (KafkaError, TimeoutError):
            return False

    def _notice_short_log(self, state: PartitionState, end: int) -> None:
        """An end that stays before the stored position is another log's; a new leader's lags only for a while."""
        now = time.monotonic()
        known, since = self._short_since.get(state.partition, (state, now))
        if known is not state:  # held anew since: what was seen then says nothing now
            since = now
        self._short_since[state.partition] = (state, since)
        if now - since > SHORT_LOG_S:
            del self._short_since[state.partition]
            self._pipeline.forget([state.partition])
            self._locator.request(state, f"position {state.stored} lies beyond its end at {end}")

    def _note_ages(self, lags: dict[Partition, int | None]) -> None:
        """The age of each topic's oldest unread record; before it is fetched, the time since we fell behind."""
        now = time.time()
        ages: dict[str, float] = defaultdict(float)
        for partition, lag in lags.items():
            state = self._pipeline.states[partition]
            if not lag:
                self._behind_since.pop(partition, None)
                ages[partition.topic] = max(ages[partition.topic], 0.0)
                continue
            since = self._behind_since.setdefault(partition, now)
            if state.unread_since is not None and state.unread_since > 0:
                since = state.unread_since / 1000
            ages[partition.topic] = max(ages[partition.topic], now - since)
        for topic, age in ages.items():
            self._metrics.oldest_unread_seconds.labels(topic).set(age)

    def _notice_standstill(self, held: Collection[Partition], lags: dict[Partition, int | None]) -> None:
        """A partition that should move and doesn't, while everything around it answers: the consumer is made anew."""
        now = time.monotonic()
        states = self._pipeline.states
        behind: dict[Partition | None, int] = {
            p: states[p].stored if p in states else -1
            for p in held
            if lags.get(p) != 0 and not self._pipeline.decoders[p.topic].breaker.tripped
        }
        if not self._health.check("group").ok:
            behind[None] = 0
        well = self._health.check("kafka").ok and self._health.check("database").ok
        if self._pipeline.in_trouble or not well:
            behind.clear()
        self._still = {
            p: self._still[p] if self._still.get(p, (None, 0))[0] == stored else (stored, now)
            for p, stored in behind.items()
        }
        if any(now - since > STANDSTILL_S for _, since in self._still.values()):
            self._still.clear()
            self._subscription.restart("nothing moves, though Kafka and PostgreSQL answer")
