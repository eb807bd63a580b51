"""Which coupon usages orders bring."""

from __future__ import annotations

from collections.abc import Sequence

from counterfoil.events import OrderPlaced

UsageKey = tuple[str, str]
"""(order id, code)"""


def coupon_usages(orders: Sequence[OrderPlaced]) -> dict[UsageKey, int]:
    """Usage → index of the order event that it is taken from: of several the earliest."""
    usages: dict[UsageKey, int] = {}
    for index, order in enumerate(orders):
        for code in order.codes:
            key = (order.order_id, code)
            first = usages.setdefault(key, index)
            if first != index and order.timestamp < orders[first].timestamp:
                usages[key] = index
    return usages
