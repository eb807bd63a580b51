"""Clicks and conversions reported by HTTP: checked by the rules of their topics, published, answered 202."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from counterfoil.events import Click, Conversion

CLICK = "/api/affiliates/track/click"
CONVERSION = "/api/affiliates/track/conversion"
PIXEL = "550e8400-e29b-41d4-a716-446655440000"
BODY = {"pixelId": PIXEL, "landingPage": "/products/widget-pro", "referrer": "https://techblog.example.com"}
SALE = {"pixelId": PIXEL, "orderId": "ORD-1", "revenue": 99.99, "commission": 9.99}
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOUR_AGO = datetime.now(UTC) - timedelta(hours=1)


@pytest.fixture
async def platform(serve, pool, kept) -> Any:
    """A client that has the token."""
    return await serve(pool, "s3cret", publisher=kept)


@pytest.fixture
def visitor(platform) -> Any:
    """A client of the same server without the token."""
    return type(platform)(platform.port)


async def an_attribution(
    db: asyncpg.Connection, order_id: str, at: datetime, origin: str = "conversion"
) -> None:
    """An order that is attributed, as settling would have it."""
    await db.execute(
        "INSERT INTO aff_attributions (order_id, pixel_id, beneficiary, origin, revenue, commission, currency,"
        " rate_source, occurred_at) VALUES ($1, $2, 'pixel:' || $2, $3, 5, 0, 'USD', 'default', $4)",
        order_id,
        PIXEL,
        origin,
        at,
    )


# Clicks


async def test_the_click_of_the_write_up_is_published_and_answered_202(visitor, kept) -> None:
    before = datetime.now(UTC)
    reply = await visitor.post(CLICK, BODY, user_agent="Mozilla/5.0 (X11; Linux)")
    assert reply.status == 202
    assert reply.json.keys() == {"success", "clickId"}
    assert reply.json["success"] is True
    assert UUID(reply.json["clickId"]).version == 7
    (click,) = kept.events
    assert click == Click(
        click_id=reply.json["clickId"],
        pixel_id=PIXEL,
        landing_page="/products/widget-pro",
        referrer="https://techblog.example.com",
        ip_address="127.0.0.1",
        user_agent="Mozilla/5.0 (X11; Linux)",
        timestamp=click.timestamp,
    )
    assert before - timedelta(milliseconds=1) <= click.timestamp <= datetime.now(UTC)


async def test_a_click_in_snake_case_with_an_id_and_a_time_keeps_them(visitor, kept) -> None:
    body = {
        "pixel_id": PIXEL,
        "click_id": "c-1",
        "link_id": 7,
        "landing_page": "/",
        "timestamp": HOUR_AGO.isoformat(),
    }
    replies = [await visitor.post(CLICK, body), await visitor.post(CLICK, body)]
    assert {reply.body for reply in replies} == {b'{"clickId":"c-1","success":true}'}
    assert kept.events[0] == kept.events[1]
    assert (kept.events[0].timestamp, kept.events[0].link_id) == (HOUR_AGO, "7")


async def test_of_two_spellings_the_one_that_says_something_counts(visitor, kept) -> None:
    await visitor.post(
        CLICK, {"pixelId": PIXEL, "pixel_id": None, "clickId": "", "unknown": [1, {"data": {}}]}
    )
    assert kept.events[0].pixel_id == PIXEL
    assert UUID(kept.events[0].click_id).version == 7


async def test_a_visitor_speaks_only_for_itself(visitor, kept) -> None:
    body = BODY | {"ipAddress": "198.51.100.1", "ip_address": "198.51.100.2", "userAgent": "Forged"}
    await visitor.post(CLICK, body, user_agent="Real", x_forwarded_for="198.51.100.3")
    assert (kept.events[0].ip_address, kept.events[0].user_agent) == ("127.0.0.1", "Real")


async def test_the_platform_may_speak_for_its_visitor(platform, kept) -> None:
    await platform.post(CLICK, BODY | {"ipAddress": "198.51.100.1", "userAgent": "Real"}, user_agent="node")
    await platform.post(CLICK, BODY | {"ip_address": "198.51.100.2"}, user_agent="node")
    await platform.post(CLICK, BODY, user_agent="node")
    found = [(click.ip_address, click.user_agent) for click in kept.events]
    assert found == [("198.51.100.1", "Real"), ("198.51.100.2", None), ("127.0.0.1", "node")]


async def test_the_platform_may_tell_of_older_clicks(platform, kept) -> None:
    assert (await platform.post(CLICK, BODY | {"timestamp": NOON.isoformat()})).status == 202
    assert kept.events[0].timestamp == NOON


async def test_a_trusted_proxy_says_whose_click_it_is(serve, kept) -> None:
    client = await serve(publisher=kept, trusted_proxies="127.0.0.0/8")
    await client.post(CLICK, BODY, x_forwarded_for="6.6.6.6, 198.51.100.1")
    assert kept.events[0].ip_address == "198.51.100.1"


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"pixelId": None}, "pixelId"),
        ({"pixelId": "  "}, "pixelId"),
        ({"pixelId": "a\x00b"}, "pixelId"),
        ({"pixelId": "x" * 256}, "pixelId"),
        ({"pixelId": 1.5}, "pixelId"),
        ({"pixelId": True}, "pixelId"),
        ({"pixelId": {"a": 1}}, "pixelId"),
        ({"clickId": "\u202e"}, "clickId"),
        ({"linkId": []}, "linkId"),
        ({"referrer": 5}, "referrer"),
        ({"landingPage": []}, "landingPage"),
        ({"timestamp": "yesterday"}, "timestamp"),
        ({"timestamp": "2026-03-01"}, "timestamp"),
        ({"timestamp": 1e400}, "timestamp"),
        ({"timestamp": "1999-01-01T00:00:00Z"}, "timestamp"),
        ({"timestamp": (datetime.now(UTC) - timedelta(hours=25)).isoformat()}, "timestamp"),
        ({"timestamp": (datetime.now(UTC) + timedelta(days=2)).isoformat()}, "timestamp"),
    ],
)
async def test_a_click_that_breaks_a_rule_is_422_naming_the_field(visitor, kept, change, field: str) -> None:
    reply = await visitor.post(CLICK, json.dumps(BODY | change).replace("Infinity", "1e400"))
    assert reply.status == 422, reply.body
    assert reply.headers["content-type"] == "application/problem+json"
    assert reply.json["errors"][0]["field"] == field
    assert kept.events == []


async def test_what_an_outsider_controls_never_costs_a_click(visitor, kept) -> None:
    body = '{"pixelId": "p", "referrer": "\\ud800\\u0000a\\u001b[31m", "landingPage": "%s"}' % ("x" * 9_000)
    reply = await visitor.post(CLICK, body, user_agent="\xff\xfe" + "u" * 5_000)
    assert reply.status == 202
    (click,) = kept.events
    assert click.referrer == "\ufffda[31m"
    assert (len(click.landing_page), len(click.user_agent)) == (2_048, 1_024)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ("", 400),
        ("{", 400),
        ("pixelId=p", 400),
        ('{"pixelId": NaN}', 400),
        (b'{"pixelId": "\xff"}', 400),
        ('{"pixelId": "p", "x": ' + "[" * 8_000 + "]" * 8_000 + "}", 400),
        ('{"pixelId": ' + "[" * 8_000 + "]" * 8_000 + "}", 400),
        ("[]", 400),
        ("null", 400),
        ("{}", 422),
        ('{"pixelId": "p", "x": "' + "x" * 16_384 + '"}', 413),
    ],
)
async def test_a_body_that_is_no_click_is_refused(visitor, kept, body, status: int) -> None:
    reply = await visitor.post(CLICK, body)
    assert reply.status == status, reply.body
    assert reply.headers["content-type"] == "application/problem+json"
    assert kept.events == []


@pytest.mark.parametrize("kind", ["text/plain;charset=UTF-8", "application/x-www-form-urlencoded", "", "x"])
async def test_a_beacon_is_taken_whatever_it_calls_its_content(visitor, kept, kind: str) -> None:
    reply = await visitor.post(CLICK, BODY, content_type=kind)
    assert reply.status == 202
    assert kept.events[0].pixel_id == PIXEL


async def test_a_page_of_any_origin_may_report_a_click_and_read_the_answer(serve, kept) -> None:
    for token in ("s3cret", None):
        client = await serve(None, token, publisher=kept)
        client.token = None
        asked = {"origin": "https://shop.example", "access-control-request-method": "POST"}
        preflight = await client.ask("OPTIONS", CLICK, None, asked)
        assert preflight.status == 204
        assert preflight.headers["access-control-allow-origin"] == "*"
        assert preflight.headers["access-control-allow-methods"] == "POST"
        assert preflight.headers["access-control-allow-headers"] == "content-type"
        reply = await client.post(CLICK, BODY, origin="https://shop.example", host="track.shop.example")
        assert reply.status == 202
        assert reply.headers["access-control-allow-origin"] == "*"
        refused = await client.post(CLICK, "{", origin="https://shop.example")
        assert (refused.status, refused.headers["access-control-allow-origin"]) == (400, "*")


async def test_without_a_token_other_sites_report_clicks_for_themselves_and_reach_nothing_else(
    serve, pool, kept
) -> None:
    client = await serve(pool, publisher=kept)
    forged = BODY | {"ipAddress": "198.51.100.1"}
    await client.post(CLICK, forged, origin="https://shop.example")
    await client.post(CLICK, forged)  # a program on this machine
    assert [click.ip_address for click in kept.events] == ["127.0.0.1", "198.51.100.1"]
    for headers in ({"origin": "https://shop.example"}, {"host": "evil.example"}):
        assert (await client.post(CONVERSION, SALE, **headers)).status == 403
        assert (await client.get("/api/affiliates", **headers)).status == 403


async def test_clicks_over_the_limit_are_429_by_address_and_the_platform_is_spared(serve, kept) -> None:
    client = await serve(None, "s3cret", publisher=kept, rate_limit_per_minute=3, trusted_proxies="127.0.0.1")
    visitor = type(client)(client.port)

    async def status(sender, address: str) -> int:
        return (await sender.post(CLICK, BODY, x_forwarded_for=address)).status

    assert [await status(visitor, "198.51.100.1") for _ in range(5)] == [202, 202, 202, 429, 429]
    assert await status(visitor, "6.6.6.6, 198.51.100.1") == 429
    assert [await status(visitor, f"2001:db8::{n}") for n in range(1, 5)] == [202, 202, 202, 429]
    assert await status(visitor, "198.51.100.2") == 202
    assert [await status(client, "198.51.100.1") for _ in range(5)] == [202] * 5
    reply = await visitor.post(CLICK, BODY, x_forwarded_for="198.51.100.1")
    assert reply.headers["content-type"] == "application/problem+json"
    assert 0 < int(reply.headers["retry-after"]) <= 60
    assert reply.headers["access-control-allow-origin"] == "*"


async def test_the_limit_is_of_public_endpoints_alone_and_0_is_none(serve, kept, pool) -> None:
    client = await serve(pool, publisher=kept, rate_limit_per_minute=1)
    assert [(await client.post(CLICK, BODY)).status for _ in range(2)] == [202, 429]
    assert [(await client.get("/api/affiliates")).status for _ in range(3)] == [200] * 3
    unlimited = await serve(pool, publisher=kept, rate_limit_per_minute=0)
    assert {(await unlimited.post(CLICK, BODY)).status for _ in range(5)} == {202}


async def test_clicks_need_no_database(serve, kept) -> None:
    client = await serve(None, publisher=kept)
    assert (await client.post(CLICK, BODY)).status == 202


async def test_without_kafka_it_is_503_and_kafka_s_address_stays_ours(platform, kept) -> None:
    kept.away = True
    for path, body in ((CLICK, BODY), (CONVERSION, SALE)):
        reply = await platform.post(path, body)
        assert reply.status == 503
        assert reply.headers["content-type"] == "application/problem+json"
        assert int(reply.headers["retry-after"]) > 0
        assert b"kafka.internal" not in reply.body
    kept.away = False
    assert (await platform.post(CLICK, BODY)).status == 202


# Conversions


async def test_the_conversion_of_the_write_up_is_published_and_answered_202(platform, kept) -> None:
    reply = await platform.post(CONVERSION, SALE)
    assert reply.status == 202
    assert reply.json == {"success": True, "attributionId": "ORD-1"}
    (conversion,) = kept.events
    assert conversion == Conversion(
        order_id="ORD-1",
        pixel_id=PIXEL,
        revenue=Decimal("99.99"),
        commission=Decimal("9.99"),
        currency="USD",
        timestamp=conversion.timestamp,
    )
    assert abs(datetime.now(UTC) - conversion.timestamp) < timedelta(seconds=10)


@pytest.mark.parametrize("amount", ["0.1000005", '"12345678901234.123456"', "1e-3", "90071992547409.93", "0"])
async def test_money_is_read_as_it_is_written(platform, kept, amount: str) -> None:
    body = f'{{"linkId": "l", "orderId": 7, "revenue": {amount}, "currency": "eur"}}'
    assert (await platform.post(CONVERSION, body)).status == 202
    (conversion,) = kept.events
    assert conversion.revenue == Decimal(amount.strip('"')).quantize(Decimal("0.000001"))
    assert (conversion.order_id, conversion.currency, conversion.commission) == ("7", "EUR", None)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"orderId": ""}, "orderId"),
        ({"orderId": None}, "orderId"),
        ({"pixelId": None}, "pixelId"),
        ({"pixelId": " ", "linkId": ""}, "pixelId"),
        ({"revenue": None}, "revenue"),
        ({"revenue": -1}, "revenue"),
        ({"revenue": 10**14}, "revenue"),
        ({"revenue": "1,50"}, "revenue"),
        ({"revenue": True}, "revenue"),
        ({"revenue": []}, "revenue"),
        ({"commission": "x"}, "commission"),
        ({"currency": "EURO"}, "currency"),
        ({"currency": 5}, "currency"),
        ({"clickId": "a\nb"}, "clickId"),
        ({"timestamp": 5}, "timestamp"),
    ],
)
async def test_a_conversion_that_breaks_a_rule_is_422_naming_the_field(platform, kept, change, field) -> None:
    reply = await platform.post(CONVERSION, SALE | change)
    assert reply.status == 422, reply.body
    assert reply.json["errors"][0]["field"] == field
    assert kept.events == []


@pytest.mark.parametrize(
    ("known", "status"), [(timedelta(0), 409), (timedelta(seconds=-1), 409), (timedelta(microseconds=1), 202)]
)
async def test_an_order_that_is_converted_is_409_unless_this_one_is_earlier(
    platform, kept, db, known: timedelta, status: int
) -> None:
    await an_attribution(db, "ORD-1", NOON + known)
    reply = await platform.post(CONVERSION, SALE | {"timestamp": "2026-03-01T12:00:00Z"})
    assert reply.status == status
    assert len(kept.events) == (status == 202)
    if status == 409:
        assert reply.headers["content-type"] == "application/problem+json"
        assert reply.json["errors"][0]["field"] == "orderId"


async def test_what_a_coupon_has_attributed_a_conversion_may_claim(platform, kept, db) -> None:
    await an_attribution(db, "ORD-1", NOON, origin="coupon")
    assert (await platform.post(CONVERSION, SALE)).status == 202


async def test_no_connection_is_held_while_kafka_is_waited_for(serve, database_url) -> None:
    entered, acknowledged = asyncio.Event(), asyncio.Event()

    class Slow:
        async def publish(self, _event: object) -> None:
            entered.set()
            await acknowledged.wait()

    async with asyncpg.create_pool(database_url, min_size=0, max_size=1) as one:
        client = await serve(one, publisher=Slow())
        asking = asyncio.create_task(client.post(CONVERSION, SALE))
        await entered.wait()
        assert (await client.get("/api/affiliates")).status == 200
        acknowledged.set()
        assert (await asking).status == 202


async def test_a_conversion_must_say_that_it_is_json(platform) -> None:
    assert (await platform.post(CONVERSION, SALE, content_type="text/plain")).status == 415
