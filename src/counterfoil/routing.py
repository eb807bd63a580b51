"""The table of contents: topic → event type → who records it, and which counters come of it."""

from __future__ import annotations

from counterfoil.coupons.handlers import RecordCouponUsages
from counterfoil.coupons.store import COUPON_COUNTS
from counterfoil.events import decode_order_canceled, decode_order_placed
from counterfoil.ingest.routes import Route
from counterfoil.orders.handlers import RecordCancellations
from counterfoil.promos.handlers import RecordPromoUses
from counterfoil.promos.store import PROMO_COUNTS
from counterfoil.settings import Settings

COUNTERS = (COUPON_COUNTS, PROMO_COUNTS)
"""Every table of counters, for `verify`."""


def routes(settings: Settings) -> list[Route]:
    """Every event type that counterfoil knows, in the order of writing: the rare side of a meeting first."""
    topics = settings.topics
    return [
        Route("order.canceled", topics["order.canceled"], decode_order_canceled, [RecordCancellations()]),
        Route(
            "order.placed",
            topics["order.placed"],
            decode_order_placed,
            [RecordCouponUsages(), RecordPromoUses()],
        ),
    ]
