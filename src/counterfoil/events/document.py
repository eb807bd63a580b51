"""The careful lane: a JSON document read by the standard library, and what is wrong in it said exactly.

The fast lane, a typed msgspec decoder, refuses a whole document for one lone surrogate or one odd type, and
does not say which rule was broken. What it refuses is read again here, into the same wire structs.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import cache, partial
from typing import Any, Final, NoReturn, TypeVar, get_args, get_origin

import msgspec

from counterfoil.errors import InvalidEvent
from counterfoil.events.rules import NOT_JSON, Number, invalid

MAX_DEPTH: Final = 400
"""Deeper documents are refused: how deep the parsers can go would depend on the caller's stack."""

SURELY_FLAT: Final = 2 * MAX_DEPTH
"""A document of at most so many bytes cannot be deeper: each level has two brackets."""

Wire = TypeVar("Wire", bound=msgspec.Struct)

# Possessive and with an optional end: an unclosed string must not be tried again from each quote in it.
_TOKENS = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?|[\[{\]}]', re.DOTALL)


def _integer(literal: str) -> int | Number:
    return int(literal) if len(literal) <= 640 else Number(literal)  # Python refuses to read much longer ones


def _no_constant(_literal: str) -> NoReturn:
    raise InvalidEvent(NOT_JSON, "", "must be JSON, which has no NaN and no Infinity")


_decode = json.JSONDecoder(parse_float=Number, parse_int=_integer, parse_constant=_no_constant).decode


def parse(text: bytes) -> object:
    """The document's value; numbers that are no small integers stay as they are written."""
    check_depth(text)
    try:
        return _decode(text.decode())
    except json.JSONDecodeError as error:
        raise InvalidEvent(
            NOT_JSON, "", f"must be one JSON document; it breaks at character {error.pos}"
        ) from None
    except RecursionError:
        raise InvalidEvent(NOT_JSON, "", "must not be nested deeper than the parser goes") from None


def check_depth(text: bytes) -> None:
    """Refuse a document that is nested deeper than MAX_DEPTH."""
    if text.count(b"{") + text.count(b"[") <= MAX_DEPTH:
        return
    depth = 0
    for token in _TOKENS.finditer(text):
        first = text[token.start()]
        if first in b"[{":
            depth += 1
            if depth > MAX_DEPTH:
                raise InvalidEvent(NOT_JSON, "", f"must not be nested deeper than {MAX_DEPTH} levels")
        elif first in b"]}":
            depth -= 1


def read(wire: type[Wire], tree: dict[str, Any], path: str = "") -> Wire:
    """The tree as the wire struct: containers checked for their kind, everything else left to the rules."""
    found = {
        name: reader(tree[key], f"{path}.{key}" if path else key)
        for name, key, reader in _fields(wire)
        if key in tree
    }
    return wire(**found)


Reader = Callable[[Any, str], object]


@cache
def _fields(wire: type[msgspec.Struct]) -> tuple[tuple[str, str, Reader], ...]:
    return tuple(
        (field.name, field.encode_name, _reader(field.type)) for field in msgspec.structs.fields(wire)
    )


def _reader(annotation: Any) -> Reader:
    for option in get_args(annotation):
        if get_origin(option) is list:
            return partial(_array, _reader(get_args(option)[0]))
        if isinstance(option, type) and issubclass(option, msgspec.Struct):
            return partial(_object, option)
    return _as_it_is


def _as_it_is(value: object, _path: str) -> object:
    return value


def _object(wire: type[msgspec.Struct], value: object, path: str) -> msgspec.Struct | None:
    if isinstance(value, dict):
        return read(wire, value, path)
    if value is None or getattr(wire, "lenient", False):
        return None
    raise invalid(path, "must be an object")


def _array(element: Reader, value: object, path: str) -> list[object] | None:
    if value is None:
        return None
    if not isinstance(value, list):
        raise invalid(path, "must be an array")
    return [element(entry, f"{path}[{index}]") for index, entry in enumerate(value)]
