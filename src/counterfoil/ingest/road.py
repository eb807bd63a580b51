"""The whole road of a worker, put together: consumer, pipeline, positions, watch."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import asyncpg
import structlog
from aiokafka.errors import ConsumerStoppedError, KafkaError

from counterfoil.errors import HaltingFailure
from counterfoil.events import Rules
from counterfoil.ingest.breaker import Breaker
from counterfoil.ingest.decoding import Decoder
from counterfoil.ingest.partitions import Partition
from counterfoil.ingest.pipeline import Pipeline
from counterfoil.ingest.rebalance import Commits, Locator, Rebalance
from counterfoil.ingest.routes import Route
from counterfoil.ingest.subscriber import Subscription
from counterfoil.ingest.watch import Watch
from counterfoil.ingest.writer import Writer
from counterfoil.kafka.cluster import Cluster
from counterfoil.settings import Settings
from counterfoil.telemetry.health import Health
from counterfoil.telemetry.metrics import Metrics

log = structlog.get_logger("counterfoil.ingest")

DRAIN_S = 20.0
CLOSE_S = 5.0

LOG_BEGIN_S = 3.0
"""How long a gap is looked into before the same records are read again; the group's other partitions wait meanwhile."""


class Road:
    """From Kafka to the ledgers: started in the background, drained on the way out.

    It reads the topics of its routes, as one of the group. `written` is called after each transaction.
    """

    def __init__(  # noqa: PLR0913
        self,
        *,
        settings: Settings,
        routes: Sequence[Route],
        group: str,
        pool: asyncpg.Pool,
        health: Health,
        metrics: Metrics,
        halt: Callable[[HaltingFailure], None],
        written: Callable[[], None] = lambda: None,
    ) -> None:
        self._health = health
        self._cluster = Cluster(settings)
        self._commits = Commits()
        timeout_s = 2 * settings.database_timeout_s.total_seconds()
        self._writer = Writer(pool, routes, timeout_s, copies=settings.dlq_topics)
        self.pipeline = Pipeline(
            decoders={
                route.topic: Decoder(route, Rules.of(settings), Breaker(settings.breaker_share), metrics)
                for route in routes
            },
            writer=self._writer,
            health=health,
            metrics=metrics,
            max_records=settings.batch_max_records,
            halt=halt,
        )
        self._locator = Locator(
            pipeline=self.pipeline,
            cluster=self._cluster,
            pool=pool,
            group=group,
            health=health,
            metrics=metrics,
        )
        rebalance = Rebalance(
            pipeline=self.pipeline,
            locator=self._locator,
            commits=self._commits,
            health=health,
            metrics=metrics,
            session=settings.kafka_session_timeout_ms,
        )
        self._subscription = Subscription(
            settings,
            topics=[route.topic for route in routes],
            group=group,
            cluster=self._cluster,
            take=self.pipeline.take,
            rebalance=rebalance,
            health=health,
        )
        self._written = written
        self.pipeline.relocate = self._locator.request
        self.pipeline.committed = self._note_committed
        self.pipeline.consumer = lambda: self._subscription.consumer
        self.pipeline.log_begin = self._log_begin
        self._locator.consumer = lambda: self._subscription.consumer
        self._watch = Watch(
            pipeline=self.pipeline,
            locator=self._locator,
            subscription=self._subscription,
            commits=self._commits,
            cluster=self._cluster,
            health=health,
            metrics=metrics,
        )
        self._tasks: list[asyncio.Task[None]] = []

    def start(self, crashed: Callable[[BaseException], None]) -> None:
        """Begin to read and write; `crashed` hears of a task that ends by itself, which none should."""
        for name in ("kafka", "group", "lag"):
            self._health.check(name)
        self._health.check("breaker").passed()
        for work in (
            self.pipeline.plan_forever,
            self.pipeline.write_forever,
            self._locator.locate_forever,
            self._subscription.run_forever,
            self._watch.run_forever,
        ):
            task = asyncio.create_task(work(), name=work.__qualname__)
            task.add_done_callback(partial(_report, crashed))
            self._tasks.append(task)

    async def _log_begin(self, partition: Partition) -> int | None:
        """Where a log begins now; None when Kafka does not say so soon."""
        consumer = self._subscription.consumer
        if consumer is None:
            return None
        try:
            async with asyncio.timeout(LOG_BEGIN_S):
                return int((await consumer.beginning_offsets([partition]))[partition])
        except (KafkaError, ConsumerStoppedError, TimeoutError, OSError) as error:
            log.warning("log_begin_unknown", topic=partition.topic, reason=type(error).__name__)
            return None

    def _note_committed(self, offsets: Mapping[Partition, int]) -> None:
        self._commits.note(offsets)
        self._written()

    async def stop(self) -> None:
        """Write what was taken, commit, leave the group; what cannot end in time is cut off and read again."""
        self.pipeline.close()
        if not self.pipeline.in_trouble and not await self.pipeline.settle(DRAIN_S):
            log.warning("drain_cut_short", after_s=DRAIN_S)
        await self._commits.flush(self._subscription.consumer)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._subscription.stop()
        await self._writer.close()
        await self._cluster.close()


def _report(crashed: Callable[[BaseException], None], task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        crashed(error)
