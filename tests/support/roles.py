"""The two roles of a deployment: who has migrated a database, and who works in it."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit, urlunsplit

from counterfoil.database.files import sql_folder
from counterfoil.database.migrate import migrate
from support.databases import address_of, drop, execute, run_apart


def as_role(dsn: str, name: str) -> str:
    """The address as the role takes it."""
    parts = urlsplit(dsn)
    return urlunsplit(parts._replace(netloc=f"{name}:secret@{parts.netloc.rpartition('@')[2]}"))


@contextmanager
def owner_and_worker(server: str) -> Iterator[tuple[str, str]]:
    """An owner and a worker's login, in a database that the owner has migrated: their addresses; gone at the end."""
    own = uuid.uuid4().hex[:8]
    owner, login, database = f"owner_{own}", f"login_{own}", f"counterfoil_rights_{own}"
    execute(server, (sql_folder() / "roles.sql").read_text(encoding="utf-8"))
    execute(server, f"CREATE ROLE {owner} LOGIN PASSWORD 'secret'")
    execute(server, f"CREATE ROLE {login} LOGIN PASSWORD 'secret' IN ROLE counterfoil_worker")
    execute(server, f"CREATE DATABASE {database}")
    inside = address_of(database, server)
    execute(inside, f"GRANT USAGE, CREATE ON SCHEMA public TO {owner}")
    run_apart(lambda: migrate(as_role(inside, owner)))
    yield as_role(inside, owner), as_role(inside, login)
    drop(database, server)
    for role in (owner, login):
        execute(server, f"DROP ROLE {role}")
