"""What the short commands do; each opens what it needs, does its work, and returns plain values to print."""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, TypeVar

import asyncpg
from pydantic import SecretStr

from counterfoil.clicks.store import load_visitor_key
from counterfoil.database import counters, pool, verifications
from counterfoil.database import migrate as migrations
from counterfoil.database.connection import Connection
from counterfoil.database.forgotten import PREFIX
from counterfoil.database.queries import sql
from counterfoil.errors import (
    DependencyUnreachable,
    InvalidEvent,
    InvalidSetting,
    SchemaMismatch,
    TransientFailure,
)
from counterfoil.events import ALERT_DECODERS, EVENT_TYPES, Decode, DecodeAlert, Rules
from counterfoil.events.rules import identity
from counterfoil.explaining import explain as explain_in
from counterfoil.explaining.rows import Report, Span
from counterfoil.forgetting import Erasure, forget_customer, forget_visitor
from counterfoil.forgetting import Tell as TellErasing
from counterfoil.ingest.dead_letters import (
    Chosen,
    Verdict,
    Waiting,
    drop,
    field_of,
    judge,
    measure,
    next_ids,
    stored_record,
)
from counterfoil.ingest.records import milliseconds_of
from counterfoil.ingest.retry import (
    KnownRoutes,
    Retried,
    judge_chosen,
    judge_letters,
    retry_chosen,
    retry_dead_letter,
)
from counterfoil.inventory import low_stock
from counterfoil.kafka.cluster import Cluster
from counterfoil.partners import backfill
from counterfoil.publishing import Publisher
from counterfoil.routing import COUNTERS, routes_by_topic
from counterfoil.settings import Settings, masked_address

T = TypeVar("T")

IN_FLIGHT = 2_000
"""Records handed to the producer before their acknowledgements are awaited."""

KEY_SHOWN = 256
"""Bytes of a key in a list."""


def with_connection(
    settings: Settings, work: Callable[[Connection], Awaitable[T]], *, patient: bool = False
) -> T:
    """Run some work on one connection; raises DependencyUnreachable or SchemaMismatch in one line."""

    async def connected() -> T:
        connection = await pool.connect(settings, "command", patient=patient)
        try:
            return await work(connection)
        finally:
            await connection.close(timeout=5)

    try:
        return asyncio.run(connected())
    except asyncpg.UndefinedTableError as error:
        raise SchemaMismatch(f"{error}; run `counterfoil migrate` first") from error
    except asyncpg.DataError as error:
        if str(error).startswith("invalid input for query argument"):  # which never left this process
            raise InvalidSetting(f"not storable: {pool.one_line(error)}") from error
        raise DependencyUnreachable(f"PostgreSQL: {pool.one_line(error)}") from error
    except (*pool.UNREACHABLE, asyncpg.PostgresError) as error:
        raise DependencyUnreachable(f"PostgreSQL: {pool.one_line(error)}") from error


# Migrations


def migrate(settings: Settings, *, baseline: bool) -> list[str]:
    """Apply what is due with the migrator's address, or the worker's; answers the names."""
    address = pool.migrator_address(settings)
    try:
        return asyncio.run(migrations.migrate(address, settings.db_schema, baseline=baseline))
    except (*pool.UNREACHABLE, asyncpg.PostgresError) as error:
        raise DependencyUnreachable(
            f"PostgreSQL at {masked_address(address)}: {pool.one_line(error)}"
        ) from error


def migration_states(settings: Settings) -> list[migrations.MigrationState]:
    """Each migration and when it was applied."""
    return with_connection(settings, lambda c: migrations.migration_status(c, settings.db_schema))


# Publishing


def publish(settings: Settings, topic: str, file: Path | None, *, dry_run: bool) -> dict[str, Any]:
    """Check every line, then publish them all; nothing is published when one is invalid."""
    by_name = {name: name for name in settings.topics} | {
        topic: name for name, topic in settings.topics.items()
    }
    if topic not in by_name:
        raise InvalidSetting(f"{topic}: no such topic; takes one of {', '.join(settings.topics)}")
    name = by_name[topic]
    with _lines(file) as lines:
        checked = list(_check(lines, name, settings))
        invalid = [{"line": number, "error": error} for number, _, error in checked if error]
        count = len(checked) - len(invalid)
        if not invalid and not dry_run:
            lines.seek(0)
            asyncio.run(_publish(settings, name, lines, [key for _, key, _ in checked]))
    published = 0 if invalid and not dry_run else count
    return {"topic": settings.topics[name], "published": published, "invalid": invalid, "dry_run": dry_run}


@contextmanager
def _lines(file: Path | None) -> Iterator[IO[bytes]]:
    """A file, or standard input kept in one, to be read twice."""
    if file is not None and str(file) != "-":
        try:
            opened = file.open("rb")
        except OSError as error:
            raise InvalidSetting(f"{file}: {error.strerror}") from None
        with opened:
            yield opened
        return
    with tempfile.SpooledTemporaryFile(max_size=16 * 1024 * 1024) as spooled:
        if sys.stdin is None:
            raise InvalidSetting("standard input is closed; name a file")
        for line in sys.stdin.buffer:
            spooled.write(line)
        spooled.seek(0)
        yield spooled


def _check(lines: Iterable[bytes], name: str, settings: Settings) -> Iterator[tuple[int, str, str]]:
    """(line number, key, what is wrong with it or '') of every line that is not blank."""
    rules = Rules.of(settings)
    decode = EVENT_TYPES[name].decode
    now = milliseconds_of(datetime.now(UTC))
    for number, line in enumerate(lines, start=1):
        value = line.strip()
        if value:
            try:
                yield number, decode(value, (), now, rules).key, ""
            except InvalidEvent as error:
                yield number, "", str(error)


async def _publish(settings: Settings, name: str, lines: Iterable[bytes], keys: list[str]) -> None:
    cluster = Cluster(settings)
    try:
        await cluster.create_topics([settings.topics[name]], settings.topic_partitions)
    finally:
        await cluster.close()
    headers = [("content-type", b"application/json")]
    async with Publisher(settings) as publisher:
        in_flight: list[asyncio.Future[Any]] = []
        values = (value for line in lines if (value := line.strip()))
        for value, key in zip(values, keys, strict=True):
            in_flight.append(await publisher.enqueue(name, key, value, headers))
            if len(in_flight) >= IN_FLIGHT:
                await publisher.acknowledge(in_flight)
                in_flight.clear()
        await publisher.acknowledge(in_flight)


# Verifying


def verify(settings: Settings, *, with_repair: bool, tell: counters.Tell = counters.nobody) -> dict[str, Any]:
    """Recount every counter in one snapshot; with repair, put right what drifted and look again."""

    async def work(connection: Connection) -> dict[str, Any]:
        found = left = await counters.verify(connection, COUNTERS, tell)
        repaired = await counters.repair(connection, COUNTERS, found.drift) if with_repair else 0
        if repaired:
            left = await counters.verify(connection, COUNTERS, tell)
        if with_repair:
            async with connection.transaction():  # so that the metric and the pages know at once
                await verifications.keep(connection, left)
        remaining = set(left.drift)
        return {
            "snapshot_at": found.snapshot_at,
            "seconds": round(found.seconds, 3),
            "checked": {table: checked.rows for table, checked in found.tables.items()},
            "drifted": {table: checked.drifted for table, checked in found.tables.items()},
            "drift": [asdict(drift) for drift in found.drift],
            "repaired": repaired,
            "repairs": [asdict(drift) for drift in found.drift if repaired and drift not in remaining],
            "left": [asdict(drift) for drift in left.drift],
            "clean": not left.drifted,
        }

    return with_connection(settings, work, patient=True)


# Explaining


def explain(  # noqa: PLR0913 - one argument a choice
    settings: Settings, kind: str, key: str, *, limit: int = 50, days: int = 30, at: datetime | None = None
) -> Report | None:
    """Every row behind the numbers of one order, code, affiliate and the like; None where nothing is known of it."""

    async def work(connection: Connection) -> Report | None:
        return await explain_in(connection, kind, key, Rules.of(settings), Span(limit, days, at))

    return with_connection(settings, work, patient=True)


# Stock


def scan_stock(settings: Settings) -> dict[str, Any]:
    """Look for low stock once; what is low, how much is in all, and how many alerts were raised."""

    async def work(connection: Connection) -> dict[str, Any]:
        async with await pool.create_pool(settings, "command", 1) as scanning:
            raised = await low_stock.scan(scanning, settings)
        found = await low_stock.find_low_stock(connection)
        return {
            "low": found.in_all,
            "raised": raised,
            "products": [product._asdict() for product in found.products],
        }

    return with_connection(settings, work)


# Forgetting


def forget(settings: Settings, kind: str, named: str, *, dry_run: bool, tell: TellErasing) -> Erasure:
    """Erase a `customer` or `visitor`, with the migrator's address, or the worker's.

    Raises InvalidSetting for an id that is none, and where the role may not erase.
    """
    owner = settings.model_copy(update={"database_url": SecretStr(pool.migrator_address(settings))})
    known = _known_id(named)

    async def work(connection: Connection) -> Erasure:
        if kind == "customer":
            topic = settings.topics["user.created"]
            return await forget_customer(connection, known, user_topic=topic, dry_run=dry_run, tell=tell)
        topic = settings.topics["click"]
        return await forget_visitor(connection, known, click_topic=topic, dry_run=dry_run, tell=tell)

    try:
        return with_connection(owner, work, patient=True)
    except DependencyUnreachable as error:
        if isinstance(error.__cause__, asyncpg.InsufficientPrivilegeError):
            raise InvalidSetting(
                "COUNTERFOIL_MIGRATE_DATABASE_URL: takes the address of the tables' owner, who alone erases"
            ) from error
        raise


def _known_id(named: str) -> str:
    """The id as the road knows it: trimmed and normalised."""
    try:
        found = identity(named, "id", lambda _field: None)
    except InvalidEvent as error:
        raise InvalidSetting(f"this is no id: {error}") from error
    if found is None:
        raise InvalidSetting("an empty id is none")
    if found.startswith(PREFIX):
        raise InvalidSetting("this is the pseudonym of a person who is forgotten")
    return found


# Partners


def backfill_partners(settings: Settings, *, dry_run: bool, tell: backfill.Tell) -> backfill.Report:
    """Give users, links and commissions their partners, with the migrator's address, or the worker's."""
    owner = settings.model_copy(update={"database_url": SecretStr(pool.migrator_address(settings))})

    async def work(connection: Connection) -> backfill.Report:
        return await backfill.backfill_partners(connection, dry_run=dry_run, tell=tell)

    return with_connection(owner, work, patient=True)


# Dead letters


def list_dead_letters(
    settings: Settings, chosen: Chosen, *, resolved: bool, limit: int, offset: int
) -> list[dict[str, Any]]:
    """Parked records, newest first, without their values, and of a long key its head."""

    async def work(connection: Connection) -> list[dict[str, Any]]:
        rows = await connection.fetch(
            sql("list_dead_letters_in_short"), *chosen, resolved, limit, offset, KEY_SHOWN
        )
        return [_in_short(row) for row in rows]

    return with_connection(settings, work)


def _in_short(row: asyncpg.Record) -> dict[str, Any]:
    is_cut = row["key"] is not None and len(row["key"]) < row["key_bytes"]
    key = _readable(row["key"])
    return dict(row) | {"key": f"{key}…" if is_cut else key, "key_is_cut": is_cut}


def show_dead_letter(settings: Settings, letter_id: int) -> tuple[dict[str, Any], bytes | None] | None:
    """One parked record, with its bytes as text and in hexadecimal and what the rules make of it now; and its value."""

    async def work(connection: Connection) -> tuple[dict[str, Any], bytes | None] | None:
        row = await connection.fetchrow(sql("show_dead_letter"), letter_id)
        if row is None:
            return None
        value: bytes | None = row["value"]
        verdict = judge(stored_record(row), _decoders(settings), Rules.of(settings))
        shown = dict(row) | {
            "key": _readable(row["key"]),
            "value": _readable(value),
            "value_hex": None if value is None else value.hex(" "),
            "headers": json.loads(row["headers"]),
            "field": field_of(row["error_kind"], row["error"]),
            "now": str(verdict),
            "verdict": verdict._asdict(),
        }
        return shown, value

    return with_connection(settings, work)


def retry_dead_letters(
    settings: Settings,
    *,
    ids: list[int] | None,
    chosen: Chosen,
    done: list[Retried],
    tell: counters.Tell = counters.nobody,
) -> None:
    """Send parked records down the road again; `done` grows with each batch that is committed, whatever comes then."""

    async def work(connection: Connection) -> None:
        known = routes_by_topic(settings, await load_visitor_key(connection, settings))
        waiting = Waiting(len(ids), 0) if ids else await measure(connection, chosen)
        batches = _in_turn(connection, ids, known) if ids else _open_ones(connection, chosen, known, waiting)
        tell("dead letters", 0, waiting.letters)
        async for batch in batches:
            done.extend(batch)
            tell("dead letters", len(done), waiting.letters)

    try:
        with_connection(settings, work)
    except TransientFailure as error:
        raise DependencyUnreachable(f"PostgreSQL: {error}") from error


async def _in_turn(
    connection: Connection, ids: list[int], known: KnownRoutes
) -> AsyncIterator[list[Retried]]:
    """Those that were named, in that order."""
    for letter_id in dict.fromkeys(ids):
        yield [await retry_dead_letter(connection, letter_id, known)]


def _open_ones(
    connection: Connection, chosen: Chosen, known: KnownRoutes, waiting: Waiting
) -> AsyncIterator[list[Retried]]:
    return retry_chosen(connection, chosen, known, after=0, last=waiting.last)


def judge_dead_letters(
    settings: Settings,
    *,
    ids: list[int] | None,
    chosen: Chosen,
    tell: counters.Tell = counters.nobody,
) -> list[dict[str, Any]]:
    """What the rules of today make of parked records; nothing is changed."""
    decoders, rules = _decoders(settings), Rules.of(settings)

    async def work(connection: Connection) -> list[dict[str, Any]]:
        found: list[tuple[int, Verdict]] = []
        if ids:
            known = dict(await judge_letters(connection, ids, decoders, rules))
            found = [(key, known.get(key, NOT_OPEN)) for key in dict.fromkeys(ids)]
        else:
            waiting = await measure(connection, chosen)
            async for batch in judge_chosen(connection, chosen, decoders, rules, waiting.last):
                found += batch
                tell("dead letters", len(found), waiting.letters)
        return [{"id": key, "outcome": _would_be(verdict), "reason": _why(verdict)} for key, verdict in found]

    return with_connection(settings, work)


NOT_OPEN = Verdict(False, "gone", "", "resolved already, or no such record")


def _would_be(verdict: Verdict) -> str:
    if verdict.kind == NOT_OPEN.kind:
        return "gone"
    return "accepted" if verdict.accepted else "refused"


def _why(verdict: Verdict) -> str:
    return verdict.reason if verdict.accepted or verdict is NOT_OPEN else f"{verdict.kind}: {verdict.reason}"


def drop_dead_letters(  # noqa: PLR0913 - who, why, and which
    settings: Settings,
    *,
    ids: list[int] | None,
    chosen: Chosen,
    actor: str,
    because: str,
    dry_run: bool,
) -> dict[str, Any]:
    """Give up parked records for a reason; rows and bytes stay. Answers those that were dropped, and those not open."""

    async def work(connection: Connection) -> dict[str, Any]:
        wanted = list(dict.fromkeys(ids or ())) or await _every_open(connection, chosen)
        if dry_run:
            dropped = [row["id"] for row in await connection.fetch(sql("open_among_dead_letters"), wanted)]
        else:
            dropped = await drop(connection, wanted, actor, because)
        not_open = sorted(set(wanted) - set(dropped)) if ids else []
        return {"dropped": dropped, "not_open": not_open, "dry_run": dry_run, "because": because, "by": actor}

    return with_connection(settings, work)


async def _every_open(connection: Connection, chosen: Chosen) -> list[int]:
    last = (await measure(connection, chosen)).last
    found: list[int] = []
    while ids := await next_ids(connection, chosen, found[-1] if found else 0, last, IN_FLIGHT):
        found += ids
    return found


def _decoders(settings: Settings) -> dict[str, Decode | DecodeAlert]:
    return {
        **{settings.topics[name]: event_type.decode for name, event_type in EVENT_TYPES.items()},
        **{settings.outgoing_topics[name]: decode for name, decode in ALERT_DECODERS.items()},
    }


def _readable(value: bytes | None) -> str | None:
    return None if value is None else value.decode("utf-8", "backslashreplace")


def utc(time: datetime | None) -> datetime | None:
    """A time of the command line, where none is named in UTC."""
    return time.replace(tzinfo=UTC) if time is not None and time.tzinfo is None else time
