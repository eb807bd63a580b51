"""Orders → rows of promo_code_uses."""

from __future__ import annotations

import asyncpg

from counterfoil.database.facts import Facts, Outcome
from counterfoil.database.ledger import Ledger
from counterfoil.events import OrderPlaced
from counterfoil.promos.rules import promo_uses
from counterfoil.promos.store import PROMO_USES, promo_code_ids

NOTHING = Outcome(frozenset(), frozenset())


class RecordPromoUses:
    """Every promotion entry of an order that carries a reward is one use, however often the order comes."""

    def __init__(self) -> None:
        self.ledger = Ledger(PROMO_USES)

    async def __call__(self, connection: asyncpg.Connection, facts: Facts[OrderPlaced]) -> Outcome:
        """Write the uses of these orders; the caller owns the transaction."""
        uses = promo_uses(facts.events)
        if not uses:
            return NOTHING
        ids = await promo_code_ids(connection, (code for _, code in uses))
        keyed = {(order_id, ids[code]): found for (order_id, code), found in uses.items()}
        rows = []
        for key in sorted(keyed):  # same lock order in every worker
            use, index = keyed[key]
            rows.append(
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
            )
        unchanged_keys = await self.ledger.write(connection, rows)
        changed = {index for key, (_, index) in keyed.items() if key not in unchanged_keys}
        spoke = {index for index, order in enumerate(facts.events) if order.promotions}
        return Outcome(changed=changed, unchanged=spoke - changed)
