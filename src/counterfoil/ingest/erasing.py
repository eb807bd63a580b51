"""Malformed records of people who are forgotten: they are parked without their bytes."""

from __future__ import annotations

from dataclasses import replace

from counterfoil.database.forgotten import Forgotten
from counterfoil.events.readings import possible_people
from counterfoil.ingest.records import Malformed, Record, StoredRecord

ERASED = "erased"
"""The reason of a record whose bytes are erased, instead of what was wrong with it."""


def erase_forgotten(
    malformed: list[Malformed], forgotten: Forgotten, version: int, user_topic: str | None
) -> None:
    """Leave of those that name somebody who is forgotten only that there was a record.

    What has been looked at as of this version is not again. On the topic of users a key is a person's id.
    """
    for index, each in enumerate(malformed):
        if each.looked_at != version:
            found = _erased(each) if _names(each.record, forgotten, user_topic) else each
            malformed[index] = replace(found, looked_at=version)


def _names(record: Record, forgotten: Forgotten, user_topic: str | None) -> bool:
    parts = [record.key, record.value]
    for name, value in record.headers:
        parts += [name.encode("utf-8", "surrogateescape"), value]
    people = set().union(*(possible_people(part) for part in parts if part))
    if record.topic == user_topic and record.key:
        people.add(record.key.decode("utf-8", "replace"))
    return any(forgotten.pseudonym(person) is not None for person in people)


def _erased(malformed: Malformed) -> Malformed:
    record = malformed.record
    bare = StoredRecord(record.topic, record.partition, record.offset, record.timestamp, None, None)
    return replace(malformed, record=bare, reason=ERASED)
