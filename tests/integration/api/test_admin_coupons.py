"""`/admin/affiliate-coupons` on a real database."""

from __future__ import annotations

import asyncio

import pytest

PATH = "/admin/affiliate-coupons"


async def timesused(db, code: str) -> int | None:
    return await db.fetchval("SELECT times_used FROM affiliate_coupons WHERE code = $1", code)


async def adjustments(db) -> list[tuple]:
    rows = await db.fetch("SELECT code, delta, reason, actor FROM affiliate_coupon_adjustments ORDER BY id")
    return [tuple(row) for row in rows]


async def test_the_most_used_come_first_then_by_code(client, db) -> None:
    await db.execute(
        "INSERT INTO affiliate_coupon_adjustments (code, delta) VALUES ('B', 2), ('A', 2), ('C', 9), ('D', 0)"
    )
    reply = await client.get(PATH)
    assert reply.status == 200
    assert [(row["code"], row["timesUsed"]) for row in reply.json] == [("C", 9), ("A", 2), ("B", 2), ("D", 0)]
    assert set(reply.json[0]) == {"code", "timesUsed", "updatedAt"}
    assert reply.json[0]["updatedAt"].endswith("Z")
    assert "link" not in reply.headers


async def test_pages_are_linked(client, db) -> None:
    await db.execute(
        "INSERT INTO affiliate_coupon_adjustments (code, delta) "
        "SELECT 'C' || g, 9 - g FROM generate_series(1, 5) AS g"
    )
    first = await client.get(f"{PATH}?limit=2")
    assert [row["code"] for row in first.json] == ["C1", "C2"]
    assert first.headers["link"] == f'<{PATH}?limit=2&offset=2>; rel="next"'
    middle = await client.get(f"{PATH}?limit=2&offset=2")
    assert (
        middle.headers["link"]
        == f'<{PATH}?limit=2&offset=4>; rel="next", <{PATH}?limit=2&offset=0>; rel="prev"'
    )
    last = await client.get(f"{PATH}?limit=2&offset=4")
    assert [row["code"] for row in last.json] == ["C5"]
    assert "next" not in last.headers["link"]


async def test_the_code_filter_follows_the_rules_of_codes(client) -> None:
    await client.post(PATH, {"code": "CAFE\u0301"})
    assert [row["code"] for row in (await client.get(f"{PATH}?code=%20CAF%C3%89%20")).json] == ["CAFÉ"]
    assert (await client.get(f"{PATH}?code=other")).json == []


async def test_code_case_upper_holds_for_requests_too(serve, pool) -> None:
    client = await serve(pool, code_case="upper")
    assert (await client.post(PATH, {"code": "spring"})).json["code"] == "SPRING"
    assert len((await client.get(f"{PATH}?code=Spring")).json) == 1


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("limit=x", "limit"),
        ("offset=-1", "offset"),
        ("offset=99999999999999999999", "offset"),
        ("code=%00", "code"),
        (f"code={'x' * 256}", "code"),
    ],
)
async def test_a_wrong_parameter_is_422_and_named(client, query: str, field: str) -> None:
    reply = await client.get(f"{PATH}?{query}")
    assert reply.status == 422
    assert reply.json["errors"][0]["field"] == field


async def test_an_adjustment_is_a_row_and_a_count(client, db) -> None:
    reply = await client.post(PATH, {"code": " SPRING ", "delta": 5, "reason": "opening balance"})
    assert reply.status == 201
    assert (reply.json["code"], reply.json["timesUsed"]) == ("SPRING", 5)
    assert await adjustments(db) == [("SPRING", 5, "opening balance", "admin-api")]
    assert await timesused(db, "SPRING") == 5


async def test_delta_is_1_when_it_is_not_given_and_0_makes_the_coupon(client, db) -> None:
    assert (await client.post(PATH, {"code": "A"})).json["timesUsed"] == 1
    assert (await client.post(PATH, {"code": "B", "delta": 0})).json["timesUsed"] == 0
    assert await timesused(db, "B") == 0


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "code"),
        ({"code": None}, "code"),
        ({"code": 7}, "code"),
        ({"code": "  "}, "code"),
        ({"code": "a\nb"}, "code"),
        ({"code": "x" * 256}, "code"),
        ({"code": "A", "delta": True}, "delta"),
        ({"code": "A", "delta": 1.5}, "delta"),
        ({"code": "A", "delta": "1"}, "delta"),
        ({"code": "A", "delta": None}, "delta"),
        ({"code": "A", "delta": 10**9 + 1}, "delta"),
        ({"code": "A", "delta": -(10**30)}, "delta"),
        ({"code": "A", "reason": "x" * 1_025}, "reason"),
        ({"code": "A", "reason": "\x00"}, "reason"),
        ({"code": "A", "dleta": 1}, "dleta"),
        ([], ""),
    ],
)
async def test_a_wrong_body_is_422_named_and_writes_nothing(client, db, body, field: str) -> None:
    reply = await client.post(PATH, body)
    assert reply.status == 422
    assert reply.headers["content-type"] == "application/problem+json"
    assert reply.json["errors"][0]["field"] == field
    assert await adjustments(db) == []


@pytest.mark.parametrize("body", [b"", b"{", b"\xff\xfe", b'{"code":"A"} {}'])
async def test_unreadable_json_is_400(client, body: bytes) -> None:
    assert (await client.post(PATH, body)).status == 400


async def test_below_zero_is_422_and_writes_nothing(client, db) -> None:
    await client.post(PATH, {"code": "A", "delta": 2})
    reply = await client.post(PATH, {"code": "A", "delta": -3})
    assert reply.status == 422
    assert reply.json["errors"][0]["field"] == "delta"
    assert (await client.post(PATH, {"code": "NEW", "delta": -1})).status == 422
    assert await adjustments(db) == [("A", 2, "", "admin-api")]
    assert await timesused(db, "NEW") is None
    assert (await client.post(PATH, {"code": "A", "delta": -2})).json["timesUsed"] == 0


async def test_a_count_below_zero_may_be_raised(client, db) -> None:
    await db.execute("INSERT INTO affiliate_coupon_adjustments (code, delta) VALUES ('A', -5)")
    assert (await client.post(PATH, {"code": "A", "delta": 2})).json["timesUsed"] == -3


async def test_twenty_at_once_take_exactly_what_is_there(client, db) -> None:
    await client.post(PATH, {"code": "A", "delta": 10})
    replies = await asyncio.gather(*(client.post(PATH, {"code": "A", "delta": -1}) for _ in range(20)))
    assert sorted(reply.status for reply in replies) == [201] * 10 + [422] * 10
    assert await timesused(db, "A") == 0
    assert len(await adjustments(db)) == 11


async def test_a_repeat_under_one_key_gets_the_first_answer(client, db) -> None:
    first = await client.post(PATH, {"code": "A", "delta": 3}, idempotency_key="k1")
    await client.post(PATH, {"code": "A", "delta": 4})
    again = await client.post(PATH, {"code": "A", "delta": 3}, idempotency_key="k1")
    assert (again.status, again.body) == (first.status, first.body)
    assert again.headers["idempotency-replayed"] == "true"
    assert "idempotency-replayed" not in first.headers
    assert await timesused(db, "A") == 7


async def test_repeats_at_once_are_one(client, db) -> None:
    replies = await asyncio.gather(
        *(client.post(PATH, {"code": "A"}, idempotency_key="k1") for _ in range(10))
    )
    assert {(reply.status, reply.body) for reply in replies} == {(201, replies[0].body)}
    assert await timesused(db, "A") == 1


async def test_a_key_of_another_request_is_422(client, db) -> None:
    await client.post(PATH, {"code": "A"}, idempotency_key="k1")
    assert (await client.post(PATH, {"code": "A", "delta": 2}, idempotency_key="k1")).status == 422
    assert (await client.post("/admin/promo-codes", {"code": "A"}, idempotency_key="k1")).status == 422
    assert await timesused(db, "A") == 1


async def test_a_refused_request_leaves_its_key_free(client) -> None:
    assert (await client.post(PATH, {"code": "A", "delta": -1}, idempotency_key="k1")).status == 422
    assert (await client.post(PATH, {"code": "A"}, idempotency_key="k1")).status == 201


@pytest.mark.parametrize("key", ["", "x" * 256, "caf\xe9"])
async def test_a_wrong_key_is_422(client, key: str) -> None:
    reply = await client.post(PATH, {"code": "A"}, idempotency_key=key)
    assert reply.status == 422
    assert reply.json["errors"][0]["field"] == "Idempotency-Key"
