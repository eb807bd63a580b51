"""A partner: users, links and programs, what was posted to him in each currency, and what was paid."""

from __future__ import annotations

from counterfoil.database.connection import Connection
from counterfoil.explaining.rows import Report, Span, differences, fetch_row, fetch_rows


async def explain_partner(connection: Connection, partner_id: str, span: Span) -> Report | None:
    """A partner, or whoever is named as one in any row; None where nothing is known of him."""
    partner = await fetch_row(connection, "find_partner", partner_id)
    totals = await fetch_row(connection, "explain_totals_of_partner", partner_id) or {}
    if partner is None and not any(totals.values()):
        return None
    payouts = await fetch_rows(connection, "explain_payouts_of_partner", partner_id, span.limit)
    drift = differences(
        [(f"payout {payout['id']}", payout["amount"], payout["counted"]) for payout in payouts]
    )
    return {
        "partner": partner,
        "totals": totals,
        "users": await fetch_rows(connection, "list_users_of_partner", partner_id, span.limit),
        "links": await fetch_rows(connection, "explain_links_of_partner", partner_id, span.limit),
        "enrollments": await fetch_rows(connection, "list_enrollments_of_partner", partner_id, span.limit),
        "balances": await fetch_rows(connection, "explain_balances_of_partner", partner_id),
        "payouts": payouts,
        "commissions": await fetch_rows(connection, "explain_commissions_of_partner", partner_id, span.limit),
        "drift": drift,
        "agrees": not drift,
    }
