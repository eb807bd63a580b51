"""The ledger of conversions, and what the database keeps from it: attributions, commissions, the daily roll-up."""

from __future__ import annotations

from counterfoil.conversions.rules import ConversionRow
from counterfoil.database.comparison import Comparison
from counterfoil.database.counters import Counter
from counterfoil.database.ledger import LedgerTable
from counterfoil.database.locks import ATTRIBUTIONS_SHARED

CONVERSIONS = LedgerTable(
    table="conversions",
    columns=ConversionRow._fields,
    key_size=2,
    deciding=8,
    insert="insert_conversions",
    find_new="find_new_conversions",
    replace="replace_conversions",
    keep_refused="keep_refused_conversions",
)

COMPARED_CONVERSIONS = Comparison(
    CONVERSIONS.table,
    CONVERSIONS.columns,
    CONVERSIONS.key_size,
    find="find_different_conversions",
    overwrite="overwrite_conversions",
    locks=(ATTRIBUTIONS_SHARED,),
)

ATTRIBUTION_COUNTS = Counter(
    table="aff_attributions",
    drift="drift_of_aff_attributions",
    lock="lock_settled_order",
    recount="settle_order",
    size="count_aff_attributions",
)

COMMISSION_COUNTS = Counter(
    table="commissions",
    drift="drift_of_commissions",
    lock="lock_settled_order",
    recount="settle_order",
    size="count_commissions",
)

PAYOUTS = Counter(
    table="payouts",
    drift="drift_of_payouts",
    lock="leave_payout",
    recount="leave_payout",
    size="count_payouts",
)

DAILY_CONVERSIONS = Counter(
    table="affiliate_daily (conversions)",
    drift="drift_of_daily_conversions",
    lock="lock_daily_conversions",
    recount="recount_daily_conversions",
    size="count_daily_conversions",
)
