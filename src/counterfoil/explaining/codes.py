"""A coupon or a promo code: what is stored of it, what its ledgers say, and their rows."""

from __future__ import annotations

from counterfoil.database.connection import Connection
from counterfoil.explaining.rows import Report, Row, Span, differences, fetch_row, fetch_rows


async def explain_coupon(connection: Connection, code: str, span: Span) -> Report | None:
    """A coupon's counts, usages, adjustments and owner; None where nothing is known of it."""
    found = await fetch_row(connection, "explain_coupon", code)
    if found is None or not (
        found["updated_at"]
        or found["owner_pixel_id"]
        or found["usages"]
        or found["reversed"]
        or found["adjustments"]
    ):
        return None
    drift = _drift_of_coupon(found)
    return {
        "stored": {name: found[name] for name in ("times_used", "usage_count", "updated_at")},
        "counted": {name: found[name] for name in ("usages", "adjusted_by")},
        "totals": _totals(found, "usages"),
        "owner": _owner(found),
        "usages": await fetch_rows(connection, "explain_usages_of_coupon", code, span.limit),
        "adjustments": await fetch_rows(connection, "explain_adjustments_of_coupon", code, span.limit),
        "drift": drift,
        "agrees": not drift,
    }


async def explain_promo(connection: Connection, code: str, span: Span) -> Report | None:
    """A promo code's counts, uses and adjustments; None where there is no such promo code."""
    found = await fetch_row(connection, "explain_promo", code)
    if found is None:
        return None
    drift = differences(
        [
            ("times_used", found["times_used"], found["counted_times_used"]),
            ("use_count", found["use_count"], found["uses"]),
            ("total_bonus_issued", found["total_bonus_issued"], found["counted_bonus"]),
            ("use_bonus", found["use_bonus"], found["bonus"]),
        ]
    )
    stored = ("times_used", "use_count", "total_bonus_issued", "use_bonus", "updated_at")
    return {
        "stored": {name: found[name] for name in stored},
        "counted": {name: found[name] for name in ("uses", "adjusted_by", "bonus", "bonus_adjusted_by")},
        "totals": _totals(found, "uses"),
        "uses": await fetch_rows(connection, "explain_uses_of_promo", found["id"], span.limit),
        "adjustments": await fetch_rows(connection, "explain_adjustments_of_promo", found["id"], span.limit),
        "drift": drift,
        "agrees": not drift,
    }


def _drift_of_coupon(found: Row) -> list[Row]:
    counted = found["usages"] + found["adjusted_by"]
    if found["times_used"] is None and not (found["usages"] or found["reversed"] or found["adjustments"]):
        return []  # a coupon that has an owner, and was never used
    return differences(
        [("times_used", found["times_used"], counted), ("usage_count", found["usage_count"], found["usages"])]
    )


def _totals(found: Row, entries: str) -> Row:
    """How many rows there are of each list."""
    return {
        entries: found[entries] + found["reversed"],
        "reversed": found["reversed"],
        "adjustments": found["adjustments"],
    }


def _owner(found: Row) -> Row | None:
    if found["owner_pixel_id"] is None:
        return None
    return {
        "pixel_id": found["owner_pixel_id"],
        "handle": found["owner"],
        "assigned_at": found["assigned_at"],
    }
