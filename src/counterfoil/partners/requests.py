"""What requests about partners say: filters and groups, by the rules of events."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Literal

from litestar.params import FromPath, FromQuery, QueryParameter

from counterfoil.api.problems import invalid_field
from counterfoil.errors import InvalidEvent, RequestError
from counterfoil.events import rules
from counterfoil.partners.earnings import GROUPS, Filter

_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}").fullmatch

Status = Literal["pending", "approved", "paid", "canceled"]
From = Annotated[
    str | None, QueryParameter(name="from", description="from this day (UTC) or RFC 3339 time on")
]
To = Annotated[
    str | None,
    QueryParameter(name="to", description="up to the end of this day (UTC), or before this RFC 3339 time"),
]
Format = Annotated[
    Literal["json", "csv"] | None, QueryParameter(description="json unless Accept prefers text/csv")
]
GroupBy = Annotated[
    str | None,
    QueryParameter(
        name="groupBy", description=f"sums by {', '.join(GROUPS)}, currency: some of them, by commas"
    ),
]


def read_filter(  # noqa: PLR0913, PLR0917 - one parameter a filter
    partner_id: FromPath[str],
    program: FromQuery[str | None] = None,
    link: FromQuery[str | None] = None,
    order: FromQuery[str | None] = None,
    status: FromQuery[Status | None] = None,
    currency: FromQuery[str | None] = None,
    since: From = None,
    until: To = None,
) -> Filter:
    """The query's filters by the rules of events; the dependency `wanted` of a route."""
    return Filter(
        read_partner_id(partner_id),
        _identity(program, "program"),
        _identity(link, "link"),
        _identity(order, "order"),
        status,
        read_currency(currency),
        _moment(since, "from", timedelta(0)),
        _moment(until, "to", timedelta(days=1)),
    )


def read_groups(value: str | None) -> Sequence[str] | None:
    """What to group by; None where single commissions are asked for."""
    if value is None:
        return None
    groups = [part.strip() for part in value.split(",")]
    if unknown := [group for group in groups if group not in {*GROUPS, "currency"}]:
        raise invalid_field("groupBy", f"takes {', '.join(GROUPS)} and currency, by commas; not {unknown[0]}")
    return groups


def read_partner_id(value: str) -> str:
    """A partner's id by the rules of ids; raises 404 for one that breaks them: it is nobody's."""
    try:
        found = rules.identity(value, "partnerId", _nobody)
    except InvalidEvent:
        found = None
    if found is None:
        raise unknown_partner()
    return found


def read_currency(value: str | None) -> str | None:
    """Three letters in upper case, None when missing; raises 422."""
    try:
        return rules.currency(value, "currency", _nobody)
    except InvalidEvent as error:
        raise invalid_field(error.field, error.rule) from None


def unknown_partner() -> RequestError:
    """The refusal of a partner that is not there."""
    return RequestError(404, "there is no such partner")


def _identity(value: str | None, name: str) -> str | None:
    try:
        return rules.identity(value, name, _nobody)
    except InvalidEvent as error:
        raise invalid_field(error.field, error.rule) from None


def _moment(value: str | None, name: str, of_a_day: timedelta) -> datetime | None:
    """The moment; of a day its beginning and what is added to it."""
    if value is None:
        return None
    try:
        if _DAY(value):
            return datetime.fromisoformat(value).replace(tzinfo=UTC) + of_a_day
        moment = datetime.fromisoformat(value)
        if moment.tzinfo is not None:
            return moment.astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    raise invalid_field(name, "must be a day like 2026-01-31, or an RFC 3339 time with zone")


def _nobody(_field: str) -> None:
    """Normalised values are counted for events, not for requests."""
