"""Which conversion of an order and a beneficiary stands."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import NamedTuple

from counterfoil.database.facts import Facts
from counterfoil.events import Conversion

ConversionKey = tuple[str, str]
"""(order id, beneficiary)"""


class ConversionRow(NamedTuple):
    """A row of conversions, in the order of its columns."""

    order_id: str
    beneficiary: str
    occurred_at: datetime
    revenue: Decimal
    commission: Decimal | None
    currency: str
    link_id: str | None
    click_id: str | None
    pixel_id: str | None
    source_id: int
    source_offset: int

    @property
    def key(self) -> ConversionKey:
        """What there is one of."""
        return self.order_id, self.beneficiary

    @property
    def content(self) -> tuple[datetime, Decimal, Decimal, str, str, str]:
        """Of two rows of one key the smaller content stands, so the earlier; no commission is less than any."""
        commission = Decimal(-1) if self.commission is None else self.commission
        return (
            self.occurred_at,
            self.revenue,
            commission,
            self.currency,
            self.link_id or "",
            self.click_id or "",
        )


def beneficiary_of(event: Conversion) -> str:
    """Whom an order is claimed for, for ever: the pixel, or else the link."""
    return f"pixel:{event.pixel_id}" if event.pixel_id is not None else f"link:{event.link_id}"


def conversion_row(facts: Facts[Conversion], index: int) -> ConversionRow:
    """The row of one event."""
    event = facts.events[index]
    return ConversionRow(
        event.order_id,
        beneficiary_of(event),
        event.timestamp,
        event.revenue,
        event.commission,
        event.currency,
        event.link_id,
        event.click_id,
        event.pixel_id,
        facts.source_ids[index],
        facts.offsets[index],
    )
