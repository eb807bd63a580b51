"""Which records a replay is about: by time, by partition, by offset."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, TypeVar

from counterfoil.errors import InvalidSetting
from counterfoil.ingest.records import EPOCH, Record, storable

MILLISECOND = timedelta(milliseconds=1)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Share:
    """What one of `count` processes reads of a log: every `count`th partition, the first is `number`."""

    number: int = 0
    count: int = 1

    def of(self, partitions: Sequence[T]) -> Sequence[T]:
        """Those of all partitions, sorted, that belong to it."""
        return partitions[self.number :: self.count]


WHOLE = Share()


@dataclass(frozen=True, slots=True)
class Window:
    """Records of `since` ≤ timestamp < `until`, of these partitions and `first_offset` ≤ offset < `end_offset`.

    The timestamps are those of the records, not of the facts in them. What is None does not limit.
    """

    since: datetime | None = None
    until: datetime | None = None
    partitions: frozenset[int] | None = None
    first_offset: int | None = None
    end_offset: int | None = None

    @property
    def is_whole(self) -> bool:
        """Whether every record of a log is in it."""
        return self == Window()

    @property
    def since_ms(self) -> int | None:
        """The first millisecond that is in it."""
        return None if self.since is None else _ceiling(self.since)

    @property
    def until_ms(self) -> int | None:
        """The first millisecond that is no longer in it."""
        return None if self.until is None else _ceiling(self.until)

    def has(self, partition: int) -> bool:
        """Whether it is about this partition."""
        return self.partitions is None or partition in self.partitions

    def select(self, records: Sequence[Record]) -> Sequence[Record]:
        """Those of a partition's records that are in it by time and offset."""
        since, until = self.since_ms, self.until_ms
        if since is not None:
            records = [record for record in records if storable(record.timestamp) >= since]
        if until is not None:
            records = [record for record in records if storable(record.timestamp) < until]
        if self.first_offset is not None:
            records = [record for record in records if record.offset >= self.first_offset]
        if self.end_offset is not None:
            records = [record for record in records if record.offset < self.end_offset]
        return records

    def as_dict(self) -> dict[str, Any]:
        """As it is written in a summary; the same for the same window."""
        return {
            "from": None if self.since is None else self.since.isoformat(),
            "to": None if self.until is None else self.until.isoformat(),
            "partitions": None if self.partitions is None else sorted(self.partitions),
            "from_offset": self.first_offset,
            "to_offset": self.end_offset,
        }


def _ceiling(moment: datetime) -> int:
    """Milliseconds since 1970, the part of one counted as whole: records know no smaller time."""
    return -((EPOCH - moment) // MILLISECOND)


def time_of(option: str, text: str | None) -> datetime | None:
    """The time that an option names; raises InvalidSetting for what is none."""
    if text is None:
        return None
    try:
        if len(text) == len("2026-03-01"):
            return datetime.combine(date.fromisoformat(text), time(), UTC)
        found = datetime.fromisoformat(text)
        if found.tzinfo is not None:
            return found.astimezone(UTC)
    except (ValueError, OverflowError):  # the latter in the first and the last hours that a datetime can say
        pass
    raise InvalidSetting(
        f"{option}: takes a time with its zone, such as 2026-03-01T12:00:00Z, or a day (UTC), 2026-03-01; "
        f"not {text!r}"
    )
