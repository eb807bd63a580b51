"""Affiliates over HTTP: made, listed, shown with their days, paused and resumed, and their coupons."""

from __future__ import annotations

import asyncio
import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import UUID

import pytest

from counterfoil.database.queries import sql

PATH = "/api/affiliates"
PIXEL = "550e8400-e29b-41d4-a716-446655440000"
TODAY = datetime.now(UTC).date()


async def a_day(db, pixel: str = PIXEL, *, days_ago: int = 0, currency: str = "", **counts: object) -> None:
    """A row of the roll-up, as the ledgers' triggers would write it."""
    columns = {"pixel_id": pixel, "day": TODAY - timedelta(days=days_ago), "currency": currency, **counts}
    places = ", ".join(f"${index}" for index in range(1, len(columns) + 1))
    await db.execute(
        f"INSERT INTO affiliate_daily ({', '.join(columns)}) VALUES ({places})", *columns.values()
    )


async def an_affiliate(client, handle: str = "tech-blog-2025", **fields: object) -> dict[str, object]:
    reply = await client.post(PATH, {"handle": handle, "name": "Tech Blog", **fields})
    assert reply.status == 201, reply.body
    return reply.json


async def test_the_body_of_the_write_up_makes_an_active_affiliate(client, db) -> None:
    body = {"handle": "tech-blog-2025", "name": "Tech Blog Network", "status": "active"}
    reply = await client.post(PATH, body)
    assert reply.status == 201
    made = reply.json
    assert UUID(made.pop("pixelId")).version == 4
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", made.pop("createdAt"))
    assert isinstance(made.pop("id"), int)
    assert made == body | {
        "revenue30d": "0.00",
        "clicks30d": 0,
        "uniqueClicks30d": 0,
        "botClicks30d": 0,
        "conversions30d": 0,
        "commission30d": "0.00",
        "byCurrency": [],
        "couponCodes": [],
    }
    assert await db.fetchval("SELECT count(*) FROM affiliates") == 1


async def test_a_given_pixel_is_kept_in_its_usual_form(client) -> None:
    assert (await an_affiliate(client, pixelId=PIXEL.upper()))["pixelId"] == PIXEL


async def test_nothing_is_nil_yen(serve, pool) -> None:
    client = await serve(pool, default_currency="JPY")
    assert (await an_affiliate(client))["revenue30d"] == "0"


@pytest.mark.parametrize(("handle", "pixel", "field"), [("a", None, "handle"), ("b", PIXEL, "pixelId")])
async def test_what_is_taken_is_409_naming_it(client, db, handle, pixel, field: str) -> None:
    await an_affiliate(client, "a", pixelId=PIXEL)
    reply = await client.post(
        PATH, {"handle": handle, "name": "N", "status": "paused", "pixelId": pixel, "couponCodes": ["X"]}
    )
    assert reply.status == 409
    assert reply.headers["content-type"] == "application/problem+json"
    assert reply.json["errors"][0]["field"] == field
    assert await db.fetchval("SELECT count(*) FROM affiliates WHERE status = 'active'") == 1
    assert await db.fetchval("SELECT count(*) FROM affiliate_status_changes") == 1
    assert await db.fetchval("SELECT count(*) FROM affiliate_coupon_owners") == 0


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("handle", h) for h in ("", " ", "a b", "a/b", "é", "a\n", "a" * 256, "a%20", ".", "..", 5, None)),
        *(("name", n) for n in ("", "  ", "a\nb", "a\x00b", "\x85 \u2028", "a\x7fb", "n" * 256, None, [])),
        *(("status", s) for s in ("", "Active", "gone", None, 1)),
        *(("pixelId", p) for p in ("", "abc", 7, "550e8400-e29b-41d4-a716-44665544000g")),
        *(("couponCodes", c) for c in ("X", ["\x01"], [" "], [None], [7], ["x" * 256], None)),
        ("colour", "red"),
    ],
)
async def test_a_value_that_breaks_a_rule_is_422_naming_its_field(client, db, field, value) -> None:
    reply = await client.post(PATH, {"handle": "a", "name": "N"} | {field: value})
    assert reply.status == 422, reply.body
    error = reply.json["errors"][0]
    assert error["field"].startswith(field)
    assert error["rule"]
    assert await db.fetchval("SELECT count(*) FROM affiliates") == 0


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ("", 400),
        ("{", 400),
        ('{"handle": "a", "name": "\\ud800"}', 400),
        (b'{"handle": "a", "name": "\xff"}', 400),
        ("[" * 10_000, 422),
        ("[]", 422),
        ('"x"', 422),
        ("{}", 422),
        (" " * 20_000, 413),
    ],
)
async def test_a_body_that_is_no_affiliate_is_refused(client, body, status: int) -> None:
    reply = await client.post(PATH, body)
    assert reply.status == status, reply.body
    assert reply.headers["content-type"] == "application/problem+json"


async def test_hostile_names_are_kept_as_they_are(client) -> None:
    for index, name in enumerate(
        ("'; DROP TABLE affiliates; --", "<script>alert(1)</script>", "𝔘 🦊", "null")
    ):
        made = await an_affiliate(client, f"h{index}", name=name)
        assert made["name"] == name
    assert (await client.get(f"{PATH}/%27%20OR%201%3D1")).status == 404


async def test_a_repeat_under_one_key_makes_one_affiliate(client, db) -> None:
    body = {"handle": "a", "name": "N", "couponCodes": ["SPRING"]}
    replies = await asyncio.gather(*(client.post(PATH, body, idempotency_key="k") for _ in range(8)))
    assert {(reply.status, reply.body) for reply in replies} == {(201, replies[0].body)}
    assert await db.fetchval("SELECT count(*) FROM affiliates") == 1
    other = await client.post(PATH, body | {"handle": "b"}, idempotency_key="k")
    assert other.status == 422


async def test_of_many_that_want_one_handle_one_gets_it(client, db) -> None:
    replies = await asyncio.gather(*(client.post(PATH, {"handle": "a", "name": str(n)}) for n in range(12)))
    assert sorted(reply.status for reply in replies) == [201] + [409] * 11
    assert await db.fetchval("SELECT count(*) FROM affiliates") == 1


async def test_the_list_is_a_bare_array_by_handle_with_a_link_to_more(client) -> None:
    for handle in ("c", "B", "a", "b"):
        await an_affiliate(client, handle, status="paused" if handle == "b" else "active")
    assert [row["handle"] for row in (await client.get(PATH)).json] == ["B", "a", "b", "c"]
    assert [row["handle"] for row in (await client.get(f"{PATH}?status=paused")).json] == ["b"]
    first = await client.get(f"{PATH}?limit=2&status=active")
    assert [row["handle"] for row in first.json] == ["B", "a"]
    link = re.fullmatch(r'<([^>]*)>; rel="next"', first.headers["link"])
    assert link is not None
    assert [row["handle"] for row in (await client.get(link[1])).json] == ["c"]


@pytest.mark.parametrize("query", ["limit=0", "limit=1001", "offset=-1", "status=gone", "limit=x"])
async def test_a_wrong_parameter_of_the_list_is_422(client, query: str) -> None:
    reply = await client.get(f"{PATH}?{query}")
    assert reply.status == 422
    assert reply.json["errors"][0]["field"] == query.partition("=")[0]


async def test_metrics_are_those_of_30_days_and_of_each_currency(client, db) -> None:
    await an_affiliate(client, pixelId=PIXEL)
    await an_affiliate(client, "other")
    await a_day(db, clicks=5, unique_clicks=3, bot_clicks=2)
    await a_day(db, days_ago=29, clicks=1, unique_clicks=1)
    await a_day(db, days_ago=30, clicks=100, unique_clicks=100)
    await a_day(db, currency="USD", conversions=2, revenue=Decimal(1250), commission=Decimal("12.345"))
    await a_day(db, days_ago=1, currency="JPY", conversions=1, revenue=Decimal(900), commission=Decimal(9))
    await a_day(db, days_ago=30, currency="USD", conversions=7, revenue=Decimal(7))
    other, found = (await client.get(PATH)).json
    assert other["revenue30d"] == "0.00"
    assert (found["clicks30d"], found["uniqueClicks30d"], found["botClicks30d"]) == (6, 4, 2)
    assert (found["conversions30d"], found["revenue30d"], found["commission30d"]) == (3, "1250.00", "12.345")
    assert found["byCurrency"] == [
        {"currency": "JPY", "conversions30d": 1, "revenue30d": "900", "commission30d": "9"},
        {"currency": "USD", "conversions30d": 2, "revenue30d": "1250.00", "commission30d": "12.345"},
    ]
    assert found.items() <= (await client.get(f"{PATH}/tech-blog-2025")).json.items()


async def test_a_page_of_affiliates_is_read_by_index(db) -> None:
    """A statement for the page, and the metrics of each row by the key of the roll-up."""
    await db.execute(
        "INSERT INTO affiliates (handle, name) SELECT 'h' || n, 'n' FROM generate_series(1, 2000) n"
    )
    await db.execute(
        "INSERT INTO affiliate_daily (pixel_id, day, clicks) SELECT pixel_id, $1::date - d, 1"
        " FROM affiliates, generate_series(0, 9) d",
        TODAY,
    )
    await db.execute("ANALYZE")
    plan = await db.fetch(
        f"EXPLAIN {sql('list_affiliates')}".replace("$1", "NULL")
        .replace("$2", "NULL")
        .replace("$3", "50")
        .replace("$4", "0")
    )
    text = "\n".join(row[0] for row in plan)
    assert "Seq Scan on affiliate_daily" not in text, text
    assert "Seq Scan on affiliates" not in text, text


async def test_an_affiliate_is_shown_with_each_of_its_days(client, db) -> None:
    await an_affiliate(client, pixelId=PIXEL)
    await a_day(db, days_ago=1, clicks=5, unique_clicks=3, bot_clicks=2)
    await a_day(db, days_ago=1, currency="EUR", conversions=1, revenue=Decimal("10.5"), commission=Decimal(1))
    await a_day(db, days_ago=1, currency="USD", conversions=2, revenue=Decimal(3), commission=Decimal(0))
    await a_day(db, days_ago=3, clicks=9)
    shown = (await client.get(f"{PATH}/tech-blog-2025?days=3")).json
    empty = {
        "clicks": 0,
        "uniqueClicks": 0,
        "botClicks": 0,
        "conversions": 0,
        "revenue": {},
        "commission": {},
    }
    counted = {
        "clicks": 5,
        "uniqueClicks": 3,
        "botClicks": 2,
        "conversions": 3,
        "revenue": {"EUR": "10.50", "USD": "3.00"},
        "commission": {"EUR": "1.00", "USD": "0.00"},
    }
    days = [(TODAY - timedelta(days=n)).isoformat() for n in (2, 1, 0)]
    assert shown["daily"] == [
        {"day": days[0], **empty},
        {"day": days[1], **counted},
        {"day": days[2], **empty},
    ]
    assert counted.items() <= shown.items()
    assert shown["days"] == 3


@pytest.mark.parametrize("days", [1, 30, 366])
async def test_the_series_has_an_entry_for_each_day(client, days: int) -> None:
    await an_affiliate(client)
    shown = (await client.get(f"{PATH}/tech-blog-2025?days={days}")).json
    assert len(shown["daily"]) == days
    assert shown["daily"][-1]["day"] == TODAY.isoformat()
    assert [day["day"] for day in shown["daily"]] == sorted({day["day"] for day in shown["daily"]})


@pytest.mark.parametrize("days", ["0", "367", "-1", "x", "1.5", ""])
async def test_a_span_out_of_bounds_is_422(client, days: str) -> None:
    await an_affiliate(client)
    reply = await client.get(f"{PATH}/tech-blog-2025?days={days}")
    assert reply.status == 422
    assert reply.json["errors"][0]["field"] == "days"


async def test_an_unknown_handle_is_404(client) -> None:
    for reply in (
        await client.get(f"{PATH}/nobody"),
        await client.get(f"{PATH}/{'x' * 300}"),
        await client.patch(f"{PATH}/nobody", {"status": "paused"}),
    ):
        assert reply.status == 404
        assert reply.headers["content-type"] == "application/problem+json"
    assert (await client.get(f"{PATH}/%00")).status == 422


async def test_pausing_and_resuming_is_kept_as_history_once_a_change(client) -> None:
    await an_affiliate(client)
    for status in ("paused", "paused", "active", "active", "paused"):
        reply = await client.patch(f"{PATH}/tech-blog-2025", {"status": status})
        assert (reply.status, reply.json["status"]) == (200, status)
    history = (await client.get(f"{PATH}/tech-blog-2025")).json["statusHistory"]
    assert [entry["status"] for entry in history] == ["active", "paused", "active", "paused"]
    assert {entry["actor"] for entry in history} == {"admin-api"}
    assert [entry["validFrom"] for entry in history] == sorted(entry["validFrom"] for entry in history)


async def test_a_status_set_by_hand_is_history_too(client, db) -> None:
    await an_affiliate(client)
    await db.execute("UPDATE affiliates SET status = 'paused'")
    await client.patch(f"{PATH}/tech-blog-2025", {"status": "paused"})
    history = (await client.get(f"{PATH}/tech-blog-2025")).json["statusHistory"]
    assert [entry["status"] for entry in history] == ["active", "paused"]


async def test_only_what_is_sent_is_changed(client) -> None:
    made = await an_affiliate(client, couponCodes=["B", " A "])
    assert made["couponCodes"] == ["A", "B"]
    assert (await client.patch(f"{PATH}/tech-blog-2025", {})).json == made
    renamed = (await client.patch(f"{PATH}/tech-blog-2025", {"name": " New "})).json
    assert renamed == made | {"name": "New"}
    emptied = (await client.patch(f"{PATH}/tech-blog-2025", {"couponCodes": []})).json
    assert emptied == renamed | {"couponCodes": []}


@pytest.mark.parametrize(
    "change",
    [
        {"status": "gone"},
        {"status": None},
        {"name": ""},
        {"name": None},
        {"couponCodes": None},
        {"handle": "x"},
    ],
)
async def test_a_change_that_breaks_a_rule_is_422_and_changes_nothing(client, change) -> None:
    made = await an_affiliate(client, couponCodes=["A"])
    reply = await client.patch(f"{PATH}/tech-blog-2025", {"name": "New"} | change)
    assert reply.status == 422
    assert reply.json["errors"][0]["field"] == next(iter(change))
    assert (await client.get(PATH)).json == [made]


async def test_a_coupon_of_another_affiliate_is_409_naming_it_and_changes_nothing(client) -> None:
    first = await an_affiliate(client, "first", couponCodes=["A", "B"])
    second = await an_affiliate(client, "second", couponCodes=["C"])
    reply = await client.patch(f"{PATH}/second", {"name": "New", "couponCodes": ["B", "D"]})
    assert reply.status == 409
    assert [error["rule"].split()[0] for error in reply.json["errors"]] == ["B"]
    assert (await client.get(PATH)).json == [first, second]
    await client.patch(f"{PATH}/first", {"couponCodes": ["A"]})
    assert (await client.patch(f"{PATH}/second", {"couponCodes": ["B", "D"]})).json["couponCodes"] == [
        "B",
        "D",
    ]


async def test_coupon_codes_are_in_the_case_that_is_set(serve, pool) -> None:
    client = await serve(pool, code_case="upper")
    assert (await an_affiliate(client, couponCodes=["spring", "Spring"]))["couponCodes"] == ["SPRING"]


async def test_changes_at_once_wait_for_each_other(client, db) -> None:
    """Both ledgers' locks are taken before the first row, or some of these would meet in a deadlock."""
    for handle in ("a", "b"):
        await an_affiliate(client, handle)
    changes = [
        client.patch(f"{PATH}/{handle}", {"status": status, "couponCodes": [f"{handle}-{status}"]})
        for _ in range(10)
        for handle, status in (("a", "paused"), ("b", "paused"), ("a", "active"), ("b", "active"))
    ]
    assert {reply.status for reply in await asyncio.gather(*changes)} == {200}
    assert await db.fetchval("SELECT count(*) FROM affiliate_coupon_owners") == 2


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", PATH),
        ("POST", PATH),
        ("GET", f"{PATH}/a"),
        ("PATCH", f"{PATH}/a"),
        ("POST", f"{PATH}/track/conversion"),
        ("GET", f"{PATH}/track/click"),
        ("OPTIONS", PATH),
        ("OPTIONS", f"{PATH}/track/conversion"),
    ],
)
async def test_all_but_clicks_is_401_without_the_token(serve, method: str, path: str) -> None:
    client = await serve(token="s3cret")
    client.token = None
    reply = await client.ask(method, path, "{}", {"content-type": "application/json"})
    assert reply.status == 401
    assert "access-control-allow-origin" not in reply.headers


async def test_an_absent_database_is_503(serve) -> None:
    client = await serve(None)
    assert (await client.get(PATH)).status == 503
    assert (await client.post(PATH, {"handle": "a", "name": "N"})).status == 503


async def test_the_openapi_document_has_the_routes_and_their_bodies(serve) -> None:
    document = (await (await serve()).get("/docs/openapi")).json
    paths = document["paths"]
    assert set(paths[PATH]) == {"get", "post"}
    assert set(paths[f"{PATH}/{{handle}}"]) == {"get", "patch"}
    click = paths[f"{PATH}/track/click"]["post"]
    assert {"pixelId", "clickId", "landingPage", "referrer", "linkId", "timestamp"} <= set(
        click["requestBody"]["content"]["application/json"]["schema"]["properties"]
    )
    assert "202" in click["responses"]
    assert click["security"] == [{}]
    assert "202" in paths[f"{PATH}/track/conversion"]["post"]["responses"]
    assert {entry["name"] for entry in paths[PATH]["get"]["parameters"]} == {
        "status",
        "limit",
        "offset",
        "at",
    }
