"""`/api/v1/vouchers/{voucher_id}`: scans, claims and attempts to redeem, published to their topics."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

import asyncpg
import msgspec
from litestar import post
from litestar.di import NamedDependency
from litestar.params import FromPath, RawBody
from msgspec import Struct
from uuid_utils import uuid7

from counterfoil.api.auth import FORMS, PUBLIC
from counterfoil.api.clients import Client
from counterfoil.api.cross_origin import CROSS_ORIGIN
from counterfoil.api.reporting import REPORTS, Publisher, read_event_about, report
from counterfoil.api.requests import connection_of, takes
from counterfoil.api.visitors import refuse_other_days, with_visitor
from counterfoil.api.writing import time_text
from counterfoil.database.connection import Connection
from counterfoil.database.queries import sql
from counterfoil.errors import RequestError
from counterfoil.events import Claim, decode_claim, decode_redemption, decode_scan
from counterfoil.settings import Settings

PATH = "/api/v1/vouchers/{voucher_id:str}"


class ScanReport(Struct, rename="camel", kw_only=True):
    """A scan; its visitor is whoever sends it, unless the platform sends it and names another."""

    voucher_id: str | None = None
    scan_type: Literal["CUSTOMER", "BUSINESS"]
    scan_source: Literal["CAMERA", "GALLERY", "LINK", "SHARE"]
    scan_id: str | None = None
    user_id: str | None = None
    device_info: dict[str, Any] | None = None
    location: dict[str, Any] | None = None
    metadata: dict[str, Any] | None = None
    timestamp: datetime | None = None
    ip_address: str | None = None
    user_agent: str | None = None


class ClaimReport(Struct, rename="camel", kw_only=True):
    """A customer who puts the voucher into the wallet."""

    voucher_id: str | None = None
    customer_id: str
    metadata: dict[str, Any] | None = None
    timestamp: datetime | None = None


class RedemptionReport(Struct, rename="camel", kw_only=True):
    """An attempt to redeem the voucher at a business, and whether it worked."""

    voucher_id: str | None = None
    business_id: str
    successful: bool
    attempt_id: str | None = None
    customer_id: str | None = None
    failure_reason: str | None = None
    device_info: dict[str, Any] | None = None
    location: dict[str, Any] | None = None
    metadata: dict[str, Any] | None = None
    timestamp: datetime | None = None


class TrackedScan(Struct, rename="camel"):
    """Kafka has the scan."""

    scan_id: str
    success: bool = True


class TrackedClaim(Struct, rename="camel"):
    """Kafka has the claim; there is one of a voucher and a customer."""

    voucher_id: str
    customer_id: str
    success: bool = True


class TrackedAttempt(Struct, rename="camel"):
    """Kafka has the attempt, whether it was a successful one or not."""

    attempt_id: str
    success: bool = True


@post(
    f"{PATH}/scan",
    status_code=202,
    operation_class=takes(ScanReport),
    opt={REPORTS: "scan", PUBLIC: True, CROSS_ORIGIN: True, FORMS: True},
    security=[{}],
)
async def track_scan(
    voucher_id: FromPath[str],
    body: RawBody,
    client: NamedDependency[Client],
    publisher: NamedDependency[Publisher],
    settings: NamedDependency[Settings],
) -> TrackedScan:
    """Publish a scan; a repeat with the same scan id and timestamp is the same scan."""
    scan = read_event_about("voucher_id", voucher_id, decode_scan, body, settings)
    if not client.holds_token:  # else its address would be that of the platform's own server
        scan = with_visitor(scan, client)
    refuse_other_days(scan, client)
    scan_id = scan.scan_id or str(uuid7())
    await report(publisher, msgspec.structs.replace(scan, scan_id=scan_id))
    return TrackedScan(scan_id)


@post(
    f"{PATH}/claim",
    status_code=202,
    operation_class=takes(ClaimReport),
    opt={REPORTS: "claim"},
)
async def claim_voucher(
    voucher_id: FromPath[str],
    body: RawBody,
    pool: NamedDependency[asyncpg.Pool],
    publisher: NamedDependency[Publisher],
    settings: NamedDependency[Settings],
) -> TrackedClaim:
    """Publish a claim; 409 when this customer has claimed the voucher at the same time or earlier."""
    claim = read_event_about("voucher_id", voucher_id, decode_claim, body, settings)
    async with connection_of(pool) as connection:  # given back before Kafka is waited for
        await refuse_claimed(connection, claim)
    await report(publisher, claim)
    return TrackedClaim(claim.voucher_id, claim.customer_id)


@post(
    f"{PATH}/redeem",
    status_code=202,
    operation_class=takes(RedemptionReport),
    opt={REPORTS: "redemption"},
)
async def redeem_voucher(
    voucher_id: FromPath[str],
    body: RawBody,
    publisher: NamedDependency[Publisher],
    settings: NamedDependency[Settings],
) -> TrackedAttempt:
    """Publish an attempt to redeem, also one that failed; a repeat with the same attempt id is the same attempt."""
    attempt = read_event_about("voucher_id", voucher_id, decode_redemption, body, settings)
    attempt_id = attempt.attempt_id or str(uuid7())
    await report(publisher, msgspec.structs.replace(attempt, attempt_id=attempt_id))
    return TrackedAttempt(attempt_id)


async def refuse_claimed(connection: Connection, claim: Claim) -> None:
    """Raise 409 for a voucher that its customer has claimed at the claim's time or earlier."""
    found = await connection.fetchval(
        sql("earlier_claim"), claim.customer_id, claim.voucher_id, claim.timestamp
    )
    if found is not None:
        claimed_at = time_text(found)
        raise RequestError(
            409,
            f"this customer has claimed the voucher already, at {claimed_at}",
            errors=[{"field": "customerId", "rule": f"has claimed it at {claimed_at}"}],
            claimedAt=claimed_at,
        )
