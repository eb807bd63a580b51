"""A product from end to end: made and counted by HTTP, moved by Kafka, told of once when it is low, and looked for."""

from __future__ import annotations

import json
from typing import Any

import asyncpg
import pytest

from support.alerts import PARTITIONS, Listener, listening, nothing_waits
from support.command import counterfoil
from support.factories import a_message, new_id
from support.http_client import Client
from support.probes import metric
from support.servers import Broker, StartWorker
from support.stream import Stream
from support.waiting import eventually

TOKEN = "t0ken"
PRODUCTS = "/api/inventory/products"
EVENTS = "/api/inventory/events"
SCAN_NOW = "/api/ops/inventory/scan-now"


@pytest.fixture
async def stream(broker: Broker, topic_prefix: str) -> Any:
    """This test's topics."""
    async with Stream(broker, topic_prefix) as stream:
        await stream.create()
        yield stream


async def told(listener: Listener, count: int) -> list[dict[str, Any]]:
    """The first alerts that have come out, once there are so many."""
    await listener.hears_records(count)
    return [json.loads(record.value) for record in listener.records]


async def test_a_product_is_made_counted_sold_told_of_and_looked_for(
    stream: Stream, topic_prefix: str, db: asyncpg.Connection, database_url: str, start_worker: StartWorker
) -> None:
    worker = await start_worker(
        stream.kafka, admin_token=TOKEN, topic_partitions=PARTITIONS, stock_scan_interval_s=1
    )
    client = Client(worker.port, TOKEN)
    anvil, bolt, crate = (new_id(kind) for kind in ("anvil/2", "bolt", "crate"))

    async def shown(sku: str) -> dict[str, Any]:
        found = (await client.get(f"{PRODUCTS}?sku={sku}")).json
        return found[0] if found else {}

    async def put(sku: str, stock: int, **details: object) -> int:
        path = f"{PRODUCTS}/{sku.replace('/', '%2F')}"
        return (await client.send("PUT", path, {"stock": stock, **details})).status

    async def shows(sku: str, **expected: object) -> dict[str, Any]:
        async def found() -> dict[str, Any] | None:
            product = await shown(sku)
            return product if expected.items() <= product.items() else None

        return await eventually(found, deadline=20, every=0.05)

    # Made by HTTP, counted by HTTP through Kafka, sold by Kafka

    assert (await client.post(PRODUCTS, {"sku": anvil, "stock": 50, "threshold": 20})).status == 201
    assert (await client.post(PRODUCTS, {"sku": bolt, "name": "Bolt M6", "stock": 90})).status == 201
    assert await put("nobody", 5) == 404
    assert await put(anvil, 60, name="Anvil", unitPrice="9.5") == 202
    product = await shows(anvil, stock=60)
    assert (product["name"], product["unitPrice"], product["isLowStock"]) == ("Anvil", "9.50", False)
    assert product["lastRestocked"] is not None

    async with listening(stream.kafka.bootstrap_servers, f"{topic_prefix}low-stock") as listener:
        # Low, and lower: each level once, in order, by the id of the row in the product's log

        sale = {"event_id": "sale 1", "event_type": "sale", "sku": anvil, "quantity_delta": -42}
        await stream.publish(*[a_message(sale, key=anvil)] * 2, topic=stream.topic("stock-change"))
        await shows(anvil, isLowStock=True)
        assert await put(anvil, 7) == 202
        await shows(anvil, stock=7)
        alerts = await told(listener, 2)
        assert [(alert["sku"], alert["stock"], alert["previous_stock"]) for alert in alerts] == [
            (anvil, 18, 60),
            (anvil, 7, 18),
        ]
        assert (alerts[0]["name"], alerts[0]["threshold"], alerts[0]["kind"]) == ("Anvil", 20, "low")
        assert {record.key for record in listener.records} == {anvil.encode()}
        events = (await client.get(f"{EVENTS}?sku={anvil.replace('/', '%2F')}")).json
        assert [event["id"] for event in events if event["eventType"] == "low_stock"] == [
            alerts[1]["alert_id"],
            alerts[0]["alert_id"],
        ]

        # A SKU that nobody knew

        found = {"sku": crate, "new_stock": 500}
        await stream.publish(a_message(found, key=crate), topic=stream.topic("stock-change"))
        assert (await shows(crate, stock=500))["threshold"] == 10

        # What no change tells of, the schedule finds

        await db.execute("UPDATE inventory_products SET threshold = 100 WHERE sku = $1", bolt)
        alerts = await told(listener, 3)
        assert (alerts[2]["sku"], alerts[2]["stock"], alerts[2]["threshold"]) == (bolt, 90, 100)

        # Looking once more finds the same, and tells nobody again

        scanned = await counterfoil("stock", "scan", "--json", database_url=database_url)
        assert scanned.code == 0, scanned.err
        low = [
            {"sku": anvil, "name": "Anvil", "stock": 7, "threshold": 20},
            {"sku": bolt, "name": "Bolt M6", "stock": 90, "threshold": 100},
        ]
        assert json.loads(scanned.out) == {"low": 2, "raised": 0, "products": low}
        reply = await client.ask("POST", SCAN_NOW, None, {})
        assert (reply.status, reply.json["lowStockItems"]) == (200, low)
        assert reply.json["message"] == "2 products are low, 0 alerts raised"
        await eventually(lambda: nothing_waits(db))
        assert len(await told(listener, 3)) == 3

    assert await metric(worker, "relayed_total", topic=f"{topic_prefix}low-stock") == 3
    assert await db.fetchval("SELECT count(*) FROM alerts") == 3
    verified = await counterfoil("verify", database_url=database_url)
    assert (verified.code, "3 of inventory_products" in verified.out) == (0, True), verified.out
