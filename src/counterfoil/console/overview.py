"""What `/ops` shows: each part asked for when somebody looks, and kept for as long as it is worth its cost."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Generic, TypeVar, cast

import asyncpg

from counterfoil.api.problems import is_away
from counterfoil.api.requests import within
from counterfoil.console.rates import Rates
from counterfoil.database import verifications
from counterfoil.database.connection import Connection
from counterfoil.database.queries import sql
from counterfoil.telemetry.health import Health
from counterfoil.telemetry.metrics import Metrics

T = TypeVar("T")

KEPT_S = 1.5
"""How long a part is shown at least before it is asked for again: two who look are one who asks."""

SHARE = 20
"""A part that took a second is asked for every 20: looking never takes more than a twentieth of a connection."""

LONGEST_S = 2.5
"""How long a part is waited for, the connection included."""

LOW_SHOWN = 20
LETTERS_SHOWN = 20
LETTER_BYTES = 1_024
ALERTS_SHOWN = 10
DRIFT_SHOWN = 5
OF_LATE = timedelta(minutes=10)
"""How long a dead letter that went through still stands among the others, so that it is seen that it did."""


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic's records: of all workers, but `lag`, which each knows of its own partitions."""

    name: str
    rate: float
    applied: int
    duplicates: int
    dead: int
    skipped: int
    lag: int | None
    last_record_at: datetime | None


@dataclass(frozen=True, slots=True)
class Commissions:
    """What partners have earned in one status and currency."""

    status: str
    currency: str
    digits: int
    earnings: Decimal


@dataclass(frozen=True, slots=True)
class Counters:
    """The numbers that people ask for first."""

    coupon_uses: int
    promo_uses: int
    clicks_today: int
    scans_today: int
    claims_today: int
    redemptions_today: int
    commissions: Sequence[Commissions]


@dataclass(frozen=True, slots=True)
class LowStock:
    """Products that are low: the emptiest, and how many in all."""

    products: Sequence[Mapping[str, Any]]
    total: int


@dataclass(frozen=True, slots=True)
class DeadLetters:
    """The newest parked records, and how many wait, by reason."""

    letters: Sequence[Mapping[str, Any]]
    waiting: Mapping[str, int]

    @property
    def total(self) -> int:
        return sum(self.waiting.values())


@dataclass(frozen=True, slots=True)
class Alerts:
    """The latest alerts with their notifications, and how many still wait for Kafka."""

    latest: Sequence[Mapping[str, Any]]
    unpublished: int


@dataclass(frozen=True, slots=True)
class Verified:
    """The latest recount of all counters, and the first numbers that it found wrong."""

    started_at: datetime
    seconds: float
    rows: int
    drifted: int
    first: Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class LastVerified:
    """The latest recount, None before the first."""

    last: Verified | None


@dataclass(frozen=True, slots=True)
class Part(Generic[T]):
    """A part of the page, or why it cannot be shown."""

    value: T | None
    trouble: str = ""


@dataclass(frozen=True, slots=True)
class Overview:
    """All that the page shows."""

    taken_at: datetime
    health: Health
    topics: Sequence[Topic]
    rates: tuple[list[int], dict[str, list[float]]]
    counters: Part[Counters]
    low_stock: Part[LowStock]
    dead_letters: Part[DeadLetters]
    alerts: Part[Alerts]
    verified: Part[LastVerified]


class Kept(Generic[T]):
    """The answer to one question, asked anew by whoever looks when it is old."""

    def __init__(
        self, ask: Callable[[Connection], Awaitable[T]], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._ask = ask
        self._clock = clock
        self._asking = asyncio.Lock()
        self._part: Part[T] | None = None
        self._began_at = 0.0
        self._good_until = 0.0

    async def part(self, pool: asyncpg.Pool | None, *, fresh: bool = False) -> Part[T]:
        """The answer, at most so old as it is worth; `fresh` after something was changed.

        A failure costs little to ask for again, and is over at any time: it is kept no longer than needed.
        """
        came = self._clock()
        async with self._asking:
            if self._part is None or not self._is_good(came, fresh=fresh):
                self._began_at = self._clock()
                self._part = await self._asked(pool)
                ended = self._clock()
                took = ended - self._began_at if self._part.value is not None else 0.0
                self._good_until = ended + max(KEPT_S, SHARE * took)
            return self._part

    def _is_good(self, came: float, *, fresh: bool) -> bool:
        """Whether what is kept will do for who came then; what was asked for since is fresh."""
        return self._began_at > came if fresh else self._clock() < self._good_until

    async def _asked(self, pool: asyncpg.Pool | None) -> Part[T]:
        if pool is None:
            return Part(None, "the database cannot be reached")
        try:
            return Part(await within(LONGEST_S, self._answer(pool)))
        except TimeoutError:
            return Part(None, f"not counted: no answer within {LONGEST_S:g} s")
        except (asyncpg.UndefinedTableError, asyncpg.UndefinedColumnError):
            return Part(None, "the schema is behind; run `counterfoil migrate`")
        except Exception as error:
            if not is_away(error):
                raise
            return Part(None, "the database cannot be reached")

    async def _answer(self, pool: asyncpg.Pool) -> T:
        async with pool.acquire(timeout=LONGEST_S) as connection:
            return await self._ask(cast("Connection", connection))


class Looking:
    """Puts the overview together."""

    def __init__(
        self, health: Health, metrics: Metrics, rates: Rates, pool: Callable[[], asyncpg.Pool | None]
    ) -> None:
        self._health = health
        self._metrics = metrics
        self._rates = rates
        self._pool = pool
        self._counters = Kept(count)
        self._low_stock = Kept(find_low_stock)
        self._dead_letters = Kept(find_dead_letters)
        self._alerts = Kept(find_alerts)
        self._verified = Kept(find_verified)

    async def overview(self, *, fresh: bool = False) -> Overview:
        """Everything as it is now, or as good as; what cannot be had says why."""
        pool = self._pool()
        counters, low_stock, dead_letters, alerts, verified = await asyncio.gather(
            self._counters.part(pool, fresh=fresh),
            self._low_stock.part(pool, fresh=fresh),
            self._dead_letters.part(pool, fresh=fresh),
            self._alerts.part(pool, fresh=fresh),
            self._verified.part(pool, fresh=fresh),
        )
        return Overview(
            taken_at=datetime.now(UTC),
            health=self._health,
            topics=self._topics(),
            rates=self._rates.series(),
            counters=counters,
            low_stock=low_stock,
            dead_letters=dead_letters,
            alerts=alerts,
            verified=verified,
        )

    def _topics(self) -> list[Topic]:
        lags = lag_by_topic(self._metrics)
        looked = self._rates.last
        return [
            Topic(
                name=name,
                rate=self._rates.now(name),
                applied=account.applied,
                duplicates=account.duplicates,
                dead=account.dead,
                skipped=account.skipped,
                lag=lags.get(name),
                last_record_at=account.last_record_at,
            )
            for name, account in (looked.topics if looked else {}).items()
        ]


def lag_by_topic(metrics: Metrics) -> dict[str, int]:
    """Records that this worker still has to read, of the partitions that it holds."""
    lags: dict[str, int] = {}
    for metric in metrics.lag_records.collect():
        for sample in metric.samples:
            topic = sample.labels["topic"]
            lags[topic] = lags.get(topic, 0) + int(sample.value)
    return lags


async def count(connection: Connection) -> Counters:
    """The headline counters."""
    [counters] = await connection.fetch(sql("headline_counters"))
    sums = await connection.fetch(sql("sums_of_commissions"))
    return Counters(**dict(counters), commissions=[Commissions(*row) for row in sums])


async def find_low_stock(connection: Connection) -> LowStock:
    """The products that are low."""
    rows = await connection.fetch(sql("low_products"), LOW_SHOWN)
    return LowStock([dict(row) for row in rows], rows[0]["total"] if rows else 0)


async def find_dead_letters(connection: Connection) -> DeadLetters:
    """What is parked."""
    letters = await connection.fetch(sql("latest_dead_letters"), LETTERS_SHOWN, LETTER_BYTES, OF_LATE)
    waiting = await connection.fetch(sql("count_open_dead_letters"))
    return DeadLetters([dict(row) for row in letters], {row["error_kind"]: row["waiting"] for row in waiting})


async def find_verified(connection: Connection) -> LastVerified:
    """What the schedule has found when it recounted everything."""
    kept = await verifications.last(connection)
    if kept is None:
        return LastVerified(None)
    rows, first = sum(kept.checked.values()), kept.drift[:DRIFT_SHOWN]
    return LastVerified(Verified(kept.started_at, kept.seconds, rows, kept.drifted, first))


async def find_alerts(connection: Connection) -> Alerts:
    """What was told of late, and to whom."""
    rows = await connection.fetch(sql("latest_alerts"), ALERTS_SHOWN)
    [outbox] = await connection.fetch(sql("measure_outbox"))
    latest = [
        dict(row) | {name: json.loads(row[name]) for name in ("payload", "notifications")} for row in rows
    ]
    return Alerts(latest, outbox["waiting"])
