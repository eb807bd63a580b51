"""Orders → rows of affiliate_coupon_usages."""

from __future__ import annotations

import asyncpg

from counterfoil.coupons.rules import coupon_usages
from counterfoil.coupons.store import COUPON_USAGES
from counterfoil.database.facts import Facts, Outcome
from counterfoil.database.ledger import Ledger
from counterfoil.events import OrderPlaced


class RecordCouponUsages:
    """Every code of an order is one usage, however often the order comes."""

    def __init__(self) -> None:
        self.ledger = Ledger(COUPON_USAGES)

    async def __call__(self, connection: asyncpg.Connection, facts: Facts[OrderPlaced]) -> Outcome:
        """Write the usages of these orders; the caller owns the transaction."""
        usages = coupon_usages(facts.events)
        rows = []
        for key in sorted(usages):  # same lock order in every worker
            index = usages[key]
            rows.append((*key, facts.events[index].timestamp, facts.source_ids[index], facts.offsets[index]))
        unchanged_keys = await self.ledger.write(connection, rows)
        changed = {index for key, index in usages.items() if key not in unchanged_keys}
        spoke = {index for index, order in enumerate(facts.events) if order.codes}
        return Outcome(changed=changed, unchanged=spoke - changed)
