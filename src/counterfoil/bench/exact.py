"""Whether what a bench has counted is what it published: a fast wrong count is worth nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from counterfoil.bench.clicks import Click, daily_counts
from counterfoil.bench.orders import Order
from counterfoil.bench.sources import Ground
from counterfoil.database.counters import find_drift
from counterfoil.routing import COUNTERS


async def ledger_differences(
    ground: Ground,
    orders: Sequence[Order],
    usages: str = "affiliate_coupon_usages",
    coupons: str | None = "affiliate_coupons",
) -> list[str]:
    """Where the ledger or the counts by code are not those of the orders."""
    wrong = []
    rows = await ground.connection.fetchval(f"SELECT count(*) FROM {usages}")  # noqa: S608 - our own names
    if rows != len(orders):
        wrong.append(f"{usages}: {len(orders):,} orders, {rows:,} rows")
    if coupons:
        found = await ground.connection.fetch(f"SELECT code, times_used FROM {coupons}")  # noqa: S608
        if {row["code"]: row["times_used"] for row in found} != Counter(order.code for order in orders):
            wrong.append(f"{coupons}: the counts by code are not those of the orders")
    return wrong


async def click_differences(ground: Ground, clicks: Sequence[Click], *, counted: bool = True) -> list[str]:
    """Where the ledger, or the days that are counted from it, are not those of the clicks."""
    wrong = []
    rows = await ground.connection.fetchval("SELECT count(*) FROM aff_clicks")
    if rows != len(clicks):
        wrong.append(f"aff_clicks: {len(clicks):,} clicks, {rows:,} rows")
    if counted:
        found = await ground.connection.fetch(
            "SELECT pixel_id, day, clicks, unique_clicks, bot_clicks FROM affiliate_daily"
        )
        if {tuple(row)[:2]: tuple(row)[2:] for row in found} != daily_counts(clicks):
            wrong.append("affiliate_daily: the counts by pixel and day are not those of the clicks")
    return wrong


async def account_differences(ground: Ground, group: str, outcome: str, records: int) -> list[str]:
    """Where a group's account is not so many records of one outcome and none of any other; and all drift."""
    row = await ground.connection.fetchrow(
        "SELECT sum(applied) AS applied, sum(duplicates) AS duplicates, sum(dead) AS dead, sum(skipped) AS skipped "
        "FROM stream_positions WHERE consumer_group = $1",
        group,
    )
    found = {name: int(number) for name, number in dict(row or {}).items() if number}
    wrong = [] if found == {outcome: records} else [f"{group}: {records:,} {outcome} expected, found {found}"]
    return wrong + [f"{group}: drift of {d.key}" for d in await find_drift(ground.connection, COUNTERS)]
