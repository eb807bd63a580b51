"""Applies sql/migrations in order, each once, one process at a time.

What was applied is remembered with a checksum of its text; a file that changed afterwards is refused.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import asyncpg

from counterfoil.database.connection import Connection
from counterfoil.database.files import sql_folder
from counterfoil.errors import SchemaMismatch

LOCK = (3087, 0)
"""The advisory lock that one migration at a time holds."""

_TABLE = re.compile(r"^CREATE (?:UNLOGGED )?TABLE (\w+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Migration:
    """One file of sql/migrations."""

    name: str
    text: str

    @property
    def checksum(self) -> str:
        """SHA-256 of the text, in hexadecimal."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    @property
    def tables(self) -> list[str]:
        """The tables that it makes."""
        return _TABLE.findall(self.text)


@dataclass(frozen=True, slots=True)
class MigrationState:
    """A migration and when it was applied, None when it is due."""

    name: str
    applied_at: datetime | None


def available(folder: Path | None = None) -> list[Migration]:
    """Every migration of the package, in order."""
    files = sorted(((folder or sql_folder()) / "migrations").glob("[0-9]*.sql"))
    return [Migration(path.stem, path.read_text(encoding="utf-8")) for path in files]


async def migrate(dsn: str, schema: str = "public", *, baseline: bool = False) -> list[str]:
    """Apply what is due and return the names; safe when two start at once.

    With `baseline`, tables that were made from the same SQL by hand are adopted instead.
    Raises SchemaMismatch when a table of ours is there that we did not make, or an applied file has changed.
    """
    connection = await asyncpg.connect(
        dsn, timeout=10, server_settings={"application_name": "counterfoil migrate", "timezone": "UTC"}
    )
    try:
        applied = await _migrate(connection, schema, baseline=baseline)
        await connection.close(timeout=5)
    except BaseException:
        connection.terminate()  # what it was doing is rolled back; a server that is silent is not waited for
        raise
    return applied


async def migration_status(connection: Connection, schema: str) -> list[MigrationState]:
    """Each migration of the package and when it was applied; raises SchemaMismatch as migrating would."""
    applied = await _applied(connection, schema)
    _refuse_changed(available(), applied)
    return [
        MigrationState(m.name, applied[m.name]["applied_at"] if m.name in applied else None)
        for m in available()
    ]


async def _migrate(connection: Connection, schema: str, *, baseline: bool) -> list[str]:
    async with connection.transaction():
        # held to the end of the transaction: a second process waits here, and then finds nothing due
        await connection.execute("SELECT pg_advisory_xact_lock($1, $2)", *LOCK)
        await _enter_schema(connection, schema)
        applied = await _applied(connection, schema)
        migrations = available()
        _refuse_changed(migrations, applied)
        due = [m for m in migrations if m.name not in applied]
        if not due:
            return []
        if not applied:
            await _create_history(connection)
        if baseline:
            await _refuse_different(connection, schema, due)
        else:
            await _refuse_foreign(connection, schema, due)
        for migration in due:
            if not baseline:
                await connection.execute(migration.text)
            await connection.execute(
                "INSERT INTO counterfoil_migrations (name, checksum) VALUES ($1, $2)",
                migration.name,
                migration.checksum,
            )
        await _grant(connection)
        return [m.name for m in due]


async def _enter_schema(connection: Connection, schema: str) -> None:
    exists = await connection.fetchval("SELECT to_regnamespace($1) IS NOT NULL", f'"{schema}"')
    if not exists:
        await connection.execute(f'CREATE SCHEMA "{schema}"')
    # functions keep this path (SET search_path FROM CURRENT)
    await connection.execute(f'SET LOCAL search_path TO "{schema}", pg_temp')


async def _create_history(connection: Connection) -> None:
    await connection.execute(
        "CREATE TABLE IF NOT EXISTS counterfoil_migrations ("
        "name text PRIMARY KEY, checksum text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())"
    )


async def _applied(connection: Connection, schema: str) -> dict[str, asyncpg.Record]:
    history = f'"{schema}".counterfoil_migrations'
    if await connection.fetchval("SELECT to_regclass($1) IS NULL", history):
        return {}
    rows = await connection.fetch(f"SELECT name, checksum, applied_at FROM {history}")  # noqa: S608 - a checked name
    return {row["name"]: row for row in rows}


def _refuse_changed(migrations: list[Migration], applied: dict[str, asyncpg.Record]) -> None:
    ours = {m.name: m for m in migrations}
    for name, row in sorted(applied.items()):
        if name not in ours:
            raise SchemaMismatch(f"the database is ahead: it has migration {name}, this version does not")
        if ours[name].checksum != row["checksum"]:
            raise SchemaMismatch(
                f"migration {name} was applied with another text; restore the file as it was"
            )


async def _refuse_foreign(connection: Connection, schema: str, due: list[Migration]) -> None:
    names = [table for migration in due for table in migration.tables]
    there = await connection.fetch(
        "SELECT relname FROM pg_class WHERE relnamespace = to_regnamespace($1) AND relname = ANY ($2) ORDER BY 1",
        f'"{schema}"',
        names,
    )
    if there:
        raise SchemaMismatch(
            f"schema {schema} has tables that counterfoil did not make: {', '.join(r['relname'] for r in there)}; "
            "use another DB_SCHEMA, rename them, or adopt them with `counterfoil migrate --baseline` "
            "if they come from the same SQL"
        )


# Partitions are left out: which there are depends on the month.
_SHAPE = """
SELECT 'column ' || c.relname || '.' || a.attname || ' ' || format_type(a.atttypid, a.atttypmod)
       || CASE WHEN a.attnotnull THEN ' not null' ELSE '' END || ' ' || coalesce(l.collname, '')
       || ' ' || a.attidentity::text || ' ' || coalesce(replace(pg_get_expr(d.adbin, d.adrelid), $1 || '.', ''), '')
FROM pg_class AS c
JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
LEFT JOIN pg_collation AS l ON l.oid = a.attcollation
LEFT JOIN pg_attrdef AS d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
WHERE c.relnamespace = to_regnamespace($1) AND c.relkind IN ('r', 'p', 'v') AND NOT c.relispartition
UNION ALL
SELECT 'constraint ' || r.relname || '.' || k.conname || ' ' || replace(pg_get_constraintdef(k.oid), $1 || '.', '')
FROM pg_constraint AS k JOIN pg_class AS r ON r.oid = k.conrelid
WHERE r.relnamespace = to_regnamespace($1) AND k.contype <> 'n' AND NOT r.relispartition
UNION ALL
SELECT 'trigger ' || r.relname || '.' || t.tgname || ' ' || t.tgenabled::text
       || replace(pg_get_triggerdef(t.oid), $1 || '.', '')
FROM pg_trigger AS t JOIN pg_class AS r ON r.oid = t.tgrelid
WHERE r.relnamespace = to_regnamespace($1) AND NOT t.tgisinternal AND NOT r.relispartition
UNION ALL
SELECT 'index ' || r.relname || ' ' || replace(pg_get_indexdef(i.indexrelid), $1 || '.', '')
FROM pg_index AS i JOIN pg_class AS r ON r.oid = i.indrelid
WHERE r.relnamespace = to_regnamespace($1) AND NOT r.relispartition
UNION ALL
SELECT 'function ' || proname || ' ' || md5(prosrc) FROM pg_proc WHERE pronamespace = to_regnamespace($1)
"""


async def _refuse_different(connection: Connection, schema: str, due: list[Migration]) -> None:
    """Make the due migrations in a schema of its own, compare the shapes, and take it away again."""
    scratch = "counterfoil_baseline"
    savepoint = connection.transaction()
    await savepoint.start()
    try:
        await connection.execute(f"CREATE SCHEMA {scratch}")
        await connection.execute(f"SET LOCAL search_path TO {scratch}, pg_temp")
        for migration in due:
            await connection.execute(migration.text)
        wanted = {row[0] for row in await connection.fetch(_SHAPE, scratch)}
        there = {row[0] for row in await connection.fetch(_SHAPE, schema)}
    finally:
        await savepoint.rollback()
    missing = sorted(wanted - there)
    if missing:
        raise SchemaMismatch(
            f"--baseline: schema {schema} was not made from this SQL; it lacks {len(missing)} parts, "
            f"the first: {missing[0]}"
        )


async def _grant(connection: Connection) -> None:
    """Give the worker role its rights on what was just made, where the operator has created that role."""
    if await connection.fetchval("SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = 'counterfoil_worker')"):
        await connection.execute((sql_folder() / "grants.sql").read_text(encoding="utf-8"))
