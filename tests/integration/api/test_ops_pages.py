"""`/ops` over HTTP: who is let in, what a page may load, and that nothing of an event breaks out of it."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import AsyncIterator
from html.parser import HTMLParser

import asyncpg
import pytest

from counterfoil.console.rates import look_at_positions
from counterfoil.database.queries import sql
from counterfoil.ingest import dead_letter_routes
from support.console import TOKEN, Served, park, serving, stock
from support.http_client import Reply

PAGES = ("/ops", "/ops/live", "/ops/settings")
LETTERS = "/api/dead-letters"
SAME = {"sec_fetch_site": "same-origin"}


@pytest.fixture
async def served(pool: asyncpg.Pool) -> AsyncIterator[Served]:
    """The pages with a token."""
    async with serving(pool) as started:
        yield started


@pytest.fixture
async def opened(pool: asyncpg.Pool) -> AsyncIterator[Served]:
    """The pages without a token: open to this machine."""
    async with serving(pool, token=None) as started:
        yield started


class Parts(HTMLParser):
    """What a page loads and where it leads, and what stands in it that no page of ours may have."""

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.forbidden: list[str] = []
        self.text = ""
        self.feed(page.decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.addresses += [
            given[name] or "" for name in ("src", "href", "action", "hx-get", "hx-post") if name in given
        ]
        if tag in ("style", "iframe", "object", "embed", "base") or (
            tag == "script" and not given.get("src")
        ):
            self.forbidden.append(tag)
        self.forbidden += [name for name in given if name.startswith("on") or name == "style"]

    def handle_data(self, data: str) -> None:
        self.text += data


def parts(reply: Reply) -> Parts:
    assert reply.status == 200, reply.body
    return Parts(reply.body)


# Who is let in


@pytest.mark.parametrize("path", PAGES)
async def test_a_page_without_a_session_leads_to_the_login(served: Served, path: str) -> None:
    reply = await served.client.get(path)
    assert (reply.status, reply.headers["location"]) == (303, "/ops/login")


async def test_the_routes_stay_401_without_a_session(served: Served) -> None:
    for path in (LETTERS, f"{LETTERS}/1", "/api/inventory/products", "/nowhere"):
        assert (await served.client.get(path)).status == 401
    for path in (f"{LETTERS}/1/retry", "/api/ops/inventory/scan-now", "/ops/logout"):
        assert (await served.client.ask("POST", path, None, {})).status == 401


async def test_a_refresh_without_a_session_is_told_where_to_go(served: Served) -> None:
    reply = await served.client.get("/ops/live", hx_request="true")
    assert (reply.status, reply.headers["hx-redirect"], reply.body) == (401, "/ops/login", b"")


async def test_the_token_is_taken_once_and_a_cookie_is_kept_that_is_not_the_token(served: Served) -> None:
    reply = await served.log_in()
    assert (reply.status, reply.headers["location"]) == (303, "/ops")
    name_and_value, *attributes = reply.headers["set-cookie"].split("; ")
    assert attributes == ["Path=/", "Max-Age=43200", "HttpOnly", "SameSite=Strict"]
    assert TOKEN not in name_and_value
    for path in PAGES:
        assert (await served.client.get(path, cookie=name_and_value)).status == 200


async def test_the_bearer_of_the_token_reads_the_pages_too(served: Served) -> None:
    assert (await served.client.get("/ops", authorization=f"Bearer {TOKEN}")).status == 200


@pytest.mark.parametrize(
    "token", ["", "wrong", TOKEN + "x", "geh%C3%B6rt", "%FF%FE", "%00", "&token=&" * 200]
)
async def test_a_wrong_token_gets_no_cookie_and_is_told_so(served: Served, token: str) -> None:
    reply = await served.log_in(token)
    assert reply.status == 401
    assert "set-cookie" not in reply.headers
    assert b"This is not the admin token." in reply.body


async def test_the_eleventh_wrong_try_in_a_minute_is_429_and_the_right_token_gets_in(served: Served) -> None:
    for _ in range(10):
        assert (await served.log_in("wrong")).status == 401
    reply = await served.log_in("wrong")
    assert (reply.status, "set-cookie" in reply.headers) == (429, False)
    assert 0 < int(reply.headers["retry-after"]) <= 60
    reply = await served.log_in()
    assert (reply.status, "set-cookie" in reply.headers) == (303, True)


async def test_right_tokens_are_not_counted(served: Served) -> None:
    assert {(await served.log_in()).status for _ in range(12)} == {303}


@pytest.mark.parametrize(
    "headers",
    [
        {"sec_fetch_site": "cross-site"},
        {"sec_fetch_site": "same-site", "origin": "http://{host}"},
        {"origin": "https://evil.example"},
        {"origin": "null"},
    ],
)
async def test_another_site_logs_nobody_in_and_counts_as_no_try(served: Served, headers) -> None:
    sent = {name: value.format(host=served.host) for name, value in headers.items()}
    for token in ["wrong"] * 11 + [TOKEN]:
        reply = await served.log_in(token, **sent)
        assert (reply.status, "set-cookie" in reply.headers) == (403, False)
    assert (await served.log_in("wrong")).status == 401
    for ours in (SAME, {"origin": f"http://{served.host}"}, {"sec_fetch_site": "none"}):
        assert (await served.log_in(**ours)).status == 303


@pytest.mark.parametrize("path", PAGES)
async def test_a_slash_at_the_end_changes_nothing(served: Served, path: str) -> None:
    reply = await served.client.get(f"{path}/")
    assert (reply.status, reply.headers["location"]) == (303, "/ops/login")
    cookie = await served.session()
    with_slash = await served.client.get(f"{path}/", cookie=cookie)
    assert with_slash.status == 200
    if path == "/ops/settings":
        assert with_slash.body == (await served.client.get(path, cookie=cookie)).body
    assert (await served.client.get("/api/dead-letters/")).status == 401


@pytest.mark.parametrize("path", [*PAGES, "/ops/login", "/ops/static/ops.css", LETTERS])
async def test_head_is_get_without_a_body(opened: Served, path: str) -> None:
    reply = await opened.client.ask("HEAD", path, None, {})
    shown = await opened.client.get(path)
    assert (reply.status, reply.body) == (shown.status, b"")
    assert reply.headers.get("content-type") == shown.headers.get("content-type")


async def test_head_needs_what_get_needs(served: Served) -> None:
    assert (await served.client.ask("HEAD", LETTERS, None, {})).status == 401
    assert (await served.client.ask("HEAD", "/ops", None, {})).status == 303
    assert (await served.client.ask("HEAD", "/ops/logout", None, {})).status == 401


@pytest.mark.parametrize(("proto", "is_secure"), [("https", True), ("http", False), ("http, https", True)])
async def test_behind_a_trusted_proxy_with_https_the_cookie_is_secure(
    pool, proto: str, is_secure: bool
) -> None:
    async with serving(pool, trusted_proxies="127.0.0.1") as behind:
        reply = await behind.log_in(x_forwarded_proto=proto)
    assert ("Secure" in reply.headers["set-cookie"].split("; ")) is is_secure


async def test_nobody_else_is_believed_that_it_was_https(served: Served) -> None:
    assert "Secure" not in (await served.log_in(x_forwarded_proto="https")).headers["set-cookie"]


async def test_a_changed_cookie_is_none(served: Served) -> None:
    cookie = await served.session()
    name, _, value = cookie.partition("=")
    until, nonce, seal = value.split(".")
    for changed in (
        "",
        "..",
        "x",
        f"{int(until) + 1}.{nonce}.{seal}",
        f"{until}.{nonce}.{seal[:-1]}",
        f"{until}.{nonce}.\xff",
    ):
        assert (await served.client.get("/ops", cookie=f"{name}={changed}")).status == 303


async def test_another_token_ends_all_sessions(served: Served, pool) -> None:
    cookie = await served.session()
    async with serving(pool, token="another") as other:
        assert (await other.client.get("/ops", cookie=cookie)).status == 303
    async with serving(pool) as other_worker:
        assert (await other_worker.client.get("/ops", cookie=cookie)).status == 200


async def test_logging_out_takes_the_cookie_away(served: Served) -> None:
    cookie = await served.session()
    headers = {"cookie": cookie, "x_csrf_token": await served.csrf_token(cookie), **SAME}
    reply = await served.client.ask("POST", "/ops/logout", None, headers)
    assert (reply.status, reply.headers["hx-redirect"]) == (200, "/ops/login")
    assert reply.headers["set-cookie"].startswith("counterfoil_ops=; Path=/; Max-Age=0;")


# What a cookie opens


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"sec_fetch_site": "cross-site"}, 401),
        ({"sec_fetch_site": "same-site"}, 401),
        ({"sec_fetch_site": "none"}, 401),
        ({"origin": "http://evil.example"}, 401),
        ({"referer": "http://evil.example/ops"}, 401),
        ({"sec_fetch_site": "cross-site", "origin": "http://{host}"}, 401),
        ({"sec_fetch_site": "same-origin"}, 200),
        ({"origin": "http://{host}"}, 200),
        ({"referer": "http://{host}/ops"}, 200),
    ],
)
async def test_a_cookie_opens_the_routes_only_to_our_own_pages(served: Served, headers, status: int) -> None:
    sent = {name: value.format(host=served.host) for name, value in headers.items()}
    assert (await served.client.get(LETTERS, cookie=await served.session(), **sent)).status == status


async def test_with_a_cookie_only_our_own_pages_change_something(served: Served, db) -> None:
    letter = await park(db, b"{")
    cookie = await served.session()
    token = await served.csrf_token(cookie)
    path = f"{LETTERS}/{letter}/retry"
    for headers in (
        {},
        SAME,
        {"x_csrf_token": token},
        {"x_csrf_token": "0" * 64, **SAME},
        {"x_csrf_token": token, "sec_fetch_site": "cross-site"},
        {"x_csrf_token": token, "sec_fetch_site": "same-site"},
        {"x_csrf_token": token, "origin": "http://evil.example"},
        {"x_csrf_token": token, "origin": "null"},
        {"x_csrf_token": await served.csrf_token(await served.session()), **SAME},
    ):
        assert (await served.client.ask("POST", path, None, {"cookie": cookie, **headers})).status == 403
    assert await db.fetchval("SELECT retried_at FROM dead_letters") is None
    for headers in (SAME, {"origin": f"http://{served.host}"}):
        sent = {"cookie": cookie, "x_csrf_token": token, **headers}
        assert (await served.client.ask("POST", path, None, sent)).status == 200


async def test_a_link_from_elsewhere_asks_again_from_our_own_page(served: Served) -> None:
    from_chat = {"sec_fetch_site": "cross-site", "sec_fetch_mode": "navigate", "sec_fetch_dest": "document"}
    reply = await served.client.get("/ops/settings", **from_chat)
    assert b'http-equiv="refresh" content="0; url=/ops/settings"' in reply.body
    assert reply.status == 200
    assert (await served.client.get("/ops/settings", **SAME)).status == 303


# Without a token


async def test_without_a_token_this_machine_needs_no_login(opened: Served) -> None:
    for path in (*PAGES, LETTERS):
        assert (await opened.client.get(path)).status == 200
    assert (await opened.client.get("/ops/login")).headers["location"] == "/ops"
    assert (await opened.log_in("anything")).headers["location"] == "/ops"


@pytest.mark.parametrize(
    "headers",
    [
        {"sec_fetch_site": "cross-site"},
        {"sec_fetch_site": "same-site", "sec_fetch_mode": "cors"},
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"host": "evil.example"},
        {"host": "evil.example", "sec_fetch_site": "same-origin"},
    ],
)
async def test_without_a_token_a_foreign_page_can_do_nothing(opened: Served, db, headers) -> None:
    letter = await park(db, b"{")
    for path in (f"{LETTERS}/{letter}/retry", "/api/ops/inventory/scan-now", "/api/ops/settings/test-email"):
        assert (await opened.client.ask("POST", path, None, headers)).status == 403
    for path in (LETTERS, *PAGES):
        assert (await opened.client.get(path, **headers)).status == 403
    assert await db.fetchval("SELECT retried_at FROM dead_letters") is None


async def test_without_a_token_a_link_from_elsewhere_opens_the_page(opened: Served) -> None:
    link = {"sec_fetch_site": "cross-site", "sec_fetch_mode": "navigate", "sec_fetch_dest": "document"}
    assert (await opened.client.get("/ops", **link)).status == 200
    assert (await opened.client.get("/ops", **link | {"sec_fetch_dest": "iframe"})).status == 403
    assert (await opened.client.ask("POST", "/api/ops/inventory/scan-now", None, link)).status == 403


# What a page is made of


@pytest.mark.parametrize("path", [*PAGES, "/ops/login"])
async def test_a_page_runs_and_loads_nothing_but_our_own_files(served: Served, path: str) -> None:
    cookie = {} if path == "/ops/login" else {"cookie": await served.session()}
    reply = await served.client.get(path, **cookie)
    page = parts(reply)
    assert page.forbidden == []
    assert [one for one in page.addresses if not one.startswith(("/", "#")) or one.startswith("//")] == []
    policy = dict(rule.split(" ", 1) for rule in reply.headers["content-security-policy"].split("; "))
    assert policy["default-src"] == "'self'"
    assert policy["frame-ancestors"] == policy["object-src"] == policy["base-uri"] == "'none'"
    assert "unsafe" not in reply.headers["content-security-policy"]
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert reply.headers["referrer-policy"] == "same-origin"
    assert reply.headers["cache-control"] == "no-store"


async def test_each_file_of_a_page_is_kept_by_browsers_for_as_long_as_it_is_the_same(served: Served) -> None:
    files = [
        one
        for one in parts(await served.client.get("/ops", cookie=await served.session())).addresses
        if "/static/" in one
    ]
    assert len(files) > 5
    for address in files:
        reply = await served.client.get(address)
        assert reply.status == 200
        assert reply.headers["cache-control"] == "public, max-age=31536000, immutable"
        assert reply.headers["x-content-type-options"] == "nosniff"
        packed = await served.client.get(address, accept_encoding="gzip")
        assert gzip.decompress(packed.body) == reply.body
        again = await served.client.get(address, if_none_match=reply.headers["etag"])
        assert (again.status, again.body) == (304, b"")
        older = await served.client.get(address.partition("?")[0] + "?v=older")
        assert older.headers["cache-control"] == "no-cache"


@pytest.mark.parametrize("name", ["nothing.js", "..%2fpages.py", "%2e%2e/pages.py", "VENDORED.md", "%00"])
async def test_no_other_file_is_served(served: Served, name: str) -> None:
    assert (await served.client.get(f"/ops/static/{name}", authorization=f"Bearer {TOKEN}")).status == 404


async def test_the_licence_of_each_vendored_file_is_served_with_it(served: Served) -> None:
    for name in ("htmx", "idiomorph", "pico", "uPlot"):
        reply = await served.client.get(f"/ops/static/{name}.LICENSE.txt")
        assert (reply.status, b"THE SOFTWARE IS PROVIDED" in reply.body) == (200, True)


# What it shows

HOSTILE = "<script>alert(1)</script>\"'>\r\n\u2028\u202e&amp;{{7*7}}"


async def test_nothing_of_an_event_breaks_out_of_the_page(opened: Served, db) -> None:
    await stock(db, "sku-1", 1, name=HOSTILE)
    await stock(db, "a\"b'<i>", 0)
    await park(db, HOSTILE.encode(), kind=HOSTILE, error=HOSTILE, topic="<b>t</b>")
    await park(db, b"\xff\x00<script>", offset=1)
    await db.execute(
        "INSERT INTO alerts (kind, subject, cause, payload) VALUES ($1, $1, $1, $2)",
        HOSTILE,
        json.dumps({"stock": HOSTILE, "name": HOSTILE, "threshold": 1}),
    )
    reply = await opened.client.get("/ops")
    page = parts(reply)
    assert page.forbidden == []
    assert "<script>alert(1)" not in reply.body.decode()
    assert "\\u2028\\u202e&amp;{{7*7}}" in page.text
    assert "\u2028" not in page.text
    assert "ff 00 3c 73 63" in page.text


async def test_the_page_shows_what_is_counted(opened: Served, db) -> None:
    await db.execute("INSERT INTO affiliate_coupon_adjustments (code, delta) VALUES ('A', 1200), ('B', 34)")
    await db.execute(
        "INSERT INTO commissions (order_id, beneficiary, cause, amount, earnings, currency, status) "
        "VALUES ('1', 'link:l', 'x', 10, 1234.5, 'USD', 'paid'), ('2', 'link:l', 'x', 10, 700, 'JPY', 'pending')"
    )
    await stock(db, "WIDGET", 3)
    text = " ".join(parts(await opened.client.get("/ops")).text.split())
    assert "Coupons used 1,234" in text
    assert "Commissions pending 700 JPY" in text
    assert "Commissions paid 1,234.50 USD" in text
    assert "Products low 1" in text
    assert "WIDGET 3 10" in text


async def test_rates_and_sums_are_those_of_all_workers_of_the_group(opened: Served, db) -> None:
    await db.execute(
        "INSERT INTO stream_positions (cluster_id, consumer_group, topic, partition, first_offset, next_offset, "
        "applied, duplicates, dead) VALUES ('c', 'counterfoil', 'click', 0, 0, 1000, 900, 98, 2), "
        "('c', 'counterfoil', 'click', 1, 0, 10, 10, 0, 0), ('c', 'other', 'click', 0, 0, 7, 7, 0, 0)"
    )
    opened.console.rates.add(await look_at_positions(db, "counterfoil"))
    text = " ".join(parts(await opened.client.get("/ops")).text.split())
    assert "click 0 – 910 98 2 0" in text


async def test_empty_lists_say_what_to_do(opened: Served) -> None:
    text = parts(await opened.client.get("/ops")).text
    assert "counterfoil publish order.placed" in text
    assert "No product is below its threshold" in text
    assert "Nothing was raised yet" in text
    assert "A record that breaks a rule is kept here" in text


async def test_without_its_database_the_page_still_shows_the_checks() -> None:
    async with serving(None, token=None) as away:
        away.health.check("database").failed("PostgreSQL at db:5432: refused")
        text = parts(await away.client.get("/ops")).text
    assert "Not ready" in text
    assert "PostgreSQL at db:5432: refused" in text
    assert text.count("The database cannot be reached.") == 4


async def test_what_was_told_stands_with_its_alert(opened: Served, db) -> None:
    await db.execute(
        "INSERT INTO alerts (alert_id, kind, subject, cause, payload) VALUES ('a', 'low', 'WIDGET', 'x', $1)",
        json.dumps({"name": "Widget", "stock": 3, "threshold": 10}),
    )
    await db.execute(
        "INSERT INTO notifications (alert_id, channel, status, attempts, error, topic, subject, payload, raised_at) "
        "VALUES ('a', 'email', 'failed', 7, 'no such <user>', 'low-stock', 'WIDGET', '{}', now())"
    )
    text = " ".join(parts(await opened.client.get("/ops")).text.split())
    assert "low WIDGET (Widget) stock 3 / threshold 10" in text
    assert "email: failed after 7 tries no such <user>" in text


async def test_the_settings_are_shown_without_their_secrets(pool) -> None:
    secrets = {
        "slack_webhook_url": "https://hooks.slack.com/services/T0/B0/sEcReT1",
        "smtp_host": "mail.example.com",
        "smtp_user": "ops",
        "smtp_pass": "sEcReT2",
        "mail_from": "ops@example.com",
        "email_to": "you@example.com",
    }
    async with serving(pool, **secrets) as served:
        reply = await served.client.get("/ops/settings", cookie=await served.session())
    text = " ".join(parts(reply).text.split())
    assert b"sEcReT" not in reply.body
    assert TOKEN.encode() not in reply.body
    assert "webhook https://hooks.slack.com" in text
    assert "email you@example.com by mail.example.com:587" in text
    assert "COUNTERFOIL_SMTP_PASS" in text


# Dead letters


async def test_dead_letters_are_listed_newest_first_with_what_was_sent(opened: Served, db) -> None:
    first = await park(db, '{"a": "ü"}'.encode(), key=None)
    second = await park(db, b"\xff\xfe", offset=1, key=b"\xff", kind="not_utf8", error="not UTF-8")
    third = await park(db, None, offset=2, kind="empty")
    reply = await opened.client.get(LETTERS)
    assert reply.status == 200
    empty, binary, text = reply.json
    assert [letter["id"] for letter in reply.json] == [third, second, first]
    assert (text["value"], text["valueBytes"], text["key"]) == ('{"a": "ü"}', 11, None)
    assert (binary["value"], base64.b64decode(binary["valueBase64"]), binary["keyBase64"]) == (
        None,
        b"\xff\xfe",
        "/w==",
    )
    assert (empty["value"], empty["valueBytes"]) == (None, None)
    assert (
        binary | {"errorKind": "not_utf8", "error": "not UTF-8", "topic": "order.placed", "offset": 1}
        == binary
    )
    assert text["recordTimestamp"] == "2026-03-01T12:00:00.000Z"
    assert text["headers"] == []
    assert text["resolvedAt"] is None


async def test_a_value_that_ends_within_a_character_is_no_text(opened: Served, db) -> None:
    await park(db, b'{"a": "\xc3')
    [letter] = (await opened.client.get(LETTERS)).json
    assert (letter["value"], base64.b64decode(letter["valueBase64"])) == (None, b'{"a": "\xc3')


async def test_dead_letters_are_filtered_and_linked(opened: Served, db) -> None:
    ids = [
        await park(db, b"{", offset=offset, kind="not_json" if offset % 2 else "empty") for offset in range(6)
    ]
    await park(db, b"{", topic="click")
    reply = await opened.client.get(f"{LETTERS}?topic=order.placed&kind=not_json&limit=2")
    assert [letter["id"] for letter in reply.json] == [ids[5], ids[3]]
    assert (
        reply.headers["link"] == f'<{LETTERS}?topic=order.placed&kind=not_json&limit=2&offset=2>; rel="next"'
    )
    rest = await opened.client.get(f"{LETTERS}?topic=order.placed&kind=not_json&limit=2&offset=2")
    assert [letter["id"] for letter in rest.json] == [ids[1]]
    assert (await opened.client.get(f"{LETTERS}?since=2100-01-01T00:00:00Z")).json == []
    assert (await opened.client.get(f"{LETTERS}?topic=%00")).json == []
    assert (await opened.client.get(f"{LETTERS}?limit=0")).status == 422


async def test_a_long_value_is_cut_in_the_list_and_whole_on_its_own(opened: Served, db) -> None:
    value = ("ä" * 5_000).encode()
    letter = await park(db, b"x" + value)
    [listed] = (await opened.client.get(LETTERS)).json
    assert listed["valueIsCut"]
    assert listed["valueBytes"] == 10_001
    assert listed["value"] == "x" + "ä" * 2_047
    shown = (await opened.client.get(f"{LETTERS}/{letter}")).json
    assert shown["value"] == "x" + "ä" * 5_000
    assert "valueIsCut" not in shown


async def test_a_long_key_and_long_headers_are_cut_in_the_list_and_whole_on_their_own(
    opened: Served, db
) -> None:
    binary = await park(db, b"{", key=b"\xff" * 100_000)
    letter = await park(db, b"{", key=("ä" * 500_000).encode(), offset=1)
    headers = [["trace", "x" * 1_000_000]]
    await db.execute("UPDATE dead_letters SET headers = $1", json.dumps(headers))
    reply = await opened.client.get(LETTERS)
    assert len(reply.body) < 30_000
    text, bytes_ = reply.json
    assert (text["keyIsCut"], text["keyBytes"], text["key"]) == (True, 1_000_000, "ä" * 2_048)
    assert base64.b64decode(bytes_["keyBase64"]) == b"\xff" * 4_096
    assert (text["headersAreCut"], text["headers"]) == (True, [])
    shown = (await opened.client.get(f"{LETTERS}/{letter}")).json
    assert (shown["key"], shown["headers"]) == ("ä" * 500_000, headers)
    assert not {"keyIsCut", "keyBytes", "headersAreCut"} & shown.keys()
    assert (await opened.client.get(f"{LETTERS}/{binary}")).json["keyBase64"] == base64.b64encode(
        b"\xff" * 100_000
    ).decode()


async def test_what_is_short_is_whole_in_the_list(opened: Served, db) -> None:
    await park(db, b"{", key=b"k" * 4_096)
    await db.execute("UPDATE dead_letters SET headers = $1", json.dumps([["a", "b"]]))
    [letter] = (await opened.client.get(LETTERS)).json
    assert (letter["key"], letter["headers"]) == ("k" * 4_096, [["a", "b"]])
    assert not {"keyIsCut", "headersAreCut", "valueIsCut"} & letter.keys()


@pytest.mark.parametrize(
    "since",
    [
        "0001-01-01T00:00:00%2B14:00",
        "9999-12-31T23:59:59-14:00",
        "2026-01-01T00:00:00",
        "2026-01-01",
        "x",
        "1e300",
    ],
)
async def test_a_time_that_cannot_be_asked_for_is_422(opened: Served, since: str) -> None:
    reply = await opened.client.get(f"{LETTERS}?since={since}")
    assert (reply.status, reply.json["errors"][0]["field"]) == (422, "since")


async def test_a_list_is_of_200_at_most(opened: Served) -> None:
    assert (await opened.client.get(f"{LETTERS}?limit=200")).status == 200
    assert (await opened.client.get(f"{LETTERS}?limit=201")).status == 422


async def test_a_retry_reads_the_record_once(opened: Served, db, monkeypatch) -> None:
    letter, asked = await park(db, b"{"), []
    monkeypatch.setattr(dead_letter_routes, "sql", lambda name: asked.append(name) or sql(name))
    assert (await retried(opened, letter))[0] == 200
    assert asked == ["is_dead_letter"]


async def test_a_retry_goes_down_the_live_road(opened: Served, db) -> None:
    order = b'{"order_id": "1001", "codes": ["SPRING"], "timestamp": "2026-03-01T12:00:00Z"}'
    first, second = await park(db, order), await park(db, order, offset=1)
    third = await park(db, b"{", offset=2)
    assert await retried(opened, first) == (200, {"id": first, "outcome": "applied", "reason": ""})
    assert await db.fetchval("SELECT times_used FROM affiliate_coupons WHERE code = 'SPRING'") == 1
    assert await retried(opened, second) == (200, {"id": second, "outcome": "duplicate", "reason": ""})
    status, refused = await retried(opened, third)
    assert (status, refused["outcome"]) == (200, "refused")
    assert refused["reason"]
    assert await db.fetchval("SELECT times_used FROM affiliate_coupons WHERE code = 'SPRING'") == 1
    rows = await db.fetch("SELECT id, resolution FROM dead_letters ORDER BY id")
    assert [tuple(row) for row in rows] == [(first, "applied"), (second, "duplicate"), (third, None)]
    assert [letter["id"] for letter in (await opened.client.get(LETTERS)).json] == [third]
    assert len((await opened.client.get(f"{LETTERS}?resolved=true")).json) == 3


async def test_a_retry_of_what_is_not_there_or_done_is_refused(opened: Served, db) -> None:
    letter = await park(db, b'{"order_id": "1001"}')
    assert (await retried(opened, letter))[0] == 200
    assert (await retried(opened, letter))[0] == 409
    assert (await retried(opened, letter + 1))[0] == 404
    assert (await retried(opened, 2**63))[0] == 404
    assert (await opened.client.get(f"{LETTERS}/{letter + 1}")).status == 404


async def retried(served: Served, letter: int) -> tuple[int, dict]:
    reply = await served.client.ask("POST", f"{LETTERS}/{letter}/retry", None, {})
    return reply.status, reply.json
