"""`/api/dead-letters`: parked records with their reasons, and their retry down the live road."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any

import asyncpg
import msgspec
from litestar import Request, Response, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, QueryParameter
from msgspec import Struct

from counterfoil.api.requests import Limit, Listing, Offset, connection_of, page
from counterfoil.api.writing import Time, time_text
from counterfoil.database.queries import sql
from counterfoil.errors import RequestError
from counterfoil.events import Rules
from counterfoil.ingest.retry import retry_dead_letter
from counterfoil.ingest.routes import Route

PATH = "/api/dead-letters"

SHOWN_BYTES = 4_096
"""Of each value in a list; a record may be of megabytes, and a list of a thousand records."""

HIGHEST_ID = 2**63 - 1

KnownRoutes = Mapping[str, tuple[Route, Rules]]
"""The dependency `known_routes`: topic → its event type with the rules."""

Kind = Annotated[str | None, QueryParameter(description="the rule that was broken, as in `not_json`")]


class DeadLetter(Struct, rename="camel", omit_defaults=True):
    """A parked record; key and value are text where they are UTF-8, else base64; in a list, cut."""

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
    limit: Limit = 50,
    offset: Offset = 0,
) -> Response[list[DeadLetter]]:
    """Parked records, newest first; those that went through since only where `resolved` asks for them too."""
    wanted = (_storable(topic), _storable(kind), since, resolved, limit + 1, offset, SHOWN_BYTES)
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
        await _find(connection, letter_id)
        retried = await retry_dead_letter(connection, letter_id, known_routes)
    if retried.outcome == "gone":
        raise RequestError(409, "this record went through already")
    return RetriedLetter(retried.id, retried.outcome, retried.reason)


def dead_letter(row: asyncpg.Record) -> DeadLetter:
    """A row of the list, or one record whole, as it is answered."""
    key: bytes | None = row["key"]
    value: bytes | None = row["value"]
    size = 0 if value is None else row.get("bytes", len(value))
    is_cut = value is not None and len(value) < size
    key_text, value_text = text_of(key), text_of(value, is_cut=is_cut)
    return DeadLetter(
        id=row["id"],
        cluster_id=row["cluster_id"],
        topic=row["topic"],
        partition=row["partition"],
        offset=row["offset"],
        error_kind=row["error_kind"],
        error=row["error"],
        key=key_text,
        value=value_text,
        value_bytes=None if value is None else size,
        headers=msgspec.Raw(row["headers"].encode()),
        record_timestamp=time_text(row["record_timestamp"]),
        first_seen_at=time_text(row["first_seen_at"]),
        retried_at=_moment(row["retried_at"]),
        resolved_at=_moment(row["resolved_at"]),
        resolution=row["resolution"],
        key_base64=_base64(key) if key_text is None else None,
        value_base64=_base64(value) if value_text is None else None,
        value_is_cut=is_cut,
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
        raise RequestError(404, "there is no such dead letter")
    return found


def _storable(text: str | None) -> str | None:
    """A filter that PostgreSQL takes: its text holds no NUL, so nothing is called so."""
    return None if text is None else text.replace("\0", "\ufffd")


def _moment(time: datetime | None) -> Time | None:
    return None if time is None else time_text(time)


def _base64(value: bytes | None) -> str | None:
    return None if value is None else base64.b64encode(value).decode()


DEAD_LETTER_ROUTES = (list_dead_letters, show_dead_letter, retry_parked_record)
