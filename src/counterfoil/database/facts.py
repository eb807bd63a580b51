"""What the road hands to a slice, and what it gets back."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, ClassVar, Generic, Protocol, TypeAlias, TypeVar, runtime_checkable

from counterfoil.database.connection import Connection
from counterfoil.database.locks import Lock
from counterfoil.database.turns import TURNS

E = TypeVar("E")

PLAN_SLICE = 500
"""Events planned before the loop may turn: about half a millisecond."""

Counted: TypeAlias = Mapping[tuple[str, tuple[str, ...]], int]
"""(a counter's name in the metrics, its labels) → how many."""


def _unknown(index: int) -> str:
    raise LookupError(f"the origin of event {index} is not known")


@dataclass(slots=True)
class Facts(Generic[E]):
    """Events of one type in a batch, with the record that each came from: `source_ids[i]`, `offsets[i]`.

    `origin(i)` names that record for ever and everywhere: cluster, topic, partition, offset and the record's timestamp.
    """

    events: list[E] = field(default_factory=list)
    source_ids: list[int] = field(default_factory=list)
    offsets: list[int] = field(default_factory=list)
    origin: Callable[[int], str] = _unknown


def derived_id(origin: str) -> str:
    """The id of a fact whose event names none, from the record that it came in."""
    return sha256(origin.encode()).hexdigest()[:32]


def _nothing() -> set[int]:
    return set()


@dataclass(frozen=True, slots=True)
class Outcome:
    """What writing came to, by index of the event; an event in neither set had nothing to add.

    `unchanged` are those whose rows were all there already; `changed`, asked for only where something is unchanged,
    answers those that added or changed a row. `refused` counts contents that do not stand, and were not known yet.
    `observed` are values for histograms, by the name that each has in the metrics; `counted` are additions to counters,
    by name and labels.
    """

    unchanged: frozenset[int] | set[int] = frozenset()
    changed: Callable[[], set[int]] = _nothing
    refused: int = 0
    observed: Mapping[str, Sequence[float]] = field(default_factory=dict)
    counted: Counted = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Plan(Generic[E]):
    """Rows that some events ask for, one an event at most, sorted by key; each ends with its source id and offset.

    `others` are those of the same keys that do not stand against them, `again` those that say the same once more.
    """

    facts: Facts[E]
    rows: Sequence[tuple[Any, ...]]
    others: Sequence[tuple[Any, ...]] = ()
    again: Sequence[tuple[Any, ...]] = ()

    def outcome(self, known: Collection[tuple[Any, ...]], key_size: int, refused: int = 0) -> Outcome:
        """What writing the rows came to, but for those of the known keys: these were there already."""
        everything = set(range(len(self.facts.events)))
        if not known and len(self.rows) == len(everything):
            return Outcome(changed=lambda: everything, refused=refused)
        sources = {tuple(row[-2:]) for row in self.rows if row[:key_size] not in known}
        pairs = zip(self.facts.source_ids, self.facts.offsets, strict=True)
        changed = {index for index, source in enumerate(pairs) if source in sources}
        return Outcome(unchanged=everything - changed, changed=lambda: changed, refused=refused)


class StandingRow(Protocol):
    """A row that stands or gives way: of several with one key the one with the smallest content stands."""

    @property
    def key(self) -> tuple[Any, ...]:
        """What there is one of."""
        ...

    @property
    def content(self) -> tuple[Any, ...]:
        """What decides; it begins with the time of the fact."""
        ...


async def plan_standing(facts: Facts[E], row_of: Callable[[Facts[E], int], StandingRow]) -> Plan[E]:
    """The rows that stand, sorted by key, and of the others those that say something else."""
    rows: dict[tuple[Any, ...], Any] = {}
    others: list[Any] = []
    again: list[Any] = []
    for start in range(0, len(facts.events), PLAN_SLICE):
        for index in range(start, min(start + PLAN_SLICE, len(facts.events))):
            row: Any = row_of(facts, index)
            first = rows.setdefault(row.key, row)
            if row is first:
                continue
            if row.content == first.content:
                again.append(row)
            else:
                rows[row.key], other = sorted((row, first), key=_content)
                others.append(other)
        await TURNS.preparing()
    return Plan(facts, [rows[key] for key in sorted(rows)], others, again)  # same lock order in every worker


def _content(row: StandingRow) -> tuple[Any, ...]:
    return row.content


class Handler(Protocol):
    """Records the events of one type in one ledger: decides first, without I/O, then writes.

    Deciding is done while the batch before is being committed. `locks` are those that its ledger's triggers take.
    """

    locks: ClassVar[tuple[Lock, ...]]

    async def plan(self, facts: Facts[Any]) -> Any:
        """What these events ask to be written; lets the loop turn on the way."""
        ...

    async def write(self, connection: Connection, plan: Any) -> Outcome:
        """Write a plan; the caller owns the transaction."""
        ...


@runtime_checkable
class HoldsRows(Protocol):
    """A handler of facts that are counted in rows which those of other topics are counted in too.

    Its ledger's triggers hold these rows. A transaction of several such handlers holds them all before the first of
    them writes, by the statement named `holds`, which takes their keys.
    """

    holds: ClassVar[str]

    def held(self, plan: Any) -> Collection[str]:
        """The keys of the rows that writing a plan will hold."""
        ...
