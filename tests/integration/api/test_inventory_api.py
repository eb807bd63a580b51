"""Products by HTTP: listed, made, reported on; what moved their stock; and the low-stock scan by hand."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from urllib.parse import quote
from uuid import UUID

import asyncpg
import pytest

from counterfoil.app import HTTP_ROUTES
from counterfoil.database.counters import find_drift
from counterfoil.database.files import sql_folder
from counterfoil.events import Rules, decode_stock_change
from counterfoil.inventory import routes
from counterfoil.inventory.low_stock import scan
from counterfoil.inventory.routes import INVENTORY_ROUTES
from counterfoil.routing import COUNTERS
from counterfoil.settings import DEFAULT_TOPICS
from support.postgres_road import plain_settings

PRODUCTS = "/api/inventory/products"
EVENTS = "/api/inventory/events"
SCAN_NOW = "/api/ops/inventory/scan-now"
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
WIDGET = {
    "sku": "WIDGET-PRO-001",
    "name": "Widget Pro 2025",
    "stock": 100,
    "threshold": 20,
    "unitPrice": 49.99,
    "supplier": "WidgetCo Inc",
}


@pytest.fixture
async def client(serve, pool, kept) -> Any:
    """The routes of inventory on this test's database, open on loopback."""
    return await serve(pool, publisher=kept, routes=INVENTORY_ROUTES)


async def a_change(
    db, sku: str = "A", *, at: datetime = NOON, event_id: str | None = None, **told: Any
) -> None:
    """A stock change as a worker writes it; a count of 100 unless it says otherwise."""
    fields = {"new_stock": 100} if not {"new_stock", "quantity_delta"} & set(told) else {}
    fields |= {"sku": sku, "occurred_at": at, **told} | ({"event_id": event_id} if event_id else {})
    places = ", ".join(f"${number}" for number in range(1, len(fields) + 1))
    await db.execute(
        f"INSERT INTO inventory_events ({', '.join(fields)}) VALUES ({places})", *fields.values()
    )


async def a_product(db, sku: str = "A", stock: int = 100, threshold: int = 10) -> None:
    """A product that was written by hand."""
    await db.execute(
        "INSERT INTO inventory_products (sku, name, stock, threshold) VALUES ($1, $1, $2, $3)",
        sku,
        stock,
        threshold,
    )


async def skus(client, query: str = "") -> list[str]:
    return [product["sku"] for product in (await client.get(f"{PRODUCTS}{query}")).json]


async def alerts(db) -> list[tuple]:
    rows = await db.fetch(
        "SELECT subject, (payload ->> 'stock')::integer, payload ->> 'kind' FROM alerts ORDER BY raised_at"
    )
    return [tuple(row) for row in rows]


# Making one


async def test_a_product_is_made_and_answered_201(client, db) -> None:
    reply = await client.post(PRODUCTS, WIDGET)
    assert reply.status == 201
    assert reply.json == WIDGET | {
        "id": reply.json["id"],
        "unitPrice": "49.99",
        "lastRestocked": None,
        "isLowStock": False,
    }
    assert (await client.get(PRODUCTS)).json == [reply.json]
    row = await db.fetchrow("SELECT * FROM inventory_events")
    assert (row["event_type"], row["new_stock"], row["quantity_delta"]) == ("created", 100, None)
    assert (row["name"], row["unit_price"]) == ("Widget Pro 2025", Decimal("49.99"))
    assert UUID(row["event_id"].removeprefix("created:"))
    assert await find_drift(db, COUNTERS) == []


async def test_of_what_is_left_out_a_product_has_what_everyone_has(client, db) -> None:
    await db.execute("UPDATE stock_defaults SET threshold = 7")
    made = (await client.post(PRODUCTS, {"sku": 1042, "name": "", "unitPrice": None})).json
    assert {name: value for name, value in made.items() if name != "id"} == {
        "sku": "1042",
        "name": "1042",
        "stock": 0,
        "threshold": 7,
        "unitPrice": None,
        "supplier": None,
        "lastRestocked": None,
        "isLowStock": True,
    }
    row = await db.fetchrow(
        "SELECT new_stock, quantity_delta FROM inventory_events WHERE event_type = 'created'"
    )
    assert tuple(row) == (None, 0)


async def test_a_product_that_somebody_made_is_409(client, db) -> None:
    await client.post(PRODUCTS, WIDGET)
    await a_product(db, "by hand")
    for sku in (WIDGET["sku"], "by hand", " by hand\u3000"):
        reply = await client.post(PRODUCTS, {"sku": sku, "stock": 1})
        assert reply.status == 409
        assert reply.headers["content-type"] == "application/problem+json"
        assert reply.json["errors"][0]["field"] == "sku"
    assert await db.fetchval("SELECT count(*) FROM inventory_events WHERE event_type = 'created'") == 1


async def test_of_many_at_once_one_makes_it(client, db) -> None:
    replies = await asyncio.gather(*(client.post(PRODUCTS, WIDGET | {"stock": n}) for n in range(12)))
    assert sorted(reply.status for reply in replies) == [201] + [409] * 11
    (made,) = [reply.json for reply in replies if reply.status == 201]
    assert (await client.get(PRODUCTS)).json == [made]


async def test_a_product_that_only_changes_told_of_is_taken_over(client, db) -> None:
    await a_change(db, "A", new_stock=5)
    await a_change(db, "A", at=NOON + timedelta(hours=1), quantity_delta=-2)
    known = (await client.get(PRODUCTS)).json[0]
    assert (known["name"], known["stock"], known["threshold"]) == ("A", 3, 10)
    made = await client.post(PRODUCTS, {"sku": "A", "name": "Anvil", "threshold": 2})
    assert (made.status, made.json) == (201, known | {"name": "Anvil", "threshold": 2, "isLowStock": False})
    assert (await client.post(PRODUCTS, {"sku": "A"})).status == 409


async def test_the_count_that_comes_with_a_product_stands_against_older_changes(client, db) -> None:
    await a_change(db, "A", new_stock=5)
    assert (await client.post(PRODUCTS, {"sku": "A", "stock": 40})).json["stock"] == 40
    await a_change(db, "A", at=NOON + timedelta(hours=1), quantity_delta=-2)
    assert (await client.get(PRODUCTS)).json[0]["stock"] == 40
    assert await find_drift(db, COUNTERS) == []


async def test_a_change_that_is_stamped_with_whole_seconds_comes_after_the_product(client, db) -> None:
    await client.post(PRODUCTS, WIDGET)
    made_at = await db.fetchval("SELECT created_at FROM inventory_products")
    await a_change(db, WIDGET["sku"], at=made_at.replace(microsecond=0), event_id="a sale", quantity_delta=-1)
    assert (await client.get(PRODUCTS)).json[0]["stock"] == 99


async def test_a_product_that_is_low_from_the_first_is_told_of_once(client, db, pool) -> None:
    await client.post(PRODUCTS, WIDGET | {"stock": 18})
    await client.post(PRODUCTS, {"sku": "full", "stock": 10})
    assert await alerts(db) == [(WIDGET["sku"], 18, "low")]
    assert await scan(pool, plain_settings()) == 0
    log, first = (await client.get(EVENTS)).json[::2]
    assert (log["eventType"], log["newStock"], log["metadata"]["alertSent"]) == ("low_stock", 18, False)
    assert first["eventType"] == "created"


async def test_by_episodes_a_product_that_is_low_from_the_first_is_told_of(serve, pool, db) -> None:
    client = await serve(pool, routes=INVENTORY_ROUTES, alert_policy="episode")
    await client.post(PRODUCTS, WIDGET | {"stock": 18})
    assert await alerts(db) == [(WIDGET["sku"], 18, "low")]
    assert await db.fetchval("SELECT told_stock FROM low_stock_episodes") == 18


async def test_a_repeat_under_one_key_makes_one_and_gets_the_first_answer(client, db) -> None:
    replies = await asyncio.gather(*(client.post(PRODUCTS, WIDGET, idempotency_key="k") for _ in range(8)))
    assert {(reply.status, reply.body) for reply in replies} == {(201, replies[0].body)}
    other = await client.post(PRODUCTS, WIDGET | {"stock": 1}, idempotency_key="k")
    assert other.status == 422
    refused = await client.post(PRODUCTS, WIDGET, idempotency_key="another")
    assert refused.status == 409
    assert await db.fetchval("SELECT count(*) FROM inventory_events") == 1
    assert await db.fetchval("SELECT count(*) FROM idempotency_answers") == 1


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"sku": None}, "sku"),
        ({"sku": " "}, "sku"),
        ({"sku": "a\nb"}, "sku"),
        ({"sku": "x" * 256}, "sku"),
        ({"sku": 1.5}, "sku"),
        ({"sku": True}, "sku"),
        ({"name": 5}, "name"),
        ({"stock": "100"}, "stock"),
        ({"stock": 1.5}, "stock"),
        ({"stock": True}, "stock"),
        ({"stock": 2**31}, "stock"),
        ({"threshold": -1}, "threshold"),
        ({"threshold": 2**31}, "threshold"),
        ({"unitPrice": -0.01}, "unitPrice"),
        ({"unitPrice": "1e3"}, "unitPrice"),
        ({"unitPrice": 10**14}, "unitPrice"),
        ({"supplier": []}, "supplier"),
        ({"unit_price": 1}, "unit_price"),
        ({"lastRestocked": None}, "lastRestocked"),
    ],
)
async def test_a_value_that_breaks_a_rule_of_events_is_422_naming_the_field(
    client, db, change, field: str
) -> None:
    reply = await client.post(PRODUCTS, WIDGET | change)
    assert reply.status == 422, reply.body
    assert reply.headers["content-type"] == "application/problem+json"
    assert reply.json["errors"][0]["field"] == field
    assert await db.fetchval("SELECT count(*) FROM inventory_products") == 0


async def test_values_are_kept_as_those_of_events_are(client) -> None:
    body = (
        '{"sku": " caf\\u0065\\u0301 ", "name": "a\\u0000b\\ud800", "stock": 5.0, "threshold": 1e1,'
        ' "unitPrice": 12345678901234.1234565}'
    )
    made = (await client.post(PRODUCTS, body)).json
    assert (made["sku"], made["name"], made["stock"], made["threshold"]) == ("café", "ab\ufffd", 5, 10)
    assert made["unitPrice"] == "12345678901234.123456"
    assert (await client.post(PRODUCTS, {"sku": "B", "unitPrice": "7"})).json["unitPrice"] == "7.00"
    assert (await client.post(PRODUCTS, {"sku": "C", "stock": -3})).json["stock"] == -3


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ("", 400),
        ("{", 400),
        ("[]", 400),
        ("null", 400),
        ('{"sku": "A", "stock": NaN}', 400),
        (b'{"sku": "\xff"}', 400),
        ('{"sku": ' + "[" * 8_000 + "]" * 8_000 + "}", 400),
        ("{}", 422),
        ('{"sku": "A", "name": "' + "x" * 16_384 + '"}', 413),
    ],
)
async def test_a_body_that_is_no_product_is_refused(client, body, status: int) -> None:
    for method, path in (("POST", PRODUCTS), ("PUT", f"{PRODUCTS}/A")):
        reply = await client.send(method, path, body)
        assert reply.status == status, reply.body
        assert reply.headers["content-type"] == "application/problem+json"


# Listing


async def test_products_are_listed_by_sku_in_pages(client, db) -> None:
    for sku in ("b", "a", "B", "10", "9"):
        await a_product(db, sku)
    assert await skus(client) == ["10", "9", "B", "a", "b"]
    first = await client.get(f"{PRODUCTS}?limit=2")
    assert first.headers["link"] == f'<{PRODUCTS}?limit=2&offset=2>; rel="next"'
    last = await client.get(f"{PRODUCTS}?limit=2&offset=4")
    assert [product["sku"] for product in last.json] == ["b"]
    assert last.headers["link"] == f'<{PRODUCTS}?limit=2&offset=2>; rel="prev"'
    assert "link" not in (await client.get(PRODUCTS)).headers


async def test_products_are_told_apart_by_whether_they_are_low(client, db) -> None:
    for sku, stock in (("at", 10), ("below", 9), ("negative", -1), ("above", 11)):
        await a_product(db, sku, stock)
    assert await skus(client, "?lowStock=true") == ["below", "negative"]
    assert await skus(client, "?lowStock=false") == ["above", "at"]
    assert await skus(client, "?lowStock=true&sku=%20below") == ["below"]
    assert await skus(client, "?sku=at") == ["at"]
    assert await skus(client, "?sku=nobody") == []
    assert await skus(client, "?sku=") == ["above", "at", "below", "negative"]
    shown = {product["sku"]: product["isLowStock"] for product in (await client.get(PRODUCTS)).json}
    assert shown == {"above": False, "at": False, "below": True, "negative": True}


async def test_the_last_restock_is_shown(client, db) -> None:
    await a_change(db, "A", quantity_delta=5, event_type="restocked")
    assert (await client.get(PRODUCTS)).json[0]["lastRestocked"] == "2026-03-01T12:00:00.000Z"


@pytest.mark.parametrize(
    "query",
    ["?limit=0", "?limit=1001", "?limit=x", "?offset=-1", "?lowStock=maybe", "?sku=%00", "?sku=a%0Ab"],
)
@pytest.mark.parametrize("path", [PRODUCTS, EVENTS])
async def test_a_parameter_that_is_wrong_is_422_naming_it(client, query: str, path: str) -> None:
    if path == EVENTS and "lowStock" in query:
        return
    reply = await client.get(f"{path}{query}")
    assert reply.status == 422
    assert reply.json["errors"][0]["field"] == query[1:].partition("=")[0]


# Reporting stock


async def test_new_stock_is_published_and_answered_202(client, kept, db) -> None:
    await a_product(db, "A", 18)
    before = datetime.now(UTC)
    reply = await client.send("PUT", f"{PRODUCTS}/A", {"stock": 150})
    assert reply.status == 202
    (change,) = kept.events
    assert reply.json == {
        "id": await db.fetchval("SELECT id FROM inventory_products"),
        "sku": "A",
        "stock": 150,
        "message": "Stock updated successfully",
        "eventId": change.event_id,
    }
    assert UUID(change.event_id).version == 7
    assert before <= change.timestamp <= datetime.now(UTC)
    value = json.loads(change.to_json())
    assert {name: value[name] for name in ("sku", "event_type", "old_stock", "new_stock")} == {
        "sku": "A",
        "event_type": "restocked",
        "old_stock": 18,
        "new_stock": 150,
    }
    read = decode_stock_change(change.to_json(), (), -1, Rules())
    assert (read.quantity_delta, read.key) == (132, "A")
    assert await db.fetchval("SELECT stock FROM inventory_products") == 18  # the topic is the source of truth


@pytest.mark.parametrize(
    ("stock", "event_type"), [(17, "change"), (18, "change"), (19, "restocked"), (-5, "change")]
)
async def test_more_than_before_is_a_restock(client, kept, db, stock: int, event_type: str) -> None:
    await a_product(db, "A", 18)
    await client.send("PUT", f"{PRODUCTS}/A", {"stock": stock})
    assert [(change.event_type, change.quantity_delta) for change in kept.events] == [
        (event_type, stock - 18)
    ]


async def test_details_may_come_along(client, kept, db) -> None:
    await a_product(db, "A")
    body = {"stock": 1, "name": "Anvil", "threshold": 3, "unitPrice": "9.5", "supplier": "ACME", "sku": "A"}
    assert (await client.send("PUT", f"{PRODUCTS}/A", body)).status == 202
    (change,) = kept.events
    assert (change.name, change.threshold, change.supplier) == ("Anvil", 3, "ACME")
    assert change.unit_price == Decimal("9.5")


async def test_a_stock_beyond_what_an_event_can_say_is_not_said(client, kept, db) -> None:
    await a_product(db, "A", 2**40)
    assert (await client.send("PUT", f"{PRODUCTS}/A", {"stock": 2**31 - 1})).status == 202
    (change,) = kept.events
    assert (change.old_stock, change.quantity_delta, change.event_type) == (None, None, "change")
    decode_stock_change(change.to_json(), (), -1, Rules())


@pytest.mark.parametrize("path", ["/api//inventory/products/A", "//api/inventory/products/A"])
async def test_a_path_that_is_written_otherwise_is_404(client, kept, db, path: str) -> None:
    await a_product(db, "A", 3)
    reply = await client.send("PUT", path, {"stock": 4})
    assert (reply.status, kept.events) == (404, [])


@pytest.mark.parametrize("sku", ["A/1", "A//1", "/A", "A/", "été 1", "a%2Fb", "a?b#c", 'a"b\\c', "a+b"])
async def test_any_sku_may_stand_in_the_path(client, kept, db, sku: str) -> None:
    for other in {"A/1", "A", sku}:
        await a_product(db, other)
    reply = await client.send("PUT", f"{PRODUCTS}/{quote(sku, safe='')}", {"stock": 1})
    assert (reply.status, reply.json["sku"]) == (202, sku)
    assert [change.sku for change in kept.events] == [sku]


async def test_the_sku_in_the_path_is_read_by_the_rules_of_ids(client, kept, db) -> None:
    await a_product(db, "caf\u00e9")
    reply = await client.send("PUT", f"{PRODUCTS}/%20caf%65%CC%81", {"stock": 1})
    assert reply.json["sku"] == "caf\u00e9"


@pytest.mark.parametrize("named", ["%00", "x" * 256, "%E2%80%8B", "%20", "a%0Ab"])
async def test_a_path_that_names_no_sku_is_422(client, kept, named: str) -> None:
    reply = await client.send("PUT", f"{PRODUCTS}/{named}", {"stock": 1})
    assert (reply.status, reply.json["errors"][0]["field"]) == (422, "sku")
    assert kept.events == []


async def test_a_sku_that_nothing_told_of_is_404(client, kept, db) -> None:
    await a_product(db, "A")
    for sku in ("B", "a", "A/"):
        reply = await client.send("PUT", f"{PRODUCTS}/{sku}", {"stock": 1})
        assert reply.status == 404
        assert reply.headers["content-type"] == "application/problem+json"
    assert kept.events == []


async def test_a_sku_that_only_a_change_told_of_is_known(client, kept, db) -> None:
    await a_change(db, "A")
    assert (await client.send("PUT", f"{PRODUCTS}/A", {"stock": 1})).status == 202


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "stock"),
        ({"stock": None}, "stock"),
        ({"stock": "1"}, "stock"),
        ({"stock": 1.5}, "stock"),
        ({"stock": -(2**31) - 1}, "stock"),
        ({"stock": 1, "sku": "B"}, "sku"),
        ({"stock": 1, "threshold": -1}, "threshold"),
        ({"stock": 1, "unitPrice": "x"}, "unitPrice"),
        ({"stock": 1, "quantityDelta": 1}, "quantityDelta"),
    ],
)
async def test_a_report_that_breaks_a_rule_is_422_naming_the_field(
    client, kept, db, body, field: str
) -> None:
    await a_product(db, "A")
    reply = await client.send("PUT", f"{PRODUCTS}/A", body)
    assert (reply.status, reply.json["errors"][0]["field"]) == (422, field)
    assert kept.events == []


async def test_without_kafka_it_is_503_and_nothing_has_changed(client, kept, db) -> None:
    await a_product(db, "A")
    kept.away = True
    reply = await client.send("PUT", f"{PRODUCTS}/A", {"stock": 1})
    assert (reply.status, reply.headers["retry-after"]) == (503, "5")
    assert b"kafka.internal" not in reply.body
    assert (await client.get(PRODUCTS)).json[0]["stock"] == 100


async def test_where_stock_changes_are_not_read_it_is_503_and_says_why(serve, pool, kept, db) -> None:
    await a_product(db, "A")
    others = ",".join(name for name in DEFAULT_TOPICS if name != "stock-change")
    client = await serve(pool, publisher=kept, routes=INVENTORY_ROUTES, consumers=others)
    reply = await client.send("PUT", f"{PRODUCTS}/A", {"stock": 1})
    assert reply.status == 503
    assert "retry-after" not in reply.headers
    assert reply.json["detail"].startswith("stock-changes are switched off: ")
    assert kept.events == []
    assert (await client.post(PRODUCTS, WIDGET)).status == 201


async def test_without_the_database_it_is_503(serve, kept) -> None:
    client = await serve(None, publisher=kept, routes=INVENTORY_ROUTES)
    for method, path, body in (
        ("GET", PRODUCTS, None),
        ("POST", PRODUCTS, json.dumps(WIDGET)),
        ("PUT", f"{PRODUCTS}/A", '{"stock": 1}'),
        ("GET", EVENTS, None),
        ("POST", SCAN_NOW, None),
    ):
        reply = await client.ask(method, path, body, {"content-type": "application/json"} if body else {})
        assert (reply.status, reply.headers["retry-after"]) == (503, "5")
    assert kept.events == []


# What moved it


async def test_events_are_listed_newest_first(client, db) -> None:
    await a_change(db, "A", event_id="e1", new_stock=25)
    later = NOON + timedelta(seconds=1)
    await a_change(
        db, "A", at=later, event_id="e2", event_type="sale", old_stock=25, new_stock=18, quantity_delta=-7,
        metadata='{"order": 1.50}',
    )  # fmt: skip
    await a_change(db, "B", at=later, event_id="e3", quantity_delta=4)
    found = (await client.get(EVENTS)).json
    assert [event["id"] for event in found] == ["e3", "e2", "e1"]
    (sale, _) = (await client.get(f"{EVENTS}?sku=A")).json
    assert sale == {
        "id": "e2",
        "sku": "A",
        "eventType": "sale",
        "oldStock": 25,
        "newStock": 18,
        "quantityDelta": -7,
        "metadata": {"order": 1.5},
        "timestamp": "2026-03-01T12:00:01.000Z",
    }
    assert (found[0]["oldStock"], found[0]["newStock"], found[0]["quantityDelta"]) == (None, None, 4)
    assert (await client.get(f"{EVENTS}?sku=C")).json == []


async def test_events_are_50_unless_more_are_asked_for(client, db) -> None:
    for number in range(52):
        await a_change(db, at=NOON + timedelta(seconds=number), event_id=f"e{number}")
    for query, expected in (("", "?offset=50"), ("?sku=A", "?sku=A&offset=50")):
        reply = await client.get(f"{EVENTS}{query}")
        assert len(reply.json) == 50
        assert reply.headers["link"] == f'<{EVENTS}{expected}>; rel="next"'
    assert [event["id"] for event in (await client.get(f"{EVENTS}?sku=A&limit=2&offset=50")).json] == [
        "e1",
        "e0",
    ]
    assert len((await client.get(f"{EVENTS}?limit=200")).json) == 52
    assert (await client.get(f"{EVENTS}?limit=201")).status == 422


async def test_an_alert_stands_among_the_events(client, db, pool) -> None:
    await a_product(db, "A", 3)
    await scan(pool, plain_settings())
    log = (await client.get(f"{EVENTS}?sku=A&limit=1")).json[0]
    alert_id = await db.fetchval("SELECT alert_id FROM alerts")
    assert (log["id"], log["eventType"], log["newStock"]) == (alert_id, "low_stock", 3)
    assert log["metadata"] == {"alertSent": False, "notifiers": [], "kind": "low"}


# Scanning


async def test_a_scan_raises_what_is_low_and_lists_it(client, db) -> None:
    await a_product(db, "A", 18, 20)
    await a_product(db, "B", 0)
    await a_product(db, "C")
    before = datetime.now(UTC) - timedelta(milliseconds=1)
    reply = await client.ask("POST", SCAN_NOW, None, {})
    assert reply.status == 200
    assert reply.json.keys() == {"success", "message", "timestamp", "lowStockItems"}
    assert (reply.json["success"], reply.json["message"]) == (True, "2 products are low, 2 alerts raised")
    assert before <= datetime.fromisoformat(reply.json["timestamp"]) <= datetime.now(UTC)
    assert reply.json["lowStockItems"] == [
        {"sku": "B", "name": "B", "stock": 0, "threshold": 10},
        {"sku": "A", "name": "A", "stock": 18, "threshold": 20},
    ]
    assert sorted(await alerts(db)) == [("A", 18, "low"), ("B", 0, "low")]
    again = (await client.post(SCAN_NOW, {})).json
    assert again["message"] == "2 products are low, 0 alerts raised"
    assert again["lowStockItems"] == reply.json["lowStockItems"]
    assert len(await alerts(db)) == 2


async def test_a_scan_that_finds_nothing_says_so(client) -> None:
    reply = await client.ask("POST", SCAN_NOW, None, {})
    assert (reply.json["message"], reply.json["lowStockItems"]) == ("0 products are low, 0 alerts raised", [])


async def test_of_very_many_that_are_low_a_thousand_are_listed_and_all_are_told_of(client, db) -> None:
    await db.execute(
        "INSERT INTO inventory_products (sku, name) SELECT 'p' || n, 'p' FROM generate_series(1, 1203) AS n"
    )
    reply = await client.ask("POST", SCAN_NOW, None, {})
    assert reply.json["message"] == "1203 products are low, 1203 alerts raised"
    assert len(reply.json["lowStockItems"]) == 1_000
    assert await db.fetchval("SELECT count(*) FROM alerts") == 1_203


async def test_one_scan_runs_at_a_time(client, db, monkeypatch) -> None:
    begun, goes_on = asyncio.Event(), asyncio.Event()

    async def slow(*_: object) -> int:
        begun.set()
        await goes_on.wait()
        return 0

    monkeypatch.setattr(routes, "scan", slow)
    first = asyncio.create_task(client.ask("POST", SCAN_NOW, None, {}))
    await begun.wait()
    refused = await client.ask("POST", SCAN_NOW, None, {})
    assert (refused.status, refused.headers["retry-after"]) == (429, "1")
    goes_on.set()
    assert (await first).status == 200
    assert (await client.ask("POST", SCAN_NOW, None, {})).status == 200


async def test_a_scan_that_failed_is_over(client, db, monkeypatch) -> None:
    async def fails(*_: object) -> int:
        raise TimeoutError

    monkeypatch.setattr(routes, "scan", fails)
    assert [(await client.ask("POST", SCAN_NOW, None, {})).status for _ in range(2)] == [503, 503]


async def test_a_scan_that_gets_no_connection_is_503_and_over(serve, database_url, kept, monkeypatch) -> None:
    monkeypatch.setattr(routes, "ACQUIRE_TIMEOUT_S", 0.1)
    async with asyncpg.create_pool(database_url, min_size=0, max_size=1) as small:
        client = await serve(small, publisher=kept, routes=INVENTORY_ROUTES)
        async with small.acquire():
            replies = [await client.ask("POST", SCAN_NOW, None, {}) for _ in range(2)]
        assert [(reply.status, reply.headers["retry-after"]) for reply in replies] == [(503, "5")] * 2
        assert (await client.ask("POST", SCAN_NOW, None, {})).status == 200


async def test_a_scan_that_hangs_is_broken_off_and_over(client, db, monkeypatch) -> None:
    async def hangs(*_: object) -> int:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.shield(asyncio.Event().wait())  # as a connection does that has fallen silent
        return 0

    monkeypatch.setattr(routes, "SCAN_WITHIN_S", 0.1)
    with monkeypatch.context() as hanging:
        hanging.setattr(routes, "scan", hangs)
        assert [(await client.ask("POST", SCAN_NOW, None, {})).status for _ in range(2)] == [503, 503]
    monkeypatch.setattr(routes, "SCAN_WITHIN_S", 10)
    assert (await client.ask("POST", SCAN_NOW, None, {})).status == 200


# Who may


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", PRODUCTS),
        ("POST", PRODUCTS),
        ("PUT", f"{PRODUCTS}/A"),
        ("PUT", f"{PRODUCTS}/A%2FB"),
        ("GET", EVENTS),
        ("POST", SCAN_NOW),
    ],
)
async def test_everything_is_401_without_the_token(serve, pool, kept, db, method: str, path: str) -> None:
    client = await serve(pool, "s3cret", publisher=kept, routes=INVENTORY_ROUTES)
    client.token = None
    body = None if method == "GET" else "{}"
    reply = await client.ask(method, path, body, {"content-type": "application/json"} if body else {})
    assert reply.status == 401
    assert reply.headers["content-type"] == "application/problem+json"
    assert (kept.events, await db.fetchval("SELECT count(*) FROM inventory_products")) == ([], 0)


async def test_a_body_must_say_that_it_is_json(client) -> None:
    assert (await client.post(PRODUCTS, "{}", content_type="text/plain")).status == 415
    assert (await client.send("PUT", f"{PRODUCTS}/A", "{}", content_type="text/plain")).status == 415


async def test_a_worker_s_rights_are_enough(serve, kept, db, database_url) -> None:
    for file in ("roles.sql", "grants.sql"):
        await db.execute((sql_folder() / file).read_text(encoding="utf-8"))
    role = {"role": "counterfoil_worker"}
    async with asyncpg.create_pool(database_url, min_size=0, server_settings=role) as pool:
        client = await serve(pool, publisher=kept, routes=INVENTORY_ROUTES)
        assert (await client.post(PRODUCTS, WIDGET | {"stock": 1}, idempotency_key="k")).status == 201
        assert (await client.send("PUT", f"{PRODUCTS}/{WIDGET['sku']}", {"stock": 1})).status == 202
        await db.execute("UPDATE inventory_products SET threshold = 0; TRUNCATE alert_cooldowns")
        await a_product(db, "A", 3)
        scanned = await client.ask("POST", SCAN_NOW, None, {})
        assert scanned.json["message"] == "1 product is low, 1 alert raised"
        assert len((await client.get(PRODUCTS)).json) == 2
        assert len((await client.get(EVENTS)).json) == 4


# The document


async def test_the_openapi_document_has_the_routes_and_their_bodies(client) -> None:
    assert set(INVENTORY_ROUTES) <= set(HTTP_ROUTES)
    paths = (await client.get("/docs/openapi")).json["paths"]
    for method, path, body in (
        ("post", PRODUCTS, {"sku", "name", "stock", "threshold", "unitPrice", "supplier"}),
        ("put", f"{PRODUCTS}/{{sku}}", {"sku", "stock", "name", "threshold", "unitPrice", "supplier"}),
    ):
        (media,) = paths[path][method]["requestBody"]["content"].values()
        assert set(media["schema"]["properties"]) == body
    assert set(paths) >= {EVENTS, SCAN_NOW}
    named = {parameter["name"] for parameter in paths[PRODUCTS]["get"]["parameters"]}
    assert named == {"lowStock", "sku", "limit", "offset"}
