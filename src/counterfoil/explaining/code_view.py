"""A coupon or a promo code as a terminal shows it."""

from __future__ import annotations

from collections.abc import Iterator

from counterfoil.explaining.cells import Section, line, listed, state_cell, time_cell
from counterfoil.explaining.rows import Report, Row


def view_coupon(report: Report) -> Iterator[Section]:
    """What it counts, whose it is, and the rows that are counted."""
    stored, counted, totals = report["stored"], report["counted"], report["totals"]
    yield Section(f"Coupon {report['id']}")
    yield Section(
        "Counts",
        [
            line(
                "times_used",
                stored["times_used"],
                f"{counted['usages']} usages {counted['adjusted_by']:+} adjusted",
            ),
            line(
                "usage_count",
                stored["usage_count"],
                f"{totals['usages']} usages -{totals['reversed']} reversed",
            ),
        ],
    )
    if (owner := report["owner"]) is not None:
        yield Section("Affiliate", [owner | {"assigned_at": time_cell(owner["assigned_at"])}])
    yield listed("Usages", report, "usages", _usage)
    yield listed("Adjustments", report, "adjustments", _adjustment)


def view_promo(report: Report) -> Iterator[Section]:
    """What it counts, and the rows that are counted."""
    stored, counted, totals = report["stored"], report["counted"], report["totals"]
    bonus, adjusted = counted["bonus"], counted["bonus_adjusted_by"]
    yield Section(f"Promo code {report['id']}")
    yield Section(
        "Counts",
        [
            line(
                "times_used",
                stored["times_used"],
                f"{counted['uses']} uses {counted['adjusted_by']:+} adjusted",
            ),
            line("use_count", stored["use_count"], f"{totals['uses']} uses -{totals['reversed']} reversed"),
            line("total_bonus_issued", stored["total_bonus_issued"], f"{bonus} of uses, {adjusted} adjusted"),
            line("use_bonus", stored["use_bonus"], "of the uses that are not reversed"),
        ],
    )
    yield listed("Uses", report, "uses", _use)
    yield listed("Adjustments", report, "adjustments", _adjustment)


def _usage(row: Row) -> Row:
    return {
        "time": time_cell(row["occurred_at"]),
        "order": row["order_id"],
        "state": state_cell(row),
        "source": row["source"],
    }


def _use(row: Row) -> Row:
    return {
        "time": time_cell(row["occurred_at"]),
        "order": row["order_id"],
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
