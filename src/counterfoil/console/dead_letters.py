"""`/ops/dead-letters`: parked records by filters, and one of them whole, beside what the rules say of it now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any
from urllib.parse import urlencode

import asyncpg
from litestar import Response, get
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, QueryParameter

from counterfoil.api.problems import is_away
from counterfoil.api.requests import connection_of, within
from counterfoil.console.pages import AS_PAGE, AnyRequest, Console
from counterfoil.database.connection import Connection
from counterfoil.database.queries import sql
from counterfoil.errors import RequestError
from counterfoil.ingest.dead_letter_routes import chosen_of, find_letter
from counterfoil.ingest.dead_letters import Chosen, Verdict, field_of, judge, measure, stored_record
from counterfoil.ingest.letter_text import hex_dump
from counterfoil.ingest.records import headers_from_json
from counterfoil.ingest.retry import KnownRoutes

SHOWN = 50
HEAD_BYTES = 256
"""Of each value in the list."""

TEXT_SHOWN = 16_384
HEX_SHOWN = 512
LONGEST_S = 10.0

RETRIED_AT_ONCE = 500
"""By one press of the button; it says how many are left."""

OFFSET = Annotated[int, QueryParameter(ge=0, le=1_000_000)]

TOLD_AWAY = "The database cannot be reached, or takes too long to answer. Try again."


@dataclass(frozen=True, slots=True)
class Letters:
    """Parked records that the filters leave, how many of them are open, and what there is to filter by."""

    letters: Sequence[Mapping[str, Any]]
    waiting: int
    topics: Sequence[str]
    kinds: Sequence[str]
    is_more: bool


@dataclass(frozen=True, slots=True)
class Whole:
    """A parked record as its page shows it; what is cut says how much there is."""

    letter: Mapping[str, Any]
    field: str
    verdict: Verdict
    key: str
    headers: Sequence[tuple[str, str]]
    size: int | None
    text: str
    text_is_cut: bool
    dump: Sequence[str]
    dump_is_cut: bool


@get("/ops/dead-letters", **AS_PAGE)
async def dead_letters_page(  # noqa: PLR0913, PLR0917 - one parameter a filter
    request: AnyRequest,
    console: NamedDependency[Console],
    pool: NamedDependency[asyncpg.Pool],
    topic: FromQuery[str] = "",
    kind: FromQuery[str] = "",
    since: FromQuery[str] = "",
    until: FromQuery[str] = "",
    resolved: FromQuery[bool] = False,
    offset: OFFSET = 0,
) -> Response[str]:
    """Parked records, newest first, with the filters of the address."""
    filters = {"topic": topic, "kind": kind, "since": since, "until": until}
    shown: dict[str, Any] = {
        "filters": filters,
        "resolved": resolved,
        "offset": offset,
        "found": None,
        "trouble": "",
        "now": datetime.now(UTC),
        "order": {name: value for name, value in filters.items() if value},
        "at_once": RETRIED_AT_ONCE,
        "earlier": _address(filters, resolved=resolved, offset=max(0, offset - SHOWN)),
        "later": _address(filters, resolved=resolved, offset=offset + SHOWN),
    }
    try:
        begin, end = _moment(since, "since"), _moment(until, "until")
        shown["order"] |= {name: at.isoformat() for name, at in (("since", begin), ("until", end)) if at}
        chosen = chosen_of(topic or None, kind or None, begin, end)
        found = await within(LONGEST_S, _find(pool, chosen, resolved=resolved, offset=offset))
    except RequestError as error:
        told = "; ".join(f"{e['field']} {e['rule']}" for e in _errors(error)) or error.detail
        return console.page(request, "dead_letters.html", error.status, **shown | {"trouble": told})
    except Exception as error:
        if not is_away(error):
            raise
        return console.page(request, "dead_letters.html", 503, **shown | {"trouble": TOLD_AWAY})
    return console.page(request, "dead_letters.html", **shown | {"found": found})


@get("/ops/dead-letters/{letter_id:int}", **AS_PAGE)
async def dead_letter_page(
    request: AnyRequest,
    console: NamedDependency[Console],
    pool: NamedDependency[asyncpg.Pool],
    known_routes: NamedDependency[KnownRoutes],
    letter_id: FromPath[int],
) -> Response[str]:
    """One parked record: its payload beside its error, and what the rules say now."""
    shown: dict[str, Any] = {"letter_id": letter_id, "found": None, "trouble": "", "now": datetime.now(UTC)}
    try:
        row = await within(LONGEST_S, _find_one(pool, letter_id))
    except RequestError as error:
        told = f"{error.detail.capitalize()}: {letter_id}."
        return console.page(request, "dead_letter.html", error.status, **shown | {"trouble": told})
    except Exception as error:
        if not is_away(error):
            raise
        return console.page(request, "dead_letter.html", 503, **shown | {"trouble": TOLD_AWAY})
    return console.page(request, "dead_letter.html", **shown | {"found": _whole(row, known_routes)})


async def _find(pool: asyncpg.Pool, chosen: Chosen, *, resolved: bool, offset: int) -> Letters:
    async with connection_of(pool) as connection:
        rows = await connection.fetch(
            sql("list_dead_letters"), *chosen, resolved, SHOWN + 1, offset, HEAD_BYTES
        )
        waiting = (await measure(connection, chosen)).letters
        topics, kinds = await _choices(connection)
    letters = [dict(row) | {"head": _text(row["value"])} for row in rows[:SHOWN]]
    return Letters(letters, waiting, topics, kinds, len(rows) > SHOWN)


async def _choices(connection: Connection) -> tuple[list[str], list[str]]:
    rows = await connection.fetch(sql("list_kinds_of_dead_letters"))
    return sorted({row["topic"] for row in rows}), sorted({row["error_kind"] for row in rows})


async def _find_one(pool: asyncpg.Pool, letter_id: int) -> asyncpg.Record:
    async with connection_of(pool) as connection:
        return await find_letter(connection, letter_id)


def _whole(row: asyncpg.Record, known: KnownRoutes) -> Whole:
    value: bytes | None = row["value"]
    text = "null" if value is None else value.decode("utf-8", "backslashreplace")
    return Whole(
        letter=dict(row),
        field=field_of(row["error_kind"], row["error"]),
        verdict=_verdict(row, known),
        key=_text(row["key"]),
        headers=[(name, _text(said)) for name, said in headers_from_json(row["headers"])],
        size=None if value is None else len(value),
        text=text[:TEXT_SHOWN],
        text_is_cut=len(text) > TEXT_SHOWN,
        dump=list(hex_dump((value or b"")[:HEX_SHOWN])),
        dump_is_cut=value is not None and len(value) > HEX_SHOWN,
    )


def _verdict(row: asyncpg.Record, known: KnownRoutes) -> Verdict:
    decoders = {topic: route.decode for topic, (route, _) in known.items()}
    rules = next(iter(known.values()))[1]
    return judge(stored_record(row), decoders, rules)


def _text(value: bytes | None) -> str:
    """A key or a header: what is no text is written with its bytes."""
    return "null" if value is None else value.decode("utf-8", "backslashreplace")


def _moment(given: str, field: str) -> datetime | None:
    """A time of the form, in UTC where it names no zone; raises 422."""
    if not given.strip():
        return None
    try:
        moment = datetime.fromisoformat(given.strip())
    except ValueError:
        rule = "must be a time as in 2026-03-01T12:00"
        raise RequestError(422, "a filter", errors=[{"field": field, "rule": rule}]) from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _errors(error: RequestError) -> Sequence[Mapping[str, str]]:
    found: Any = error.extra.get("errors", ())
    return found if isinstance(found, list) else ()


def _address(filters: Mapping[str, str], *, resolved: bool, offset: int) -> str:
    asked = {name: value for name, value in filters.items() if value}
    asked |= ({"resolved": "true"} if resolved else {}) | ({"offset": str(offset)} if offset else {})
    return "/ops/dead-letters" + (f"?{urlencode(asked)}" if asked else "")


DEAD_LETTER_PAGES = (dead_letters_page, dead_letter_page)
