"""Connections to PostgreSQL, every one with the same schema, time limits and name."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import asyncpg

from counterfoil.errors import DependencyUnreachable, InvalidSetting
from counterfoil.settings import Settings, masked_address

CONNECT_TIMEOUT_S = 10.0

IDLE_IN_TRANSACTION_MS = 15_000
"""A worker that is stopped inside its transaction keeps its locks no longer than that."""

UNREACHABLE = (
    OSError,
    TimeoutError,
    EOFError,
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.TooManyConnectionsError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # where the server ends a connection in the moment in which it is used
)
"""What asyncpg raises when a database does not answer, or not yet, or no more."""


def database_address(settings: Settings) -> str:
    """The worker's database address; raises InvalidSetting when none is set."""
    if settings.database_url is None:
        raise InvalidSetting(
            "COUNTERFOIL_DATABASE_URL: takes postgres://user:password@host:port/database; "
            "none is set (or use --embedded)"
        )
    return settings.database_url.get_secret_value()


def migrator_address(settings: Settings) -> str:
    """The address that migrations use: the migrator role's, or else the worker's."""
    address = settings.migrate_database_url
    return database_address(settings) if address is None else address.get_secret_value()


def connection_options(schema: str, timeout: timedelta | None, purpose: str) -> dict[str, Any]:
    """Keyword arguments for asyncpg: schema, time limits on both sides, and the name seen in pg_stat_activity.

    Without a timeout a statement may take as long as it takes.
    """
    milliseconds = int(timeout.total_seconds() * 1000) if timeout else 0
    return {
        "timeout": CONNECT_TIMEOUT_S,
        "command_timeout": timeout.total_seconds() + 5 if timeout else None,
        "server_settings": {
            "application_name": f"counterfoil {purpose}",
            "search_path": f"{schema},pg_temp",
            "statement_timeout": str(milliseconds),
            "lock_timeout": str(milliseconds),
            "idle_in_transaction_session_timeout": str(IDLE_IN_TRANSACTION_MS),
            "timezone": "UTC",
        },
    }


async def connect(settings: Settings, purpose: str, *, patient: bool = False) -> asyncpg.Connection:
    """One connection, with no limit on a statement's time for a patient caller.

    Raises DependencyUnreachable, in one line, when the database does not answer.
    """
    address = database_address(settings)
    timeout = None if patient else settings.database_timeout_s
    try:
        return await asyncpg.connect(address, **connection_options(settings.db_schema, timeout, purpose))
    except (
        *UNREACHABLE,
        asyncpg.InvalidAuthorizationSpecificationError,
        asyncpg.InvalidCatalogNameError,
    ) as error:
        raise DependencyUnreachable(f"PostgreSQL at {masked_address(address)}: {one_line(error)}") from error


async def create_pool(settings: Settings, purpose: str, size: int) -> asyncpg.Pool:
    """A pool of at most `size` connections that are made when they are first needed."""
    return await asyncpg.create_pool(
        database_address(settings),
        min_size=0,
        max_size=size,
        **connection_options(settings.db_schema, settings.database_timeout_s, purpose),
    )


def one_line(error: BaseException) -> str:
    """An error's type and message on one line."""
    message = " ".join(str(error).split())
    return f"{type(error).__name__}: {message}" if message else type(error).__name__
