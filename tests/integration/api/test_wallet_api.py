"""Customers' wallets by HTTP: shown in their order, and what a customer wants to hear of a voucher."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from counterfoil.database.queries import sql

CUSTOMER = "c-1"
PATH = f"/api/v1/customers/{CUSTOMER}/wallet"
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
NOON_TEXT = "2026-03-01T12:00:00.000Z"


async def a_claim(
    db: asyncpg.Connection, voucher_id: str, at: datetime = NOON, customer: str = CUSTOMER
) -> None:
    """A voucher in a wallet, as the road would put it there."""
    await db.execute(
        "INSERT INTO customer_vouchers (customer_id, voucher_id, claimed_at) VALUES ($1, $2, $3)",
        customer,
        voucher_id,
        at,
    )


async def a_redemption(db: asyncpg.Connection, voucher_id: str, at: datetime = NOON) -> None:
    """A voucher that the customer has redeemed."""
    await db.execute(
        "INSERT INTO redemption_attempts (attempt_id, voucher_id, business_id, customer_id, successful, attempted_at)"
        " VALUES ('a-' || $1::text, $1, 'b-1', $2, true, $3)",
        voucher_id,
        CUSTOMER,
        at,
    )


def shown(reply) -> list[tuple[str, int]]:
    return [(item["voucherId"], item["walletOrder"]) for item in reply.json]


# What it holds


async def test_a_voucher_is_shown_with_all_that_is_known_of_it(client, db) -> None:
    await db.execute(
        "INSERT INTO vouchers (id, business_id, title, expires_at) VALUES ('v-1', 'b-1', 'A coffee', $1)",
        NOON + timedelta(days=30),
    )
    await db.execute(
        "INSERT INTO customer_vouchers (customer_id, voucher_id, claimed_at, metadata, notification_preferences,"
        ' last_viewed_at) VALUES ($1, \'v-1\', $2, \'{"from": "poster", "n": 1.10}\', \'{"push": true}\', $3)',
        CUSTOMER,
        NOON,
        NOON + timedelta(hours=1),
    )
    reply = await client.get(PATH)
    assert reply.status == 200
    assert reply.json == [
        {
            "voucherId": "v-1",
            "title": "A coffee",
            "businessId": "b-1",
            "status": "CLAIMED",
            "claimedAt": NOON_TEXT,
            "redeemedAt": None,
            "expiresAt": "2026-03-31T12:00:00.000Z",
            "walletOrder": 1,
            "notificationPreferences": {"push": True},
            "lastViewedAt": "2026-03-01T13:00:00.000Z",
            "metadata": {"from": "poster", "n": 1.1},
        }
    ]
    assert b'"n": 1.10' in reply.body  # as it is stored


async def test_the_wallet_of_whom_nothing_is_known_is_empty(client) -> None:
    reply = await client.get("/api/v1/customers/nobody/wallet")
    assert (reply.status, reply.json) == (200, [])


async def test_what_was_claimed_first_stands_first_and_what_never_was_last(client, db) -> None:
    await a_redemption(db, "never-claimed", NOON - timedelta(days=9))
    await a_claim(db, "late", NOON + timedelta(microseconds=1))
    await a_claim(db, "b")
    await a_claim(db, "a")
    await a_claim(db, "of another", customer="c-2")
    reply = await client.get(PATH)
    assert shown(reply) == [("a", 1), ("b", 2), ("late", 3), ("never-claimed", 4)]
    unclaimed = reply.json[-1]
    assert (unclaimed["status"], unclaimed["claimedAt"], unclaimed["title"]) == ("REDEEMED", None, None)
    assert unclaimed["redeemedAt"] == "2026-02-20T12:00:00.000Z"


async def test_a_status_leaves_the_order_as_it_is(client, db) -> None:
    for voucher_id in ("a", "b", "c"):
        await a_claim(db, voucher_id)
    await a_redemption(db, "b")
    assert shown(await client.get(f"{PATH}?status=REDEEMED")) == [("b", 2)]
    assert shown(await client.get(f"{PATH}?status=CLAIMED")) == [("a", 1), ("c", 3)]
    assert shown(await client.get(f"{PATH}?status=EXPIRED")) == []


async def test_pages_are_linked_whatever_the_customer_is_called(client, db) -> None:
    for number in range(5):
        await a_claim(db, f"v-{number}", customer="Zoë <1>")
    path = "/api/v1/customers/Zo%C3%AB%20%3C1%3E/wallet"
    first = await client.get(f"{path}?limit=2&status=CLAIMED")
    assert shown(first) == [("v-0", 1), ("v-1", 2)]
    assert first.headers["link"] == f'<{path}?limit=2&status=CLAIMED&offset=2>; rel="next"'
    middle = await client.get(f"{path}?limit=2&offset=2")
    assert middle.headers["link"] == (
        f'<{path}?limit=2&offset=4>; rel="next", <{path}?limit=2&offset=0>; rel="prev"'
    )
    last = await client.get(f"{path}?limit=2&offset=4")
    assert shown(last) == [("v-4", 5)]
    assert "next" not in last.headers["link"]


@pytest.mark.parametrize(
    ("path", "field"),
    [
        (f"{PATH}?status=OPEN", "status"),
        (f"{PATH}?status=claimed", "status"),
        (f"{PATH}?limit=0", "limit"),
        (f"{PATH}?limit=1001", "limit"),
        (f"{PATH}?offset=-1", "offset"),
        ("/api/v1/customers/%00/wallet", "customerId"),
        (f"/api/v1/customers/{'x' * 256}/wallet", "customerId"),
    ],
)
async def test_a_wrong_parameter_is_422_and_named(client, path: str, field: str) -> None:
    reply = await client.get(path)
    assert reply.status == 422
    assert reply.headers["content-type"] == "application/problem+json"
    assert reply.json["errors"][0]["field"] == field


# What may be changed


async def test_preferences_are_replaced_and_the_rest_stays(client, db) -> None:
    await a_claim(db, "v-1")
    first = await client.patch(
        f"{PATH}/v-1", {"notificationPreferences": {"push": True, "mail": {"at": [8, 9.5]}}}
    )
    assert first.status == 200
    assert first.json["notificationPreferences"] == {"push": True, "mail": {"at": [8, 9.5]}}
    second = await client.patch(f"{PATH}/v-1", {"notificationPreferences": {"mail": False}})
    assert second.json["notificationPreferences"] == {"mail": False}
    viewed = await client.patch(f"{PATH}/v-1", {"lastViewedAt": NOON_TEXT})
    assert viewed.json | {"lastViewedAt": None} == second.json
    assert (await client.patch(f"{PATH}/v-1", {})).json == viewed.json
    assert (await client.get(PATH)).json == [viewed.json]


async def test_the_last_view_moves_forward_only_and_never_beyond_now(client, db) -> None:
    await a_claim(db, "v-1")

    async def viewed(at: object) -> str:
        return (await client.patch(f"{PATH}/v-1", {"lastViewedAt": at})).json["lastViewedAt"]

    assert await viewed(NOON_TEXT) == NOON_TEXT
    assert await viewed("2026-03-01T11:00:00Z") == NOON_TEXT
    assert await viewed("2026-03-01T14:00:00+01:00") == "2026-03-01T13:00:00.000Z"
    assert await viewed(1_772_373_600_000) == "2026-03-01T14:00:00.000Z"
    tomorrow = datetime.now(UTC) + timedelta(hours=23)
    assert datetime.fromisoformat(await viewed(tomorrow.isoformat())) <= datetime.now(UTC)


async def test_views_told_at_once_end_at_the_latest(client, db) -> None:
    await a_claim(db, "v-1")
    times = [NOON + timedelta(minutes=minute) for minute in range(20)]
    replies = await asyncio.gather(
        *(client.patch(f"{PATH}/v-1", {"lastViewedAt": time.isoformat()}) for time in reversed(times))
    )
    assert {reply.status for reply in replies} == {200}
    assert await db.fetchval("SELECT last_viewed_at FROM customer_vouchers") == times[-1]


async def test_a_change_counts_nothing_and_holds_no_voucher(client, db, database_url) -> None:
    await a_claim(db, "v-1")
    counted = await db.fetch("SELECT * FROM vouchers"), await db.fetch("SELECT * FROM voucher_daily")
    other = await asyncpg.connect(database_url)
    async with other.transaction():
        await other.execute("SELECT FROM vouchers WHERE id = 'v-1' FOR UPDATE")  # as a batch of scans does
        assert (await client.patch(f"{PATH}/v-1", {"lastViewedAt": NOON_TEXT})).status == 200
    await other.close()
    assert counted == (
        await db.fetch("SELECT * FROM vouchers"),
        await db.fetch("SELECT * FROM voucher_daily"),
    )


@pytest.mark.parametrize(("customer", "voucher"), [(CUSTOMER, "other"), ("c-2", "v-1"), ("c-2", "other")])
async def test_what_is_not_in_the_wallet_is_404(client, db, customer: str, voucher: str) -> None:
    await a_claim(db, "v-1")
    await a_claim(db, "other", customer="c-3")
    reply = await client.patch(f"/api/v1/customers/{customer}/wallet/{voucher}", {"lastViewedAt": NOON_TEXT})
    assert reply.status == 404
    assert reply.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"notificationPreferences": None}, "notificationPreferences"),
        ({"notificationPreferences": []}, "notificationPreferences"),
        ({"notificationPreferences": "push"}, "notificationPreferences"),
        ({"notificationPreferences": {"a": "\x00"}}, "notificationPreferences"),
        ({"lastViewedAt": None}, "lastViewedAt"),
        ({"lastViewedAt": "yesterday"}, "lastViewedAt"),
        ({"lastViewedAt": "2026-03-01"}, "lastViewedAt"),
        ({"lastViewedAt": "2026-03-01T12:00:00"}, "lastViewedAt"),
        ({"lastViewedAt": 5}, "lastViewedAt"),
        ({"lastViewedAt": 1.5}, "lastViewedAt"),
        ({"lastViewedAt": "1999-12-31T23:59:59Z"}, "lastViewedAt"),
        ({"lastViewedAt": (datetime.now(UTC) + timedelta(hours=25)).isoformat()}, "lastViewedAt"),
        ({"status": "REDEEMED"}, "status"),
        ({"walletOrder": 1, "lastViewedAt": NOON_TEXT}, "walletOrder"),
    ],
)
async def test_a_wrong_change_is_422_naming_the_field_and_changes_nothing(
    client, db, body, field: str
) -> None:
    await a_claim(db, "v-1")
    before = await db.fetch("SELECT * FROM customer_vouchers")
    reply = await client.patch(f"{PATH}/v-1", body)
    assert reply.status == 422, reply.body
    assert reply.json["errors"][0]["field"] == field
    assert await db.fetch("SELECT * FROM customer_vouchers") == before


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ("", 400),
        ("{", 400),
        ("[]", 422),
        (b'{"lastViewedAt": "\xff"}', 400),
        ('{"notificationPreferences": {"a": "\\ud800"}}', 400),
        ('{"notificationPreferences": {"a": 1e999}}', 422),
        ('{"notificationPreferences": {"a": ' + "9" * 5_000 + "}}", 422),
        ('{"notificationPreferences": {"a": [' + ",".join(["1e300"] * 60) + "]}}", 422),
        ('{"notificationPreferences": ' + '{"a":' * 2_000 + "1" + "}" * 2_000 + "}", 400),
        ('{"notificationPreferences": {"a": "' + "x" * 16_384 + '"}}', 413),
    ],
)
async def test_a_body_that_is_no_change_is_refused(client, db, body, status: int) -> None:
    await a_claim(db, "v-1")
    reply = await client.patch(f"{PATH}/v-1", body)
    assert reply.status == status, reply.body
    assert reply.headers["content-type"] == "application/problem+json"


async def test_what_a_customer_prefers_is_stored_as_it_is_sent(client, db) -> None:
    await a_claim(db, "v-1")
    for number in ("1e300", "-0.0", "123456789012345678901234567890", "0.1"):
        body = f'{{"notificationPreferences": {{"é\\"\\\\u0000": {number}}}}}'
        reply = await client.patch(f"{PATH}/v-1", body.encode())
        assert reply.status == 200, reply.body
        assert float(reply.json["notificationPreferences"]['é"\\u0000']) == float(number)
    assert json.loads(await db.fetchval("SELECT notification_preferences FROM customer_vouchers"))


# What it costs


def nodes(plan: dict) -> list[dict]:
    """Every node of a plan."""
    return [plan, *(node for part in plan.get("Plans", ()) for node in nodes(part))]


async def test_a_wallet_is_found_by_its_index(db) -> None:
    await db.execute(
        "INSERT INTO customer_vouchers (customer_id, voucher_id)"
        " SELECT 'c-' || n % 5000, 'v-' || n % 23 FROM generate_series(1, 20000) AS n"
    )
    await db.execute("ANALYZE customer_vouchers, vouchers")
    for statement, parameters in (
        ("list_wallet", ("c-7", None, 51, 0)),
        ("find_in_wallet", ("c-7", "v-7")),
        ("earlier_claim", ("c-7", "v-7", NOON)),
    ):
        for mode in ("force_custom_plan", "force_generic_plan"):
            await db.execute(f"SET plan_cache_mode = {mode}")
            explained = await db.fetchval(f"EXPLAIN (FORMAT JSON) {sql(statement)}", *parameters)
            found = nodes(json.loads(explained)[0]["Plan"])
            assert "Seq Scan" not in [
                node["Node Type"] for node in found if node.get("Relation Name") == "customer_vouchers"
            ]
            by_index = [node for node in found if node.get("Index Name", "").startswith("customer_vouchers")]
            assert [node for node in by_index if "customer_id" in node["Index Cond"]], (statement, mode)


async def test_reads_of_wallets_are_timed(client) -> None:
    for _ in range(3):
        await client.get(PATH)
    metrics = (await client.get("/metrics")).body
    assert b'counterfoil_query_seconds_count{query="wallet"} 3.0' in metrics
