"""An order as a terminal shows it: its facts with a verdict on each, its attribution with reasons, what was posted."""

from __future__ import annotations

from collections.abc import Iterator

from counterfoil.explaining.cells import (
    Section,
    arithmetic,
    known,
    line,
    listed,
    money_cell,
    payment_cell,
    refused_fact,
    state_cell,
    time_cell,
)
from counterfoil.explaining.rows import Report, Row

CLAIM_REFUSED = {
    None: "stands",
    "later": "refused: later",
    "larger_pixel": "refused: same time, larger pixel",
    "link_against_pixel": "refused: same time, a link against a pixel",
    "larger_link": "refused: same time, larger link",
}
CODE_REFUSED = {
    None: "attributes the order",
    "nobodys_coupon": "nobody's coupon",
    "no_order_total": "attributes nothing: no order total was kept",
    "conversion_stands": "attributes nothing: a conversion stands",
    "larger_pixel": "attributes nothing: another's has a smaller pixel",
    "larger_code": "attributes nothing: a smaller code does",
}
REFUND_REFUSED = {
    None: "counts",
    "other_currency": "does not count: another currency than the order's",
    "no_sale": "counts once there is a sale",
}
LINK_FROM = {
    None: "none is known",
    "conversion": "named by the conversion",
    "first_of_pixel": "the pixel's first",
}
LINK_REFUSED = {
    None: "",
    "not_known": "; the one that the conversion names is not known yet",
    "of_another_pixel": "; the one that the conversion names is not this pixel's",
}
PARTNER_FROM = {
    None: "not known yet",
    "named_by_link": "named by the link",
    "default_of_user": "of the link's user",
    "by_hand": "written into the link by hand",
}


def view_order(report: Report) -> Iterator[Section]:
    """The arithmetic of it, the facts, then what follows from them."""
    yield Section(f"Order {report['id']}")
    yield arithmetic(report)
    yield from order_sections(report)


def order_sections(report: Report) -> Iterator[Section]:
    """The facts, then what follows from them."""
    yield listed("Conversions", report, "conversions", _claim, order=", the one that stands first")
    yield listed("Coupon usages", report, "coupon_usages", _usage, order="")
    yield listed("Promo uses", report, "promo_uses", _promo_use, order="")
    yield listed("Refunds", report, "refunds", _refund, order="")
    yield listed("Told once more, and refused", report, "refused_facts", refused_fact, order="")
    if (cancellation := report["cancellation"]) is not None:
        yield Section("Cancellation", [_cancellation(cancellation)])
    if (total := report["order_total"]) is not None:
        yield Section("Order total, for attribution by coupon", [_total(total)])
    if (attribution := report["attribution"]) is not None:
        yield Section("Attribution", list(_attribution(attribution)))
    else:
        yield Section(
            "It is attributed to nobody: no conversion, and no coupon that counts for an affiliate."
        )
    yield listed("Commissions", report, "commissions", _commission, order="")
    yield Section("Target and posted", [_balance(row) for row in report["balances"]])


def _claim(row: Row) -> Row:
    return {
        "time": time_cell(row["occurred_at"]),
        "claimed for": known("affiliate", row["pixel_id"], row["beneficiary"]) or row["beneficiary"],
        "revenue": money_cell(row, "revenue"),
        "own commission": money_cell(row, "commission"),
        "verdict": CLAIM_REFUSED[row["refused_as"]],
        "source": row["source"],
    }


def _usage(row: Row) -> Row:
    return {
        "time": time_cell(row["occurred_at"]),
        "code": known("coupon", row["code"]),
        "state": state_cell(row),
        "affiliate": known("affiliate", row["owner"] or row["owner_pixel_id"]),
        "verdict": CODE_REFUSED[row["refused_as"]],
        "source": row["source"],
    }


def _promo_use(row: Row) -> Row:
    return {
        "time": time_cell(row["occurred_at"]),
        "code": known("promo", row["code"]),
        "base": row["base_reward"],
        "bonus": row["bonus_amount"],
        "state": state_cell(row),
        "source": row["source"],
    }


def _refund(row: Row) -> Row:
    return {
        "time": time_cell(row["occurred_at"]),
        "refund": row["refund_id"],
        "amount": money_cell(row, "amount"),
        "verdict": REFUND_REFUSED[row["refused_as"]],
        "source": row["source"],
    }


def _cancellation(row: Row) -> Row:
    return {"time": time_cell(row["canceled_at"]), "reason": row["reason"], "source": row["source"]}


def _total(row: Row) -> Row:
    return {
        "time": time_cell(row["occurred_at"]),
        "total": money_cell(row, "total"),
        "source": row["source"],
    }


def _attribution(row: Row) -> Iterator[Row]:
    by_coupon = row["origin"] == "coupon"
    yield line("by", row["origin"], f"{row['code']}, and no conversion" if by_coupon else "")
    yield line("to", row["beneficiary"])
    if row["pixel_id"] is not None:
        yield line(
            "affiliate",
            known("affiliate", row["pixel_id"], row["handle"] or row["pixel_id"]),
            _status_reason(row),
        )
    yield line(
        "link", row["link_id"], LINK_FROM[row["link_from"]] + LINK_REFUSED[row["named_link_refused_as"]]
    )
    yield line("program", row["program_id"], row["base_domain"] or "")
    yield line("partner", known("partner", row["partner_id"]), _partner_reason(row))
    yield line("revenue", money_cell(row, "revenue"))
    yield line(
        "refunded",
        money_cell(row, "refunded"),
        "the whole revenue, no more" if row["refunds_are_capped"] else "",
    )
    yield line("rate", "" if row["rate_percent"] is None else f"{row['rate_percent']} %", _rate_reason(row))
    yield line("target", money_cell(row, "target_earnings"), f"of {money_cell(row, 'target_amount')}")
    yield line("status", row["status"])


def _status_reason(row: Row) -> str:
    status = row["affiliate_status"]
    if status is not None:
        return f"{status['status']} {_since(status)}"
    return "no status is known" if row["handle"] else "no affiliate has this pixel yet"


def _partner_reason(row: Row) -> str:
    reason = PARTNER_FROM[row["link"]["partner_from"] if row["link"] else None]
    return f"{reason}: {row['partner_name']}" if row["partner_name"] else reason


def _rate_reason(row: Row) -> str:
    if row["rate_source"] == "paused":
        return "the affiliate was paused"
    if row["rate_source"] == "conversion":
        return "the conversion names its commission"
    rate = row["rate"]
    if rate is None:
        return "no rate is known"
    said_by = f" ({rate['said_by']})" if rate["said_by"] else ""
    return f"{rate['table']} {rate['id']}{said_by}, {_since(rate)}"


def _since(row: Row) -> str:
    """Since when a row has been valid: what came before the earliest of them is judged by that one."""
    earliest = " (the earliest known)" if row["earliest_known"] else ""
    return f"since {time_cell(row['valid_from'])}{earliest} by {row['actor']}"


def _commission(row: Row) -> Row:
    return {
        "id": known("commission", row["id"]),
        "what": f"{row['kind']}: {row['cause']}",
        "to": row["beneficiary"],
        "of": row["amount"],
        "earnings": money_cell(row, "earnings"),
        "sum": row["running_sum"],
        "status": payment_cell(row),
        "posted": time_cell(row["posted_at"])[:19],
    }


def _balance(row: Row) -> Row:
    return {
        "to": row["beneficiary"],
        "partner": known("partner", row["partner_id"]),
        "program": row["program_id"],
        "link": row["link_id"],
        "target": money_cell(row, "target_earnings"),
        "posted": money_cell(row, "posted_earnings"),
        "verdict": _verdict(row),
    }


def _verdict(row: Row) -> str:
    if row["posted_is_target"]:
        return "equal"
    if row["posted_earnings"] != row["target_earnings"]:
        return "differs"
    return f"differs: posted of {money_cell(row, 'posted_amount')}, not of {money_cell(row, 'target_amount')}"
