"""Workers come, go and die while records flow: the totals are exact, and nothing good is parked."""

from __future__ import annotations

import random

import asyncpg
import pytest

from support.factories import order_ids
from support.ledgers import account, assert_accounts_close, assert_exact, everything_is_read
from support.servers import StartWorker
from support.stream import Stream, Traffic
from support.waiting import eventually
from support.worker import Worker

pytestmark = pytest.mark.kafka

MOST = 4
"""Workers at once."""

COUNTED = "SELECT count(*) FROM affiliate_coupon_usages"


class Crew:
    """Some workers of one group, changed at random but repeatably."""

    def __init__(self, start: StartWorker, stream: Stream, seed: int) -> None:
        self._start = start
        self._stream = stream
        self._random = random.Random(seed)
        self.members: list[Worker] = []

    async def change(self) -> None:
        """Start one, kill one, or let one end; at least one is left."""
        choices = [self._join] if len(self.members) < MOST else []
        choices += [self._kill, self._leave] if len(self.members) > 1 else []
        await self._random.choice(choices)()

    async def _join(self) -> None:
        self.members.append(await self._start(self._stream.kafka, batch_max_records=100))

    async def _kill(self) -> None:
        self._taken().kill()

    async def _leave(self) -> None:
        assert await self._taken().terminate() == 0

    def _taken(self) -> Worker:
        return self.members.pop(self._random.randrange(len(self.members)))


async def storm(
    stream: Stream, db: asyncpg.Connection, start_worker: StartWorker, *, changes: int, records: int
) -> None:
    await stream.create(partitions=6)
    crew = Crew(start_worker, stream, seed=changes)
    async with Traffic(stream, order_ids(records), chunk=20) as traffic:
        for step in range(1, changes + 1):
            await crew.change()
            await traffic.reached(step * records // changes)
            await at_work(db, traffic)
    await everything_is_read(db, stream)

    await assert_exact(db, traffic.ids)
    found = await account(db, stream.placed)
    assert found.applied == records
    assert (found.dead, found.skipped) == (0, 0)
    await assert_accounts_close(db, stream)
    assert all(member.exit_code is None for member in crew.members)


async def at_work(db: asyncpg.Connection, traffic: Traffic) -> None:
    """Wait until the crew counts again after a change, or has nothing left to count."""
    seen = await db.fetchval(COUNTED)

    async def more_is_counted() -> bool:
        counted = await db.fetchval(COUNTED)
        return bool(counted > seen or counted >= len(traffic.ids))

    await eventually(more_is_counted, deadline=60)


async def test_a_rebalance_storm_counts_every_order_once(
    stream: Stream, db: asyncpg.Connection, start_worker: StartWorker
) -> None:
    await storm(stream, db, start_worker, changes=8, records=2_000)


@pytest.mark.slow
async def test_a_long_rebalance_storm_counts_every_order_once(
    stream: Stream, db: asyncpg.Connection, start_worker: StartWorker
) -> None:
    await storm(stream, db, start_worker, changes=60, records=30_000)
