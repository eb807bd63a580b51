"""Forgets a visitor: of the clicks of one address and browser is left that one visitor has made them."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from datetime import date
from hashlib import sha256

import asyncpg

from counterfoil.database.connection import Connection
from counterfoil.database.forgotten import pseudonym_key
from counterfoil.database.queries import sql
from counterfoil.errors import InvalidSetting
from counterfoil.forgetting.erasure import CHUNK, Erasure, Tell, in_transaction, rows_of
from counterfoil.forgetting.naming import Naming
from counterfoil.forgetting.parked import count_parked, erase_parked

UNKNOWN_VISITOR = 0
"""Whoever tells neither address nor user agent: many, and nobody knows how many."""

DAYS_AT_ONCE = 7
"""Days of clicks in one transaction: what each of their pixels counts is counted again."""

IDS_AT_ONCE = 500
"""Click ids looked for together in each dead letter."""


async def forget_visitor(
    connection: Connection, named: str, *, click_topic: str, dry_run: bool, tell: Tell
) -> Erasure:
    """Empty the clicks of the visitor who has made a click, or has a number, and give the visitor a random number.

    Running it again goes on with what another run has left; two at once do no harm.
    """
    erasure = Erasure("visitor", dry_run)
    for number in await _visitors(connection, named):
        visitor = await _left_of(connection, number, erasure)
        if visitor is not None:
            await _Visitor(connection, visitor, click_topic, erasure, tell).forget()
    return erasure


async def _left_of(connection: Connection, number: int, erasure: Erasure) -> int | None:
    """The number of those clicks that are still to be emptied; None where a run before has emptied all of them."""
    if not await connection.fetchval(sql("is_forgotten_visitor"), number):
        return number
    erasure.was_forgotten = True
    left: int | None = await connection.fetchval(
        sql("unfinished_visitor"), number, await pseudonym_key(connection)
    )
    if left is None and not erasure.dry_run:
        await connection.execute(sql("finish_forgotten_visitor"), number)
    return left


async def _visitors(connection: Connection, named: str) -> list[int]:
    """The numbers of those named by a click's id or their own; raises InvalidSetting for nobody in particular."""
    found = [row["visitor"] for row in await connection.fetch(sql("visitor_of_click"), named)]
    known = [visitor for visitor in found if visitor != UNKNOWN_VISITOR]
    if found and not known:
        raise InvalidSetting("the click tells neither address nor user agent: nobody knows whose it is")
    return known or _number(named)


def _number(named: str) -> list[int]:
    try:
        number = int(named)
    except ValueError:
        return []
    if number == UNKNOWN_VISITOR:
        raise InvalidSetting("0 stands for all visitors who tell neither address nor user agent")
    return [number] if -(2**63) <= number < 2**63 else []


class _Visitor:
    """One run over the clicks of a visitor, and over the parked records that name them."""

    def __init__(
        self, connection: Connection, visitor: int, click_topic: str, erasure: Erasure, tell: Tell
    ) -> None:
        self._connection = connection
        self._visitor = visitor
        self._topic = click_topic
        self._erasure = erasure
        self._tell = tell

    async def forget(self) -> None:
        """Erase all that there is, in transactions; or count it."""
        while days := await self._connection.fetch(sql("clicks_of_visitor"), self._visitor):
            await self._parked()  # as long as the clicks tell whose they are
            if self._erasure.dry_run:
                self._erasure.erased["aff_clicks"] += sum(day["clicks"] for day in days)
                return
            await self._clicks(days)

    async def _parked(self) -> None:
        rows = await self._connection.fetch(sql("click_ids_of_visitor"), self._visitor)
        for start in range(0, len(rows), IDS_AT_ONCE):
            naming = Naming.of_clicks([row["click_id"] for row in rows[start : start + IDS_AT_ONCE]])
            if self._erasure.dry_run:
                found = await count_parked(self._connection, naming, self._tell, self._topic)
                self._erasure.erased["dead_letters"] += found
            else:
                await erase_parked(self._connection, naming, self._erasure, self._tell, self._topic)

    async def _clicks(self, days: Sequence[asyncpg.Record]) -> None:
        digest = _digest(await pseudonym_key(self._connection), self._visitor)
        number = await self._connection.fetchval(sql("number_forgotten_visitor"), digest, _random_number())
        self._erasure.instead = str(number)
        due, done = sum(day["clicks"] for day in days), 0
        for some in _chunks(days):
            done += await in_transaction(self._connection, lambda d=some: self._empty(d, number))  # type: ignore[misc]
            self._tell("clicks", done, due)
        self._erasure.erased["aff_clicks"] += done
        await self._connection.execute(sql("finish_forgotten_visitor"), number)

    async def _empty(self, days: Sequence[date], number: int) -> int:
        return await rows_of(self._connection, "erase_clicks", self._visitor, days, number)


def _digest(key: bytes, visitor: int) -> bytes:
    """As the statement `unfinished_visitor` has it."""
    return sha256(key + visitor.to_bytes(8, "big", signed=True)).digest()


def _random_number() -> int:
    return secrets.randbits(64) - 2**63 or 1


def _chunks(days: Sequence[asyncpg.Record]) -> Iterator[list[date]]:
    """Days, so many that their clicks are a transaction's; whole ones, or a visitor would be two on a day."""
    some: list[date] = []
    clicks = 0
    for day in days:
        if some and (clicks + day["clicks"] > CHUNK or len(some) == DAYS_AT_ONCE):
            yield some
            some, clicks = [], 0
        some.append(day["day"])
        clicks += day["clicks"]
    if some:
        yield some
