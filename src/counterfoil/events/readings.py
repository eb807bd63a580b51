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

LOOKED_AT_ONCE = 1_048_576
OVERLAP = 4_096
"""Bytes of what could not be read: a step of the search holds all other threads for some of a second at most."""

LONGEST_ID = 255
LONGEST_STRING = 2 * LONGEST_ID
"""With the blanks around an id."""

_ESCAPED = re.compile(r"\\u([0-9a-fA-F]{4})|\\(.)", re.DOTALL)
_JSON_ESCAPED = re.compile(r"\\(?:u[0-9a-fA-F]{4}|[\"\\/bfnrt])")
_URL_ENCODED = re.compile(r"%[0-9a-fA-F]{2}")
_UTF_16 = re.compile(rb"(?:[ -~]\0){3}|(?:\0[ -~]){3}")
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]{8,}={0,2}")
_WORD = re.compile(r"[\w@-]+(?:[.+][\w@-]+)*")
_BETWEEN = (re.compile('"'), re.compile(r"[\s\"'`,;&=<>(){}\[\]]+"))
"""What ends an id that is no word: a quote where blanks are part of it, or else all that seldom is."""

_NUMBER_OF_A_PERSON = re.compile(rf"{OF_A_PERSON}(\d+){NUMBER_ENDS}", re.IGNORECASE)


def readings(part: bytes) -> Iterator[str]:
    """The bytes as UTF-8, else as Latin-1 and UTF-16; with JSON's escapes, URL encoding and base64 undone; in NFC."""
    for text in _decoded(part):
        yield normalize("NFC", text)
        if _URL_ENCODED.search(text):
            yield normalize("NFC", unquote_plus(text))
        yield from _unescaped(text)
        for run in _BASE64.findall(text):
            if (within := _unpacked(run)) is not None:
                yield normalize("NFC", within)


def possible_people(part: bytes) -> set[str]:
    """What in the bytes may be a person's id: words, whole strings, and numbers in fields called after a person."""
    found, numbers = set[str](), set[str]()
    for start in range(0, len(part), LOOKED_AT_ONCE):
        for text in readings(part[start : start + LOOKED_AT_ONCE + OVERLAP]):
            found.update(_WORD.findall(text))
            for between in _BETWEEN:
                strings = [each for each in between.split(text) if len(each) <= LONGEST_STRING]
                found.update(string.strip() for string in strings)
                found.update(string.partition(":")[2] for string in strings if ":" in string)  # `user:ann|8`
            numbers.update(_NUMBER_OF_A_PERSON.findall(text))
    ids = {each for each in found if 0 < len(each) <= LONGEST_ID and not each.isdecimal()} | numbers
    return ids | {word.lower() for word in ids if "-" in word}  # a UUID is known in lower case


def _decoded(part: bytes) -> Iterator[str]:
    try:
        yield part.decode()
    except UnicodeDecodeError:
        yield part.decode("utf-8", "replace")
        yield part.decode("latin-1")
    if _UTF_16.search(part):
        yield part.decode("utf-16-le", "replace")
        yield part.decode("utf-16-be", "replace")


def _unescaped(text: str) -> Iterator[str]:
    for _ in range(ESCAPED_AT_MOST):
        if not _JSON_ESCAPED.search(text):
            return
        text = _ESCAPED.sub(_character, text).encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        yield normalize("NFC", text)


def _character(escaped: re.Match[str]) -> str:
    if escaped[1]:
        return chr(int(escaped[1], 16))
    return " " if escaped[2] in "bfnrt" else escaped[2]


def _unpacked(run: str) -> str | None:
    plain = run.rstrip("=").replace("-", "+").replace("_", "/")
    try:
        return base64.b64decode(plain + "=" * (-len(plain) % 4)).decode("utf-8", "replace")
    except binascii.Error:
        return None
