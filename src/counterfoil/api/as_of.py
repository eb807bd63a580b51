"""`?at=`: a number as of an event time, what the facts with a time up to then come to."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Annotated

from litestar.params import QueryParameter

from counterfoil.api.problems import invalid_field
from counterfoil.errors import InvalidEvent
from counterfoil.events import rules

RULE = "must be an RFC 3339 time with zone, like 2026-01-31T12:00:00Z"

_OF_NO_RECORD = -1
"""In place of the timestamp of a record, which an event's time may not be much later than."""

HEADER = "X-As-Of"
"""On every answer to a request with `at`: the time that it is of."""

At = Annotated[
    str | None,
    QueryParameter(
        name="at",
        description="an RFC 3339 time: the numbers as of this event time, of the facts up to then alone",
    ),
]


def parse_moment(text: str) -> datetime:
    """The moment in UTC, read as an event's time is; raises ValueError, which says the rule, for what has no zone."""
    with suppress(InvalidEvent, OverflowError):
        return rules.event_time(text, "at", _OF_NO_RECORD, _nobody)
    try:  # before the year 2000 there are no events, and yet a time to ask for
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is not None:
            return moment.astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    raise ValueError(RULE)


def _nobody(field: str) -> None:
    """What a rule would say that it has changed is of no interest here."""


def read_at(value: str | None) -> datetime | None:
    """The query's `at`, None where it is not given; raises 422 naming it."""
    if value is None:
        return None
    try:
        return parse_moment(value)
    except ValueError as error:
        raise invalid_field("at", str(error)) from None


def moment_text(moment: datetime) -> str:
    """The moment in UTC, with as much of its fraction as it has, and milliseconds at least."""
    precision = "microseconds" if moment.microsecond % 1000 else "milliseconds"
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec=precision) + "Z"


def as_of_header(at: datetime | None) -> Mapping[str, str]:
    """The headers that an answer carries where it is of a time."""
    return {} if at is None else {HEADER: moment_text(at)}
