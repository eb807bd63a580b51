"""Cancellations, refunds and totals of orders → their ledgers; the database draws the consequences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

from counterfoil.database.comparison import Comparison, Rows, rows_told_by, told_rows
from counterfoil.database.connection import Connection
from counterfoil.database.facts import Facts, Outcome, Plan, plan_standing
from counterfoil.database.ledger import Ledger
from counterfoil.database.locks import ATTRIBUTIONS_SHARED, ORDERS_EXCLUSIVE, Lock
from counterfoil.database.queries import sql
from counterfoil.events import OrderCanceled, OrderPlaced, OrderRefunded
from counterfoil.orders.rules import cancellations, refund_row, totals
from counterfoil.orders.store import (
    COMPARED_CANCELLATIONS,
    COMPARED_REFUNDS,
    COMPARED_TOTALS,
    REFUNDS,
    REVERSALS,
    TOTALS,
)


class Cancellations(NamedTuple):
    """Order → index of the event that stands."""

    facts: Facts[OrderCanceled]
    standing: dict[str, int]


class RecordCancellations:
    """An order is canceled once, at the earliest time that is told."""

    locks: ClassVar[tuple[Lock, ...]] = (ORDERS_EXCLUSIVE, ATTRIBUTIONS_SHARED)

    async def plan(self, facts: Facts[OrderCanceled]) -> Cancellations:
        """Which of these cancellations stand."""
        return Cancellations(facts, cancellations(facts.events))

    async def write(self, connection: Connection, plan: Cancellations) -> Outcome:
        """Write cancellations."""
        facts, standing = plan
        rows = _rows(plan)
        orders = await _write(connection, "insert_order_cancellations", rows)
        if len(orders) < len(rows):
            known = [row for row in rows if row[0] not in orders]
            orders |= await _write(connection, "move_order_cancellations_earlier", known)
        changed = {standing[order_id] for order_id in orders}
        return Outcome(unchanged=set(range(len(facts.events))) - changed, changed=lambda: changed)

    async def comparisons(
        self, connection: Connection, plan: Cancellations
    ) -> Sequence[tuple[Comparison, Rows]]:
        """The cancellations, and those usages and promo uses that they have not reversed."""
        rows = _rows(plan)
        told = rows_told_by(plan.facts, rows, 1, lambda event: [(event.order_id,)])
        found: list[tuple[Comparison, Rows]] = [(COMPARED_CANCELLATIONS, told)]
        sources = {row[0]: row[-2:] for row in rows}
        for statement, comparison in REVERSALS.items():
            wrong = await connection.fetch(sql(statement), list(sources))
            found.append((comparison, [(*record, *sources[record["order_id"]]) for record in wrong]))
        return found


class RecordRefunds:
    """A refund is one row, however often it is told; what an order's commission loses by it is the database's work."""

    locks: ClassVar[tuple[Lock, ...]] = ()

    def __init__(self) -> None:
        self.ledger = Ledger(REFUNDS)

    async def plan(self, facts: Facts[OrderRefunded]) -> Plan[OrderRefunded]:
        """The rows of these refunds."""
        return await plan_standing(facts, refund_row)

    async def write(self, connection: Connection, plan: Plan[OrderRefunded]) -> Outcome:
        """Write refunds."""
        return await self.ledger.write_plan(connection, plan)

    async def comparisons(
        self, _: Connection, plan: Plan[OrderRefunded]
    ) -> Sequence[tuple[Comparison, Rows]]:
        """The refunds, to be compared with the ledger's."""
        return [(COMPARED_REFUNDS, told_rows(plan, REFUNDS.key_size))]


class RecordOrderTotals:
    """What an order with codes came to, for attribution by coupon."""

    locks: ClassVar[tuple[Lock, ...]] = (ATTRIBUTIONS_SHARED,)

    def __init__(self) -> None:
        self.ledger = Ledger(TOTALS)

    async def plan(self, facts: Facts[OrderPlaced]) -> Plan[OrderPlaced]:
        """The rows of these orders."""
        return Plan(facts, totals(facts))

    async def write(self, connection: Connection, plan: Plan[OrderPlaced]) -> Outcome:
        """Write totals; an order without codes has nothing to say here."""
        found = await self.ledger.write_plan(connection, plan)
        silent = {index for index, order in enumerate(plan.facts.events) if not order.codes}
        changed = found.changed() - silent
        return Outcome(unchanged=found.unchanged - silent, changed=lambda: changed)

    async def comparisons(self, _: Connection, plan: Plan[OrderPlaced]) -> Sequence[tuple[Comparison, Rows]]:
        """The totals, to be compared with the ledger's."""
        return [(COMPARED_TOTALS, rows_told_by(plan.facts, plan.rows, TOTALS.key_size, _totals_told))]


def _totals_told(order: OrderPlaced) -> list[tuple[str]]:
    return [(order.order_id,)] if order.codes else []


def _rows(plan: Cancellations) -> list[tuple[Any, ...]]:
    """The rows of the cancellations that stand, sorted by order: same lock order in every worker."""
    facts = plan.facts
    return [
        (
            order_id,
            facts.events[i].timestamp,
            facts.events[i].reason or None,
            facts.source_ids[i],
            facts.offsets[i],
        )
        for order_id, i in sorted(plan.standing.items())
    ]


async def _write(connection: Connection, statement: str, rows: Sequence[tuple[object, ...]]) -> set[str]:
    columns = [list(column) for column in zip(*rows, strict=True)]
    return {record["order_id"] for record in await connection.fetch(sql(statement), *columns)}
