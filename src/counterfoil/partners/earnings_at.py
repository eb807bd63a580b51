"""What partners had earned by an event time, counted from the facts up to then, whenever these came in."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from datetime import datetime
from decimal import Decimal

import asyncpg
from msgspec import Struct

from counterfoil.api.problems import invalid_field
from counterfoil.api.requests import connection_of
from counterfoil.api.writing import Amount, Time, amount_text, time_text
from counterfoil.database.connection import Connection
from counterfoil.database.queries import sql
from counterfoil.partners.earnings import CSV_PAGE, Filter, Sum, sum_of, sums_as_lines
from counterfoil.partners.spreadsheet import csv_lines, text_cell

BY_PEOPLE_AND_CLOCK = "is set by people and by the clock: it is not known as of a time"


class BalanceAt(Struct, rename="camel"):
    """What a partner had earned in one currency, what he had been paid of it, and what was open."""

    currency: str
    total: Amount
    paid: Amount
    open: Amount


class CommissionAt(Struct, rename="camel"):
    """What one order had come to: the commission on its revenue after the refunds so far; 0 where it was canceled."""

    order_id: str
    program_id: str | None
    link_id: str | None
    revenue: Amount
    refunded: Amount
    amount: Amount
    earnings: Amount
    rate_percent: str | None
    rate_source: str | None
    currency: str
    canceled: bool
    occurred_at: Time


def refuse_statuses(wanted: Filter, groups: Collection[str] | None) -> None:
    """Raise 422 where a status is asked for."""
    if wanted.status is not None:
        raise invalid_field("status", BY_PEOPLE_AND_CLOCK)
    if "status" in (groups or ()):
        raise invalid_field("groupBy", f"status {BY_PEOPLE_AND_CLOCK}")


async def find_balances_at(connection: Connection, partner_id: str, at: datetime) -> list[BalanceAt]:
    """The balances of a partner, by currency."""
    rows = await connection.fetch(sql("balances_of_partner_at"), partner_id, at)
    return [_balance(row) for row in rows]


async def find_commissions_at(
    connection: Connection, wanted: Filter, at: datetime, limit: int, offset: int
) -> list[CommissionAt]:
    """Orders with what they had come to, the latest sale first."""
    rows = await connection.fetch(sql("list_earnings_at"), *_facts_of(wanted), at, limit, offset)
    return [_commission(row) for row in rows]


async def find_sums_at(  # noqa: PLR0913, PLR0917 - one argument a choice
    connection: Connection,
    wanted: Filter,
    at: datetime,
    groups: Collection[str],
    limit: int | None,
    offset: int,
) -> list[Sum]:
    """Sums by these groups, the latest month of sales first."""
    asked = (*_facts_of(wanted), at, list(groups), limit, offset)
    return [sum_of(row, groups) for row in await connection.fetch(sql("group_earnings_at"), *asked)]


async def commissions_at_as_csv(pool: asyncpg.Pool, wanted: Filter, at: datetime) -> AsyncIterator[str]:
    """All orders, the latest sale first; no connection is held while the reader reads."""
    yield csv_lines([CommissionAt.__struct_encode_fields__])
    async with connection_of(pool) as connection:
        found = await connection.fetch(sql("orders_of_partner_at"), wanted.partner_id, at)
    ids = [row["order_id"] for row in found]
    for start in range(0, len(ids), CSV_PAGE):
        asked = (*_facts_of(wanted), at, ids[start : start + CSV_PAGE])
        async with connection_of(pool) as connection:
            rows = await connection.fetch(sql("list_earnings_of_orders_at"), *asked)
        yield csv_lines(_cells(_commission(row)) for row in rows)


async def sums_at_as_csv(
    pool: asyncpg.Pool, wanted: Filter, at: datetime, groups: Collection[str]
) -> AsyncIterator[str]:
    """All sums by these groups."""
    async with connection_of(pool) as connection:
        sums = await find_sums_at(connection, wanted, at, groups, None, 0)
    for lines in sums_as_lines(sums, groups):
        yield lines


def _facts_of(wanted: Filter) -> tuple[object, ...]:
    """The filters that are of facts, in the order of the statements' parameters."""
    return (
        wanted.partner_id,
        wanted.program,
        wanted.link,
        wanted.order,
        wanted.currency,
        wanted.since,
        wanted.before,
    )


def _balance(row: asyncpg.Record) -> BalanceAt:
    total: Decimal = row["total"]
    paid: Decimal = row["paid"]
    digits = row["digits"]
    return BalanceAt(
        row["currency"],
        amount_text(total, digits),
        amount_text(paid, digits),
        amount_text(total - paid, digits),
    )


def _commission(row: asyncpg.Record) -> CommissionAt:
    rate, digits = row["rate_percent"], row["digits"]
    return CommissionAt(
        order_id=row["order_id"],
        program_id=row["program_id"],
        link_id=row["link_id"],
        revenue=amount_text(row["revenue"], digits),
        refunded=amount_text(row["refunded"], digits),
        amount=amount_text(row["amount"], digits),
        earnings=amount_text(row["earnings"], digits),
        rate_percent=None if rate is None else amount_text(rate, 0),
        rate_source=row["rate_source"],
        currency=row["currency"],
        canceled=row["is_canceled"],
        occurred_at=time_text(row["occurred_at"]),
    )


def _cells(row: CommissionAt) -> list[str]:
    return [
        text_cell(row.order_id),
        text_cell(row.program_id),
        text_cell(row.link_id),
        row.revenue,
        row.refunded,
        row.amount,
        row.earnings,
        row.rate_percent or "",
        row.rate_source or "",
        row.currency,
        "true" if row.canceled else "false",
        row.occurred_at,
    ]
