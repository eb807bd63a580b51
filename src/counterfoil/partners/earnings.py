"""What partners earn: balances, single commissions and sums, read for JSON and as CSV."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterator, Sequence
from dataclasses import astuple, dataclass
from datetime import UTC, datetime
from decimal import Decimal

import asyncpg
from msgspec import UNSET, Struct, UnsetType

from counterfoil.api.requests import connection_of
from counterfoil.api.writing import Amount, Time, amount_text, time_text
from counterfoil.database.connection import Connection
from counterfoil.database.queries import sql
from counterfoil.partners.spreadsheet import csv_lines, text_cell

GROUPS = {"month": "month", "program": "program_id", "link": "link_id", "status": "status"}
"""What sums can be told apart by → the column that says it; they are in any case by currency."""

CSV_PAGE = 250
"""Rows read and written before the loop may turn: some 4 ms."""

_NEWEST = (datetime.max.replace(tzinfo=UTC), 2**63 - 1)
"""Time and id that every commission comes after, where the newest is first."""


@dataclass(frozen=True, slots=True)
class Filter:
    """Which of a partner's commissions are asked for, in the order of the statements' parameters."""

    partner_id: str
    program: str | None = None
    link: str | None = None
    order: str | None = None
    status: str | None = None
    currency: str | None = None
    since: datetime | None = None
    before: datetime | None = None


class Balance(Struct, rename="camel"):
    """What a partner has earned in one currency; `payable` is what a payout would pay now."""

    currency: str
    pending: Amount
    approved: Amount
    paid: Amount
    canceled: Amount
    total: Amount
    payable: Amount


class Commission(Struct, rename="camel"):
    """One row of a partner's commissions; negative where it takes back."""

    id: int
    order_id: str
    program_id: str | None
    link_id: str | None
    kind: str
    cause: str
    amount: Amount
    earnings: Amount
    rate_percent: str | None
    rate_source: str | None
    currency: str
    status: str
    occurred_at: Time
    payout_id: int | None


class Sum(Struct, rename="camel"):
    """Commissions added up; it has the fields that they are told apart by."""

    currency: str
    commissions: int
    amount: Amount
    earnings: Amount
    month: str | UnsetType = UNSET
    program_id: str | UnsetType | None = UNSET
    link_id: str | UnsetType | None = UNSET
    status: str | UnsetType = UNSET


async def find_balances(
    connection: Connection, partner_id: str, currency: str | None = None
) -> list[Balance]:
    """The balances of a partner, by currency."""
    return [_balance(row) for row in await connection.fetch(sql("balances_of_partner"), partner_id, currency)]


async def find_commissions(
    connection: Connection, wanted: Filter, limit: int, offset: int
) -> list[Commission]:
    """Single commissions, newest first."""
    _, highest = _NEWEST
    rows = await connection.fetch(sql("list_earnings"), *astuple(wanted), *_NEWEST, highest, limit, offset)
    return [_commission(row) for row in rows]


async def find_sums(
    connection: Connection, wanted: Filter, groups: Collection[str], limit: int | None, offset: int
) -> list[Sum]:
    """Sums by these groups, the latest month first."""
    rows = await connection.fetch(sql("group_earnings"), *astuple(wanted), list(groups), limit, offset)
    return [sum_of(row, groups) for row in rows]


async def commissions_as_csv(pool: asyncpg.Pool, wanted: Filter) -> AsyncIterator[str]:
    """All commissions that are there when it begins, newest first; no connection is held while the reader reads."""
    yield csv_lines([Commission.__struct_encode_fields__])
    async with connection_of(pool) as connection:
        last = await connection.fetchval(sql("last_commission_of_partner"), wanted.partner_id)
    after = _NEWEST
    while True:
        async with connection_of(pool) as connection:
            page = await connection.fetch(sql("list_earnings"), *astuple(wanted), *after, last, CSV_PAGE, 0)
        if not page:
            return
        yield csv_lines(_commission_cells(_commission(row)) for row in page)
        after = page[-1]["occurred_at"], page[-1]["id"]


async def sums_as_csv(pool: asyncpg.Pool, wanted: Filter, groups: Collection[str]) -> AsyncIterator[str]:
    """All sums by these groups."""
    async with connection_of(pool) as connection:
        sums = await find_sums(connection, wanted, groups, None, 0)
    for lines in sums_as_lines(sums, groups):
        yield lines


def sums_as_lines(sums: Sequence[Sum], groups: Collection[str]) -> Iterator[str]:
    """Sums as CSV, a part at a time, the names of the columns first."""
    fields = [field for group, field in GROUPS.items() if group in groups]
    names = dict(zip(Sum.__struct_fields__, Sum.__struct_encode_fields__, strict=True))
    yield csv_lines([[*(names[field] for field in fields), "currency", "commissions", "amount", "earnings"]])
    for start in range(0, len(sums), CSV_PAGE):
        yield csv_lines(_sum_cells(found, fields) for found in sums[start : start + CSV_PAGE])


def _balance(row: asyncpg.Record) -> Balance:
    digits = row["digits"]
    pending, approved, paid = row["pending"], row["approved"], row["paid"]
    return Balance(
        currency=row["currency"],
        pending=amount_text(pending, digits),
        approved=amount_text(approved, digits),
        paid=amount_text(paid, digits),
        canceled=amount_text(row["canceled"], digits),
        total=amount_text(pending + approved + paid, digits),
        payable=amount_text(max(approved, Decimal(0)), digits),
    )


def _commission(row: asyncpg.Record) -> Commission:
    rate = row["rate_percent"]
    return Commission(
        id=row["id"],
        order_id=row["order_id"],
        program_id=row["program_id"],
        link_id=row["link_id"],
        kind=row["kind"],
        cause=row["cause"].partition("#")[0],
        amount=amount_text(row["amount"], row["digits"]),
        earnings=amount_text(row["earnings"], row["digits"]),
        rate_percent=None if rate is None else amount_text(rate, 0),
        rate_source=row["rate_source"],
        currency=row["currency"],
        status=row["status"],
        occurred_at=time_text(row["occurred_at"]),
        payout_id=row["payout_id"],
    )


def sum_of(row: asyncpg.Record, groups: Collection[str]) -> Sum:
    """A row of sums with the fields that they are told apart by."""
    return Sum(
        currency=row["currency"],
        commissions=row["commissions"],
        amount=amount_text(row["amount"], row["digits"]),
        earnings=amount_text(row["earnings"], row["digits"]),
        **{field: row[field] for group, field in GROUPS.items() if group in groups},
    )


def _commission_cells(row: Commission) -> list[str]:
    return [
        str(row.id),
        text_cell(row.order_id),
        text_cell(row.program_id),
        text_cell(row.link_id),
        row.kind,
        text_cell(row.cause),
        row.amount,
        row.earnings,
        row.rate_percent or "",
        row.rate_source or "",
        row.currency,
        row.status,
        row.occurred_at,
        "" if row.payout_id is None else str(row.payout_id),
    ]


def _sum_cells(row: Sum, fields: Collection[str]) -> list[str]:
    told_apart = [text_cell(getattr(row, field)) for field in fields]
    return [*told_apart, row.currency, str(row.commissions), row.amount, row.earnings]
