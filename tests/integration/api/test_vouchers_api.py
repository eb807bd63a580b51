"""Scans, claims and redemptions reported by HTTP: checked by the rules of their topics, published, answered 202."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote
from uuid import UUID

import asyncpg
import pytest

from counterfoil.app import HTTP_ROUTES, REPORTED_TOPICS
from counterfoil.events import Claim, Redemption, Scan
from counterfoil.settings import DEFAULT_TOPICS

VOUCHER = "7d444840-9dc0-11d1-b245-5ffdce74fad2"
PATH = f"/api/v1/vouchers/{VOUCHER}"
SCAN, CLAIM, REDEEM = f"{PATH}/scan", f"{PATH}/claim", f"{PATH}/redeem"
SCANNED = {"scanType": "CUSTOMER", "scanSource": "CAMERA"}
CLAIMED = {"customerId": "c-1"}
TRIED = {"businessId": "b-1", "customerId": "c-1", "successful": True}
REPORTS = [(SCAN, SCANNED), (CLAIM, CLAIMED), (REDEEM, TRIED)]
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


# Scans


async def test_a_scan_of_an_anonymous_visitor_is_published_and_answered_202(visitor, kept) -> None:
    before = datetime.now(UTC)
    body = SCANNED | {
        "deviceInfo": {"os": "iOS 19", "deviceId": "d-1"},
        "location": {"city": "Bern", "country": "CH"},
        "metadata": {"poster": 7},
    }
    reply = await visitor.post(SCAN, body, user_agent="Mozilla/5.0 (iPhone)")
    assert reply.status == 202
    assert reply.json.keys() == {"success", "scanId"}
    assert reply.json["success"] is True
    assert UUID(reply.json["scanId"]).version == 7
    (scan,) = kept.events
    assert json.loads(scan.to_json()) == {
        "scan_id": reply.json["scanId"],
        "voucher_id": VOUCHER,
        "scan_type": "CUSTOMER",
        "scan_source": "CAMERA",
        "device_info": {"deviceId": "d-1", "os": "iOS 19"},
        "location": {"city": "Bern", "country": "CH"},
        "metadata": {"poster": 7},
        "ip_address": "127.0.0.1",
        "user_agent": "Mozilla/5.0 (iPhone)",
        "timestamp": scan.timestamp.isoformat().replace("+00:00", "Z"),
    }
    assert before - timedelta(milliseconds=1) <= scan.timestamp <= datetime.now(UTC)


async def test_a_scan_with_an_id_and_a_time_keeps_them(visitor, kept) -> None:
    body = {
        "scan_id": "s-1",
        "user_id": 7,
        "scan_type": " business ",
        "scan_source": "link",
        "timestamp": HOUR_AGO.isoformat(),
    }
    replies = [await visitor.post(SCAN, body), await visitor.post(SCAN, body)]
    assert [reply.json for reply in replies] == [{"success": True, "scanId": "s-1"}] * 2
    assert kept.events[0] == kept.events[1]
    scan = kept.events[0]
    assert (scan.timestamp, scan.user_id, scan.scan_type, scan.scan_source) == (
        HOUR_AGO,
        "7",
        "BUSINESS",
        "LINK",
    )


async def test_a_visitor_speaks_only_for_itself_but_names_its_user(visitor, kept) -> None:
    body = SCANNED | {"userId": "u-1", "ipAddress": "198.51.100.1", "userAgent": "Forged"}
    await visitor.post(SCAN, body, user_agent="Real", x_forwarded_for="198.51.100.3")
    (scan,) = kept.events
    assert (scan.ip_address, scan.user_agent, scan.user_id) == ("127.0.0.1", "Real", "u-1")


async def test_the_platform_may_speak_for_its_visitor_and_of_the_past(platform, kept) -> None:
    of_another = {"ipAddress": "198.51.100.1", "userAgent": "Real", "timestamp": NOON.isoformat()}
    assert (await platform.post(SCAN, SCANNED | of_another, user_agent="node")).status == 202
    await platform.post(SCAN, SCANNED, user_agent="node")
    found = [(scan.ip_address, scan.user_agent) for scan in kept.events]
    assert found == [("198.51.100.1", "Real"), (None, None)]  # not the platform's own server
    assert kept.events[0].timestamp == NOON


async def test_a_trusted_proxy_says_who_scans(serve, kept) -> None:
    client = await serve(publisher=kept, trusted_proxies="127.0.0.0/8")
    await client.post(SCAN, SCANNED, x_forwarded_for="6.6.6.6, 198.51.100.1")
    assert kept.events[0].ip_address == "198.51.100.1"


@pytest.mark.parametrize("kind", ["text/plain;charset=UTF-8", "application/x-www-form-urlencoded", ""])
async def test_a_beacon_is_taken_whatever_it_calls_its_content(visitor, kept, kind: str) -> None:
    assert (await visitor.post(SCAN, SCANNED, content_type=kind)).status == 202
    assert kept.events[0].voucher_id == VOUCHER


async def test_a_page_of_any_origin_may_report_a_scan_and_nothing_else(visitor) -> None:
    asked = {"origin": "https://app.example", "access-control-request-method": "POST"}
    preflight = await visitor.ask("OPTIONS", SCAN, None, asked)
    assert (preflight.status, preflight.headers["access-control-allow-origin"]) == (204, "*")
    reply = await visitor.post(SCAN, SCANNED, origin="https://app.example")
    assert (reply.status, reply.headers["access-control-allow-origin"]) == (202, "*")
    for path in (CLAIM, REDEEM, f"{PATH}/analytics"):
        refused = await visitor.ask("OPTIONS", path, None, asked)
        assert refused.status == 401
        assert "access-control-allow-origin" not in refused.headers


async def test_scans_need_no_database(serve, kept) -> None:
    client = await serve(None, publisher=kept)
    assert (await client.post(SCAN, SCANNED)).status == 202


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"scanType": None}, "scanType"),
        ({"scanType": "ROBOT"}, "scanType"),
        ({"scanType": 5}, "scanType"),
        ({"scanSource": ""}, "scanSource"),
        ({"scanSource": "FAX"}, "scanSource"),
        ({"scanId": "\u202e"}, "scanId"),
        ({"userId": {"a": 1}}, "userId"),
        ({"userId": "x" * 256}, "userId"),
        ({"deviceInfo": []}, "deviceInfo"),
        ({"location": "Bern"}, "location"),
        ({"metadata": 1}, "metadata"),
        ({"timestamp": "yesterday"}, "timestamp"),
        ({"timestamp": (datetime.now(UTC) - timedelta(hours=25)).isoformat()}, "timestamp"),
        ({"timestamp": (datetime.now(UTC) + timedelta(hours=1)).isoformat()}, "timestamp"),
        ({"timestamp": (datetime.now(UTC) + timedelta(days=2)).isoformat()}, "timestamp"),
    ],
)
async def test_a_scan_that_breaks_a_rule_is_422_naming_the_field(visitor, kept, change, field: str) -> None:
    reply = await visitor.post(SCAN, SCANNED | change)
    assert reply.status == 422, reply.body
    assert reply.headers["content-type"] == "application/problem+json"
    assert reply.json["errors"][0]["field"] == field
    assert kept.events == []


async def test_what_an_outsider_controls_never_costs_a_scan(visitor, kept) -> None:
    body = (
        '{"scanType": "CUSTOMER", "scanSource": "CAMERA", "deviceInfo": {"a\\u0000": "\\ud800", "n": 1e999999},'
        ' "metadata": {"text": "%s"}}' % ("x" * 15_000)
    )
    reply = await visitor.post(SCAN, body, user_agent="\xff\xfe" + "u" * 5_000)
    assert reply.status == 202
    (scan,) = kept.events
    assert json.loads(scan.device_info) == {"a": "\ufffd", "n": "1e999999"}
    assert len(scan.user_agent) == 1_024


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ("", 400),
        ("{", 400),
        ("[]", 400),
        ("null", 400),
        ('{"scanType": NaN}', 400),
        (b'{"scanType": "\xff"}', 400),
        ('{"x": ' + "[" * 8_000 + "]" * 8_000 + "}", 400),
        ("{}", 422),
        ('{"scanType": "CUSTOMER", "scanSource": "LINK", "x": "' + "x" * 16_384 + '"}', 413),
    ],
)
async def test_a_body_that_is_no_scan_is_refused(visitor, kept, body, status: int) -> None:
    reply = await visitor.post(SCAN, body)
    assert reply.status == status, reply.body
    assert reply.headers["content-type"] == "application/problem+json"
    assert kept.events == []


# What the path names


@pytest.mark.parametrize(("path", "body"), REPORTS)
@pytest.mark.parametrize(
    "named",
    [
        {},
        {"voucherId": VOUCHER},
        {"voucher_id": VOUCHER.upper()},
        {"voucherId": None, "voucher_id": None},
        {"voucherId": "", "voucher_id": " "},
        {"voucher_id": None, "voucherId": VOUCHER},
    ],
)
async def test_the_body_need_not_name_the_voucher(platform, kept, path: str, body, named) -> None:
    assert (await platform.post(path, body | named)).status == 202
    assert (await platform.post(path, f" \n{json.dumps(body | named)[:-1]} \t}}\r\n")).status == 202
    assert {event.voucher_id for event in kept.events} == {VOUCHER}


@pytest.mark.parametrize(("path", "body"), REPORTS)
@pytest.mark.parametrize("named", [{"voucherId": "another"}, {"voucher_id": 7}])
async def test_a_body_that_names_another_voucher_is_422(platform, kept, path: str, body, named) -> None:
    reply = await platform.post(path, body | named)
    assert reply.status == 422
    assert reply.json["errors"][0]["field"] == "voucherId"
    assert kept.events == []


@pytest.mark.parametrize("named", ["%00", "x" * 256, "%E2%80%8B", "%20", "a%0Ab"])
async def test_a_path_that_names_no_voucher_is_422(platform, kept, named: str) -> None:
    for what, body in (("scan", SCANNED), ("claim", CLAIMED), ("redeem", TRIED)):
        reply = await platform.post(f"/api/v1/vouchers/{named}/{what}", body)
        assert reply.status == 422, (what, reply.body)
        assert reply.json["errors"][0]["field"] == "voucherId"
    assert kept.events == []


@pytest.mark.parametrize("path", ["/api/v1/vouchers/%FF%FE/scan", "/api/v1/vouchers/a%C3/scan"])
async def test_a_path_that_is_not_utf8_is_400(platform, visitor, kept, path: str) -> None:
    for client in (platform, visitor):
        reply = await client.post(path, SCANNED)
        assert (reply.status, reply.headers["content-type"]) == (400, "application/problem+json")
    assert (await visitor.post("/api/v1/vouchers/%FF/claim", CLAIMED)).status == 401
    assert kept.events == []


@pytest.mark.parametrize("voucher_id", ["42", "Été-\u65e5\u672c", 'a"b\\c', "a b+c%d"])
async def test_any_id_may_stand_in_the_path(visitor, kept, voucher_id: str) -> None:
    reply = await visitor.post(f"/api/v1/vouchers/{quote(voucher_id)}/scan", SCANNED)
    assert reply.status == 202, reply.body
    assert kept.events[0].voucher_id == voucher_id


async def test_the_id_in_the_path_is_read_by_the_rules_of_ids(visitor, kept) -> None:
    await visitor.post(f"/api/v1/vouchers/%20{VOUCHER.upper()}/scan", SCANNED)
    assert kept.events[0].voucher_id == VOUCHER


# Claims


async def test_a_claim_is_published_and_answered_202(platform, kept) -> None:
    reply = await platform.post(CLAIM, CLAIMED | {"metadata": {"b": 7, "a": None}})
    assert reply.status == 202
    assert reply.json == {"success": True, "voucherId": VOUCHER, "customerId": "c-1"}
    (claim,) = kept.events
    assert claim == Claim(
        voucher_id=VOUCHER, customer_id="c-1", metadata='{"a": null, "b": 7}', timestamp=claim.timestamp
    )
    assert abs(datetime.now(UTC) - claim.timestamp) < timedelta(seconds=10)


@pytest.mark.parametrize(
    ("known", "status"), [(timedelta(0), 409), (timedelta(seconds=-1), 409), (timedelta(microseconds=1), 202)]
)
@pytest.mark.parametrize("state", ["CLAIMED", "EXPIRED", "REDEEMED"])
async def test_a_voucher_that_is_claimed_is_409_unless_this_claim_is_earlier(
    platform, kept, db, known: timedelta, status: int, state: str
) -> None:
    await db.execute(
        "INSERT INTO customer_vouchers (customer_id, voucher_id, claimed_at, status) VALUES ('c-1', $1, $2, $3)",
        VOUCHER,
        NOON + known,
        state,
    )
    reply = await platform.post(CLAIM, CLAIMED | {"timestamp": "2026-03-01T12:00:00Z"})
    assert reply.status == status
    assert len(kept.events) == (status == 202)
    if status == 409:
        assert reply.headers["content-type"] == "application/problem+json"
        assert reply.json["claimedAt"] == (NOON + known).isoformat(timespec="milliseconds")[:-6] + "Z"
        assert reply.json["errors"][0]["field"] == "customerId"
        assert reply.json["claimedAt"] in reply.json["errors"][0]["rule"]


async def test_a_redemption_without_claim_is_no_claim_nor_is_another_s(platform, kept, db) -> None:
    await db.execute(
        "INSERT INTO redemption_attempts (attempt_id, voucher_id, business_id, customer_id, successful, attempted_at)"
        " VALUES ('a', $1, 'b', 'c-1', true, $2)",
        VOUCHER,
        NOON,
    )
    await db.execute(
        "INSERT INTO customer_vouchers (customer_id, voucher_id) VALUES ('c-2', $1), ('c-1', 'another')",
        VOUCHER,
    )
    assert (await platform.post(CLAIM, CLAIMED)).status == 202
    assert len(kept.events) == 1


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"customerId": None}, "customerId"),
        ({"customerId": " "}, "customerId"),
        ({"customerId": "a\x00b"}, "customerId"),
        ({"customerId": 1.5}, "customerId"),
        ({"metadata": "x"}, "metadata"),
        ({"timestamp": 5}, "timestamp"),
    ],
)
async def test_a_claim_that_breaks_a_rule_is_422_naming_the_field(platform, kept, change, field: str) -> None:
    reply = await platform.post(CLAIM, CLAIMED | change)
    assert reply.status == 422, reply.body
    assert reply.json["errors"][0]["field"] == field
    assert kept.events == []


async def test_a_claim_that_cannot_be_looked_up_is_503(serve, kept) -> None:
    client = await serve(None, publisher=kept)
    reply = await client.post(CLAIM, CLAIMED)
    assert (reply.status, reply.headers["retry-after"]) == (503, "5")
    assert kept.events == []


async def test_no_connection_is_held_while_kafka_is_waited_for(serve, database_url) -> None:
    entered, acknowledged = asyncio.Event(), asyncio.Event()

    class Slow:
        async def publish(self, _event: object) -> None:
            entered.set()
            await acknowledged.wait()

    async with asyncpg.create_pool(database_url, min_size=0, max_size=1) as one:
        client = await serve(one, publisher=Slow())
        asking = asyncio.create_task(client.post(CLAIM, CLAIMED))
        await entered.wait()
        assert (await client.get("/api/v1/customers/c-1/wallet")).status == 200
        acknowledged.set()
        assert (await asking).status == 202


# Redemptions


async def test_an_attempt_is_published_and_answered_202(platform, kept) -> None:
    reply = await platform.post(REDEEM, TRIED)
    assert reply.status == 202
    assert reply.json.keys() == {"success", "attemptId"}
    assert UUID(reply.json["attemptId"]).version == 7
    (attempt,) = kept.events
    assert attempt == Redemption(
        voucher_id=VOUCHER,
        business_id="b-1",
        customer_id="c-1",
        successful=True,
        attempt_id=reply.json["attemptId"],
        timestamp=attempt.timestamp,
    )


async def test_a_failed_attempt_is_published_too_and_keeps_its_id(platform, kept) -> None:
    body = {"businessId": 9, "successful": False, "failureReason": "EXPIRED", "attemptId": "a-1"}
    reply = await platform.post(REDEEM, body)
    assert reply.json == {"success": True, "attemptId": "a-1"}
    (attempt,) = kept.events
    assert (attempt.successful, attempt.failure_reason, attempt.customer_id) == (False, "EXPIRED", None)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"businessId": ""}, "businessId"),
        ({"successful": None}, "successful"),
        ({"successful": "yes"}, "successful"),
        ({"successful": 1}, "successful"),
        ({"attemptId": []}, "attemptId"),
        ({"failureReason": 5}, "failureReason"),
        ({"deviceInfo": "x"}, "deviceInfo"),
        ({"location": []}, "location"),
        ({"timestamp": "2026-03-01"}, "timestamp"),
    ],
)
async def test_an_attempt_that_breaks_a_rule_is_422_naming_the_field(
    platform, kept, change, field: str
) -> None:
    reply = await platform.post(REDEEM, TRIED | change)
    assert reply.status == 422, reply.body
    assert reply.json["errors"][0]["field"] == field
    assert kept.events == []


# Who may


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", CLAIM),
        ("POST", REDEEM),
        ("GET", SCAN),
        ("GET", f"{PATH}/analytics"),
        ("GET", "/api/v1/customers/c-1/wallet"),
        ("PATCH", f"/api/v1/customers/c-1/wallet/{VOUCHER}"),
        ("POST", f"/api/v1/vouchers/a/{VOUCHER}/scan"),
    ],
)
async def test_all_but_scans_is_401_without_the_token(visitor, kept, method: str, path: str) -> None:
    reply = await visitor.ask(method, path, "{}", {"content-type": "application/json"})
    assert reply.status == 401
    assert reply.headers["content-type"] == "application/problem+json"
    assert kept.events == []


@pytest.mark.parametrize("path", [CLAIM, REDEEM])
async def test_guarded_reports_must_say_that_they_are_json_and_be_short(platform, path: str) -> None:
    assert (await platform.post(path, "{}", content_type="text/plain")).status == 415
    assert (await platform.post(path, " " * 16_385)).status == 413


@pytest.mark.parametrize(("path", "body"), REPORTS)
async def test_without_kafka_it_is_503_and_kafka_s_address_stays_ours(
    platform, kept, path: str, body
) -> None:
    kept.away = True
    reply = await platform.post(path, body)
    assert reply.status == 503
    assert reply.headers["content-type"] == "application/problem+json"
    assert int(reply.headers["retry-after"]) > 0
    assert b"kafka.internal" not in reply.body


# The switch

SWITCHED = [
    *(
        (topic, path, body)
        for topic, (path, body) in zip(("scan", "claim", "redemption"), REPORTS, strict=True)
    ),
    ("click", "/api/affiliates/track/click", {"pixelId": "p"}),
    ("conversion", "/api/affiliates/track/conversion", {"orderId": "1", "pixelId": "p", "revenue": 1}),
]


@pytest.mark.parametrize(("topic", "path", "body"), SWITCHED)
async def test_what_this_worker_does_not_read_is_503_and_says_why(
    serve, pool, kept, topic: str, path: str, body
) -> None:
    others = ",".join(name for name in DEFAULT_TOPICS if name != topic)
    client = await serve(pool, "s3cret", publisher=kept, consumers=others)
    for content in (json.dumps(body), "{", ""):
        reply = await client.post(path, content, content_type="application/json" if content else "text/plain")
        assert reply.status == 503
        assert reply.headers["content-type"] == "application/problem+json"
        assert "retry-after" not in reply.headers
        assert reply.json["detail"] == (
            f"{topic}s are switched off: COUNTERFOIL_CONSUMERS of this worker leaves `{topic}` out"
        )
    assert kept.events == []
    for other_topic, other, its_body in SWITCHED:
        if other_topic != topic:
            assert (await client.post(other, its_body)).status == 202


async def test_a_switched_off_endpoint_still_asks_for_the_token_and_holds_the_limit(serve, kept) -> None:
    client = await serve(None, "s3cret", publisher=kept, consumers="click", rate_limit_per_minute=2)
    client.token = None
    assert (await client.post(CLAIM, CLAIMED)).status == 401
    replies = [await client.post(SCAN, SCANNED, origin="https://app.example") for _ in range(3)]
    assert [reply.status for reply in replies] == [503, 503, 429]
    assert replies[0].headers["access-control-allow-origin"] == "*"


def test_every_topic_that_is_reported_is_one_that_can_be_read() -> None:
    reported = {"click", "conversion", "scan", "claim", "redemption", "stock-change"}
    assert set(REPORTED_TOPICS) == reported <= set(DEFAULT_TOPICS)
    assert len(HTTP_ROUTES) == len(set(HTTP_ROUTES))


# Many at once


async def status_of(port: int, body: bytes, *headers: str) -> tuple[int, dict[str, str], bytes]:
    """Ask on a connection of its own, without a thread: a thousand may be open at once."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = [f"POST {SCAN} HTTP/1.1", "Host: localhost", "Connection: close", f"Content-Length: {len(body)}"]
    writer.write("\r\n".join([*head, *headers, "", ""]).encode() + body)
    answer = await reader.read()
    writer.close()
    first, _, content = answer.partition(b"\r\n\r\n")
    status, *lines = first.decode().split("\r\n")
    return (
        int(status.split()[1]),
        {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)},
        content,
    )


async def test_a_thousand_scans_of_one_voucher_at_once_are_all_published_once(serve) -> None:
    class Together:
        """Acknowledges nothing before a thousand scans wait for it."""

        def __init__(self) -> None:
            self.scans: list[Scan] = []
            self.complete = asyncio.Event()

        async def publish(self, scan: Scan) -> None:
            self.scans.append(scan)
            if len(self.scans) == 1_000:
                self.complete.set()
            await self.complete.wait()

    together = Together()
    client = await serve(publisher=together, rate_limit_per_minute=0)
    bodies = [json.dumps(SCANNED | {"userId": f"u-{n}"}).encode() for n in range(1_000)]
    async with asyncio.timeout(60):
        replies = await asyncio.gather(*(status_of(client.port, body) for body in bodies))
    assert {status for status, _, _ in replies} == {202}
    answered = {json.loads(content)["scanId"] for _, _, content in replies}
    assert len(answered) == 1_000
    assert answered == {scan.scan_id for scan in together.scans}
    assert {scan.user_id for scan in together.scans} == {f"u-{n}" for n in range(1_000)}
    assert {scan.voucher_id for scan in together.scans} == {VOUCHER}


async def test_the_limit_holds_under_a_thousand_at_once_and_loses_nothing_that_it_accepted(
    serve, kept
) -> None:
    client = await serve(publisher=kept, rate_limit_per_minute=600)
    async with asyncio.timeout(60):
        replies = await asyncio.gather(
            *(status_of(client.port, json.dumps(SCANNED).encode()) for _ in range(1_000))
        )
    accepted = [json.loads(content)["scanId"] for status, _, content in replies if status == 202]
    refused = [headers for status, headers, _ in replies if status == 429]
    assert (len(accepted), len(refused)) == (600, 400)
    assert sorted(accepted) == sorted(scan.scan_id for scan in kept.events)
    assert all(0 < int(headers["retry-after"]) <= 60 for headers in refused)


# The document


async def test_the_openapi_document_has_the_routes_and_their_bodies(serve) -> None:
    paths = (await (await serve()).get("/docs/openapi")).json["paths"]
    vouchers, wallet = "/api/v1/vouchers/{voucher_id}", "/api/v1/customers/{customer_id}/wallet"
    scan = paths[f"{vouchers}/scan"]["post"]
    assert scan["security"] == [{}]
    fields = {
        "scan": {"scanType", "scanSource", "userId", "deviceInfo", "location", "metadata", "timestamp"},
        "claim": {"customerId", "metadata", "timestamp"},
        "redeem": {"businessId", "successful", "customerId", "failureReason", "attemptId"},
    }
    for what, named in fields.items():
        operation = paths[f"{vouchers}/{what}"]["post"]
        assert "202" in operation["responses"]
        schema = operation["requestBody"]["content"]["application/json"]["schema"]
        assert named | {"voucherId"} <= set(schema["properties"])
        assert "voucherId" not in schema["required"]
    assert {entry["name"] for entry in paths[f"{vouchers}/analytics"]["get"]["parameters"]} == {
        "voucher_id",
        "from",
        "to",
    }
    assert {entry["name"] for entry in paths[wallet]["get"]["parameters"]} == {
        "customer_id",
        "status",
        "limit",
        "offset",
    }
    assert "patch" in paths[f"{wallet}/{{voucher_id}}"]
