"""Promo codes and the ledger of their uses."""

from __future__ import annotations

from collections.abc import Iterable

from counterfoil.database.comparison import Comparison
from counterfoil.database.connection import Connection
from counterfoil.database.counters import Counter
from counterfoil.database.ledger import LedgerTable
from counterfoil.database.locks import ORDERS_SHARED
from counterfoil.database.queries import sql

PROMO_USES = LedgerTable(
    table="promo_code_uses",
    columns=(
        "order_id",
        "promo_code_id",
        "occurred_at",
        "bonus_amount",
        "base_reward",
        "customer_address",
        "shop_id",
        "total_reward",
        "source_id",
        "source_offset",
    ),
    key_size=2,
    insert="insert_promo_uses",
    deciding=7,
    find_new="find_new_promo_uses",
    replace="replace_promo_uses",
    keep_refused="keep_refused_promo_uses",
)

COMPARED_USES = Comparison(
    PROMO_USES.table,
    ("order_id", "code", *PROMO_USES.columns[2:]),
    PROMO_USES.key_size,
    find="find_different_promo_uses",
    overwrite="overwrite_promo_uses",
    locks=(ORDERS_SHARED,),
)

PROMO_COUNTS = Counter(
    table="promo_codes",
    drift="drift_of_promo_codes",
    lock="lock_promo_code",
    recount="recount_promo_code",
    size="count_promo_codes",
)

REVERSED_USES = Counter(
    table="promo_code_uses (reversed)",
    drift="drift_of_reversed_uses",
    lock="hold_order_ledgers",
    recount="reverse_uses",
    size="count_reversed_uses",
)
"""A canceled order's promo uses must be marked; one that no cancellation has made may be somebody's own."""


async def hold_promo_codes(connection: Connection, codes: Iterable[str]) -> dict[str, int]:
    """Code → id of its row in promo_codes, made where it is missing, and held until the transaction ends."""
    wanted = sorted(set(codes))
    there = {row["code"] for row in await connection.fetch(sql("find_promo_codes"), wanted)}
    missing = [code for code in wanted if code not in there]
    if missing:
        await connection.execute(sql("create_promo_codes"), missing)
    return {row["code"]: row["id"] for row in await connection.fetch(sql("lock_promo_codes"), wanted)}
