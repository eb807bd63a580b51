"""Affiliates in the database, and how they are shown."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import Literal

import asyncpg
import msgspec
from msgspec import UNSET, Struct, UnsetType

from counterfoil.affiliates.rules import Tally, by_day, totals
from counterfoil.api.as_of import moment_text
from counterfoil.api.requests import ACTOR
from counterfoil.api.writing import Amount, Time, amount_text, camel_case, time_text
from counterfoil.database.connection import Connection
from counterfoil.database.locks import ATTRIBUTIONS_EXCLUSIVE, ORDERS_EXCLUSIVE, hold
from counterfoil.database.queries import sql
from counterfoil.errors import RequestError

Status = Literal["active", "paused"]


class CurrencyMetrics(Struct, rename=camel_case):
    """What the conversions of 30 days came to in one currency."""

    currency: str
    conversions_30d: int
    revenue_30d: Amount
    commission_30d: Amount


class Affiliate(Struct, rename=camel_case, kw_only=True):
    """An affiliate with the metrics of the last 30 days; its amounts are those of the default currency.

    Where it is as of a time, `at` is the time, the status is that of then, and the days end with it.
    """

    id: int
    handle: str
    name: str
    status: Status
    pixel_id: str
    revenue_30d: Amount
    clicks_30d: int
    unique_clicks_30d: int
    bot_clicks_30d: int
    conversions_30d: int
    commission_30d: Amount
    by_currency: list[CurrencyMetrics]
    coupon_codes: list[str]
    created_at: Time
    at: Time | UnsetType = UNSET


class DayMetrics(Struct, rename=camel_case):
    """What a pixel counted on one day; the amounts by currency."""

    day: date
    clicks: int
    unique_clicks: int
    bot_clicks: int
    conversions: int
    revenue: dict[str, Amount]
    commission: dict[str, Amount]


class StatusChange(Struct, rename=camel_case):
    """What the status has been since when."""

    status: Status
    valid_from: Time
    actor: str


class AffiliateReport(Affiliate, rename=camel_case, kw_only=True):
    """An affiliate with what its pixel counted in the last `days` days, on each of them, and its history."""

    days: int
    clicks: int
    unique_clicks: int
    bot_clicks: int
    conversions: int
    revenue: dict[str, Amount]
    commission: dict[str, Amount]
    daily: list[DayMetrics]
    status_history: list[StatusChange]


class _Metrics(Struct):
    currency: str
    digits: int
    clicks: int
    unique_clicks: int
    bot_clicks: int
    conversions: int
    revenue: Decimal
    commission: Decimal


async def find_affiliates(  # noqa: PLR0913 - one argument a filter
    connection: Connection,
    default_currency: str,
    *,
    handle: str | None = None,
    status: Status | None = None,
    limit: int = 1,
    offset: int = 0,
    at: datetime | None = None,
) -> list[Affiliate]:
    """Affiliates by handle, each with its metrics."""
    asked = (handle, status, limit, offset)
    if at is None:
        rows = await connection.fetch(sql("list_affiliates"), *asked)
    else:
        rows = await connection.fetch(sql("list_affiliates_at"), *asked, at)
    digits = await connection.fetchval(sql("digits_of_currency"), default_currency)
    return [_affiliate(row, default_currency, digits, at) for row in rows]


async def find_affiliate(
    connection: Connection, handle: str, default_currency: str, at: datetime | None = None
) -> Affiliate:
    """One affiliate with its metrics; raises 404."""
    found = await find_affiliates(connection, default_currency, handle=handle, at=at)
    if not found:
        raise _unknown()
    return found[0]


async def report_on_affiliate(
    connection: Connection, handle: str, default_currency: str, days: int, at: datetime | None = None
) -> AffiliateReport:
    """One affiliate with its last days, as they are at one moment; raises 404."""
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        affiliate = await find_affiliate(connection, handle, default_currency, at)
        pixel = affiliate.pixel_id
        if at is None:
            found = await connection.fetch(sql("affiliate_days"), pixel, days)
            history = await connection.fetch(sql("affiliate_status_history"), pixel)
        else:
            found = await connection.fetch(sql("affiliate_days_as_of"), pixel, days, at)
            history = await connection.fetch(sql("affiliate_status_history_at"), pixel, at)
    tallies = [Tally(*row) for row in found]
    return AffiliateReport(
        **msgspec.structs.asdict(affiliate),
        **totals(tallies)._asdict(),
        days=days,
        daily=[DayMetrics(day, *sums) for day, sums in by_day(tallies)],
        status_history=[StatusChange(status, time_text(since), actor) for status, since, actor in history],
    )


async def create_affiliate(
    connection: Connection, handle: str, name: str, status: Status, pixel_id: str
) -> None:
    """Make an affiliate in the caller's transaction; raises 409 naming what is taken."""
    await connection.execute(
        sql("set_affiliate_status"), pixel_id, status, ACTOR
    )  # else a trigger would, for nobody
    if await connection.fetchval(sql("create_affiliate"), handle, name, status, pixel_id) is None:
        taken = await connection.fetchval(sql("affiliate_handle_is_taken"), handle)
        raise _taken("handle" if taken else "pixelId")


async def change_affiliate(
    connection: Connection, handle: str, name: str | None, status: Status | None
) -> str:
    """Rename, pause or resume an affiliate in the caller's transaction and answer its pixel; raises 404."""
    found = await connection.fetchrow(sql("lock_affiliate"), handle)
    if found is None:
        raise _unknown()
    if name is not None and name != found["name"]:
        await connection.execute(sql("rename_affiliate"), handle, name)
    if status is not None and status != found["status"]:
        await connection.execute(sql("set_affiliate_status"), found["pixel_id"], status, ACTOR)
    return str(found["pixel_id"])


async def hold_ledgers(connection: Connection, *, status: bool, coupons: bool) -> None:
    """Take what the change of a status or of coupons needs, before anything else in the caller's transaction."""
    orders = (ORDERS_EXCLUSIVE,) if coupons else ()
    attributions = (ATTRIBUTIONS_EXCLUSIVE,) if status or coupons else ()
    await hold(connection, (*orders, *attributions))


async def set_coupons(connection: Connection, pixel_id: str, codes: Sequence[str]) -> None:
    """Make these the pixel's coupons in the caller's transaction; raises 409 naming those of others."""
    await connection.execute(sql("release_coupons"), pixel_id, codes)
    await connection.execute(sql("assign_coupons"), pixel_id, codes)
    others = [row["code"] for row in await connection.fetch(sql("coupons_of_others"), pixel_id, codes)]
    if others:
        raise RequestError(
            409,
            "a coupon belongs to another affiliate",
            errors=[{"field": "couponCodes", "rule": f"{code} is another affiliate's"} for code in others],
        )


def _unknown() -> RequestError:
    return RequestError(404, "there is no affiliate of this handle")


def _taken(field: str) -> RequestError:
    return RequestError(
        409, "another affiliate has this already", errors=[{"field": field, "rule": "is taken"}]
    )


def _affiliate(
    row: asyncpg.Record, default_currency: str, digits: int, at: datetime | None = None
) -> Affiliate:
    found = msgspec.json.decode(row["metrics"], type=list[_Metrics])
    paid = {metrics.currency: metrics for metrics in found if metrics.conversions}
    default = paid.get(default_currency)
    return Affiliate(
        id=row["id"],
        handle=row["handle"],
        name=row["name"],
        status=row["status"],
        pixel_id=row["pixel_id"],
        revenue_30d=amount_text(default.revenue if default else Decimal(0), digits),
        clicks_30d=sum(metrics.clicks for metrics in found),
        unique_clicks_30d=sum(metrics.unique_clicks for metrics in found),
        bot_clicks_30d=sum(metrics.bot_clicks for metrics in found),
        conversions_30d=sum(metrics.conversions for metrics in found),
        commission_30d=amount_text(default.commission if default else Decimal(0), digits),
        by_currency=[_in_currency(metrics) for metrics in paid.values()],
        coupon_codes=row["codes"],
        created_at=time_text(row["created_at"]),
        at=UNSET if at is None else moment_text(at),
    )


def _in_currency(metrics: _Metrics) -> CurrencyMetrics:
    return CurrencyMetrics(
        metrics.currency,
        metrics.conversions,
        amount_text(metrics.revenue, metrics.digits),
        amount_text(metrics.commission, metrics.digits),
    )
