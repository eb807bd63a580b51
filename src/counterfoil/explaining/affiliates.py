"""An affiliate: his status, days, clicks and orders, and whether what is shown of them is what the ledgers say."""

from __future__ import annotations

from counterfoil.database.connection import Connection
from counterfoil.database.queries import sql
from counterfoil.explaining.rows import Report, Row, Span, differences, fetch_row, fetch_rows

CLICK_COUNTERS = ("clicks", "unique_clicks", "bot_clicks")
SALES_COUNTERS = ("conversions", "revenue", "commission")


async def explain_affiliate(connection: Connection, handle_or_pixel: str, span: Span) -> Report | None:
    """An affiliate by handle, or else by pixel; a pixel of nobody is explained as well, if any fact names it."""
    affiliate = await fetch_row(connection, "explain_affiliate", handle_or_pixel)
    pixel = handle_or_pixel if affiliate is None else affiliate["pixel_id"]
    if affiliate is None and not await connection.fetchval(sql("explain_whether_pixel_is_known"), pixel):
        return None
    clicks = await fetch_row(connection, "explain_click_sums_of_pixel", pixel, span.days) or {}
    sums = await fetch_rows(connection, "explain_sums_of_pixel", pixel, span.days)
    links = await fetch_rows(connection, "explain_links_of_pixel", pixel, span.limit)
    states = await fetch_rows(connection, "explain_states_of_pixel", pixel, span.days)
    drift = _drift(clicks, sums)
    return {
        "pixel_id": pixel,
        "affiliate": affiliate,
        "days": span.days,
        "status_history": await fetch_rows(connection, "affiliate_status_history", pixel),
        "coupons": await fetch_rows(connection, "explain_coupons_of_pixel", pixel),
        "totals": {
            "links": links[0]["total"] if links else 0,
            "clicks": clicks["counted_clicks"] + clicks["counted_bot_clicks"],
            "attributions": sum(state["orders"] for state in states),
        },
        "links": [{name: value for name, value in link.items() if name != "total"} for link in links],
        "daily": await fetch_rows(connection, "explain_days_of_pixel", pixel, span.days),
        "click_sums": clicks,
        "sums": sums,
        "states": states,
        "attributions": await fetch_rows(
            connection, "explain_attributions_of_pixel", pixel, span.days, span.limit
        ),
        "clicks": await fetch_rows(connection, "explain_clicks_of_pixel", pixel, span.days, span.limit),
        "drift": drift,
        "agrees": not drift,
    }


def _drift(clicks: Row, sums: list[Row]) -> list[Row]:
    """What the daily roll-up shows otherwise than the ledgers, and what is posted otherwise than attributed."""
    numbers = [(counter, clicks[counter], clicks[f"counted_{counter}"]) for counter in CLICK_COUNTERS]
    for row in sums:
        numbers += [(f"{c} in {row['currency']}", row[c], row[f"counted_{c}"]) for c in SALES_COUNTERS]
        numbers.append((f"posted in {row['currency']}", row["posted"], row["counted_commission"]))
    return differences(numbers)
