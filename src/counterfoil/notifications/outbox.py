"""The outbox: rows that were written with their cause, in its transaction, and leave once Kafka has their records."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import NamedTuple

import asyncpg

from counterfoil.database.connection import Connection
from counterfoil.database.queries import sql


class OutboxRow(NamedTuple):
    """A record to be published; `topic` is the default name."""

    id: int
    topic: str
    key: str
    value: bytes
    headers: list[tuple[str, bytes]]


class Backlog(NamedTuple):
    """How many rows wait, and how long the oldest has, in seconds."""

    rows: int
    oldest_s: float


async def find_channel(connection: Connection) -> str:
    """Where new rows are announced by NOTIFY; another for each schema."""
    return str(await connection.fetchval(sql("outbox_channel")))


async def hold_outbox(connection: Connection) -> bool:
    """Whether the caller is the one relay, until its transaction ends."""
    return bool(await connection.fetchval(sql("hold_outbox")))


async def next_rows(connection: Connection, topics: Collection[str], limit: int) -> list[OutboxRow]:
    """The rows to be published next, in order, of each topic at most `limit`; the caller holds the outbox."""
    return [_row(found) for found in await connection.fetch(sql("next_outbox_rows"), list(topics), limit)]


async def delete_rows(connection: Connection, ids: Collection[int]) -> None:
    """Let go of rows whose records Kafka has; the caller's transaction has held the outbox since it read them."""
    await connection.execute(sql("delete_outbox_rows"), list(ids))


async def measure(connection: Connection) -> Backlog:
    """What waits, of every topic."""
    found = await connection.fetchrow(sql("measure_outbox"))
    assert found is not None  # noqa: S101 - a count has a row
    return Backlog(found["waiting"], found["oldest_s"])


def _row(found: asyncpg.Record) -> OutboxRow:
    headers = [(name, str(value).encode()) for name, value in json.loads(found["headers"]).items()]
    return OutboxRow(found["id"], found["topic"], found["key"], found["value"].encode(), headers)
