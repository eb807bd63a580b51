"""What is not in the log, table by table: rules of people, rows by hand, what retention has closed."""

from __future__ import annotations

from typing import NamedTuple

from counterfoil.database.queries import sql


class Taken(NamedTuple):
    """A table of which rows are taken over by `key`: all of them, those of `where`, or those that `rows` answers.

    `gone` says which of the shadow's rows, by the name t, are taken away where they are live no longer; None is none.
    Before the rows are written, `prepare` makes them, or the table, fit. Without `adds`, rows that are there change.
    """

    table: str
    key: tuple[str, ...]
    columns: tuple[str, ...] = ()
    rows: str | None = None
    where: str = "true"
    gone: str | None = "true"
    prepare: tuple[str, ...] = ()
    adds: bool = True

    @property
    def all_columns(self) -> tuple[str, ...]:
        """The key and the others."""
        return (*self.key, *self.columns)

    @property
    def text(self) -> str:
        """What answers the rows; $1 and $2 are source ids and the offsets that were read of each."""
        if self.rows is not None:
            return sql(self.rows)
        return f"SELECT {', '.join(self.all_columns)} FROM {self.table} AS t WHERE {self.where}"  # noqa: S608 - names of this module


_MOVE_PROGRAMS = (
    """UPDATE links AS l SET program_id = k.id
       FROM programs AS t JOIN pg_temp.taken AS k ON k.base_domain = t.base_domain AND k.id <> t.id
       WHERE l.program_id = t.id""",
    "UPDATE programs AS t SET id = k.id FROM pg_temp.taken AS k WHERE k.base_domain = t.base_domain AND k.id <> t.id",
)
_FIND_PROMO_CODES = (
    """UPDATE pg_temp.taken AS k SET promo_code_id = p.id
       FROM shadow_promo_codes AS s JOIN promo_codes AS p ON p.code = s.code WHERE s.id = k.promo_code_id""",
)
_MAKE_ROOM_FOR_USES = (
    """INSERT INTO shadow_overlaid SELECT 'promo_code_uses' WHERE EXISTS (
         SELECT FROM promo_code_uses AS t JOIN pg_temp.taken AS k
         ON t.order_id = k.order_id AND t.promo_code_id = k.promo_code_id AND t.id <> k.id)
       ON CONFLICT DO NOTHING""",
    """DELETE FROM promo_code_uses AS t USING pg_temp.taken AS k
       WHERE t.order_id = k.order_id AND t.promo_code_id = k.promo_code_id AND t.id <> k.id""",
)
_REDEEM_BY_HAND = (
    """INSERT INTO customer_vouchers (customer_id, voucher_id, status, redeemed_at, claimed_at)
       SELECT k.customer_id, k.voucher_id, k.status, k.redeemed_at, NULL FROM pg_temp.taken AS k
       WHERE NOT EXISTS (SELECT FROM customer_vouchers AS c
                         WHERE c.customer_id = k.customer_id AND c.voucher_id = k.voucher_id)""",
)
_KEEP_TOLD_DETAILS = (
    """UPDATE pg_temp.taken AS k
       SET name = CASE WHEN told.name OR d.details ? 'name' THEN p.name ELSE k.name END,
           threshold = CASE WHEN told.threshold OR d.details ? 'threshold' THEN p.threshold ELSE k.threshold END,
           unit_price = CASE WHEN told.unit_price OR d.details ? 'unit_price' THEN p.unit_price ELSE k.unit_price END,
           supplier = CASE WHEN told.supplier OR d.details ? 'supplier' THEN p.supplier ELSE k.supplier END
       FROM inventory_products AS p
       LEFT JOIN (
         SELECT sku, bool_or(name IS NOT NULL) AS name, bool_or(threshold IS NOT NULL) AS threshold,
                bool_or(unit_price IS NOT NULL) AS unit_price, bool_or(supplier IS NOT NULL) AS supplier
         FROM inventory_events WHERE num_nonnulls(name, threshold, unit_price, supplier) > 0 GROUP BY sku
       ) AS told ON told.sku = p.sku
       LEFT JOIN (
         SELECT key, sums -> 'details' AS details FROM ledger_closings WHERE ledger = 'inventory_events'
       ) AS d ON d.key = p.sku
       WHERE k.sku = p.sku""",
)

RULES = (
    Taken("deployment_keys", ("name",), ("key",)),
    Taken("forgotten_people", ("id",), ("pseudonym", "forgotten_at")),
    Taken("forgotten_visitors", ("visitor",), ("digest", "forgotten_at")),
    Taken("stock_defaults", ("is_row",), ("threshold",)),
    Taken(
        "programs",
        ("id",),
        ("base_domain", "rate_checked_at", "created_at"),
        gone=None,
        prepare=_MOVE_PROGRAMS,
    ),
    Taken("program_rates", ("id",), ("program_id", "percent", "source", "valid_from", "actor")),
    Taken("default_rates", ("id",), ("percent", "valid_from", "actor")),
    Taken("affiliate_status_changes", ("id",), ("pixel_id", "status", "valid_from", "actor")),
    Taken("affiliates", ("id",), ("handle", "name", "status", "pixel_id", "created_at")),
    Taken("affiliate_coupon_owners", ("code",), ("pixel_id", "assigned_at")),
    Taken("affiliate_coupon_adjustments", ("id",), ("code", "delta", "reason", "actor", "created_at")),
    Taken("shadow_promo_codes", ("id",), ("code",), rows="ids_of_promo_codes"),
    Taken("promo_codes", ("code",), gone=None),
    Taken(
        "promo_code_adjustments",
        ("id",),
        ("promo_code_id", "delta", "bonus_delta", "reason", "actor", "created_at"),
        prepare=_FIND_PROMO_CODES,
    ),
    Taken("payouts", ("id",), ("partner_id", "currency", "amount", "reference", "actor", "created_at")),
    Taken("partners", ("id",), ("name", "email", "created_at"), rows="partners_by_hand", gone=None),
    Taken("partner_users", ("partner_id", "user_id"), ("created_at",), gone=None),
)  # fmt: skip
"""What people have set: needed before the first record is read, and again as it stands when the shadow is compared."""


def _unread(row: str) -> str:
    """That a row of this name is of no record that was read."""
    return f"""NOT EXISTS (
      SELECT FROM (SELECT source_id, offsets::int8multirange AS offsets
                   FROM unnest($1::integer[], $2::text[]) AS u(source_id, offsets) OFFSET 0) AS k
      WHERE k.source_id = {row}.source_id AND {row}.source_offset <@ k.offsets)"""  # noqa: S608 - a name of this module


class Ledger(NamedTuple):
    """A ledger whose rows name their records: taken over are those of no record that was read.

    Of these only rows for which `where` holds, and with them the rows for which `also` does, read or not.
    """

    table: str
    key: tuple[str, ...]
    columns: tuple[str, ...]
    where: str = "true"
    also: str = "false"
    prepare: tuple[str, ...] = ()
    deletes: bool = True

    @property
    def taken(self) -> Taken:
        """As a table of which rows are taken over."""
        where = f"{self.where} AND ({_unread('t')} OR {self.also})"
        columns = (*self.columns, "source_id", "source_offset")
        gone = where if self.deletes else None
        return Taken(self.table, self.key, columns, None, where, gone, self.prepare)


LEDGERS = (
    Ledger("shop_users", ("id",), ("name", "email", "default_partner_id", "occurred_at")),
    Ledger(
        "links",
        ("id",),
        ("url", "user_id", "partner_id", "named_partner_id", "program_id", "pixel_id", "occurred_at"),
    ),
    Ledger(
        "aff_clicks",
        ("click_id", "occurred_at"),
        ("pixel_id", "visitor", "is_bot", "link_id", "ip_address", "user_agent", "referrer", "landing_page"),
    ),
    Ledger("affiliate_coupon_usages", ("order_id", "code"), ("occurred_at", "reversed_at")),
    Ledger(
        "promo_code_uses",
        ("id",),
        ("promo_code_id", "order_id", "customer_address", "shop_id", "base_reward", "bonus_amount", "total_reward",
         "occurred_at", "reversed_at"),
        prepare=(*_FIND_PROMO_CODES, *_MAKE_ROOM_FOR_USES),
    ),
    Ledger("order_totals", ("order_id",), ("total", "currency", "occurred_at")),
    Ledger(
        "conversions",
        ("order_id", "beneficiary"),
        ("pixel_id", "link_id", "revenue", "commission", "currency", "click_id", "occurred_at"),
    ),
    Ledger("order_refunds", ("order_id", "refund_id"), ("amount", "currency", "occurred_at")),
    Ledger("order_cancellations", ("order_id",), ("canceled_at", "reason")),
    Ledger(
        "refused_facts",
        ("order_id", "topic", "content"),
        (),
        also=f"""EXISTS (SELECT FROM conversions AS c WHERE t.topic = 'conversion' AND {_unread("c")}
                          AND c.order_id = t.order_id AND c.beneficiary = t.content ->> 'beneficiary')
             OR EXISTS (SELECT FROM order_refunds AS r WHERE t.topic = 'order.refunded' AND {_unread("r")}
                          AND r.order_id = t.order_id AND r.refund_id = t.content ->> 'refund_id')
             OR EXISTS (SELECT FROM promo_code_uses AS u JOIN promo_codes AS p ON p.id = u.promo_code_id
                        WHERE t.topic = 'order.placed' AND {_unread("u")}
                          AND u.order_id = t.order_id AND p.code = t.content ->> 'code')""",  # noqa: S608 - names of this module
    ),
    Ledger(
        "vouchers",
        ("id",),
        ("created_at", "business_id", "title", "expires_at"),
        where="num_nonnulls(t.created_at, t.business_id, t.title, t.expires_at) > 0",
        deletes=False,
    ),
    Ledger("voucher_impressions", ("impression_id",), ("voucher_id", "occurred_at")),
    Ledger(
        "voucher_scans",
        ("scan_id", "occurred_at"),
        ("voucher_id", "user_id", "scan_type", "scan_source", "device_info", "location", "ip_address", "user_agent",
         "metadata"),
    ),
    Ledger(
        "redemption_attempts",
        ("attempt_id",),
        ("attempted_at", "voucher_id", "business_id", "customer_id", "successful", "failure_reason", "device_info",
         "location", "metadata"),
    ),
    Ledger(
        "customer_vouchers",
        ("customer_id", "voucher_id"),
        ("claimed_at", "metadata"),
        where="t.claimed_at IS NOT NULL",
    ),
    Ledger(
        "refused_voucher_facts",
        ("voucher_id", "topic", "content"),
        (),
        also=f"""EXISTS (SELECT FROM redemption_attempts AS a WHERE t.topic = 'redemption' AND {_unread("a")}
                          AND a.attempt_id = t.content ->> 'attempt_id')
             OR EXISTS (SELECT FROM customer_vouchers AS c WHERE t.topic = 'claim' AND {_unread("c")}
                          AND c.claimed_at IS NOT NULL
                          AND c.voucher_id = t.voucher_id AND c.customer_id = t.content ->> 'customer_id')""",  # noqa: S608 - names of this module
    ),
    Ledger(
        "inventory_events",
        ("occurred_at", "event_id"),
        ("sku", "event_type", "old_stock", "new_stock", "quantity_delta", "metadata", "name", "threshold", "unit_price",
         "supplier"),
        where="(t.source_id IS NOT NULL OR t.event_type <> 'low_stock')",
    ),
    Ledger(
        "refused_stock_changes",
        ("sku", "content"),
        (),
        also=f"""EXISTS (SELECT FROM inventory_events AS e WHERE {_unread("e")} AND e.event_type <> 'low_stock'
                          AND e.event_id = t.content ->> 'event_id'
                          AND e.occurred_at = (t.content ->> 'occurred_at')::timestamptz)""",
    ),
)  # fmt: skip
"""Rows by hand, by an import, or of records that are not in what was read.

With such a fact goes what has been refused against it: whether that came before it or after is in no log.
"""

BY_HAND = (
    Taken("vouchers", ("id",), (), rows="vouchers_by_hand", gone=None),
    Taken(
        "customer_vouchers",
        ("customer_id", "voucher_id"),
        ("status", "redeemed_at"),
        rows="redemptions_by_hand",
        gone=None,
        prepare=_REDEEM_BY_HAND,
        adds=False,
    ),
    Taken(
        "customer_vouchers",
        ("customer_id", "voucher_id"),
        ("notification_preferences", "last_viewed_at"),
        rows="preferences_of_wallets",
        gone=None,
        adds=False,
    ),
    Taken(
        "program_enrollments",
        ("partner_id", "program_id"),
        ("status", "origin"),
        rows="enrollments_by_hand",
        gone=None,
    ),
    Taken(
        "inventory_products",
        ("sku",),
        ("name", "threshold", "unit_price", "supplier", "last_restocked"),
        rows="products_by_hand",
        gone=None,
    ),
    Taken(
        "commissions",
        ("id",),
        ("partner_id", "program_id", "link_id", "order_id", "beneficiary", "kind", "cause", "origin", "amount",
         "earnings", "rate_percent", "rate_source", "currency", "status", "occurred_at", "earned_at", "payout_id",
         "posted_at"),
        rows="commissions_by_hand",
        gone="t.origin = 'manual'",
    ),
    Taken(
        "dead_letters",
        ("cluster_id", "topic", '"partition"', '"offset"', "record_timestamp"),
        ("error_kind", "error", "first_seen_at", "resolved_at"),
        rows="unread_dead_letters",
        gone=None,
    ),
)  # fmt: skip
"""What else people have written, once all ledgers are taken over."""

CHOICES = (
    Taken("shop_users", ("id",), ("default_partner_id",), rows="default_partners", gone=None, adds=False),
    Taken("links", ("id",), ("partner_id",), rows="partners_of_links", gone=None, adds=False),
    Taken(
        "inventory_products",
        ("sku",),
        ("name", "threshold", "unit_price", "supplier"),
        rows="details_of_products",
        gone=None,
        prepare=_KEEP_TOLD_DETAILS,
        adds=False,
    ),
)
"""What people have chosen in rows that the log has made; only rows that are there are changed."""

CLOSINGS = Taken("ledger_closings", ("ledger", "key", "day"), ("sums", "closed_before", "closed_at"))

SCANNER_DAYS = Taken(
    "voucher_scanner_days",
    ("voucher_id", "user_id", "day"),
    ("first_at",),
    rows="closed_scanner_days",
    gone=None,
)
