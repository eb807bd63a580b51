"""Cancellations → rows of order_cancellations; the database marks what those orders brought."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from counterfoil.database.connection import Connection
from counterfoil.database.facts import Facts, Outcome
from counterfoil.database.queries import sql
from counterfoil.events import OrderCanceled
from counterfoil.orders.rules import cancellations


class Cancellations(NamedTuple):
    """Order → index of the event that stands."""

    facts: Facts[OrderCanceled]
    standing: dict[str, int]


class RecordCancellations:
    """An order is canceled once, at the earliest time that is told."""

    async def plan(self, facts: Facts[OrderCanceled]) -> Cancellations:
        """Which of these cancellations stand."""
        return Cancellations(facts, cancellations(facts.events))

    async def write(self, connection: Connection, plan: Cancellations) -> Outcome:
        """Write cancellations."""
        facts, standing = plan
        rows = [
            (
                order_id,
                facts.events[i].timestamp,
                facts.events[i].reason or None,
                facts.source_ids[i],
                facts.offsets[i],
            )
            for order_id, i in sorted(standing.items())  # same lock order in every worker
        ]
        orders = await _write(connection, "insert_order_cancellations", rows)
        if len(orders) < len(rows):
            known = [row for row in rows if row[0] not in orders]
            orders |= await _write(connection, "move_order_cancellations_earlier", known)
        changed = {standing[order_id] for order_id in orders}
        return Outcome(unchanged=set(range(len(facts.events))) - changed, changed=lambda: changed)


async def _write(connection: Connection, statement: str, rows: Sequence[tuple[object, ...]]) -> set[str]:
    columns = [list(column) for column in zip(*rows, strict=True)]
    return {record["order_id"] for record in await connection.fetch(sql(statement), *columns)}
