"""`/api/inventory`: products, their stock and what moved it; and the low-stock scan, by hand."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Annotated, Any
from urllib.parse import unquote_to_bytes

import asyncpg
from litestar import Request, Response, get, post, put
from litestar.di import NamedDependency
from litestar.params import FromPath, QueryParameter, RawBody
from msgspec import Struct
from uuid_utils import uuid7

from counterfoil.api.idempotency import answer_once
from counterfoil.api.reporting import REPORTS, Publisher, report
from counterfoil.api.requests import (
    ACQUIRE_TIMEOUT_S,
    IdempotencyKey,
    Limit,
    Listing,
    Offset,
    connection_of,
    page,
    read_id,
    takes,
    within,
)
from counterfoil.api.writing import Time, time_text
from counterfoil.database.connection import Connection
from counterfoil.errors import RequestError
from counterfoil.events import StockChange
from counterfoil.events.whole_numbers import INT4
from counterfoil.inventory.low_stock import LowStock, find_low_stock, scan
from counterfoil.inventory.products import (
    Product,
    StockEvent,
    create_product,
    find_product,
    list_events,
    list_products,
)
from counterfoil.inventory.requests import (
    IsLow,
    NewProduct,
    Sku,
    StockReport,
    read_new_product,
    read_sku,
    read_stock_report,
)
from counterfoil.settings import Settings

PRODUCTS = "/api/inventory/products"
EVENTS = "/api/inventory/events"
SCAN_NOW = "/api/ops/inventory/scan-now"

SCAN_WITHIN_S = 30.0

MOST_EVENTS = 200
"""Events of one list, so that it is written in a moment: each may carry 16 KiB of metadata."""

EventLimit = Annotated[int, QueryParameter(ge=1, le=MOST_EVENTS, description="rows, at most")]

RESTOCKED, CHANGED = "restocked", "change"


class UpdatedStock(Struct, rename="camel"):
    """Kafka has the new stock; it stands here as it was told."""

    id: int
    sku: str
    stock: int
    event_id: str
    message: str = "Stock updated successfully"


class LowStockItem(Struct, rename="camel"):
    """A product whose stock is below its threshold."""

    sku: str
    name: str
    stock: int
    threshold: int


class Scanned(Struct, rename="camel"):
    """What a scan has found; the items are those that are lowest against their thresholds."""

    message: str
    timestamp: Time
    low_stock_items: list[LowStockItem]
    success: bool = True


@get(PRODUCTS)
async def show_products(  # noqa: PLR0913, PLR0917 - one argument a parameter
    request: Request[Any, Any, Any],
    pool: NamedDependency[asyncpg.Pool],
    lowStock: IsLow = None,  # noqa: N803 - so refusals name what was sent
    sku: Sku = None,
    limit: Limit = 50,
    offset: Offset = 0,
) -> Response[list[Product]]:
    """Products by SKU."""
    wanted = read_sku(sku)
    async with connection_of(pool) as connection:
        found = await list_products(connection, sku=wanted, is_low=lowStock, limit=limit + 1, offset=offset)
    return page(request, found, Listing(None, limit, offset))


@post(PRODUCTS, operation_class=takes(NewProduct))
async def add_product(
    body: RawBody,
    pool: NamedDependency[asyncpg.Pool],
    settings: NamedDependency[Settings],
    idempotency_key: IdempotencyKey = None,
) -> Response[bytes]:
    """Make a product; 409 when somebody has. One that is known from stock changes alone is taken over."""
    new = read_new_product(body)
    async with connection_of(pool) as connection:

        async def work() -> tuple[int, Product]:
            return 201, await create_product(connection, new, settings)

        return await answer_once(connection, idempotency_key, (PRODUCTS, new), work)


@put(
    f"{PRODUCTS}/{{sku:path}}",  # a SKU may hold a slash
    status_code=202,
    operation_class=takes(StockReport),
    opt={REPORTS: "stock-change"},
)
async def update_stock(
    request: Request[Any, Any, Any],
    sku: FromPath[str],  # noqa: ARG001 - for the documentation: see _sku_of_path
    body: RawBody,
    pool: NamedDependency[asyncpg.Pool],
    publisher: NamedDependency[Publisher],
) -> UpdatedStock:
    """Publish how many of a product there are now; 404 when nothing has told of it before."""
    named = read_id(_sku_of_path(request), "sku")
    wanted = read_stock_report(body, named)
    async with connection_of(pool) as connection:  # given back before Kafka is waited for
        product = await known_product(connection, named)
    change = stock_change(wanted, product)
    await report(publisher, change)
    return UpdatedStock(product.id, product.sku, wanted.stock, str(change.event_id))


@get(EVENTS)
async def show_events(
    request: Request[Any, Any, Any],
    pool: NamedDependency[asyncpg.Pool],
    sku: Sku = None,
    limit: EventLimit = 50,
    offset: Offset = 0,
) -> Response[list[StockEvent]]:
    """Stock changes and alerts, newest first."""
    wanted = read_sku(sku)
    async with connection_of(pool) as connection:
        found = await list_events(connection, sku=wanted, limit=limit + 1, offset=offset)
    return page(request, found, Listing(None, limit, offset))


_scanning = asyncio.Lock()  # nobody waits for it, so it belongs to no loop


@post(SCAN_NOW, status_code=200)
async def scan_now(pool: NamedDependency[asyncpg.Pool], settings: NamedDependency[Settings]) -> Scanned:
    """Look for low stock now, raise what is to be told, and say what is low; 429 while another such scan runs.

    One that takes too long is broken off with 503; what it has raised by then stays.
    """
    if _scanning.locked():
        raise RequestError(429, "a scan is under way", retry_after=1)
    async with _scanning:
        found, raised = await within(SCAN_WITHIN_S, _scanned(pool, settings))
    return Scanned(
        said(found, raised), time_text(datetime.now(UTC)), [LowStockItem(*item) for item in found.products]
    )


async def _scanned(pool: asyncpg.Pool, settings: Settings) -> tuple[LowStock, int]:
    raised = await scan(pool, settings, ACQUIRE_TIMEOUT_S)
    async with connection_of(pool) as connection:
        return await find_low_stock(connection), raised


async def known_product(connection: Connection, sku: str) -> Product:
    """The product; raises 404."""
    product = await find_product(connection, sku)
    if product is None:
        raise RequestError(404, "there is no such product")
    return product


def stock_change(wanted: StockReport, product: Product) -> StockChange:
    """The event that says the new stock, and what it was as far as anybody knew."""
    old = product.stock if INT4.least <= product.stock <= INT4.most else None  # events tell no more
    return StockChange(
        sku=product.sku,
        event_id=str(uuid7()),
        event_type=RESTOCKED if wanted.stock > product.stock else CHANGED,
        old_stock=old,
        new_stock=wanted.stock,
        quantity_delta=None if old is None else wanted.stock - old,
        name=wanted.name,
        threshold=wanted.threshold,
        unit_price=wanted.unit_price,
        supplier=wanted.supplier,
        timestamp=datetime.now(UTC),
    )


def said(found: LowStock, raised: int) -> str:
    """One line about a scan."""
    low = "1 product is low" if found.in_all == 1 else f"{found.in_all} products are low"
    return f"{low}, {raised} {'alert' if raised == 1 else 'alerts'} raised"


def _sku_of_path(request: Request[Any, Any, Any]) -> str:
    """The rest of the path as it was sent, decoded: routing makes one slash of two, and none of the last.

    Raises 404 where that was done before the SKU: nothing is there.
    """
    path = unquote_to_bytes(request.scope["raw_path"]).decode()
    if not path.startswith(f"{PRODUCTS}/"):
        raise RequestError(404, "there is no such path")
    return path.removeprefix(f"{PRODUCTS}/")


INVENTORY_ROUTES = (show_products, add_product, update_stock, show_events, scan_now)
"""Every route of inventory."""
