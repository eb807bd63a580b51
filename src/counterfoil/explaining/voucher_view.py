"""A voucher as a terminal shows it."""

from __future__ import annotations

from collections.abc import Iterator

from counterfoil.explaining.cells import Section, arithmetic, line, listed, refused_fact, time_cell
from counterfoil.explaining.rows import Report, Row
from counterfoil.explaining.vouchers import LOOK_FOR_S


def view_voucher(report: Report) -> Iterator[Section]:
    """What was said of it, what it counts and by which tables, and the rows of these."""
    days, users = report["days"], report["unique_users"]
    yield Section(f"Voucher {report['id']}")
    yield _said(report["voucher"])
    yield arithmetic(report)
    yield Section(f"Unique users: {users['ever']:,}, of them {users['of_days']:,} in the last {days} days.")
    yield Section("Days", [_day(row) for row in report["daily"]])
    yield listed(f"Places of {days} days", report, "places", dict, order=", most scans first")
    yield Section("Wallets by status", report["states"])
    yield listed("Wallets", report, "wallets", _wallet)
    yield listed("Attempts to redeem", report, "attempts", _attempt)
    yield listed(
        "Reasons of failed attempts", report, "failures", _failure, order=", the most frequent first"
    )
    yield listed("Told once more, and refused", report, "refused_facts", refused_fact, order="")
    yield listed("Days whose scans are closed", report, "closings", _closing)
    yield listed(f"Scans of {days} days, as counted by the hours", report, "scans", _scan)
    if not report["scans_found"]:
        yield Section(
            f"The other scans of these days are closed, or were not found within {LOOK_FOR_S:g} s: "
            "the ledger has no index by voucher."
        )


def _said(voucher: Row | None) -> Section:
    if voucher is None or voucher["created_at"] is None:
        return Section("No voucher.created told of it yet: it is known by what happened to it.")
    expired = "has passed" if voucher["has_expired"] else ""
    return Section(
        "Voucher.created",
        [
            line("business", voucher["business_id"]),
            line("title", voucher["title"]),
            line("created", time_cell(voucher["created_at"])),
            line("expires", time_cell(voucher["expires_at"]), expired),
            line("source", voucher["source"]),
        ],
    )


def _day(row: Row) -> Row:
    return {
        "day": str(row["day"]),
        "scans": row["scans"],
        "users": row["users"],
        "new": row["new_users"],
        "impressions": row["impressions"],
        "claims": row["claims"],
        "redeemed": row["redemptions"],
        "failed": row["failed_redemptions"],
    }


def _wallet(row: Row) -> Row:
    return {
        "customer": row["customer_id"],
        "status": row["status"],
        "scanned first": time_cell(row["first_scanned_at"])[:19],
        "claimed": time_cell(row["claimed_at"]),
        "redeemed": time_cell(row["redeemed_at"]),
        "source": row["source"],
    }


def _attempt(row: Row) -> Row:
    return {
        "time": time_cell(row["attempted_at"]),
        "customer": row["customer_id"],
        "business": row["business_id"],
        "verdict": "redeemed"
        if row["successful"]
        else f"failed: {row['failure_reason'] or 'no reason given'}",
        "attempt": row["attempt_id"],
        "source": row["source"],
    }


def _failure(row: Row) -> Row:
    return {
        "reason": row["failure_reason"],
        "attempts": row["attempts"],
        "last": time_cell(row["last_at"]),
    }


def _closing(row: Row) -> Row:
    return {
        "day": str(row["day"]),
        "scans": row["scans"],
        "reason": row["reason"] or "retention",
        "closed before": time_cell(row["closed_before"]),
        "closed": time_cell(row["closed_at"])[:19],
    }


def _scan(row: Row) -> Row:
    return {
        "time": time_cell(row["occurred_at"]),
        "user": row["user_id"],
        "by": row["scan_type"],
        "with": row["scan_source"],
        "place": row["place"],
        "scan": row["scan_id"],
        "source": row["source"],
    }
