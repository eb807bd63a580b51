"""What is wrong with the database: how it is reached, its schema, rights and clock, and what has piled up in it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Iterator, Sequence
from datetime import timedelta

import asyncpg

from counterfoil.database.migrate import migration_status
from counterfoil.database.partitions import MONTHS_AHEAD
from counterfoil.database.pool import UNREACHABLE, database_address, migrator_address, one_line
from counterfoil.database.queries import sql
from counterfoil.doctor.findings import (
    LOOK_WITHIN_S,
    Finding,
    plural,
    problem,
    some,
    span,
    warning,
    well,
    within,
)
from counterfoil.doctor.rights import missing_rights
from counterfoil.errors import SchemaMismatch
from counterfoil.settings import Settings, masked_address, source_of

OLDEST_SERVER = 150_000
CLOCK_SKEW_S = 5.0
WAITS_LONG_S = 60.0
OF_LATE = timedelta(days=1)
VERIFIED_WITHIN = timedelta(days=7)

PARTITIONED = ("aff_clicks", "voucher_scans", "inventory_events")

BY_HAND = "counterfoil dead-letters list"
REACHED = (*UNREACHABLE, asyncpg.PostgresError)


async def check_reached(settings: Settings, pool: asyncpg.Pool) -> Finding | None:
    """Why PostgreSQL cannot be worked with, and which part of the address to look at; None where it answers."""
    where = f"PostgreSQL at {masked_address(database_address(settings))}"
    try:
        async with asyncio.timeout(LOOK_WITHIN_S), pool.acquire():
            return None
    except REACHED as error:
        reason = one_line(error) if str(error) else f"no answer within {LOOK_WITHIN_S:g} s"
        return problem("database", f"{where}: {reason}", _way_in(error))


def _way_in(error: BaseException) -> str:
    variable = source_of("database_url")
    if isinstance(error, asyncpg.InvalidAuthorizationSpecificationError):
        return f"correct the user or the password in {variable}, or let the server's pg_hba.conf admit them"
    if isinstance(error, asyncpg.InvalidCatalogNameError):
        return f"make that database (createdb), or name another in {variable}"
    if isinstance(error, asyncpg.TooManyConnectionsError):
        return "raise the server's max_connections, or run fewer workers; each takes up to 8"
    return f"start PostgreSQL, or correct host and port in {variable}"


async def check_database(settings: Settings, pool: asyncpg.Pool) -> list[Finding]:
    """Everything that is asked of a PostgreSQL that answers; each question has its own time and connection."""
    looks = {
        "database": _server(settings, pool),
        "migrator": _migrator(settings),
        "schema": _schema(settings, pool),
        "rights": _rights(settings, pool),
        "dead-letters": _dead_letters(pool),
        "verification": _verification(pool),
        "partitions": _partitions(pool),
        "outbox": _outbox(pool),
        "notifications": _notifications(pool),
    }
    found = await asyncio.gather(*(_asked(check, look) for check, look in looks.items()))
    return [finding for findings in found for finding in findings]


async def _asked(check: str, look: Awaitable[list[Finding]]) -> list[Finding]:
    try:
        return await within(check, look)
    except asyncpg.UndefinedTableError:
        return []  # the schema is behind, which has a finding of its own
    except asyncpg.InsufficientPrivilegeError as error:
        return [
            warning(check, f"could not be looked at: {error}", "give the role the rights of sql/grants.sql")
        ]
    except REACHED as error:
        return [warning(check, f"could not be looked at: {one_line(error)}", "look again")]


# The server


async def _server(settings: Settings, pool: asyncpg.Pool) -> list[Finding]:
    async with pool.acquire() as connection:
        asked = time.time()
        (row,) = await connection.fetch(sql("describe_server"), settings.db_schema)
        answered = time.time()
    where = masked_address(database_address(settings))
    found = [well("database", f"PostgreSQL {row['version'].split()[0]} at {where} as {row['role']}")]
    if row["number"] < OLDEST_SERVER:
        old = f"PostgreSQL {row['version'].split()[0]} is too old"
        found = [problem("database", old, "take PostgreSQL 15 or later")]
    if row["may_use_schema"] is False:
        fix = f'as its owner: GRANT USAGE ON SCHEMA "{settings.db_schema}" TO {row["role"]}'
        found.append(problem("rights", f"{row['role']} may not use the schema {settings.db_schema}", fix))
    return [*found, *_clock(row["now"].timestamp(), asked, answered)]


def _clock(there: float, asked: float, answered: float) -> Iterator[Finding]:
    """How far apart the two clocks surely are: the answer was under way for some of the time."""
    ahead = there - answered if there > answered else min(there - asked, 0.0)
    if abs(ahead) > CLOCK_SKEW_S:
        told = (
            f"PostgreSQL's clock is {span(abs(ahead))} {'ahead of' if ahead > 0 else 'behind'} this machine's"
        )
        yield warning("clock", told, "let both keep time by NTP (timedatectl set-ntp true)")
    else:
        yield well("clock", "this machine and PostgreSQL tell the same time")


async def _migrator(settings: Settings) -> list[Finding]:
    if settings.migrate_database_url is None:
        return []
    address = migrator_address(settings)
    try:
        connection = await asyncpg.connect(address, timeout=LOOK_WITHIN_S)
        await connection.close(timeout=LOOK_WITHIN_S)
    except REACHED as error:
        told = f"the migrator's address {masked_address(address)}: {one_line(error)}"
        return [problem("migrator", told, "correct COUNTERFOIL_MIGRATE_DATABASE_URL")]
    return [well("migrator", f"{masked_address(address)} answers")]


async def _schema(settings: Settings, pool: asyncpg.Pool) -> list[Finding]:
    async with pool.acquire() as connection:
        try:
            states = await migration_status(connection, settings.db_schema)
        except SchemaMismatch as error:
            fix = "run the version of counterfoil that made this schema, or name another in COUNTERFOIL_DB_SCHEMA"
            return [problem("schema", str(error), fix)]
    due = [state.name for state in states if state.applied_at is None]
    if due:
        told = f"schema {settings.db_schema} is behind: {plural(len(due), 'migration is', 'migrations are')} due, "
        return [problem("schema", f"{told}{some(due, 3)}", "run `counterfoil migrate`")]
    return [well("schema", f"schema {settings.db_schema} has all {len(states)} migrations")]


async def _rights(settings: Settings, pool: asyncpg.Pool) -> list[Finding]:
    async with pool.acquire() as connection:
        (row,) = await connection.fetch(sql("describe_server"), settings.db_schema)
        missing = await missing_rights(connection)
    if missing:
        told = f"{row['role']} lacks {plural(len(missing), 'right')}: {some(missing, 3)}"
        fix = f"as an administrator: GRANT counterfoil_worker TO {row['role']}; then as owner run sql/grants.sql"
        return [problem("rights", told, fix)]
    if row["is_superuser"]:
        told = f"{row['role']} may do all that a worker does; it is a superuser, which is more than it needs"
        return [well("rights", told, "give the worker a role of its own: docs/security.md")]
    return [well("rights", f"{row['role']} may do all that a worker does")]


# What has piled up


async def _fetch(pool: asyncpg.Pool, name: str, *arguments: object) -> Sequence[asyncpg.Record]:
    async with pool.acquire() as connection:
        return await connection.fetch(sql(name), *arguments)


async def _dead_letters(pool: asyncpg.Pool) -> list[Finding]:
    rows = await _fetch(pool, "sum_open_dead_letters")
    if not rows:
        return [well("dead-letters", "no record waits parked")]
    kinds = [f"{row['topic']} {row['error_kind']} {row['waiting']:,}" for row in rows]
    newest = max(row["newest_at"] for row in rows)
    waiting = plural(sum(row["waiting"] for row in rows), "record waits", "records wait")
    told = f"{waiting} parked, the newest since {newest:%Y-%m-%d %H:%M} UTC: {some(kinds)}"
    return [warning("dead-letters", told, f"`{BY_HAND}`, mend their producer, then retry or drop them")]


async def _verification(pool: asyncpg.Pool) -> list[Finding]:
    rows = await _fetch(pool, "find_last_verification")
    fix = "run a worker with the role schedule, or `counterfoil verify`"
    if not rows:
        return [well("verification", "the schedule has not recounted yet", fix)]
    (row,) = rows
    when = f"{row['finished_at']:%Y-%m-%d %H:%M} UTC"
    if row["drifted"]:
        told = f"{plural(row['drifted'], 'counter')} differed from what the ledgers say at {when}"
        return [problem("verification", told, "`counterfoil verify`, and with --repair to put them right")]
    if row["age"] > VERIFIED_WITHIN:
        return [warning("verification", f"nothing was recounted since {when}", fix)]
    return [well("verification", f"every counter was what its ledger says at {when}")]


async def _partitions(pool: asyncpg.Pool) -> list[Finding]:
    missing = await _fetch(pool, "find_missing_months", list(PARTITIONED), MONTHS_AHEAD - 1)
    late = [row["ledger"] for row in await _fetch(pool, "find_late_partitions")]
    old = [row["ledger"] for row in await _fetch(pool, "find_old_partitions")]
    schedule = "run a worker with the role schedule; it makes them each hour"
    found = []
    if missing:
        names = [f"{row['ledger']} {row['month']}" for row in missing]
        say = problem if any(row["ahead"] == 0 for row in missing) else warning
        found.append(say("partitions", f"months without a partition: {some(names)}", schedule))
    if late:
        fix = f"{schedule}, and moves what is there"
        found.append(warning("partitions", f"recent rows lie in the default partition of {some(late)}", fix))
    if found:
        return found
    rest = f"; what is older lies in the default partition of {some(old)}" if old else ""
    return [well("partitions", f"the months ahead have their partitions{rest}")]


async def _outbox(pool: asyncpg.Pool) -> list[Finding]:
    rows = await _fetch(pool, "measure_outbox_age")
    stuck = [row for row in rows if row["age"].total_seconds() > WAITS_LONG_S]
    if stuck:
        each = [f"{r['waiting']:,} for {r['topic']} since {span(r['age'].total_seconds())}" for r in stuck]
        fix = "run a worker with the role relay, and look in its log for relay_put_off"
        return [problem("outbox", f"alerts are not published: {some(each)}", fix)]
    return [well("outbox", "no alert waits long to be published")]


async def _notifications(pool: asyncpg.Pool) -> list[Finding]:
    rows = await _fetch(pool, "find_failing_channels", OF_LATE)
    found = []
    for row in rows:
        told = f"{row['channel']}: {row['failed']:,} not told, {row['waiting']:,} still tried, within a day"
        fix = "correct the channel's settings, and try them on the page /ops/settings"
        say = problem if row["failed"] else warning
        found.append(say("notifications", f"{told}; last: {row['error']}", fix))
    return found or [well("notifications", "no channel has refused an alert within a day")]
