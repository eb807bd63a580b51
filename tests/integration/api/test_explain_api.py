"""`/api/explain` and `/ops/explain`: the rows behind a number over HTTP and in a page, whatever an id looks like."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from html.parser import HTMLParser
from urllib.parse import quote, urlencode

import asyncpg
import pytest

from counterfoil.console import explaining
from counterfoil.explaining import KINDS
from support.console import TOKEN, Served, serving, stock
from support.http_client import Client

PATH = "/api/explain"
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
ODD = ["a/b", "a/b/c", "a b", "é", "%", "?x=1", "#1", "'\"<b>", "a%2Fb", "日本", ".hidden", "&amp;", "+"]


@pytest.fixture
async def served(pool: asyncpg.Pool) -> AsyncIterator[Served]:
    """The pages, open to this machine."""
    async with serving(pool, token=None) as started:
        yield started


@pytest.fixture
def client(served: Served) -> Client:
    return served.client


async def used(db, code, *orders):
    for order in orders:
        await db.execute(
            "INSERT INTO affiliate_coupon_usages (order_id, code, occurred_at) VALUES ($1, $2, $3)",
            order,
            code,
            NOON,
        )


class Page(HTMLParser):
    """A page's text, links, tables and whatever none of ours may hold."""

    def __init__(self, body: bytes) -> None:
        super().__init__()
        self.links: list[str] = []
        self.forbidden: list[str] = []
        self.inputs: dict[str, str] = {}
        self.text = ""
        self.feed(body.decode())

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        if tag == "a":
            self.links.append(given["href"])
        if tag == "input":
            self.inputs[given["name"]] = given.get("value", "")
        if tag in ("b", "img", "style", "iframe") and "src" not in given:
            self.forbidden.append(tag)
        self.forbidden += [name for name in given if name.startswith("on") or name == "style"]

    def handle_data(self, data):
        self.text += data


# JSON


@pytest.mark.parametrize("code", ODD)
async def test_an_id_of_any_form_is_found_by_path_and_by_query(client, db, code):
    await used(db, code, "1", "2")
    by_path = await client.get(f"{PATH}/coupon/{quote(code, safe='/')}")
    by_query = await client.get(f"{PATH}/coupon?{urlencode({'id': code})}")
    assert (by_path.status, by_query.status) == (200, 200)
    assert by_path.json["id"] == by_query.json["id"] == code
    assert by_query.json["stored"]["timesUsed"] == 2
    assert [usage["orderId"] for usage in by_query.json["usages"]] == ["1", "2"]


@pytest.mark.parametrize("code", ["/a", "a/", "a//b", ".", "..", "a/../b", "//"])
async def test_an_id_that_a_path_does_not_keep_is_found_by_query(client, db, code):
    await used(db, code, "1")
    assert (await client.get(f"{PATH}/coupon?{urlencode({'id': code})}")).json["id"] == code


async def test_every_kind_is_answered_in_camel_case_with_its_arithmetic(client, db):
    await used(db, "X", "X")
    await db.execute("INSERT INTO affiliates (handle, name, pixel_id) VALUES ('X', 'X', 'X')")
    await db.execute("INSERT INTO promo_codes (code) VALUES ('X')")
    await db.execute("INSERT INTO partners (id) VALUES ('X')")
    await db.execute("INSERT INTO vouchers (id) VALUES ('X')")
    await db.execute(
        """INSERT INTO inventory_events (event_id, sku, new_stock, metadata, occurred_at)
           VALUES ('e', 'X', 3, '{"some_name": {"source": 1e400, "n": 123456789012345678901234567890}}', $1)""",
        NOON,
    )
    commission = await db.fetchval(
        "INSERT INTO commissions (order_id, partner_id, amount, earnings, currency) "
        "VALUES ('X', 'X', 1, 1, 'USD') RETURNING id"
    )
    for kind in KINDS:
        reply = await client.get(f"{PATH}/{kind}/{commission if kind == 'commission' else 'X'}")
        assert (reply.status, reply.headers["content-type"]) == (200, "application/json"), kind
        assert reply.json["arithmetic"]
        assert not [name for name in reply.json if "_" in name]
    change = (await client.get(f"{PATH}/sku/X")).json["changes"][0]
    assert change["occurredAt"] == "2026-03-01T12:00:00.000Z"
    assert change["metadata"]["some_name"]["n"] == 123456789012345678901234567890


async def test_lists_are_bounded(client, db):
    await db.execute(
        "INSERT INTO affiliate_coupon_usages (order_id, code) SELECT n::text, 'A' FROM generate_series(1, 300) AS n"
    )
    await db.execute(
        "INSERT INTO affiliate_coupon_usages (order_id, code) SELECT 'many', n::text FROM generate_series(1, 300) AS n"
    )
    reply = await client.get(f"{PATH}/coupon/A?limit=200")
    assert (len(reply.json["usages"]), reply.json["totals"]["usages"]) == (200, 300)
    order = (await client.get(f"{PATH}/order/many")).json
    assert (len(order["couponUsages"]), order["totals"]["couponUsages"]) == (50, 300)
    for query in ("limit=201", "limit=0", "days=0", "days=367", "limit=x"):
        assert (await client.get(f"{PATH}/coupon/A?{query}")).json["errors"][0]["field"] == query.partition(
            "="
        )[0]


@pytest.mark.parametrize("kind", [*KINDS, "nonsense"])
async def test_what_nothing_is_known_of_is_404(client, kind):
    for path in (f"{PATH}/{kind}/nobody", f"{PATH}/{kind}?id=%00", f"{PATH}/{kind}?id={'x' * 5000}"):
        reply = await client.get(path)
        assert (reply.status, reply.headers["content-type"]) == (404, "application/problem+json")


async def test_an_id_is_required(client):
    for path in (f"{PATH}/order", f"{PATH}/order?id="):
        assert (await client.get(path)).json["errors"] == [{"field": "id", "rule": "is required"}]


async def test_a_number_as_of_a_time_carries_it_back(client, db):
    await used(db, "A", "1")
    before = await client.get(f"{PATH}/coupon/A?at=2026-03-01T11:59:59.999999Z")
    assert (before.json["counted"]["usages"], before.json["at"]) == (0, "2026-03-01T11:59:59.999999Z")
    noon = await client.get(f"{PATH}/coupon/A?at=2026-03-01T12:00:00Z")
    assert (noon.json["counted"]["usages"], noon.headers["x-as-of"]) == (1, "2026-03-01T12:00:00.000Z")
    for path in (f"{PATH}/coupon/A?at=2026-03-01T12:00:00", f"{PATH}/order/1?at=2026-03-01T12:00:00Z"):
        assert (await client.get(path)).json["errors"][0]["field"] == "at"


async def test_it_needs_the_token(pool, db):
    await used(db, "A", "1")
    async with serving(pool) as guarded:
        for path in (f"{PATH}/coupon/A", f"{PATH}/coupon?id=A", f"{PATH}/coupon/a/b"):
            assert (await guarded.client.get(path)).status == 401
            assert (await guarded.client.get(path, authorization=f"Bearer {TOKEN}")).status in (200, 404)
        for path in ("/ops/explain", "/ops/explain/coupon?id=A"):
            reply = await guarded.client.get(path)
            assert (reply.status, reply.headers["location"]) == (303, "/ops/login")
            assert (await guarded.client.get(path, cookie=await guarded.session())).status == 200


async def test_an_absent_database_is_503(db):
    async with serving(None, token=None) as away:
        assert (await away.client.get(f"{PATH}/coupon/A")).status == 503
        assert (await away.client.get("/ops/explain/coupon?id=A")).status == 503


async def test_a_statement_that_takes_too_long_is_503_that_says_so(database_url, db):
    given_up = {"statement_timeout": "50"}
    async with (
        asyncpg.create_pool(database_url, min_size=1, max_size=1, server_settings=given_up) as slow,
        serving(slow, token=None) as served,
        db.transaction(),
    ):
        await db.execute("LOCK TABLE affiliate_coupons")
        reply = await served.client.get(f"{PATH}/coupon/A")
    assert (reply.status, "takes too long" in reply.json["detail"]) == (503, True)


async def test_a_connection_of_the_pool_reads_times_as_before(client, pool, db):
    await used(db, "A", "1")
    for _ in range(30):
        assert (await client.get(f"{PATH}/coupon/A")).status == 200
    assert {type(await pool.fetchval("SELECT 'infinity'::timestamptz")) for _ in range(30)} == {datetime}
    assert await pool.fetchval("SELECT $1::timestamptz", NOON) == NOON


async def test_the_routes_are_described(client):
    paths = (await client.get("/docs/openapi")).json["paths"]
    named = {p["name"] for p in paths[f"{PATH}/{{kind}}"]["get"]["parameters"]}
    assert named == {"kind", "id", "limit", "days", "at"}
    assert {p["name"] for p in paths[f"{PATH}/{{kind}}/{{key}}"]["get"]["parameters"]} >= {
        "kind",
        "key",
        "limit",
        "at",
    }


# Pages


async def test_the_form_leads_to_the_page_of_what_it_asks_for(client):
    page = Page((await client.get("/ops/explain")).body)
    assert page.inputs == {"id": "", "at": ""}
    reply = await client.get("/ops/explain?kind=coupon&id=a%2Fb+%26c&at=2026-03-01T12%3A00%3A00Z")
    assert reply.status == 303
    assert reply.headers["location"] == "/ops/explain/coupon?id=a%2Fb+%26c&at=2026-03-01T12%3A00%3A00Z"
    assert (await client.get("/ops/explain?kind=coupon&id=")).headers["location"] == "/ops/explain/coupon"
    assert (await client.get("/ops/explain?kind=//evil.example&id=1")).status == 200


async def test_a_page_shows_the_sections_of_the_terminal_with_ways_on(client, db):
    await used(db, "A", "1", "2/3")
    reply = await client.get("/ops/explain/coupon?id=A")
    page = Page(reply.body)
    assert (reply.status, page.inputs["id"]) == (200, "A")
    assert "2 usages + 0 by 0 adjustments = 2" in page.text
    assert "= 2" in page.text
    assert "/ops/explain/order?id=2%2F3" in page.links
    assert (await client.get("/ops/explain/order?id=2%2F3")).status == 200


@pytest.mark.parametrize(
    "code", ["<b>bold</b>", '"><img src=x onerror=alert(1)>', "{{ 7*7 }}", "\u202egpj", "javascript:x"]
)
async def test_nothing_of_an_event_breaks_out_of_the_page(client, db, code):
    await used(db, code, code)
    await db.execute(
        "INSERT INTO affiliate_coupon_adjustments (code, delta, reason, actor) VALUES ($1, 1, $1, $1)", code
    )
    for path in (
        f"/ops/explain/coupon?{urlencode({'id': code})}",
        f"/ops/explain/promo?{urlencode({'id': code})}",
        "/ops/explain/coupon",
    ):
        reply = await client.get(path)
        page = Page(reply.body)
        assert page.forbidden == []
        assert "\u202e" not in page.text
        assert all(link.startswith(("/", "#")) and not link.startswith("//") for link in page.links)
        assert "script-src" not in reply.headers["content-security-policy"]
        assert reply.headers["content-security-policy"].startswith("default-src 'self'")


@pytest.mark.parametrize("kind", KINDS)
async def test_a_page_without_an_id_lists_what_the_sum_is_made_of(client, db, kind):
    assert (await client.get(f"/ops/explain/{kind}")).status == 200
    today = datetime.now(UTC)
    await used(db, "A", "1", "2")
    await db.execute("INSERT INTO affiliate_coupon_adjustments (code, delta) VALUES ('B', 5)")
    promo = await db.fetchval("INSERT INTO promo_codes (code) VALUES ('P') RETURNING id")
    await db.execute("INSERT INTO promo_code_adjustments (promo_code_id, delta) VALUES ($1, 3)", promo)
    await db.execute("INSERT INTO aff_clicks (click_id, pixel_id, occurred_at) VALUES ('c', 'p1', $1)", today)
    await db.execute(
        "INSERT INTO customer_vouchers (customer_id, voucher_id, claimed_at) VALUES ('c', 'v', $1)", today
    )
    await db.execute(
        "INSERT INTO commissions (order_id, partner_id, amount, earnings, currency) VALUES ('1', 'px', 10, 1, 'EUR')"
    )
    await stock(db, "S", 1)
    page = Page((await client.get(f"/ops/explain/{kind}")).body)
    commission = await db.fetchval("SELECT id FROM commissions")
    wanted = {
        "order": "/ops/explain/commission",
        "coupon": "/ops/explain/coupon?id=B",
        "promo": "/ops/explain/promo?id=P",
        "affiliate": "/ops/explain/affiliate?id=p1",
        "voucher": "/ops/explain/voucher?id=v",
        "partner": "/ops/explain/partner?id=px",
        "commission": f"/ops/explain/commission?id={commission}",
        "sku": "/ops/explain/sku?id=S",
    }[kind]
    assert wanted in page.links
    if kind == "coupon":
        assert "7 in all." in page.text


@pytest.mark.parametrize(
    ("query", "status", "said"),
    [
        ("coupon?id=nobody", 404, "Nothing is known of the coupon nobody."),
        ("coupon?id=A&at=2026-03-01", 422, "The time must be an RFC 3339 time with zone"),
        (
            "order?id=1&at=2026-03-01T12:00:00Z",
            422,
            "As of a time there are coupon, promo, affiliate, partner.",
        ),
    ],
)
async def test_what_is_wrong_is_said_beside_the_form(client, db, query, status, said):
    await used(db, "A", "1")
    reply = await client.get(f"/ops/explain/{query}")
    page = Page(reply.body)
    assert (reply.status, said in page.text) == (status, True)
    assert "id" in page.inputs


async def test_a_database_that_takes_too_long_is_said(client, db, monkeypatch):
    async def too_long(*_):
        raise TimeoutError

    monkeypatch.setattr(explaining, "within", lambda _s, work: (work.close(), too_long())[1])
    reply = await client.get("/ops/explain/coupon?id=A")
    assert (reply.status, "takes too long" in Page(reply.body).text) == (503, True)


async def test_the_numbers_of_the_overview_lead_to_their_explanations(client, db):
    await stock(db, "a/b c", 1)
    await db.execute(
        "INSERT INTO alerts (alert_id, kind, subject, cause, payload) VALUES "
        "('a', 'low-stock', 'a/b c', 'x', '{}'), ('b', 'scan-rate', 'v&1', 'y', '{}')"
    )
    await db.execute(
        "INSERT INTO commissions (order_id, partner_id, amount, earnings, currency) VALUES ('1', 'px', 10, 1, 'EUR')"
    )
    links = Page((await client.get("/ops")).body).links
    for kind in ("coupon", "promo", "affiliate", "voucher", "partner"):
        assert f"/ops/explain/{kind}" in links
    assert links.count("/ops/explain/sku?id=a%2Fb+c") == 3
    assert "/ops/explain/voucher?id=v%261" in links
    for link in links:
        if link.startswith("/ops/explain"):
            assert (await client.get(link)).status in (200, 404), link


async def test_a_connection_that_cannot_be_put_back_as_it_was_is_given_up(client, pool, db, monkeypatch):
    await used(db, "A", "1")

    async def fails(self, *_, **__):
        raise asyncpg.InterfaceError("lost")

    monkeypatch.setattr(asyncpg.Connection, "reset_type_codec", fails)
    assert (await client.get(f"{PATH}/coupon/A")).status == 503
    monkeypatch.undo()
    assert {type(await pool.fetchval("SELECT 'infinity'::timestamptz")) for _ in range(10)} == {datetime}
