"""`?at=` over HTTP: what it carries back, how it pages, and what it refuses."""

from __future__ import annotations

import csv
import io
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from counterfoil.affiliates.routes import list_affiliates, show_affiliate
from counterfoil.coupons.routes import list_affiliate_coupons
from counterfoil.partners import earnings_at
from counterfoil.partners.routes import PARTNER_ROUTES
from counterfoil.promos.routes import list_promo_codes

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
AT = "2026-03-01T12:00:00.000Z"
LATER = "2026-03-01T13:00:00.000Z"
COUPONS, PROMOS, AFFILIATES = "/admin/affiliate-coupons", "/admin/promo-codes", "/api/affiliates"
EARNINGS = "/api/partners/px/earnings"
ROUTES = (list_affiliate_coupons, list_promo_codes, list_affiliates, show_affiliate, *PARTNER_ROUTES)
PATHS = (
    COUPONS,
    PROMOS,
    AFFILIATES,
    f"{AFFILIATES}/h",
    EARNINGS,
    f"{EARNINGS}?groupBy=program",
    f"{EARNINGS}?format=csv",
)


@pytest.fixture
async def client(serve, pool):
    return await serve(pool, routes=ROUTES)


@pytest.fixture
async def shop(db):
    """Three coupons, a promo code, an affiliate and a partner, with something at noon and something an hour later."""
    hour = timedelta(hours=1)
    await db.execute("INSERT INTO default_rates (percent, valid_from) VALUES (10, '-infinity')")
    await db.execute("INSERT INTO affiliates (handle, name, pixel_id) VALUES ('h', 'H', 'p1')")
    await db.execute("INSERT INTO partners (id, name) VALUES ('px', 'Ann')")
    await db.execute(
        "INSERT INTO links (id, url, named_partner_id, program_id, pixel_id, occurred_at) "
        "VALUES ('l', 'u', 'px', 'g', 'p1', '2020-01-01Z')"
    )
    for order, code, at in (
        ("1", "A", 0),
        ("2", "A", 0),
        ("3", "B", 0),
        ("4", "C", 1),
        ("5", "B", 1),
        ("6", "B", 1),
    ):
        await db.execute(
            "INSERT INTO affiliate_coupon_usages (order_id, code, occurred_at) VALUES ($1, $2, $3)",
            order,
            code,
            NOON + at * hour,
        )
    promo = await db.fetchval("INSERT INTO promo_codes (code) VALUES ('P') RETURNING id")
    for order, at in (("1", 0), ("2", 1)):
        await db.execute(
            "INSERT INTO promo_code_uses (promo_code_id, order_id, bonus_amount, occurred_at) VALUES ($1, $2, 1.5, $3)",
            promo,
            order,
            NOON + at * hour,
        )
    for order, revenue, at in (("=1", "49.90", 0), ("2", "100", 1)):
        await db.execute(
            "INSERT INTO conversions (order_id, beneficiary, pixel_id, revenue, currency, occurred_at) "
            "VALUES ($1, 'pixel:p1', 'p1', $2, 'USD', $3)",
            order,
            Decimal(revenue),
            NOON + at * hour,
        )
    await db.execute(
        "INSERT INTO order_refunds (order_id, refund_id, amount, occurred_at) VALUES ('=1', 'r', 10, $1)",
        NOON + hour,
    )
    return db


def with_at(path, at=AT):
    return f"{path}{'&' if '?' in path else '?'}at={at}"


async def test_coupons_as_of_a_time_are_listed_by_the_counts_of_then_and_in_pages(client, shop):
    reply = await client.get(with_at(COUPONS))
    assert [(c["code"], c["timesUsed"], c["at"]) for c in reply.json] == [("A", 2, AT), ("B", 1, AT)]
    assert [c["updatedAt"] for c in reply.json] == ["2026-03-01T12:00:00Z"] * 2
    later = await client.get(with_at(COUPONS, LATER))
    assert [(c["code"], c["timesUsed"]) for c in later.json] == [("B", 3), ("A", 2), ("C", 1)]
    page = await client.get(with_at(f"{COUPONS}?limit=1&offset=1", LATER))
    assert [c["code"] for c in page.json] == ["A"]
    assert f"at={LATER.replace(':', '%3A')}" in page.headers["link"]
    assert [c["timesUsed"] for c in (await client.get(with_at(f"{COUPONS}?code=B"))).json] == [1]
    assert "at" not in (await client.get(COUPONS)).json[0]


async def test_promo_codes_as_of_a_time(client, shop):
    assert [
        (p["code"], p["timesUsed"], p["totalBonusIssued"], p["at"])
        for p in (await client.get(with_at(PROMOS))).json
    ] == [("P", 1, "1.500000", AT)]
    assert (await client.get(with_at(f"{PROMOS}?code=P", LATER))).json[0]["timesUsed"] == 2
    assert (await client.get(with_at(PROMOS, "2026-02-01T00:00:00Z"))).json == []


async def test_affiliates_as_of_a_time(client, shop):
    [listed] = (await client.get(with_at(AFFILIATES))).json
    assert (listed["revenue30d"], listed["commission30d"], listed["at"]) == ("49.90", "4.99", AT)
    shown = (await client.get(with_at(f"{AFFILIATES}/h?days=2", LATER))).json
    assert (shown["revenue"], shown["commission"], shown["days"], shown["at"]) == (
        {"USD": "149.90"},
        {"USD": "13.99"},
        2,
        LATER,
    )
    assert [day["day"] for day in shown["daily"]] == ["2026-02-28", "2026-03-01"]
    assert (await client.get(with_at(f"{AFFILIATES}/nobody"))).status == 404


async def test_earnings_as_of_a_time(client, shop):
    noon = (await client.get(with_at(EARNINGS))).json
    assert (noon["partnerId"], noon["name"], noon["at"]) == ("px", "Ann", AT)
    assert noon["balances"] == [{"currency": "USD", "total": "4.99", "paid": "0.00", "open": "4.99"}]
    assert [(i["orderId"], i["earnings"]) for i in noon["items"]] == [("=1", "4.99")]
    later = await client.get(with_at(f"{EARNINGS}?limit=1", LATER))
    assert [
        (i["orderId"], i["earnings"], i["ratePercent"], i["rateSource"]) for i in later.json["items"]
    ] == [("2", "10.00", "10", "default")]
    assert 'rel="next"' in later.headers["link"]
    second = (await client.get(with_at(f"{EARNINGS}?limit=1&offset=1", LATER))).json["items"][0]
    assert second | {"occurredAt": ""} == {
        "orderId": "=1",
        "programId": "g",
        "linkId": "l",
        "revenue": "49.90",
        "refunded": "10.00",
        "amount": "39.90",
        "earnings": "3.99",
        "ratePercent": "10",
        "rateSource": "default",
        "currency": "USD",
        "canceled": False,
        "occurredAt": "",
    }
    assert (await client.get(with_at(f"{EARNINGS}?order=2", LATER))).json["items"][0]["orderId"] == "2"
    groups = (await client.get(with_at(f"{EARNINGS}?groupBy=program,month", LATER))).json["groups"]
    assert groups == [
        {
            "currency": "USD",
            "commissions": 2,
            "amount": "139.90",
            "earnings": "13.99",
            "month": "2026-03",
            "programId": "g",
        }
    ]


@pytest.mark.parametrize("size", [1, 250])
async def test_earnings_as_of_a_time_as_csv(client, shop, monkeypatch, size):
    monkeypatch.setattr(earnings_at, "CSV_PAGE", size)
    reply = await client.get(with_at(f"{EARNINGS}?format=csv", LATER))
    rows = list(csv.DictReader(io.StringIO(reply.body.decode(), newline="")))
    assert [(row["orderId"], row["earnings"], row["canceled"]) for row in rows] == [
        ("2", "10.00", "false"),
        ("'=1", "3.99", "false"),
    ]
    assert (
        reply.headers["content-disposition"]
        == 'attachment; filename="earnings-px-2026-03-01T13_00_00.000Z.csv"'
    )
    grouped = await client.get(with_at(f"{EARNINGS}?format=csv&groupBy=link", LATER))
    assert grouped.body.decode().splitlines() == [
        "linkId,currency,commissions,amount,earnings",
        "l,USD,2,139.90,13.99",
    ]


@pytest.mark.parametrize("at", ["0001-01-01T00:00:00Z", "0001-01-15T00:00:00Z", "9999-12-31T23:59:59Z"])
async def test_any_time_that_can_be_written_is_answered(client, shop, at):
    for path in ("/api/affiliates", "/api/affiliates/h?days=366", "/api/partners/px/earnings"):
        reply = await client.get(with_at(path, at))
        assert (reply.status, reply.headers["x-as-of"]) == (200, at.replace("Z", ".000Z"))


@pytest.mark.parametrize("path", PATHS)
async def test_an_answer_says_the_time_that_it_is_of(client, shop, path):
    reply = await client.get(with_at(path, "2026-03-01T14:00:00%2B01:00"))
    assert (reply.status, reply.headers["x-as-of"]) == (200, LATER)
    assert "x-as-of" not in (await client.get(path)).headers


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("at", ["", "2026-03-01", "2026-03-01T12:00:00", "now", "9999-12-31T23:59:59-23:00"])
async def test_a_time_without_zone_is_422_naming_it(client, shop, path, at):
    reply = await client.get(with_at(path, at))
    assert (reply.status, reply.headers["content-type"]) == (422, "application/problem+json")
    assert reply.json["errors"] == [
        {"field": "at", "rule": "must be an RFC 3339 time with zone, like 2026-01-31T12:00:00Z"}
    ]


@pytest.mark.parametrize(("query", "field"), [("status=paid", "status"), ("groupBy=status", "groupBy")])
async def test_statuses_are_not_known_as_of_a_time(client, shop, query, field):
    reply = await client.get(with_at(f"{EARNINGS}?{query}"))
    assert (reply.status, reply.json["errors"][0]["field"]) == (422, field)


async def test_the_parameter_is_described(client):
    paths = (await client.get("/docs/openapi")).json["paths"]
    for path in (
        COUPONS,
        PROMOS,
        AFFILIATES,
        f"{AFFILIATES}/{{handle}}",
        "/api/partners/{partner_id}/earnings",
    ):
        assert "at" in {parameter["name"] for parameter in paths[path]["get"]["parameters"]}
