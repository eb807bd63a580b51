"""What the endpoints that report facts share: a body becomes an event by the rules of its topic, and is published."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Protocol, TypeVar, runtime_checkable

from counterfoil.api.problems import RETRY_AFTER_S, invalid_field
from counterfoil.api.writing import camel_case
from counterfoil.errors import DependencyUnreachable, InvalidEvent, RequestError
from counterfoil.events import Event, Headers, Rules
from counterfoil.events.rules import MISSING_FIELD
from counterfoil.settings import Settings

E = TypeVar("E", bound=Event)


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


def read_event(decode: Callable[[bytes, Headers, int, Rules], E], body: bytes, settings: Settings) -> E:
    """The body as a record of its topic would be read, of the present where it names no time.

    Raises 400 for what is no JSON object, 422 naming the field that breaks a rule.
    """
    now_ms = int(datetime.now(UTC).timestamp() * 1_000)
    try:
        return decode(body, (), now_ms, Rules.of(settings))
    except InvalidEvent as error:
        if not error.field:
            raise RequestError(400, f"the body {error.rule}") from None
        missing = error.kind == MISSING_FIELD
        raise invalid_field(camel_case(error.field) if missing else error.field, error.rule) from None
