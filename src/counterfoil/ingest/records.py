"""Records as they come from Kafka, and those that break a rule."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Protocol, TypeAlias

Headers: TypeAlias = Sequence[tuple[str, bytes | None]]

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Record(Protocol):
    """The parts of an aiokafka ConsumerRecord that we read; `timestamp` in milliseconds since 1970, -1 for none."""

    @property
    def topic(self) -> str: ...
    @property
    def partition(self) -> int: ...
    @property
    def offset(self) -> int: ...
    @property
    def timestamp(self) -> int: ...
    @property
    def key(self) -> bytes | None: ...
    @property
    def value(self) -> bytes | None: ...
    @property
    def headers(self) -> Headers: ...


@dataclass(frozen=True, slots=True)
class StoredRecord:
    """A record that was kept: a parked one, or one made by hand."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Headers = ()


@dataclass(frozen=True, slots=True)
class Malformed:
    """A record that cannot become an event, and why: `kind` is a constant, `reason` names field and rule.

    `looked_at` is the version of who is forgotten as of which it names none of them; 0 before anybody has looked.
    """

    record: Record
    kind: str
    reason: str
    looked_at: int = 0


def origin_of(cluster_id: str, record: Record | StoredRecord) -> str:
    """Names a record for ever and everywhere: a replay of the same log reads it under the same name."""
    return f"{cluster_id}/{record.topic}/{record.partition}/{record.offset}/{storable(record.timestamp)}"


def next_offset(record: Record) -> int:
    """The offset that a reader of this record stands at afterwards."""
    return record.offset + 1


NO_TIMESTAMP = -1
LATEST_TIMESTAMP = 253_402_214_400_000
"""The last day that a datetime can say."""


def storable(milliseconds: int) -> int:
    """A record's timestamp as it is stored: a producer may write any 64 bits there, microseconds for instance."""
    return min(max(milliseconds, NO_TIMESTAMP), LATEST_TIMESTAMP)


def timestamp_of(milliseconds: int) -> datetime:
    """A record's timestamp as a time; -1, for none, is the millisecond before 1970."""
    return EPOCH + timedelta(milliseconds=storable(milliseconds))


def milliseconds_of(time: datetime) -> int:
    """The inverse of timestamp_of."""
    return (time - EPOCH) // timedelta(milliseconds=1)


def headers_to_json(headers: Headers) -> str:
    """Headers as a JSON array of [name, value]; a value that PostgreSQL's text cannot hold stands as base64."""
    return json.dumps(
        [
            [text_or_base64(name.encode("utf-8", "surrogateescape")), text_or_base64(value)]
            for name, value in headers
        ]
    )


def headers_from_json(text: str) -> list[tuple[str, bytes | None]]:
    """The inverse of headers_to_json."""
    return [
        ((bytes_of(name) or b"").decode("utf-8", "surrogateescape"), bytes_of(value))
        for name, value in json.loads(text)
    ]


def text_or_base64(value: bytes | None) -> str | dict[str, str] | None:
    """Bytes as JSON can say them: as text where they are UTF-8 without NUL, else as {"base64": …}."""
    if value is None:
        return None
    try:
        text = value.decode("utf-8")
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(value).decode("ascii")}
    return {"base64": base64.b64encode(value).decode("ascii")} if "\0" in text else text


def bytes_of(value: str | dict[str, str] | None) -> bytes | None:
    """The inverse of text_or_base64."""
    if value is None:
        return None
    return base64.b64decode(value["base64"]) if isinstance(value, dict) else value.encode("utf-8")
