"""Rows as they are told: amounts in the digits of their currency, and the record that each came from."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from math import isfinite
from typing import Any, TypeAlias

import asyncpg

from counterfoil.api.writing import amount_text
from counterfoil.database.connection import Connection
from counterfoil.database.queries import sql

Row: TypeAlias = dict[str, Any]
Report: TypeAlias = dict[str, Any]
"""Facts and rows by name, and `agrees`: whether every number in it is what its rows say."""

DOCUMENTS = ("content", "device_info", "location", "metadata", "notification_preferences")
"""Columns that hold what somebody else has put together."""

MOST_DIGITS = 4_000
"""Of a whole number: Python reads no longer ones."""

_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_INFINITY = {2**63 - 1: "infinity", -(2**63): "-infinity"}


@dataclass(frozen=True, slots=True)
class Span:
    """How much is read: of long lists so many rows; of an affiliate or a voucher so many days, which end today.

    With `at` the facts up to that event time alone, and days that end with it.
    """

    limit: int = 50
    days: int = 30
    at: datetime | None = None

    @property
    def as_of(self) -> datetime | str:
        """The latest time of a fact that counts."""
        return "infinity" if self.at is None else self.at


class Document(dict[str, Any]):
    """An object as an event told it: whatever its members are called, they are nothing of ours."""


async def fetch_rows(connection: Connection, statement: str, *values: object) -> list[Row]:
    """The rows of a named statement."""
    return [_told(record) for record in await connection.fetch(sql(statement), *values)]


async def fetch_row(connection: Connection, statement: str, *values: object) -> Row | None:
    """The first row of a named statement, if it has one."""
    record = await connection.fetchrow(sql(statement), *values)
    return None if record is None else _told(record)


def with_documents(rows: list[Row]) -> list[Row]:
    """The rows, with objects in place of their texts."""
    return [
        row | {name: _document(row[name]) for name in DOCUMENTS if row.get(name) is not None} for row in rows
    ]


def take_total(rows: list[Row]) -> int:
    """What the rows of a list that may have been cut say of its length, if they do; it is taken out of them."""
    return max([row.pop("total", 0) for row in rows], default=0)


def differences(numbers: list[tuple[str, object, object]]) -> list[Row]:
    """Of (counter, stored, counted) those that differ."""
    return [
        {"counter": counter, "stored": stored, "counted": counted}
        for counter, stored, counted in numbers
        if stored != counted
    ]


async def read_any_time(connection: Connection) -> None:
    """Read times that Python has no datetime for: `-infinity` is what an operator may well write."""
    await connection.set_type_codec(
        "timestamptz", schema="pg_catalog", encoder=_since_2000, decoder=_moment, format="tuple"
    )


async def read_usual_times(connection: Connection) -> None:
    """As it was before `read_any_time`, for who gets the connection next; one on which that fails is given up."""
    try:
        await connection.reset_type_codec("timestamptz", schema="pg_catalog")
    except BaseException:
        connection.terminate()
        raise


def _since_2000(moment: datetime | str) -> tuple[int]:
    if isinstance(moment, str):
        return (next(number for number, name in _INFINITY.items() if name == moment),)
    return ((moment - _EPOCH) // timedelta(microseconds=1),)


def _moment(since_2000: tuple[int]) -> datetime | str:
    microseconds = since_2000[0]
    try:
        return _INFINITY.get(microseconds) or _EPOCH + timedelta(microseconds=microseconds)
    except OverflowError:
        return "beyond the year 9999" if microseconds > 0 else "before the year 1"


def _told(record: asyncpg.Record) -> Row:
    row: Row = dict(record)
    digits = row.pop("digits", 0)
    if "source_offset" in row:
        place = [row.pop(name) for name in ("cluster_id", "topic", "partition", "source_offset")]
        row["source"] = dict(zip(("cluster_id", "topic", "partition", "offset"), place, strict=True))
        if None in place:
            row["source"] = None
    return {name: _plain(name, value, digits) for name, value in row.items()}


def _plain(name: str, value: object, digits: int) -> object:
    if not isinstance(value, Decimal):
        return value
    return amount_text(value, 0 if name.endswith("percent") else digits)


def _document(text: str) -> object:
    return json.loads(text, object_hook=Document, parse_int=_integer, parse_float=_fraction)


def _integer(digits: str) -> int | str:
    return int(digits) if len(digits) <= MOST_DIGITS else digits


def _fraction(digits: str) -> float | str:
    return value if isfinite(value := float(digits)) else digits
