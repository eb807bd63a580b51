"""What takes rows to Kafka in the background of a worker: started, tried again after any failure, let go of in time."""

from __future__ import annotations

import asyncio
import contextlib
from typing import ClassVar

import asyncpg
import structlog

from counterfoil.database.pool import UNREACHABLE, one_line
from counterfoil.errors import DependencyUnreachable
from counterfoil.publishing import Publisher
from counterfoil.settings import Settings
from counterfoil.telemetry.metrics import Metrics

log = structlog.get_logger("counterfoil.relay")

ANSWER_WITHIN_S = 8.0
"""Less than what a transaction may stay idle."""

SHORTEST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 5.0
"""Between attempts; each is twice the one before."""

FINISH_WITHIN_S = 3.0
LET_GO_WITHIN_S = 1.0

AWAY = (DependencyUnreachable, *UNREACHABLE, asyncpg.PostgresError)


class PublishingLoop:
    """Whatever fails is tried again, and nothing else hears of it; `name` begins what it logs."""

    name: ClassVar[str]

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        # An idempotent producer never gives a record up: one that hung would publish it long after others went on.
        self._settings = settings.model_copy(update={"kafka_idempotence": False})
        self._metrics = metrics
        self._pause_s = SHORTEST_PAUSE_S
        self._wake = asyncio.Event()
        self._stopping = asyncio.Event()
        self._connection: asyncpg.Connection | None = None
        self._publisher: Publisher | None = None
        self._task: asyncio.Task[None] | None = None

    async def publish_all(self) -> None:
        """Publish whatever comes until told to stop; raises what is in the way."""
        raise NotImplementedError

    def start(self) -> None:
        """Begin to publish."""
        self._task = asyncio.create_task(self._run_forever(), name=self.name)

    async def stop(self) -> None:
        """Finish what is under way, but not for long."""
        self._stopping.set()
        self._wake.set()
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=FINISH_WITHIN_S)
            if not self._task.done():
                log.warning(f"{self.name}_cut_short", after_s=FINISH_WITHIN_S)
                self._task.cancel()
                if self._connection is not None:
                    self._connection.terminate()  # or a rollback would wait for a database that is silent
                await asyncio.wait({self._task}, timeout=LET_GO_WITHIN_S)
        await self._disconnect()

    async def _run_forever(self) -> None:
        while not self._stopping.is_set():
            try:
                await self.publish_all()
            except AWAY as error:
                log.warning(f"{self.name}_put_off", reason=one_line(error), next_in_s=self._pause_s)
            except Exception:
                log.exception(f"{self.name}_failed")  # what waits must not stop the work that it comes from
            await self._disconnect()
            await self._rest(self._stopping, self._pause_s)
            self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)

    @staticmethod
    async def _rest(until: asyncio.Event, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await until.wait()

    async def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        publisher, self._publisher = self._publisher, None
        if connection is not None:
            with contextlib.suppress(*AWAY):
                await connection.close(timeout=LET_GO_WITHIN_S)
        if publisher is not None:
            await publisher.stop(LET_GO_WITHIN_S)
