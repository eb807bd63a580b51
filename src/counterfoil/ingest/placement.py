"""Where fetched records stand against what is wanted next: the rules, without I/O.

Records below the wanted offset were accounted for and are dropped. Records beyond it leave a gap, and a gap is only
believed when a second fetch from its start shows it again: compaction and transaction markers do, a lost seek doesn't.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter

from counterfoil.ingest.partitions import PartitionState
from counterfoil.ingest.records import Record, next_offset, storable

_offset = attrgetter("offset")


@dataclass(frozen=True, slots=True)
class Placement:
    """What to do with fetched records: take some, then perhaps seek; or begin anew on a replaced log."""

    records: Sequence[Record] = ()
    seek_to: int | None = None
    replaced: str | None = None
    gaps: tuple[tuple[int, int], ...] = ()


def place(state: PartitionState, records: Sequence[Record]) -> Placement:
    """Decide for the records of one fetch, which is not empty; remembers suspected gaps in the state."""
    if state.sought is None:
        return Placement(seek_to=state.expected)
    replaced = _replaced(state, records[0])
    if replaced:
        return Placement(replaced=replaced)
    state.anchor = None
    wanted = records[bisect_left(records, state.expected, key=_offset) :]
    if not wanted:
        return Placement()
    if wanted[-1].offset - state.expected + 1 == len(wanted):
        return Placement(wanted)
    return _without_unproven_gaps(state, wanted)


def _replaced(state: PartitionState, first: Record) -> str | None:
    if state.sought is not None and first.offset < state.sought:
        return f"asked for offset {state.sought}, it ends before that"
    anchor = state.anchor
    if anchor and first.offset == anchor.offset and storable(first.timestamp) != anchor.timestamp:
        return f"the record at offset {first.offset} is another one"
    return None


def _without_unproven_gaps(state: PartitionState, wanted: Sequence[Record]) -> Placement:
    """The records before the first gap that only one fetch has shown, and a seek back to that gap."""
    at = state.expected
    cut: int | None = None
    proven: list[tuple[int, int]] = []
    suspected: set[tuple[int, int]] = set()
    for index, record in enumerate(wanted):
        gap = (at, record.offset)
        at = next_offset(record)
        if gap[0] == gap[1]:
            continue
        if cut is None and gap in state.suspected:
            proven.append(gap)
        else:
            suspected.add(gap)
            cut = index if cut is None else cut
    state.suspected = suspected
    if cut is None:
        return Placement(wanted, gaps=tuple(proven))
    seek_to = next_offset(wanted[cut - 1]) if cut else state.expected
    return Placement(wanted[:cut], seek_to=seek_to, gaps=tuple(proven))
