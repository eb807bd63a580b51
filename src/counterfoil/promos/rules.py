"""Which promo uses orders bring."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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

    @property
    def columns(self) -> tuple[datetime, Decimal, Decimal, str | None, str | None, Decimal]:
        """What its row says, in the order of the ledger's columns."""
        address, shop = self.customer_address or None, self.shop_id or None
        return self.occurred_at, self.bonus_amount, self.base_reward, address, shop, self.total_reward


UseKey = tuple[str, str]
"""(order id, promo code)"""


def promo_uses(orders: Sequence[OrderPlaced]) -> dict[UseKey, tuple[PromoUse, int]]:
    """Use → what stands of it, and the index of the order event that says so."""
    uses: dict[UseKey, tuple[PromoUse, int]] = {}
    for key, use, index in _told(orders):
        if key not in uses or use < uses[key][0]:
            uses[key] = (use, index)
    return uses


def other_uses(
    orders: Sequence[OrderPlaced], uses: dict[UseKey, tuple[PromoUse, int]]
) -> list[tuple[UseKey, PromoUse, int]]:
    """What the same orders say else of these uses, and does not stand, with the index of the order event."""
    if len(uses) == sum([len(order.promotions) for order in orders]):
        return []
    return [(key, use, index) for key, use, index in _told(orders) if use != uses[key][0]]


def keys_of(order: OrderPlaced) -> list[UseKey]:
    """The uses that an order tells of."""
    return [(order.order_id, entry.code) for entry in order.promotions]


def _told(orders: Sequence[OrderPlaced]) -> Iterator[tuple[UseKey, PromoUse, int]]:
    for index, order in enumerate(orders):
        for entry in order.promotions:
            use = PromoUse(
                order.timestamp,
                entry.bonus_amount or Decimal(0),
                entry.base_reward or Decimal(0),
                order.customer_address or "",
                order.shop_id or "",
            )
            yield (order.order_id, entry.code), use, index
