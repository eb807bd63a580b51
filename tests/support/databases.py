"""Databases of tests: one template, migrated once, cloned for each test."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar
from urllib.parse import urlsplit, urlunsplit

import asyncpg

T = TypeVar("T")


def run_apart(work: Callable[[], Awaitable[T]]) -> T:
    """A coroutine's result, from a thread and a loop of its own: fixtures must not touch the test's loop."""

    async def whole() -> T:
        return await work()

    with ThreadPoolExecutor(max_workers=1) as thread:
        return thread.submit(lambda: asyncio.run(whole())).result()


def address_of(database: str, server_dsn: str) -> str:
    """The address of another database on the same server."""
    return urlunsplit(urlsplit(server_dsn)._replace(path=f"/{database}"))


def make_template(server_dsn: str) -> str:
    """A new database with every migration applied; its name."""
    from counterfoil.database.migrate import migrate

    name = f"counterfoil_template_{uuid.uuid4().hex[:12]}"
    execute(server_dsn, f'CREATE DATABASE "{name}"')
    run_apart(lambda: migrate(address_of(name, server_dsn)))
    return name


def clone(template: str, server_dsn: str) -> str:
    """A new copy of the template; its name."""
    name = f"counterfoil_test_{uuid.uuid4().hex[:12]}"
    # without fsync it takes half as long as the default, and so does the end of the copy
    execute(server_dsn, f'CREATE DATABASE "{name}" TEMPLATE "{template}" STRATEGY file_copy')
    return name


def drop(database: str, server_dsn: str) -> None:
    """Delete a database, whoever is connected."""
    execute(server_dsn, f'DROP DATABASE IF EXISTS "{database}" WITH (FORCE)')


def server_version(server_dsn: str) -> str:
    """As in `18.4`."""

    async def ask() -> str:
        connection = await asyncpg.connect(server_dsn)
        try:
            return str(await connection.fetchval("SHOW server_version")).split()[0]
        finally:
            await connection.close()

    return run_apart(ask)


def execute(server_dsn: str, statement: str) -> None:
    """One statement on a connection of its own."""

    async def work() -> None:
        connection = await asyncpg.connect(server_dsn)
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    run_apart(work)
