"""Publishing for HTTP requests, which wait for Kafka's acknowledgement, but not for long."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable

from counterfoil.errors import CounterfoilError, DependencyUnreachable
from counterfoil.events import Event
from counterfoil.kafka.cluster import Cluster
from counterfoil.publishing.publisher import Published, Publisher
from counterfoil.settings import Settings

DEADLINE_S = 5.0

RETRY_S = 0.5
"""How long a failed attempt to connect stands for all requests."""


class HttpPublisher:
    """Connects when it is first needed, and anew after anything has failed.

    Its producer is not idempotent: that kind never gives a record up, and would send it minutes after its caller was
    told to send it again. What a producer repeats is the same fact, and counts once.
    """

    def __init__(self, settings: Settings, topics: Iterable[str], deadline_s: float = DEADLINE_S) -> None:
        """Takes the default names of the topics that are published to; they are made where they are missing."""
        self._settings = settings.model_copy(update={"kafka_idempotence": False})
        self._topics = [settings.topics[name] for name in topics]
        self._deadline_s = deadline_s
        self._connecting: asyncio.Task[Publisher] | None = None
        self._retiring: set[asyncio.Task[None]] = set()
        self._stopping = asyncio.Event()

    async def publish(self, event: Event) -> Published:
        """Return once Kafka has acknowledged the event; DependencyUnreachable when it has not within the deadline."""
        connecting = self._connected()
        publisher = None
        try:
            async with asyncio.timeout(self._deadline_s):
                publisher = await asyncio.shield(connecting)
                return await publisher.publish(event)
        except (DependencyUnreachable, TimeoutError) as error:
            if publisher is not None:
                self._retire(connecting, publisher)
            if isinstance(error, TimeoutError):
                raise self._silent() from None
            raise

    async def stop(self) -> None:
        """Disconnect; called when no request is open any more."""
        self._stopping.set()
        connecting, self._connecting = self._connecting, None
        if connecting is not None:
            connecting.cancel()
            with contextlib.suppress(asyncio.CancelledError, CounterfoilError):
                await (await connecting).stop()
        await asyncio.gather(*self._retiring)

    def _connected(self) -> asyncio.Task[Publisher]:
        """The connection, or the one attempt at it that all requests share."""
        if self._connecting is None:
            self._connecting = asyncio.create_task(self._connect(), name="http-publisher")
            self._connecting.add_done_callback(self._attempted)
        return self._connecting

    async def _connect(self) -> Publisher:
        publisher = Publisher(self._settings, answer_within_s=self._deadline_s)
        try:
            async with asyncio.timeout(self._deadline_s):
                await self._make_topics()
                await publisher.start()
        except TimeoutError:
            raise self._silent() from None
        return publisher

    async def _make_topics(self) -> None:
        cluster = Cluster(self._settings)
        try:
            await cluster.create_topics(self._topics, self._settings.topic_partitions)
        finally:
            await cluster.close()

    def _attempted(self, connecting: asyncio.Task[Publisher]) -> None:
        if connecting.cancelled() or connecting.exception() is not None:
            asyncio.get_running_loop().call_later(RETRY_S, self._forget, connecting)

    def _forget(self, connecting: asyncio.Task[Publisher]) -> None:
        if self._connecting is connecting:
            self._connecting = None

    def _retire(self, connecting: asyncio.Task[Publisher], publisher: Publisher) -> None:
        """Let the next request connect anew, and end this connection when nobody waits on it any more."""
        if self._connecting is connecting:
            self._connecting = None
            retiring = asyncio.create_task(self._end(publisher))
            self._retiring.add(retiring)
            retiring.add_done_callback(self._retiring.discard)

    async def _end(self, publisher: Publisher) -> None:
        with contextlib.suppress(TimeoutError):  # by then every request on it has met its own deadline
            await asyncio.wait_for(self._stopping.wait(), self._deadline_s)
        await publisher.stop()

    def _silent(self) -> DependencyUnreachable:
        return DependencyUnreachable(
            f"Kafka at {self._settings.kafka_bootstrap_servers}: no answer within {self._deadline_s:g} s"
        )
