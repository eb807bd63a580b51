"""The ledgers of refunds and of order totals."""

from __future__ import annotations

from counterfoil.database.ledger import LedgerTable
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
