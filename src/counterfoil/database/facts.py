"""What the road hands to a slice, and what it gets back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from counterfoil.database.connection import Connection

E = TypeVar("E")

PLAN_SLICE = 500
"""Events planned before the loop may turn: about half a millisecond."""


@dataclass(slots=True)
class Facts(Generic[E]):
    """Events of one type in a batch, with the record that each came from: `source_ids[i]`, `offsets[i]`."""

    events: list[E] = field(default_factory=list)
    source_ids: list[int] = field(default_factory=list)
    offsets: list[int] = field(default_factory=list)


def _nothing() -> set[int]:
    return set()


@dataclass(frozen=True, slots=True)
class Outcome:
    """What writing came to, by index of the event; an event in neither set had nothing to add.

    `unchanged` are those whose rows were all there already; `changed`, asked for only where something is unchanged,
    answers those that added or changed a row.
    """

    unchanged: frozenset[int] | set[int] = frozenset()
    changed: Callable[[], set[int]] = _nothing


class Handler(Protocol):
    """Records the events of one type in one ledger: decides first, without I/O, then writes.

    Deciding is done while the batch before is being committed.
    """

    async def plan(self, facts: Facts[Any]) -> Any:
        """What these events ask to be written; lets the loop turn on the way."""
        ...

    async def write(self, connection: Connection, plan: Any) -> Outcome:
        """Write a plan; the caller owns the transaction."""
        ...
