"""Parked records: kept with their bytes, filtered, judged anew, dropped with a reason, and forgotten in time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

import asyncpg

from counterfoil.database.connection import Connection
from counterfoil.database.queries import sql
from counterfoil.errors import InvalidEvent
from counterfoil.events import Rules
from counterfoil.ingest.decoding import refusal
from counterfoil.ingest.records import (
    Malformed,
    StoredRecord,
    headers_from_json,
    headers_to_json,
    milliseconds_of,
    timestamp_of,
)
from counterfoil.ingest.routes import Decode

ERROR_LENGTH = 2_000

AT_ONCE = 500
"""Dead letters that are dropped or forgotten in one transaction."""

UNKNOWN_TOPIC = "unknown_topic"

KINDS_WITH_A_FIELD = frozenset({"invalid_field", "missing_field"})


class Chosen(NamedTuple):
    """Which open dead letters are meant: all that these leave, `kind` being the rule that was broken."""

    topic: str | None = None
    kind: str | None = None
    since: datetime | None = None
    until: datetime | None = None


class Waiting(NamedTuple):
    """How many dead letters are open, and the highest id among them."""

    letters: int
    last: int


class Verdict(NamedTuple):
    """What the rules of today make of a parked record: accepted, or refused and why."""

    accepted: bool
    kind: str = ""
    field: str = ""
    reason: str = ""

    def __str__(self) -> str:
        if self.accepted:
            return "accepted"
        return self.reason if self.kind == UNKNOWN_TOPIC else f"refused: {self.kind}: {self.reason}"


async def park(
    connection: Connection, cluster_id: str, malformed: Sequence[Malformed], *, copies: bool = False
) -> None:
    """Keep malformed records; the caller owns the transaction. With `copies` the relay will publish them as well."""
    await connection.execute(
        sql("park_records"),
        cluster_id,
        [m.record.topic for m in malformed],
        [m.record.partition for m in malformed],
        [m.record.offset for m in malformed],
        [m.record.key for m in malformed],
        [m.record.value for m in malformed],
        [headers_to_json(m.record.headers) for m in malformed],
        [timestamp_of(m.record.timestamp) for m in malformed],
        [m.kind for m in malformed],
        [m.reason[:ERROR_LENGTH] for m in malformed],
        copies,
    )


async def measure(connection: Connection, chosen: Chosen, after: int = 0) -> Waiting:
    """The open dead letters that are meant, of those whose id is above."""
    row = await connection.fetchrow(sql("measure_open_dead_letters"), *chosen, after)
    return Waiting(row["waiting"], row["last"]) if row else Waiting(0, 0)


async def next_ids(  # noqa: PLR0913, PLR0917 - a filter, a stretch of ids, and two bounds
    connection: Connection, chosen: Chosen, after: int, last: int, limit: int, size: int | None = None
) -> list[int]:
    """The next open ones that are meant, oldest first; after the first no more than so many bytes together."""
    rows = await connection.fetch(sql("next_open_dead_letters"), *chosen, after, last, limit)
    found, total = list[int](), 0
    for row in rows:
        total += row["bytes"]
        if found and size is not None and total > size:
            break
        found.append(row["id"])
    return found


def stored_record(row: asyncpg.Record) -> StoredRecord:
    """A parked record as it came."""
    return StoredRecord(
        topic=row["topic"],
        partition=row["partition"],
        offset=row["offset"],
        timestamp=milliseconds_of(row["record_timestamp"]),
        key=row["key"],
        value=row["value"],
        headers=headers_from_json(row["headers"]),
    )


def judge(record: StoredRecord, decoders: Mapping[str, Decode], rules: Rules) -> Verdict:
    """What the rules make of a record now; `decoders` is by topic name. What is counted already they do not know."""
    if record.topic not in decoders:
        return Verdict(False, UNKNOWN_TOPIC, "", f"no event type is read from the topic {record.topic}")
    try:
        decoders[record.topic](record.value, record.headers, record.timestamp, rules)
    except Exception as error:  # noqa: BLE001 - whatever a record does to its decoder, it is the record's
        kind, reason = refusal(error)
        return Verdict(False, kind, error.field if isinstance(error, InvalidEvent) else "", reason)
    return Verdict(True)


def field_of(kind: str, error: str) -> str:
    """The field that a stored error names, '' where its kind is of the whole record."""
    field, colon, _ = error.partition(": ")
    return field if kind in KINDS_WITH_A_FIELD and colon else ""


async def drop(connection: Connection, ids: Sequence[int], actor: str, because: str) -> list[int]:
    """Give up open dead letters for a reason; rows and bytes stay. Answers the ids of those that were still open."""
    dropped: list[int] = []
    for start in range(0, len(ids), AT_ONCE):
        part = list(ids[start : start + AT_ONCE])
        dropped += [
            row["id"] for row in await connection.fetch(sql("drop_dead_letters"), part, actor, because)
        ]
    return sorted(dropped)


async def forget_dead_letters(pool: asyncpg.Pool, days: int) -> int:
    """Delete those that were resolved so many days ago; answers how many. Open ones stay."""
    gone = 0
    async with pool.acquire() as connection:
        while count := await connection.fetchval(sql("forget_dead_letters"), days, AT_ONCE):
            gone += count
    return gone
