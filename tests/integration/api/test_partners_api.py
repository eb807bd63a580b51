"""`/api/partners` on a real database."""

from __future__ import annotations

import asyncio
import csv
import io
from decimal import Decimal

import pytest

from counterfoil.partners.routes import PARTNER_ROUTES

PATH = "/api/partners"
EARNINGS = f"{PATH}/p1/earnings"
PAYOUTS = f"{PATH}/p1/payouts"


@pytest.fixture
async def client(serve, pool):
    return await serve(pool, routes=PARTNER_ROUTES)


@pytest.fixture
async def partner(db):
    """The partner p1, with nothing yet."""
    await db.execute("INSERT INTO partners (id, name) VALUES ('p1', 'Ann')")
    return "p1"


async def earned(db, order_id: str, earnings: object = "1", **fields: object) -> None:
    """A commission of p1, as an import writes it."""
    given = {
        "partner_id": "p1",
        "order_id": order_id,
        "earnings": Decimal(str(earnings)),
        "amount": Decimal(str(earnings)) * 10,
        "currency": "EUR",
    } | fields
    places = ", ".join(f"${n}" for n in range(1, len(given) + 1))
    text = f"INSERT INTO commissions ({', '.join(given)}) VALUES ({places})"
    await db.execute(text, *given.values())


async def earned_at(db, order_id: str, time: str, **fields: object) -> None:
    await earned(db, order_id, **fields)
    await db.execute(
        "UPDATE commissions SET occurred_at = $2::text::timestamptz WHERE order_id = $1", order_id, time
    )


def orders(reply) -> list[str]:
    return [item["orderId"] for item in reply.json["items"]]


def cells(reply) -> list[list[str]]:
    return list(csv.reader(io.StringIO(reply.body.decode(), newline="")))


# Partners


async def test_partners_are_listed_by_id_and_in_pages(client, db):
    await db.execute("INSERT INTO partners (id) SELECT 'p' || g FROM generate_series(1, 5) AS g")
    reply = await client.get(f"{PATH}?limit=2&offset=1")
    assert [row["id"] for row in reply.json] == ["p2", "p3"]
    assert set(reply.json[0]) == {"id", "name", "email", "createdAt"}
    assert 'rel="next"' in reply.headers["link"]
    assert 'rel="prev"' in reply.headers["link"]


async def test_a_partner_is_shown_with_all_that_is_his(client, db):
    await db.execute("INSERT INTO shop_users (id, name) VALUES ('u1', 'Ann')")
    await db.execute("INSERT INTO programs (id, base_domain, commission_percent) VALUES ('g', 'g.com', 12.5)")
    await db.execute(
        "INSERT INTO links (id, url, user_id, program_id) VALUES ('l', 'https://g.com', 'u1', 'g')"
    )
    await earned(db, "1", "2.5", partner_id="pn_u1")
    shown = (await client.get(f"{PATH}/pn_u1")).json
    assert (shown["id"], shown["name"], shown["links"]) == ("pn_u1", "Ann", 1)
    assert shown["users"] == [{"id": "u1", "name": "Ann", "email": None}]
    assert [{**e, "createdAt": ""} for e in shown["enrollments"]] == [
        {
            "programId": "g",
            "baseDomain": "g.com",
            "commissionPercent": "12.5",
            "status": "approved",
            "origin": "link",
            "createdAt": "",
        }
    ]
    assert shown["balances"][0]["pending"] == "2.50"


@pytest.mark.parametrize("path", ["", "/earnings", "/payouts", "/earnings?format=csv"])
async def test_an_unknown_partner_is_404(client, path):
    for partner_id in ("nobody", "%00", "x" * 256, "%E2%80%8B"):
        reply = await client.get(f"{PATH}/{partner_id}{path}")
        assert (reply.status, reply.headers["content-type"]) == (404, "application/problem+json")


async def test_every_route_needs_the_token(serve, pool):
    client = await serve(pool, token="s3cret", routes=PARTNER_ROUTES)
    client.token = None
    for path in (PATH, f"{PATH}/p1", EARNINGS, PAYOUTS):
        assert (await client.get(path)).status == 401
    assert (await client.post(PAYOUTS, {"currency": "EUR"})).status == 401


async def test_the_routes_are_described(client):
    schema = (await client.get("/docs/openapi")).json
    operation = schema["paths"][f"{PATH}/{{partner_id}}/earnings"]["get"]
    named = {parameter["name"] for parameter in operation["parameters"]}
    assert {"partner_id", "program", "link", "order", "status", "currency", "from", "to"} <= named
    assert {"groupBy", "format", "limit", "offset"} <= named


# Earnings


async def test_single_commissions_come_newest_first_with_rate_and_source(client, db, partner):
    await earned_at(
        db, "old", "2026-01-01T00:00:00Z", rate_percent=Decimal("12.500000"), rate_source="program"
    )
    await earned_at(db, "new", "2026-03-01T00:00:00Z", link_id="l1", program_id="g1", earnings="-0.125")
    reply = await client.get(EARNINGS)
    assert (reply.json["partnerId"], reply.json["name"]) == ("p1", "Ann")
    assert "groups" not in reply.json
    new, old = reply.json["items"]
    assert old | {"id": 0} == {
        "id": 0,
        "orderId": "old",
        "programId": None,
        "linkId": None,
        "kind": "sale",
        "cause": "imported",
        "amount": "10.00",
        "earnings": "1.00",
        "ratePercent": "12.5",
        "rateSource": "program",
        "currency": "EUR",
        "status": "pending",
        "occurredAt": "2026-01-01T00:00:00.000Z",
        "payoutId": None,
    }
    assert (new["orderId"], new["linkId"], new["programId"], new["earnings"]) == ("new", "l1", "g1", "-0.125")


async def test_balances_are_by_currency_and_in_its_digits(client, db, partner):
    await db.execute(
        "INSERT INTO currencies (code, digits) VALUES ('JPY', 0), ('KWD', 3) ON CONFLICT DO NOTHING"
    )
    for order_id, earnings, currency, status in [
        ("1", "10", "EUR", "pending"),
        ("2", "5.5", "EUR", "approved"),
        ("3", "-0.25", "EUR", "approved"),
        ("4", "3", "EUR", "paid"),
        ("5", "99", "EUR", "canceled"),
        ("6", "100", "JPY", "pending"),
        ("7", "-1.5", "KWD", "approved"),
    ]:
        await earned(db, order_id, earnings, currency=currency, status=status)
    await earned(db, "8", 1_000, partner_id="another")
    eur, jpy, kwd = (await client.get(f"{EARNINGS}?order=none")).json["balances"]
    assert eur == {
        "currency": "EUR",
        "pending": "10.00",
        "approved": "5.25",
        "paid": "3.00",
        "canceled": "99.00",
        "total": "18.25",
        "payable": "5.25",
    }
    assert (jpy["currency"], jpy["pending"], jpy["payable"]) == ("JPY", "100", "0")
    assert (kwd["currency"], kwd["approved"], kwd["total"], kwd["payable"]) == (
        "KWD",
        "-1.500",
        "-1.500",
        "0.000",
    )


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("program=g1", ["1"]),
        ("link=l2", ["2"]),
        ("order=3", ["3"]),
        ("status=paid", ["2"]),
        ("currency=usd", ["3"]),
        ("from=2026-02-01", ["3", "2"]),
        ("to=2026-02-01", ["2", "1"]),
        ("from=2026-02-01&to=2026-02-01", ["2"]),
        ("to=2026-02-01T12:00:00Z", ["1"]),
        ("from=2026-02-01T13:00:00%2B01:00&to=2026-02-01T12:00:00.001Z", ["2"]),
        ("from=0001-01-01&to=9999-12-30", ["3", "2", "1"]),
        ("program=&link=%20", ["3", "2", "1"]),
        ("program=none", []),
        ("limit=1&offset=1", ["2"]),
    ],
)
async def test_filters(client, db, partner, query, found):
    await earned_at(db, "1", "2026-01-31T23:59:59.999Z", program_id="g1", link_id="l1")
    await earned_at(db, "2", "2026-02-01T12:00:00Z", program_id="g2", link_id="l2", status="paid")
    await earned_at(db, "3", "2026-02-02T00:00:00Z", currency="USD")
    reply = await client.get(f"{EARNINGS}?{query}")
    assert orders(reply) == found


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("status=open", "status"),
        ("currency=EURO", "currency"),
        ("program=%00", "program"),
        (f"order={'x' * 256}", "order"),
        ("from=2026-02-30", "from"),
        ("from=yesterday", "from"),
        ("from=2026-02-01T00:00:00", "from"),
        ("to=9999-12-31", "to"),
        ("groupBy=partner", "groupBy"),
        ("groupBy=", "groupBy"),
        ("format=xml", "format"),
        ("limit=0", "limit"),
    ],
)
async def test_a_wrong_parameter_is_422_and_named(client, partner, query, field):
    reply = await client.get(f"{EARNINGS}?{query}")
    assert reply.status == 422
    assert reply.json["errors"][0]["field"] == field


async def test_pages_are_linked_and_keep_their_filters(client, db, partner):
    for n in range(5):
        await earned_at(db, str(n), f"2026-01-0{n + 1}T00:00:00Z")
    first = await client.get(f"{EARNINGS}?limit=2&currency=EUR")
    assert orders(first) == ["4", "3"]
    assert first.headers["link"] == f'<{EARNINGS}?limit=2&currency=EUR&offset=2>; rel="next"'
    last = await client.get(f"{EARNINGS}?limit=2&offset=4&groupBy=month")
    assert last.json["groups"] == []


async def test_groups_are_by_what_is_asked_and_by_currency(client, db, partner):
    await earned_at(db, "1", "2026-01-31T23:59:59Z", program_id="g1", earnings="1.5")
    await earned_at(db, "2", "2026-02-01T00:00:00Z", program_id="g1", earnings="2")
    await earned_at(db, "3", "2026-02-15T00:00:00Z", program_id="g1", earnings="-0.5")
    await earned_at(db, "4", "2026-02-15T00:00:00Z", earnings="7", currency="USD", status="paid")
    await earned_at(db, "5", "2026-02-15T00:00:00Z", earnings="100", status="canceled")
    grouped = (await client.get(f"{EARNINGS}?groupBy=month,program")).json
    assert "items" not in grouped
    assert set(grouped["groups"][0]) == {
        "month",
        "programId",
        "currency",
        "commissions",
        "amount",
        "earnings",
    }
    assert [tuple(row.values()) for row in grouped["groups"]] == [
        ("EUR", 2, "15.00", "1.50", "2026-02", "g1"),
        ("USD", 1, "70.00", "7.00", "2026-02", None),
        ("EUR", 1, "15.00", "1.50", "2026-01", "g1"),
    ]
    whole = (await client.get(f"{EARNINGS}?groupBy=currency")).json["groups"]
    assert [(row["currency"], row["earnings"]) for row in whole] == [("EUR", "3.00"), ("USD", "7.00")]
    by_status = (await client.get(f"{EARNINGS}?groupBy=status&currency=EUR")).json["groups"]
    assert [(row["status"], row["earnings"]) for row in by_status] == [
        ("canceled", "100.00"),
        ("pending", "3.00"),
    ]
    by_link = await client.get(f"{EARNINGS}?groupBy=link&limit=1")
    assert by_link.json["groups"][0]["linkId"] is None
    assert 'rel="next"' in by_link.headers["link"]


async def test_csv_has_every_row_that_the_filters_leave(client, db, partner):
    await db.execute(
        """INSERT INTO commissions (partner_id, order_id, amount, earnings, currency, occurred_at)
           SELECT 'p1', 'o' || g, g, g, CASE WHEN g <= 2500 THEN 'EUR' ELSE 'USD' END,
                  '2026-01-01Z'::timestamptz + (g % 7) * interval '1 hour'
           FROM generate_series(1, 2600) AS g"""
    )
    reply = await client.get(f"{EARNINGS}?format=csv&currency=EUR&limit=10")
    assert reply.headers["content-type"] == "text/csv; header=present; charset=utf-8"
    assert reply.headers["content-disposition"] == 'attachment; filename="earnings-p1.csv"'
    head, *rows = cells(reply)
    assert head[:3] == ["id", "orderId", "programId"]
    assert len(head) == 14
    assert len(rows) == len({row[1] for row in rows}) == 2_500
    times = [row[head.index("occurredAt")] for row in rows]
    assert times == sorted(times, reverse=True)
    assert sum(Decimal(row[head.index("earnings")]) for row in rows) == sum(range(2_501))
    assert reply.body.endswith(b"\r\n")


async def test_csv_may_be_asked_for_by_accept_and_grouped(client, db, partner):
    await earned_at(db, "1", "2026-01-31T23:59:59Z", program_id="g1", earnings="1.5")
    reply = await client.get(f"{EARNINGS}?groupBy=program,month,status", accept="text/csv")
    assert cells(reply) == [
        ["month", "programId", "status", "currency", "commissions", "amount", "earnings"],
        ["2026-01", "g1", "pending", "EUR", "1", "15.00", "1.50"],
    ]
    assert (await client.get(EARNINGS, accept="*/*")).headers["content-type"] == "application/json"
    assert (await client.get(f"{EARNINGS}?format=json", accept="text/csv")).json["partnerId"] == "p1"


async def test_no_cell_of_a_csv_runs_as_a_formula(client, db, partner):
    for order_id in ("=1+1", "+1", "-1", "@SUM(A1)", '=HYPERLINK("http://x"),"', "plain, with comma"):
        await earned(db, order_id, "-1", program_id="=cmd")
    head, *rows = cells(await client.get(f"{EARNINGS}?format=csv"))
    found = {row[1] for row in rows}
    assert found == {"'=1+1", "'+1", "'-1", "'@SUM(A1)", '\'=HYPERLINK("http://x"),"', "plain, with comma"}
    assert {row[head.index("programId")] for row in rows} == {"'=cmd"}
    assert {row[head.index("earnings")] for row in rows} == {"-1.00"}


# Payouts


async def test_a_payout_pays_what_is_approved_in_its_currency(client, db, partner):
    await earned(db, "1", "2.5", status="approved")
    await earned(db, "2", "-0.5", status="approved")
    await earned(db, "3", "9", status="pending")
    await earned(db, "4", "7", status="approved", currency="USD")
    await earned(db, "5", "7", status="approved", partner_id="another")
    reply = await client.post(PAYOUTS, {"currency": "eur", "reference": "SEPA 17"})
    assert reply.status == 201
    assert {**reply.json, "createdAt": ""} == {
        "id": reply.json["id"],
        "partnerId": "p1",
        "currency": "EUR",
        "amount": "2.00",
        "reference": "SEPA 17",
        "createdAt": "",
        "commissions": 2,
    }
    paid = await client.get(f"{EARNINGS}?status=paid")
    assert {item["payoutId"] for item in paid.json["items"]} == {reply.json["id"]}
    assert sorted(orders(paid)) == ["1", "2"]
    assert (await client.get(PAYOUTS)).json == [reply.json]
    assert await db.fetchval("SELECT actor FROM payouts") == "admin-api"


async def test_nothing_is_paid_twice(client, db, partner):
    await earned(db, "1", "2.5", status="approved")
    replies = await asyncio.gather(*(client.post(PAYOUTS, {"currency": "EUR"}) for _ in range(8)))
    assert sorted(reply.status for reply in replies) == [201] + [409] * 7
    assert await db.fetchval("SELECT sum(amount) FROM payouts") == Decimal("2.5")


async def test_when_nothing_is_payable_the_answer_says_the_balance(client, db, partner):
    reply = await client.post(PAYOUTS, {"currency": "EUR"})
    assert (reply.status, reply.json["balance"]) == (409, None)
    await earned(db, "1", "2.5", status="pending")
    await earned(db, "2", "-1", status="approved")
    reply = await client.post(PAYOUTS, {"currency": "EUR"})
    assert reply.status == 409
    assert reply.headers["content-type"] == "application/problem+json"
    assert reply.json["detail"] == "nothing is payable to this partner in EUR"
    assert (reply.json["balance"]["approved"], reply.json["balance"]["payable"]) == ("-1.00", "0.00")
    assert await db.fetchval("SELECT count(*) FROM payouts") == 0


async def test_a_repeat_under_one_key_gets_the_first_answer(client, db, partner):
    await earned(db, "1", "2.5", status="approved")
    first = await client.post(PAYOUTS, {"currency": "EUR"}, idempotency_key="k1")
    await earned(db, "2", "3", status="approved")
    again = await client.post(PAYOUTS, {"currency": " eur "}, idempotency_key="k1")
    assert (again.status, again.body) == (201, first.body)
    await db.execute("INSERT INTO partners (id) VALUES ('p2')")
    for path, body in ((f"{PATH}/p2/payouts", {"currency": "EUR"}), (PAYOUTS, {"currency": "USD"})):
        assert (await client.post(path, body, idempotency_key="k1")).status == 422
    assert await db.fetchval("SELECT count(*) FROM payouts") == 1


async def test_a_refused_payout_leaves_its_key_free(client, db, partner):
    assert (await client.post(PAYOUTS, {"currency": "EUR"}, idempotency_key="k1")).status == 409
    await earned(db, "1", "2.5", status="approved")
    assert (await client.post(PAYOUTS, {"currency": "EUR"}, idempotency_key="k1")).status == 201


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "currency"),
        ({"currency": None}, "currency"),
        ({"currency": ""}, "currency"),
        ({"currency": "EURO"}, "currency"),
        ({"currency": "EUR", "reference": "\x00"}, "reference"),
        ({"currency": "EUR", "reference": "x" * 1_025}, "reference"),
        ({"currency": "EUR", "amount": 5}, "amount"),
    ],
)
async def test_a_wrong_payout_is_422_and_named(client, partner, body, field):
    reply = await client.post(PAYOUTS, body)
    assert reply.status == 422
    assert reply.json["errors"][0]["field"] == field


async def test_nobody_is_paid_who_is_not_there(client, db):
    await earned(db, "1", "2.5", status="approved", partner_id="ghost")
    assert (await client.post(f"{PATH}/ghost/payouts", {"currency": "EUR"})).status == 404


async def test_payouts_are_listed_newest_first(client, db, partner):
    for n in range(3):
        await earned(db, str(n), n + 1, status="approved")
        await client.post(PAYOUTS, {"currency": "EUR", "reference": str(n)})
    reply = await client.get(f"{PAYOUTS}?limit=2")
    assert [(row["reference"], row["commissions"]) for row in reply.json] == [("2", 1), ("1", 1)]
    assert 'rel="next"' in reply.headers["link"]
