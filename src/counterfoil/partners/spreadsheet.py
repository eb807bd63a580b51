"""CSV that opens in a spreadsheet as what it is: RFC 4180, and no cell that would run as a formula."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence

MEDIA_TYPE = "text/csv; header=present"

_RUNS = ("=", "+", "-", "@", "\t", "\r")


def csv_lines(rows: Iterable[Sequence[str]]) -> str:
    """Rows of cells as lines."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\r\n").writerows(rows)
    return text.getvalue()


def text_cell(text: str | None) -> str:
    """Text from outside: an apostrophe before what a spreadsheet would take for a formula; numbers need none."""
    if text is None:
        return ""
    return f"'{text}" if text.startswith(_RUNS) else text
