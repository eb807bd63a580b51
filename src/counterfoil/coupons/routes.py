"""`/admin/affiliate-coupons`: what the coupons count, and an operator's adjustments."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

import asyncpg
from litestar import Request, Response, get, post
from litestar.di import NamedDependency
from litestar.params import RawBody
from msgspec import UNSET, Meta, Struct, UnsetType

from counterfoil.api.as_of import At, as_of_header, moment_text, read_at
from counterfoil.api.idempotency import answer_once
from counterfoil.api.problems import invalid_field
from counterfoil.api.requests import (
    ACTOR,
    IdempotencyKey,
    Listing,
    Reason,
    connection_of,
    page,
    read_body,
    read_required_code,
    takes,
)
from counterfoil.api.writing import Time
from counterfoil.database.queries import sql
from counterfoil.settings import Settings

PATH = "/admin/affiliate-coupons"


class Coupon(Struct, rename="camel"):
    """A coupon with its count; where that is as of a time, `at` is the time and `updated_at` its latest fact's."""

    code: str
    times_used: int
    updated_at: datetime
    at: Time | UnsetType = UNSET


class CouponAdjustment(Struct, rename="camel", forbid_unknown_fields=True):
    """A count that an operator adds, or takes away where `delta` is negative; 0 only makes the coupon."""

    code: str
    delta: Annotated[int, Meta(ge=-(10**9), le=10**9)] = 1
    reason: Reason = ""


@get(PATH)
async def list_affiliate_coupons(
    request: Request[Any, Any, Any],
    pool: NamedDependency[asyncpg.Pool],
    listing: NamedDependency[Listing],
    at: At = None,
) -> Response[list[Coupon]]:
    """Coupons, the most used first; with `at` as of that event time."""
    as_of = read_at(at)
    async with connection_of(pool) as connection:
        return page(request, await find_coupons(connection, listing, as_of), listing, as_of_header(as_of))


@post(PATH, operation_class=takes(CouponAdjustment))
async def adjust_affiliate_coupon(
    body: RawBody,
    pool: NamedDependency[asyncpg.Pool],
    settings: NamedDependency[Settings],
    idempotency_key: IdempotencyKey = None,
) -> Response[bytes]:
    """Add a row to the coupon's adjustments."""
    adjustment = read_body(body, CouponAdjustment)
    adjustment.code = read_required_code(adjustment.code, settings.code_case)

    async with connection_of(pool) as connection:

        async def work() -> tuple[int, Coupon]:
            return 201, await adjust_coupon(connection, adjustment, idempotency_key)

        return await answer_once(connection, idempotency_key, (PATH, adjustment), work)


async def find_coupons(
    connection: asyncpg.Connection, listing: Listing, at: datetime | None = None
) -> list[Coupon]:
    """The coupons, the most used first, then by code; a row beyond the listing's limit where there is one."""
    asked = (listing.code, listing.limit + 1, listing.offset)
    if at is None:
        return [Coupon(*row) for row in await connection.fetch(sql("list_affiliate_coupons"), *asked)]
    rows = await connection.fetch(sql("list_affiliate_coupons_at"), *asked, at)
    moment = moment_text(at)
    return [Coupon(row["code"], row["times_used"], row["updated_at"], moment) for row in rows]


async def adjust_coupon(
    connection: asyncpg.Connection, adjustment: CouponAdjustment, idempotency_key: str | None
) -> Coupon:
    """Count the adjustment in the caller's transaction; raises 422 when it would leave the count below 0."""
    await connection.execute(
        sql("insert_coupon_adjustment"),
        adjustment.code,
        adjustment.delta,
        adjustment.reason,
        ACTOR,
        idempotency_key,
    )
    found = await connection.fetch(sql("find_affiliate_coupon"), adjustment.code)
    coupon = Coupon(*found[0])
    if adjustment.delta < 0 and coupon.times_used < 0:  # decided while the insert's trigger holds the row
        raise invalid_field(
            "delta", f"must leave timesUsed at 0 or more: it is {coupon.times_used - adjustment.delta}"
        )
    return coupon
