"""Orders → rows of promo_code_uses."""

from __future__ import annotations

from typing import ClassVar, NamedTuple

from counterfoil.database.connection import Connection
from counterfoil.database.facts import Facts, Outcome
from counterfoil.database.ledger import Ledger
from counterfoil.database.locks import ORDERS_SHARED, Lock
from counterfoil.database.queries import sql
from counterfoil.events import OrderPlaced
from counterfoil.promos.rules import PromoUse, UseKey, promo_uses
from counterfoil.promos.store import PROMO_USES, hold_promo_codes


class Uses(NamedTuple):
    """The uses of some orders, each with the index of the order that says so."""

    facts: Facts[OrderPlaced]
    uses: dict[UseKey, tuple[PromoUse, int]]


class RecordPromoUses:
    """Every promotion entry of an order that carries a reward is one use, however often the order comes."""

    locks: ClassVar[tuple[Lock, ...]] = (ORDERS_SHARED,)

    def __init__(self) -> None:
        self.ledger = Ledger(PROMO_USES)

    async def plan(self, facts: Facts[OrderPlaced]) -> Uses:
        """The uses of these orders."""
        return Uses(facts, promo_uses(facts.events))

    async def write(self, connection: Connection, plan: Uses) -> Outcome:
        """Write uses, making the promo codes that are missing."""
        facts, uses = plan
        if not uses:
            return Outcome()
        await connection.execute(sql("hold_orders_shared"))  # before the rows that its holder may wait for
        ids = await hold_promo_codes(connection, (code for _, code in uses))
        keyed = {(order_id, ids[code]): found for (order_id, code), found in uses.items()}
        rows = [  # sorted: same lock order in every worker
            (
                *key,
                use.occurred_at,
                use.bonus_amount,
                use.base_reward,
                use.customer_address or None,
                use.shop_id or None,
                use.total_reward,
                facts.source_ids[index],
                facts.offsets[index],
            )
            for key, (use, index) in sorted(keyed.items())
        ]
        known = await self.ledger.write(connection, rows)
        changed = {index for key, (_, index) in keyed.items() if key not in known}
        spoke = {index for index, order in enumerate(facts.events) if order.promotions}
        return Outcome(unchanged=spoke - changed, changed=lambda: changed)
