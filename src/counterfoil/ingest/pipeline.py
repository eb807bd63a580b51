"""The road itself: records in, one transaction after another out, and what happens when either side is in trouble.

While one batch commits the next is decoded and gathered; what has gathered by then is the next transaction.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Protocol

import structlog
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception_type,
    stop_never,
    wait_random_exponential,
)

from counterfoil.errors import HaltingFailure, TransientFailure
from counterfoil.ingest.batches import Batch, Chunk
from counterfoil.ingest.decoding import Decoder
from counterfoil.ingest.failures import retry_reason
from counterfoil.ingest.isolating import write_isolating
from counterfoil.ingest.partitions import Partition, PartitionState
from counterfoil.ingest.placement import place
from counterfoil.ingest.positions import Account, Positions
from counterfoil.ingest.records import Record
from counterfoil.ingest.writer import Planned, Writer
from counterfoil.telemetry.health import Health
from counterfoil.telemetry.metrics import Metrics

log = structlog.get_logger("counterfoil.ingest")

PENDING_BYTES = 16 * 1024 * 1024
"""Bytes of records that may wait for the database."""


class Consumer(Protocol):
    """The parts of an aiokafka consumer that the road steers."""

    def seek(self, partition: Partition, offset: int) -> None: ...
    def pause(self, *partitions: Partition) -> None: ...
    def resume(self, *partitions: Partition) -> None: ...
    def assignment(self) -> frozenset[Partition]: ...


class Pipeline:
    """Takes records from a consumer and writes them: one batch in its transaction, one planned, one gathering.

    `relocate` is called when a partition's position must be read again; `halt` when only a person can help.
    """

    def __init__(  # noqa: PLR0913 - the one place where the road's parts meet
        self,
        *,
        decoders: dict[str, Decoder],
        writer: Writer,
        health: Health,
        metrics: Metrics,
        max_records: int,
        halt: Callable[[HaltingFailure], None],
    ) -> None:
        self.decoders = decoders
        self.writer = writer
        self.health = health
        self.metrics = metrics
        self.max_records = max_records
        self.halt = halt
        self.relocate: Callable[[PartitionState, str | None], None] = lambda _state, _reason: None
        self.committed: Callable[[dict[Partition, int]], None] = lambda _offsets: None
        self.consumer: Callable[[], Consumer | None] = lambda: None
        self.log_begin: Callable[[Partition], Awaitable[int | None]] = _beginning_of_all
        self.positions: Positions | None = None
        self.states: dict[Partition, PartitionState] = {}
        self.in_trouble = False
        self.closing = False
        self._pending: list[Chunk] = []
        self._pending_records = 0
        self._pending_bytes = 0
        self._planning: Batch | None = None
        self._next: Planned | None = None
        self._writing: Planned | None = None
        self._changed = asyncio.Event()
        self._planned = asyncio.Event()
        self._room = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()

    # Taking

    async def take(self, records: Sequence[Record]) -> None:
        """Accept the records of one poll; waits while the gathered batch is full."""
        # the states of now: one that is held anew while earlier runs are read must not judge what was fetched before
        polled = [(self.states.get(partition), partition, run) for partition, run in runs(records)]
        for state, partition, run in polled:
            if state is None:
                self._wait_for_position(partition)
            elif self._holds(state) and not self.closing:
                await self._take_run(state, run)
        while self._full and not self.in_trouble and not self.closing:
            self._room.clear()
            await self._room.wait()

    def _wait_for_position(self, partition: Partition) -> None:
        """Take nothing of a partition whose position is being read: that ends with a seek."""
        if partition not in self.states:
            self._pause(partition)

    async def _take_run(self, state: PartitionState, records: Sequence[Record]) -> None:
        partition = state.partition
        if self.in_trouble or self.decoders[partition.topic].breaker.tripped:
            self._push_back(state)
            return
        placement = place(state, records)
        if placement.replaced:
            self.forget([partition])
            self.relocate(state, placement.replaced)
            return
        if placement.gaps and not await self._account_for_gaps(state, placement.gaps):
            return
        if placement.records:
            await self._gather(state, placement.records)
        if placement.seek_to is not None and self._holds(state):
            self._seek(state, placement.seek_to)

    async def _account_for_gaps(self, state: PartitionState, gaps: Sequence[tuple[int, int]]) -> bool:
        """Say what is skipped, and what of it retention took: only the first gap can lie before the log's beginning.

        False where Kafka does not tell that beginning; then they are read once more.
        """
        place = {"topic": state.partition.topic, "partition": state.partition.partition}
        begin = await self.log_begin(state.partition) if gaps[0][0] == state.expected else 0
        if not self._holds(state):
            return False
        if begin is None:
            state.suspected.update(gaps)
            self._seek(state, state.expected)
            return False
        state.log_begin = max(state.log_begin, begin)
        for first, following in gaps:
            gone = min(following, state.log_begin)
            if gone > first:
                log.error("offsets_lost_to_retention", **place, first=first, to=gone, count=gone - first)
            if following > max(gone, first):
                log.warning("offsets_skipped", **place, first=max(gone, first), to=following)
        return True

    async def _gather(self, state: PartitionState, records: Sequence[Record]) -> None:
        decoder = self.decoders[state.partition.topic]
        chunk = await decoder.decode(state, records)
        if not self._holds(state):  # taken away while it was being read
            return
        if chunk.records:
            state.expected = chunk.next_offset
            if state.unread_since is None:
                state.unread_since = chunk.records[0].timestamp
            self._pending.append(chunk)
            self._pending_records += len(chunk.records)
            self._pending_bytes += chunk.size
            self._idle.clear()
            self._changed.set()
        if decoder.breaker.tripped:
            self._break(state.partition.topic, decoder)

    def _break(self, topic: str, decoder: Decoder) -> None:
        share = round(decoder.breaker.share, 3)
        log.error("breaker_tripped", topic=topic, malformed_share=share, limit=decoder.breaker.limit)
        self.health.check("breaker").failed(
            f"topic {topic} is paused: {share:.0%} of its last records are malformed; mend the producer and restart"
        )
        self.metrics.paused.labels(topic).set(1)
        for state in self.states.values():
            if state.partition.topic == topic:
                self._push_back(state)

    @property
    def _full(self) -> bool:
        return self._pending_records >= self.max_records or self._pending_bytes >= PENDING_BYTES

    def _holds(self, state: PartitionState) -> bool:
        return self.states.get(state.partition) is state

    def _push_back(self, state: PartitionState) -> None:
        """Take nothing more of a partition for now, and lose nothing of it."""
        self._seek(state, state.expected)
        self._pause(state.partition)

    def _seek(self, state: PartitionState, offset: int) -> None:
        consumer = self.consumer()
        if consumer is not None and state.partition in consumer.assignment():
            consumer.seek(state.partition, offset)
            state.sought = offset

    def _pause(self, *partitions: Partition) -> None:
        consumer = self.consumer()
        if consumer is not None:
            held = consumer.assignment()
            consumer.pause(*(p for p in partitions if p in held))

    # Holding partitions

    def hold(self, positions: Positions, states: list[PartitionState]) -> None:
        """Begin to read partitions whose positions are known: from the last record of the account, to compare it."""
        self.positions = positions
        for state in states:
            self.states[state.partition] = state
            self._seek(state, state.anchor.offset if state.anchor else state.expected)
        self._resume()

    def forget(self, partitions: Sequence[Partition]) -> None:
        """Let go of partitions, and of their records that are not written yet."""
        for partition in partitions:
            self.states.pop(partition, None)
        gone = set(partitions)
        self._pending = [chunk for chunk in self._pending if chunk.partition not in gone]
        self._count_pending()
        self._note_idle()

    def _resume(self) -> None:
        consumer = self.consumer()
        if consumer is None or self.in_trouble:
            return
        held = consumer.assignment()
        consumer.resume(*(p for p in self.states if p in held and not self.decoders[p.topic].breaker.tripped))

    def close(self) -> None:
        """Take nothing more; what was taken is still written."""
        self.closing = True
        self._room.set()

    async def settle(self, timeout_s: float) -> bool:
        """Wait until everything taken is written; False when that takes longer."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._idle.wait(), timeout_s)
        return self._idle.is_set()

    # Planning and writing

    async def plan_forever(self) -> None:
        """Let the slices decide on the next batch while the one before is being committed, until cancelled.

        A batch is taken when the writer waits for one, or when as much has gathered as one may hold.
        """
        while True:
            await self._changed.wait()
            self._changed.clear()
            while self._pending and self._next is None and (self._full or not self._writing):
                self._planning = self._take_pending()
                self._next = await self.writer.plan(self._planning)
                self._planning = None
                self._planned.set()

    async def write_forever(self) -> None:
        """Write batch after batch, until cancelled or halted."""
        while True:
            await self._planned.wait()
            self._planned.clear()
            if self._next is None:
                continue
            self._writing, self._next = self._next, None
            self._changed.set()
            try:
                await self._write(self._writing)
            except HaltingFailure as error:
                self._give_up()
                self.halt(error)
                return
            finally:
                self._writing = None
                self._changed.set()
                self._note_idle()

    def _give_up(self) -> None:
        """Let everything go that is not written: it is read again by whoever comes next."""
        self.close()
        self._next = None
        self.forget(list(self.states))

    def _note_idle(self) -> None:
        if not (self._pending or self._planning or self._next or self._writing):
            self._idle.set()

    def _waiting(self) -> Iterator[Chunk]:
        """What was taken and is not being written yet, in order."""
        if self._next is not None:
            yield from self._next.batch.chunks
        if self._planning is not None:
            yield from self._planning.chunks
        yield from self._pending

    def _take_pending(self) -> Batch:
        chunks, count = [], 0
        while self._pending and (count == 0 or count + len(self._pending[0].records) <= self.max_records):
            chunk = self._pending.pop(0)
            chunks.append(chunk)
            count += len(chunk.records)
        self._count_pending()
        return Batch(chunks)

    def _count_pending(self) -> None:
        self._pending_records = sum(len(chunk.records) for chunk in self._pending)
        self._pending_bytes = sum(chunk.size for chunk in self._pending)
        if not self._full:
            self._room.set()

    async def _write(self, planned: Planned) -> None:
        """Write a batch, isolating the records that the database refuses."""
        await write_isolating(planned, plan=self.writer.plan, write=self._write_patiently)

    async def _write_patiently(self, planned: Planned) -> None:
        """Attempt a batch until it is written or no longer ours; each attempt leaves out what was taken away."""
        async for attempt in AsyncRetrying(
            retry=retry_if_exception_type(TransientFailure),
            wait=wait_random_exponential(multiplier=0.2, max=10),
            stop=stop_never,
            before_sleep=self._trouble,
            reraise=True,
        ):
            with attempt:
                await self._attempt(planned)
        if self.in_trouble:
            self._trouble_is_over()

    async def _attempt(self, planned: Planned) -> None:
        batch = planned.batch
        held = [chunk for chunk in batch.chunks if self._holds(chunk.state)]
        if len(held) < len(batch.chunks):  # taken away meanwhile
            batch = Batch(held)
            planned = await self.writer.plan(batch)
        if not batch.chunks or self.positions is None:
            return
        self.health.batch_begins()
        try:
            with self.metrics.batch_seconds.time():
                written = await self.writer.write(planned, self.positions)
        finally:
            self.health.batch_ends()
        self.metrics.batch_records.observe(len(batch))
        for partition in written.stale:
            self._lost(partition)
        for account in written.accounts:
            self._account(account)
        for topic, count in written.refused.items():
            self.metrics.refused_facts.labels(topic).inc(count)
        for name, values in written.observed.items():
            self.metrics.observe_values(name, values)
        for (name, labels), count in written.counted.items():
            self.metrics.count(name, labels, count)
        for chunk in batch.chunks:
            if chunk.partition not in written.stale:
                for malformed in chunk.malformed:
                    self.metrics.dead_letters.labels(chunk.partition.topic, malformed.kind).inc()
        self.committed({account.partition: account.next_offset for account in written.accounts})

    def _account(self, account: Account) -> None:
        topic = account.partition.topic
        for outcome, count in (
            ("applied", account.applied),
            ("duplicate", account.duplicates),
            ("dead", account.dead),
            ("skipped", account.skipped),
        ):
            if count:
                self.metrics.records.labels(topic, outcome).inc(count)
        state = self.states.get(account.partition)
        if state is not None:
            state.stored = account.next_offset
            following = next((c for c in self._waiting() if c.partition == account.partition), None)
            state.unread_since = following.records[0].timestamp if following else None

    def _lost(self, partition: Partition) -> None:
        """Another worker has moved this position: forget what we thought of it, and read it again."""
        log.warning("stale_assignment", topic=partition.topic, partition=partition.partition)
        self.metrics.stale_assignments.inc()
        state = self.states.get(partition)
        self.forget([partition])
        if state is not None:
            self.relocate(state, None)

    def _trouble(self, attempt: RetryCallState) -> None:
        error = attempt.outcome.exception() if attempt.outcome else None
        wait_s = round(attempt.upcoming_sleep, 1)
        log.warning("database_away", reason=str(error), attempt=attempt.attempt_number, next_in_s=wait_s)
        self.health.check("database").failed(f"{error}; next attempt in {wait_s} s")
        self.metrics.batch_retries.labels(retry_reason(error)).inc()
        if not self.in_trouble:
            self.in_trouble = True
            self._pause(*self.states)
        self._room.set()

    def _trouble_is_over(self) -> None:
        log.info("database_back")
        self.in_trouble = False
        self.health.check("database").passed()
        self._resume()


async def _beginning_of_all(_partition: Partition) -> int:
    return 0


def runs(records: Sequence[Record]) -> Iterator[tuple[Partition, Sequence[Record]]]:
    """The records of a poll by partition; those of a partition stand together in it."""
    start = 0
    while start < len(records):
        topic, partition = records[start].topic, records[start].partition
        last = records[-1]
        end = len(records)
        if last.topic != topic or last.partition != partition:
            end = next(
                i for i in range(start, end) if records[i].partition != partition or records[i].topic != topic
            )
        yield Partition(topic, partition), records[start:end]
        start = end
