"""Every channel's loop in one worker, and what is looked after beside them: what nobody could send in time."""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any

import asyncpg
import structlog

from counterfoil.database.pool import one_line
from counterfoil.errors import HaltingFailure
from counterfoil.notifications import deliveries
from counterfoil.notifications.channels import Channel
from counterfoil.notifications.deliveries import GivenUp
from counterfoil.notifications.delivery import AWAY, LOGGED_IDS, Delivery, Timing
from counterfoil.telemetry.metrics import Metrics

log = structlog.get_logger("counterfoil.notify")

LOOK_EVERY_S = 5.0
GIVEN_UP_AT_ONCE = 1_000

FINISH_WITHIN_S = 2.0
"""Where no message is under way; where one is, its own deadline comes on top."""

LET_GO_WITHIN_S = 1.0


class Notifier:
    """Runs in the background, a loop for each channel; a channel that hangs or fails holds up no other."""

    def __init__(
        self, channels: Sequence[Channel], pool: asyncpg.Pool, timing: Timing, metrics: Metrics
    ) -> None:
        self._loops = [Delivery(channel, pool, timing, metrics) for channel in channels]
        self._names = [channel.name for channel in channels]
        self._pool = pool
        self._timing = timing
        self._metrics = metrics
        self._tasks: list[asyncio.Task[None]] = []
        self._looking: asyncio.Task[None] | None = None
        self._stopping = False

    def start(self, crashed: Callable[[BaseException], None]) -> None:
        """Begin to tell; `crashed` hears of a loop that ends by itself, which none should."""
        self._tasks = [self._begun(f"tell {loop.name}", loop.run(), crashed) for loop in self._loops]
        self._looking = self._begun("look after notifications", self._look_forever(), crashed)

    def wake(self) -> None:
        """Alerts have been taken in."""
        for loop in self._loops:
            loop.wake()

    async def stop(self) -> None:
        """Begin nothing more, and wait for the messages under way until they are written down or their time is over.

        What was not begun waits for whoever comes next; what the channel may have stays taken until its lease ends.
        """
        self._stopping = True
        if self._looking is not None:
            self._looking.cancel()
        for loop in self._loops:
            loop.stop()
        await asyncio.gather(*map(self._end, self._loops, self._tasks))
        await asyncio.gather(*(_in_time(loop.let_go()) for loop in self._loops))
        await asyncio.gather(*(_in_time(loop.channel.close()) for loop in self._loops))

    async def _end(self, loop: Delivery, task: asyncio.Task[None]) -> None:
        await asyncio.wait({task}, timeout=FINISH_WITHIN_S)
        if loop.is_telling:
            await asyncio.wait({task}, timeout=self._timing.attempt.total_seconds())
        if not task.done():
            log.warning("delivery_cut_short", channel=loop.name)
            task.cancel()
            await asyncio.wait({task}, timeout=LET_GO_WITHIN_S)

    async def look(self) -> None:
        """Fail what has waited for too long, also on channels that are no longer configured, and count what waits."""
        async with self._pool.acquire() as connection:
            given_up = await deliveries.give_up_notifications(
                connection, self._timing.give_up_after, self._names, GIVEN_UP_AT_ONCE
            )
            waiting = await deliveries.count_pending_notifications(connection)
        self._note_given_up(given_up)
        self._metrics.notifications_pending.clear()
        for name in {*self._names, *waiting}:
            self._metrics.notifications_pending.labels(name).set(waiting.get(name, 0))

    async def _look_forever(self) -> None:
        while True:
            try:
                await self.look()
            except AWAY as error:
                log.warning("notifications_not_looked_after", reason=one_line(error))
            except Exception:
                log.exception("notifications_not_looked_after")
            await asyncio.sleep(LOOK_EVERY_S)

    def _note_given_up(self, given_up: Sequence[GivenUp]) -> None:
        found: dict[tuple[str, str], list[str]] = defaultdict(list)
        for row in given_up:
            found[row.channel, row.error].append(row.alert_id)
        for (channel, error), ids in found.items():
            self._metrics.notifications.labels(channel, "failed").inc(len(ids))
            log.error(
                "notifications_failed",
                channel=channel,
                reason=error,
                count=len(ids),
                alert_ids=ids[:LOGGED_IDS],
            )

    def _begun(
        self, name: str, work: Coroutine[Any, Any, None], crashed: Callable[[BaseException], None]
    ) -> asyncio.Task[None]:
        task = asyncio.create_task(work, name=name)
        task.add_done_callback(partial(self._report, crashed))
        return task

    def _report(self, crashed: Callable[[BaseException], None], task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None or not self._stopping:
            crashed(error or HaltingFailure(f"{task.get_name()}: it has ended by itself"))


async def _in_time(work: Coroutine[Any, Any, None]) -> None:
    """Do it, or leave it: the worker is on its way out, and a lease ends by itself."""
    with contextlib.suppress(Exception):
        async with asyncio.timeout(LET_GO_WITHIN_S):
            await work
