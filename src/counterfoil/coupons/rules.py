"""Which coupon usages orders bring."""

from __future__ import annotations

from datetime import datetime

from counterfoil.database.facts import Facts
from counterfoil.events import OrderPlaced

UsageKey = tuple[str, str]
"""(order id, code)"""

UsageRow = tuple[str, str, datetime, int, int]
"""(order id, code, occurred at, source id, source offset): a row of affiliate_coupon_usages."""


def add_usages(rows: dict[UsageKey, UsageRow], facts: Facts[OrderPlaced], start: int, stop: int) -> None:
    """Add the usages of some of the orders: one for each code, of several the earliest."""
    for order, source_id, offset in zip(
        facts.events[start:stop], facts.source_ids[start:stop], facts.offsets[start:stop], strict=True
    ):
        order_id, timestamp = order.order_id, order.timestamp
        for code in order.codes:
            key = (order_id, code)
            row = (order_id, code, timestamp, source_id, offset)
            first = rows.setdefault(key, row)
            if first is not row and timestamp < first[2]:
                rows[key] = row


def keys_of(order: OrderPlaced) -> list[UsageKey]:
    """The usages that an order tells of."""
    return [(order.order_id, code) for code in order.codes]


def orders_of(facts: Facts[OrderPlaced], sources: set[tuple[int, int]]) -> set[int]:
    """The indexes of the orders that came from these (source id, offset)."""
    return {
        index
        for index, source in enumerate(zip(facts.source_ids, facts.offsets, strict=True))
        if source in sources
    }
