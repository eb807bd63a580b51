"""Columns of many rows as one text each: asyncpg takes a microsecond and more to put a row into arrays, this a third.

https://www.postgresql.org/docs/current/functions-string.html (string_to_array)
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

SEPARATOR = "\x1f"
"""The unit separator: a control character, which no id, no code and no text that is kept holds."""

NULL = "\x1e"
"""Stands for what is missing."""

_YEAR_2000 = datetime(2000, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def joined_ids(ids: Sequence[str]) -> str:
    """Ids or codes as a statement takes them apart; raises ValueError for one that holds the separator."""
    text = SEPARATOR.join(ids)
    if text.count(SEPARATOR) != len(ids) - 1:
        raise ValueError("an id holds a control character")
    return text


def joined_times(times: Sequence[datetime]) -> str:
    """Times as microseconds since 2000."""
    return SEPARATOR.join([str((time - _YEAR_2000) // _MICROSECOND) for time in times])


def joined_texts(texts: Sequence[str | None]) -> str:
    """Texts that may be missing; raises ValueError for one that holds the separator."""
    return joined_ids([NULL if text is None else text for text in texts])


def joined_numbers(numbers: Sequence[int]) -> str:
    """Whole numbers; truth is 1 or 0."""
    return SEPARATOR.join([str(int(number)) for number in numbers])
