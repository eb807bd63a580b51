"""What the bytes of a record may say, however they write it: for who looks for an id in what no rule could read."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator
from unicodedata import normalize
from urllib.parse import unquote_plus

OF_A_PERSON = (
    r"(?:customer|user|client|buyer|member|person|account|profile)[\w-]{0,40}[\"']?\s*[:=]\s*"
    r"(?:{[^{}]{0,400}?[\"']?id[\"']?\s*[:=]\s*)?[\"']?"
)
"""A field that is called after a person, up to its value or that value's `id`: `"customer": {"id": `."""

NUMBER_ENDS = r"(?![\w@-]|[.+]\w)"

ESCAPED_AT_MOST = 3
"""JSON within a string of JSON, and once more."""

LOOKED_THROUGH = 262_144
"""Bytes of what could not be read: some of a second, which nobody else is served in."""

LONGEST_ID = 255

_ESCAPED = re.compile(r"\\u([0-9a-fA-F]{4})|\\(.)", re.DOTALL)
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]{8,}={0,2}")
_WORD = re.compile(r"[\w@-]+(?:[.+][\w@-]+)*")
_QUOTED = re.compile(r'"([^"\\]{1,255})"')
_NUMBER_OF_A_PERSON = re.compile(rf"{OF_A_PERSON}(\d+){NUMBER_ENDS}", re.IGNORECASE)


def readings(part: bytes) -> Iterator[str]:
    """The bytes as UTF-8, else as Latin-1 and UTF-16; with JSON's escapes, URL encoding and base64 undone; in NFC."""
    for text in _decoded(part):
        yield normalize("NFC", text)
        if "%" in text:
            yield normalize("NFC", unquote_plus(text))
        yield from _unescaped(text)
        for run in _BASE64.findall(text):
            if (within := _unpacked(run)) is not None:
                yield normalize("NFC", within)


def possible_people(part: bytes) -> set[str]:
    """What in the bytes may be a person's id: words, whole strings, and numbers in fields called after a person."""
    found: set[str] = set()
    for text in readings(part[:LOOKED_THROUGH]):
        found.update(word for word in _WORD.findall(text) if not word.isdecimal())
        whole = (string.strip() for string in (*_QUOTED.findall(text), text[:LONGEST_ID]))
        found.update(string for string in whole if not string.isdecimal())
        found.update(_NUMBER_OF_A_PERSON.findall(text))
    return found | {word.lower() for word in found if "-" in word}  # a UUID is known in lower case


def _decoded(part: bytes) -> Iterator[str]:
    try:
        yield part.decode()
    except UnicodeDecodeError:
        yield part.decode("utf-8", "replace")
        yield part.decode("latin-1")
    if b"\0" in part:
        yield part.decode("utf-16-le", "replace")
        yield part.decode("utf-16-be", "replace")


def _unescaped(text: str) -> Iterator[str]:
    for _ in range(ESCAPED_AT_MOST):
        if "\\" not in text:
            return
        text = _ESCAPED.sub(_character, text).encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        yield normalize("NFC", text)


def _character(escaped: re.Match[str]) -> str:
    return chr(int(escaped[1], 16)) if escaped[1] else escaped[2]


def _unpacked(run: str) -> str | None:
    plain = run.rstrip("=").replace("-", "+").replace("_", "/")
    try:
        return base64.b64decode(plain + "=" * (-len(plain) % 4)).decode("utf-8", "replace")
    except binascii.Error:
        return None
