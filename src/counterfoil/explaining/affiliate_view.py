"""An affiliate as a terminal shows him."""

from __future__ import annotations

from collections.abc import Iterator

from counterfoil.explaining.cells import Section, arithmetic, known, listed, money_cell, rate_cell, time_cell
from counterfoil.explaining.rows import Report, Row


def view_affiliate(report: Report) -> Iterator[Section]:
    """Who he is, what he brought in the last days, and the rows that say so."""
    yield Section(_who(report))
    yield Section(f"Of {report['days']} days{', which end with this time' if 'at' in report else ''}:")
    yield arithmetic(report)
    yield Section(
        "Status", [row | {"valid_from": time_cell(row["valid_from"])} for row in report["status_history"]]
    )
    yield Section(
        "Coupons",
        [
            row | {"code": known("coupon", row["code"]), "assigned_at": time_cell(row["assigned_at"])}
            for row in report["coupons"]
        ],
    )
    yield listed("Links", report, "links", _link, order=", the earliest first")
    yield Section("Attributions by status", [_state(row) for row in report["states"]])
    yield Section("Days", [_day(row) for row in report["daily"]])
    yield listed("Attributions", report, "attributions", _attribution)
    yield listed("Clicks", report, "clicks", _click)


def _who(report: Report) -> str:
    affiliate = report["affiliate"]
    if affiliate is None:
        return f"Pixel {report['pixel_id']}: no affiliate has it yet"
    handle, name, status = affiliate["handle"], affiliate["name"], affiliate["status"]
    return f"Affiliate {handle} ({name}), {status}, pixel {affiliate['pixel_id']}"


def _link(row: Row) -> Row:
    return {
        "time": time_cell(row["occurred_at"]),
        "link": row["id"],
        "url": row["url"],
        "partner": known("partner", row["partner_id"]),
        "source": row["source"],
    }


def _state(row: Row) -> Row:
    return {
        "status": row["status"],
        "orders": row["orders"],
        "revenue": money_cell(row, "revenue"),
        "refunded": money_cell(row, "refunded"),
        "commission": money_cell(row, "commission"),
    }


def _day(row: Row) -> Row:
    if not row["currency"]:
        return {
            "day": row["day"],
            "human": row["clicks"],
            "unique": row["unique_clicks"],
            "bots": row["bot_clicks"],
            "conversions": "",
            "revenue": "",
            "commission": "",
        }
    return {
        "day": row["day"],
        "human": "",
        "unique": "",
        "bots": "",
        "conversions": row["conversions"],
        "revenue": money_cell(row, "revenue"),
        "commission": money_cell(row, "commission"),
    }


def _attribution(row: Row) -> Row:
    return {
        "time": time_cell(row["occurred_at"]),
        "order": known("order", row["order_id"]),
        "by": known("coupon", row["code"]) or row["origin"],
        "revenue": money_cell(row, "revenue"),
        "refunded": row["refunded"],
        "rate": rate_cell(row),
        "commission": row["commission"],
        "status": row["status"],
    }


def _click(row: Row) -> Row:
    return {
        "time": time_cell(row["occurred_at"]),
        "who": "bot" if row["is_bot"] else "human",
        "link": row["link_id"],
        "landing page": row["landing_page"],
        "click": row["click_id"],
        "source": row["source"],
    }
