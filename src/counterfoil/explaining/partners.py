"""A partner: users, links and programs, what was posted to him in each currency, and what was paid."""

from __future__ import annotations

from decimal import Decimal

from counterfoil.database.connection import Connection
from counterfoil.explaining.arithmetic import disagreements, many, number, terms
from counterfoil.explaining.rows import Report, Row, Span, fetch_row, fetch_rows, take_total


async def explain_partner(connection: Connection, partner_id: str, span: Span) -> Report | None:
    """A partner, or whoever is named as one in any row; None where nothing is known of him."""
    partner = await fetch_row(connection, "find_partner", partner_id)
    totals = await fetch_row(connection, "explain_totals_of_partner", partner_id) or {}
    if partner is None and not any(totals.values()):
        return None
    counted = await (
        _as_now(connection, partner_id, span) if span.at is None else _as_of(connection, partner_id, span)
    )
    drift = disagreements(counted["arithmetic"])
    return {
        "partner": partner,
        "users": await fetch_rows(connection, "list_users_of_partner", partner_id, span.limit),
        "enrollments": await fetch_rows(connection, "list_enrollments_of_partner", partner_id, span.limit),
        **counted,
        "totals": totals | counted["totals"],
        "drift": drift,
        "agrees": not drift,
    }


async def _as_now(connection: Connection, partner_id: str, span: Span) -> Report:
    """What is posted to him, by status, and his payouts beside the rows that they paid; a wrong one is never cut."""
    balances = await fetch_rows(connection, "explain_balances_of_partner", partner_id)
    payouts = await fetch_rows(connection, "explain_payouts_of_partner", partner_id, span.limit)
    wrong = await fetch_rows(connection, "explain_wrong_payouts_of_partner", partner_id, span.limit)
    shown = {payout["id"] for payout in payouts}
    compared = [*payouts, *(payout for payout in wrong if payout["id"] not in shown)]
    return {
        "links": await fetch_rows(connection, "explain_links_of_partner", partner_id, span.limit),
        "balances": balances,
        "payouts": payouts,
        "commissions": await fetch_rows(connection, "explain_commissions_of_partner", partner_id, span.limit),
        "totals": {},
        "arithmetic": [*_earned(balances), *(_payout(payout) for payout in compared)],
    }


async def _as_of(connection: Connection, partner_id: str, span: Span) -> Report:
    """What each order had earned him by a time, and what he had been paid of it."""
    asked = (partner_id, span.limit, span.at)
    links = await fetch_rows(connection, "explain_links_of_partner_at", *asked)
    payouts = await fetch_rows(connection, "explain_payouts_of_partner_at", *asked)
    commissions = await fetch_rows(connection, "explain_earnings_of_partner_at", *asked)
    balances = await fetch_rows(connection, "balances_of_partner_at", partner_id, span.at)
    return {
        "links": links,
        "balances": balances,
        "payouts": payouts,
        "commissions": commissions,
        "totals": {
            "links": take_total(links),
            "payouts": take_total(payouts),
            "commissions": take_total(commissions),
        },
        "arithmetic": [_open(row) for row in balances],
    }


def _earned(balances: list[Row]) -> list[Row]:
    """Of each currency what is posted, as the sum of what is posted in each status; canceled rows come to nothing."""
    found = []
    for currency in dict.fromkeys(row["currency"] for row in balances):
        of_currency = [row for row in balances if row["currency"] == currency and row["status"] != "canceled"]
        parts = [
            (row["earnings"], f"{row['status']} by {many(row['commissions'], 'row')}") for row in of_currency
        ]
        whole = sum((Decimal(row["earnings"]) for row in of_currency), Decimal(0))
        name = f"earned in {currency}"
        found.append(number(name, terms(*parts) or "0", f"{whole:f}", is_stored=False))
    return found


def _payout(row: Row) -> Row:
    formula = terms((row["counted"], f"of {many(row['commissions'], 'row')}"))
    return number(f"payout {row['id']}", f"{formula}, in {row['currency']}", row["counted"], row["amount"])


def _open(row: Row) -> Row:
    still = Decimal(row["total"]) - Decimal(row["paid"])
    formula = terms((row["total"], "earned"), (f"-{row['paid']}", "paid"))
    return number(f"open in {row['currency']}", formula, f"{still:f}", is_stored=False)
