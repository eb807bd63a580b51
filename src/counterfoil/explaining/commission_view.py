"""A commission as people read it."""

from __future__ import annotations

from collections.abc import Iterator

from counterfoil.explaining.cells import (
    Section,
    arithmetic,
    known,
    line,
    money_cell,
    payment_cell,
    rate_cell,
    time_cell,
)
from counterfoil.explaining.order_view import order_sections
from counterfoil.explaining.rows import Report, Row


def view_commission(report: Report) -> Iterator[Section]:
    """The row, the arithmetic, and all of its order."""
    yield Section(f"Commission {report['id']}")
    yield Section("Posted", list(_row(report["commission"])))
    yield arithmetic(report)
    yield from order_sections(report["order"])


def _row(row: Row) -> Iterator[Row]:
    yield line("order", known("order", row["order_id"]))
    yield line("to", row["beneficiary"])
    yield line("partner", known("partner", row["partner_id"]), "" if row["partner_id"] else "not known yet")
    yield line("program", row["program_id"])
    yield line("link", row["link_id"])
    yield line("what", f"{row['kind']}: {row['cause']}", row["why"] or "")
    yield line("of", money_cell(row, "amount"))
    yield line("rate", rate_cell(row))
    yield line("earnings", money_cell(row, "earnings"))
    yield line("status", payment_cell(row), row["payout_reference"] or "")
    yield line("occurred", time_cell(row["occurred_at"]))
    yield line("posted", time_cell(row["posted_at"]))
