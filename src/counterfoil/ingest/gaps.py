"""What is not read: positions that stand still, records that Kafka deleted before, topics that nobody reads."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import NamedTuple

import asyncpg
import structlog

from counterfoil.database.connection import Connection
from counterfoil.database.pool import UNREACHABLE, one_line
from counterfoil.database.queries import sql
from counterfoil.errors import DependencyUnreachable, InvalidSetting
from counterfoil.ingest.bounds import Bounds, find_bounds
from counterfoil.ingest.partitions import Partition
from counterfoil.kafka.cluster import Cluster
from counterfoil.notifications.channels import channels_of
from counterfoil.settings import Settings
from counterfoil.telemetry.metrics import Metrics

log = structlog.get_logger("counterfoil.ingest")

SETTLES_WITHIN_S = 2.0
"""A worker that reads takes what has just come in less time than that."""


class Kind(StrEnum):
    """What a gap is; also the name of its log line."""

    STANDS_STILL = "position_stands_still"
    LEFT_UNREAD = "records_deleted_unread"
    WITHOUT_CONSUMER = "partition_without_consumer"
    MISSING = "partition_missing"


class Position(NamedTuple):
    """Where a group stands in a partition, and for how long it has stood there."""

    group: str
    partition: Partition
    next_offset: int
    idle: timedelta


class Gap(NamedTuple):
    """Offsets of a partition that are not read, up to `to`; a missing partition is -1 where the whole topic is."""

    kind: Kind
    group: str
    partition: Partition
    first: int
    to: int


class Lost(NamedTuple):
    """What was lost of a topic, ever, and when that was last noticed."""

    offsets: int
    last_noticed_at: datetime


@dataclass(frozen=True, slots=True)
class Known:
    """What PostgreSQL and Kafka know of the topics of a deployment.

    `bounds` holds what could be looked at; `held` by group which partitions are read, None where a broker does not say.
    """

    cluster_id: str
    positions: Sequence[Position]
    leaders: Mapping[str, Mapping[int, int]]
    bounds: Mapping[Partition, Bounds]
    held: Mapping[str, frozenset[tuple[str, int]] | None]
    lost: Mapping[str, Lost]


# Looking


async def find_known(pool: asyncpg.Pool, settings: Settings, cluster: Cluster) -> Known:
    """Look at both; raises DependencyUnreachable where Kafka is away, and what asyncpg raises."""
    cluster_id = await cluster.cluster_id()
    async with pool.acquire() as connection:
        positions = await find_positions(connection, settings, cluster_id)
        lost = await find_lost(connection, settings, cluster_id)
    stands = {position.partition: position.next_offset for position in positions}
    leaders = await cluster.leaders({*topics_of(settings), *(p.topic for p in stands)})
    # a group without a position has never read here, and some brokers take the question for an error
    held = {group: await cluster.held(group) for group in sorted({p.group for p in positions})}
    wanted = [
        Partition(topic, n) for topic, led in leaders.items() for n, leader in led.items() if leader >= 0
    ]
    bounds = await find_bounds(settings, {partition: stands.get(partition, 0) for partition in wanted})
    return Known(cluster_id, positions, leaders, bounds, held, lost)


async def find_positions(connection: Connection, settings: Settings, cluster_id: str) -> list[Position]:
    """Where our groups stand on a cluster."""
    rows = await connection.fetch(sql("find_group_positions"), cluster_id, groups_of(settings))
    return [
        Position(r["consumer_group"], Partition(r["topic"], r["partition"]), r["next_offset"], r["idle"])
        for r in rows
    ]


async def find_lost(connection: Connection, settings: Settings, cluster_id: str) -> dict[str, Lost]:
    """What our groups have lost to retention, by topic."""
    rows = await connection.fetch(sql("find_lost_offsets"), cluster_id, groups_of(settings))
    return {row["topic"]: Lost(row["lost"], row["last_noticed_at"]) for row in rows}


async def find_gaps(pool: asyncpg.Pool, settings: Settings, cluster: Cluster) -> tuple[Known, list[Gap]]:
    """What is known, and every gap in it; a position that moves while we look stands still no more."""
    known = await find_known(pool, settings, cluster)
    gaps = judge(known, settings, time.time())
    if any(gap.kind is Kind.STANDS_STILL for gap in gaps):
        await asyncio.sleep(SETTLES_WITHIN_S)
        async with pool.acquire() as connection:
            later = await find_positions(connection, settings, known.cluster_id)
        stands = {(p.group, p.partition, p.next_offset) for p in later}
        gaps = [
            gap
            for gap in gaps
            if gap.kind is not Kind.STANDS_STILL or (gap.group, gap.partition, gap.first) in stands
        ]
    return known, gaps


def groups_of(settings: Settings) -> list[str]:
    """The consumer groups of a deployment; where no channel is set, alerts are to be read by nobody."""
    return [settings.consumer_group, *([settings.notify_group] if _tells(settings) else [])]


def _tells(settings: Settings) -> bool:
    try:
        return bool(channels_of(settings))
    except InvalidSetting:
        return True


def topics_of(settings: Settings) -> list[str]:
    """Every topic of a deployment."""
    return [*settings.topics.values(), *settings.outgoing_topics.values()]


# Judging


def judge(known: Known, settings: Settings, now: float) -> list[Gap]:
    """Every gap; `now` is the time of the records' clock, in seconds."""
    after = settings.standstill_after_s
    return [
        *_standing_still(known, after, now - after.total_seconds()),
        *_left_unread(known),
        *_without_consumer(known, settings),
        *_missing(known, settings),
    ]


def _standing_still(known: Known, after: timedelta, before: float) -> Iterator[Gap]:
    """Positions that have not moved for long, before a record that came before that."""
    for group, partition, next_offset, idle in known.positions:
        bounds = known.bounds.get(partition)
        if bounds is None or bounds.unread_at is None or idle < after:
            continue
        if bounds.end > next_offset and bounds.unread_at <= before * 1000:
            yield Gap(Kind.STANDS_STILL, group, partition, next_offset, bounds.end)


def _left_unread(known: Known) -> Iterator[Gap]:
    """What is no longer in the log and was not read; it is accounted for once a record behind it comes."""
    for group, partition, next_offset, _ in known.positions:
        bounds = known.bounds.get(partition)
        if bounds is not None and bounds.begin > next_offset:
            yield Gap(Kind.LEFT_UNREAD, group, partition, next_offset, bounds.begin)


def _without_consumer(known: Known, settings: Settings) -> Iterator[Gap]:
    """Partitions with records that no member of their group holds, or where that is not told, that none ever read.

    Alerts need nobody to read them: they count where somebody once did.
    """
    stands = {position.partition: position.group for position in known.positions}
    ours = frozenset(settings.topics.values())
    for partition, bounds in sorted(known.bounds.items()):
        group = settings.consumer_group if partition.topic in ours else stands.get(partition)
        if group is None or bounds.begin == bounds.end:
            continue
        held = known.held.get(group)
        is_read = partition in stands if held is None else partition in held
        if not is_read:
            yield Gap(Kind.WITHOUT_CONSUMER, group, partition, bounds.begin, bounds.end)


def _missing(known: Known, settings: Settings) -> Iterator[Gap]:
    """Partitions that were read and are gone, and topics that this worker is to read and that are not there."""
    ours = frozenset(topics_of(settings))
    for group, partition, next_offset, _ in known.positions:
        if partition.topic in ours and partition.partition not in known.leaders.get(partition.topic, {}):
            yield Gap(Kind.MISSING, group, partition, next_offset, next_offset)
    read = {position.partition.topic for position in known.positions}
    for topic in settings.consumed_topics.values():
        if topic not in known.leaders and topic not in read:
            yield Gap(Kind.MISSING, settings.consumer_group, Partition(topic, -1), 0, 0)


# Watching


class GapWatch:
    """Looks again and again, shows what it finds in gauges, and says what has changed."""

    def __init__(self, pool: asyncpg.Pool, settings: Settings, metrics: Metrics) -> None:
        self._pool = pool
        self._settings = settings
        self._metrics = metrics
        self._cluster = Cluster(settings)
        self._before: set[tuple[Kind, Partition]] = set()
        self._told: dict[tuple[Kind, str], list[Gap]] = {}
        self._held_back: dict[Position, float] = {}

    async def watch_forever(self) -> None:
        """Look, wait, look again, until cancelled."""
        every_s = self._settings.gap_check_interval_s.total_seconds()
        try:
            while True:
                try:
                    await self.look()
                except (DependencyUnreachable, *UNREACHABLE, asyncpg.PostgresError) as error:
                    log.warning("gap_check_failed", reason=one_line(error), next_in_s=every_s)
                except Exception:
                    log.exception("gap_check_failed")  # who only looks on must not stop the work
                await asyncio.sleep(every_s)
        finally:
            await self.close()

    async def close(self) -> None:
        """Let go of Kafka; another look connects anew."""
        await self._cluster.close()

    async def look(self) -> None:
        """Look once. What concerns the group is believed when it is seen twice: a worker may just have come or gone."""
        known, gaps = await find_gaps(self._pool, self._settings, self._cluster)
        gaps += self._long_held_back(known, time.monotonic())
        seen = {(gap.kind, gap.partition) for gap in gaps}
        unsettled = {Kind.WITHOUT_CONSUMER, Kind.MISSING}
        sure = [g for g in gaps if g.kind not in unsettled or (g.kind, g.partition) in self._before]
        self._before = seen
        self._show(known, sure)
        self._tell(sure)

    def _long_held_back(self, known: Known, now: float) -> Iterator[Gap]:
        """Positions before a transaction that does not end; how long it has been open only our own looks can tell."""
        self._held_back = {
            place: self._held_back.get(place, now)
            for position in known.positions
            if (bounds := known.bounds.get(position.partition)) and bounds.held_back
            for place in [position._replace(idle=timedelta(0))]
        }
        for (group, partition, next_offset, _), since in self._held_back.items():
            if now - since >= self._settings.standstill_after_s.total_seconds():
                yield Gap(Kind.STANDS_STILL, group, partition, next_offset, known.bounds[partition].end)

    def _show(self, known: Known, gaps: Collection[Gap]) -> None:
        counts: dict[tuple[Kind, str], int] = defaultdict(int)
        lost = defaultdict(int, {topic: found.offsets for topic, found in known.lost.items()})
        for gap in gaps:
            counts[gap.kind, gap.partition.topic] += 1
            if gap.kind is Kind.LEFT_UNREAD:
                lost[gap.partition.topic] += gap.to - gap.first
        gauges = {
            Kind.STANDS_STILL: self._metrics.positions_standing_still,
            Kind.WITHOUT_CONSUMER: self._metrics.partitions_without_consumer,
            Kind.MISSING: self._metrics.partitions_missing,
        }
        for topic in {*topics_of(self._settings), *lost, *(gap.partition.topic for gap in gaps)}:
            self._metrics.offsets_lost.labels(topic).set(lost[topic])
            for kind, gauge in gauges.items():
                gauge.labels(topic).set(counts[kind, topic])

    def _tell(self, gaps: Iterable[Gap]) -> None:
        """Say what is new of a topic, and what is over."""
        found: dict[tuple[Kind, str], list[Gap]] = defaultdict(list)
        for gap in gaps:
            found[gap.kind, gap.partition.topic].append(gap)
        for (kind, topic), there in found.items():
            known = {gap.partition for gap in self._told.get((kind, topic), ())}
            if any(gap.partition not in known for gap in there):
                log.warning(
                    str(kind), topic=topic, group=there[0].group, partitions=[_place(g) for g in there]
                )
        for kind, topic in self._told.keys() - found.keys():
            log.info("gap_closed", what=str(kind), topic=topic)
        self._told = dict(found)


def _place(gap: Gap) -> str:
    """The partition with the offsets that are not read; `-` for a whole topic."""
    if gap.partition.partition < 0:
        return "-"
    return f"{gap.partition.partition}@{gap.first}" + (f"-{gap.to}" if gap.to > gap.first else "")
