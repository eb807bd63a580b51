"""Orders → rows of promo_code_uses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar, NamedTuple

from counterfoil.database.comparison import Comparison, Rows, rows_told_by
from counterfoil.database.connection import Connection
from counterfoil.database.facts import Facts, Outcome, Plan
from counterfoil.database.ledger import Ledger
from counterfoil.database.locks import ORDERS_SHARED, Lock
from counterfoil.database.queries import sql
from counterfoil.events import OrderPlaced
from counterfoil.promos.rules import PromoUse, UseKey, keys_of, other_uses, promo_uses
from counterfoil.promos.store import COMPARED_USES, PROMO_USES, hold_promo_codes


class Uses(NamedTuple):
    """The uses of some orders, each with the index of the order that says so; `others` do not stand against them."""

    facts: Facts[OrderPlaced]
    uses: dict[UseKey, tuple[PromoUse, int]]
    others: Sequence[tuple[UseKey, PromoUse, int]]

    def row(self, key: tuple[str, Any], use: PromoUse, index: int) -> tuple[Any, ...]:
        """The row of a use, under the key that it has in a table."""
        return (*key, *use.columns, self.facts.source_ids[index], self.facts.offsets[index])


class RecordPromoUses:
    """Every promotion entry of an order that carries a reward is one use, however often the order comes."""

    locks: ClassVar[tuple[Lock, ...]] = (ORDERS_SHARED,)

    def __init__(self) -> None:
        self.ledger = Ledger(PROMO_USES)

    async def plan(self, facts: Facts[OrderPlaced]) -> Uses:
        """The uses of these orders."""
        uses = promo_uses(facts.events)
        return Uses(facts, uses, other_uses(facts.events, uses))

    async def write(self, connection: Connection, plan: Uses) -> Outcome:
        """Write uses, making the promo codes that are missing."""
        facts, uses, others = plan
        if not uses:
            return Outcome()
        await connection.execute(sql("hold_orders_shared"))  # before the rows that its holder may wait for
        ids = await hold_promo_codes(connection, (code for _, code in uses))
        keyed = {(order_id, ids[code]): found for (order_id, code), found in uses.items()}
        rows = [
            plan.row(key, *found) for key, found in sorted(keyed.items())
        ]  # same lock order in every worker
        refused = [plan.row((order_id, ids[code]), use, index) for (order_id, code), use, index in others]
        found = await self.ledger.write_plan(connection, Plan(facts, rows, refused))
        silent = {index for index, order in enumerate(facts.events) if not order.promotions}
        changed = found.changed() - silent
        return replace(found, unchanged=found.unchanged - silent, changed=lambda: changed)

    async def comparisons(self, _: Connection, plan: Uses) -> Sequence[tuple[Comparison, Rows]]:
        """The uses, to be compared with the ledger's; a promo code that is missing has none."""
        rows = [plan.row(key, *found) for key, found in sorted(plan.uses.items())]
        return [(COMPARED_USES, rows_told_by(plan.facts, rows, COMPARED_USES.key_size, keys_of))]
