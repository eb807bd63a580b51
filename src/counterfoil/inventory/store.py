"""The ledger of stock changes, and what the database counts from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from counterfoil.database.comparison import Comparison
from counterfoil.database.connection import Connection
from counterfoil.database.counters import Counter
from counterfoil.database.ledger import LedgerTable, Row
from counterfoil.database.partitions import PartitionedLedger
from counterfoil.database.queries import sql
from counterfoil.inventory.rules import StockChangeRow, products_of


async def hold_products(connection: Connection, rows: Sequence[Row]) -> None:
    """Make and hold the products of rows of stock changes, until the caller's transaction ends."""
    await connection.execute(sql("hold_products"), list(products_of(rows)))


STOCK_CHANGES = LedgerTable(
    table="inventory_events",
    columns=StockChangeRow._fields,
    key_size=2,
    deciding=12,
    insert="insert_stock_changes",
    find_new="find_new_stock_changes",
    replace="replace_stock_changes",
    keep_refused="keep_refused_stock_changes",
)

COMPARED_STOCK_CHANGES = Comparison(
    STOCK_CHANGES.table,
    STOCK_CHANGES.columns,
    STOCK_CHANGES.key_size,
    find="find_different_stock_changes",
    overwrite="overwrite_stock_changes",
    holds="hold_products",
    held="sku",
)

STOCK_PARTITIONS = PartitionedLedger(make="make_inventory_partitions", close="close_inventory_partitions")

STOCK_COUNTS = Counter(
    table="inventory_products",
    drift="drift_of_inventory_products",
    lock="hold_product",
    recount="recount_product",
    size="count_inventory_products",
)


async def stock_closed_before(connection: Connection) -> datetime | None:
    """The time up to which retention has closed the ledger of stock changes, if any."""
    found: datetime | None = await connection.fetchval(sql("stock_closed_before"))
    return found


async def set_default_threshold(connection: Connection, threshold: int) -> bool:
    """Make this what new products have; whether it was another."""
    return bool(await connection.fetchval(sql("set_default_threshold"), threshold))


async def raise_low_stock(
    connection: Connection,
    changes: Mapping[str, datetime],
    policy: str,
    cooldown: timedelta,
    max_age: timedelta,
) -> int:
    """Raise what is to be told of products whose last change is not too old; how many alerts that were.

    The caller's transaction holds the products.
    """
    if not changes:
        return 0
    count = await connection.fetchval(
        sql("raise_low_stock"), list(changes), list(changes.values()), policy, cooldown, max_age
    )
    return int(count)
