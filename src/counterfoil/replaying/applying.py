"""Writes what a log says down the live road: what is there already is a duplicate, what is missing comes to be."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import asyncpg

from counterfoil.database import locks
from counterfoil.database.comparison import ComparesRows, Comparison, Rows, overwrite
from counterfoil.database.connection import Connection
from counterfoil.database.pool import UNREACHABLE
from counterfoil.database.queries import sql
from counterfoil.errors import HaltingFailure
from counterfoil.ingest.batches import Batch, Chunk
from counterfoil.ingest.partitions import Partition
from counterfoil.ingest.positions import Positions
from counterfoil.ingest.records import timestamp_of
from counterfoil.ingest.routes import Route
from counterfoil.ingest.writer import Planned, Step, Writer, hold_rows
from counterfoil.replaying.progress import ReplayPositions

TOUCH_S = 1.5
LEASE_S = 6.0
"""How long a replay's process may give no sign of life before it is taken to be gone."""


class ReplayWriter(Writer):
    """Writes as the live road does; what was parked and is good now is resolved in the same transaction.

    With `overwriting`, rows that differ from what the records say are set right before the slices write.
    """

    def __init__(
        self,
        pool: asyncpg.Pool,
        routes: Sequence[Route],
        attempt_timeout_s: float,
        *,
        overwriting: bool,
        copies: bool = False,
    ) -> None:
        super().__init__(pool, routes, attempt_timeout_s, copies=copies)
        self._overwriting = overwriting

    async def _begin(self, connection: Connection, planned: Planned, positions: Positions) -> None:
        # parked records first: whoever retries one holds it before any row of a ledger, too
        released = await release(connection, positions.cluster_id, planned.batch)
        overwritten = await _overwrite(connection, planned) if self._overwriting else Counter()
        if isinstance(positions, ReplayPositions):
            await positions.count(connection, overwritten, released)


async def release(connection: Connection, cluster_id: str, batch: Batch) -> Counter[Partition]:
    """Resolve the parked records that are events in this batch; how many in each partition."""
    parts = [
        (p.topic, p.partition, chunks[0].first_offset, chunks[-1].next_offset)
        for p, chunks in batch.by_partition().items()
    ]
    rows = await connection.fetch(sql("hold_open_letters"), cluster_id, *zip(*parts, strict=True))
    if not rows:
        return Counter()
    good = _good_records(batch.chunks)
    released = [row for row in rows if _name(row) in good]
    await connection.execute(sql("release_letters"), [row["id"] for row in released])
    return Counter(Partition(row["topic"], row["partition"]) for row in released)


def _good_records(chunks: Sequence[Chunk]) -> set[tuple[str, int, int, datetime]]:
    found = set()
    for chunk in chunks:
        events = set(chunk.offsets)
        found |= {
            (record.topic, record.partition, record.offset, timestamp_of(record.timestamp))
            for record in chunk.records
            if record.offset in events
        }
    return found


def _name(row: asyncpg.Record) -> tuple[str, int, int, datetime]:
    return row["topic"], row["partition"], row["offset"], row["record_timestamp"]


async def _overwrite(connection: Connection, planned: Planned) -> Counter[Partition]:
    """Set right the rows that differ; how many, counted for the first partition of each topic."""
    wanted = [
        (chunks[0].partition, comparison, rows)
        for chunks, steps in planned.steps
        for comparison, rows in await compared(connection, steps)
    ]
    steps = [step for _, steps in planned.steps for step in steps]
    taken = [lock for handler, _ in steps for lock in handler.locks]
    # all of them and the strongest way, before the first row: the writing that follows takes none that is stronger
    await locks.hold(
        connection, [*taken, *(lock for _, comparison, _ in wanted for lock in comparison.locks)]
    )
    await hold_rows(connection, steps)
    found: Counter[Partition] = Counter()
    for partition, comparison, rows in wanted:
        found[partition] += await overwrite(connection, comparison, rows)
    return +found


async def compared(connection: Connection, steps: Sequence[Step]) -> list[tuple[Comparison, Rows]]:
    """The rows of ledgers that some plans stand for, of those handlers that can say so."""
    return [
        each
        for handler, plan in steps
        if isinstance(handler, ComparesRows)
        for each in await handler.comparisons(connection, plan)
    ]


class Begun(NamedTuple):
    """A replay that is written down; `resumed` where it had been begun before, and when."""

    id: int
    resumed: datetime | None


async def begin(
    connection: Connection,
    spec: Mapping[str, Any],
    cluster_id: str,
    *,
    restart: bool,
    tell: Callable[[str], None],
) -> Begun:
    """Go on with the unfinished replay of this specification whose process is gone; else begin one.

    Beside one that lives a second is begun: both write the same, and each fact counts once.
    """
    text = json.dumps({**spec, "cluster": cluster_id}, sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()
    if not restart and (found := await _unfinished(connection, digest, tell)):
        return found
    replay_id = await connection.fetchval(sql("start_replay"), digest, text, spec["mode"], cluster_id)
    return Begun(replay_id, None)


async def _unfinished(connection: Connection, digest: str, tell: Callable[[str], None]) -> Begun | None:
    """The one that was broken off and is ours from now on; waits to see whether its process still lives."""
    seen = await connection.fetchrow(sql("find_unfinished_replay"), digest, LEASE_S)
    if seen is None:
        return None
    if not seen["is_gone"]:
        tell("the same replay was under way just now: looking whether it still is")
    row = seen
    while not row["is_gone"]:
        await asyncio.sleep(TOUCH_S / 4)
        again = await connection.fetchrow(sql("find_unfinished_replay"), digest, LEASE_S)
        if again is None or (again["id"], again["touched_at"]) != (seen["id"], seen["touched_at"]):
            return None
        row = again
    resumed = await connection.fetchval(sql("resume_replay"), seen["id"], seen["touched_at"])
    return None if resumed is None else Begun(resumed, seen["started_at"])


@contextlib.asynccontextmanager
async def alive(pool: asyncpg.Pool, replay_id: int) -> AsyncIterator[None]:
    """Give signs of life; at the end say that there will be none, so that it can be gone on with at once.

    Not after a HaltingFailure: by then it may be another's, who is alive.
    """
    task = asyncio.create_task(_touch_forever(pool, replay_id))
    is_ours = True
    try:
        yield
    except HaltingFailure:
        is_ours = False
        raise
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        if is_ours:
            await _let_go(pool, replay_id)


async def _let_go(pool: asyncpg.Pool, replay_id: int) -> None:
    with contextlib.suppress(*UNREACHABLE, asyncpg.PostgresError):
        async with asyncio.timeout(1):
            await pool.execute(sql("let_go_of_replay"), replay_id)


async def _touch_forever(pool: asyncpg.Pool, replay_id: int) -> None:
    while True:
        with contextlib.suppress(*UNREACHABLE, asyncpg.PostgresError):
            await pool.execute(sql("touch_replay"), replay_id)
        await asyncio.sleep(TOUCH_S)
