"""Stock changes → rows of inventory_events; the database counts the stock, and finds out what is low."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import timedelta
from typing import ClassVar, NamedTuple

from counterfoil.database.comparison import Comparison, Rows, rows_since, told_rows
from counterfoil.database.connection import Connection
from counterfoil.database.facts import Facts, Outcome, Plan, plan_standing
from counterfoil.database.ledger import Ledger
from counterfoil.database.locks import Lock
from counterfoil.errors import PoisonRecord
from counterfoil.events import StockChange
from counterfoil.inventory.rules import changes_before, last_changes, products_of, stock_change_row
from counterfoil.inventory.store import (
    COMPARED_STOCK_CHANGES,
    STOCK_CHANGES,
    hold_products,
    raise_low_stock,
    stock_closed_before,
)
from counterfoil.settings import AlertPolicy


class AlertRule(NamedTuple):
    """When a product that is low is told of, and what is too old to be."""

    policy: AlertPolicy
    cooldown: timedelta
    max_age: timedelta


class RecordStockChanges:
    """A stock change is one row, of several contents the smallest; what is low after a batch is told with it."""

    locks: ClassVar[tuple[Lock, ...]] = ()
    holds: ClassVar[str] = "hold_products"

    def __init__(self, alerts: AlertRule | None) -> None:
        """Without a rule nothing is told of."""
        self.ledger = Ledger(STOCK_CHANGES)
        self._alerts = alerts

    async def plan(self, facts: Facts[StockChange]) -> Plan[StockChange]:
        """The rows of these changes."""
        return await plan_standing(facts, stock_change_row)

    def held(self, plan: Plan[StockChange]) -> Collection[str]:
        """The products to hold."""
        return products_of(plan.rows) | products_of(plan.others)

    async def write(self, connection: Connection, plan: Plan[StockChange]) -> Outcome:
        """Write stock changes, and tell of what is low now.

        Products are held before there are keys that others wait for. Those of what gives way are made all the same.
        """
        await self._refuse_closed(connection, plan.facts)
        await hold_products(connection, [*plan.rows, *plan.others])
        outcome = await self.ledger.write_plan(connection, plan)
        if self._alerts is not None:
            await raise_low_stock(connection, last_changes(plan.facts, outcome.changed()), *self._alerts)
        return outcome

    async def comparisons(
        self, connection: Connection, plan: Plan[StockChange]
    ) -> Sequence[tuple[Comparison, Rows]]:
        """The stock changes, to be compared with the ledger's."""
        since = await stock_closed_before(connection)
        return [(COMPARED_STOCK_CHANGES, rows_since(told_rows(plan, STOCK_CHANGES.key_size), 0, since))]

    @staticmethod
    async def _refuse_closed(connection: Connection, facts: Facts[StockChange]) -> None:
        """Raise PoisonRecord naming the changes of months that are closed: for them the ledger refuses the batch."""
        closed = await stock_closed_before(connection)
        if closed is not None and (late := changes_before(facts, closed)):
            raise PoisonRecord(f"what occurred before {closed:%Y-%m-%d} is closed", "before_retention", late)
