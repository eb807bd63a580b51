"""Fixtures of tests that only read, and so may share a database."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import asyncpg
import pytest

from support.databases import address_of, clone, drop


@pytest.fixture(scope="module")
def shared_database_url(postgres_server: Any, template_database: str) -> Iterator[str]:
    """The address of a migrated database for the tests of one module."""
    name = clone(template_database, postgres_server.dsn)
    yield address_of(name, postgres_server.dsn)
    drop(name, postgres_server.dsn)


@pytest.fixture
async def shared_db(shared_database_url: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection to the module's database; what a test writes is rolled back."""
    connection = await asyncpg.connect(shared_database_url)
    transaction = connection.transaction()
    await transaction.start()
    yield connection
    await transaction.rollback()
    await connection.close()
