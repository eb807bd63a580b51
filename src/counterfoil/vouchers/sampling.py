"""What the metrics tell of all vouchers together."""

from __future__ import annotations

from math import nan

from counterfoil.database.connection import Connection
from counterfoil.database.queries import sql
from counterfoil.telemetry.metrics import Metrics


async def sample_scans(connection: Connection, metrics: Metrics) -> None:
    """The last full minute."""
    (row,) = await connection.fetch(sql("sample_scans"))
    metrics.scans_per_minute.set(row["scans"])
    metrics.unique_scanners.set(row["users"])
    metrics.scan_places.set(row["places"])


async def sample_conversion(connection: Connection, metrics: Metrics) -> None:
    """Today, as far as it has come."""
    (row,) = await connection.fetch(sql("sample_conversion"))
    metrics.scan_to_claim_ratio.set(row["claims"] / row["scans"] if row["scans"] else nan)
    metrics.claim_to_redemption_ratio.set(row["redemptions"] / row["claims"] if row["claims"] else nan)
