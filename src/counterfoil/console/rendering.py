"""How values are written into pages; the templates escape what they get, whatever an event says."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import msgspec
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from counterfoil.api.writing import amount_text, time_text
from counterfoil.console.static import files, load, static_address
from counterfoil.ingest.dead_letter_routes import text_of

TEMPLATES = Path(__file__).parent / "templates"

HEX_BYTES = 256
"""Of a value that is no text."""

BYTES_A_LINE = 16

_UNITS = (("d", timedelta(days=1)), ("h", timedelta(hours=1)), ("min", timedelta(minutes=1)))


def render(template: str, values: Mapping[str, Any]) -> str:
    """A template of this room as HTML."""
    return _environment.get_template(template).render(values)


def prepare() -> None:
    """Read all that the first page would have to; for a thread, since it takes a while."""
    for name in _environment.list_templates():
        _environment.get_template(name)
    for path in files().values():
        load(path)


def visible(value: object, most: int | None = None) -> str:
    """A text on one line, each character that could not be seen or would break it written as its number.

    Of a text longer than `most` the rest is left out before anything is written.
    """
    text = str(value)
    if most is not None and len(text) > most:
        text = f"{text[:most]}…"
    return text if text.isprintable() else "".join(c if c.isprintable() else _number(c) for c in text)


def visible_lines(value: object) -> str:
    """As `visible`, but line breaks stay."""
    return "\n".join(visible(line) for line in str(value).split("\n"))


def payload(value: bytes | None, size: int | None) -> str:
    """A record's value to be read: as text, or as a dump of its first bytes."""
    if value is None:
        return "null"
    text = text_of(value, is_cut=len(value) < (size or 0))
    return _dump(value[:HEX_BYTES]) if text is None else visible_lines(text)


def count_text(number: int) -> str:
    """`1,234,567`."""
    return f"{number:,}"


def rate_text(rate: float) -> str:
    """A rate to about three digits."""
    return f"{rate:,.0f}" if rate >= 100 or rate == 0 else f"{rate:,.1f}"


def money_text(amount: Decimal, digits: int) -> str:
    """An exact amount with its currency's digits, thousands apart."""
    whole, point, fraction = amount_text(amount, digits).partition(".")
    sign, whole = ("\u2212", whole[1:]) if whole.startswith("-") else ("", whole)
    return f"{sign}{int(whole):,}{point}{fraction}"


def ago(moment: datetime, now: datetime) -> str:
    """How long ago, in the largest unit that fits."""
    age = max(now - moment, timedelta(0))
    for unit, length in _UNITS:
        if age >= length:
            return f"{age // length} {unit} ago"
    return f"{age // timedelta(seconds=1)} s ago"


def clock_text(moment: datetime) -> str:
    """The day and time in UTC, to the second."""
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")


def json_text(value: object) -> str:
    """JSON, for an attribute."""
    return msgspec.json.encode(value).decode()


def leads_to(cell: object) -> str:
    """Where a cell leads: to the explanation of what it names; '' for one that names nothing."""
    kind, key = getattr(cell, "kind", None), getattr(cell, "key", None)
    return "" if not kind or key is None else f"/ops/explain/{kind}?{urlencode({'id': key})}"


def _number(character: str) -> str:
    code = ord(character)
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


def _dump(value: bytes) -> str:
    lines = [value[start : start + BYTES_A_LINE] for start in range(0, len(value), BYTES_A_LINE)]
    return "\n".join(f"{line.hex(' '):<{3 * BYTES_A_LINE}} {_plain(line)}" for line in lines)


def _plain(line: bytes) -> str:
    return "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in line)


def _made() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    environment.globals["static"] = static_address
    environment.filters |= {
        "ago": ago,
        "clock": clock_text,
        "count": count_text,
        "json": json_text,
        "leads": leads_to,
        "lines": visible_lines,
        "money": money_text,
        "payload": payload,
        "rate": rate_text,
        "rfc3339": time_text,
        "visible": visible,
    }
    return environment


_environment = _made()
