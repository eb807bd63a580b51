"""`/api/v1/customers/{customer_id}/wallet`: the vouchers of a customer, and what the customer wants to hear of them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Literal, cast

import asyncpg
from litestar import Request, Response, get, patch
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, RawBody
from msgspec import UNSET, Raw, Struct, UnsetType

from counterfoil.api.problems import invalid_field
from counterfoil.api.requests import (
    Limit,
    Listing,
    Offset,
    connection_of,
    page,
    read_body,
    read_id,
    refusals,
    takes,
)
from counterfoil.api.writing import Time, time_text
from counterfoil.database.connection import Connection
from counterfoil.database.queries import sql
from counterfoil.errors import RequestError
from counterfoil.events import rules
from counterfoil.events.document import check_depth, parse
from counterfoil.events.objects import MAX_OBJECT_BYTES, object_text
from counterfoil.telemetry.metrics import Metrics

PATH = "/api/v1/customers/{customer_id:str}/wallet"

Status = Literal["CLAIMED", "REDEEMED", "EXPIRED"]


class WalletItem(Struct, rename="camel"):
    """A voucher in a customer's wallet; `walletOrder` counts from 1, by the time of the claim."""

    voucher_id: str
    title: str | None
    business_id: str | None
    status: Status
    claimed_at: Time | None
    redeemed_at: Time | None
    expires_at: Time | None
    wallet_order: int
    notification_preferences: Raw
    last_viewed_at: Time | None
    metadata: Raw


class WalletChange(Struct, rename="camel", forbid_unknown_fields=True):
    """What is to be changed: the preferences are replaced, and the last view moves forward only."""

    notification_preferences: dict[str, Any] | UnsetType = UNSET
    last_viewed_at: str | int | UnsetType = UNSET


@get(PATH)
async def show_wallet(  # noqa: PLR0913, PLR0917 - one argument a parameter
    request: Request[Any, Any, Any],
    customer_id: FromPath[str],
    pool: NamedDependency[asyncpg.Pool],
    metrics: NamedDependency[Metrics],
    status: FromQuery[Status | None] = None,
    limit: Limit = 50,
    offset: Offset = 0,
) -> Response[list[WalletItem]]:
    """A customer's vouchers, the first claimed first; of whom nothing is known the wallet is empty."""
    customer = read_id(customer_id, "customerId")
    async with connection_of(pool) as connection:
        with metrics.query_seconds.labels("wallet").time():
            rows = await connection.fetch(sql("list_wallet"), customer, status, limit + 1, offset)
    return page(request, [_item(row) for row in rows], Listing(None, limit, offset))


@patch(f"{PATH}/{{voucher_id:str}}", operation_class=takes(WalletChange))
async def change_in_wallet(
    customer_id: FromPath[str],
    voucher_id: FromPath[str],
    body: RawBody,
    pool: NamedDependency[asyncpg.Pool],
) -> WalletItem:
    """Replace a voucher's notification preferences, or tell when it was viewed last; 404 when it is not there."""
    key = read_id(customer_id, "customerId"), read_id(voucher_id, "voucherId")
    wanted = read_change(body)
    preferences, viewed_at = read_preferences(body, wanted), read_last_view(wanted)
    async with connection_of(pool) as connection, connection.transaction():
        await connection.execute(sql("change_in_wallet"), *key, preferences, viewed_at)
        return await find_in_wallet(connection, *key)


async def find_in_wallet(connection: Connection, customer_id: str, voucher_id: str) -> WalletItem:
    """One voucher of a wallet; raises 404."""
    row = await connection.fetchrow(sql("find_in_wallet"), customer_id, voucher_id)
    if row is None:
        raise RequestError(404, "this customer's wallet holds no such voucher")
    return _item(row)


def read_change(body: bytes) -> WalletChange:
    """The body; raises 400 also for one that is nested deeper than an event may be, and 422."""
    with refusals():
        check_depth(body)
    return read_body(body, WalletChange)


def read_preferences(body: bytes, change: WalletChange) -> str | None:
    """The preferences as JSON that PostgreSQL takes as it is; None to keep them, 422 for what it does not take."""
    if change.notification_preferences is UNSET:
        return None
    tree = cast("dict[str, Any]", parse(body))  # once more, for its numbers as they are written
    changed: list[str] = []
    text = object_text(tree["notificationPreferences"], "notificationPreferences", changed.append)
    if changed:
        raise invalid_field(
            "notificationPreferences",
            f"must hold no NUL character, and be at most {MAX_OBJECT_BYTES} bytes, each number in plain digits",
        )
    return text


def read_last_view(change: WalletChange) -> datetime | None:
    """The time by the rules of events, None to keep it; raises 422."""
    if change.last_viewed_at is UNSET:
        return None
    now_ms = int(datetime.now(UTC).timestamp() * 1_000)
    with refusals():
        return rules.event_time(change.last_viewed_at, "lastViewedAt", now_ms, _nobody)


def _item(row: asyncpg.Record) -> WalletItem:
    return WalletItem(
        voucher_id=row["voucher_id"],
        title=row["title"],
        business_id=row["business_id"],
        status=row["status"],
        claimed_at=_time(row["claimed_at"]),
        redeemed_at=_time(row["redeemed_at"]),
        expires_at=_time(row["expires_at"]),
        wallet_order=row["wallet_order"],
        notification_preferences=Raw(row["notification_preferences"].encode()),
        last_viewed_at=_time(row["last_viewed_at"]),
        metadata=Raw(row["metadata"].encode()),
    )


def _time(moment: datetime | None) -> Time | None:
    return None if moment is None else time_text(moment)


def _nobody(_field: str) -> None:
    """What is normalised is counted for events, not for requests."""
