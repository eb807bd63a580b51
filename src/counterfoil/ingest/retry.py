"""Sends parked records down the road again: the same decoding and the same ledgers, in one transaction each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import asyncpg

from counterfoil.database.connection import Connection
from counterfoil.database.facts import Facts
from counterfoil.database.queries import sql
from counterfoil.errors import InvalidEvent, PoisonRecord
from counterfoil.events import Rules
from counterfoil.ingest.decoding import refusal
from counterfoil.ingest.failures import classify
from counterfoil.ingest.partitions import Partition
from counterfoil.ingest.positions import find_or_create_source
from counterfoil.ingest.records import StoredRecord, headers_from_json, milliseconds_of, origin_of
from counterfoil.ingest.routes import Route
from counterfoil.ingest.writer import hold_locks, plan_events, write_steps


@dataclass(frozen=True, slots=True)
class Retried:
    """What became of a parked record: `applied`, `duplicate`, `refused` again, or `gone` when another was first."""

    id: int
    outcome: str
    reason: str = ""


async def retry_dead_letter(
    connection: Connection, letter_id: int, routes: Mapping[str, tuple[Route, Rules]]
) -> Retried:
    """Try one parked record again; `routes` is by topic name.

    Raises TransientFailure or HaltingFailure when the database cannot tell.
    """
    try:
        return await _retry(connection, letter_id, routes)
    except InvalidEvent as error:
        return await _refuse(connection, letter_id, error.kind, str(error))
    except Exception as error:
        failure = classify(error)
        if isinstance(failure, PoisonRecord):
            return await _refuse(connection, letter_id, failure.kind, str(failure))
        raise failure from error


async def _retry(
    connection: Connection, letter_id: int, routes: Mapping[str, tuple[Route, Rules]]
) -> Retried:
    async with connection.transaction():
        row = await connection.fetchrow(sql("claim_dead_letter"), letter_id)
        if row is None:
            return Retried(letter_id, "gone", "resolved already, or no such record")
        record = _record(row)
        if record.topic not in routes:
            raise InvalidEvent("unknown_topic", "", f"no event type is read from the topic {record.topic}")
        route, rules = routes[record.topic]
        event = _decoded(route, rules, record)
        partition = Partition(record.topic, record.partition)
        source_id = await find_or_create_source(connection, row["cluster_id"], partition)
        origin = origin_of(row["cluster_id"], record)
        facts = Facts([event], [source_id], [record.offset], lambda _: origin)
        steps = await plan_events(route, facts)
        await hold_locks(connection, steps)
        written = await write_steps(connection, steps)
        outcome = "duplicate" if written.unchanged else "applied"
        await connection.execute(sql("resolve_dead_letter"), letter_id, outcome)
        return Retried(letter_id, outcome)


def _decoded(route: Route, rules: Rules, record: StoredRecord) -> object:
    """The event, under the same reading of a decoder's errors as on the road."""
    try:
        return route.decode(record.value, record.headers, record.timestamp, rules)
    except Exception as error:
        kind, reason = refusal(error)
        raise InvalidEvent(kind, "", reason) from error


async def _refuse(connection: Connection, letter_id: int, kind: str, reason: str) -> Retried:
    await connection.execute(sql("refuse_dead_letter"), letter_id, kind, reason)
    return Retried(letter_id, "refused", reason)


def _record(row: asyncpg.Record) -> StoredRecord:
    return StoredRecord(
        topic=row["topic"],
        partition=row["partition"],
        offset=row["offset"],
        timestamp=milliseconds_of(row["record_timestamp"]),
        key=row["key"],
        value=row["value"],
        headers=headers_from_json(row["headers"]),
    )
