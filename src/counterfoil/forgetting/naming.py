"""Whether a record names somebody: an id as a word of its own, however the bytes write it."""

from __future__ import annotations

import re
from collections.abc import Collection

from counterfoil.events.readings import NUMBER_ENDS, OF_A_PERSON, readings

_BEFORE, _AFTER = r"(?<![\w@-])(?<!\w[.+])", r"(?![\w@-]|[.+]\w)"
"""Where a word begins and ends: `c_1` is none in `c_12`, `x-c_1` or `c_1@shop.com`."""

_OF_A_CLICK = r"(?<![\w-])(?:[Cc]lick[\w-]{0,40}|id)[\"']?\s*[:=]\s*[\"']?"

_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}").fullmatch


class Naming:
    """Knows what names somebody in key, value and headers of a record.

    An id of digits alone is a number like any other: it is looked for in fields that are called after a person.
    """

    def __init__(self, pattern: re.Pattern[str], own_topic: str | None = None, key: str = "") -> None:
        self._pattern = pattern
        self._own_topic = own_topic
        self._key = key

    @classmethod
    def of_person(cls, person: str, user_topic: str) -> Naming:
        """What names a person; on their own topic the key of a record is a user's id."""
        literal = re.escape(person)
        if person.isdecimal():
            return cls(re.compile(f"{OF_A_PERSON}{literal}{NUMBER_ENDS}", re.IGNORECASE), user_topic, person)
        case = re.IGNORECASE if _UUID(person) else re.NOFLAG
        return cls(re.compile(f"{_BEFORE}{literal}{_AFTER}", case))

    @classmethod
    def of_clicks(cls, ids: Collection[str]) -> Naming:
        """What names one of these clicks on their own topic; digits alone do in fields that hold a click's id."""
        literals = {one: re.escape(one) for one in sorted(ids, key=len, reverse=True)}
        words = "|".join(literal for one, literal in literals.items() if not one.isdecimal())
        numbers = "|".join(literal for one, literal in literals.items() if one.isdecimal())
        patterns = (
            *([f"{_BEFORE}(?:{words}){_AFTER}"] if words else ()),
            *([f"{_OF_A_CLICK}(?:{numbers}){NUMBER_ENDS}"] if numbers else ()),
        )
        return cls(re.compile("|".join(patterns)))

    def in_record(self, topic: str, key: bytes | None, *parts: bytes | None) -> bool:
        """Whether a record names them."""
        if topic == self._own_topic and key == self._key.encode():
            return True
        return any(self._in(part) for part in (key, *parts) if part)

    def _in(self, part: bytes) -> bool:
        return any(self._pattern.search(text) for text in readings(part))
