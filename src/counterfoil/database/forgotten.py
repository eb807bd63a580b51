"""Who is forgotten: a pseudonym instead of an id, for whoever writes of people."""

from __future__ import annotations

import hmac

from counterfoil.database.connection import Connection
from counterfoil.database.queries import sql

PREFIX = "forgotten:"

PSEUDONYM_DIGITS = 32


def pseudonym_of(key: bytes, person: str) -> str:
    """The pseudonym that a person's id has in this deployment, whether the person is forgotten or not."""
    return PREFIX + hmac.digest(key, person.encode(), "sha256").hex()[:PSEUDONYM_DIGITS]


async def pseudonym_key(connection: Connection) -> bytes:
    """The key that makes pseudonyms of ids, which was made with the database."""
    return bytes(await connection.fetchval(sql("forgotten_key")))


class Forgotten:
    """The people who are forgotten, as far as is known here: as of a version."""

    def __init__(self) -> None:
        self.version = 0
        self._key = b""
        self._pseudonyms: set[str] = set()

    def __bool__(self) -> bool:
        return bool(self._pseudonyms)

    def pseudonym(self, person: str | None) -> str | None:
        """The pseudonym of a person who is forgotten; None for anybody else."""
        if person is None:
            return None
        pseudonym = pseudonym_of(self._key, person)
        return pseudonym if pseudonym in self._pseudonyms else None

    async def hold(self, connection: Connection) -> int:
        """Learn who is forgotten, and keep it the latest until the caller's transaction ends; the version."""
        return await self._learn(connection, await connection.fetchval(sql("hold_forgotten")))

    async def refresh(self, connection: Connection) -> int:
        """Learn who is forgotten as of now, in a transaction that only reads; the version."""
        return await self._learn(connection, await connection.fetchval(sql("forgotten_version")))

    async def _learn(self, connection: Connection, version: int) -> int:
        if version < self.version:  # somebody has emptied the table
            self.version, self._pseudonyms = 0, set()
        if version != self.version:
            self._key = self._key or await pseudonym_key(connection)
            rows = await connection.fetch(sql("forgotten_since"), self.version)
            self._pseudonyms |= {row["pseudonym"] for row in rows}
            self.version = version
        return version


NOBODY = Forgotten()
"""For who knows of nobody that is forgotten; it is never taught."""
