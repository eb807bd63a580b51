"""What the sums that people see first are made of: the coupons, affiliates, vouchers and so on that come to them."""

from __future__ import annotations

from typing import NamedTuple

from counterfoil.database.connection import Connection
from counterfoil.explaining.cells import Section, known, money_cell, time_cell
from counterfoil.explaining.rows import Row, fetch_rows, read_any_time, read_usual_times


class List(NamedTuple):
    """A kind's list: its statement, its title, and what is said where it is empty."""

    statement: str
    title: str
    empty: str


LISTS = {
    "coupon": List("list_coupons_to_explain", "Coupons, the most used first", "No coupon was used yet."),
    "promo": List(
        "list_promos_to_explain", "Promo codes, the most used first", "There is no promo code yet."
    ),
    "affiliate": List(
        "list_affiliates_to_explain",
        "Affiliates of today, the most clicks first",
        "No click was counted today.",
    ),
    "voucher": List(
        "list_vouchers_to_explain",
        "Vouchers of today, the most scans first",
        "Nothing came of a voucher today.",
    ),
    "partner": List("list_partners_to_explain", "Partners, the most earned first", "Nothing is posted yet."),
    "commission": List(
        "list_commissions_to_explain", "Commissions, the latest first", "No commission is posted yet."
    ),
    "sku": List(
        "list_skus_to_explain",
        "Products that are low, the emptiest first",
        "No product is below its threshold.",
    ),
}
"""An order is found by those who know its id: the latest stand among the commissions."""

LEADS = ("order", "partner", "commission", "affiliate", "voucher", "sku")
"""Columns that are of the kind that they are called."""


async def list_to_explain(connection: Connection, kind: str, limit: int) -> list[Section]:
    """The things of one kind that come to the sum that is shown of them, those that count most first."""
    if kind not in LISTS:
        return []
    statement, title, empty = LISTS[kind]
    await read_any_time(connection)
    try:
        rows = await fetch_rows(connection, statement, limit)
    finally:
        await read_usual_times(connection)
    if not rows:
        return [Section(empty)]
    total, whole = rows[0].get("total"), rows[0].get("sum")
    sections = [Section(f"{title} ({_shown(len(rows), total)})", [_cells(kind, row) for row in rows])]
    return sections if whole is None else [Section(f"{whole:,} in all."), *sections]


def _shown(rows: int, total: int | None) -> str:
    return f"{rows:,} of {total:,}" if total is not None and total > rows else f"{rows:,}"


def _cells(kind: str, row: Row) -> Row:
    cells = {name: value for name, value in row.items() if name not in {"total", "sum", "currency"}}
    if "earnings" in row:
        cells["earnings"] = money_cell(row, "earnings")
    if "posted" in row:
        cells["posted"] = time_cell(row["posted"])[:19]
    if "code" in row:
        cells["code"] = known(kind, row["code"])
    for name in LEADS:
        if row.get(name) is not None:
            cells[name] = known(name, row[name])
    if "partner" in row and row["partner"] is None:
        cells["partner"] = "not known yet"
    return cells
