"""A coupon or a promo code: what is stored of it, what its ledgers say, and their rows."""

from __future__ import annotations

from counterfoil.database.connection import Connection
from counterfoil.explaining.arithmetic import disagreements, many, number, terms
from counterfoil.explaining.rows import Report, Row, Span, fetch_row, fetch_rows, take_total, with_documents


async def explain_coupon(connection: Connection, code: str, span: Span) -> Report | None:
    """A coupon's counts, usages, adjustments and owner; None where nothing is known of it."""
    as_of = span.as_of
    found = await fetch_row(connection, "explain_coupon", code, as_of)
    if found is None or not (
        found["updated_at"]
        or found["owner_pixel_id"]
        or found["usages"]
        or found["reversed"]
        or found["adjustments"]
    ):
        return None
    arithmetic = _arithmetic_of_coupon(found, is_stored=span.at is None)
    drift = [] if _was_never_used(found) else disagreements(arithmetic)
    return {
        "stored": _stored(found, ("times_used", "usage_count", "updated_at"), span),
        "counted": {name: found[name] for name in ("usages", "adjusted_by")},
        "arithmetic": arithmetic,
        "totals": _totals(found, "usages"),
        "owner": _owner(found),
        "usages": await fetch_rows(connection, "explain_usages_of_coupon", code, span.limit, as_of),
        "adjustments": await fetch_rows(connection, "explain_adjustments_of_coupon", code, span.limit, as_of),
        "drift": drift,
        "agrees": not drift,
    }


async def explain_promo(connection: Connection, code: str, span: Span) -> Report | None:
    """A promo code's counts, uses, adjustments and refused contents; None where there is no such promo code."""
    as_of = span.as_of
    found = await fetch_row(connection, "explain_promo", code, as_of)
    if found is None:
        return None
    told_again = await fetch_rows(connection, "explain_refused_uses_of_promo", code, span.limit, as_of)
    refused = with_documents(told_again)
    refused_in_all = take_total(refused)
    arithmetic = _arithmetic_of_promo(found, is_stored=span.at is None)
    drift = disagreements(arithmetic)
    stored = ("times_used", "use_count", "total_bonus_issued", "use_bonus", "updated_at")
    return {
        "stored": _stored(found, stored, span),
        "counted": {name: found[name] for name in ("uses", "adjusted_by", "bonus", "bonus_adjusted_by")},
        "arithmetic": arithmetic,
        "totals": _totals(found, "uses") | {"refused_facts": refused_in_all},
        "uses": await fetch_rows(connection, "explain_uses_of_promo", found["id"], span.limit, as_of),
        "refused_facts": refused,
        "adjustments": await fetch_rows(
            connection, "explain_adjustments_of_promo", found["id"], span.limit, as_of
        ),
        "drift": drift,
        "agrees": not drift,
    }


def _arithmetic_of_coupon(found: Row, *, is_stored: bool) -> list[Row]:
    usages = _counted_down(found, "usages")
    adjusted = (found["adjusted_by"], f"by {many(found['adjustments'], 'adjustment')}")
    counted = found["usages"] + found["adjusted_by"]
    return [
        number("times_used", terms(*usages, adjusted), counted, found["times_used"], is_stored=is_stored),
        number("usage_count", terms(*usages), found["usages"], found["usage_count"], is_stored=is_stored),
    ]


def _arithmetic_of_promo(found: Row, *, is_stored: bool) -> list[Row]:
    uses, by = _counted_down(found, "uses"), f"by {many(found['adjustments'], 'adjustment')}"
    bonus = (found["bonus"], "of uses")
    numbers = (
        ("times_used", (*uses, (found["adjusted_by"], by)), found["counted_times_used"]),
        ("use_count", uses, found["uses"]),
        ("total_bonus_issued", (bonus, (found["bonus_adjusted_by"], by)), found["counted_bonus"]),
        ("use_bonus", (bonus,), found["bonus"]),
    )
    return [
        number(name, terms(*parts), comes_to, found[name], is_stored=is_stored)
        for name, parts, comes_to in numbers
    ]


def _counted_down(found: Row, entries: str) -> tuple[tuple[object, str], ...]:
    in_all = (found[entries] + found["reversed"], entries)
    return (in_all, (-found["reversed"], "reversed")) if found["reversed"] else (in_all,)


def _was_never_used(found: Row) -> bool:
    """A coupon that has an owner, and no row of a count."""
    return found["times_used"] is None and not (found["usages"] or found["reversed"] or found["adjustments"])


def _stored(found: Row, names: tuple[str, ...], span: Span) -> Row | None:
    """What is stored, which is of now."""
    return {name: found[name] for name in names} if span.at is None else None


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
