"""Partitions come and go: their positions are read when they come, and let go when they go."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from datetime import timedelta

import asyncpg
import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener
from aiokafka.errors import ConsumerStoppedError, KafkaError

from counterfoil.database.connection import Connection
from counterfoil.errors import DependencyUnreachable, HaltingFailure, TransientFailure
from counterfoil.ingest.failures import classify
from counterfoil.ingest.partitions import Partition, PartitionState
from counterfoil.ingest.pipeline import Pipeline
from counterfoil.ingest.positions import Positions
from counterfoil.kafka.cluster import Cluster
from counterfoil.telemetry.health import Health
from counterfoil.telemetry.metrics import Metrics

log = structlog.get_logger("counterfoil.ingest")

SETTLE_S = 3.0
"""How long a revocation waits for the batch in flight, at most; the group waits meanwhile."""

COMMIT_S = 5.0
"""How long a commit to Kafka may take: without a coordinator it would retry for ever."""

RETRY_S = 2.0


class Commits:
    """Copies written positions to Kafka's committed offsets, for lag tools; never needed for correctness."""

    def __init__(self) -> None:
        self._due: dict[Partition, int] = {}

    def note(self, offsets: Mapping[Partition, int]) -> None:
        """These positions are written."""
        self._due.update(offsets)

    async def flush(self, consumer: AIOKafkaConsumer | None, within_s: float = COMMIT_S) -> None:
        """Commit what is due for the partitions that the consumer still holds; a failure is tried again later."""
        if consumer is None or not self._due:
            return
        held = consumer.assignment()
        due = {partition: offset for partition, offset in self._due.items() if partition in held}
        self._due.clear()
        if not due:
            return
        try:
            await asyncio.wait_for(consumer.commit(due), within_s)
        except (KafkaError, ConsumerStoppedError, TimeoutError, OSError) as error:
            log.debug("offsets_not_committed", reason=type(error).__name__)
            self._due = due | self._due


class Locator:
    """Reads the positions of held partitions that the pipeline does not know, and hands them over."""

    def __init__(  # noqa: PLR0913
        self,
        *,
        pipeline: Pipeline,
        cluster: Cluster,
        pool: asyncpg.Pool,
        group: str,
        health: Health,
        metrics: Metrics,
    ) -> None:
        self._pipeline = pipeline
        self._cluster = cluster
        self._pool = pool
        self._group = group
        self._health = health
        self._metrics = metrics
        self._wake = asyncio.Event()
        self._located = asyncio.Event()
        self._replaced: dict[Partition, tuple[int, str]] = {}
        self.consumer: Callable[[], AIOKafkaConsumer | None] = lambda: None

    def request(self, state: PartitionState | None = None, replaced: str | None = None) -> None:
        """Positions are wanted; with `replaced`, that of `state` is to begin anew because its log is another one."""
        if state is not None and replaced is not None:
            self._replaced[state.partition] = (state.stored, replaced)
        self._located.clear()
        self._wake.set()

    async def wait(self, timeout_s: float) -> None:
        """Wait until what was requested is done, but no longer than that."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._located.wait(), timeout_s)

    async def locate_forever(self) -> None:
        """Serve requests until cancelled; waits out a database or a cluster that is away."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            try:
                await self._locate()
            except (KafkaError, DependencyUnreachable) as error:
                self._health.check("kafka").failed(str(error))
                await self._again(str(error))
            except Exception as error:  # noqa: BLE001 - every database error is classified
                failure = classify(error)
                if not isinstance(failure, TransientFailure):
                    self._pipeline.halt(HaltingFailure(str(failure)))
                    return
                self._health.check("database").failed(str(failure))
                await self._again(str(failure))
            else:
                self._located.set()

    async def _again(self, reason: str) -> None:
        log.warning("positions_unknown", reason=reason, next_in_s=RETRY_S)
        await asyncio.sleep(RETRY_S)
        self._wake.set()

    async def _locate(self) -> None:
        consumer = self.consumer()
        if consumer is None:
            return
        positions = await self._positions()
        wanted = [p for p in consumer.assignment() if p not in self._pipeline.states]
        if not wanted:
            self._pipeline.hold(positions, [])
            return
        if self._replaced:
            await self._pipeline.settle(SETTLE_S)
        async with self._pool.acquire() as connection:
            await self._begin_anew(connection, positions, consumer)
            states = await positions.load(connection, wanted, consumer.beginning_offsets)
        held = consumer.assignment()
        self._pipeline.hold(positions, [state for state in states if state.partition in held])
        log.info(
            "partitions_held",
            partitions=[f"{s.partition.topic}/{s.partition.partition}@{s.stored}" for s in states],
        )

    async def _positions(self) -> Positions:
        """The positions on the cluster that answers now; on another one than before everything is read again."""
        cluster_id = await self._cluster.cluster_id()
        positions = self._pipeline.positions
        if positions is not None and positions.cluster_id == cluster_id:
            return positions
        if positions is not None:
            log.warning("cluster_replaced", was=positions.cluster_id, now=cluster_id)
            self._metrics.logs_replaced.inc()
            self._replaced.clear()
            self._pipeline.forget(list(self._pipeline.states))
        return Positions(cluster_id, self._group)

    async def _begin_anew(
        self, connection: Connection, positions: Positions, consumer: AIOKafkaConsumer
    ) -> None:
        replaced, self._replaced = self._replaced, {}
        held = [partition for partition in replaced if partition in consumer.assignment()]
        if not held:
            return
        first_offsets = await consumer.beginning_offsets(held)
        for partition in held:
            seen, reason = replaced[partition]
            log.warning(
                "log_replaced",
                topic=partition.topic,
                partition=partition.partition,
                position=seen,
                reason=reason,
            )
            self._metrics.logs_replaced.inc()
            await positions.restart(connection, partition, seen, first_offsets[partition], reason)


class Rebalance(ConsumerRebalanceListener):  # type: ignore[misc] # aiokafka is untyped
    """Tells the road what the group decides."""

    def __init__(  # noqa: PLR0913
        self,
        *,
        pipeline: Pipeline,
        locator: Locator,
        commits: Commits,
        health: Health,
        metrics: Metrics,
        session: timedelta,
    ) -> None:
        self._pipeline = pipeline
        self._locator = locator
        self._commits = commits
        self._health = health
        self._metrics = metrics
        # no heartbeat is sent while the assignment is taken in: longer than a session and the group puts us out
        self._settle_s = min(SETTLE_S, session.total_seconds() / 3)

    async def on_partitions_revoked(self, revoked: set[Partition]) -> None:
        """Let the batch in flight finish, shortly; the fence guards what comes after."""
        self._health.check("group").failed("rebalancing")
        self._pipeline.forget(list(revoked))
        if revoked and not self._pipeline.in_trouble:
            await self._pipeline.settle(self._settle_s)
            await self._commits.flush(self._locator.consumer(), self._settle_s)

    async def on_partitions_assigned(self, assigned: set[Partition]) -> None:
        """Read the positions; what is delivered before they are known is not taken."""
        log.info("partitions_assigned", count=len(assigned))
        self._pipeline.forget(list(self._pipeline.states))  # a new consumer comes without a revocation
        self._metrics.rebalances.inc()
        self._health.check("lag").failed(
            "positions are being read"
        )  # what was known is of the last assignment
        self._health.check("group").passed(f"{len(assigned)} partitions")
        self._locator.request()
        await self._locator.wait(self._settle_s)
