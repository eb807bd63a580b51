"""What the database says: ledgers, counters, accounts and dead letters, read and compared."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import asyncpg

from support.stream import Stream
from support.waiting import eventually


@dataclass(frozen=True)
class Account:
    """What became of a topic's records; `read` is how far its positions have moved, all of them together."""

    read: int
    applied: int
    duplicates: int
    dead: int
    skipped: int

    @property
    def closes(self) -> bool:
        """Whether every offset ended in exactly one place."""
        return self.read == self.applied + self.duplicates + self.dead + self.skipped


async def account(db: asyncpg.Connection, topic: str, table: str = "stream_positions") -> Account:
    """The account of a topic, over its partitions."""
    row = await db.fetchrow(
        f"""SELECT coalesce(sum(next_offset - first_offset), 0)::bigint AS read,
                   coalesce(sum(applied), 0)::bigint AS applied, coalesce(sum(duplicates), 0)::bigint AS duplicates,
                   coalesce(sum(dead), 0)::bigint AS dead, coalesce(sum(skipped), 0)::bigint AS skipped
            FROM {table} WHERE topic = $1""",
        topic,
    )
    return Account(**dict(row))


async def positions(db: asyncpg.Connection, group: str | None = None) -> dict[tuple[str, int], int]:
    """The stored position of each partition: a group's, or that of the group that is furthest."""
    rows = await db.fetch(
        """SELECT topic, "partition", max(next_offset) AS next_offset FROM stream_positions
           WHERE consumer_group = $1 OR $1 IS NULL GROUP BY 1, 2""",
        group,
    )
    return {(row["topic"], row["partition"]): row["next_offset"] for row in rows}


async def everything_is_read(
    db: asyncpg.Connection, stream: Stream, *, group: str | None = None, deadline: float = 60.0
) -> None:
    """Wait until the stored positions have reached the end of what was published."""
    stored: dict[tuple[str, int], int] = {}

    async def reached() -> bool:
        stored.update(await positions(db, group))
        return all(stored.get(place, 0) >= end for place, end in stream.ends.items())

    try:
        await eventually(reached, deadline=deadline, every=0.05)
    except AssertionError:
        raise AssertionError(f"not read within {deadline:g} s: {stored} is not {stream.ends}") from None


async def counted(db: asyncpg.Connection) -> dict[str, int]:
    """The coupon counters."""
    return dict(await db.fetch("SELECT code, times_used FROM affiliate_coupons"))


async def usages(db: asyncpg.Connection) -> list[tuple[str, str]]:
    """The coupon usages that stand: (order id, code)."""
    rows = await db.fetch("SELECT order_id, code FROM affiliate_coupon_usages WHERE reversed_at IS NULL")
    return sorted((row["order_id"], row["code"]) for row in rows)


async def dead_letters(db: asyncpg.Connection) -> list[asyncpg.Record]:
    """Everything that was parked, in order."""
    return await db.fetch('SELECT * FROM dead_letters ORDER BY topic, "partition", "offset"')


async def assert_exact(
    db: asyncpg.Connection, order_ids: Iterable[str], codes: Iterable[str] = ("SPRING",)
) -> None:
    """Each of these orders counts exactly once for each code, nothing else does, and nothing was parked."""
    codes = list(codes)
    expected = sorted((order_id, code) for order_id in order_ids for code in codes)
    found = await usages(db)
    assert len(found) == len(expected)
    assert found == expected
    assert await counted(db) == dict(Counter(code for _, code in expected))
    assert await dead_letters(db) == []


async def assert_accounts_close(db: asyncpg.Connection, stream: Stream) -> None:
    """Every offset that was read is in exactly one column, and the columns agree with the dead letters."""
    for topic in stream.topics:
        found = await account(db, topic)
        assert found.closes, found
        parked = await db.fetchval("SELECT count(*) FROM dead_letters WHERE topic = $1", topic)
        assert found.dead == parked


async def blocked_backends(db: asyncpg.Connection, who: str = "worker") -> list[int]:
    """The process ids of the backends in which a worker waits for a lock, those that wait longest first."""
    await db.execute("SELECT pg_stat_clear_snapshot()")  # a transaction would see the same activity for ever
    rows = await db.fetch(
        """SELECT pid FROM pg_stat_activity
           WHERE datname = current_database() AND application_name = 'counterfoil ' || $1 AND wait_event_type = 'Lock'
           ORDER BY query_start""",
        who,
    )
    return [row["pid"] for row in rows]


async def blocked_backend(db: asyncpg.Connection, deadline: float = 30.0, who: str = "worker") -> int:
    """Wait until a worker waits for a lock inside its transaction; the process id of its backend."""
    return (await eventually(lambda: blocked_backends(db, who), deadline=deadline))[0]
