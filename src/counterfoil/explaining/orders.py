"""An order: who claims it, what takes it back, to whom it is attributed and why, and what was posted for it."""

from __future__ import annotations

from decimal import Decimal

from counterfoil.database.connection import Connection
from counterfoil.explaining.arithmetic import arithmetic_of_order
from counterfoil.explaining.rows import Report, Row, Span, fetch_row, fetch_rows, with_documents

FACTS = (
    "conversions",
    "coupon_usages",
    "promo_uses",
    "refunds",
    "refused_facts",
    "cancellation",
    "order_total",
    "attribution",
    "commissions",
    "drift",
)


LISTS = ("conversions", "coupon_usages", "promo_uses", "refunds", "refused_facts", "commissions")


async def explain_order(connection: Connection, order_id: str, span: Span) -> Report | None:
    """All that is known of an order, of each list no more than the span; None where nothing is."""
    report: Report = {
        "conversions": await fetch_rows(connection, "explain_claims", order_id),
        "coupon_usages": await fetch_rows(connection, "explain_usages_of_order", order_id),
        "promo_uses": await fetch_rows(connection, "explain_promo_uses_of_order", order_id),
        "refunds": await fetch_rows(connection, "explain_refunds", order_id),
        "refused_facts": with_documents(await fetch_rows(connection, "explain_refused_facts", order_id)),
        "cancellation": await fetch_row(connection, "explain_cancellation", order_id),
        "order_total": await fetch_row(connection, "explain_order_total", order_id),
        "attribution": await fetch_row(connection, "explain_attribution", order_id),
        "commissions": await fetch_rows(connection, "explain_commissions_of_order", order_id),
        "balances": await fetch_rows(connection, "explain_balances_of_order", order_id),
        "drift": await fetch_rows(connection, "explain_attribution_drift", order_id),
    }
    if not any(report[fact] for fact in FACTS):
        return None
    if report["attribution"] is not None:
        report["attribution"] |= await _reasons(connection, order_id, report)
    _judge_codes(report)
    _judge_refunds(report)
    report["arithmetic"] = arithmetic_of_order(report)
    report["posted_is_target"] = all(balance["posted_is_target"] for balance in report["balances"])
    report["agrees"] = report["posted_is_target"] and not report["drift"]
    report["totals"] = {name: len(report[name]) for name in LISTS}
    return report | {name: report[name][: span.limit] for name in (*LISTS, "balances", "arithmetic")}


async def _reasons(connection: Connection, order_id: str, report: Report) -> Row:
    """The rows by which an order was judged, and why its link is its link."""
    attribution = report["attribution"]
    rate = None
    if attribution["rate_source"] in ("program", "default"):
        rate = await fetch_row(connection, f"explain_{attribution['rate_source']}_rate_of_order", order_id)
    claim = report["conversions"][0] if attribution["origin"] == "conversion" else None
    return {
        "affiliate_status": await fetch_row(connection, "explain_status_of_order", order_id),
        "rate": rate,
        "link": await fetch_row(connection, "explain_link", attribution["link_id"]),
        **await _why_this_link(connection, attribution, claim["link_id"] if claim else None),
    }


async def _why_this_link(connection: Connection, attribution: Row, named: str | None) -> Row:
    """`link_from`: how the link was found; `named_link_refused_as`: why the one that the conversion names was not."""
    if attribution["link_id"] is None:
        chosen = None
    else:
        chosen = "conversion" if attribution["link_id"] == named else "first_of_pixel"
    if named is None or chosen == "conversion":
        return {"link_from": chosen, "named_link_refused_as": None}
    is_known = await fetch_row(connection, "explain_link", named) is not None
    return {"link_from": chosen, "named_link_refused_as": "of_another_pixel" if is_known else "not_known"}


def _judge_codes(report: Report) -> None:
    """Say of each code whether the order is attributed by it, or what speaks against it."""
    for usage in report["coupon_usages"]:
        usage["refused_as"] = _refused_code(usage, report["attribution"])
        usage["stands"] = usage["refused_as"] is None


def _refused_code(usage: Row, attribution: Row | None) -> str | None:
    if usage["owner_pixel_id"] is None:
        return "nobodys_coupon"
    if attribution is None:
        return "no_order_total"
    if attribution["origin"] == "conversion":
        return "conversion_stands"
    if usage["code"] == attribution["code"]:
        return None
    return "larger_code" if usage["owner_pixel_id"] == attribution["pixel_id"] else "larger_pixel"


def _judge_refunds(report: Report) -> None:
    """Say of each refund whether it counts, and of the attribution what those come to that do."""
    attribution = report["attribution"]
    sold_in = {row["currency"] for row in report["commissions"] if row["origin"] == "manual"}
    if attribution is not None:
        sold_in = {attribution["currency"]}
    for refund in report["refunds"]:
        refund["counts"] = bool(sold_in) and (refund["currency"] is None or refund["currency"] in sold_in)
        refund["refused_as"] = None if refund["counts"] else "other_currency" if sold_in else "no_sale"
    if attribution is not None:
        counted = sum((Decimal(r["amount"]) for r in report["refunds"] if r["counts"]), Decimal(0))
        attribution["refunds_are_capped"] = counted > Decimal(attribution["refunded"])
