"""Malformed records of people who are forgotten: they are parked without their bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from counterfoil.database.forgotten import Forgotten
from counterfoil.events.readings import possible_people
from counterfoil.ingest.records import Malformed, Record, StoredRecord

ERASED = "erased"
"""The reason of a record whose bytes are erased, instead of what was wrong with it."""


def erase_forgotten(malformed: Sequence[Malformed], forgotten: Forgotten) -> list[Malformed]:
    """The same, and of those that name somebody who is forgotten only that there was a record."""
    return [_erased(each) if _names(each.record, forgotten) else each for each in malformed]


def _names(record: Record, forgotten: Forgotten) -> bool:
    parts = [record.key, record.value]
    for name, value in record.headers:
        parts += [name.encode("utf-8", "surrogateescape"), value]
    people = set().union(*(possible_people(part) for part in parts if part))
    return any(forgotten.pseudonym(person) is not None for person in people)


def _erased(malformed: Malformed) -> Malformed:
    record = malformed.record
    bare = StoredRecord(record.topic, record.partition, record.offset, record.timestamp, None, None)
    return replace(malformed, record=bare, reason=ERASED)
