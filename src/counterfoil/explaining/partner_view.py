"""A partner as a terminal shows him."""

from __future__ import annotations

from collections.abc import Iterator

from counterfoil.explaining.cells import (
    Section,
    arithmetic,
    known,
    listed,
    money_cell,
    payment_cell,
    rate_cell,
    time_cell,
)
from counterfoil.explaining.rows import Report, Row


def view_partner(report: Report) -> Iterator[Section]:
    """Who he is, what he has, and the rows that were posted to him."""
    is_live = "at" not in report
    yield Section(_who(report))
    yield arithmetic(report)
    yield listed("Users", report, "users", dict, order="")
    yield listed("Programs", report, "enrollments", _enrollment, order="")
    yield listed("Links", report, "links", _link)
    if is_live:
        yield Section("Balances", [_balance(row) for row in report["balances"]])
    yield listed("Payouts", report, "payouts", _payout)
    yield listed("Commissions", report, "commissions", _commission if is_live else _order)


def _who(report: Report) -> str:
    partner = report["partner"]
    if partner is None:
        return f"Partner {report['id']}: named by rows, and not known otherwise"
    told = ", ".join(part for part in (partner["name"], partner["email"]) if part)
    return f"Partner {report['id']} ({told})" if told else f"Partner {report['id']}"


def _enrollment(row: Row) -> Row:
    percent = row["commission_percent"]
    return {
        "program": row["program_id"],
        "domain": row["base_domain"],
        "rate": "default" if percent is None else f"{percent} %",
        "status": row["status"],
        "by": row["origin"],
        "since": time_cell(row["created_at"])[:19],
    }


def _link(row: Row) -> Row:
    return {
        "time": time_cell(row["occurred_at"]),
        "link": row["id"],
        "url": row["url"],
        "user": row["user_id"],
        "pixel": known("affiliate", row["pixel_id"]),
        "source": row["source"],
    }


def _balance(row: Row) -> Row:
    return {"status": row["status"], "rows": row["commissions"], "earnings": money_cell(row, "earnings")}


def _payout(row: Row) -> Row:
    return {
        "id": row["id"],
        "paid": time_cell(row["created_at"])[:19],
        "amount": money_cell(row, "amount"),
        "reference": row["reference"],
        "by": row["actor"],
    }


def _commission(row: Row) -> Row:
    return {
        "id": known("commission", row["id"]),
        "time": time_cell(row["occurred_at"]),
        "order": known("order", row["order_id"]),
        "what": f"{row['kind']}: {row['cause']}",
        "of": row["amount"],
        "rate": rate_cell(row),
        "earnings": money_cell(row, "earnings"),
        "status": payment_cell(row),
    }


def _order(row: Row) -> Row:
    """What an order had come to as of a time."""
    return {
        "time": time_cell(row["occurred_at"]),
        "order": known("order", row["order_id"]),
        "revenue": money_cell(row, "revenue"),
        "refunded": row["refunded"],
        "rate": rate_cell(row),
        "earnings": money_cell(row, "earnings"),
        "state": "stands" if row["canceled_at"] is None else f"canceled {time_cell(row['canceled_at'])}",
    }
