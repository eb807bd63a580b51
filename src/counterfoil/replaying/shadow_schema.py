"""A schema that a shadow is built in: marked as ours, fitted so that it holds up nobody, gone on with or replaced."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

import asyncpg

from counterfoil.database.connection import Connection
from counterfoil.database.migrate import migrate
from counterfoil.errors import InvalidSetting

MARK = "counterfoil shadow "
"""What the comment of our schemas begins with; a JSON object follows."""

LOCK = 3088
"""The class of the advisory lock that whoever builds a shadow holds, by its schema's name."""

MIGRATED_WITHIN_S = 600.0

FREE_WITHIN_S = 15.0
"""How long a server may take to notice that a shadow's process was killed."""

_SEEDED = "'currencies', 'partitioned_ledgers', 'stock_defaults', 'deployment_keys', 'counterfoil_migrations'"

# The statements of a schema that no migration makes stand here; {schema} is a checked name.
_OWN_LOCKS = """
CREATE OR REPLACE FUNCTION "{schema}".pg_advisory_xact_lock(class integer, number integer) RETURNS void
LANGUAGE sql AS $$ SELECT pg_catalog.pg_advisory_xact_lock({number}, number) $$;
CREATE OR REPLACE FUNCTION "{schema}".pg_advisory_xact_lock_shared(class integer, number integer) RETURNS void
LANGUAGE sql AS $$ SELECT pg_catalog.pg_advisory_xact_lock_shared({number}, number) $$;
DO $do$
DECLARE
  locking regprocedure;
BEGIN
  FOR locking IN
    SELECT oid FROM pg_proc
    WHERE pronamespace = '"{schema}"'::regnamespace AND prosrc ~ 'pg_advisory_xact_lock(_shared)?\\(3087'
  LOOP
    EXECUTE format('ALTER FUNCTION %s SET search_path TO "{schema}", pg_catalog, pg_temp', locking);
  END LOOP;
END $do$;
"""
"""Live writers and a shadow's meet in no fact: by this search path the ledgers' locks are found here first."""

_UNLOGGED = """
DO $do$
DECLARE
  large text;
BEGIN
  FOR large IN
    SELECT c.relname FROM pg_class AS c
    WHERE c.relnamespace = '"{schema}"'::regnamespace AND c.relkind = 'r' AND c.relpersistence = 'p'
      AND c.relname NOT IN ({seeded})
    ORDER BY NOT EXISTS (SELECT FROM pg_constraint AS k WHERE k.conrelid = c.oid AND k.contype = 'f'), c.relname
  LOOP
    EXECUTE format('ALTER TABLE "{schema}".%I SET UNLOGGED', large);
  END LOOP;
END $do$;
"""
"""What can be built again needs no WAL, no archive and no replica; after a crash of the server it is built again."""

_HIGH_IDS = """
SELECT setval(format('%I.%I', schemaname, sequencename)::regclass,
              CASE WHEN data_type = 'integer'::regtype THEN 1073741824 ELSE 2305843009213693952 END)
FROM pg_sequences WHERE schemaname = $1 AND coalesce(last_value, 0) < 1073741824
"""
"""Ids made here begin where those that are taken over never are."""

_OWN_TABLES = """
CREATE UNLOGGED TABLE "{schema}".shadow_offsets (source_id integer PRIMARY KEY, offsets int8multirange NOT NULL);
CREATE UNLOGGED TABLE "{schema}".shadow_overlaid (ledger text PRIMARY KEY);
CREATE UNLOGGED TABLE "{schema}".shadow_promo_codes (id bigint PRIMARY KEY, code text COLLATE "C" NOT NULL);
"""

_STATE = """
SELECT n.oid::bigint AS oid, pg_has_role(n.nspowner, 'USAGE') AS is_ours,
       obj_description(n.oid, 'pg_namespace') AS comment,
       EXISTS (SELECT FROM pg_class AS c WHERE c.relnamespace = n.oid) AS has_tables
FROM pg_namespace AS n WHERE n.nspname = $1
"""

_ROLE = """
SELECT current_user AS role, current_database() AS database, has_database_privilege(current_database(), 'CREATE') AS may
"""


class Mark(NamedTuple):
    """What a shadow's schema says of itself."""

    digest: str
    begun: str
    is_ready: bool

    @property
    def comment(self) -> str:
        """As it is written down."""
        return MARK + json.dumps(self._asdict())


def digest_of_specification(specification: Mapping[str, Any]) -> str:
    """The same for two shadows of which one can go on where the other was broken off."""
    return hashlib.sha256(json.dumps(specification, sort_keys=True, default=str).encode()).hexdigest()


class ShadowSchema:
    """The schema of one shadow, on a connection that owns it; `tell` hears of what is found there."""

    def __init__(self, connection: Connection, name: str, tell: Callable[[str], None]) -> None:
        self.name = name
        self._connection = connection
        self._tell = tell

    async def hold(self) -> None:
        """Be the only one who builds here, as long as the connection lives; raises InvalidSetting."""
        deadline = time.monotonic() + FREE_WITHIN_S
        while not await self._connection.fetchval(
            "SELECT pg_try_advisory_lock($1, hashtext($2))", LOCK, self.name
        ):
            if time.monotonic() > deadline:
                raise InvalidSetting(f"--schema {self.name}: another shadow is being built there")
            await asyncio.sleep(0.25)

    async def prepare(self, address: str, specification: Mapping[str, Any], *, restart: bool) -> bool:
        """Make it, or find the one that was broken off; whether that is gone on with. The address is the migrator's.

        Raises InvalidSetting where it is somebody else's, or where the role may not make one.
        """
        digest = digest_of_specification(specification)
        found = await self._mark()
        if found is not None and found.is_ready and found.digest == digest and not restart:
            self._tell(f"goes on with the shadow of {found.begun} in the schema {self.name}")
            await self._connection.execute(_HIGH_IDS, self.name)
            return True
        if found is not None:
            why = "begins anew" if found.digest == digest else "was another and is replaced"
            self._tell(f"the shadow of {found.begun} in the schema {self.name} {why}")
            await self.drop()
        mark = Mark(digest, f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S}Z", is_ready=False)
        await self._create(mark)
        await self._migrate(address)
        await self._fit()
        await self._write_mark(mark._replace(is_ready=True))
        return False

    async def _migrate(self, address: str) -> None:
        """Make the tables, once nobody closes or makes partitions: that lock all schemas of a database share."""
        deadline = time.monotonic() + MIGRATED_WITHIN_S
        while True:
            try:
                await migrate(address, self.name)
            except asyncpg.LockNotAvailableError:
                if time.monotonic() > deadline:
                    raise
                self._tell("waits for the upkeep of partitions")
            else:
                return

    async def drop(self) -> None:
        """Take the shadow away; raises InvalidSetting where the schema is none of ours."""
        if await self._mark() is not None:
            await self._connection.execute(f'DROP SCHEMA "{self.name}" CASCADE')

    async def _mark(self) -> Mark | None:
        """What the schema says of itself, None where there is none; raises InvalidSetting where it is not ours."""
        row = await self._connection.fetchrow(_STATE, self.name)
        if row is None:
            return None
        comment = row["comment"] or ""
        if comment.startswith(MARK) and row["is_ours"]:
            return Mark(**json.loads(comment.removeprefix(MARK)))
        if row["is_ours"] and not row["has_tables"]:
            return Mark("", "nobody", is_ready=False)
        raise InvalidSetting(f"--schema {self.name}: no shadow has made this schema; name another")

    async def _create(self, mark: Mark) -> None:
        (row,) = await self._connection.fetch(_ROLE)
        if not row["may"]:
            raise InvalidSetting(
                f"--mode shadow: the role {row['role']} may not make the schema {self.name}; "
                f"GRANT CREATE ON DATABASE {row['database']} TO {row['role']}, "
                "or set COUNTERFOIL_MIGRATE_DATABASE_URL to a role that may"
            )
        async with self._connection.transaction():
            await self._connection.execute(f'CREATE SCHEMA "{self.name}"')
            await self._write_mark(mark)

    async def _write_mark(self, mark: Mark) -> None:
        await self._connection.execute(f"COMMENT ON SCHEMA \"{self.name}\" IS '{mark.comment}'")

    async def _fit(self) -> None:
        """Add what no migration makes; locks are its own by the schema's number."""
        (row,) = await self._connection.fetch(_STATE, self.name)
        async with self._connection.transaction():
            await self._connection.execute(_OWN_TABLES.format(schema=self.name))
            await self._connection.execute(_OWN_LOCKS.format(schema=self.name, number=row["oid"] % 2**31))
            await self._connection.execute(_UNLOGGED.format(schema=self.name, seeded=_SEEDED))
            await self._connection.execute(_HIGH_IDS, self.name)
