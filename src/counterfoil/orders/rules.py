"""Which cancellation, refund and total of an order stands."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import NamedTuple

from counterfoil.database.facts import Facts, Plan
from counterfoil.events import OrderCanceled, OrderPlaced, OrderRefunded


def cancellations(events: Sequence[OrderCanceled]) -> dict[str, int]:
    """Order → index of the event that stands: of several the earliest, then the one of the smaller reason."""
    standing: dict[str, int] = {}
    for index, event in enumerate(events):
        first = standing.setdefault(event.order_id, index)
        if (event.timestamp, event.reason or "") < (events[first].timestamp, events[first].reason or ""):
            standing[event.order_id] = index
    return standing


class RefundRow(NamedTuple):
    """A row of order_refunds, in the order of its columns."""

    order_id: str
    refund_id: str
    occurred_at: datetime
    amount: Decimal
    currency: str | None
    source_id: int
    source_offset: int

    @property
    def content(self) -> tuple[datetime, Decimal, str]:
        """Of two rows of one key the smaller content stands, so the earlier."""
        return self.occurred_at, self.amount, self.currency or ""


def refunds(facts: Facts[OrderRefunded]) -> Plan[OrderRefunded]:
    """The refunds that stand, sorted by key, and the others beside."""
    rows: dict[tuple[str, str], RefundRow] = {}
    others: list[RefundRow] = []
    for event, source_id, offset in zip(facts.events, facts.source_ids, facts.offsets, strict=True):
        row = RefundRow(
            event.order_id, event.refund_id, event.timestamp, event.amount, event.currency, source_id, offset
        )
        first = rows.setdefault(row[:2], row)
        if row.content < first.content:
            rows[row[:2]] = row
            others.append(first)
        elif row.content > first.content:
            others.append(row)
    return Plan(facts, [rows[key] for key in sorted(rows)], others)  # same lock order in every worker


class TotalRow(NamedTuple):
    """A row of order_totals, in the order of its columns."""

    order_id: str
    occurred_at: datetime
    total: Decimal
    currency: str
    source_id: int
    source_offset: int


def totals(facts: Facts[OrderPlaced]) -> list[TotalRow]:
    """What the orders with codes came to, sorted by order: of several the earliest, then the smallest."""
    rows: dict[str, TotalRow] = {}
    for event, source_id, offset in zip(facts.events, facts.source_ids, facts.offsets, strict=True):
        if not event.codes:
            continue
        total = Decimal(0) if event.total is None else event.total
        row = TotalRow(event.order_id, event.timestamp, total, event.currency or "", source_id, offset)
        first = rows.setdefault(event.order_id, row)
        if row[1:4] < first[1:4]:
            rows[event.order_id] = row
    return [rows[order_id] for order_id in sorted(rows)]
