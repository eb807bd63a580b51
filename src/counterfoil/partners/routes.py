"""`/api/partners`: who they are, what they earn, and what they are paid."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import asyncpg
from litestar import Request, Response, get, post
from litestar.di import NamedDependency, Provide
from litestar.params import FromPath, RawBody
from litestar.response import Stream
from msgspec import UNSET, Struct, UnsetType

from counterfoil.api.as_of import At, as_of_header, moment_text, read_at
from counterfoil.api.idempotency import answer_once
from counterfoil.api.requests import (
    ACTOR,
    IdempotencyKey,
    Limit,
    Listing,
    Offset,
    Reason,
    connection_of,
    page,
    read_body,
    takes,
)
from counterfoil.api.writing import Amount, Time, amount_text, time_text
from counterfoil.database.connection import Connection
from counterfoil.database.queries import sql
from counterfoil.errors import RequestError
from counterfoil.partners.earnings import (
    Balance,
    Commission,
    Filter,
    Sum,
    commissions_as_csv,
    find_balances,
    find_commissions,
    find_sums,
    sums_as_csv,
)
from counterfoil.partners.earnings_at import (
    BalanceAt,
    CommissionAt,
    commissions_at_as_csv,
    find_balances_at,
    find_commissions_at,
    find_sums_at,
    refuse_statuses,
    sums_at_as_csv,
)
from counterfoil.partners.requests import (
    Format,
    GroupBy,
    read_currency,
    read_filter,
    read_groups,
    read_partner_id,
    unknown_partner,
)
from counterfoil.partners.spreadsheet import MEDIA_TYPE

PATH = "/api/partners"

MOST_OF_A_PARTNER = 1_000
"""Users and enrollments that the answer about one partner holds."""

_UNFIT_FOR_FILES = re.compile(r"[^A-Za-z0-9._-]+")


class Partner(Struct, rename="camel"):
    """A partner."""

    id: str
    name: str | None
    email: str | None
    created_at: Time


class PartnerUser(Struct, rename="camel"):
    """A user that a partner stands for."""

    id: str
    name: str | None
    email: str | None


class Enrollment(Struct, rename="camel"):
    """A program that a partner is enrolled in, and the rate that it pays now; null where it is the default."""

    program_id: str
    base_domain: str | None
    commission_percent: str | None
    status: str
    origin: str
    created_at: Time


class PartnerDetails(Partner, rename="camel"):
    """A partner with all that is his."""

    users: list[PartnerUser]
    links: int
    enrollments: list[Enrollment]
    balances: list[Balance]


class Earnings(Struct, rename="camel"):
    """A partner's balances, and the commissions or the sums that were asked for."""

    partner_id: str
    name: str | None
    balances: list[Balance]
    items: list[Commission] | UnsetType = UNSET
    groups: list[Sum] | UnsetType = UNSET


class EarningsAt(Struct, rename="camel"):
    """What a partner had earned by a time: the balances, and the orders or the sums that were asked for."""

    partner_id: str
    name: str | None
    at: Time
    balances: list[BalanceAt]
    items: list[CommissionAt] | UnsetType = UNSET
    groups: list[Sum] | UnsetType = UNSET


class NewPayout(Struct, rename="camel", forbid_unknown_fields=True):
    """All that is payable in one currency, with the reference of the transfer that pays it."""

    currency: str
    reference: Reason = ""


class Payout(Struct, rename="camel"):
    """What was paid, and how many commissions with it."""

    id: int
    partner_id: str
    currency: str
    amount: Amount
    reference: str
    created_at: Time
    commissions: int


@get(PATH)
async def list_partners(
    request: Request[Any, Any, Any],
    pool: NamedDependency[asyncpg.Pool],
    limit: Limit = 50,
    offset: Offset = 0,
) -> Response[list[Partner]]:
    """Partners by id."""
    async with connection_of(pool) as connection:
        rows = await connection.fetch(sql("list_partners"), limit + 1, offset)
    return page(request, [_partner(row) for row in rows], Listing(None, limit, offset))


@get(f"{PATH}/{{partner_id:str}}")
async def show_partner(partner_id: FromPath[str], pool: NamedDependency[asyncpg.Pool]) -> PartnerDetails:
    """One partner, with users, links, enrollments and balances."""
    async with connection_of(pool) as connection:
        partner = await find_partner(connection, read_partner_id(partner_id))
        return PartnerDetails(
            partner.id,
            partner.name,
            partner.email,
            partner.created_at,
            users=await _users(connection, partner.id),
            links=await connection.fetchval(sql("count_links_of_partner"), partner.id),
            enrollments=await _enrollments(connection, partner.id),
            balances=await find_balances(connection, partner.id),
        )


@get(
    f"{PATH}/{{partner_id:str}}/earnings",
    dependencies={"wanted": Provide(read_filter, sync_to_thread=False)},
)
async def show_earnings(  # noqa: PLR0913, PLR0917 - one parameter a choice
    request: Request[Any, Any, Any],
    pool: NamedDependency[asyncpg.Pool],
    wanted: NamedDependency[Filter],
    group_by: GroupBy = None,
    format: Format = None,  # noqa: A002 - its name in the query
    limit: Limit = 50,
    offset: Offset = 0,
    at: At = None,
) -> Response[Any]:
    """A partner's balances and commissions, newest first; or sums of them by program, link, month or status.

    As CSV (`format=csv` or `Accept: text/csv`) all that the filters leave. Balances are of all commissions.
    With `at` what each order had come to by that event time: one row for each, and no statuses.
    """
    groups, as_of = read_groups(group_by), read_at(at)
    if as_of is not None:
        refuse_statuses(wanted, groups)
    listing = Listing(None, limit, offset)
    async with connection_of(pool) as connection:
        partner = await find_partner(connection, wanted.partner_id)
        if _wants_csv(request, format):
            return _csv(pool, wanted, groups, as_of)
        if as_of is not None:
            return await _earnings_at(request, connection, partner, wanted, groups, listing, as_of)
        earnings = Earnings(partner.id, partner.name, await find_balances(connection, partner.id))
        if groups is None:
            found = page(request, await find_commissions(connection, wanted, limit + 1, offset), listing)
            earnings.items = found.content
            return Response(earnings, headers=found.headers)
        sums = page(request, await find_sums(connection, wanted, groups, limit + 1, offset), listing)
        earnings.groups = sums.content
        return Response(earnings, headers=sums.headers)


@get(f"{PATH}/{{partner_id:str}}/payouts")
async def list_payouts(
    request: Request[Any, Any, Any],
    partner_id: FromPath[str],
    pool: NamedDependency[asyncpg.Pool],
    limit: Limit = 50,
    offset: Offset = 0,
) -> Response[list[Payout]]:
    """What a partner was paid, newest first."""
    async with connection_of(pool) as connection:
        partner = await find_partner(connection, read_partner_id(partner_id))
        rows = await connection.fetch(sql("list_payouts"), partner.id, None, limit + 1, offset)
    return page(request, [_payout(partner.id, row) for row in rows], Listing(None, limit, offset))


@post(f"{PATH}/{{partner_id:str}}/payouts", operation_class=takes(NewPayout))
async def pay_partner(
    partner_id: FromPath[str],
    body: RawBody,
    pool: NamedDependency[asyncpg.Pool],
    idempotency_key: IdempotencyKey = None,
) -> Response[bytes]:
    """Mark all that is payable in one currency as paid; 409 when nothing is."""
    wanted = read_body(body, NewPayout)
    wanted.currency = read_currency(wanted.currency) or ""
    wanted_by = read_partner_id(partner_id)

    async with connection_of(pool) as connection:

        async def work() -> tuple[int, Payout]:
            partner = await find_partner(connection, wanted_by)
            return 201, await pay(connection, partner.id, wanted)

        return await answer_once(connection, idempotency_key, (PATH, wanted_by, wanted), work)


async def find_partner(connection: Connection, partner_id: str) -> Partner:
    """The partner; raises 404 when there is none."""
    row = await connection.fetchrow(sql("find_partner"), partner_id)
    if row is None:
        raise unknown_partner()
    return _partner(row)


async def pay(connection: Connection, partner_id: str, wanted: NewPayout) -> Payout:
    """Pay in the caller's transaction; raises 409 when nothing is payable."""
    payout_id = await connection.fetchval(
        sql("pay_commissions"), partner_id, wanted.currency, wanted.reference, ACTOR
    )
    if payout_id is None:
        balances = await find_balances(connection, partner_id, wanted.currency)
        raise RequestError(
            409,
            f"nothing is payable to this partner in {wanted.currency}",
            balance=next(iter(balances), None),
        )
    rows = await connection.fetch(sql("list_payouts"), partner_id, payout_id, 1, 0)
    return _payout(partner_id, rows[0])


async def _users(connection: Connection, partner_id: str) -> list[PartnerUser]:
    rows = await connection.fetch(sql("list_users_of_partner"), partner_id, MOST_OF_A_PARTNER)
    return [PartnerUser(*row) for row in rows]


async def _enrollments(connection: Connection, partner_id: str) -> list[Enrollment]:
    rows = await connection.fetch(sql("list_enrollments_of_partner"), partner_id, MOST_OF_A_PARTNER)
    return [_enrollment(row) for row in rows]


def _enrollment(row: asyncpg.Record) -> Enrollment:
    percent = row["commission_percent"]
    return Enrollment(
        program_id=row["program_id"],
        base_domain=row["base_domain"],
        commission_percent=None if percent is None else amount_text(percent, 0),
        status=row["status"],
        origin=row["origin"],
        created_at=time_text(row["created_at"]),
    )


def _partner(row: asyncpg.Record) -> Partner:
    return Partner(row["id"], row["name"], row["email"], time_text(row["created_at"]))


def _payout(partner_id: str, row: asyncpg.Record) -> Payout:
    return Payout(
        id=row["id"],
        partner_id=partner_id,
        currency=row["currency"],
        amount=amount_text(row["amount"], row["digits"]),
        reference=row["reference"],
        created_at=time_text(row["created_at"]),
        commissions=row["commissions"],
    )


def _wants_csv(request: Request[Any, Any, Any], asked: str | None) -> bool:
    if asked is not None:
        return asked == "csv"
    return request.accept.best_match(["application/json", "text/csv"]) == "text/csv"


async def _earnings_at(  # noqa: PLR0913, PLR0917 - all that was asked for
    request: Request[Any, Any, Any],
    connection: Connection,
    partner: Partner,
    wanted: Filter,
    groups: Sequence[str] | None,
    listing: Listing,
    at: datetime,
) -> Response[Any]:
    """The balances, and the orders or the sums, as of a time and of one snapshot."""
    limit, offset, headers = listing.limit, listing.offset, as_of_header(at)
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        balances = await find_balances_at(connection, partner.id, at)
        earnings = EarningsAt(partner.id, partner.name, moment_text(at), balances)
        if groups is None:
            items = await find_commissions_at(connection, wanted, at, limit + 1, offset)
            found = page(request, items, listing, headers)
            earnings.items = found.content
            return Response(earnings, headers=found.headers)
        sums = await find_sums_at(connection, wanted, at, groups, limit + 1, offset)
        summed = page(request, sums, listing, headers)
        earnings.groups = summed.content
        return Response(earnings, headers=summed.headers)


def _csv(
    pool: asyncpg.Pool, wanted: Filter, groups: Sequence[str] | None, at: datetime | None = None
) -> Stream:
    name = _UNFIT_FOR_FILES.sub("_", wanted.partner_id + ("" if at is None else f"-{moment_text(at)}"))
    headers: Mapping[str, str] = {"Content-Disposition": f'attachment; filename="earnings-{name}.csv"'}
    return Stream(
        _csv_lines(pool, wanted, groups, at),
        media_type=MEDIA_TYPE,
        headers=dict(headers) | dict(as_of_header(at)),
    )


def _csv_lines(
    pool: asyncpg.Pool, wanted: Filter, groups: Sequence[str] | None, at: datetime | None
) -> AsyncIterator[str]:
    if at is None:
        return commissions_as_csv(pool, wanted) if groups is None else sums_as_csv(pool, wanted, groups)
    if groups is None:
        return commissions_at_as_csv(pool, wanted, at)
    return sums_at_as_csv(pool, wanted, at, groups)


PARTNER_ROUTES = (list_partners, show_partner, show_earnings, list_payouts, pay_partner)
"""Every route of partners."""
