"""Which cancellation, refund and total of an order stands."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import NamedTuple

from counterfoil.database.facts import Facts
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
    def key(self) -> tuple[str, str]:
        """What there is one of."""
        return self.order_id, self.refund_id

    @property
    def content(self) -> tuple[datetime, Decimal, str]:
        """Of two rows of one key the smaller content stands, so the earlier."""
        return self.occurred_at, self.amount, self.currency or ""


def refund_row(facts: Facts[OrderRefunded], index: int) -> RefundRow:
    """The row of one event."""
    event = facts.events[index]
    return RefundRow(
        event.order_id,
        event.refund_id,
        event.timestamp,
        event.amount,
        event.currency,
        facts.source_ids[index],
        facts.offsets[index],
    )


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
