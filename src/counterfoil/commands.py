"""What the short commands do; each opens what it needs, does its work, and returns plain values to print."""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, TypeVar

import asyncpg
from pydantic import SecretStr

from counterfoil.clicks.store import load_visitor_key
from counterfoil.database import counters, pool
from counterfoil.database import migrate as migrations
from counterfoil.database.connection import Connection
from counterfoil.database.queries import sql
from counterfoil.errors import DependencyUnreachable, InvalidEvent, InvalidSetting, SchemaMismatch
from counterfoil.events import ALERT_DECODERS, EVENT_TYPES, Decode, DecodeAlert, Rules
from counterfoil.explaining import explain as explain_in
from counterfoil.explaining.rows import Report, Span
from counterfoil.ingest.records import headers_from_json, milliseconds_of
from counterfoil.ingest.retry import Retried, retry_dead_letter
from counterfoil.inventory import low_stock
from counterfoil.kafka.cluster import Cluster
from counterfoil.partners import backfill
from counterfoil.publishing import Publisher
from counterfoil.routing import COUNTERS, routes_by_topic
from counterfoil.settings import Settings, masked_address

T = TypeVar("T")

IN_FLIGHT = 2_000
"""Records handed to the producer before their acknowledgements are awaited."""


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


def verify(settings: Settings, *, with_repair: bool) -> dict[str, Any]:
    """Recount every counter; with repair, put right what drifted and look again."""

    async def work(connection: Connection) -> dict[str, Any]:
        checked = await counters.count_rows(connection, COUNTERS)
        drift = await counters.find_drift(connection, COUNTERS)
        repaired = await counters.repair(connection, COUNTERS, drift) if with_repair else 0
        left = await counters.find_drift(connection, COUNTERS) if repaired else drift
        return {
            "checked": checked,
            "drift": [asdict(d) for d in drift],
            "repaired": repaired,
            "clean": not left,
        }

    return with_connection(settings, work, patient=True)


# Explaining


def explain(settings: Settings, kind: str, key: str, *, limit: int = 50, days: int = 30) -> Report | None:
    """Every row behind the numbers of one order, code, affiliate and the like; None where nothing is known of it."""

    async def work(connection: Connection) -> Report | None:
        return await explain_in(connection, kind, key, Rules.of(settings), Span(limit, days))

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


# Partners


def backfill_partners(settings: Settings, *, dry_run: bool, tell: backfill.Tell) -> backfill.Report:
    """Give users, links and commissions their partners, with the migrator's address, or the worker's."""
    owner = settings.model_copy(update={"database_url": SecretStr(pool.migrator_address(settings))})

    async def work(connection: Connection) -> backfill.Report:
        return await backfill.backfill_partners(connection, dry_run=dry_run, tell=tell)

    return with_connection(owner, work, patient=True)


# Dead letters


def list_dead_letters(  # noqa: PLR0913 - one argument a filter
    settings: Settings,
    *,
    topic: str | None,
    kind: str | None,
    since: datetime | None,
    resolved: bool,
    limit: int,
    offset: int,
) -> list[dict[str, Any]]:
    """Parked records, newest first, without their bytes."""

    async def work(connection: Connection) -> list[dict[str, Any]]:
        rows = await connection.fetch(
            sql("list_dead_letters"), topic, kind, _utc(since), resolved, limit, offset
        )
        return [dict(row) | {"key": _readable(row["key"])} for row in rows]

    return with_connection(settings, work)


def show_dead_letter(settings: Settings, letter_id: int) -> dict[str, Any] | None:
    """One parked record: its bytes as text and in hexadecimal, and what the rules make of it now."""

    async def work(connection: Connection) -> dict[str, Any] | None:
        row = await connection.fetchrow(sql("show_dead_letter"), letter_id)
        if row is None:
            return None
        value: bytes | None = row["value"]
        return dict(row) | {
            "key": _readable(row["key"]),
            "value": _readable(value),
            "value_hex": None if value is None else value.hex(" "),
            "headers": json.loads(row["headers"]),
            "now": _what_the_rules_say(settings, row),
        }

    return with_connection(settings, work)


def retry_dead_letters(
    settings: Settings,
    *,
    ids: list[int] | None,
    topic: str | None,
    kind: str | None,
    since: datetime | None,
) -> list[Retried]:
    """Send parked records down the road again, one transaction each."""

    async def work(connection: Connection) -> list[Retried]:
        wanted = ids or [
            row["id"] for row in await connection.fetch(sql("open_dead_letter_ids"), topic, kind, _utc(since))
        ]
        known = routes_by_topic(settings, await load_visitor_key(connection, settings))
        return [await retry_dead_letter(connection, letter_id, known) for letter_id in wanted]

    return with_connection(settings, work)


def _what_the_rules_say(settings: Settings, row: asyncpg.Record) -> str:
    decoders: dict[str, Decode | DecodeAlert] = {
        **{settings.topics[name]: event_type.decode for name, event_type in EVENT_TYPES.items()},
        **{settings.outgoing_topics[name]: decode for name, decode in ALERT_DECODERS.items()},
    }
    if row["topic"] not in decoders:
        return f"no event type is read from the topic {row['topic']}"
    decode = decoders[row["topic"]]
    headers, timestamp = headers_from_json(row["headers"]), milliseconds_of(row["record_timestamp"])
    try:
        decode(row["value"], headers, timestamp, Rules.of(settings))
    except InvalidEvent as error:
        return f"refused: {error.kind}: {error}"
    return "accepted"


def _readable(value: bytes | None) -> str | None:
    return None if value is None else value.decode("utf-8", "backslashreplace")


def _utc(time: datetime | None) -> datetime | None:
    return time.replace(tzinfo=UTC) if time is not None and time.tzinfo is None else time
