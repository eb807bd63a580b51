"""The ledgers of cancellations, refunds and order totals."""

from __future__ import annotations

from counterfoil.database.comparison import Comparison
from counterfoil.database.ledger import LedgerTable
from counterfoil.database.locks import ATTRIBUTIONS_SHARED, ORDERS_EXCLUSIVE, ORDERS_SHARED
from counterfoil.orders.rules import RefundRow, TotalRow

REFUNDS = LedgerTable(
    table="order_refunds",
    columns=RefundRow._fields,
    key_size=2,
    deciding=5,
    insert="insert_order_refunds",
    find_new="find_new_order_refunds",
    replace="replace_order_refunds",
    keep_refused="keep_refused_order_refunds",
)

TOTALS = LedgerTable(
    table="order_totals",
    columns=TotalRow._fields,
    key_size=1,
    deciding=4,
    insert="insert_order_totals",
    find_new="find_new_order_totals",
    replace="replace_order_totals",
)

COMPARED_CANCELLATIONS = Comparison(
    "order_cancellations",
    ("order_id", "canceled_at", "reason", "source_id", "source_offset"),
    1,
    find="find_different_order_cancellations",
    overwrite="overwrite_order_cancellations",
    locks=(ORDERS_EXCLUSIVE, ATTRIBUTIONS_SHARED),
)

COMPARED_REFUNDS = Comparison(
    REFUNDS.table,
    REFUNDS.columns,
    REFUNDS.key_size,
    find="find_different_order_refunds",
    overwrite="overwrite_order_refunds",
)

COMPARED_TOTALS = Comparison(
    TOTALS.table,
    TOTALS.columns,
    TOTALS.key_size,
    find="find_different_order_totals",
    overwrite="overwrite_order_totals",
    locks=(ATTRIBUTIONS_SHARED,),
)


def _reversals(table: str, what: str) -> Comparison:
    columns = ("order_id", "code", "reversed_at", "source_id", "source_offset")
    find, overwrite = f"find_different_{what}_reversals", f"overwrite_{what}_reversals"
    return Comparison(table, columns, 2, find, overwrite, locks=(ORDERS_SHARED,))


REVERSALS = {
    "find_usage_reversals": _reversals("affiliate_coupon_usages", "usage"),
    "find_use_reversals": _reversals("promo_code_uses", "use"),
}
"""The consequences of a cancellation: a statement that finds those that are wrong, and how they are compared."""
