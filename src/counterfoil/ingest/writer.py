"""One batch, one transaction: fence, dead letters, ledgers, account."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeAlias

import asyncpg
import structlog
from asyncpg.pool import PoolConnectionProxy

from counterfoil.database import locks
from counterfoil.database.connection import Connection
from counterfoil.database.facts import PLAN_SLICE, Facts, Handler, HoldsRows, Outcome
from counterfoil.database.forgotten import NOBODY, Forgotten
from counterfoil.database.pool import UNREACHABLE, one_line
from counterfoil.database.queries import sql
from counterfoil.database.turns import TURNS
from counterfoil.events import erased
from counterfoil.ingest import dead_letters
from counterfoil.ingest.batches import Batch, Chunk
from counterfoil.ingest.erasing import ERASED, erase_forgotten
from counterfoil.ingest.failures import classify
from counterfoil.ingest.partitions import Partition
from counterfoil.ingest.positions import Account, Positions
from counterfoil.ingest.routes import Route

log = structlog.get_logger("counterfoil.ingest")

USERS = "user.created"

Step: TypeAlias = tuple[Handler, Any]
"""A slice and what it planned."""


@dataclass(frozen=True, slots=True)
class Planned:
    """A batch whose slices have decided what to write; `steps` stand beside the chunks that they are made from.

    Where rows may name people, `forgotten` is the version of who is forgotten that they were planned with.
    """

    batch: Batch
    steps: tuple[tuple[tuple[Chunk, ...], tuple[Step, ...]], ...]
    forgotten: int | None = None


@dataclass(frozen=True, slots=True)
class Written:
    """What a committed transaction did: an account of each partition, and the partitions that are another worker's.

    `refused` counts by topic the contents that do not stand against another of the same fact; `observed` are values for
    histograms, by their names, `counted` additions to counters, by their names and labels.
    """

    accounts: tuple[Account, ...]
    stale: frozenset[Partition]
    refused: dict[str, int] = field(default_factory=dict)
    observed: dict[str, list[float]] = field(default_factory=dict)
    counted: Counter[tuple[str, tuple[str, ...]]] = field(default_factory=Counter)


class Writer:
    """Writes batches on a connection of its own, which it makes anew after any failure."""

    def __init__(
        self,
        pool: asyncpg.Pool,
        routes: Sequence[Route],
        attempt_timeout_s: float,
        *,
        copies: bool = False,
    ) -> None:
        """With `copies`, what is parked is to be published as well."""
        self._pool = pool
        self._copies = copies
        self._routes = routes
        self._timeout_s = attempt_timeout_s
        self._forgotten = Forgotten()
        self._user_topic = next((route.topic for route in routes if route.name == USERS), None)
        self._connection: PoolConnectionProxy[asyncpg.Record] | None = None

    async def plan(self, batch: Batch) -> Planned:
        """Let the slices decide what to write, without I/O."""
        steps = []
        version, names_people = self._forgotten.version, any(chunk.malformed for chunk in batch.chunks)
        if self._forgotten and names_people:
            await self._erase_forgotten(batch, version)
        for route in self._routes:
            chunks = tuple(c for c in batch.chunks if c.partition.topic == route.topic and c.events)
            if chunks:
                facts = gather(chunks)
                names_people = names_people or erased.name_people(facts.events)
                steps.append((chunks, tuple(await plan_events(route, facts, self._forgotten))))
        return Planned(batch, tuple(steps), version if names_people else None)

    async def plan_as_seen(self, connection: Connection, planned: Planned) -> Planned:
        """The plan as a snapshot asks for it, where people were forgotten since: for who only compares."""
        if planned.forgotten is None or planned.forgotten == await self._forgotten.refresh(connection):
            return planned
        return await self.plan(planned.batch)

    async def write(self, planned: Planned, positions: Positions) -> Written:
        """Write a batch whole or not at all.

        Raises TransientFailure, PoisonRecord or HaltingFailure; after any of them nothing of the batch is written, save
        where the connection broke in the commit itself: then the next attempt finds the position moved.
        """
        try:
            async with asyncio.timeout(self._timeout_s):
                connection = await self._connected()
                return await self._transaction(connection, planned, positions)
        except Exception as error:
            await self._discard()
            raise classify(error) from error
        except BaseException:
            await self._discard()
            raise

    async def close(self) -> None:
        """Give the connection back."""
        if self._connection is not None:
            connection, self._connection = self._connection, None
            try:
                await self._pool.release(connection, timeout=5)
            except (*UNREACHABLE, asyncpg.PostgresError) as error:
                log.warning("connection_cut", reason=one_line(error))
                connection.terminate()

    async def _connected(self) -> PoolConnectionProxy[asyncpg.Record]:
        if self._connection is None:
            self._connection = await self._pool.acquire()
        return self._connection

    async def _discard(self) -> None:
        """Cut the connection: what it was doing is rolled back by the server, without waiting for it here."""
        if self._connection is not None:
            connection, self._connection = self._connection, None
            with contextlib.suppress(
                asyncpg.InterfaceError
            ):  # gone back to the pool when the server closed it
                connection.terminate()
            await self._pool.release(connection)

    async def _transaction(self, connection: Connection, planned: Planned, positions: Positions) -> Written:
        batch = planned.batch
        transaction = connection.transaction()
        await transaction.start()
        held = await positions.lock(connection, batch.by_partition())
        stale = frozenset(
            p for p, chunks in batch.by_partition().items() if held.get(p) != chunks[0].first_offset
        )
        if stale:
            batch = batch.without(stale)
            planned = await self.plan(batch)
        planned = await self._without_forgotten(connection, planned)
        written = Written(tuple(_account(chunks) for chunks in batch.by_partition().values()), stale)
        if written.accounts:
            await self._begin(connection, planned, positions)
            await self._park(connection, batch, positions.cluster_id)
            duplicates = await self._record(connection, planned, written)
            for account in written.accounts:
                account.duplicates = duplicates.get(account.partition, 0)
            await positions.advance(connection, written.accounts)
        await transaction.commit()
        return written

    async def _erase_forgotten(self, batch: Batch, version: int) -> None:
        """In a thread: to look through what nobody could read takes its time, and the loop has others to serve."""
        for chunk in batch.chunks:
            if chunk.malformed:
                known = self._forgotten, version, self._user_topic
                await asyncio.to_thread(erase_forgotten, chunk.malformed, *known)

    async def _begin(self, connection: Connection, planned: Planned, positions: Positions) -> None:
        """What a writer of another kind does in the transaction, once it holds the positions."""

    async def _without_forgotten(self, connection: Connection, planned: Planned) -> Planned:
        """The plan, made anew where people were forgotten since; nobody else is until the transaction ends."""
        if planned.forgotten is None or planned.forgotten == await self._forgotten.hold(connection):
            return planned
        return await self.plan(planned.batch)

    async def _park(self, connection: Connection, batch: Batch, cluster_id: str) -> None:
        malformed = [m for chunk in batch.chunks for m in chunk.malformed]
        if malformed:
            await dead_letters.park(connection, cluster_id, malformed, copies=self._copies)
        if any(m.reason == ERASED for m in malformed):
            await connection.execute(sql("resolve_erased"))

    @staticmethod
    async def _record(connection: Connection, planned: Planned, written: Written) -> dict[Partition, int]:
        """Let the slices write, and note what they tell; partition → how many of its records changed nothing."""
        found: dict[Partition, int] = {}
        every_step = [step for _, steps in planned.steps for step in steps]
        await hold_locks(connection, every_step)
        await hold_rows(connection, every_step)
        for chunks, steps in planned.steps:
            outcome = await write_steps(connection, steps)
            if outcome.refused:
                written.refused[chunks[0].partition.topic] = outcome.refused
            for name, values in outcome.observed.items():
                written.observed.setdefault(name, []).extend(values)
            written.counted.update(outcome.counted)
            start = 0
            for chunk in chunks if outcome.unchanged else ():
                stop = start + len(chunk.events)
                count = len(outcome.unchanged.intersection(range(start, stop)))
                found[chunk.partition] = found.get(chunk.partition, 0) + count
                start = stop
        return found


def gather(chunks: Sequence[Chunk]) -> Facts[Any]:
    """The events of some chunks, with their sources."""
    facts: Facts[Any] = Facts(origin=partial(_origin, chunks))
    for chunk in chunks:
        facts.events += chunk.events
        facts.offsets += chunk.offsets
        facts.source_ids += [chunk.state.source_id] * len(chunk.events)
    return facts


def _origin(chunks: Sequence[Chunk], index: int) -> str:
    for chunk in chunks:
        if index < len(chunk.events):
            return chunk.origin(index)
        index -= len(chunk.events)
    raise IndexError(index)


async def plan_events(route: Route, facts: Facts[Any], forgotten: Forgotten = NOBODY) -> list[Step]:
    """What each slice of a route will write of these events, and of forgotten people what is left of theirs."""
    if forgotten:
        facts = await _without_forgotten(facts, forgotten)
    return [(handler, await handler.plan(facts)) for handler in route.handlers]


async def _without_forgotten(facts: Facts[Any], forgotten: Forgotten) -> Facts[Any]:
    events: list[Any] = []
    for start in range(0, len(facts.events), PLAN_SLICE):
        some = facts.events[start : start + PLAN_SLICE]
        events += erased.without_forgotten(some, forgotten.pseudonym)
        await TURNS.preparing()
    return replace(facts, events=events)


async def hold_locks(connection: Connection, steps: Sequence[Step]) -> None:
    """Take the locks of all steps before the first writes; a single one of a single step its trigger takes in time."""
    wanted = locks.strongest(lock for handler, _ in steps for lock in handler.locks)
    if len(steps) > 1 or len(wanted) > 1:
        await locks.hold(connection, wanted)


async def hold_rows(connection: Connection, steps: Sequence[Step]) -> None:
    """Hold the rows that steps count in before the first of several writes; a single one's ledger does so in time.

    Also where only one of them does: else it would hold them after the rows of another step, and the next batch before.
    """
    holders = [(handler, plan) for handler, plan in steps if isinstance(handler, HoldsRows)]
    for statement in sorted({handler.holds for handler, _ in holders}):
        plans = [(handler, plan) for handler, plan in holders if handler.holds == statement]
        if len(steps) > 1:
            keys = set().union(*(handler.held(plan) for handler, plan in plans))
            await connection.execute(sql(statement), sorted(keys))


async def write_steps(connection: Connection, steps: Sequence[Step]) -> Outcome:
    """Let slices write what they planned of the same events; what that came to as a whole.

    Unchanged are the duplicates: events that had something to say to some slice and changed nothing in any.
    """
    outcomes = [await handler.write(connection, plan) for handler, plan in steps]
    unchanged = {index for outcome in outcomes for index in outcome.unchanged}
    duplicates = (
        unchanged.difference(*(outcome.changed() for outcome in outcomes)) if unchanged else unchanged
    )
    observed: dict[str, Sequence[float]] = {}
    counted: Counter[tuple[str, tuple[str, ...]]] = Counter()
    for outcome in outcomes:
        observed.update(outcome.observed)
        counted.update(outcome.counted)
    refused = sum(outcome.refused for outcome in outcomes)
    return Outcome(unchanged=duplicates, refused=refused, observed=observed, counted=counted)


def _account(chunks: Sequence[Chunk]) -> Account:
    records = [chunk.records[-1] for chunk in chunks if chunk.records]
    last = records[-1] if records else None
    return Account(
        partition=chunks[0].partition,
        first_offset=chunks[0].first_offset,
        next_offset=chunks[-1].next_offset,
        dead=sum(len(chunk.malformed) for chunk in chunks),
        skipped=sum(chunk.skipped for chunk in chunks),
        last_offset=last.offset if last else None,
        last_timestamp=last.timestamp if last else None,
        lost=tuple(chunk.lost for chunk in chunks if chunk.lost),
    )
