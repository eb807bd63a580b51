"""The loop of one channel: what waits for it becomes a message, is sent, and is marked as sent.

At least once: the mark comes after the channel's answer. A worker that is killed in between leaves a lease, which ends.
What the channel refuses for what it says is sent in halves, so that one alert keeps no other from being told.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import chain

import asyncpg
import structlog
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception,
    stop_never,
    wait_random_exponential,
)

from counterfoil.database.pool import UNREACHABLE, one_line
from counterfoil.notifications import deliveries
from counterfoil.notifications.channels import Channel, Gone, Refused, TryLater
from counterfoil.notifications.deliveries import Claimed
from counterfoil.notifications.messages import Message, message_of
from counterfoil.settings import Settings
from counterfoil.telemetry.metrics import Metrics

log = structlog.get_logger("counterfoil.notify")

SENT_WITHIN = timedelta(seconds=10)
"""One attempt, at most."""

LOGGED_IDS = 10
ERROR_LENGTH = 500

BACKOFF = wait_random_exponential(multiplier=1, max=300)
"""Full jitter: before the second attempt up to 1 s, then up to twice as long each time."""

AT_ONCE = timedelta(0)
AWAY = (*UNREACHABLE, asyncpg.PostgresError)


@dataclass(frozen=True, slots=True)
class Timing:
    """How long things take, and may take.

    `gather` is how long the first alert after a quiet time waits for those that come with it, `poll` how long one may
    wait that another worker has taken in, `most` how many one message tells of.
    """

    spacing: timedelta
    give_up_after: timedelta
    lease: timedelta
    gather: timedelta = timedelta(milliseconds=500)
    poll: timedelta = timedelta(seconds=2)
    most: int = 1_000

    @classmethod
    def of(cls, settings: Settings) -> Timing:
        """As the settings say."""
        return cls(settings.notify_spacing_s, settings.notify_give_up_after_s, settings.notify_lease_s)

    @property
    def attempt(self) -> timedelta:
        """How long one attempt may take: so much less than the lease that its end can still be written down."""
        return min(SENT_WITHIN, self.lease / 3)

    @property
    def turn(self) -> timedelta:
        """For how long nobody else speaks, once one has begun to."""
        return max(self.spacing, self.attempt)


@dataclass(frozen=True, slots=True)
class Failed:
    """Why a message was not sent; `next_in` is None where it never will be.

    `of_itself`: it is the message that is at fault, and not the channel, which may take others.
    """

    error: str
    next_in: timedelta | None = AT_ONCE
    hold: timedelta | None = None
    of_itself: bool = False


STOPPED = Failed("stopped before it was sent")


def elapsed_s() -> float:
    """A clock that also runs while the process is stopped, and where it can while the machine sleeps."""
    boot_time: int | None = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if boot_time is None else time.clock_gettime(boot_time)


def backoff(attempts: int) -> timedelta:
    """How long to wait after so many attempts."""
    state = RetryCallState(None, None, (), {})  # type: ignore[arg-type]  # the wait reads its number alone
    state.attempt_number = attempts
    return timedelta(seconds=BACKOFF(state))


def most_messages(count: int) -> int:
    """How many messages it takes at most to find the one of so many alerts that is refused, and to tell the others."""
    return 2 * (count - 1).bit_length() + 1


class Delivery:
    """Tells one channel what waits for it, one message at a time, until it is stopped.

    Of all workers one speaks at a time on a channel. Nothing that a channel does is felt elsewhere: a connection is
    held while rows are written, and never while a message is sent.
    """

    def __init__(  # noqa: PLR0913
        self,
        channel: Channel,
        pool: asyncpg.Pool,
        timing: Timing,
        metrics: Metrics,
        *,
        clock: Callable[[], float] = elapsed_s,
        wait_after: Callable[[int], timedelta] = backoff,
    ) -> None:
        self.channel = channel
        self.name = channel.name
        self._pool = pool
        self._timing = timing
        self._metrics = metrics
        self._clock = clock
        self._wait_after = wait_after
        self._lease_ends = 0.0
        self._waiting: list[Sequence[Claimed]] = []
        self._stopping = False
        self.is_telling = False
        self._wake = asyncio.Event()

    def wake(self) -> None:
        """Something may be due."""
        self._wake.set()

    def stop(self) -> None:
        """Begin nothing more."""
        self._stopping = True
        self._wake.set()

    async def run(self) -> None:
        """Send whatever is due until stopped; whatever fails is tried again."""
        while not self._stopping:
            self._wake.clear()
            try:
                wait = await self.send_next()
            except AWAY as error:
                log.warning("delivery_put_off", channel=self.name, reason=one_line(error))
                wait = self._timing.poll
            except Exception:
                log.exception("delivery_failed", channel=self.name)
                wait = self._timing.poll
            await self._woken(wait)

    async def send_next(self) -> timedelta:
        """Send the next message if one is due; how long to wait until there may be another."""
        wait = await self._time_to_next()
        if wait > AT_ONCE:
            return wait
        claims = await self._claim()
        if not claims:
            return self._timing.gather
        self.is_telling = True
        try:
            await self._tell(claims)
        finally:
            self.is_telling = False
        return AT_ONCE

    async def let_go(self) -> None:
        """Let what was taken, and was not begun to be sent, wait again, for whoever comes next."""
        if claims := self._all_waiting():
            await self._note_failed(claims, STOPPED, rest=AT_ONCE)

    async def _woken(self, wait: timedelta) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait.total_seconds()):
                await self._wake.wait()

    async def _time_to_next(self) -> timedelta:
        """How long until something is due, but no longer than another worker may be trusted to tell."""
        async with self._pool.acquire() as connection:
            seconds = await deliveries.seconds_to_next_message(connection, self.name, self._timing.gather)
        if seconds is None:
            return self._timing.poll
        return min(timedelta(seconds=seconds), self._timing.poll)

    async def _claim(self) -> Sequence[Claimed]:
        """Take what is due, and the turn to tell it; nothing where another worker has either."""
        timing = self._timing
        self._lease_ends = self._clock() + timing.lease.total_seconds()
        async with self._pool.acquire() as connection:
            transaction = connection.transaction()
            await transaction.start()
            claims: Sequence[Claimed] = ()
            if await deliveries.take_turn(connection, self.name, timing.turn):
                claims = await deliveries.claim_notifications(
                    connection, self.name, timing.lease, timing.most
                )
            await (transaction.commit() if claims else transaction.rollback())
        return claims

    # Sending

    async def _tell(self, claims: Sequence[Claimed]) -> None:
        """Send this as one message, and whatever is refused for what it says in halves; note what became of each.

        Where that takes too many messages, what is left waits: for its turn if the channel took any, else for longer.
        """
        self._waiting, taken = [claims], False
        for _ in range(most_messages(len(claims))):
            claims = self._waiting.pop()
            failed = await self._send(claims)
            if failed and failed.of_itself and len(claims) > 1:
                self._halve(claims, failed)
            else:
                await self._settle(claims, failed)
            taken = taken or failed is None
            await self._hold_on()
            if not self._waiting:
                return
        why = "others of its message are refused"
        await self._settle((), Failed(why) if taken else self._later(why, _attempts(claims)))

    def _halve(self, claims: Sequence[Claimed], failed: Failed) -> None:
        log.warning("message_halved", channel=self.name, reason=failed.error, count=len(claims))
        middle = len(claims) // 2
        self._waiting += [claims[middle:], claims[:middle]]

    async def _settle(self, claims: Sequence[Claimed], failed: Failed | None) -> None:
        """Write down what became of this; a fault of the channel's is that of all that waits."""
        if failed and not failed.of_itself:
            claims = [*claims, *self._all_waiting()]
        await self._write_down(claims, failed)

    def _all_waiting(self) -> list[Claimed]:
        """What was taken and not begun; it is the caller's now."""
        claims, self._waiting = list(chain.from_iterable(self._waiting)), []
        return claims

    async def _hold_on(self) -> None:
        """Keep the turn, and what waits, for as long as if they had just been taken."""
        if not self._waiting:
            return
        self._lease_ends = self._clock() + self._timing.lease.total_seconds()
        claims = list(chain.from_iterable(self._waiting))
        async with self._pool.acquire() as connection, connection.transaction():
            kept = await deliveries.keep_claims(connection, self.name, claims, self._timing.lease)
            await deliveries.rest_channel(connection, self.name, self._timing.turn)
        ours = ([c for c in group if c.alert.alert_id in kept] for group in self._waiting)
        self._waiting = [group for group in ours if group]

    async def _send(self, claims: Sequence[Claimed]) -> Failed | None:
        """Hand a message to the channel; why not, where it did not take it."""
        try:
            message = await self._message(claims)
        except Exception as error:  # noqa: BLE001 - what cannot be put into words must not keep the others waiting
            return replace(self._broken("message_broken", error, claims), of_itself=True)
        if self._stopping:
            return STOPPED
        if self._clock() + self._timing.attempt.total_seconds() > self._lease_ends:
            log.warning(
                "lease_passed", channel=self.name, count=len(claims)
            )  # another may have sent it by now
            return Failed("the lease had passed before it was sent")
        return await self._hand_over(message, claims)

    async def _hand_over(self, message: Message, claims: Sequence[Claimed]) -> Failed | None:
        attempt_s = self._timing.attempt.total_seconds()
        try:
            async with asyncio.timeout(attempt_s):
                await self.channel.send(message)
        except Refused as error:
            return Failed(_short(error), next_in=None, of_itself=not isinstance(error, Gone))
        except TryLater as error:
            return self._later(_short(error), _attempts(claims), error.retry_after_s)
        except TimeoutError:
            return self._later(f"no answer within {attempt_s:g} s", _attempts(claims))
        except BaseException as error:  # a channel's fault is no reason to send nothing more
            if not _is_failure(error):
                raise
            return self._broken("channel_broken", error, claims)
        return None

    def _broken(self, event: str, error: BaseException, claims: Sequence[Claimed]) -> Failed:
        where = traceback.extract_tb(error.__traceback__)[-1]
        kind = type(error).__name__  # and not its text, which may quote an address with its secret
        log.error(event, channel=self.name, error=kind, file=where.filename, line=where.lineno)
        return self._later(kind, _attempts(claims))

    @staticmethod
    async def _message(claims: Sequence[Claimed]) -> Message:
        """Of a thousand alerts it takes 30 ms to write, which the loop has not got."""
        return await asyncio.to_thread(message_of, [claimed.alert for claimed in claims])

    def _later(self, error: str, attempts: int, retry_after_s: float | None = None) -> Failed:
        wait = self._wait_after(attempts)
        if retry_after_s is None:
            return Failed(error, wait)
        longest_s = self._timing.give_up_after.total_seconds()
        hold = timedelta(seconds=min(max(retry_after_s, 0.0), longest_s))
        return Failed(error, max(wait, hold), hold)

    # Writing down

    async def _write_down(self, claims: Sequence[Claimed], failed: Failed | None) -> None:
        """Keep what became of a message, whatever goes wrong for however long: forgotten, it would be sent twice."""
        rest = AT_ONCE if failed is STOPPED else self._timing.spacing
        async for attempt in AsyncRetrying(
            retry=retry_if_exception(_is_failure),
            wait=wait_random_exponential(multiplier=0.2, max=5),
            stop=stop_never,
            before_sleep=self._log_attempt,
        ):
            with attempt:
                if failed is None:
                    await self._note_sent(claims)
                else:
                    await self._note_failed(claims, failed, rest=rest)

    def _log_attempt(self, attempt: RetryCallState) -> None:
        error = attempt.outcome.exception() if attempt.outcome else None
        log.warning("delivery_not_noted", channel=self.name, reason=one_line(error or Exception()))

    async def _note_sent(self, claims: Sequence[Claimed]) -> None:
        async with self._pool.acquire() as connection, connection.transaction():
            seconds = await deliveries.mark_sent(connection, self.name, claims)
            await deliveries.note_told(connection, claims, self.name)
            await deliveries.rest_channel(connection, self.name, self._timing.spacing)
        self._metrics.notifications.labels(self.name, "sent").inc(len(seconds))
        for value in seconds:
            self._metrics.notification_seconds.observe(value)
        log.info("alerts_told", channel=self.name, count=len(claims), alert_ids=_some_ids(claims))

    async def _note_failed(self, claims: Sequence[Claimed], failed: Failed, *, rest: timedelta) -> None:
        async with self._pool.acquire() as connection, connection.transaction():
            rows = await deliveries.put_back(
                connection,
                self.name,
                claims,
                error=failed.error,
                next_in=failed.next_in or AT_ONCE,
                give_up_after=AT_ONCE if failed.next_in is None else self._timing.give_up_after,
            )
            await deliveries.rest_channel(connection, self.name, rest)
            if failed.hold is not None:
                await deliveries.hold_channel(connection, self.name, failed.hold)
        found = Counter(row.status for row in rows)
        for status, count in found.items():
            self._metrics.notifications.labels(self.name, status).inc(count)
        self._log_failure(claims, failed, given_up=found["failed"], put_off=found["pending"])

    def _log_failure(self, claims: Sequence[Claimed], failed: Failed, *, given_up: int, put_off: int) -> None:
        told = {"channel": self.name, "reason": failed.error, "alert_ids": _some_ids(claims)}
        if given_up:
            log.error("notifications_failed", count=given_up, **told)
        if put_off:
            next_in_s = round((failed.next_in or AT_ONCE).total_seconds(), 1)
            log.warning("notifications_put_off", count=put_off, next_in_s=next_in_s, **told)
        if lost := len(claims) - given_up - put_off:
            log.warning("notifications_taken_by_another", count=lost, **told)


def _is_failure(error: BaseException) -> bool:
    """Whether something went wrong; a CancelledError as well, where nobody cancels this task."""
    if isinstance(error, asyncio.CancelledError):
        task = asyncio.current_task()
        return task is not None and not task.cancelling()
    return isinstance(error, Exception)


def _attempts(claims: Sequence[Claimed]) -> int:
    return max(claimed.attempts for claimed in claims)


def _short(error: Exception) -> str:
    """The error's text as PostgreSQL takes it."""
    text = (str(error) or type(error).__name__)[:ERROR_LENGTH]
    return text.replace("\0", "").encode("utf-8", "replace").decode()


def _some_ids(claims: Sequence[Claimed]) -> list[str]:
    return [claimed.alert.alert_id for claimed in claims[:LOGGED_IDS]]
