"""Kafka's log, read by a consumer that belongs to no group: nobody's position moves."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from typing import Any

from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError, KafkaTimeoutError, OffsetOutOfRangeError

from counterfoil.errors import DependencyUnreachable, InvalidSetting
from counterfoil.ingest.partitions import Anchor, Partition, PartitionState
from counterfoil.ingest.records import Record, next_offset, storable, timestamp_of
from counterfoil.kafka.cluster import Cluster
from counterfoil.kafka.connection import client_options
from counterfoil.kafka.tolerant import tolerate_header_names
from counterfoil.replaying.sources import Read, Stretch
from counterfoil.replaying.windows import WHOLE, Share, Window
from counterfoil.settings import Settings

POLL_RECORDS = 2_000
POLL_MS = 200
FETCH_BYTES = 8 * 1024 * 1024

OPEN_WITHIN_S = 30.0
SILENT_S = 3.0
"""How long nothing may come before Kafka is asked whether it is there."""

TELL_EVERY_S = 10.0
GIVE_UP_S = 60.0
"""How long a Kafka that is away, or a log that stands still, is waited for."""


class KafkaLog:
    """Some topics of a cluster within a window, or a share; the ends are high watermarks, as a fetch answers them.

    Where `named`, each topic must be there; else those that are not are only noted. `tell` hears of waiting.
    """

    def __init__(  # noqa: PLR0913 - what is read, and who hears of it
        self,
        settings: Settings,
        topics: Sequence[str],
        window: Window,
        *,
        named: bool = True,
        share: Share = WHOLE,
        tell: Callable[[str], None] = lambda _line: None,
    ) -> None:
        self.notes: list[str] = []
        self._settings = settings
        self._topics = topics
        self._window = window
        self._named = named
        self._share = share
        self._tell = tell
        self._servers = settings.kafka_bootstrap_servers
        self._cluster = Cluster(settings)
        self._cluster_id = ""
        self._consumer: AIOKafkaConsumer | None = None
        self._at: dict[Partition, int] = {}
        self._begins: Mapping[Partition, int] = {}
        self._ends: Mapping[Partition, int] = {}
        self._heard = 0.0
        self._told = float("-inf")

    # Opening

    async def open(self) -> list[Stretch]:
        """What there is to be read; the ends are those of now. Raises DependencyUnreachable or InvalidSetting."""
        tolerate_header_names()
        try:
            self._cluster_id = await self._cluster.cluster_id()
            partitions = await self._partitions()
            return await self._stretches(partitions) if partitions else []
        except (KafkaError, OSError, TimeoutError) as error:
            raise self._away(error) from error

    async def _partitions(self) -> list[Partition]:
        found = await self._cluster.partitions(self._topics)
        missing = [topic for topic in self._topics if topic not in found]
        if missing and self._named:
            raise InvalidSetting(f"{missing[0]}: Kafka at {self._servers} has no such topic")
        self.notes += [f"{topic} is not in Kafka: nothing of it is read" for topic in missing]
        self._check_partitions(found)
        wanted = sorted(
            Partition(topic, number)
            for topic, numbers in found.items()
            for number in numbers
            if self._window.has(number)
        )
        return list(self._share.of(wanted))

    def _check_partitions(self, found: Mapping[str, Sequence[int]]) -> None:
        wanted = self._window.partitions or frozenset()
        for topic, numbers in found.items() if self._named else ():
            for number in sorted(wanted.difference(numbers)):
                known = f"partitions 0 to {len(numbers) - 1}" if len(numbers) > 1 else "partition 0 alone"
                raise InvalidSetting(f"--partition {number}: {topic} has {known}")

    async def _stretches(self, partitions: list[Partition]) -> list[Stretch]:
        consumer = self._consumer = AIOKafkaConsumer(
            **client_options(self._settings),
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="none",
            isolation_level="read_committed",
            fetch_max_wait_ms=POLL_MS,
            fetch_max_bytes=FETCH_BYTES,
        )
        await consumer.start()
        consumer.assign(partitions)
        begins = await consumer.beginning_offsets(partitions)
        first = await self._first_records(consumer, begins)
        ends = {partition: _end(consumer, partition) for partition in partitions}
        self._begins, self._ends = begins, ends
        starts = begins | await self._hints(consumer, begins, ends)
        found = []
        for partition in partitions:
            end = min(ends[partition], self._window.end_offset or ends[partition])
            start = min(max(starts[partition], self._window.first_offset or 0), end)
            self._note_retention(partition, begins[partition], starts[partition], first.get(partition))
            found.append(Stretch(self._cluster_id, partition, start, end))
            self.seek(partition, start)
        return found

    async def _first_records(
        self, consumer: AIOKafkaConsumer, starts: Mapping[Partition, int]
    ) -> dict[Partition, list[Record]]:
        """The first records from these offsets on, none where there are none; each end is known afterwards."""
        for partition, start in starts.items():
            consumer.seek(partition, start)
        found: dict[Partition, list[Record]] = {}
        waiting = set(starts)
        deadline = time.monotonic() + OPEN_WITHIN_S
        while waiting:
            polled = await consumer.getmany(*waiting, timeout_ms=POLL_MS, max_records=POLL_RECORDS)
            found |= polled
            for partition in list(waiting):
                end = consumer.highwater(partition)
                if partition in polled or (
                    end is not None and await consumer.position(partition) >= _end(consumer, partition)
                ):
                    waiting.discard(partition)
            if waiting and time.monotonic() > deadline:
                raise DependencyUnreachable(f"Kafka at {self._servers}: no answer to a fetch")
        return found

    async def _hints(
        self, consumer: AIOKafkaConsumer, begins: Mapping[Partition, int], ends: Mapping[Partition, int]
    ) -> dict[Partition, int]:
        """Where the window begins by time, of those partitions of which a broker's word on it has proved true."""
        since = self._window.since_ms
        if since is None or since <= 0:
            return {}
        asked = await consumer.offsets_for_times(dict.fromkeys(begins, since))
        latest = await consumer.end_offsets(list(begins))
        found = {}
        for partition, begin in begins.items():
            if ends[partition] > latest[partition]:
                continue  # a broker that does not know its logs' ends does not know their times
            hint = asked.get(partition)
            found[partition] = ends[partition] if hint is None else max(int(hint.offset), begin)
        before = {partition: max(begins[partition], offset - 1) for partition, offset in found.items()}
        records = await self._first_records(consumer, before) if before else {}
        return {
            partition: offset
            for partition, offset in found.items()
            if _begins_at(records.get(partition, ()), offset, since)
        }

    async def replaced(self, states: Iterable[PartitionState]) -> str | None:
        """Which of these partitions is another log than the one that was read of before, in words; None where none is.

        Raises DependencyUnreachable.
        """
        anchors: dict[Partition, Anchor] = {}
        for state in states:
            partition, anchor = state.partition, state.anchor
            if state.expected > self._ends[partition]:
                return f"{_name(partition)} ends before offset {state.expected}"
            if anchor is not None and self._begins[partition] <= anchor.offset:
                anchors[partition] = anchor
        try:
            found = await self._records_at({p: anchor.offset for p, anchor in anchors.items()})
        except (KafkaError, OSError) as error:
            raise self._away(error) from error
        for partition, anchor in anchors.items():
            first = next(iter(found.get(partition, ())), None)
            if first and first.offset == anchor.offset and storable(first.timestamp) != anchor.timestamp:
                return f"{_name(partition)} has another record at offset {anchor.offset}"
        return None

    async def _records_at(self, offsets: Mapping[Partition, int]) -> dict[Partition, list[Record]]:
        """The first records from these offsets on; where the partitions are read from stays as it was."""
        if self._consumer is None or not offsets:
            return {}
        try:
            return await self._first_records(self._consumer, offsets)
        finally:
            for partition in offsets:
                self.seek(partition, self._at[partition])

    def _note_retention(
        self, partition: Partition, begin: int, start: int, first: Sequence[Record] | None
    ) -> None:
        """Say so where the log begins after the window does."""
        wanted = self._window.first_offset
        if begin == 0 or start > begin or (wanted is not None and wanted >= begin):
            return
        if self._window.since is None or not first or timestamp_of(first[0].timestamp) >= self._window.since:
            since = f", {timestamp_of(first[0].timestamp):%Y-%m-%d %H:%M:%S}Z" if first else ""
            self.notes.append(
                f"{_name(partition)} begins at offset {begin}{since}: what is older is no longer in Kafka"
            )

    # Reading

    def seek(self, partition: Partition, offset: int) -> None:
        """Read this partition from here; otherwise it is read from its stretch's beginning."""
        self._at[partition] = offset
        if self._consumer is not None:
            self._consumer.seek(partition, offset)

    async def read(self, ends: Mapping[Partition, int]) -> AsyncIterator[Read]:
        """Read on to these ends; may be called again with later ones. Raises DependencyUnreachable."""
        consumer = self._consumer
        due = {partition: end for partition, end in ends.items() if self._at[partition] < end}
        if consumer is None or not due:
            return
        consumer.pause(*(p for p in consumer.assignment() if p not in due))
        consumer.resume(*due)
        self._heard = time.monotonic()
        while due:
            reads = await self._poll(consumer, due)
            for read in reads:
                self._at[read.partition] = read.next_offset
                if read.next_offset >= due[read.partition]:
                    del due[read.partition]
                    consumer.pause(read.partition)
                yield read
            if reads:
                self._heard = time.monotonic()  # now: whoever takes the records may have taken long
            else:
                await self._listen(due)

    async def _poll(self, consumer: AIOKafkaConsumer, due: Mapping[Partition, int]) -> list[Read]:
        try:
            return await self._fetched(consumer, due)
        except (KafkaError, OSError) as error:
            if not (getattr(error, "retriable", True) or isinstance(error, KafkaTimeoutError)):
                raise self._away(error) from error
            await asyncio.sleep(POLL_MS / 1000)  # whether it is away for long is found out by listening
            return []

    async def _fetched(self, consumer: AIOKafkaConsumer, due: Mapping[Partition, int]) -> list[Read]:
        try:
            polled = await consumer.getmany(*due, timeout_ms=POLL_MS, max_records=POLL_RECORDS)
        except OffsetOutOfRangeError as error:
            return await self._skip_what_is_gone(consumer, error.args[0], due)
        found = [self._read_of(partition, polled[partition], due[partition]) for partition in polled]
        for partition in due.keys() - polled.keys():
            position = min(await consumer.position(partition), due[partition])
            if position > self._at[partition]:  # markers, or what compaction has left nothing of
                found.append(Read(partition, (), self._at[partition], position))
        return found

    def _read_of(self, partition: Partition, records: Sequence[Record], end: int) -> Read:
        first, following = self._at[partition], next_offset(records[-1])
        if following > end:
            records = [record for record in records if record.offset < end]
            following = end
            if self._consumer is not None:  # whoever reads on later reads on from there
                self._consumer.seek(partition, end)
        return Read(partition, self._window.select(records), first, following)

    async def _skip_what_is_gone(
        self, consumer: AIOKafkaConsumer, offsets: Mapping[Partition, int], due: Mapping[Partition, int]
    ) -> list[Read]:
        """Go on where the log begins now, where retention was faster than we are."""
        found = []
        for partition, begin in (await consumer.beginning_offsets(list(offsets))).items():
            at, name = self._at[partition], _name(partition)
            if begin <= at:
                raise DependencyUnreachable(
                    f"{name}: offset {at} is beyond the log's end; it is another log than before"
                )
            self.notes.append(f"{name}: offsets {at} to {begin - 1} have left Kafka before they were read")
            following = min(begin, due[partition])
            consumer.seek(partition, following)
            found.append(Read(partition, (), at, following))
        return found

    async def _listen(self, due: Iterable[Partition]) -> None:
        """Where nothing comes, ask whether Kafka is there; raises DependencyUnreachable when it is not for long."""
        silent = time.monotonic() - self._heard
        if silent < SILENT_S:
            return
        try:
            cluster_id = await self._cluster.cluster_id()
        except DependencyUnreachable as error:
            if silent > GIVE_UP_S:
                raise
            if time.monotonic() - self._told > TELL_EVERY_S:
                self._told = time.monotonic()
                self._tell(f"{error}; trying for another {GIVE_UP_S - silent:.0f} s")
            return
        if cluster_id != self._cluster_id:
            raise DependencyUnreachable(
                f"Kafka at {self._servers}: another cluster has taken its place ({cluster_id})"
            )
        if silent > GIVE_UP_S:
            where = ", ".join(f"{_name(p)} at offset {self._at[p]}" for p in due)
            raise DependencyUnreachable(f"Kafka at {self._servers}: nothing more comes of {where}")

    async def close(self) -> None:
        """Let go of it."""
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            await consumer.stop()
        await self._cluster.close()

    def _away(self, error: BaseException) -> DependencyUnreachable:
        return DependencyUnreachable(f"Kafka at {self._servers}: {error or type(error).__name__}")


def _name(partition: Partition) -> str:
    return f"{partition.topic}/{partition.partition}"


def _end(consumer: AIOKafkaConsumer, partition: Partition) -> int:
    """Where the log ends for a reader of committed records: before the first transaction that is open."""
    end = int(consumer.highwater(partition) or 0)
    stable: Any = consumer.last_stable_offset(partition)
    return min(end, int(stable)) if stable is not None and stable >= 0 else end


def _begins_at(records: Sequence[Record], offset: int, since_ms: int) -> bool:
    """Whether the records before this offset are older than that time, and the first from there on is not."""
    for record in records:
        if (storable(record.timestamp) >= since_ms) != (record.offset >= offset):
            return False
        if record.offset >= offset:
            return True
    return True
