"""What the routes share: reading parameters and bodies, and answering with a page of a list."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar, cast
from urllib.parse import parse_qsl, quote, urlencode

import asyncpg
import msgspec
from litestar import Request, Response
from litestar.di import NamedDependency
from litestar.openapi.spec import OpenAPIMediaType, Operation, RequestBody
from litestar.params import FromQuery, HeaderParameter, QueryParameter

from counterfoil.api.problems import invalid_field
from counterfoil.api.writing import camel_case
from counterfoil.errors import InvalidEvent, RequestError
from counterfoil.events import rules
from counterfoil.events.rules import MISSING_FIELD
from counterfoil.settings import CodeCase, Settings

ACTOR = "admin-api"
"""Who stands in the ledger behind a row that came by HTTP."""

ACQUIRE_TIMEOUT_S = 5.0
"""How long a request waits for a connection before it answers 503."""

Limit = Annotated[int, QueryParameter(ge=1, le=1_000, description="rows, at most")]
Offset = Annotated[int, QueryParameter(ge=0, le=2**53, description="rows to leave out")]
IdempotencyKey = Annotated[
    str | None,
    HeaderParameter(
        name="Idempotency-Key",
        min_length=1,
        max_length=255,
        pattern=r"^[\x20-\x7e]*$",
        description="a repeat under the same key gets the first answer and does nothing",
    ),
]

Reason = Annotated[str, msgspec.Meta(max_length=1_024, pattern=r"^[^\x00-\x08\x0b-\x1f\x7f]*$")]
"""Free text of an operator: line breaks and tabs are allowed, other control characters are not."""

Body = TypeVar("Body")
Row = TypeVar("Row")
Result = TypeVar("Result")


def read_body(body: bytes, kind: type[Body]) -> Body:
    """The JSON body as `kind`; 400 when it is no JSON, 422 naming the field that it breaks."""
    try:
        return msgspec.json.decode(body, type=kind)
    except UnicodeDecodeError:
        raise RequestError(400, "the body is not UTF-8") from None


@contextmanager
def refusals() -> Iterator[None]:
    """What a record would be parked for, the caller is told: 400 where it is of no field, else 422 naming the field."""
    try:
        yield
    except InvalidEvent as error:
        if not error.field:
            raise RequestError(400, f"the body {error.rule}") from None
        missing = error.kind == MISSING_FIELD
        raise invalid_field(camel_case(error.field) if missing else error.field, error.rule) from None


def read_code(value: str | None, code_case: CodeCase, field: str = "code") -> str | None:
    """A code by the rules of events, None when it is missing or blank; 422 when it breaks them."""
    with refusals():
        return rules.code(value, field, code_case, _nobody)


def read_required_code(value: str, code_case: CodeCase, field: str = "code") -> str:
    """As `read_code`, and 422 for a blank one."""
    code = read_code(value, code_case, field)
    if code is None:
        raise invalid_field(field, "must not be blank")
    return code


def read_id(value: str, field: str) -> str:
    """An id in a path by the rules of events; raises 422 for one that is blank or breaks them."""
    with refusals():
        return rules.required(rules.identity(value, field, _nobody), field)


@dataclass(frozen=True, slots=True)
class Listing:
    """Which part of a list is asked for; `code` is by the rules, or None for all."""

    code: str | None
    limit: int
    offset: int


def read_listing(
    settings: NamedDependency[Settings],
    code: FromQuery[str | None] = None,
    limit: Limit = 50,
    offset: Offset = 0,
) -> Listing:
    """The query's `code`, `limit` and `offset`; the dependency `listing` of a route."""
    return Listing(read_code(code, settings.code_case), limit, offset)


@asynccontextmanager
async def connection_of(pool: asyncpg.Pool) -> AsyncIterator[asyncpg.Connection]:
    """A connection of the pool; raises TimeoutError, which answers 503, when none is free in time."""
    async with pool.acquire(timeout=ACQUIRE_TIMEOUT_S) as connection:
        yield cast("asyncpg.Connection", connection)


async def within(seconds: float, work: Coroutine[Any, Any, Result]) -> Result:
    """What the work results in; raises TimeoutError when that takes longer.

    It is cancelled then, and nobody waits for it to end: on a connection that has fallen silent that takes a while.
    """
    task = asyncio.ensure_future(work)
    _under_way.add(task)
    task.add_done_callback(_forget)
    try:
        await asyncio.wait({task}, timeout=seconds)
        if not task.done():
            raise TimeoutError
        return task.result()
    finally:
        task.cancel()


_under_way: set[asyncio.Future[Any]] = set()
"""The loop alone would not keep them."""


def _forget(task: asyncio.Future[Any]) -> None:
    _under_way.discard(task)
    if not task.cancelled():
        task.exception()  # or it would be logged as one that nobody has seen


def page(
    request: Request[Any, Any, Any],
    rows: Sequence[Row],
    listing: Listing,
    headers: Mapping[str, str] | None = None,
) -> Response[list[Row]]:
    """The listing's rows as a bare array, with a Link header; a row beyond its limit says that more come."""
    limit, offset = listing.limit, listing.offset
    links = []
    if len(rows) > limit:
        links.append(_link(request, offset + limit, "next"))
    if offset > 0:
        links.append(_link(request, max(0, offset - limit), "prev"))
    linked = {"Link": ", ".join(links)} if links else {}
    return Response(list(rows[:limit]), headers=linked | dict(headers or {}))


def takes(kind: type[msgspec.Struct]) -> type[Operation]:
    """For a route's `operation_class`: its OpenAPI request body is `kind`, which the route reads itself."""
    _, components = msgspec.json.schema_components((kind,), ref_template="#/components/schemas/{name}")
    media_type: Any = OpenAPIMediaType(schema=components[kind.__name__])

    @dataclass
    class WithBody(Operation):
        def __post_init__(self) -> None:
            self.request_body = RequestBody(content={"application/json": media_type}, required=True)

    return WithBody


def _link(request: Request[Any, Any, Any], offset: int, relation: str) -> str:
    query = request.scope["query_string"].decode("latin-1")
    kept = [(name, value) for name, value in parse_qsl(query, keep_blank_values=True) if name != "offset"]
    return f'<{quote(request.scope["path"])}?{urlencode([*kept, ("offset", offset)])}>; rel="{relation}"'


def _nobody(_field: str) -> None:
    """What is normalised is counted for events, not for requests."""
