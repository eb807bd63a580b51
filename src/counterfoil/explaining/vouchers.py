"""A voucher: what was said of it, its days, wallets, attempts and scans, and whether its counts are these."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import NamedTuple

from counterfoil.database.connection import Connection
from counterfoil.explaining.arithmetic import number
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

COUNTS = ("scan_count", "claim_count", "redemption_count", "impressions")

LOOK_FOR_S = 3.0
"""How long a voucher's latest scans are looked for: between them may be very many of other vouchers."""


class Compared(NamedTuple):
    """A number that is stored, the one that it is compared with, by their names in the sums, and where that stands."""

    counter: str
    stored: str
    counted: str
    where: str


COMPARED = (
    Compared("scan_count", "scan_count", "scans_of_hours", "voucher_hourly"),
    Compared("voucher_hourly.scans, closed", "closed_scans_of_hours", "closed_scans", "ledger_closings"),
    Compared("voucher_returns.users", "user_days", "scanner_days", "voucher_scanner_days"),
    Compared("impressions", "impressions", "impressions_of_days", "voucher_daily"),
    Compared("claim_count", "claim_count", "claims_of_days", "voucher_daily"),
    Compared("claim_count", "claim_count", "claims", "customer_vouchers"),
    Compared("redemption_count", "redemption_count", "redemptions_of_days", "voucher_daily"),
    Compared("redemption_count", "redemption_count", "redemptions", "redemption_attempts"),
    Compared("voucher_daily.failed_redemptions", "failed_of_days", "failed", "redemption_attempts"),
)
"""The ledger of scans is not counted again: that reads all of it, and is `verify`'s to do."""


async def explain_voucher(connection: Connection, voucher_id: str, span: Span) -> Report | None:
    """A voucher with the rows behind its counts; None where nothing is known of it."""
    voucher = await fetch_row(connection, "explain_voucher", voucher_id)
    sums = await fetch_row(connection, "explain_sums_of_voucher", voucher_id, span.days) or {}
    if voucher is None and not any(sums.values()):
        return None
    stored = {name: voucher.pop(name) if voucher else None for name in COUNTS}
    compared = _compared(stored | sums)
    lists = await _lists(connection, voucher_id, span)
    totals = {name: take_total(rows) for name, rows in lists.items()} | {
        "wallets": sums["wallets"],
        "attempts": sums["attempts"],
        "scans": sums["scans_of_span"],
    }
    scans = await _latest_scans(connection, voucher_id, span)
    drift = differences([(row["counter"], row["stored"], row["counted"]) for row in compared])
    drift += _drift_of_wallets(lists["wallets"])
    return {
        "voucher": voucher,
        "days": span.days,
        "stored": stored,
        "compared": compared,
        "arithmetic": [
            number(row["counter"], f"sum of {row['where']}", row["counted"], row["stored"])
            for row in compared
        ],
        "unique_users": {"ever": sums["users"], "of_days": sums["users_of_span"]},
        "totals": totals,
        "daily": await fetch_rows(connection, "explain_days_of_voucher", voucher_id, span.days),
        "states": await fetch_rows(connection, "explain_states_of_voucher", voucher_id),
        **lists,
        "scans": scans,
        "scans_found": len(scans) == min(totals["scans"], span.limit),
        "drift": drift,
        "agrees": not drift,
    }


async def _lists(connection: Connection, voucher_id: str, span: Span) -> dict[str, list[Row]]:
    of_days = await fetch_rows(connection, "explain_places_of_voucher", voucher_id, span.days, span.limit)
    of_all = {
        name: await fetch_rows(connection, f"explain_{name}_of_voucher", voucher_id, span.limit)
        for name in ("wallets", "attempts", "failures", "refused_facts", "closings")
    }
    return {"places": of_days} | {name: with_documents(rows) for name, rows in of_all.items()}


def _compared(sums: Row) -> list[Row]:
    return [
        {"counter": c.counter, "stored": sums[c.stored], "counted": sums[c.counted], "where": c.where}
        for c in COMPARED
    ]


def _drift_of_wallets(wallets: list[Row]) -> list[Row]:
    """Of the rows that are shown; one that was redeemed and has no attempt was written by hand, and stands."""
    numbers = []
    for row in wallets:
        of, redeemed = f"of customer {row['customer_id']}", row["counted_redeemed_at"]
        numbers.append((f"first_scanned_at {of}", row["first_scanned_at"], row["counted_first_scanned_at"]))
        if redeemed is not None:
            numbers += [
                (f"redeemed_at {of}", row["redeemed_at"], redeemed),
                (f"status {of}", row["status"], "REDEEMED"),
            ]
    return differences(numbers)


async def _latest_scans(connection: Connection, voucher_id: str, span: Span) -> list[Row]:
    """The latest scans of the span, or those of them that are found in time."""
    found: list[Row] = []
    with suppress(TimeoutError):  # the savepoint keeps the transaction alive
        async with connection.transaction(), asyncio.timeout(LOOK_FOR_S):
            windows = await fetch_rows(connection, "explain_scan_windows", voucher_id, span.days, span.limit)
            for window in windows:
                if len(found) == span.limit:
                    break
                missing = span.limit - len(found)
                found += await fetch_rows(
                    connection, "explain_scans_of_window", voucher_id, *window.values(), missing
                )
    return with_documents(found)
