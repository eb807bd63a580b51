"""The ledger of coupon usages, and the counts that the database keeps from it."""

from __future__ import annotations

from counterfoil.database.counters import Counter
from counterfoil.database.ledger import LedgerTable

COUPON_USAGES = LedgerTable(
    table="affiliate_coupon_usages",
    columns=("order_id", "code", "occurred_at", "source_id", "source_offset"),
    key_size=2,
    insert="insert_coupon_usages",
    deciding=3,
    find_new="find_new_coupon_usages",
    replace="move_coupon_usages_earlier",
)

COUPON_COUNTS = Counter(
    table="affiliate_coupons",
    drift="drift_of_affiliate_coupons",
    lock="lock_affiliate_coupon",
    recount="recount_affiliate_coupon",
    size="count_affiliate_coupons",
)
