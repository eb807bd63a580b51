"""`/api/dead-letters`: parked records with their reasons, their retry down the live road, and giving them up."""

from __future__ import annotations

import base64
import time
from datetime import UTC, datetime
from typing import Annotated, Any, NamedTuple

import asyncpg
import msgspec
from litestar import Request, Response, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, QueryParameter, RawBody
from msgspec import Struct

from counterfoil.api.problems import invalid_field
from counterfoil.api.requests import (
    ACTOR,
    Listing,
    Offset,
    Reason,
    connection_of,
    page,
    read_body,
    takes,
)
from counterfoil.api.writing import Time, time_text
from counterfoil.database.queries import sql
from counterfoil.errors import RequestError
from counterfoil.ingest.dead_letters import Chosen, drop, measure
from counterfoil.ingest.retry import KnownRoutes, Retried, retry_chosen, retry_dead_letter

PATH = "/api/dead-letters"

SHOWN_BYTES = 4_096
"""Of each key and value in a list, and the most of headers there; a record may be of megabytes."""

MOST_LISTED = 200
"""Records of one list, so that it is written in a moment."""

HIGHEST_ID = 2**63 - 1

MOST_RETRIED = 1_000
"""Records that one request sends down the road again."""

AT_ONCE = 50
"""Of them in one transaction: it holds the loop of a worker that does other work, too."""

MOST_TOLD = 50
"""Refusals that an answer lists."""

RETRIED_WITHIN_S = 10.0
"""And no more once that is over: who asks is told how many are left."""

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
    resolved_by: str | None = None
    resolved_because: str | None = None
    copied_at: Time | None = None
    copy_error: str | None = None
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


class DropOrder(Struct, rename="camel", forbid_unknown_fields=True):
    """Why a parked record is given up."""

    reason: Reason


class DroppedLetter(Struct, rename="camel"):
    """A parked record that was given up; its row and its bytes stay."""

    id: int
    outcome: str
    reason: str


class RetryOrder(Struct, rename="camel", forbid_unknown_fields=True):
    """Which parked records to try again: all open ones that these leave, oldest first, from behind `after` on."""

    topic: str | None = None
    kind: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    after: Annotated[int, msgspec.Meta(ge=0, le=HIGHEST_ID)] = 0
    limit: Annotated[int, msgspec.Meta(ge=1, le=MOST_RETRIED)] = 100


class RetriedLetters(Struct, rename="camel"):
    """What became of them, the last that was tried, and how many behind it are left.

    A record that is refused stays open: ask again with `after` = `last` until none is left.
    """

    retried: int
    applied: int
    duplicate: int
    refused: int
    gone: int
    left: int
    last: int
    refusals: list[RetriedLetter]


@get(PATH)
async def list_dead_letters(  # noqa: PLR0913, PLR0917 - one parameter a filter
    request: Request[Any, Any, Any],
    pool: NamedDependency[asyncpg.Pool],
    topic: FromQuery[str | None] = None,
    kind: Kind = None,
    since: FromQuery[datetime | None] = None,
    until: FromQuery[datetime | None] = None,
    resolved: FromQuery[bool] = False,
    limit: LetterLimit = 50,
    offset: Offset = 0,
) -> Response[list[DeadLetter]]:
    """Parked records, newest first; those that went through since only where `resolved` asks for them too."""
    chosen = chosen_of(topic, kind, since, until)
    async with connection_of(pool) as connection:
        rows = await connection.fetch(
            sql("list_dead_letters"), *chosen, resolved, limit + 1, offset, SHOWN_BYTES
        )
    return page(request, [dead_letter(row) for row in rows], Listing(None, limit, offset))


@get(PATH + "/{letter_id:int}")
async def show_dead_letter(letter_id: FromPath[int], pool: NamedDependency[asyncpg.Pool]) -> DeadLetter:
    """One parked record, whole; 404 where there is none."""
    async with connection_of(pool) as connection:
        return dead_letter(await find_letter(connection, letter_id))


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


@post(PATH + "/{letter_id:int}/drop", status_code=200, operation_class=takes(DropOrder))
async def drop_parked_record(
    letter_id: FromPath[int], body: RawBody, pool: NamedDependency[asyncpg.Pool]
) -> DroppedLetter:
    """Give a parked record up for a reason; row and bytes stay. 404 where there is none, 409 when it is resolved."""
    reason = read_body(body, DropOrder).reason.strip()
    if not reason:
        raise invalid_field("reason", "must say why")
    async with connection_of(pool) as connection:
        if not await _is_there(connection, letter_id):
            raise _nothing_there()
        if not await drop(connection, [letter_id], ACTOR, reason):
            raise RequestError(409, "this record is resolved already")
    return DroppedLetter(letter_id, "dropped", reason)


@post(PATH + "/retry", status_code=200, operation_class=takes(RetryOrder))
async def retry_parked_records(
    body: RawBody, pool: NamedDependency[asyncpg.Pool], known_routes: NamedDependency[KnownRoutes]
) -> RetriedLetters:
    """Send parked records down the road again, 1,000 at most and for 10 s at most; tells how many are left."""
    order = read_body(body or b"{}", RetryOrder)
    chosen = chosen_of(order.topic, order.kind, order.since, order.until)
    until = time.monotonic() + RETRIED_WITHIN_S
    async with connection_of(pool) as connection:
        last = (await measure(connection, chosen, order.after)).last
        answer = RetriedLetters(0, 0, 0, 0, 0, 0, order.after, [])
        async for batch in retry_chosen(
            connection, chosen, known_routes, after=order.after, last=last, limit=order.limit, at_once=AT_ONCE
        ):
            _add(answer, batch)
            if time.monotonic() > until:
                break
        answer.left = (await measure(connection, chosen, answer.last)).letters
    return answer


def _add(answer: RetriedLetters, batch: list[Retried]) -> None:
    for one in batch:
        setattr(answer, one.outcome, getattr(answer, one.outcome) + 1)
    answer.retried += len(batch)
    answer.last = max(one.id for one in batch)
    refused = [RetriedLetter(one.id, one.outcome, one.reason) for one in batch if one.outcome == "refused"]
    answer.refusals += refused[: MOST_TOLD - len(answer.refusals)]


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
        resolved_by=row["resolved_by"],
        resolved_because=row["resolved_because"],
        copied_at=_moment(row["copied_at"]),
        copy_error=row["copy_error"],
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


async def find_letter(connection: asyncpg.Connection, letter_id: int) -> asyncpg.Record:
    """One parked record, whole; raises 404 where there is none."""
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


def chosen_of(topic: str | None, kind: str | None, since: datetime | None, until: datetime | None) -> Chosen:
    """The filters of a request; raises 422 for a time without a zone."""
    return Chosen(_storable(topic), _storable(kind), _in_utc(since, "since"), _in_utc(until, "until"))


def _storable(text: str | None) -> str | None:
    """A filter that PostgreSQL takes: its text holds no NUL, so nothing is called so."""
    return None if text is None else text.replace("\0", "\ufffd")


def _in_utc(since: datetime | None, field: str) -> datetime | None:
    """The time that is asked for; raises 422 for one without a zone, or beyond the calendar in UTC."""
    if since is None:
        return None
    if since.tzinfo is None:
        raise invalid_field(field, "must have a time zone, as in 2026-03-01T12:00:00Z")
    try:
        return since.astimezone(UTC)
    except OverflowError:
        raise invalid_field(field, "must be in the years 1 to 9999 in UTC") from None


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


DEAD_LETTER_ROUTES = (
    list_dead_letters,
    show_dead_letter,
    retry_parked_record,
    drop_parked_record,
    retry_parked_records,
)
