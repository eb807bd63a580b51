"""The table of contents: topic → event type → who records it, and which counters come of it."""

from __future__ import annotations

from counterfoil.clicks.handlers import RecordClicks
from counterfoil.clicks.store import CLICK_COUNTS
from counterfoil.conversions.handlers import RecordConversions
from counterfoil.conversions.store import ATTRIBUTION_COUNTS, COMMISSION_COUNTS, DAILY_CONVERSIONS, PAYOUTS
from counterfoil.coupons.handlers import RecordCouponUsages
from counterfoil.coupons.store import COUPON_COUNTS
from counterfoil.database.facts import Handler
from counterfoil.events import EVENT_TYPES
from counterfoil.ingest.routes import Route
from counterfoil.orders.handlers import RecordCancellations, RecordOrderTotals, RecordRefunds
from counterfoil.partners.handlers import RecordLinks, RecordUsers
from counterfoil.promos.handlers import RecordPromoUses
from counterfoil.promos.store import PROMO_COUNTS
from counterfoil.settings import Settings
from counterfoil.vouchers.handlers import (
    RecordClaims,
    RecordImpressions,
    RecordRedemptions,
    RecordScans,
    RecordVouchers,
)
from counterfoil.vouchers.store import VOUCHER_COUNTERS

COUNTERS = (
    COUPON_COUNTS,
    PROMO_COUNTS,
    CLICK_COUNTS,
    ATTRIBUTION_COUNTS,
    COMMISSION_COUNTS,
    PAYOUTS,
    DAILY_CONVERSIONS,
    *VOUCHER_COUNTERS,
)
"""Every table of counters, for `verify`."""


def routes(settings: Settings, visitor_key: bytes) -> list[Route]:
    """Every event type that counterfoil knows, in the order of writing: the rare side of a meeting first.

    Visitors are hashed with the key, see `clicks.store.load_visitor_key`.
    """
    return [
        Route(name, settings.topics[name], EVENT_TYPES[name].decode, handlers)
        for name, handlers in _handlers(settings, visitor_key).items()
    ]


def _handlers(settings: Settings, visitor_key: bytes) -> dict[str, list[Handler]]:
    """Topic, by its default name → who records its events."""
    by_coupon: list[Handler] = [RecordOrderTotals()] if settings.attribute_by_coupon else []
    return {
        "user.created": [RecordUsers()],
        "link.created": [RecordLinks()],
        "order.canceled": [RecordCancellations()],
        "order.refunded": [RecordRefunds()],
        "conversion": [RecordConversions()],
        "order.placed": [RecordCouponUsages(), RecordPromoUses(), *by_coupon],
        "click": [RecordClicks(visitor_key, settings.ip_policy)],
        "voucher.created": [RecordVouchers()],
        "redemption": [RecordRedemptions()],
        "claim": [RecordClaims()],
        "impression": [RecordImpressions()],
        "scan": [RecordScans(visitor_key, settings.ip_policy)],
    }
