"""What the endpoints that report facts share: a body becomes an event by the rules of its topic, and is published."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any, Protocol, TypeVar, runtime_checkable

import msgspec
from litestar.connection import ASGIConnection
from litestar.handlers import HTTPRouteHandler
from litestar.handlers.base import BaseRouteHandler

from counterfoil.api.problems import RETRY_AFTER_S, invalid_field
from counterfoil.api.requests import read_id, refusals
from counterfoil.api.writing import camel_case
from counterfoil.errors import DependencyUnreachable, InvalidEvent, RequestError
from counterfoil.events import Event, Headers, Rules
from counterfoil.events.rules import MISSING_FIELD
from counterfoil.settings import Settings

REPORTS = "reports"
"""`opt={REPORTS: "click"}` on a route handler: the topic, by its default name, that it publishes to."""

E = TypeVar("E", bound=Event)

Decode = Callable[[bytes, Headers, int, Rules], E]

_BLANKS = b" \t\n\r"
"""What JSON has between its tokens."""


@runtime_checkable
class Publisher(Protocol):
    """The dependency `publisher` of a route."""

    async def publish(self, event: Event) -> object:
        """Return once Kafka has acknowledged the event; raises DependencyUnreachable when it does not in time."""
        ...


async def report(publisher: Publisher, event: Event) -> None:
    """Publish, so that the caller may be answered 202; raises 503 when Kafka has not acknowledged it."""
    try:
        await publisher.publish(event)
    except DependencyUnreachable as error:
        raise RequestError(
            503, "Kafka has not acknowledged this; send it again", retry_after=RETRY_AFTER_S
        ) from error


class Switch:
    """Its `guard` refuses reports to topics that this worker does not read: the feature switch of HTTP."""

    def __init__(self, settings: Settings) -> None:
        self._consumed = frozenset(settings.consumers)

    async def guard(self, _connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
        """Raise 503; without Retry-After, since only the operator knows when."""
        topic = handler.opt.get(REPORTS)
        if topic is not None and topic not in self._consumed:
            raise RequestError(
                503,
                f"{topic}s are switched off: COUNTERFOIL_CONSUMERS of this worker leaves `{topic}` out",
            )


def reported_topics(handlers: Iterable[HTTPRouteHandler]) -> tuple[str, ...]:
    """The topics that these handlers publish to, by default names."""
    return tuple(dict.fromkeys(handler.opt[REPORTS] for handler in handlers if REPORTS in handler.opt))


def read_event(decode: Decode[E], body: bytes, settings: Settings) -> E:
    """The body as a record of its topic would be read, of the present where it names no time.

    Raises 400 for what is no JSON object, 422 naming the field that breaks a rule.
    """
    with refusals():
        return decode(body, (), _now_ms(), Rules.of(settings))


def read_event_about(name: str, path_id: str, decode: Decode[E], body: bytes, settings: Settings) -> E:
    """As `read_event`, about what the path names: the body need not name it, and 422 when it names another.

    `name` is the field of that id, which is the event's key.
    """
    wanted = read_id(path_id, camel_case(name))
    with refusals():
        event = _named_or_decoded(name, wanted, decode, body, settings)
    if event.key != wanted:
        raise invalid_field(camel_case(name), "must be left out, or be the one in the path")
    return event


def _named_or_decoded(name: str, wanted: str, decode: Decode[E], body: bytes, settings: Settings) -> E:
    now_ms, rules = _now_ms(), Rules.of(settings)
    try:
        return decode(body, (), now_ms, rules)
    except InvalidEvent as error:
        if (error.kind, error.field) != (MISSING_FIELD, name):
            raise
    return decode(_with_member(body, name, wanted), (), now_ms, rules)


def _with_member(body: bytes, name: str, value: str) -> bytes:
    """The JSON object with one more member, at its end: the last of several with one name counts."""
    members = body.rstrip(_BLANKS).removesuffix(b"}")
    separator = b"" if members.rstrip(_BLANKS).endswith(b"{") else b","
    return b"%b%b%b" % (members, separator, msgspec.json.encode({name: value})[1:])


def _now_ms() -> int:
    return int(datetime.now(UTC).timestamp() * 1_000)
