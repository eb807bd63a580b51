"""`/api/affiliates`: affiliates with what their pixels counted; making, pausing and resuming them."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID, uuid4

import asyncpg
from litestar import Request, Response, get, patch, post
from litestar.di import NamedDependency
from litestar.params import FromQuery, PathParameter, QueryParameter, RawBody
from msgspec import UNSET, Struct, UnsetType

from counterfoil.affiliates.rules import read_coupon_codes, read_handle, read_name
from counterfoil.affiliates.store import (
    Affiliate,
    AffiliateReport,
    Status,
    change_affiliate,
    create_affiliate,
    find_affiliate,
    find_affiliates,
    hold_ledgers,
    report_on_affiliate,
    set_coupons,
)
from counterfoil.affiliates.tracking import track_click, track_conversion
from counterfoil.api.as_of import At, as_of_header, read_at
from counterfoil.api.idempotency import answer_once
from counterfoil.api.requests import (
    IdempotencyKey,
    Limit,
    Listing,
    Offset,
    connection_of,
    page,
    read_body,
    takes,
)
from counterfoil.settings import Settings

PATH = "/api/affiliates"

Handle = Annotated[str, PathParameter(pattern=r"^[^\x00]*$", description="the affiliate's handle")]
Days = Annotated[int, QueryParameter(ge=1, le=366, description="days to report on, today included")]


class NewAffiliate(Struct, rename="camel", forbid_unknown_fields=True):
    """An affiliate to be made; without a pixel id it gets a new one."""

    handle: str
    name: str
    status: Status = "active"
    pixel_id: UUID | None = None
    coupon_codes: list[str] = []


class AffiliateChange(Struct, rename="camel", forbid_unknown_fields=True):
    """What is to be changed; the coupon codes replace those that the affiliate has."""

    status: Status | UnsetType = UNSET
    name: str | UnsetType = UNSET
    coupon_codes: list[str] | UnsetType = UNSET


@get(PATH)
async def list_affiliates(  # noqa: PLR0913, PLR0917 - one argument a parameter
    request: Request[Any, Any, Any],
    pool: NamedDependency[asyncpg.Pool],
    settings: NamedDependency[Settings],
    status: FromQuery[Status | None] = None,
    limit: Limit = 50,
    offset: Offset = 0,
    at: At = None,
) -> Response[list[Affiliate]]:
    """Affiliates by handle, with the metrics of the last 30 days; with `at` those that end with that event time."""
    as_of = read_at(at)
    async with connection_of(pool) as connection:
        found = await find_affiliates(
            connection, settings.default_currency, status=status, limit=limit + 1, offset=offset, at=as_of
        )
    return page(request, found, Listing(None, limit, offset), as_of_header(as_of))


@post(PATH, operation_class=takes(NewAffiliate))
async def add_affiliate(
    body: RawBody,
    pool: NamedDependency[asyncpg.Pool],
    settings: NamedDependency[Settings],
    idempotency_key: IdempotencyKey = None,
) -> Response[bytes]:
    """Make an affiliate; 409 when its handle, its pixel or a coupon is another's."""
    new = read_body(body, NewAffiliate)
    new.handle, new.name = read_handle(new.handle), read_name(new.name)
    new.coupon_codes = read_coupon_codes(new.coupon_codes, settings.code_case)

    async with connection_of(pool) as connection:

        async def work() -> tuple[int, Affiliate]:
            pixel_id = str(new.pixel_id or uuid4())
            await hold_ledgers(connection, status=True, coupons=bool(new.coupon_codes))
            await create_affiliate(connection, new.handle, new.name, new.status, pixel_id)
            if new.coupon_codes:
                await set_coupons(connection, pixel_id, new.coupon_codes)
            return 201, await find_affiliate(connection, new.handle, settings.default_currency)

        return await answer_once(connection, idempotency_key, (PATH, new), work)


@get(f"{PATH}/{{handle:str}}")
async def show_affiliate(
    handle: Handle,
    pool: NamedDependency[asyncpg.Pool],
    settings: NamedDependency[Settings],
    days: Days = 30,
    at: At = None,
) -> Response[AffiliateReport]:
    """An affiliate with what its pixel counted in the last days, on each of them; with `at` as of that event time."""
    as_of = read_at(at)
    async with connection_of(pool) as connection:
        found = await report_on_affiliate(connection, handle, settings.default_currency, days, as_of)
    return Response(found, headers=dict(as_of_header(as_of)))


@patch(f"{PATH}/{{handle:str}}", operation_class=takes(AffiliateChange))
async def change(
    handle: Handle,
    body: RawBody,
    pool: NamedDependency[asyncpg.Pool],
    settings: NamedDependency[Settings],
) -> Affiliate:
    """Pause, resume or rename an affiliate, or replace its coupons; 409 when a coupon is another's."""
    wanted = read_body(body, AffiliateChange)
    name = None if wanted.name is UNSET else read_name(wanted.name)
    status = None if wanted.status is UNSET else wanted.status
    codes = (
        None if wanted.coupon_codes is UNSET else read_coupon_codes(wanted.coupon_codes, settings.code_case)
    )
    async with connection_of(pool) as connection, connection.transaction():
        await hold_ledgers(connection, status=status is not None, coupons=codes is not None)
        pixel_id = await change_affiliate(connection, handle, name, status)
        if codes is not None:
            await set_coupons(connection, pixel_id, codes)
        return await find_affiliate(connection, handle, settings.default_currency)


AFFILIATE_ROUTES = (
    list_affiliates,
    add_affiliate,
    show_affiliate,
    change,
    track_click,
    track_conversion,
)
