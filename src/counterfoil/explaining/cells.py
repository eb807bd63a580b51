"""How a cell of a table reads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from counterfoil.explaining.rows import Report, Row


@dataclass(frozen=True, slots=True)
class Section:
    """A title and the rows under it, shown where there are any; without a list of rows, a line of prose.

    Titles of tables hold nothing that an event said; prose may. A cell that is `Known` leads on.
    """

    title: str
    rows: list[dict[str, Any]] | None = None


class Known(str):
    """A text that names something which can be explained itself: what kind of thing, and its id."""

    __slots__ = ("key", "kind")
    kind: str
    key: str


def known(kind: str, key: object, text: object = None) -> Known | None:
    """A cell that leads on to the explanation of what it names; None where it names nothing."""
    if key is None:
        return None
    cell = Known(key if text is None else text)
    cell.kind, cell.key = kind, str(key)
    return cell


def time_cell(moment: datetime | str | None) -> str:
    """The time in UTC, with as much of its fraction as there is."""
    if isinstance(moment, datetime):
        return moment.replace(tzinfo=None).isoformat(sep=" ")
    return moment or ""


def money_cell(row: Row, name: str) -> str:
    """An amount with the row's currency, where it has one."""
    return "" if row[name] is None else f"{row[name]} {row['currency'] or ''}".rstrip()


def state_cell(row: Row) -> str:
    """Whether a usage counts."""
    return "counted" if row["reversed_at"] is None else f"reversed {time_cell(row['reversed_at'])}"


def payment_cell(row: Row) -> str:
    """The status of a commission, and what paid it."""
    return row["status"] if row["payout_id"] is None else f"{row['status']} by payout {row['payout_id']}"


def rate_cell(row: Row) -> str:
    """A rate and where it comes from."""
    percent = "" if row["rate_percent"] is None else f"{row['rate_percent']} % "
    return f"{percent}{row['rate_source'] or ''}".rstrip()


def arithmetic(report: Report) -> Section:
    """The numbers of a report, what each is made of, and whether that is what is stored."""
    return Section("Arithmetic", [_computed(row) for row in report["arithmetic"]])


def _computed(row: Row) -> Row:
    whole = str(row["comes_to"]).replace("-", "−")
    is_said = row["formula"] == whole or str(row["formula"]).endswith((f"= {whole}", f": {whole}"))
    comes_to = "" if is_said else f" = {whole}"
    cells = {"number": row["number"], "arithmetic": f"{row['formula']}{comes_to}"}
    if "agrees" not in row:
        return cells | {"stored": ""}
    stored = "nothing" if row["stored"] is None else row["stored"]
    return cells | {"stored": f"{'=' if row['agrees'] else '≠'} {stored}"}


def refused_fact(row: Row) -> Row:
    """What was told once more with another content, and what of it."""
    content = {
        name: value for name, value in row["content"].items() if value not in (None, {}, row["of_what"])
    }
    return {
        "event": row["event"],
        "of": row["of_what"],
        "content": ", ".join(f"{name} {value}" for name, value in content.items()),
        "verdict": "refused: the earlier content stands, then the smaller",
        "source": row["source"],
    }


def line(what: str, value: object, why: str = "") -> Row:
    """A row of a table that is read down: one number, and what it is made of."""
    return {"what": what, "value": value, "why": why}


def listed(
    title: str, report: Report, name: str, cells: Callable[[Row], Row], order: str = ", newest first"
) -> Section:
    """A list that may have been cut: the title says how much of it is shown."""
    rows, total = report[name], report["totals"][name]
    shown = f"{len(rows):,} of {total:,}" if len(rows) < total else f"{total:,}"
    return Section(f"{title} ({shown}{order})", [cells(row) for row in rows])
