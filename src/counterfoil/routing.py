"""The table of contents: topic → event type → who records it, and which counters come of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

from counterfoil.clicks.handlers import RecordClicks
from counterfoil.clicks.store import CLICK_COUNTS
from counterfoil.conversions.handlers import RecordConversions
from counterfoil.conversions.store import ATTRIBUTION_COUNTS, COMMISSION_COUNTS, DAILY_CONVERSIONS, PAYOUTS
from counterfoil.coupons.handlers import RecordCouponUsages
from counterfoil.coupons.store import COUPON_COUNTS, REVERSED_USAGES
from counterfoil.database.facts import Handler
from counterfoil.errors import InvalidEvent, InvalidSetting
from counterfoil.events import ALERT_DECODERS, EVENT_TYPES, Rules
from counterfoil.ingest.routes import Route
from counterfoil.inventory.handlers import AlertRule, RecordStockChanges
from counterfoil.inventory.store import STOCK_COUNTS
from counterfoil.notifications.intake import RecordNotifications
from counterfoil.orders.handlers import RecordCancellations, RecordOrderTotals, RecordRefunds
from counterfoil.partners.handlers import RecordLinks, RecordUsers
from counterfoil.promos.handlers import RecordPromoUses
from counterfoil.promos.store import PROMO_COUNTS, REVERSED_USES
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
    REVERSED_USAGES,
    REVERSED_USES,
    COUPON_COUNTS,
    PROMO_COUNTS,
    CLICK_COUNTS,
    ATTRIBUTION_COUNTS,
    COMMISSION_COUNTS,
    PAYOUTS,
    DAILY_CONVERSIONS,
    *VOUCHER_COUNTERS,
    STOCK_COUNTS,
)
"""Every table of counters, for `verify`."""


def routes(settings: Settings, visitor_key: bytes, *, alerts: bool = True) -> list[Route]:
    """Every event type that counterfoil knows, in the order of writing: the rare side of a meeting first.

    Visitors are hashed with the key, see `clicks.store.load_visitor_key`. Without alerts, nobody is told of low stock.
    """
    return [
        Route(name, settings.topics[name], EVENT_TYPES[name].decode, handlers)
        for name, handlers in _handlers(settings, visitor_key, alerts=alerts).items()
    ]


def notify_routes(settings: Settings, channels: Callable[[], Sequence[str]]) -> list[Route]:
    """What the notifier reads: alerts, to be told on the channels whose names are answered."""
    handler = RecordNotifications(channels, settings.alert_max_age_s)
    return [
        Route(name, settings.outgoing_topics[name], decode, [handler])
        for name, decode in ALERT_DECODERS.items()
    ]


def alert_rule(settings: Settings) -> AlertRule:
    """When low stock is told of, as the settings have it."""
    return AlertRule(settings.alert_policy, settings.alert_cooldown_s, settings.alert_max_age_s)


def routes_by_topic(settings: Settings, visitor_key: bytes) -> dict[str, tuple[Route, Rules]]:
    """Topic, by its name here → its event type with the rules, for who reads single records again."""
    rules = Rules.of(settings)

    @cache  # asked for by the first alert: whoever retries none needs nothing of what the channels take
    def channels() -> Sequence[str]:
        from counterfoil.notifications.channels import channels_of  # noqa: PLC0415 - a third of a command's start

        try:
            return [channel.name for channel in channels_of(settings)]
        except InvalidSetting as error:
            raise InvalidEvent("no_channel", "", str(error)) from error

    known = (*routes(settings, visitor_key), *notify_routes(settings, channels))
    return {route.topic: (route, rules) for route in known}


def _handlers(settings: Settings, visitor_key: bytes, *, alerts: bool) -> dict[str, list[Handler]]:
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
        "stock-change": [RecordStockChanges(alert_rule(settings) if alerts else None)],
    }
