"""An affiliate: his status, days, clicks and orders, and whether what is shown of them is what the ledgers say."""

from __future__ import annotations

from decimal import Decimal

from counterfoil.database.connection import Connection
from counterfoil.database.queries import sql
from counterfoil.explaining.arithmetic import disagreements, many, number, sum_of, terms
from counterfoil.explaining.rows import Report, Row, Span, fetch_row, fetch_rows, take_total

CLICK_COUNTERS = ("clicks", "unique_clicks", "bot_clicks")
SALES_COUNTERS = ("conversions", "revenue", "commission")


async def explain_affiliate(connection: Connection, handle_or_pixel: str, span: Span) -> Report | None:
    """An affiliate by handle, or else by pixel; a pixel of nobody is explained as well, if any fact names it."""
    affiliate = await fetch_row(connection, "explain_affiliate", handle_or_pixel, span.as_of)
    pixel = handle_or_pixel if affiliate is None else affiliate["pixel_id"]
    if affiliate is None and not await connection.fetchval(sql("explain_whether_pixel_is_known"), pixel):
        return None
    links = await fetch_rows(connection, "explain_links_of_pixel", pixel, span.limit, span.as_of)
    links_in_all = take_total(links)
    counted = await (_as_now(connection, pixel, span) if span.at is None else _as_of(connection, pixel, span))
    drift = disagreements(counted["arithmetic"])
    if span.at is None:
        for of in ("days", "orders"):
            drift += await fetch_rows(connection, f"explain_drift_of_{of}", pixel, span.days, span.limit)
    return {
        "pixel_id": pixel,
        "affiliate": affiliate,
        "days": span.days,
        "status_history": await _statuses(connection, pixel, span),
        "coupons": await _coupons(connection, pixel, span),
        "links": links,
        "clicks": await fetch_rows(
            connection, "explain_clicks_of_pixel", pixel, span.days, span.limit, span.as_of
        ),
        **counted,
        "totals": {"links": links_in_all, **counted["totals"]},
        "drift": drift,
        "agrees": not drift,
    }


async def _as_now(connection: Connection, pixel: str, span: Span) -> Report:
    """What is shown of the days, beside what the ledgers say."""
    clicks = await fetch_row(connection, "explain_click_sums_of_pixel", pixel, span.days) or {}
    sums = await fetch_rows(connection, "explain_sums_of_pixel", pixel, span.days)
    states = await fetch_rows(connection, "explain_states_of_pixel", pixel, span.days)
    return {
        "daily": await fetch_rows(connection, "explain_days_of_pixel", pixel, span.days),
        "click_sums": clicks,
        "sums": sums,
        "states": states,
        "attributions": await fetch_rows(
            connection, "explain_attributions_of_pixel", pixel, span.days, span.limit
        ),
        "totals": {
            "clicks": clicks["counted_clicks"] + clicks["counted_bot_clicks"],
            "attributions": sum(state["orders"] for state in states),
        },
        "arithmetic": [*_of_clicks(clicks), *(found for row in sums for found in _of_sales(row))],
    }


async def _as_of(connection: Connection, pixel: str, span: Span) -> Report:
    """The days as of a time, which are stored nowhere, and what they add up to."""
    daily = await fetch_rows(connection, "explain_days_of_pixel_at", pixel, span.days, span.at)
    attributions = await fetch_rows(
        connection, "explain_attributions_of_pixel_at", pixel, span.days, span.limit, span.at
    )
    arithmetic = [_of_days(daily, "", counter) for counter in CLICK_COUNTERS]
    for currency in sorted({row["currency"] for row in daily} - {""}):
        arithmetic += [_of_days(daily, currency, counter) for counter in SALES_COUNTERS]
    return {
        "daily": daily,
        "click_sums": {row["number"]: row["comes_to"] for row in arithmetic[: len(CLICK_COUNTERS)]},
        "sums": [],
        "states": [],
        "totals": {
            "clicks": arithmetic[0]["comes_to"] + arithmetic[2]["comes_to"],
            "attributions": take_total(attributions),
        },
        "attributions": attributions,
        "arithmetic": arithmetic,
    }


async def _coupons(connection: Connection, pixel: str, span: Span) -> list[Row]:
    """Whose they are, which is of now; how often they were used is not told as of a time."""
    coupons = await fetch_rows(connection, "explain_coupons_of_pixel", pixel)
    if span.at is not None:
        for coupon in coupons:
            del coupon["times_used"]
    return coupons


async def _statuses(connection: Connection, pixel: str, span: Span) -> list[Row]:
    if span.at is None:
        return await fetch_rows(connection, "affiliate_status_history", pixel)
    return await fetch_rows(connection, "affiliate_status_history_at", pixel, span.at)


def _of_clicks(clicks: Row) -> list[Row]:
    """Clicks: what the ledger has, and what the closings have of it that is gone."""
    found = []
    for counter in CLICK_COUNTERS:
        counted, closed = clicks[f"counted_{counter}"], clicks[f"closed_{counter}"]
        parts = [(counted - closed, "in the ledger")] + ([(closed, "closed")] if closed else [])
        found.append(number(counter, terms(*parts), counted, clicks[counter]))
    return found


def _of_sales(row: Row) -> list[Row]:
    """Sales in one currency: the roll-up beside the attributions, and what is posted beside what is attributed."""
    currency, orders = row["currency"], row["counted_conversions"]
    of_orders = f"of {many(orders, 'attributed order')}"
    found = [
        number(
            f"{counter} in {currency}",
            terms((row[f"counted_{counter}"], of_orders)),
            row[f"counted_{counter}"],
            row[counter],
        )
        for counter in SALES_COUNTERS
    ]
    of_rows = terms((row["counted_commission"], "attributed"))
    found.append(number(f"posted in {currency}", of_rows, row["counted_commission"], row["posted"]))
    return found


def _of_days(daily: list[Row], currency: str, counter: str) -> Row:
    """A sum over the days, each of which is shown."""
    days = [row[counter] for row in daily if row["currency"] == currency and Decimal(row[counter])]
    whole = sum((Decimal(day) for day in days), Decimal(0))
    name = f"{counter} in {currency}" if currency else counter
    comes_to = f"{whole:f}" if counter in ("revenue", "commission") else int(whole)
    return number(name, sum_of(reversed(days)), comes_to, is_stored=False)
