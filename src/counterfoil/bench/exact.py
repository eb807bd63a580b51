"""Whether what a bench has counted is what it published: a fast wrong count is worth nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from counterfoil.bench.clicks import Click, daily_counts
from counterfoil.bench.orders import Order
from counterfoil.bench.scans import Scan, hourly_counts, place_counts, unique_users
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


async def scan_differences(ground: Ground, scans: Sequence[Scan], *, counted: bool = True) -> list[str]:
    """Where the ledger, or a roll-up that is counted from it, is not that of the scans."""
    wrong = []
    rows = await ground.connection.fetchval("SELECT count(*) FROM voucher_scans")
    if rows != len(scans):
        wrong.append(f"voucher_scans: {len(scans):,} scans, {rows:,} rows")
    for table, query, expected in _scan_counts(scans) if counted else ():
        found = {tuple(row)[:-1]: tuple(row)[-1] for row in await ground.connection.fetch(query)}
        if found != expected:
            wrong.append(f"{table}: the counts are not those of the scans")
    return wrong


def _scan_counts(scans: Sequence[Scan]) -> list[tuple[str, str, Mapping[Any, int]]]:
    """Table, query and what it must answer: a key's columns, and last its count."""
    return [
        ("vouchers", "SELECT id, scan_count FROM vouchers", Counter((s.voucher_id,) for s in scans)),
        ("voucher_hourly", _HOURS, hourly_counts(scans)),
        ("voucher_places", "SELECT voucher_id, day, place, scans FROM voucher_places", place_counts(scans)),
        ("voucher_returns", _UNIQUE_USERS, unique_users(scans)),
    ]


_HOURS = """
    SELECT voucher_id, hour, counter, scans_of_it FROM voucher_hourly, LATERAL (VALUES
      ('all', scans), ('CUSTOMER', customer_scans), ('BUSINESS', business_scans), ('CAMERA', camera_scans),
      ('GALLERY', gallery_scans), ('LINK', link_scans), ('SHARE', share_scans), ('anonymous', anonymous_scans)
    ) AS counted(counter, scans_of_it)
    WHERE scans_of_it <> 0"""

_UNIQUE_USERS = """
    SELECT voucher_id, sum(users)::bigint FROM voucher_returns WHERE previous_day = '-infinity' GROUP BY voucher_id"""


async def account_differences(ground: Ground, group: str, outcome: str, records: int) -> list[str]:
    """Where a group's account is not so many records of one outcome and none of any other; and all drift."""
    row = await ground.connection.fetchrow(
        "SELECT sum(applied) AS applied, sum(duplicates) AS duplicates, sum(dead) AS dead, sum(skipped) AS skipped "
        "FROM stream_positions WHERE consumer_group = $1",
        group,
    )
    found = {name: int(number) for name, number in dict(row or {}).items() if number}
    wrong = [] if found == {outcome: records} else [f"{group}: {records:,} {outcome} expected, found {found}"]
    return wrong + await drift(ground, group)


async def drift(ground: Ground, what: str) -> list[str]:
    """Where a counter is not what its ledger says, after that."""
    return [f"{what}: drift of {d.key}" for d in await find_drift(ground.connection, COUNTERS)]
