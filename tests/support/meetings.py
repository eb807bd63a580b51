"""Two open transactions that meet: what one has written and not committed, the other cannot see."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import asyncpg

from support.waiting import eventually

Side = Callable[[asyncpg.Connection], Awaitable[object]]


async def waits_or_is_done(
    db: asyncpg.Connection, connection: asyncpg.Connection, meeting: asyncio.Task
) -> bool:
    waits = "SELECT wait_event_type = 'Lock' FROM pg_stat_activity WHERE pid = $1"
    return meeting.done() or bool(await db.fetchval(waits, connection.get_server_pid()))


async def meet(
    db: asyncpg.Connection, one: asyncpg.Connection, other: asyncpg.Connection, first: Side, second: Side
) -> bool:
    """The one has written and not committed yet, the other writes and commits; answers whether it had to wait."""
    opened = one.transaction()
    await opened.start()
    await first(one)

    async def whole() -> None:
        async with other.transaction():
            await second(other)

    meeting = asyncio.create_task(whole())
    await eventually(lambda: waits_or_is_done(db, other, meeting), deadline=10, every=0.001)
    waited = not meeting.done()
    await opened.commit()
    await meeting
    return waited
