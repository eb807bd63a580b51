"""From a source to a writer, as fast as both can: what is next is read and planned while a batch is being written."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception_type,
    stop_after_delay,
    wait_random_exponential,
)

from counterfoil.errors import DependencyUnreachable, HaltingFailure, TransientFailure
from counterfoil.events import Rules
from counterfoil.ingest.batches import Batch, Chunk
from counterfoil.ingest.breaker import Breaker
from counterfoil.ingest.decoding import Decoder
from counterfoil.ingest.isolating import write_isolating
from counterfoil.ingest.partitions import Partition, PartitionState
from counterfoil.ingest.positions import Positions
from counterfoil.ingest.routes import Route
from counterfoil.ingest.writer import Planned, Written
from counterfoil.replaying.sources import Read, Source
from counterfoil.telemetry.metrics import Metrics

BATCH_RECORDS = 5_000
BATCH_BYTES = 16 * 1024 * 1024

GATHER_S = 0.25
"""How long a batch that is not full waits for more."""

GIVE_UP_S = 60.0
"""How long a database that is away is waited for."""

Progress = Callable[[Mapping[Partition, int]], None]
"""Hears where partitions stand now: partition → next offset."""


class BatchWriter(Protocol):
    """What writes batches, or only compares them: ingest's Writer, for one."""

    async def plan(self, batch: Batch) -> Planned: ...
    async def write(self, planned: Planned, positions: Positions) -> Written: ...


class Pace:
    """Lets so many records pass in a second at most; None does not hold them up."""

    def __init__(self, records_per_s: int | None = None) -> None:
        self.records_per_s = records_per_s
        self._free_at = 0.0

    def batch_records(self, most: int) -> int:
        """How many records a batch may have, so that one comes about every second."""
        return most if self.records_per_s is None else max(1, min(most, self.records_per_s))

    async def take(self, records: int) -> None:
        """Wait until so many records may pass."""
        if self.records_per_s is None:
            return
        now = time.monotonic()
        wait_s = self._free_at - now
        self._free_at = max(now, self._free_at) + records / self.records_per_s
        if wait_s > 0:
            await asyncio.sleep(wait_s)


class Engine:
    """Reads records, decodes them, lets the slices plan, and has them written, batch after batch.

    `progress` hears of each batch that is written, `tell` of waiting for the database.
    """

    def __init__(  # noqa: PLR0913 - the one place where a replay's parts meet
        self,
        routes: Sequence[Route],
        rules: Rules,
        writer: BatchWriter,
        pace: Pace,
        progress: Progress,
        *,
        tell: Callable[[str], None] = lambda _line: None,
        batch_records: int = BATCH_RECORDS,
    ) -> None:
        metrics = Metrics()  # nobody asks for them: a replay says at its end what it came to
        self._decoders = {route.topic: Decoder(route, rules, Breaker(1), metrics) for route in routes}
        self._writer = writer
        self._pace = pace
        self._progress = progress
        self._tell = tell
        self._batch_records = pace.batch_records(batch_records)

    async def run(
        self,
        source: Source,
        ends: Mapping[Partition, int],
        positions: Positions,
        states: Iterable[PartitionState],
    ) -> None:
        """Read these partitions from where they stand to these ends; may be called again with later ones.

        Raises DependencyUnreachable where Kafka or PostgreSQL stays away, HaltingFailure where only a person can help.
        """
        by_partition = {state.partition: state for state in states}
        for state in by_partition.values():
            source.seek(state.partition, state.expected)
        waiting = _Waiting(self._batch_records)
        planned: asyncio.Queue[Planned | None] = asyncio.Queue(1)
        try:
            async with asyncio.TaskGroup() as stages:
                stages.create_task(self._read(source, ends, by_partition, waiting))
                stages.create_task(self._plan(waiting, planned))
                stages.create_task(self._write(planned, positions))
        except ExceptionGroup as errors:
            raise _first(errors) from None

    async def _read(
        self,
        source: Source,
        ends: Mapping[Partition, int],
        states: Mapping[Partition, PartitionState],
        waiting: _Waiting,
    ) -> None:
        wanted = {partition: end for partition, end in ends.items() if partition in states}
        async with contextlib.aclosing(source.read(wanted)) as reads:  # type: ignore[type-var] # generators all
            async for read in reads:
                await waiting.put(await self._decode(states[read.partition], read))
        waiting.end()

    async def _decode(self, state: PartitionState, read: Read) -> Chunk:
        """A chunk from where the partition stood to where it is read to; what is passed over in between is its, too."""
        chunk = await self._decoders[state.partition.topic].decode(state, read.records)
        state.expected = chunk.next_offset = read.next_offset
        return chunk

    async def _plan(self, waiting: _Waiting, planned: asyncio.Queue[Planned | None]) -> None:
        while chunks := await waiting.take():
            await planned.put(await self._writer.plan(Batch(chunks)))
        await planned.put(None)

    async def _write(self, planned: asyncio.Queue[Planned | None], positions: Positions) -> None:
        async def write(due: Planned) -> None:
            await self._write_patiently(due, positions)

        while (due := await planned.get()) is not None:
            await self._pace.take(len(due.batch))
            await write_isolating(due, plan=self._writer.plan, write=write)

    async def _write_patiently(self, due: Planned, positions: Positions) -> None:
        """Attempt a batch until it is written; raises DependencyUnreachable when the database stays away."""
        try:
            async for attempt in AsyncRetrying(
                retry=retry_if_exception_type(TransientFailure),
                wait=wait_random_exponential(multiplier=0.2, max=5),
                stop=stop_after_delay(GIVE_UP_S),
                before_sleep=self._say_that_it_is_away,
                reraise=True,
            ):
                with attempt:
                    written = await self._writer.write(due, positions)
                    self._check(written, attempt.retry_state.attempt_number)
        except TransientFailure as error:
            raise DependencyUnreachable(f"PostgreSQL: {error}") from error
        self._progress({chunk.partition: chunk.next_offset for chunk in due.batch.chunks})

    @staticmethod
    def _check(written: Written, attempt: int) -> None:
        """A position that is not where we left it is another's, but for one that our own broken commit has moved.

        Whether that was so is what the fence says of the next batch.
        """
        if written.stale and attempt == 1:
            raise HaltingFailure("another process has taken this replay over; let it end")

    def _say_that_it_is_away(self, attempt: RetryCallState) -> None:
        error = attempt.outcome.exception() if attempt.outcome else None
        self._tell(f"PostgreSQL: {error}; trying again in {attempt.upcoming_sleep:.1f} s")


class _Waiting:
    """Chunks that wait to be planned: no more of them than two batches hold."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._chunks: list[Chunk] = []
        self._last: dict[Partition, Chunk] = {}
        self._records = 0
        self._bytes = 0
        self._ended = False
        self._some = asyncio.Event()
        self._full = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()

    async def put(self, chunk: Chunk) -> None:
        """Add a chunk; waits while there is no room."""
        await self._room.wait()
        last = self._last.get(chunk.partition)
        if last is not None and not chunk.records:  # a wide stretch out of the window is no crowd of chunks
            last.next_offset = chunk.next_offset
        else:
            self._chunks.append(chunk)
            self._last[chunk.partition] = chunk
        self._records += len(chunk.records)
        self._bytes += chunk.size
        self._signal()

    def end(self) -> None:
        """No more will come."""
        self._ended = True
        self._signal()

    async def take(self) -> list[Chunk]:
        """The chunks of the next batch: a full one where it fills up in a while; empty at the end."""
        await self._some.wait()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GATHER_S):
                await self._full.wait()
        taken: list[Chunk] = []
        room = self._most
        while self._chunks and (room or not self._chunks[0].records):
            chunk = self._chunks.pop(0)
            if len(chunk.records) > room:
                chunk, rest = _split(chunk, room)
                self._chunks.insert(0, rest)
            taken.append(chunk)
            room -= len(chunk.records)
        self._count()
        return taken

    def _count(self) -> None:
        self._records = sum(len(chunk.records) for chunk in self._chunks)
        self._bytes = sum(chunk.size for chunk in self._chunks)
        self._last = {chunk.partition: chunk for chunk in self._chunks}
        self._signal()

    def _signal(self) -> None:
        full = self._records >= self._most or self._bytes >= BATCH_BYTES
        _set(self._full, full or self._ended)
        _set(self._some, bool(self._chunks) or self._ended)
        _set(self._room, not full)


def _set(event: asyncio.Event, value: bool) -> None:
    (event.set if value else event.clear)()


def _split(chunk: Chunk, at: int) -> tuple[Chunk, Chunk]:
    first, rest = chunk.split(at)
    first.size = chunk.size * at // len(chunk.records)
    rest.size = chunk.size - first.size
    return first, rest


def _first(errors: Exception) -> Exception:
    error = errors
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return error
