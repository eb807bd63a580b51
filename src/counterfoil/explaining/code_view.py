"""A coupon or a promo code as people read it."""

from __future__ import annotations

from collections.abc import Iterator

from counterfoil.explaining.cells import (
    Section,
    arithmetic,
    known,
    listed,
    refused_fact,
    state_cell,
    time_cell,
)
from counterfoil.explaining.rows import Report, Row


def view_coupon(report: Report) -> Iterator[Section]:
    """What it counts, whose it is, and the rows that are counted."""
    yield Section(f"Coupon {report['id']}")
    yield arithmetic(report)
    if (owner := report["owner"]) is not None:
        yield Section("Affiliate", [_owner(owner)])
    yield listed("Usages", report, "usages", _usage)
    yield listed("Adjustments", report, "adjustments", _adjustment)


def view_promo(report: Report) -> Iterator[Section]:
    """What it counts, and the rows that are counted."""
    yield Section(f"Promo code {report['id']}")
    yield arithmetic(report)
    yield listed("Uses", report, "uses", _use)
    yield listed("Told once more, and refused", report, "refused_facts", refused_fact)
    yield listed("Adjustments", report, "adjustments", _adjustment)


def _owner(row: Row) -> Row:
    return {
        "pixel_id": known("affiliate", row["pixel_id"]),
        "handle": known("affiliate", row["handle"]),
        "assigned_at": time_cell(row["assigned_at"]),
    }


def _usage(row: Row) -> Row:
    return {
        "time": time_cell(row["occurred_at"]),
        "order": known("order", row["order_id"]),
        "state": state_cell(row),
        "source": row["source"],
    }


def _use(row: Row) -> Row:
    return {
        "time": time_cell(row["occurred_at"]),
        "order": known("order", row["order_id"]),
        "base": row["base_reward"],
        "bonus": row["bonus_amount"],
        "state": state_cell(row),
        "source": row["source"],
    }


def _adjustment(row: Row) -> Row:
    cells = {"time": time_cell(row["created_at"])[:19], "count": f"{row['delta']:+}"}
    if "bonus_delta" in row:
        cells["bonus"] = row["bonus_delta"]
    return cells | {"reason": row["reason"], "by": row["actor"]}
