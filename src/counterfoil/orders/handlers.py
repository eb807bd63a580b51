"""Cancellations → rows of order_cancellations; the database marks what those orders brought."""

from __future__ import annotations

import asyncpg

from counterfoil.database.facts import Facts, Outcome
from counterfoil.database.queries import sql
from counterfoil.events import OrderCanceled
from counterfoil.orders.rules import cancellations


async def record_cancellations(connection: asyncpg.Connection, facts: Facts[OrderCanceled]) -> Outcome:
    """Write these cancellations; the caller owns the transaction."""
    standing = cancellations(facts.events)
    rows = {}
    for order_id in sorted(standing):  # same lock order in every worker
        index = standing[order_id]
        event = facts.events[index]
        rows[order_id] = (order_id, event.timestamp, event.reason or None, facts.source_ids[index], facts.offsets[index])
    changed_orders = await _write(connection, "insert_order_cancellations", list(rows.values()))
    if len(changed_orders) < len(rows):
        known = [row for order_id, row in rows.items() if order_id not in changed_orders]
        changed_orders |= await _write(connection, "move_order_cancellations_earlier", known)
    changed = {standing[order_id] for order_id in changed_orders}
    return Outcome(changed=changed, unchanged=set(range(len(facts.events))) - changed)


async def _write(connection: asyncpg.Connection, statement: str, rows: list[tuple[object, ...]]) -> set[str]:
    columns = [list(column) for column in zip(*rows, strict=True)]
    return {record["order_id"] for record in await connection.fetch(sql(statement), *columns)}
