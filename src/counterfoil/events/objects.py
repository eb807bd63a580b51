"""The input rule of objects whose content is an outsider's: they become text that PostgreSQL's jsonb takes as it is.

Numbers are kept exactly, in plain digits. One with an exponent beyond a thousand becomes a string: jsonb would refuse
it, or else make a hundred thousand digits of a few each time it is read.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Final

import msgspec

from counterfoil.events.rules import SURROGATES, Candidates, Normalised, Number, invalid

MAX_OBJECT_BYTES: Final = 16_384
"""Of the compact text, in UTF-8."""

MAX_EXPONENT: Final = 1_000
"""Of a number, either way; a double's are below 325."""

EMPTY_OBJECT: Final = "{}"
_DROPPED: Final = {"_dropped": "too_large"}

_BACKSLASH, _WRITTEN_NUL = b"\\", b"\\u0000"  # a byte is looked for much faster than bytes are


class _UnusualNumber(Exception):
    """A number is not written in plain digits, or as a negative zero."""


class _TooLarge(Exception):
    """An object has more than MAX_OBJECT_BYTES."""


def _in_plain_digits(number: Number) -> msgspec.Raw:
    literal = number.literal
    if "e" in literal or "E" in literal or (literal[0] == "-" and not literal.strip("-0.")):
        raise _UnusualNumber
    return msgspec.Raw(literal)


_UNFIT = (UnicodeEncodeError, _UnusualNumber)
_compact = msgspec.json.Encoder(enc_hook=_in_plain_digits, order="sorted").encode


def object_text(value: object, field: str, normalised: Normalised, path: str = "") -> str | None:
    """The object as compact JSON; null is missing, and one that is too large tells only that."""
    if type(value) is not dict:
        if value is None:
            return None
        raise invalid(path or field, "must be an object")
    try:
        text = _compact(value)
    except _UNFIT:
        return _compact(_mended(value, field, normalised)).decode()
    if _BACKSLASH in text or len(text) > MAX_OBJECT_BYTES:
        return _compact(_fitting(value, text, field, normalised)).decode()
    return text.decode()


def canonical_text(value: object, field: str, normalised: Normalised, path: str = "") -> str | None:
    """The object as jsonb itself writes it, so that two compare here as their texts do in PostgreSQL.

    Equal objects have equal texts: a fraction does not end in zeros.
    """
    if type(value) is not dict:
        if value is None:
            return None
        raise invalid(path or field, "must be an object")
    if not value:
        return EMPTY_OBJECT
    try:
        return _as_jsonb(_fitting(value, _compact(value), field, normalised))
    except _UNFIT:
        return _as_jsonb(_mended(value, field, normalised))


def first_canonical_text(candidates: Candidates, field: str, normalised: Normalised) -> str | None:
    """The first object given among the candidates, as `canonical_text` writes it."""
    for path, value in candidates:
        if value is not None:
            return canonical_text(value, field, normalised, path)
    return None


def _fitting(tree: dict[str, Any], text: bytes, field: str, normalised: Normalised) -> dict[str, Any]:
    """What is kept of an object that has this text."""
    if _BACKSLASH in text and _WRITTEN_NUL in text:
        return _mended(tree, field, normalised)
    if len(text) <= MAX_OBJECT_BYTES:
        return tree
    normalised(field)
    return _DROPPED


def _mended(tree: dict[str, Any], field: str, normalised: Normalised) -> dict[str, Any]:
    """What is kept of an object that may hold something that jsonb refuses."""
    mending = _Mending()
    try:
        kept: dict[str, Any] = mending.mended(tree)
    except _TooLarge:
        kept = _DROPPED
    else:
        kept = kept if len(_compact(kept)) <= MAX_OBJECT_BYTES else _DROPPED
    if mending.changed or kept is _DROPPED:
        normalised(field)
    return kept


class _Mending:
    """Makes an object anew, without NUL, surrogates and far numbers; gives up when there is surely too much of it."""

    def __init__(self) -> None:
        self.changed = False
        self._left = MAX_OBJECT_BYTES

    def mended(self, value: Any) -> Any:
        """The same, harmless; of keys that become one the last in their order stands. Raises _TooLarge."""
        kind = type(value)
        self._spend(1)
        if kind is str:
            return self._text(value)
        if kind is Number:
            return self._number(value.literal)
        if kind is list:
            elements = []
            for element in value:  # no comprehension: its frames would count twice against a deep object
                elements.append(self.mended(element))  # noqa: PERF401
            return elements
        if kind is dict:
            members = {}
            for key in sorted(value):
                members[self._text(key)] = self.mended(value[key])
            return members
        return value

    def _text(self, value: str) -> str:
        text = SURROGATES.sub("\ufffd", value.replace("\0", ""))
        self.changed |= text != value
        self._spend(len(text))
        return text

    def _number(self, literal: str) -> Number | str:
        exponent = literal.lower().partition("e")[2] or "0"
        if len(exponent) > 8 or abs(int(exponent)) > MAX_EXPONENT:
            self.changed = True
            return self._text(literal)
        number = Decimal(literal)
        plain = format(number or number.copy_abs(), "f")  # PostgreSQL has no negative zero
        self._spend(len(plain))
        return Number(plain)

    def _spend(self, size: int) -> None:
        self._left -= size
        if self._left < 0:
            raise _TooLarge


def _as_jsonb(value: Any) -> str:
    kind = type(value)
    if kind is list:
        elements = []
        for element in value:  # no comprehension, as above
            elements.append(_as_jsonb(element))  # noqa: PERF401
        return f"[{', '.join(elements)}]"
    if kind is dict:
        members = []
        for key in sorted(value, key=_by_length):
            members.append(f"{_compact(key).decode()}: {_as_jsonb(value[key])}")  # noqa: PERF401
        return f"{{{', '.join(members)}}}"
    if kind is Number and "." in value.literal:
        return str(value.literal.rstrip("0").rstrip("."))
    return _compact(value).decode()


def _by_length(key: str) -> tuple[int, str]:
    """How jsonb sorts keys: by the number of their bytes, then by the bytes."""
    return len(key.encode()), key
