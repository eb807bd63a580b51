"""Sends parked records down the road again: the same decoding and the same ledgers, some in a transaction."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import asyncpg

from counterfoil.database.connection import Connection
from counterfoil.database.facts import Facts
from counterfoil.database.forgotten import Forgotten
from counterfoil.database.queries import sql
from counterfoil.errors import InvalidEvent, PoisonRecord, TransientFailure
from counterfoil.events import Rules
from counterfoil.ingest.dead_letters import (
    ERROR_LENGTH,
    UNKNOWN_TOPIC,
    Chosen,
    Verdict,
    judge,
    next_ids,
    stored_record,
)
from counterfoil.ingest.decoding import refusal
from counterfoil.ingest.failures import classify
from counterfoil.ingest.partitions import Partition
from counterfoil.ingest.positions import find_or_create_source
from counterfoil.ingest.records import StoredRecord, origin_of
from counterfoil.ingest.routes import Decode, Route
from counterfoil.ingest.writer import Step, hold_locks, hold_rows, plan_events, write_steps

AT_ONCE = 200
BYTES_AT_ONCE = 4 * 1024 * 1024
"""Dead letters of one transaction, at most; a single one may be larger."""

ATTEMPTS = 3

KnownRoutes = Mapping[str, tuple[Route, Rules]]
"""Topic → its event type with the rules, in the order of writing."""


@dataclass(frozen=True, slots=True)
class Retried:
    """What became of a parked record: `applied`, `duplicate`, `refused` again, or `gone` when another was first."""

    id: int
    outcome: str
    reason: str = ""


class _Claimed(NamedTuple):
    """A parked record that is held, and what it says."""

    id: int
    cluster_id: str
    record: StoredRecord
    event: object


async def retry_dead_letter(connection: Connection, letter_id: int, routes: KnownRoutes) -> Retried:
    """Try one parked record again; `routes` is by topic name.

    Raises TransientFailure or HaltingFailure when the database cannot tell.
    """
    try:
        [retried] = await _retry_together(connection, [letter_id], routes)
    except Exception as error:  # noqa: BLE001 - raised again unless it is the record's
        kind, reason = _refusal(error)
        await connection.execute(sql("refuse_dead_letter"), letter_id, kind, reason[:ERROR_LENGTH])
        return Retried(letter_id, "refused", reason)
    return retried


async def retry_dead_letters(
    connection: Connection, ids: Sequence[int], routes: KnownRoutes
) -> list[Retried]:
    """Try some in one transaction; where the database refuses what one of them says, each in its own."""
    try:
        return await _retry_together(connection, ids, routes)
    except Exception as error:  # noqa: BLE001 - raised again unless it is the record's
        _refusal(error)
    return [await retry_dead_letter(connection, letter_id, routes) for letter_id in ids]


async def retry_chosen(  # noqa: PLR0913 - a filter, and where to begin and to end
    connection: Connection,
    chosen: Chosen,
    routes: KnownRoutes,
    *,
    after: int,
    last: int,
    limit: int | None = None,
    at_once: int = AT_ONCE,
) -> AsyncIterator[list[Retried]]:
    """Try every open one that is meant, oldest first, batch by batch; each batch is committed when it is answered.

    Of two who do this at once each takes what the other has not: a record is held while it is tried.
    """
    left = limit
    while left is None or left > 0:
        size = at_once if left is None else min(at_once, left)
        ids = await next_ids(connection, chosen, after, last, size, BYTES_AT_ONCE)
        if not ids:
            return
        yield await _retry_patiently(connection, ids, routes)
        after, left = ids[-1], None if left is None else left - len(ids)


async def _retry_patiently(connection: Connection, ids: Sequence[int], routes: KnownRoutes) -> list[Retried]:
    """Once more after a deadlock and the like, of which nothing is left; not where the connection is gone."""
    for _ in range(ATTEMPTS - 1):
        try:
            return await retry_dead_letters(connection, ids, routes)
        except TransientFailure:
            if connection.is_closed():
                raise
    return await retry_dead_letters(connection, ids, routes)


async def judge_chosen(
    connection: Connection, chosen: Chosen, decoders: Mapping[str, Decode], rules: Rules, last: int
) -> AsyncIterator[list[tuple[int, Verdict]]]:
    """What the rules make of every open one that is meant, oldest first, batch by batch; nothing is changed."""
    after = 0
    while ids := await next_ids(connection, chosen, after, last, AT_ONCE, BYTES_AT_ONCE):
        yield await judge_letters(connection, ids, decoders, rules)
        after = ids[-1]


async def judge_letters(
    connection: Connection, ids: Sequence[int], decoders: Mapping[str, Decode], rules: Rules
) -> list[tuple[int, Verdict]]:
    """What the rules make of some open ones; those that are not open are left out."""
    rows = await connection.fetch(sql("read_dead_letters"), list(ids))
    return [(row["id"], judge(stored_record(row), decoders, rules)) for row in rows]


def _refusal(error: Exception) -> tuple[str, str]:
    """Kind and reason where the record is to blame; else raises what the error asks for."""
    if isinstance(error, InvalidEvent):
        return error.kind, str(error)
    failure = classify(error)
    if isinstance(failure, PoisonRecord):
        return failure.kind, str(failure)
    raise failure from error


async def _retry_together(connection: Connection, ids: Sequence[int], routes: KnownRoutes) -> list[Retried]:
    forgotten = Forgotten()
    async with connection.transaction():
        await forgotten.hold(connection)  # before any record is held, as by who forgets a person
        rows = await connection.fetch(sql("claim_dead_letters"), list(ids))
        found = {row["id"]: Retried(row["id"], "applied") for row in rows}
        claimed: dict[str, list[_Claimed]] = {topic: [] for topic in routes}
        refused: list[tuple[int, str, str]] = []
        for row in rows:
            try:
                claimed_one = _read(row, routes)
            except InvalidEvent as error:
                refused.append((row["id"], error.kind, str(error)[:ERROR_LENGTH]))
            else:
                claimed[claimed_one.record.topic].append(claimed_one)
        outcomes = await _write(connection, claimed, routes, forgotten)
        await _note(connection, outcomes, refused)
        found |= {letter_id: Retried(letter_id, outcome) for letter_id, outcome in outcomes.items()}
        found |= {letter_id: Retried(letter_id, "refused", reason) for letter_id, _, reason in refused}
    gone = "resolved already, or no such record"
    return [found.get(letter_id, Retried(letter_id, "gone", gone)) for letter_id in ids]


def _read(row: asyncpg.Record, routes: KnownRoutes) -> _Claimed:
    """What a parked record says, under the same reading of a decoder's errors as on the road; raises InvalidEvent."""
    record = stored_record(row)
    if record.topic not in routes:
        raise InvalidEvent(UNKNOWN_TOPIC, "", f"no event type is read from the topic {record.topic}")
    route, rules = routes[record.topic]
    try:
        event = route.decode(record.value, record.headers, record.timestamp, rules)
    except Exception as error:
        kind, reason = refusal(error)
        raise InvalidEvent(kind, "", reason) from error
    return _Claimed(row["id"], row["cluster_id"], record, event)


async def _write(
    connection: Connection,
    claimed: Mapping[str, Sequence[_Claimed]],
    routes: KnownRoutes,
    forgotten: Forgotten,
) -> dict[int, str]:
    """Let the slices write, as on the road; id → applied or duplicate."""
    planned: list[tuple[Sequence[_Claimed], list[Step]]] = []
    for topic, letters in claimed.items():
        if letters:
            facts = await _facts(connection, letters)
            planned.append((letters, await plan_events(routes[topic][0], facts, forgotten)))
    steps = [step for _, of_topic in planned for step in of_topic]
    await hold_locks(connection, steps)
    await hold_rows(connection, steps)
    outcomes: dict[int, str] = {}
    for letters, of_topic in planned:
        written = await write_steps(connection, of_topic)
        for index, letter in enumerate(letters):
            outcomes[letter.id] = "duplicate" if index in written.unchanged else "applied"
    return outcomes


async def _facts(connection: Connection, letters: Sequence[_Claimed]) -> Facts[Any]:
    sources: dict[tuple[str, Partition], int] = {}
    facts: Facts[Any] = Facts(
        origin=lambda index: origin_of(letters[index].cluster_id, letters[index].record)
    )
    for letter in letters:
        place = letter.cluster_id, Partition(letter.record.topic, letter.record.partition)
        if place not in sources:
            sources[place] = await find_or_create_source(connection, *place)
        facts.events.append(letter.event)
        facts.source_ids.append(sources[place])
        facts.offsets.append(letter.record.offset)
    return facts


async def _note(
    connection: Connection, outcomes: Mapping[int, str], refused: Sequence[tuple[int, str, str]]
) -> None:
    if outcomes:
        await connection.execute(sql("resolve_dead_letters"), list(outcomes), list(outcomes.values()))
    if refused:
        ids, kinds, errors = zip(*refused, strict=True)
        await connection.execute(sql("refuse_dead_letters"), ids, kinds, errors)
