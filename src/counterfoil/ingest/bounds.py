"""Where logs begin and end, and what is to be read of them from our positions on: looked at without a group."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Mapping
from typing import NamedTuple

from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError

from counterfoil.errors import DependencyUnreachable
from counterfoil.ingest.partitions import Partition
from counterfoil.kafka.connection import client_options
from counterfoil.kafka.tolerant import tolerate_header_names
from counterfoil.settings import Settings

LOOK_WITHIN_S = 5.0
STOP_WITHIN_S = 2.0
POLL_MS = 100
PARTITION_BYTES = 64 * 1024
"""Asked for of each partition: one record tells enough."""

SINCE_EVER = 0


class Bounds(NamedTuple):
    """A log as a reader at our position finds it.

    `end` is the high watermark; `unread_at` the timestamp (ms) of the first record to be read from the position on, or
    None where there is none; `held_back` says that an open transaction keeps what follows from being read.
    """

    begin: int
    end: int
    unread_at: int | None = None
    held_back: bool = False


async def find_bounds(
    settings: Settings, positions: Mapping[Partition, int], within_s: float = LOOK_WITHIN_S
) -> dict[Partition, Bounds]:
    """The bounds of some logs, beside where each is read from; what is not known in time is left out.

    A position before the log's beginning stands for that beginning. Raises DependencyUnreachable.
    """
    if not positions:
        return {}
    tolerate_header_names()
    consumer = AIOKafkaConsumer(
        **client_options(settings),
        group_id=None,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        isolation_level="read_committed",
        fetch_max_wait_ms=POLL_MS,
        max_partition_fetch_bytes=PARTITION_BYTES,
    )
    deadline = time.monotonic() + within_s
    try:
        async with asyncio.timeout(within_s):
            await consumer.start()
            consumer.assign(list(positions))
            begins = await consumer.beginning_offsets(list(positions))
        return await _Look(consumer, begins, positions).take(deadline)
    except (KafkaError, OSError, TimeoutError) as error:
        reason = str(error) or type(error).__name__
        raise DependencyUnreachable(f"Kafka at {settings.kafka_bootstrap_servers}: {reason}") from error
    finally:
        with contextlib.suppress(Exception):
            await asyncio.wait_for(consumer.stop(), STOP_WITHIN_S)


class _Look:
    """One look at some logs: a fetch from each position, and on until a record comes or nothing is left."""

    def __init__(
        self, consumer: AIOKafkaConsumer, begins: Mapping[Partition, int], positions: Mapping[Partition, int]
    ) -> None:
        self._consumer = consumer
        self._begins = begins
        self._starts = {p: max(offset, begins[p]) for p, offset in positions.items()}
        self._found: dict[Partition, Bounds] = {}

    async def take(self, deadline: float) -> dict[Partition, Bounds]:
        for partition, offset in self._starts.items():
            self._consumer.seek(partition, offset)
        waiting = set(self._starts)
        while waiting and time.monotonic() < deadline:
            if not await self._poll(waiting):
                for partition in waiting:
                    await self._note_where_nothing_is_left(partition)
            waiting -= self._found.keys()
        for partition in waiting:
            self._note(partition, SINCE_EVER)  # something is there, and does not come
        return self._found

    async def _poll(self, waiting: set[Partition]) -> bool:
        """Take the first record of a partition, one at a time: unpacking holds the loop. False where none comes."""
        polled = await self._consumer.getmany(*waiting, timeout_ms=POLL_MS, max_records=1)
        for partition, records in polled.items():
            self._consumer.pause(partition)
            is_ahead = records[0].offset >= self._starts[partition]  # or the log ends before our position
            self._note(partition, max(records[0].timestamp, SINCE_EVER) if is_ahead else None)
        return bool(polled)

    async def _note_where_nothing_is_left(self, partition: Partition) -> None:
        end = self._consumer.highwater(partition)
        if end is None or partition in self._found:
            return
        stable = self._consumer.last_stable_offset(partition) or 0
        readable = stable if stable > 0 else end
        if end <= self._starts[partition] or await self._position(partition) >= readable:
            self._note(partition, None, held_back=readable < end)

    async def _position(self, partition: Partition) -> int:
        try:
            return int(await asyncio.wait_for(self._consumer.position(partition), POLL_MS / 1000))
        except TimeoutError:  # it is being sought anew
            return -1

    def _note(self, partition: Partition, unread_at: int | None, *, held_back: bool = False) -> None:
        end = self._consumer.highwater(partition)
        if end is not None:
            self._found[partition] = Bounds(self._begins[partition], int(end), unread_at, held_back)
