"""`/admin/promo-codes` on a real database, and the ledger of adjustments behind it."""

from __future__ import annotations

import asyncio
from decimal import Decimal

import asyncpg
import pytest

from counterfoil.database.queries import sql, statements

PATH = "/admin/promo-codes"


async def counts(db, code: str = "P") -> tuple:
    row = await db.fetchrow("SELECT times_used, total_bonus_issued FROM promo_codes WHERE code = $1", code)
    return tuple(row)


async def a_promo(db, code: str = "P") -> int:
    return await db.fetchval("INSERT INTO promo_codes (code) VALUES ($1) RETURNING id", code)


async def a_use(db, promo: int, order: str = "o1", bonus: str = "1.5") -> None:
    await db.execute(
        "INSERT INTO promo_code_uses (promo_code_id, order_id, bonus_amount) VALUES ($1, $2, $3)",
        promo, order, Decimal(bonus),
    )  # fmt: skip


async def an_adjustment(db, promo: int, delta: int, bonus: str = "0") -> None:
    await db.execute(
        "INSERT INTO promo_code_adjustments (promo_code_id, delta, bonus_delta) VALUES ($1, $2, $3)",
        promo, delta, Decimal(bonus),
    )  # fmt: skip


@pytest.mark.parametrize(
    "name", [name for name in statements() if "promo" in name or "coupon" in name or "idempot" in name]
)
async def test_statements_fit_the_schema(db, name: str) -> None:
    await db.prepare(sql(name))


async def test_creating_is_201_and_again_is_200(client) -> None:
    first = await client.post(PATH, {"code": " P "})
    again = await client.post(PATH, {"code": "P"})
    assert (first.status, again.status) == (201, 200)
    assert first.json == again.json
    assert set(first.json) == {"id", "code", "timesUsed", "totalBonusIssued", "updatedAt"}
    assert (first.json["timesUsed"], first.json["totalBonusIssued"]) == (0, "0.000000")


async def test_an_opening_balance_is_exact(client, db) -> None:
    body = b'{"code":"P","delta":7,"bonusDelta":12345678901234.123456,"reason":"opening balance"}'
    reply = await client.post(PATH, body)
    assert reply.status == 201
    assert (reply.json["timesUsed"], reply.json["totalBonusIssued"]) == (7, "12345678901234.123456")
    reply = await client.post(PATH, {"code": "P", "bonusDelta": "-0.000001"})
    assert reply.json["totalBonusIssued"] == "12345678901234.123455"
    rows = await db.fetch("SELECT delta, bonus_delta, reason, actor FROM promo_code_adjustments ORDER BY id")
    assert [tuple(row) for row in rows] == [
        (7, Decimal("12345678901234.123456"), "opening balance", "admin-api"),
        (0, Decimal("-0.000001"), "", "admin-api"),
    ]


@pytest.mark.parametrize(
    "bonus",
    ["NaN", "Infinity", "1E400", "100000000000000", "0.0000001", "1E-400", "", "x", True, [], "9" * 5_000],
)
async def test_a_bonus_that_would_not_be_exact_is_422(client, db, bonus) -> None:
    reply = await client.post(PATH, {"code": "P", "bonusDelta": bonus})
    assert reply.status == 422
    assert reply.json["errors"][0]["field"] == "bonusDelta"
    assert await db.fetchval("SELECT count(*) FROM promo_codes") == 0


@pytest.mark.parametrize(
    ("body", "field"), [({"delta": -1}, "delta"), ({"bonusDelta": "-0.01"}, "bonusDelta")]
)
async def test_below_zero_is_422_and_writes_nothing(client, db, body, field: str) -> None:
    reply = await client.post(PATH, {"code": "P", **body})
    assert reply.status == 422
    assert reply.json["errors"][0]["field"] == field
    assert await db.fetchval("SELECT count(*) FROM promo_codes") == 0


async def test_the_list_shows_counts_the_most_used_first(client, db) -> None:
    for code, delta in (("A", 1), ("B", 5), ("C", 1)):
        await an_adjustment(db, await a_promo(db, code), delta)
    assert [row["code"] for row in (await client.get(PATH)).json] == ["B", "A", "C"]
    assert [row["code"] for row in (await client.get(f"{PATH}?code=%20A")).json] == ["A"]
    assert 'rel="next"' in (await client.get(f"{PATH}?limit=1")).headers["link"]


async def test_a_repeat_under_one_key_adds_nothing(client, db) -> None:
    body = {"code": "P", "delta": 3, "bonusDelta": "1.5"}
    replies = await asyncio.gather(*(client.post(PATH, body, idempotency_key="k") for _ in range(8)))
    assert {(reply.status, reply.body) for reply in replies} == {(201, replies[0].body)}
    assert await counts(db) == (3, Decimal("1.5"))


async def test_takers_at_once_get_exactly_what_is_there(client, db) -> None:
    await client.post(PATH, {"code": "P", "delta": 10})
    replies = await asyncio.gather(*(client.post(PATH, {"code": "P", "delta": -1}) for _ in range(20)))
    assert sorted(reply.status for reply in replies) == [201] * 10 + [422] * 10
    assert await counts(db) == (0, 0)


async def test_concurrent_uses_of_one_promo_code_do_not_deadlock(db, pool) -> None:
    promo = await a_promo(db)

    async def worker(name: int) -> None:
        async with pool.acquire() as connection:
            for order in range(30):
                await a_use(connection, promo, f"o{name}-{order}", "1")
                await an_adjustment(connection, promo, 1)

    await asyncio.gather(*(worker(name) for name in range(6)))
    assert await counts(db) == (360, 180)


async def test_the_ledgers_are_folded_on_every_kind_of_change(db) -> None:
    promo, other = await a_promo(db), await a_promo(db, "Q")
    await a_use(db, promo)
    await an_adjustment(db, promo, 4, "2.25")
    await an_adjustment(db, promo, 1)
    assert await counts(db) == (6, Decimal("3.75"))
    await db.execute("UPDATE promo_code_adjustments SET delta = delta + 1, bonus_delta = bonus_delta * 2")
    assert await counts(db) == (8, Decimal(6))
    await db.execute("UPDATE promo_code_adjustments SET promo_code_id = $1 WHERE delta = 2", other)
    assert (await counts(db), await counts(db, "Q")) == ((6, Decimal(6)), (2, 0))
    await db.execute("DELETE FROM promo_code_adjustments WHERE promo_code_id = $1", other)
    assert await counts(db, "Q") == (0, 0)


async def test_truncating_one_ledger_keeps_what_the_other_counts(db) -> None:
    promo = await a_promo(db)
    await a_use(db, promo)
    await an_adjustment(db, promo, 4, "2.25")
    await db.execute("TRUNCATE promo_code_uses")
    assert await counts(db) == (4, Decimal("2.25"))
    await a_use(db, promo)
    await db.execute("TRUNCATE promo_code_adjustments")
    assert await counts(db) == (1, Decimal("1.5"))


async def test_uses_alone_never_count_below_zero(db) -> None:
    promo = await a_promo(db)
    await a_use(db, promo)
    await an_adjustment(db, promo, -1, "-1.5")
    assert await counts(db) == (0, Decimal(0))
    await db.execute("UPDATE promo_codes SET use_count = 0")
    with pytest.raises(asyncpg.CheckViolationError, match="use_count_not_negative"):
        await db.execute("DELETE FROM promo_code_uses")


@pytest.mark.parametrize("sent", ["1E+9999999", '"1E+9999999"', '"1_0"', '"\\u0661"', '" 1"', "0.0000001"])
async def test_an_amount_that_is_no_plain_decimal_is_refused(client, sent) -> None:
    reply = await client.post(PATH, f'{{"code": "P1", "bonusDelta": {sent}}}')
    assert reply.status == 422
