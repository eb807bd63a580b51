"""The ledger of coupon usages, and the counts that the database keeps from it."""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct
from typing import Any

from counterfoil.coupons.rules import UsageRow
from counterfoil.database.binary_copy import timestamptz
from counterfoil.database.comparison import Comparison
from counterfoil.database.counters import Counter
from counterfoil.database.joined import joined_ids, joined_numbers, joined_times
from counterfoil.database.ledger import LedgerTable
from counterfoil.database.locks import ORDERS_SHARED

_COLUMNS = 5
_start = Struct(">hi").pack
_length = Struct(">i").pack
_end = Struct(">iqiiiq").pack


def encode_usages(rows: Sequence[UsageRow]) -> bytes:
    """Rows of affiliate_coupon_usages in PostgreSQL's binary COPY format, each value after its length in bytes."""
    parts: list[bytes] = []
    for order_id, code, occurred_at, source_id, source_offset in rows:
        order, name = order_id.encode(), code.encode()
        parts += (
            _start(_COLUMNS, len(order)),
            order,
            _length(len(name)),
            name,
            _end(8, timestamptz(occurred_at), 4, source_id, 8, source_offset),
        )
    return b"".join(parts)


def join_usages(columns: Sequence[Sequence[Any]]) -> Sequence[str]:
    """Orders, codes and times, each column as one text."""
    order_ids, codes, times = columns
    return joined_ids(order_ids), joined_ids(codes), joined_times(times)


COUPON_USAGES = LedgerTable(
    table="affiliate_coupon_usages",
    columns=("order_id", "code", "occurred_at", "source_id", "source_offset"),
    key_size=2,
    insert="insert_coupon_usages",
    deciding=3,
    find_new="find_new_coupon_usages",
    replace="move_coupon_usages_earlier",
    encode=encode_usages,
    join=join_usages,
)

COMPARED_USAGES = Comparison(
    COUPON_USAGES.table,
    COUPON_USAGES.columns,
    COUPON_USAGES.key_size,
    find="find_different_coupon_usages",
    overwrite="overwrite_coupon_usages",
    locks=(ORDERS_SHARED,),
    joins=(joined_ids, joined_ids, joined_times, joined_numbers, joined_numbers),
)

COUPON_COUNTS = Counter(
    table="affiliate_coupons",
    drift="drift_of_affiliate_coupons",
    lock="lock_affiliate_coupon",
    recount="recount_affiliate_coupon",
    size="count_affiliate_coupons",
)

REVERSED_USAGES = Counter(
    table="affiliate_coupon_usages (reversed)",
    drift="drift_of_reversed_usages",
    lock="hold_order_ledgers",
    recount="reverse_usages",
    size="count_reversed_usages",
)
"""A canceled order's usages must be marked; a mark that no cancellation has made may be somebody's own, and stays."""
