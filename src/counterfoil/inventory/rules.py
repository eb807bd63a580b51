"""What stock changes come to as rows, and which of two rows of one change stands."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import datetime
from decimal import Decimal
from typing import Any, NamedTuple

from counterfoil.database.facts import Facts, derived_id
from counterfoil.events import StockChange

MISSING = -(2**63)
"""Less than any stock: of two contents the one that says less stands."""


class StockChangeRow(NamedTuple):
    """A row of inventory_events."""

    occurred_at: datetime
    event_id: str
    sku: str
    event_type: str
    old_stock: int | None
    new_stock: int | None
    quantity_delta: int | None
    metadata: str
    name: str | None
    threshold: int | None
    unit_price: Decimal | None
    supplier: str | None
    source_id: int
    source_offset: int

    @property
    def key(self) -> tuple[datetime, str]:
        """What there is one of."""
        return self.occurred_at, self.event_id

    @property
    def content(self) -> tuple[int, int, str, str, int, str, str, int, Decimal, str]:
        """Of two rows of one key the smaller content stands; see stock_change_order in the database."""
        return (
            MISSING if self.new_stock is None else self.new_stock,
            MISSING if self.quantity_delta is None else self.quantity_delta,
            self.sku,
            self.event_type,
            MISSING if self.old_stock is None else self.old_stock,
            self.metadata,
            self.name or "",
            -1 if self.threshold is None else self.threshold,
            Decimal(-1) if self.unit_price is None else self.unit_price,
            self.supplier or "",
        )


def stock_change_row(facts: Facts[StockChange], index: int) -> StockChangeRow:
    """The row of one event."""
    event = facts.events[index]
    return StockChangeRow(
        event.timestamp,
        event.event_id or derived_id(facts.origin(index)),
        event.sku,
        event.event_type,
        event.old_stock,
        event.new_stock,
        event.quantity_delta,
        event.metadata,
        event.name,
        event.threshold,
        event.unit_price,
        event.supplier,
        facts.source_ids[index],
        facts.offsets[index],
    )


def products_of(rows: Iterable[tuple[Any, ...]]) -> set[str]:
    """The products of rows of stock changes."""
    return {row[2] for row in rows}


def changes_before(facts: Facts[StockChange], bound: datetime) -> frozenset[tuple[int, int]]:
    """The sources of those of the changes that occurred before a time."""
    sources = zip(facts.source_ids, facts.offsets, strict=True)
    return frozenset(
        source for change, source in zip(facts.events, sources, strict=True) if change.timestamp < bound
    )


def last_changes(facts: Facts[StockChange], changed: Collection[int]) -> dict[str, datetime]:
    """Product → the time of the latest of some of the changes, given by their indexes."""
    latest: dict[str, datetime] = {}
    for index in changed:
        change = facts.events[index]
        if change.sku not in latest or latest[change.sku] < change.timestamp:
            latest[change.sku] = change.timestamp
    return latest
