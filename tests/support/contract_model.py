"""The contract of orders in plain Python: what a set of events comes to, whatever its order."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any

import asyncpg


@dataclass
class Tables:
    """The final tables, without the columns that say when or from where a row was written."""

    usages: dict[tuple[str, str], tuple[datetime, datetime | None]] = field(default_factory=dict)
    uses: dict[tuple[str, str], tuple[Any, ...]] = field(default_factory=dict)
    cancellations: dict[str, tuple[datetime, str | None]] = field(default_factory=dict)
    coupons: dict[str, tuple[int, int]] = field(default_factory=dict)
    promos: dict[str, tuple[int, Decimal]] = field(default_factory=dict)


def model(documents: Iterable[dict[str, Any]]) -> Tables:
    """What documents with `order_id`, `timestamp` and perhaps `codes`, `promotions` or `canceled` come to."""
    documents = list(documents)
    tables = Tables()
    for canceled in (d for d in documents if "canceled" in d):
        told = (_time(canceled), canceled.get("reason") or "")
        known = tables.cancellations.get(canceled["order_id"])
        if known is None or told < (known[0], known[1] or ""):
            tables.cancellations[canceled["order_id"]] = (told[0], told[1] or None)
    contents: dict[tuple[str, str], tuple[Any, ...]] = {}
    times: dict[tuple[str, str], datetime] = {}
    for order in (d for d in documents if "canceled" not in d):
        rewarded: set[str] = set()
        for code in [*order.get("codes", ()), *(p["code"] for p in order.get("promotions", ()))]:
            key = (order["order_id"], code)
            times[key] = min(times.get(key, _time(order)), _time(order))
        for entry in order.get("promotions", ()):
            key = (order["order_id"], entry["code"])
            if entry["code"] in rewarded or not {"bonus_amount", "base_reward"} & entry.keys():
                continue
            rewarded.add(entry["code"])
            content = (
                _time(order),
                Decimal(entry.get("bonus_amount", 0)),
                Decimal(entry.get("base_reward", 0)),
                order.get("customer_address", ""),
                order.get("shop_id", ""),
            )
            contents[key] = min(contents.get(key, content), content)
    for key, time in times.items():
        reversed_at = tables.cancellations.get(key[0], (None,))[0]
        tables.usages[key] = (time, reversed_at)
        used = tables.coupons.get(key[1], (0, 0))[0] + (reversed_at is None)
        tables.coupons[key[1]] = (used, used)
    for key, (time, bonus, base, address, shop) in contents.items():
        reversed_at = tables.cancellations.get(key[0], (None,))[0]
        tables.uses[key] = (time, bonus, base, base + bonus, address or None, shop or None, reversed_at)
        used, total = tables.promos.get(key[1], (0, Decimal(0)))
        tables.promos[key[1]] = (used + 1, total + bonus) if reversed_at is None else (used, total)
    return tables


async def stored(db: asyncpg.Connection) -> Tables:
    """The tables as they are."""
    uses = await db.fetch(
        "SELECT p.code, u.* FROM promo_code_uses AS u JOIN promo_codes AS p ON p.id = u.promo_code_id"
    )
    return Tables(
        usages={
            (r["order_id"], r["code"]): (r["occurred_at"], r["reversed_at"])
            for r in await db.fetch("SELECT * FROM affiliate_coupon_usages")
        },
        uses={
            (r["order_id"], r["code"]): (
                r["occurred_at"],
                r["bonus_amount"],
                r["base_reward"],
                r["total_reward"],
                r["customer_address"],
                r["shop_id"],
                r["reversed_at"],
            )
            for r in uses
        },
        cancellations={
            r["order_id"]: (r["canceled_at"], r["reason"])
            for r in await db.fetch("SELECT * FROM order_cancellations")
        },
        coupons={
            r["code"]: (r["times_used"], r["usage_count"])
            for r in await db.fetch("SELECT * FROM affiliate_coupons")
        },
        promos={
            r["code"]: (r["times_used"], r["total_bonus_issued"])
            for r in await db.fetch("SELECT * FROM promo_codes")
        },
    )


def _time(document: dict[str, Any]) -> datetime:
    return datetime.fromisoformat(document["timestamp"])
