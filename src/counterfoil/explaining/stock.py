"""A product: what is stored of it, the absolute and the deltas that its stock is made of, and what was told of it."""

from __future__ import annotations

from collections.abc import Sequence

from counterfoil.database.connection import Connection
from counterfoil.explaining.arithmetic import many, number, terms
from counterfoil.explaining.rows import (
    Report,
    Row,
    Span,
    differences,
    fetch_row,
    fetch_rows,
    take_total,
    with_documents,
)

COUNTED = ("stock", "last_restocked", "counted_from", "counted_from_event")

NOTHING: Row = {"stock": 0, "last_restocked": None, "counted_from": "-infinity", "counted_from_event": ""}
"""What a product counts that no change has told of."""


async def explain_sku(connection: Connection, sku: str, span: Span) -> Report | None:
    """A product with the rows behind its stock; None where nothing is known of it."""
    product = await fetch_row(connection, "explain_product", sku)
    counted = await fetch_row(connection, "explain_counted_product", sku)
    lists = await _lists(connection, sku, span)
    if product is None and counted is None and not any(lists.values()):
        return None
    totals = {name: take_total(rows) for name, rows in lists.items()}
    stored = {name: product.pop(name) if product else None for name in COUNTED}
    drift = differences([(name, stored[name], (counted or NOTHING)[name]) for name in COUNTED])
    stock = (counted or NOTHING)["stock"]
    absolute = await fetch_row(connection, "explain_absolute_of_stock", sku)
    deltas = await fetch_row(connection, "explain_deltas_of_stock", sku)
    return {
        "product": product,
        "stored": stored,
        "counted": counted or NOTHING,
        "absolute": absolute,
        "deltas": deltas,
        "arithmetic": [_arithmetic(absolute, deltas or {}, stock, stored["stock"])],
        "details": await fetch_rows(connection, "explain_details_of_product", sku),
        "totals": totals,
        **lists,
        "changes": _with_stock_after(lists["changes"], stock),
        "alerts": await _with_notifications(connection, lists["alerts"]),
        "closing": await fetch_row(connection, "explain_closing_of_stock", sku),
        "drift": drift,
        "agrees": not drift,
    }


def _arithmetic(absolute: Row | None, deltas: Row, stock: int, stored: int | None) -> Row:
    """The latest absolute, and what the deltas since then come to."""
    moved = (deltas["sum"], f"by {many(deltas['deltas'], 'delta')}")
    parts = [moved] if absolute is None else [(absolute["stock"], "counted"), moved]
    return number("stock", terms(*parts), stock, stored)


async def _lists(connection: Connection, sku: str, span: Span) -> dict[str, list[Row]]:
    found = {
        name: await fetch_rows(connection, f"explain_{name}_of_stock", sku, span.limit)
        for name in ("changes", "refused_changes", "alerts")
    }
    return {name: with_documents(rows) for name, rows in found.items()}


def _with_stock_after(changes: Sequence[Row], stock: int) -> list[Row]:
    """The changes, newest first, each with the stock that it left behind, where it is part of what is counted."""
    found = []
    for row in changes:
        counts = row["part"] != "before"
        found.append(row | {"stock_after": stock if counts else None})
        stock -= row["quantity_delta"] if row["part"] == "delta" else 0
    return found


async def _with_notifications(connection: Connection, alerts: Sequence[Row]) -> list[Row]:
    told: dict[str, list[Row]] = {row["alert_id"]: [] for row in alerts}
    for row in await fetch_rows(connection, "explain_notifications_of_alerts", list(told)):
        told[row.pop("alert_id")].append(row)
    return [row | {"notifications": told[row["alert_id"]]} for row in alerts]
