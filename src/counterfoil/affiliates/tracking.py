"""`/api/affiliates/track`: clicks and conversions, published to their topics."""

from __future__ import annotations

from datetime import datetime

import asyncpg
import msgspec
from litestar import post
from litestar.di import NamedDependency
from litestar.params import RawBody
from msgspec import Struct
from uuid_utils import uuid7

from counterfoil.api.auth import FORMS, PUBLIC
from counterfoil.api.clients import Client
from counterfoil.api.cross_origin import CROSS_ORIGIN
from counterfoil.api.reporting import REPORTS, Publisher, read_event, report
from counterfoil.api.requests import connection_of, takes
from counterfoil.api.visitors import refuse_other_days, with_visitor
from counterfoil.api.writing import Amount
from counterfoil.database.connection import Connection
from counterfoil.database.queries import sql
from counterfoil.errors import RequestError
from counterfoil.events import decode_click, decode_conversion
from counterfoil.settings import Settings

PATH = "/api/affiliates/track"


class ClickReport(Struct, rename="camel"):
    """A click; its visitor is whoever sends it, unless the platform sends it and names another."""

    pixel_id: str
    landing_page: str | None = None
    referrer: str | None = None
    link_id: str | None = None
    click_id: str | None = None
    timestamp: datetime | None = None
    ip_address: str | None = None
    user_agent: str | None = None


class ConversionReport(Struct, rename="camel"):
    """An order that a pixel or a link has brought; one of these is required."""

    order_id: str
    revenue: float | Amount
    pixel_id: str | None = None
    link_id: str | None = None
    commission: float | Amount | None = None
    currency: str | None = None
    click_id: str | None = None
    timestamp: datetime | None = None


class TrackedClick(Struct, rename="camel"):
    """Kafka has the click."""

    click_id: str
    success: bool = True


class TrackedConversion(Struct, rename="camel"):
    """Kafka has the conversion; its attribution is known by its order."""

    attribution_id: str
    success: bool = True


@post(
    f"{PATH}/click",
    status_code=202,
    operation_class=takes(ClickReport),
    opt={REPORTS: "click", PUBLIC: True, CROSS_ORIGIN: True, FORMS: True},
    security=[{}],
)
async def track_click(
    body: RawBody,
    client: NamedDependency[Client],
    publisher: NamedDependency[Publisher],
    settings: NamedDependency[Settings],
) -> TrackedClick:
    """Publish a click; a repeat with the same click id and timestamp is the same click."""
    click = with_visitor(read_event(decode_click, body, settings), client)
    refuse_other_days(click, client)
    click_id = click.click_id or str(uuid7())
    await report(publisher, msgspec.structs.replace(click, click_id=click_id))
    return TrackedClick(click_id)


@post(
    f"{PATH}/conversion",
    status_code=202,
    operation_class=takes(ConversionReport),
    opt={REPORTS: "conversion"},
)
async def track_conversion(
    body: RawBody,
    pool: NamedDependency[asyncpg.Pool],
    publisher: NamedDependency[Publisher],
    settings: NamedDependency[Settings],
) -> TrackedConversion:
    """Publish a conversion; 409 when its order is attributed by one of the same time or earlier."""
    conversion = read_event(decode_conversion, body, settings)
    async with connection_of(pool) as connection:  # given back before Kafka is waited for
        await refuse_converted(connection, conversion.order_id, conversion.timestamp)
    await report(publisher, conversion)
    return TrackedConversion(conversion.order_id)


async def refuse_converted(connection: Connection, order_id: str, timestamp: datetime) -> None:
    """Raise 409 for an order that is attributed by a conversion of this time or earlier."""
    if await connection.fetchval(sql("order_is_converted"), order_id, timestamp):
        raise RequestError(
            409,
            "the order is attributed by a conversion of this time or earlier",
            errors=[{"field": "orderId", "rule": "is attributed"}],
        )
