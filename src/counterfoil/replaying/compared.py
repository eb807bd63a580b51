"""The tables that a shadow is compared by, and what of them is compared."""

from __future__ import annotations

from typing import NamedTuple

from counterfoil.database.queries import sql


class Compared(NamedTuple):
    """A table that is compared: by `key`, with `content`. `beside` is shown and does not decide.

    `rows` names the statement that answers these columns, where they are not the table's own.
    """

    table: str
    key: tuple[str, ...]
    content: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()
    rows: str | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        """All of them, in the order in which they are shown."""
        return (*self.key, *self.content, *self.beside)

    @property
    def source(self) -> str:
        """What stands after FROM."""
        return f"({sql(self.rows)})" if self.rows else self.table


_FACT = ("source_id", "source_offset")

COMPARED = (
    Compared("affiliate_coupon_usages", ("order_id", "code"), ("occurred_at", "reversed_at")),
    Compared(
        "promo_code_uses",
        ("code", "order_id", "id"),
        ("customer_address", "shop_id", "base_reward", "bonus_amount", "total_reward", "occurred_at", "reversed_at"),
        rows="compared_promo_code_uses",
    ),
    Compared("order_cancellations", ("order_id",), ("canceled_at", "reason")),
    Compared("affiliate_coupons", ("code",), ("times_used", "usage_count"), rows="compared_affiliate_coupons"),
    Compared(
        "promo_codes",
        ("code",),
        ("times_used", "total_bonus_issued", "use_count", "use_bonus"),
        rows="compared_promo_codes",
    ),
    Compared(
        "aff_clicks",
        ("click_id", "occurred_at"),
        ("pixel_id", "visitor", "is_bot", "link_id", "ip_address", "user_agent", "referrer", "landing_page"),
        beside=_FACT,
    ),
    Compared("shop_users", ("id",), ("name", "email", "occurred_at")),
    Compared("partners", ("id",), ("name", "email"), rows="compared_partners"),
    Compared("partner_users", ("partner_id", "user_id")),
    Compared("programs", ("id",), ("base_domain", "commission_percent")),
    Compared("program_enrollments", ("partner_id", "program_id")),
    Compared(
        "links",
        ("id",),
        ("url", "user_id", "named_partner_id", "partner_id", "program_id", "pixel_id", "occurred_at"),
    ),
    Compared(
        "conversions",
        ("order_id", "beneficiary"),
        ("pixel_id", "link_id", "revenue", "commission", "currency", "click_id", "occurred_at"),
    ),
    Compared("order_refunds", ("order_id", "refund_id"), ("amount", "currency", "occurred_at")),
    Compared("order_totals", ("order_id",), ("total", "currency", "occurred_at")),
    Compared("refused_facts", ("order_id", "topic", "content")),
    Compared(
        "aff_attributions",
        ("order_id",),
        ("pixel_id", "link_id", "program_id", "partner_id", "beneficiary", "origin", "code", "revenue", "refunded",
         "commission", "currency", "rate_percent", "rate_source", "is_reversed", "occurred_at"),
        rows="compared_aff_attributions",
    ),
    Compared(
        "commissions",
        ("order_id", "beneficiary", "currency"),
        ("amount", "earnings", "partners"),
        rows="compared_commissions",
    ),
    Compared(
        "affiliate_daily",
        ("pixel_id", "day", "currency"),
        ("clicks", "unique_clicks", "bot_clicks", "conversions", "revenue", "commission"),
        rows="compared_affiliate_daily",
    ),
    Compared(
        "vouchers",
        ("id",),
        ("created_at", "business_id", "title", "expires_at", "scan_count", "claim_count", "redemption_count",
         "impressions"),
    ),
    Compared("voucher_impressions", ("impression_id",), ("voucher_id", "occurred_at")),
    Compared(
        "voucher_scans",
        ("scan_id", "occurred_at"),
        ("voucher_id", "user_id", "scan_type", "scan_source", "device_info", "location", "ip_address", "user_agent",
         "metadata"),
        beside=_FACT,
    ),
    Compared(
        "redemption_attempts",
        ("attempt_id",),
        ("attempted_at", "voucher_id", "business_id", "customer_id", "successful", "failure_reason", "device_info",
         "location", "metadata"),
    ),
    Compared(
        "customer_vouchers",
        ("customer_id", "voucher_id"),
        ("claimed_at", "metadata", "redeemed_at", "first_scanned_at", "is_redeemed"),
        rows="compared_customer_vouchers",
    ),
    Compared("refused_voucher_facts", ("voucher_id", "topic", "content")),
    Compared(
        "voucher_hourly",
        ("voucher_id", "hour"),
        ("scans", "customer_scans", "business_scans", "camera_scans", "gallery_scans", "link_scans", "share_scans",
         "anonymous_scans"),
    ),
    Compared("voucher_scanner_days", ("voucher_id", "user_id", "day"), ("first_at",)),
    Compared("voucher_returns", ("voucher_id", "day", "previous_day"), ("users",)),
    Compared("voucher_places", ("voucher_id", "day", "place"), ("scans",)),
    Compared("voucher_place_months", ("voucher_id", "month", "place"), ("scans",)),
    Compared(
        "voucher_daily",
        ("voucher_id", "day"),
        ("impressions", "claims", "timed_claims", "scan_to_claim_s", "redemptions", "failed_redemptions",
         "timed_redemptions", "claim_to_redemption_s"),
    ),
    Compared(
        "inventory_events",
        ("occurred_at", "event_id"),
        ("sku", "event_type", "old_stock", "new_stock", "quantity_delta", "metadata", "name", "threshold", "unit_price",
         "supplier"),
        rows="compared_inventory_events",
    ),
    Compared(
        "inventory_products",
        ("sku",),
        ("name", "stock", "threshold", "unit_price", "supplier", "last_restocked", "counted_from",
         "counted_from_event"),
    ),
    Compared("refused_stock_changes", ("sku", "content")),
    Compared(
        "dead_letters",
        ("cluster_id", "topic", "partition", "offset", "record_timestamp"),
        beside=("is_open", "error_kind"),
        rows="compared_dead_letters",
    ),
)  # fmt: skip
"""Every ledger, counter and roll-up that is a function of the events and of what people have set."""

BY_TABLE = {compared.table: compared for compared in COMPARED}
