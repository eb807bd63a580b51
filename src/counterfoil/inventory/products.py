"""Products and their events in the database, and how they are shown."""

from __future__ import annotations

import asyncpg
from msgspec import Raw, Struct

from counterfoil.api.writing import Amount, Time, amount_text, time_text
from counterfoil.database.connection import Connection
from counterfoil.database.queries import sql
from counterfoil.errors import RequestError
from counterfoil.inventory.requests import NewProduct
from counterfoil.settings import Settings

DIGITS = 2
"""Decimals of a unit price, at least: it names no currency."""


class Product(Struct, rename="camel"):
    """A product; it is low when its stock is below its threshold."""

    id: int
    sku: str
    name: str
    stock: int
    threshold: int
    unit_price: Amount | None
    supplier: str | None
    last_restocked: Time | None
    is_low_stock: bool


class StockEvent(Struct, rename="camel"):
    """A stock change, or the log of an alert; one that names no stock says by how much it changed."""

    id: str
    sku: str
    event_type: str
    old_stock: int | None
    new_stock: int | None
    quantity_delta: int | None
    metadata: Raw
    timestamp: Time


async def list_products(
    connection: Connection, *, sku: str | None, is_low: bool | None, limit: int, offset: int
) -> list[Product]:
    """Products by SKU; None is all of them."""
    rows = await connection.fetch(sql("list_products"), sku, is_low, limit, offset)
    return [_product(row) for row in rows]


async def find_product(connection: Connection, sku: str) -> Product | None:
    """One product, if anything has told of it."""
    row = await connection.fetchrow(sql("find_product"), sku)
    return None if row is None else _product(row)


async def create_product(connection: Connection, new: NewProduct, settings: Settings) -> Product:
    """Make a product, and tell of it when it is low, in the caller's transaction; raises 409 when somebody has made it.

    One that is known from stock changes alone is made of these, and of what is said here.
    """
    await connection.execute(sql("hold_products"), [new.sku])
    if await connection.fetchval(sql("mark_product_created"), new.sku) is None:
        raise RequestError(
            409, "there is such a product already", errors=[{"field": "sku", "rule": "is a product already"}]
        )
    await connection.execute(
        sql("open_product"), new.sku, new.stock, new.name, new.threshold, new.unit_price, new.supplier
    )
    await connection.fetchval(
        sql("raise_low_stock_of"), [new.sku], settings.alert_policy, settings.alert_cooldown_s
    )
    (row,) = await connection.fetch(sql("find_product"), new.sku)
    return _product(row)


async def list_events(
    connection: Connection, *, sku: str | None, limit: int, offset: int
) -> list[StockEvent]:
    """Stock changes and alerts, newest first; None is those of all products."""
    if sku is None:
        rows = await connection.fetch(sql("list_stock_events"), limit, offset)
    else:
        rows = await connection.fetch(sql("list_stock_events_of_product"), sku, limit, offset)
    return [_event(row) for row in rows]


def _product(row: asyncpg.Record) -> Product:
    price, restocked = row["unit_price"], row["last_restocked"]
    return Product(
        id=row["id"],
        sku=row["sku"],
        name=row["name"],
        stock=row["stock"],
        threshold=row["threshold"],
        unit_price=None if price is None else amount_text(price, DIGITS),
        supplier=row["supplier"],
        last_restocked=None if restocked is None else time_text(restocked),
        is_low_stock=row["stock"] < row["threshold"],
    )


def _event(row: asyncpg.Record) -> StockEvent:
    return StockEvent(
        id=row["event_id"],
        sku=row["sku"],
        event_type=row["event_type"],
        old_stock=row["old_stock"],
        new_stock=row["new_stock"],
        quantity_delta=row["quantity_delta"],
        metadata=Raw(row["metadata"].encode()),
        timestamp=time_text(row["occurred_at"]),
    )
