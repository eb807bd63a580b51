"""A worker's own HTTP: what is reported to it comes back from it, counted."""

from __future__ import annotations

from typing import Any

import pytest

from support.http_client import Client
from support.servers import Broker, StartWorker
from support.waiting import eventually

PATH = "/api/affiliates"
PIXEL = "550e8400-e29b-41d4-a716-446655440000"
BROWSER = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0 Safari/537.36"


@pytest.fixture
async def client(broker: Broker, start_worker: StartWorker) -> Client:
    """The HTTP of a worker."""
    worker = await start_worker(broker, topic_partitions=1)
    return Client(worker.port)


async def shown(client: Client, **expected: Any) -> dict[str, Any]:
    """The affiliate, once it shows what is expected."""

    async def found() -> dict[str, Any] | None:
        affiliate = (await client.get(f"{PATH}/blog?days=1")).json
        return affiliate if expected.items() <= affiliate.items() else None

    return await eventually(found, deadline=30, every=0.1)


async def test_what_is_tracked_is_counted(client: Client) -> None:
    await client.post(PATH, {"handle": "blog", "name": "Blog", "pixelId": PIXEL})
    click = {"pixelId": PIXEL, "landingPage": "/products/widget-pro"}
    for _ in range(3):
        assert (await client.post(f"{PATH}/track/click", click, user_agent=BROWSER)).status == 202
    again = click | {"clickId": "c-1", "timestamp": "2026-03-01T12:00:00Z"}
    for _ in range(2):
        assert (await client.post(f"{PATH}/track/click", again, user_agent=BROWSER)).json["clickId"] == "c-1"

    sale = {"pixelId": PIXEL, "orderId": "ORD-1", "revenue": 99.99, "commission": 9.99}
    assert (await client.post(f"{PATH}/track/conversion", sale)).status == 202

    counted = {"clicks": 3, "uniqueClicks": 1, "conversions": 1}
    affiliate = await shown(client, **counted, revenue={"USD": "99.99"}, commission={"USD": "9.99"})
    assert (affiliate["clicks30d"], affiliate["revenue30d"], affiliate["commission30d"]) == (
        3,
        "99.99",
        "9.99",
    )
    assert affiliate["daily"][0].items() >= counted.items()

    assert (await client.post(f"{PATH}/track/conversion", sale)).status == 409
    earlier = sale | {"timestamp": affiliate["createdAt"], "revenue": 50}
    assert (await client.post(f"{PATH}/track/conversion", earlier)).status == 202
    await shown(client, conversions=1, revenue={"USD": "50.00"})


async def test_a_paused_affiliate_is_counted_and_earns_nothing(client: Client) -> None:
    await client.post(PATH, {"handle": "blog", "name": "Blog", "pixelId": PIXEL})
    await client.patch(f"{PATH}/blog", {"status": "paused"})
    sale = {"pixelId": PIXEL, "orderId": "ORD-1", "revenue": "10", "commission": "1"}
    await client.post(f"{PATH}/track/conversion", sale)
    await shown(client, conversions=1, revenue={"USD": "10.00"}, commission={"USD": "0.00"})
