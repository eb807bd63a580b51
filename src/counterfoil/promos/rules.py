"""Which promo uses orders bring."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import NamedTuple

from counterfoil.events import OrderPlaced


class PromoUse(NamedTuple):
    """What an order says of one promo code; of two that differ the smaller tuple stands, so the earlier."""

    occurred_at: datetime
    bonus_amount: Decimal
    base_reward: Decimal
    customer_address: str
    shop_id: str

    @property
    def total_reward(self) -> Decimal:
        """Base and bonus together, in reward units."""
        return self.base_reward + self.bonus_amount


UseKey = tuple[str, str]
"""(order id, promo code)"""


def promo_uses(orders: Sequence[OrderPlaced]) -> dict[UseKey, tuple[PromoUse, int]]:
    """Use → what stands of it, and the index of the order event that says so."""
    uses: dict[UseKey, tuple[PromoUse, int]] = {}
    for index, order in enumerate(orders):
        for entry in order.promotions:
            use = PromoUse(
                order.timestamp,
                entry.bonus_amount or Decimal(0),
                entry.base_reward or Decimal(0),
                order.customer_address or "",
                order.shop_id or "",
            )
            key = (order.order_id, entry.code)
            if key not in uses or use < uses[key][0]:
                uses[key] = (use, index)
    return uses
