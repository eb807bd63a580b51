"""`/api/dead-letters`: parked records with their reasons, and their retry down the live road."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, NamedTuple

import asyncpg
import msgspec
from litestar import Request, Response, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, QueryParameter
from msgspec import Struct

from counterfoil.api.problems import invalid_field
from counterfoil.api.requests import Listing, Offset, connection_of, page
from counterfoil.api.writing import Time, time_text
from counterfoil.database.queries import sql
from counterfoil.errors import RequestError
from counterfoil.events import Rules
from counterfoil.ingest.retry import retry_dead_letter
from counterfoil.ingest.routes import Route

PATH = "/api/dead-letters"

SHOWN_BYTES = 4_096
"""Of each key and value in a list, and the most of headers there; a record may be of megabytes."""

MOST_LISTED = 200
"""Records of one list, so that it is written in a moment."""

HIGHEST_ID = 2**63 - 1

KnownRoutes = Mapping[str, tuple[Route, Rules]]
"""The dependency `known_routes`: topic → its event type with the rules."""

LetterLimit = Annotated[int, QueryParameter(ge=1, le=MOST_LISTED, description="rows, at most")]
Kind = Annotated[str | None, QueryParameter(description="the rule that was broken, as in `not_json`")]


class DeadLetter(Struct, rename="camel", omit_defaults=True):
    """A parked record; key and value are text where they are UTF-8, else base64; in a list, cut.

    Headers that are too long for a list are left out of it.
    """

    id: int
    cluster_id: str
    topic: str
    partition: int
    offset: int
    error_kind: str
    error: str
    key: str | None
    value: str | None
    value_bytes: int | None
    headers: msgspec.Raw
    record_timestamp: Time
    first_seen_at: Time
    retried_at: Time | None
    resolved_at: Time | None
    resolution: str | None
    key_base64: str | None = None
    value_base64: str | None = None
    value_is_cut: bool = False
    key_bytes: int | None = None
    key_is_cut: bool = False
    headers_are_cut: bool = False


class _Bytes(NamedTuple):
    """A key or a value as it is answered: as text, else as base64."""

    text: str | None
    base64: str | None
    size: int | None
    is_cut: bool


class RetriedLetter(Struct, rename="camel"):
    """What became of it: `applied`, `duplicate`, or `refused` again, and why."""

    id: int
    outcome: str
    reason: str


@get(PATH)
async def list_dead_letters(  # noqa: PLR0913, PLR0917 - one parameter a filter
    request: Request[Any, Any, Any],
    pool: NamedDependency[asyncpg.Pool],
    topic: FromQuery[str | None] = None,
    kind: Kind = None,
    since: FromQuery[datetime | None] = None,
    resolved: FromQuery[bool] = False,
    limit: LetterLimit = 50,
    offset: Offset = 0,
) -> Response[list[DeadLetter]]:
    """Parked records, newest first; those that went through since only where `resolved` asks for them too."""
    wanted = (_storable(topic), _storable(kind), _in_utc(since), resolved, limit + 1, offset, SHOWN_BYTES)
    async with connection_of(pool) as connection:
        rows = await connection.fetch(sql("list_dead_letters_with_values"), *wanted)
    return page(request, [dead_letter(row) for row in rows], Listing(None, limit, offset))


@get(PATH + "/{letter_id:int}")
async def show_dead_letter(letter_id: FromPath[int], pool: NamedDependency[asyncpg.Pool]) -> DeadLetter:
    """One parked record, whole; 404 where there is none."""
    async with connection_of(pool) as connection:
        return dead_letter(await _find(connection, letter_id))


@post(PATH + "/{letter_id:int}/retry", status_code=200)
async def retry_parked_record(
    letter_id: FromPath[int],
    pool: NamedDependency[asyncpg.Pool],
    known_routes: NamedDependency[KnownRoutes],
) -> RetriedLetter:
    """Send a parked record down the road again; 404 where there is none, 409 when it went through before."""
    async with connection_of(pool) as connection:
        if not await _is_there(connection, letter_id):
            raise _nothing_there()
        retried = await retry_dead_letter(connection, letter_id, known_routes)
    if retried.outcome == "gone":
        raise RequestError(409, "this record went through already")
    return RetriedLetter(retried.id, retried.outcome, retried.reason)


def dead_letter(row: asyncpg.Record) -> DeadLetter:
    """A row of the list, or one record whole, as it is answered."""
    key, headers = _read(row["key"], row.get("key_bytes")), row["headers"]
    value = _read(row["value"], row.get("bytes"))
    return DeadLetter(
        id=row["id"],
        cluster_id=row["cluster_id"],
        topic=row["topic"],
        partition=row["partition"],
        offset=row["offset"],
        error_kind=row["error_kind"],
        error=row["error"],
        key=key.text,
        value=value.text,
        value_bytes=value.size,
        headers=msgspec.Raw((headers or "[]").encode()),
        record_timestamp=time_text(row["record_timestamp"]),
        first_seen_at=time_text(row["first_seen_at"]),
        retried_at=_moment(row["retried_at"]),
        resolved_at=_moment(row["resolved_at"]),
        resolution=row["resolution"],
        key_base64=key.base64,
        value_base64=value.base64,
        value_is_cut=value.is_cut,
        key_bytes=key.size if key.is_cut else None,
        key_is_cut=key.is_cut,
        headers_are_cut=headers is None,
    )


def text_of(value: bytes | None, *, is_cut: bool = False) -> str | None:
    """The bytes as text where they are UTF-8; where they were cut, their last character need not be whole."""
    if value is None:
        return None
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        is_last = is_cut and error.reason == "unexpected end of data"
        return value[: error.start].decode() if is_last else None


async def _find(connection: asyncpg.Connection, letter_id: int) -> asyncpg.Record:
    found = None
    if 0 < letter_id <= HIGHEST_ID:
        found = await connection.fetchrow(sql("show_dead_letter"), letter_id)
    if found is None:
        raise _nothing_there()
    return found


async def _is_there(connection: asyncpg.Connection, letter_id: int) -> bool:
    in_range = 0 < letter_id <= HIGHEST_ID
    return in_range and await connection.fetchval(sql("is_dead_letter"), letter_id) is not None


def _nothing_there() -> RequestError:
    return RequestError(404, "there is no such dead letter")


def _storable(text: str | None) -> str | None:
    """A filter that PostgreSQL takes: its text holds no NUL, so nothing is called so."""
    return None if text is None else text.replace("\0", "\ufffd")


def _in_utc(since: datetime | None) -> datetime | None:
    """The time that is asked for; raises 422 for one without a zone, or beyond the calendar in UTC."""
    if since is None:
        return None
    if since.tzinfo is None:
        raise invalid_field("since", "must have a time zone, as in 2026-03-01T12:00:00Z")
    try:
        return since.astimezone(UTC)
    except OverflowError:
        raise invalid_field("since", "must be in the years 1 to 9999 in UTC") from None


def _moment(time: datetime | None) -> Time | None:
    return None if time is None else time_text(time)


def _read(value: bytes | None, size: int | None) -> _Bytes:
    """Bytes of which the head was asked for, and how long they are in all; without that they are whole."""
    if value is None:
        return _Bytes(None, None, None, is_cut=False)
    whole = len(value) if size is None else size
    is_cut = len(value) < whole
    text = text_of(value, is_cut=is_cut)
    return _Bytes(text, None if text is not None else base64.b64encode(value).decode(), whole, is_cut)


DEAD_LETTER_ROUTES = (list_dead_letters, show_dead_letter, retry_parked_record)
