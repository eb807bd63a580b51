"""Which cancellation of an order stands."""

from __future__ import annotations

from collections.abc import Sequence

from counterfoil.events import OrderCanceled


def cancellations(events: Sequence[OrderCanceled]) -> dict[str, int]:
    """Order → index of the event that stands: of several the earliest, then the one of the smaller reason."""
    standing: dict[str, int] = {}
    for index, event in enumerate(events):
        first = standing.setdefault(event.order_id, index)
        if (event.timestamp, event.reason or "") < (events[first].timestamp, events[first].reason or ""):
            standing[event.order_id] = index
    return standing
