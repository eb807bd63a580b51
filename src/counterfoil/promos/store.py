"""Promo codes and the ledger of their uses."""

from __future__ import annotations

from collections.abc import Iterable

from counterfoil.database.connection import Connection
from counterfoil.database.counters import Counter
from counterfoil.database.ledger import LedgerTable
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
    find="find_promo_uses",
    replace="replace_promo_uses",
)

PROMO_COUNTS = Counter(
    table="promo_codes",
    drift="drift_of_promo_codes",
    lock="lock_promo_code",
    recount="recount_promo_code",
    size="count_promo_codes",
)


async def promo_code_ids(connection: Connection, codes: Iterable[str]) -> dict[str, int]:
    """Code → id of its row in promo_codes, made where it is missing."""
    wanted = sorted(set(codes))
    ids = await _find(connection, wanted)
    missing = [code for code in wanted if code not in ids]
    if missing:
        await connection.execute(sql("create_promo_codes"), missing)
        ids |= await _find(connection, missing)
    return ids


async def _find(connection: Connection, codes: list[str]) -> dict[str, int]:
    return {row["code"]: row["id"] for row in await connection.fetch(sql("find_promo_code_ids"), codes)}
