"""A voucher from end to end: what is told of it by HTTP and Kafka comes back counted; what was accepted is not lost."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import asyncpg
import pytest

from support.command import counterfoil
from support.factories import a_voucher, an_impression, new_id
from support.http_client import Client
from support.servers import Broker, StartWorker
from support.stream import Stream
from support.voucher_model import exact, stored_ledgers
from support.waiting import eventually
from support.worker import Worker

NOW = datetime.now(UTC)
TOKEN = "t0ken"
SCANNED = {"scanType": "CUSTOMER", "scanSource": "CAMERA"}
OPEN = {"admin_token": TOKEN, "topic_partitions": 3, "rate_limit_per_minute": 0}
"""Settings of a worker that refuses no one for asking often."""


@pytest.fixture
async def road(broker: Broker, topic_prefix: str, start_worker: StartWorker) -> Any:
    """This test's topics, and a worker that reads and writes them."""
    async with Stream(broker, topic_prefix) as stream:
        await stream.create()
        yield stream, await start_worker(broker, **OPEN)


@pytest.fixture
def voucher_id() -> str:
    return new_id("voucher")


def ago(**time: float) -> str:
    return (NOW - timedelta(**time)).isoformat()


async def shows(client: Client, path: str, **expected: Any) -> dict[str, Any]:
    """The answer to a GET, once it shows what is expected."""
    last: dict[str, Any] = {}

    async def found() -> bool:
        last.update((await client.get(path)).json)
        return expected.items() <= last.items()

    try:
        await eventually(found, deadline=20, every=0.05)
    except AssertionError:
        raise AssertionError(f"{last} does not show {expected}") from None
    return last


async def wallet_of(client: Client, customer: str) -> dict[str, Any]:
    (item,) = (await client.get(f"/api/v1/customers/{customer}/wallet")).json
    return item


async def test_a_voucher_is_created_scanned_claimed_redeemed_and_expires(
    road: Any, voucher_id: str, db: asyncpg.Connection, database_url: str, start_worker: StartWorker
) -> None:
    stream, worker = road
    platform, visitor = Client(worker.port, TOKEN), Client(worker.port)
    path = f"/api/v1/vouchers/{voucher_id}"

    async def tell(client: Client, what: str, **body: Any) -> int:
        return (await client.post(f"{path}/{what}", body)).status

    created = a_voucher(
        voucher_id,
        business_id="b1",
        title="Tea for two",
        expires_at="2090-01-01T00:00:00Z",
        timestamp=ago(hours=9),
    )
    await stream.publish(created, created, topic=stream.vouchers)
    await stream.publish(an_impression(voucher_id), an_impression(voucher_id), topic=stream.impressions)
    scans = [
        {"userId": "u1", "timestamp": ago(hours=3)},
        {"userId": "u1", "timestamp": ago(hours=2), "scanSource": "LINK"},
        {"userId": "u2", "timestamp": ago(hours=2.5), "location": {"city": "Graz", "country": "at"}},
        {"scanSource": "GALLERY"},
        {"scanType": "BUSINESS", "scanId": "till 1", "timestamp": ago(minutes=30)},
        {"scanType": "BUSINESS", "scanId": "till 1", "timestamp": ago(minutes=30)},
    ]
    assert [await tell(visitor, "scan", **SCANNED | scan) for scan in scans] == [202] * 6
    assert await tell(visitor, "claim", customerId="u1") == 401
    assert await tell(platform, "claim", customerId="u1", timestamp=ago(hours=1)) == 202
    assert await tell(platform, "claim", customerId="u2", timestamp=ago(hours=2)) == 202
    attempts = [
        {
            "customerId": "u1",
            "successful": False,
            "failureReason": "till offline",
            "timestamp": ago(minutes=50),
        },
        {"customerId": "u1", "successful": True, "timestamp": ago(minutes=30)},
        {"customerId": "u3", "successful": True, "timestamp": ago(minutes=10)},
    ]
    assert [await tell(platform, "redeem", businessId="b1", **attempt) for attempt in attempts] == [202] * 3

    counts = {
        "totalScans": 5,
        "uniqueUsers": 2,
        "anonymousScans": 2,
        "claims": 2,
        "redemptions": 2,
        "impressions": 2,
    }
    found = await shows(platform, f"{path}/analytics", **counts)
    assert found["scansByType"] == {"CUSTOMER": 4, "BUSINESS": 1}
    assert found["scansBySource"] == {"CAMERA": 3, "GALLERY": 1, "LINK": 1, "SHARE": 0}
    assert found["places"] == [{"place": "Graz, AT", "scans": 1}]
    assert (found["conversionRate"], found["failureRate"]) == (0.4, pytest.approx(1 / 3))
    assert (found["averageTimeToClaim"], found["averageTimeToRedeem"]) == ((2 + 0.5) / 2 * 3_600, 1_800)
    assert await tell(platform, "claim", customerId="u1") == 409
    assert [(await wallet_of(platform, customer))["status"] for customer in ("u1", "u2", "u3")] == [
        "REDEEMED", "CLAIMED", "REDEEMED",
    ]  # fmt: skip
    changed = await platform.patch(
        f"/api/v1/customers/u2/wallet/{voucher_id}", {"notificationPreferences": {"push": False}}
    )
    assert changed.json["notificationPreferences"] == {"push": False}

    over = a_voucher(voucher_id, expires_at=ago(minutes=1), timestamp=ago(hours=10))  # the earlier one stands
    await stream.publish(over, topic=stream.vouchers)
    await eventually(lambda: db.fetchval("SELECT expires_at < now() FROM vouchers WHERE id = $1", voucher_id))
    await start_worker(stream.kafka, only="schedule", **OPEN)
    await eventually(lambda: has_expired(platform, "u2"))
    assert (await wallet_of(platform, "u1"))["status"] == "REDEEMED"
    assert await exact(db)
    assert (await counterfoil("verify", database_url=database_url)).code == 0


async def has_expired(client: Client, customer: str) -> bool:
    return bool((await wallet_of(client, customer))["status"] == "EXPIRED")


# Many at once


async def scan_at_once(
    worker: Worker, voucher_id: str, count: int
) -> list[tuple[int, str | None, str | None]]:
    """So many scans of one voucher, each on a connection of its own; status, scan id and Retry-After of each."""
    address = f"http://127.0.0.1:{worker.port}/api/v1/vouchers/{voucher_id}/scan"
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def scan(number: int) -> tuple[int, str | None, str | None]:
            body = SCANNED | {"userId": f"u{number % 311}", "deviceInfo": {"deviceId": f"d{number}"}}
            async with session.post(address, json=body) as reply:
                answer = await reply.json(content_type=None)
                return reply.status, answer.get("scanId"), reply.headers.get("Retry-After")

        return await asyncio.gather(*(scan(number) for number in range(count)))


async def test_of_scans_at_once_each_that_is_accepted_is_counted_once(
    road: Any, voucher_id: str, db: asyncpg.Connection, start_worker: StartWorker
) -> None:
    """A thousand where there is no limit, and where there is one those that were not told to come back later."""
    stream, worker = road
    answers = await scan_at_once(worker, voucher_id, 1_000)
    assert Counter(status for status, _, _ in answers) == {202: 1_000}
    client, path = Client(worker.port, TOKEN), f"/api/v1/vouchers/{voucher_id}/analytics"
    await shows(client, path, totalScans=1_000, uniqueUsers=311)

    strict = await start_worker(stream.kafka, only="http", **OPEN | {"rate_limit_per_minute": 60})
    limited = await scan_at_once(strict, voucher_id, 300)
    accepted = {scan_id for status, scan_id, _ in limited if status == 202}
    refused = [after for status, _, after in limited if status == 429]
    assert 60 <= len(accepted) <= 90  # a minute's worth, and what a second or two has given back
    assert len(accepted) + len(refused) == 300
    assert all(after is not None and 1 <= int(after) <= 60 for after in refused)

    await shows(client, path, totalScans=1_000 + len(accepted))
    stored = {scan_id for scan_id, _ in (await stored_ledgers(db)).scans}
    assert stored == accepted | {scan_id for _, scan_id, _ in answers}
    assert await exact(db)


async def test_what_is_switched_off_is_refused_and_said_so(
    broker: Broker, voucher_id: str, start_worker: StartWorker
) -> None:
    worker = await start_worker(broker, only="http", **OPEN, consumers="voucher.created,impression")
    reports = {
        "scan": ("scan", SCANNED),
        "claim": ("claim", {"customerId": "u1"}),
        "redemption": ("redeem", {"businessId": "b1", "successful": True}),
    }
    for topic, (what, body) in reports.items():
        reply = await Client(worker.port, TOKEN).post(f"/api/v1/vouchers/{voucher_id}/{what}", body)
        assert reply.status == 503
        assert f"`{topic}`" in reply.json["detail"]
        assert "COUNTERFOIL_CONSUMERS" in reply.json["detail"]
