"""`/api/explain`: every row behind a number, as `counterfoil explain --json` prints it, with names in camelCase."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import date, datetime
from typing import Annotated, Any, cast

import asyncpg
from litestar import Request, Response, get
from litestar.di import NamedDependency
from litestar.params import FromPath, QueryParameter

from counterfoil.api.as_of import At, as_of_header, moment_text, read_at
from counterfoil.api.problems import invalid_field
from counterfoil.api.requests import connection_of
from counterfoil.api.writing import camel_case
from counterfoil.database.connection import Connection
from counterfoil.errors import RequestError
from counterfoil.events import Rules
from counterfoil.explaining import AT_KINDS, KINDS, explain
from counterfoil.explaining.rows import Document, Report, Span
from counterfoil.settings import Settings

PATH = "/api/explain"

MOST_ROWS = 200
"""Of each list in one answer."""

Id = Annotated[
    str | None,
    QueryParameter(name="id", description="what is to be explained, where it does not fit into a path"),
]
Rows = Annotated[
    int, QueryParameter(name="limit", ge=1, le=MOST_ROWS, description="rows of each list, at most")
]
Days = Annotated[int, QueryParameter(ge=1, le=366, description="days to report on, today included")]


@get(f"{PATH}/{{kind:str}}")
async def explain_by_query(  # noqa: PLR0913, PLR0917 - one parameter a choice
    kind: FromPath[str],
    pool: NamedDependency[asyncpg.Pool],
    settings: NamedDependency[Settings],
    key: Id = None,
    limit: Rows = 50,
    days: Days = 30,
    at: At = None,
) -> Response[bytes]:
    """Every row behind the numbers of an order, coupon, promo code, affiliate, partner, commission, voucher or SKU."""
    return await _answer(pool, settings, kind, key or "", Span(limit, days, read_at(at)))


@get(f"{PATH}/{{kind:str}}/{{key:path}}")
async def explain_by_path(  # noqa: PLR0913, PLR0917 - one parameter a choice
    request: Request[Any, Any, Any],
    kind: FromPath[str],
    key: FromPath[str],  # noqa: ARG001 - it is read from the path as it came: this one has its slashes tidied
    pool: NamedDependency[asyncpg.Pool],
    settings: NamedDependency[Settings],
    limit: Rows = 50,
    days: Days = 30,
    at: At = None,
) -> Response[bytes]:
    """The same by path; an id that begins or ends with a slash, or that is `.` or `..`, goes into `?id=`."""
    wanted = str(request.scope["path"]).removeprefix(f"{PATH}/{kind}/")
    return await _answer(pool, settings, kind, wanted, Span(limit, days, read_at(at)))


async def _answer(pool: asyncpg.Pool, settings: Settings, kind: str, key: str, span: Span) -> Response[bytes]:
    check_request(kind, key, span)
    async with connection_of(pool) as connection:
        found = await explain(cast("Connection", connection), kind, key, Rules.of(settings), span)
    if found is None:
        raise RequestError(404, f"nothing is known of the {kind} {key}")
    body = json.dumps(in_camel_case(found), default=_plain, ensure_ascii=False).encode()
    return Response(body, media_type="application/json", headers=dict(as_of_header(span.at)))


def check_request(kind: str, key: str, span: Span) -> None:
    """Raise 404 for a kind that there is not, 422 where there is no id, or a time for what has none."""
    if kind not in KINDS:
        raise RequestError(404, f"takes one of {', '.join(KINDS)}")
    if not key:
        raise invalid_field("id", "is required")
    if span.at is not None and kind not in AT_KINDS:
        raise invalid_field("at", f"is taken for {', '.join(sorted(AT_KINDS))}")


def in_camel_case(value: Report | Any) -> Any:
    """A report with its names as HTTP has them; what an event has put together stays as it is."""
    if isinstance(value, list):
        return [in_camel_case(element) for element in value]
    if isinstance(value, Mapping) and not isinstance(value, Document):
        return {camel_case(name): in_camel_case(element) for name, element in value.items()}
    return value


def _plain(value: object) -> str:
    if isinstance(value, datetime):
        return moment_text(value)
    return value.isoformat() if isinstance(value, date) else str(value)


EXPLAIN_ROUTES = (explain_by_query, explain_by_path)
