"""`/admin/promo-codes`: what the promo codes count, new ones, and an operator's adjustments."""

from __future__ import annotations

import re
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any

import asyncpg
import msgspec
from litestar import Request, Response, get, post
from litestar.di import NamedDependency
from litestar.params import RawBody
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

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
from counterfoil.database.connection import Connection
from counterfoil.database.queries import sql
from counterfoil.settings import Settings

PATH = "/admin/promo-codes"

_MONEY_DIGITS = 14
_PLAIN_STRING = re.compile(rb'"-?[0-9]+(\.[0-9]+)?"').fullmatch
_MICRO = Decimal("0.000001")


class PromoCode(Struct, rename="camel"):
    """A promo code with its counts; the bonus is a decimal string in JSON.

    Where they are as of a time, `at` is the time and `updated_at` that of the latest fact.
    """

    id: int
    code: str
    times_used: int
    total_bonus_issued: Decimal
    updated_at: datetime
    at: Time | UnsetType = UNSET


class NewPromoCode(Struct, rename="camel", forbid_unknown_fields=True):
    """A promo code to be there, and what an operator adds to its counts: the "opening balance"."""

    code: str
    delta: Annotated[int, Meta(ge=-(10**9), le=10**9)] | None = None
    bonus_delta: Decimal | None = None
    reason: Reason = ""

    @property
    def adjusts(self) -> bool:
        """True when it adds to the counts."""
        return self.delta is not None or self.bonus_delta is not None


class _AsSent(Struct, rename="camel"):
    bonus_delta: Raw = Raw(b"null")


@get(PATH)
async def list_promo_codes(
    request: Request[Any, Any, Any],
    pool: NamedDependency[asyncpg.Pool],
    listing: NamedDependency[Listing],
    at: At = None,
) -> Response[list[PromoCode]]:
    """Promo codes, the most used first; with `at` as of that event time."""
    as_of = read_at(at)
    async with connection_of(pool) as connection:
        return page(request, await find_promo_codes(connection, listing, as_of), listing, as_of_header(as_of))


@post(PATH, operation_class=takes(NewPromoCode))
async def create_promo_code(
    body: RawBody,
    pool: NamedDependency[asyncpg.Pool],
    settings: NamedDependency[Settings],
    idempotency_key: IdempotencyKey = None,
) -> Response[bytes]:
    """Make a promo code or add to its counts: 201 when a row was written, 200 when nothing was to do."""
    wanted = read_body(body, NewPromoCode)
    wanted.code = read_required_code(wanted.code, settings.code_case)
    if wanted.bonus_delta is not None and not (
        is_exact_money(wanted.bonus_delta) and is_plainly_written(msgspec.json.decode(body, type=_AsSent))
    ):
        raise invalid_field("bonusDelta", "must be a decimal number below 10^14 with at most 6 decimals")

    async with connection_of(pool) as connection:

        async def work() -> tuple[int, PromoCode]:
            return await ensure_promo_code(connection, wanted, idempotency_key)

        return await answer_once(connection, idempotency_key, (PATH, wanted), work)


async def find_promo_codes(
    connection: Connection, listing: Listing, at: datetime | None = None
) -> list[PromoCode]:
    """Promo codes, the most used first, then by code; a row beyond the listing's limit if there is one."""
    asked = (listing.code, listing.limit + 1, listing.offset)
    if at is None:
        return [PromoCode(*row) for row in await connection.fetch(sql("list_promo_codes"), *asked)]
    rows = await connection.fetch(sql("list_promo_codes_at"), *asked, at)
    moment = moment_text(at)
    return [
        PromoCode(
            row["id"], row["code"], row["times_used"], row["total_bonus_issued"], row["updated_at"], moment
        )
        for row in rows
    ]


async def ensure_promo_code(
    connection: Connection, wanted: NewPromoCode, idempotency_key: str | None
) -> tuple[int, PromoCode]:
    """Make and adjust it in the caller's transaction; raises 422 when a count would fall below 0."""
    if wanted.adjusts:
        await connection.execute(sql("hold_orders_shared"))
    created = await connection.fetchval(sql("create_promo_code"), wanted.code) is not None
    if wanted.adjusts:
        await _adjust(connection, wanted, idempotency_key)
    found = await connection.fetch(sql("find_promo_code"), wanted.code)
    promo_code = PromoCode(*found[0])
    _refuse_below_zero(wanted, promo_code)
    return 201 if created or wanted.adjusts else 200, promo_code


def is_exact_money(amount: Decimal) -> bool:
    """True when numeric(20,6) holds the amount without rounding it."""
    if not amount.is_finite() or (amount and not -7 < amount.adjusted() < _MONEY_DIGITS):
        return False
    return amount == amount.quantize(_MICRO)


def is_plainly_written(sent: _AsSent) -> bool:
    """True unless the amount is a string of another form than digits, a sign and a decimal point."""
    text = bytes(sent.bonus_delta)
    return not text.startswith(b'"') or _PLAIN_STRING(text) is not None


async def _adjust(connection: Connection, wanted: NewPromoCode, idempotency_key: str | None) -> None:
    await connection.execute(
        sql("insert_promo_adjustment"),
        wanted.code,
        wanted.delta or 0,
        wanted.bonus_delta or Decimal(0),
        wanted.reason,
        ACTOR,
        idempotency_key,
    )


def _refuse_below_zero(wanted: NewPromoCode, found: PromoCode) -> None:
    """Decide while the insert's trigger holds the row."""
    if (wanted.delta or 0) < 0 and found.times_used < 0:
        raise invalid_field("delta", "must leave timesUsed at 0 or more")
    if (wanted.bonus_delta or 0) < 0 and found.total_bonus_issued < 0:
        raise invalid_field("bonusDelta", "must leave totalBonusIssued at 0 or more")
