"""Whether what a bench has counted is what it published: a fast wrong count is worth nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

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
