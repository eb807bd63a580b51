"""`/api/v1/vouchers/{voucher_id}/analytics`: what came of a voucher, read from its roll-ups alone."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import date
from decimal import Decimal
from typing import Annotated, NamedTuple

import asyncpg
import msgspec
from litestar import get
from litestar.di import NamedDependency
from litestar.params import FromPath, QueryParameter
from msgspec import Struct

from counterfoil.api.problems import invalid_field
from counterfoil.api.requests import connection_of, read_id
from counterfoil.api.writing import Time, time_text
from counterfoil.database.connection import Connection
from counterfoil.database.queries import sql
from counterfoil.errors import RequestError
from counterfoil.events.scan import SCAN_SOURCES, SCAN_TYPES
from counterfoil.telemetry.metrics import Metrics

PATH = "/api/v1/vouchers/{voucher_id:str}/analytics"

MOST_DAYS = 366
MOST_HOURS = 168
MOST_PLACES = 50

From = Annotated[str | None, QueryParameter(name="from", description="the first day (UTC), YYYY-MM-DD")]
To = Annotated[str | None, QueryParameter(name="to", description="the last day (UTC), YYYY-MM-DD, included")]

_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}").fullmatch


class Tally(NamedTuple):
    """What is counted of a voucher on a day, or on several."""

    scans: int = 0
    customer_scans: int = 0
    business_scans: int = 0
    camera_scans: int = 0
    gallery_scans: int = 0
    link_scans: int = 0
    share_scans: int = 0
    anonymous_scans: int = 0
    impressions: int = 0
    claims: int = 0
    timed_claims: int = 0
    scan_to_claim_s: Decimal = Decimal(0)
    redemptions: int = 0
    failed_redemptions: int = 0
    timed_redemptions: int = 0
    claim_to_redemption_s: Decimal = Decimal(0)


class DayOfVoucher(Struct, rename="camel"):
    """A day (UTC) on which anything was counted."""

    day: date
    scans: int
    unique_users: int
    claims: int
    redemptions: int
    failed_redemptions: int
    impressions: int


class HourOfScans(Struct):
    """An hour with scans, by its beginning."""

    hour: Time
    scans: int


class Place(Struct):
    """Where a voucher was scanned, as the apps say."""

    place: str
    scans: int


class VoucherAnalytics(Struct, rename="camel", kw_only=True):
    """What came of a voucher on some days; times are in seconds, and what would be divided by 0 is null."""

    voucher_id: str
    since: date | None = msgspec.field(name="from")
    until: date | None = msgspec.field(name="to")
    total_scans: int
    unique_users: int
    anonymous_scans: int
    scans_by_type: dict[str, int]
    scans_by_source: dict[str, int]
    impressions: int
    claims: int
    redemptions: int
    failed_redemptions: int
    conversion_rate: float | None
    claim_to_redemption_rate: float | None
    failure_rate: float | None
    average_time_to_claim: float | None
    average_time_to_redeem: float | None
    scans_per_day: list[DayOfVoucher]
    scans_per_hour: list[HourOfScans]
    places: list[Place]


class Found(NamedTuple):
    """What is stored of a voucher's days, as of one moment."""

    days: list[tuple[date, Tally]]
    unique_users: int
    users_by_day: dict[date, int]
    hours: list[HourOfScans]
    places: list[Place]


@get(PATH)
async def show_analytics(
    voucher_id: FromPath[str],
    pool: NamedDependency[asyncpg.Pool],
    metrics: NamedDependency[Metrics],
    since: From = None,
    until: To = None,
) -> VoucherAnalytics:
    """What came of a voucher on the days from one to another, or on all; 404 when nothing was ever told of it."""
    wanted = read_id(voucher_id, "voucherId")
    first, last = read_days(since, until)
    async with connection_of(pool) as connection:
        with metrics.query_seconds.labels("voucher_analytics").time():
            found = await find_counts(connection, wanted, first or date.min, last or date.max)
    return analyse(wanted, first, last, found)


def read_days(since: str | None, until: str | None) -> tuple[date | None, date | None]:
    """The first and the last day, None where there is no bound; raises 422."""
    first, last = _read_day(since, "from"), _read_day(until, "to")
    if first is not None and last is not None and first > last:
        raise invalid_field("to", "must not be before the day in from")
    return first, last


async def find_counts(connection: Connection, voucher_id: str, first: date, last: date) -> Found:
    """What is stored of these days, both included; raises 404 for a voucher that is not known."""
    span = voucher_id, first, last
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        if not await connection.fetchval(sql("voucher_is_known"), voucher_id):
            raise RequestError(404, "nothing is known of this voucher")
        days = [(day, Tally(*counts)) for day, *counts in await connection.fetch(sql("voucher_days"), *span)]
        return Found(
            days,
            await connection.fetchval(sql("voucher_users"), *span),
            await _users_by_day(connection, voucher_id, [day for day, _ in days[-MOST_DAYS:]]),
            await _hours(connection, *span),
            [Place(*row) for row in await connection.fetch(sql("voucher_top_places"), *span, MOST_PLACES)],
        )


def analyse(voucher_id: str, first: date | None, last: date | None, found: Found) -> VoucherAnalytics:
    """The sums and what follows from them."""
    total = add_up([tally for _, tally in found.days])
    return VoucherAnalytics(
        voucher_id=voucher_id,
        since=first,
        until=last,
        total_scans=total.scans,
        unique_users=found.unique_users,
        anonymous_scans=total.anonymous_scans,
        scans_by_type={kind: getattr(total, f"{kind.lower()}_scans") for kind in SCAN_TYPES},
        scans_by_source={source: getattr(total, f"{source.lower()}_scans") for source in SCAN_SOURCES},
        impressions=total.impressions,
        claims=total.claims,
        redemptions=total.redemptions,
        failed_redemptions=total.failed_redemptions,
        conversion_rate=_ratio(total.claims, total.scans),
        claim_to_redemption_rate=_ratio(total.redemptions, total.claims),
        failure_rate=_ratio(total.failed_redemptions, total.failed_redemptions + total.redemptions),
        average_time_to_claim=_ratio(total.scan_to_claim_s, total.timed_claims),
        average_time_to_redeem=_ratio(total.claim_to_redemption_s, total.timed_redemptions),
        scans_per_day=[
            _day_of_voucher(day, tally, found.users_by_day.get(day, 0))
            for day, tally in found.days[-MOST_DAYS:]
        ],
        scans_per_hour=found.hours,
        places=found.places,
    )


def add_up(tallies: Sequence[Tally]) -> Tally:
    """The sum of each count."""
    return Tally(*(sum(counts) for counts in zip(*tallies, strict=True)))


def _day_of_voucher(day: date, tally: Tally, users: int) -> DayOfVoucher:
    return DayOfVoucher(
        day,
        tally.scans,
        users,
        tally.claims,
        tally.redemptions,
        tally.failed_redemptions,
        tally.impressions,
    )


async def _users_by_day(connection: Connection, voucher_id: str, days: Sequence[date]) -> dict[date, int]:
    if not days:
        return {}
    rows = await connection.fetch(sql("voucher_users_by_day"), voucher_id, days[0], days[-1])
    return {day: users for day, users in rows}  # noqa: C416 - mypy takes no record for a pair


async def _hours(connection: Connection, voucher_id: str, first: date, last: date) -> list[HourOfScans]:
    rows = await connection.fetch(sql("voucher_hours"), voucher_id, first, last, MOST_HOURS)
    return [HourOfScans(time_text(hour), scans) for hour, scans in reversed(rows)]


def _ratio(part: int | Decimal, whole: int) -> float | None:
    return float(part / whole) if whole else None


def _read_day(value: str | None, name: str) -> date | None:
    if value is None:
        return None
    try:
        if _DAY(value):
            return date.fromisoformat(value)
    except ValueError:
        pass
    raise invalid_field(name, "must be a day (UTC) like 2026-01-31")
