"""What the road hands to a handler, and what it gets back."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Generic, TypeVar

E = TypeVar("E")


@dataclass(slots=True)
class Facts(Generic[E]):
    """Events of one type in a batch, with the record that each came from: `source_ids[i]`, `offsets[i]`."""

    events: list[E] = field(default_factory=list)
    source_ids: list[int] = field(default_factory=list)
    offsets: list[int] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Outcome:
    """By index of their event: those that added or changed a row, and those whose rows were all there already.

    An event in neither had nothing to add.
    """

    changed: frozenset[int] | set[int]
    unchanged: frozenset[int] | set[int]
