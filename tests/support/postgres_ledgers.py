"""Ledgers and counters as a test looks at them: recounted from the rows, never by the code under test."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

import asyncpg

from support.waiting import eventually

LEDGERS = (
    "affiliate_coupon_usages",
    "affiliate_coupon_adjustments",
    "promo_code_uses",
    "promo_code_adjustments",
    "order_cancellations",
)
ATTRIBUTION = (
    "conversions",
    "order_refunds",
    "order_totals",
    "refused_facts",
    "order_settlements",
    "aff_attributions",
    "commissions",
    "payouts",
    "aff_clicks",
    "affiliate_daily",
    "affiliates",
    "affiliate_status_changes",
    "affiliate_coupon_owners",
    "shop_users",
    "partners",
    "partner_users",
    "programs",
    "program_rates",
    "default_rates",
    "program_enrollments",
    "links",
)
VOUCHERS = (
    "vouchers",
    "voucher_impressions",
    "voucher_scans",
    "redemption_attempts",
    "customer_vouchers",
    "refused_voucher_facts",
    "voucher_hourly",
    "voucher_scanner_days",
    "voucher_returns",
    "voucher_places",
    "voucher_place_months",
    "voucher_daily",
)
EVERYTHING = (
    *LEDGERS,
    *ATTRIBUTION,
    *VOUCHERS,
    "affiliate_coupons",
    "promo_codes",
    "dead_letters",
    "stream_positions",
    "stream_positions_retired",
    "stream_sources",
)


async def coupon_counts(db: asyncpg.Connection) -> dict[str, tuple[int, int]]:
    """Code → (times_used, usage_count) as stored."""
    rows = await db.fetch("SELECT code, times_used, usage_count FROM affiliate_coupons")
    return {row["code"]: (row["times_used"], row["usage_count"]) for row in rows}


async def promo_counts(db: asyncpg.Connection) -> dict[str, tuple[int, Decimal]]:
    """Code → (times_used, total_bonus_issued) as stored."""
    rows = await db.fetch("SELECT code, times_used, total_bonus_issued FROM promo_codes")
    return {row["code"]: (row["times_used"], row["total_bonus_issued"]) for row in rows}


async def recounted_coupons(db: asyncpg.Connection) -> dict[str, tuple[int, int]]:
    """Code → (times_used, usage_count) from the ledger rows, in Python."""
    usages, adjustments = Counter[str](), Counter[str]()
    codes = {r["code"] for r in await db.fetch("SELECT code FROM affiliate_coupons")}
    for row in await db.fetch("SELECT code, reversed_at FROM affiliate_coupon_usages"):
        codes.add(row["code"])
        usages[row["code"]] += row["reversed_at"] is None
    for row in await db.fetch("SELECT code, delta FROM affiliate_coupon_adjustments"):
        codes.add(row["code"])
        adjustments[row["code"]] += row["delta"]
    return {code: (usages[code] + adjustments[code], usages[code]) for code in codes}


async def recounted_promos(db: asyncpg.Connection) -> dict[str, tuple[int, Decimal]]:
    """Code → (times_used, total_bonus_issued) from the ledger rows, in Python."""
    codes = {r["id"]: r["code"] for r in await db.fetch("SELECT id, code FROM promo_codes")}
    uses, bonus = Counter[int](), dict.fromkeys(codes, Decimal(0))
    for row in await db.fetch("SELECT promo_code_id, bonus_amount, reversed_at FROM promo_code_uses"):
        if row["reversed_at"] is None:
            uses[row["promo_code_id"]] += 1
            bonus[row["promo_code_id"]] += row["bonus_amount"] or 0
    for row in await db.fetch("SELECT promo_code_id, delta, bonus_delta FROM promo_code_adjustments"):
        uses[row["promo_code_id"]] += row["delta"]
        bonus[row["promo_code_id"]] += row["bonus_delta"]
    return {code: (uses[id_], bonus[id_]) for id_, code in codes.items()}


async def assert_counters_equal_ledgers(db: asyncpg.Connection, after: str = "") -> None:
    """Every stored count is what its ledger rows come to; a coupon without counted rows may have no count."""
    assert _counted(await coupon_counts(db)) == _counted(await recounted_coupons(db)), after
    assert await promo_counts(db) == await recounted_promos(db), after


def _counted(counts: dict[str, tuple[int, int]]) -> dict[str, tuple[int, int]]:
    return {code: count for code, count in counts.items() if count != (0, 0)}


async def a_promo_code(db: asyncpg.Connection, code: str = "SPRING") -> int:
    """A promo code made by hand; its id."""
    return int(await db.fetchval("INSERT INTO promo_codes (code) VALUES ($1) RETURNING id", code))


async def empty(db: asyncpg.Connection, tables: Sequence[str] = EVERYTHING) -> None:
    """Take everything away, past all triggers: between the examples of one test."""
    async with db.transaction():
        await db.execute("SET LOCAL session_replication_role = replica")
        await db.execute("; ".join(f"DELETE FROM {table}" for table in tables))


@asynccontextmanager
async def connections(address: str, count: int, **settings: str) -> AsyncIterator[list[asyncpg.Connection]]:
    """Some connections of their own, cut at the end."""
    opened = [await asyncpg.connect(address, server_settings=settings or None) for _ in range(count)]
    try:
        yield opened
    finally:
        for connection in opened:
            connection.terminate()


async def waits_for_a_lock(
    observer: asyncpg.Connection, waiting: asyncpg.Connection, *, kind: str | None = None
) -> None:
    """Return once the other connection waits for a lock of this kind, as pg_locks tells."""

    async def ungranted() -> Any:
        return await observer.fetchval(
            "SELECT locktype FROM pg_locks WHERE pid = $1 AND NOT granted", waiting.get_server_pid()
        )

    found = await eventually(ungranted, deadline=10, every=0.005)
    assert kind is None or found == kind
