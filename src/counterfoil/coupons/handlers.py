"""Orders → rows of affiliate_coupon_usages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, NamedTuple

from counterfoil.coupons.rules import UsageKey, UsageRow, add_usages, keys_of, orders_of
from counterfoil.coupons.store import COMPARED_USAGES, COUPON_USAGES
from counterfoil.database.comparison import Comparison, Rows, rows_told_by
from counterfoil.database.connection import Connection
from counterfoil.database.facts import PLAN_SLICE, Facts, Outcome
from counterfoil.database.ledger import Ledger
from counterfoil.database.locks import ORDERS_SHARED, Lock
from counterfoil.database.turns import TURNS
from counterfoil.events import OrderPlaced


class Usages(NamedTuple):
    """The usages of some orders, sorted by key."""

    facts: Facts[OrderPlaced]
    rows: Sequence[UsageRow]


class RecordCouponUsages:
    """Every code of an order is one usage, however often the order comes."""

    locks: ClassVar[tuple[Lock, ...]] = (ORDERS_SHARED,)

    def __init__(self) -> None:
        self.ledger = Ledger(COUPON_USAGES)

    async def plan(self, facts: Facts[OrderPlaced]) -> Usages:
        """The usages of these orders."""
        rows: dict[UsageKey, UsageRow] = {}
        for start in range(0, len(facts.events), PLAN_SLICE):
            add_usages(rows, facts, start, start + PLAN_SLICE)
            await TURNS.preparing()
        return Usages(facts, sorted(rows.values()))  # same lock order in every worker

    async def write(self, connection: Connection, plan: Usages) -> Outcome:
        """Write usages."""
        facts, rows = plan
        known = await self.ledger.write(connection, rows)
        if not known and len(rows) == sum([len(order.codes) for order in facts.events]):
            return Outcome(changed=lambda: {i for i, order in enumerate(facts.events) if order.codes})
        spoke = {i for i, order in enumerate(facts.events) if order.codes}
        if len(known) == len(rows):  # a replay
            return Outcome(unchanged=spoke)
        changed = orders_of(facts, {(row[3], row[4]) for row in rows if (row[0], row[1]) not in known})
        return Outcome(unchanged=spoke - changed, changed=lambda: changed)

    async def comparisons(self, _: Connection, plan: Usages) -> Sequence[tuple[Comparison, Rows]]:
        """The usages, to be compared with the ledger's."""
        return [(COMPARED_USAGES, rows_told_by(plan.facts, plan.rows, COUPON_USAGES.key_size, keys_of))]
