"""A parked record for a terminal: where it came from, what was wrong, what the rules say now, and its bytes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

TEXT_SHOWN = 4_096
"""Characters of a value, unless all are asked for."""

HEX_SHOWN = 512
HEADER_SHOWN = 1_024
BYTES_A_LINE = 16
LABEL = 12


def lines_of(letter: Mapping[str, Any], value: bytes | None, *, full: bool) -> Iterator[str]:
    """The lines of `dead-letters show`; what is cut says so. Nothing of the record can break out of its line."""
    yield f"Dead letter {letter['id']}"
    yield ""
    for label, told in _facts(letter):
        yield f"  {label:<{LABEL}}{visible(told)}"
    yield ""
    headers = letter["headers"]
    yield f"  Headers ({len(headers)})" if headers else "  No headers"
    for name, said in headers:
        told = f"{visible(_plain(name))}: {_header(said)}"
        yield f"    {_cut(told, HEADER_SHOWN, full=full)}"
    yield ""
    yield from _value(value, full=full)


def visible(value: object) -> str:
    """A text on one line; characters that could not be seen, or would break it, stand as their numbers."""
    return "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in str(value))


def hex_dump(value: bytes) -> Iterator[str]:
    """Offset, sixteen bytes, and what of them is ASCII."""
    for start in range(0, len(value), BYTES_A_LINE):
        part = value[start : start + BYTES_A_LINE]
        ascii_text = "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in part)
        yield f"{start:08x}  {part[:8].hex(' '):<23}  {part[8:].hex(' '):<23}  |{ascii_text}|"


def _facts(letter: Mapping[str, Any]) -> Iterator[tuple[str, object]]:
    yield "Record", f"{letter['topic']}/{letter['partition']}@{letter['offset']}"
    yield "Cluster", letter["cluster_id"]
    yield "Timestamp", _time(letter["record_timestamp"])
    yield "First seen", _time(letter["first_seen_at"])
    yield "Key", "null" if letter["key"] is None else letter["key"]
    yield "Reason", letter["error_kind"]
    if letter["field"]:
        yield "Field", letter["field"]
    yield "Error", letter["error"]
    yield "Rules now", letter["now"]
    yield "State", _state(letter)
    if letter["copied_at"] or letter["copy_due"] or letter["copy_error"]:
        yield "Copy", _copy(letter)


def _state(letter: Mapping[str, Any]) -> str:
    if letter["resolved_at"]:
        who = f" by {letter['resolved_by']}: {letter['resolved_because']}" if letter["resolved_by"] else ""
        return f"{letter['resolution'] or 'resolved'} {_time(letter['resolved_at'])}{who}"
    return f"open, refused again {_time(letter['retried_at'])}" if letter["retried_at"] else "open"


def _copy(letter: Mapping[str, Any]) -> str:
    if letter["copied_at"]:
        return f"on {letter['topic']}.dlq since {_time(letter['copied_at'])}"
    return "due" if letter["copy_due"] else f"none: {letter['copy_error']}"


def _value(value: bytes | None, *, full: bool) -> Iterator[str]:
    if value is None:
        yield "  The value is null."
        return
    yield f"  Value as text ({len(value):,} bytes)"
    text = value.decode("utf-8", "backslashreplace")
    shown = text if full else text[:TEXT_SHOWN]
    for line in shown.split("\n"):
        yield f"    {visible(line.removesuffix(chr(13)))}"
    if len(shown) < len(text):
        yield f"    … {len(text) - len(shown):,} more characters; all with --full"
    yield ""
    yield "  Value as bytes"
    part = value if full else value[:HEX_SHOWN]
    for line in hex_dump(part):
        yield f"    {line}"
    if len(part) < len(value):
        yield f"    … {len(value) - len(part):,} more bytes; all with --full"


def _header(value: object) -> str:
    return "null" if value is None else visible(_plain(value))


def _plain(value: object) -> str:
    """A name or value as it is kept: text, or base64 where it is no text."""
    return f"base64 {value['base64']}" if isinstance(value, dict) else str(value)


def _cut(text: str, most: int, *, full: bool) -> str:
    return (
        text if full or len(text) <= most else f"{text[:most]}… ({len(text) - most:,} more; all with --full)"
    )


def _time(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
