"""`/ops/explain`: every row behind a number, asked for by kind and id, or by following a number of the overview."""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from datetime import datetime
from typing import Annotated, Any, Protocol, runtime_checkable
from urllib.parse import urlencode

import asyncpg
from litestar import Response, get
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, QueryParameter

from counterfoil.api.as_of import moment_text, parse_moment
from counterfoil.api.problems import is_away
from counterfoil.api.requests import within
from counterfoil.console.pages import AS_PAGE, AnyRequest, Console, redirect
from counterfoil.errors import RequestError

ROWS = 50
"""Of each list, unless more are asked for."""

MOST_ROWS = 200
LONGEST_S = 20.0
"""How long an explanation is waited for."""

Id = Annotated[str, QueryParameter(name="id")]
Rows = Annotated[int, QueryParameter(name="limit", ge=1, le=MOST_ROWS)]
Days = Annotated[int, QueryParameter(ge=1, le=366)]


class Section(Protocol):
    """A title and the rows under it; without a list of rows, a line of prose. A cell may lead on: `kind` and `key`."""

    @property
    def title(self) -> str: ...
    @property
    def rows(self) -> Sequence[dict[str, Any]] | None: ...


@runtime_checkable
class Explainer(Protocol):
    """Who knows what is behind a number."""

    kinds: Sequence[str]
    kinds_at: Sequence[str]

    async def explain(  # noqa: PLR0913 - one argument a choice
        self, pool: asyncpg.Pool, kind: str, key: str, *, limit: int, days: int, at: datetime | None
    ) -> Sequence[Section] | None:
        """What is shown of one thing; None where nothing is known of it."""

    async def listed(self, pool: asyncpg.Pool, kind: str, *, limit: int) -> Sequence[Section]:
        """The things of one kind that a sum on the overview is made of."""


@get("/ops/explain", **AS_PAGE)
async def explain_form(  # noqa: PLR0913, PLR0917 - one parameter a choice
    request: AnyRequest,
    console: NamedDependency[Console],
    explainer: NamedDependency[Explainer],
    kind: FromQuery[str] = "",
    key: Id = "",
    at: FromQuery[str] = "",
) -> Response[Any]:
    """The form; once it is filled in, the way to what it asks for."""
    if kind in explainer.kinds:
        asked = {"id": key} | ({"at": at} if at.strip() else {})
        return redirect(f"/ops/explain/{kind}" + (f"?{urlencode(asked)}" if key else ""))
    return _page(request, console, explainer)


@get("/ops/explain/{kind:str}", **AS_PAGE)
async def explain_page(  # noqa: PLR0913, PLR0917 - one parameter a choice
    request: AnyRequest,
    console: NamedDependency[Console],
    explainer: NamedDependency[Explainer],
    pool: NamedDependency[asyncpg.Pool],
    kind: FromPath[str],
    key: Id = "",
    at: FromQuery[str] = "",
    limit: Rows = ROWS,
    days: Days = 30,
) -> Response[str]:
    """What is behind one number; without an id, the things that the number of this kind is the sum of."""
    if kind not in explainer.kinds:
        raise RequestError(404, f"takes one of {', '.join(explainer.kinds)}")
    asked: dict[str, Any] = {"kind": kind, "key": key, "at": at.strip()}
    try:
        moment = _moment(explainer, kind, at.strip())
        if key:
            looking = explainer.explain(pool, kind, key, limit=limit, days=days, at=moment)
        else:
            looking = explainer.listed(pool, kind, limit=limit)
        sections = await _found(looking, f"{kind} {key}")
    except RequestError as error:
        return _page(request, console, explainer, error.status, **asked, trouble=error.detail)
    more = None if limit == MOST_ROWS or not key else _address(kind, key, moment, days, MOST_ROWS)
    return _page(request, console, explainer, **asked, sections=sections, more=more)


def _moment(explainer: Explainer, kind: str, at: str) -> datetime | None:
    """The time that is asked for; raises 422 where it is none, or where this kind has none."""
    if not at:
        return None
    try:
        moment = parse_moment(at)
    except ValueError as error:
        raise RequestError(422, f"The time {error}.") from None
    if kind not in explainer.kinds_at:
        raise RequestError(422, f"As of a time there are {', '.join(explainer.kinds_at)}.")
    return moment


async def _found(looking: Coroutine[Any, Any, Sequence[Section] | None], what: str) -> Sequence[Section]:
    """What is found in time; raises 404 where nothing is known, 503 where the database does not answer."""
    try:
        found = await within(LONGEST_S, looking)
    except Exception as error:
        if not is_away(error):
            raise
        told = "The database cannot be reached, or takes too long to answer. Try again."
        raise RequestError(503, told) from error
    if found is None:
        raise RequestError(404, f"Nothing is known of the {what}.")
    return found


def _address(kind: str, key: str, at: datetime | None, days: int, limit: int) -> str:
    asked = {"id": key, "limit": limit, "days": days} | ({} if at is None else {"at": moment_text(at)})
    return f"/ops/explain/{kind}?{urlencode(asked)}"


def _page(
    request: AnyRequest, console: Console, explainer: Explainer, status: int = 200, **values: Any
) -> Response[str]:
    blank: dict[str, Any] = {"kind": "", "key": "", "at": "", "trouble": "", "sections": (), "more": None}
    kinds = {"kinds": explainer.kinds, "kinds_at": explainer.kinds_at}
    return console.page(request, "explain.html", status, **kinds, **(blank | values))


EXPLAIN_PAGES = (explain_form, explain_page)
