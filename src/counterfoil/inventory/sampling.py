"""What the metrics tell of all products together."""

from __future__ import annotations

from counterfoil.database.connection import Connection
from counterfoil.database.queries import sql
from counterfoil.telemetry.metrics import Metrics


async def sample_products(connection: Connection, metrics: Metrics) -> None:
    """All products, and those that are low."""
    (row,) = await connection.fetch(sql("sample_products"))
    metrics.products.set(row["products"])
    metrics.low_stock_products.set(row["low"])
