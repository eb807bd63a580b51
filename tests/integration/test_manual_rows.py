"""Rows that people write by hand: after each statement every counter equals its ledger."""

from __future__ import annotations

from decimal import Decimal

import asyncpg
import pytest

from support.builders import NOON, later
from support.postgres_ledgers import (
    LEDGERS,
    a_promo_code,
    assert_counters_equal_ledgers,
    coupon_counts,
    promo_counts,
)

USAGE = "INSERT INTO affiliate_coupon_usages (order_id, code) VALUES ($1, $2)"


@pytest.fixture
def db(shared_db):
    """Each test here works in one transaction that is rolled back."""
    return shared_db


async def refusal(db, statement, *arguments) -> asyncpg.PostgresError:
    """The error of a statement that must fail; the transaction goes on."""
    with pytest.raises(asyncpg.PostgresError) as caught:
        async with db.transaction():
            await db.execute(statement, *arguments)
    return caught.value


async def each_counts_right(db, *statements):
    for statement in statements:
        await db.execute(statement)
        await assert_counters_equal_ledgers(db, after=statement)


# Coupons


async def test_a_usage_counts_when_it_is_inserted_and_no_more_when_it_is_deleted(db):
    await db.execute(USAGE, "1", "SPRING")
    assert await coupon_counts(db) == {"SPRING": (1, 1)}
    await db.execute("DELETE FROM affiliate_coupon_usages WHERE order_id = '1'")
    assert await coupon_counts(db) == {"SPRING": (0, 0)}


async def test_a_statement_of_many_rows_counts_each(db):
    await db.execute(
        "INSERT INTO affiliate_coupon_usages (order_id, code) "
        "SELECT n::text, CASE WHEN n % 3 = 0 THEN 'A' ELSE 'B' END FROM generate_series(1, 100) AS n"
    )
    assert await coupon_counts(db) == {"A": (33, 33), "B": (67, 67)}
    await db.execute("DELETE FROM affiliate_coupon_usages WHERE order_id::int <= 50")
    assert await coupon_counts(db) == {"A": (17, 17), "B": (33, 33)}


@pytest.mark.parametrize(
    "change",
    [
        "code = 'B'",
        "code = code",
        "code = 'NEW'",
        "order_id = order_id || 'x'",
        "reversed_at = now()",
        "reversed_at = NULL",
        "occurred_at = now() - interval '1 day'",
        "code = 'B', order_id = order_id || 'x', reversed_at = CASE WHEN reversed_at IS NULL THEN now() END",
    ],
)
@pytest.mark.parametrize(
    "which", ["true", "code = 'A' AND order_id <> '2'", "false", "reversed_at IS NOT NULL"]
)
async def test_an_updated_usage_counts_where_it_stands_now(db, change, which):
    await db.execute(
        "INSERT INTO affiliate_coupon_usages (order_id, code, reversed_at) "
        "VALUES ('1', 'A', NULL), ('2', 'A', now()), ('3', 'A', NULL), ('4', 'C', NULL), ('5', 'D', now())"
    )
    await each_counts_right(db, f"UPDATE affiliate_coupon_usages SET {change} WHERE {which}")


async def test_keys_may_be_swapped_in_one_statement(db):
    await each_counts_right(
        db,
        "INSERT INTO affiliate_coupon_usages (order_id, code, reversed_at) VALUES ('1', 'A', NULL), ('2', 'B', now())",
        "UPDATE affiliate_coupon_usages SET code = CASE code WHEN 'A' THEN 'B' ELSE 'A' END",
    )
    assert await coupon_counts(db) == {"A": (0, 0), "B": (1, 1)}


async def test_both_halves_of_an_upsert_count(db):
    await each_counts_right(
        db,
        "INSERT INTO affiliate_coupon_usages (order_id, code) VALUES ('1', 'A'), ('2', 'A')",
        "INSERT INTO affiliate_coupon_usages (order_id, code) VALUES ('1', 'A'), ('3', 'A') ON CONFLICT DO NOTHING",
        "INSERT INTO affiliate_coupon_usages (order_id, code) VALUES ('1', 'A'), ('4', 'B') "
        "ON CONFLICT (order_id, code) DO UPDATE SET reversed_at = now()",
        "INSERT INTO affiliate_coupon_usages (order_id, code) VALUES ('1', 'A'), ('5', 'B') "
        "ON CONFLICT (order_id, code) DO UPDATE SET code = 'C', reversed_at = NULL",
    )
    assert await coupon_counts(db) == {"A": (2, 2), "B": (2, 2), "C": (1, 1)}


async def test_merge_and_data_modifying_queries_count(db):
    await each_counts_right(
        db,
        "INSERT INTO affiliate_coupon_usages (order_id, code) VALUES ('1', 'A'), ('2', 'A'), ('3', 'B')",
        "MERGE INTO affiliate_coupon_usages AS u USING (VALUES ('1', 'A'), ('2', 'A'), ('9', 'Z')) AS s(o, c) "
        "ON u.order_id = s.o AND u.code = s.c WHEN MATCHED AND s.o = '1' THEN DELETE "
        "WHEN MATCHED THEN UPDATE SET code = 'M' WHEN NOT MATCHED THEN INSERT (order_id, code) VALUES (s.o, s.c)",
        "WITH gone AS (DELETE FROM affiliate_coupon_usages WHERE code = 'B' RETURNING *), "
        "moved AS (INSERT INTO affiliate_coupon_usages (order_id, code) SELECT order_id, 'W' FROM gone) "
        "UPDATE affiliate_coupon_usages SET reversed_at = now() WHERE code = 'Z'",
    )
    assert await coupon_counts(db) == {"A": (0, 0), "B": (0, 0), "M": (1, 1), "W": (1, 1), "Z": (0, 0)}


async def test_copy_counts(db):
    await db.copy_records_to_table(
        "affiliate_coupon_usages", records=[("1", "A"), ("2", "A"), ("2", "B")], columns=("order_id", "code")
    )
    assert await coupon_counts(db) == {"A": (2, 2), "B": (1, 1)}


async def test_a_truncated_ledger_leaves_what_the_other_one_counts(db):
    await each_counts_right(
        db,
        "INSERT INTO affiliate_coupon_usages (order_id, code) VALUES ('1', 'A'), ('2', 'B')",
        "INSERT INTO affiliate_coupon_adjustments (code, delta) VALUES ('A', 10)",
        "TRUNCATE affiliate_coupon_usages",
    )
    assert await coupon_counts(db) == {"A": (10, 0), "B": (0, 0)}
    await each_counts_right(
        db,
        "INSERT INTO affiliate_coupon_usages (order_id, code) VALUES ('1', 'A')",
        "TRUNCATE affiliate_coupon_adjustments",
    )
    assert await coupon_counts(db) == {"A": (1, 1), "B": (0, 0)}


async def test_several_ledgers_truncated_at_once_leave_zeros(db):
    promo = await a_promo_code(db)
    await db.execute(USAGE, "1", "A")
    await db.execute("INSERT INTO affiliate_coupon_adjustments (code, delta) VALUES ('A', 10)")
    await db.execute("INSERT INTO promo_code_uses (promo_code_id, bonus_amount) VALUES ($1, 5)", promo)
    await db.execute("INSERT INTO promo_code_adjustments (promo_code_id, delta) VALUES ($1, 5)", promo)
    await db.execute(f"TRUNCATE {', '.join(LEDGERS)}")
    assert await coupon_counts(db) == {"A": (0, 0)}
    assert await promo_counts(db) == {"SPRING": (0, 0)}


async def test_an_adjustment_counts_beside_the_usages(db):
    await db.execute(USAGE, "1", "A")
    await each_counts_right(
        db,
        "INSERT INTO affiliate_coupon_adjustments (code, delta) VALUES ('A', 40), ('B', 7), ('A', 1)",
        "UPDATE affiliate_coupon_adjustments SET delta = delta * 2",
        "UPDATE affiliate_coupon_adjustments SET code = 'C' WHERE code = 'B'",
        "UPDATE affiliate_coupon_adjustments SET reason = 'opening balance'",
        "DELETE FROM affiliate_coupon_adjustments WHERE delta = 2",
    )
    assert await coupon_counts(db) == {"A": (81, 1), "B": (0, 0), "C": (14, 0)}


async def test_a_sum_may_fall_below_zero_by_a_late_cancellation(db):
    await db.execute(USAGE, "1", "A")
    await db.execute("INSERT INTO affiliate_coupon_adjustments (code, delta) VALUES ('A', -1)")
    await db.execute("INSERT INTO order_cancellations (order_id) VALUES ('1')")
    assert await coupon_counts(db) == {"A": (-1, 0)}


async def test_a_broken_coupon_count_is_an_error_and_not_clamped(db):
    await db.execute(USAGE, "1", "A")
    await db.execute("UPDATE affiliate_coupons SET usage_count = 0")
    error = await refusal(db, "DELETE FROM affiliate_coupon_usages")
    assert error.constraint_name == "usage_count_not_negative"
    assert await db.fetchval("SELECT count(*) FROM affiliate_coupon_usages") == 1


# Promos


async def test_the_rows_of_the_write_up_count(db):
    assert await db.fetchval("INSERT INTO promo_codes (id, code) VALUES (1, 'P') RETURNING id") == 1
    await db.execute(
        "INSERT INTO promo_code_uses "
        "(promo_code_id, customer_address, shop_id, base_reward, bonus_amount, total_reward) "
        "VALUES (1, '0xtest...', 'shop123', 10, 5, 15)"
    )
    assert await promo_counts(db) == {"P": (1, Decimal(5))}
    await db.execute("DELETE FROM promo_code_uses WHERE customer_address = '0xtest...'")
    assert await promo_counts(db) == {"P": (0, Decimal(0))}


async def test_manual_promo_uses_have_no_order_and_each_counts(db):
    promo = await a_promo_code(db)
    for _ in range(2):
        await db.execute(
            "INSERT INTO promo_code_uses (promo_code_id, bonus_amount) VALUES ($1, 0.000001)", promo
        )
    assert await promo_counts(db) == {"SPRING": (2, Decimal("0.000002"))}


async def test_a_bonus_of_null_counts_as_a_use_without_bonus(db):
    promo = await a_promo_code(db)
    await db.execute("INSERT INTO promo_code_uses (promo_code_id) VALUES ($1)", promo)
    assert await promo_counts(db) == {"SPRING": (1, 0)}
    await each_counts_right(
        db,
        "UPDATE promo_code_uses SET bonus_amount = 3.5",
        "UPDATE promo_code_uses SET bonus_amount = NULL",
        "INSERT INTO promo_code_uses (promo_code_id, order_id, bonus_amount) "
        "SELECT id, n::text, CASE WHEN n % 2 = 0 THEN n END FROM promo_codes, generate_series(1, 10) AS n",
        "DELETE FROM promo_code_uses WHERE order_id IS NULL",
        "UPDATE promo_code_uses SET reversed_at = now() WHERE bonus_amount > 5",
    )
    assert await promo_counts(db) == {"SPRING": (7, Decimal(6))}


@pytest.mark.parametrize(
    "change",
    [
        "promo_code_id = (SELECT max(id) FROM promo_codes)",
        "bonus_amount = coalesce(bonus_amount, 0) + 1.25",
        "reversed_at = CASE WHEN reversed_at IS NULL THEN now() END",
        "order_id = NULL",
        "promo_code_id = (SELECT max(id) FROM promo_codes), bonus_amount = 2, reversed_at = NULL",
    ],
)
async def test_an_updated_promo_use_counts_where_it_stands_now(db, change):
    first, second = await a_promo_code(db, "A"), await a_promo_code(db, "B")
    await db.execute(
        "INSERT INTO promo_code_uses (promo_code_id, order_id, bonus_amount, reversed_at) "
        "VALUES ($1, '1', 5, NULL), ($1, '2', NULL, NULL), ($1, '3', 7, now()), ($2, '4', 1, NULL)",
        first,
        second,
    )
    await each_counts_right(db, f"UPDATE promo_code_uses SET {change}")


async def test_both_halves_of_a_promo_upsert_count(db):
    promo = await a_promo_code(db)
    upsert = (
        "INSERT INTO promo_code_uses (promo_code_id, order_id, bonus_amount) VALUES ($1, '1', $2), ($1, $3, 1) "
        "ON CONFLICT (order_id, promo_code_id) DO UPDATE SET bonus_amount = excluded.bonus_amount"
    )
    await db.execute(upsert, promo, 5, "2")
    await db.execute(upsert, promo, 9, "3")
    assert await promo_counts(db) == {"SPRING": (3, Decimal(11))}


async def test_promo_adjustments_count_beside_the_uses(db):
    promo = await a_promo_code(db)
    await db.execute("INSERT INTO promo_code_uses (promo_code_id, bonus_amount) VALUES ($1, 5)", promo)
    await db.execute(
        "INSERT INTO promo_code_adjustments (promo_code_id, delta, bonus_delta) VALUES ($1, 100, 250.5), ($1, -1, 0)",
        promo,
    )
    assert await promo_counts(db) == {"SPRING": (100, Decimal("255.5"))}
    await each_counts_right(
        db,
        "UPDATE promo_code_adjustments SET bonus_delta = bonus_delta + 1",
        "UPDATE promo_code_adjustments SET reason = 'opening balance'",
        "DELETE FROM promo_code_adjustments WHERE delta = -1",
        "TRUNCATE promo_code_uses",
    )
    assert await promo_counts(db) == {"SPRING": (100, Decimal("251.5"))}
    await db.execute("TRUNCATE promo_code_adjustments")
    assert await promo_counts(db) == {"SPRING": (0, 0)}


@pytest.mark.parametrize(
    ("tampered", "constraint"),
    [("times_used", "times_used_not_negative"), ("total_bonus_issued", "total_bonus_issued_not_negative")],
)
async def test_a_broken_promo_count_is_an_error_and_not_clamped(db, tampered, constraint):
    promo = await a_promo_code(db)
    await db.execute("INSERT INTO promo_code_uses (promo_code_id, bonus_amount) VALUES ($1, 5)", promo)
    await db.execute(f"UPDATE promo_codes SET {tampered} = 0")
    error = await refusal(db, "DELETE FROM promo_code_uses")
    assert error.constraint_name == constraint


async def test_a_late_cancellation_of_an_adjusted_promo_code_is_no_error(db):
    """What the contract says of coupons: the uses never count below 0, the sum with adjustments may."""
    promo = await a_promo_code(db)
    await db.execute("INSERT INTO promo_code_uses (promo_code_id, order_id) VALUES ($1, '1')", promo)
    await db.execute("INSERT INTO promo_code_adjustments (promo_code_id, delta) VALUES ($1, -1)", promo)
    await db.execute("INSERT INTO order_cancellations (order_id) VALUES ('1')")
    assert await promo_counts(db) == {"SPRING": (-1, 0)}


async def test_the_largest_rewards_that_the_rules_accept_are_stored(db):
    promo = await a_promo_code(db)
    largest = Decimal("99999999999999.999999")
    await db.execute(
        "INSERT INTO promo_code_uses (promo_code_id, base_reward, bonus_amount, total_reward) VALUES ($1, $2, $2, $3)",
        promo,
        largest,
        2 * largest,
    )
    assert await promo_counts(db) == {"SPRING": (1, largest)}


# Cancellations


async def an_order_with_everything(db, order_id="1"):
    promo = await db.fetchval(
        "INSERT INTO promo_codes (code) VALUES ('P') ON CONFLICT (code) DO UPDATE SET code = 'P' RETURNING id"
    )
    await db.execute(USAGE, order_id, "A")
    await db.execute(
        "INSERT INTO promo_code_uses (promo_code_id, order_id, bonus_amount) VALUES ($1, $2, 5)",
        promo,
        order_id,
    )


async def reversals(db) -> list:
    return await db.fetchval(
        "SELECT array_agg(reversed_at) FROM (SELECT reversed_at FROM affiliate_coupon_usages "
        "UNION ALL SELECT reversed_at FROM promo_code_uses) AS both_ledgers"
    )


async def test_a_cancellation_marks_what_the_order_brought(db):
    await an_order_with_everything(db)
    await db.execute("INSERT INTO order_cancellations (order_id, canceled_at) VALUES ('1', $1)", NOON)
    assert await reversals(db) == [NOON, NOON]
    assert (await coupon_counts(db), await promo_counts(db)) == ({"A": (0, 0)}, {"P": (0, 0)})


async def test_a_cancellation_that_came_first_marks_what_comes_later(db):
    await db.execute("INSERT INTO order_cancellations (order_id, canceled_at) VALUES ('1', $1)", NOON)
    await an_order_with_everything(db)
    assert await reversals(db) == [NOON, NOON]
    assert (await coupon_counts(db), await promo_counts(db)) == ({"A": (0, 0)}, {"P": (0, 0)})


async def test_a_statement_of_canceled_and_standing_orders_counts_those_that_stand(db):
    await db.execute("INSERT INTO order_cancellations (order_id) VALUES ('1'), ('3')")
    await db.execute(
        "INSERT INTO affiliate_coupon_usages (order_id, code) "
        "VALUES ('1', 'A'), ('2', 'A'), ('3', 'B'), ('4', 'B'), ('4', 'A'), ('1', 'Z')"
    )
    assert await coupon_counts(db) == {"A": (2, 2), "B": (1, 1), "Z": (0, 0)}


async def test_a_moved_cancellation_marks_with_its_new_time(db):
    await an_order_with_everything(db)
    await db.execute("INSERT INTO order_cancellations (order_id, canceled_at) VALUES ('1', $1)", later(9))
    await db.execute("UPDATE order_cancellations SET canceled_at = $1", NOON)
    assert await reversals(db) == [NOON, NOON]
    await assert_counters_equal_ledgers(db)


async def test_a_cancellation_moved_to_another_order_gives_the_first_one_back(db):
    await an_order_with_everything(db, "1")
    await an_order_with_everything(db, "2")
    await each_counts_right(
        db,
        "INSERT INTO order_cancellations (order_id) VALUES ('1')",
        "UPDATE order_cancellations SET order_id = '2'",
    )
    assert await db.fetchval("SELECT reversed_at IS NULL FROM affiliate_coupon_usages WHERE order_id = '1'")
    assert await coupon_counts(db) == {"A": (1, 1)}


@pytest.mark.parametrize("statement", ["DELETE FROM order_cancellations", "TRUNCATE order_cancellations"])
async def test_a_cancellation_taken_away_gives_the_order_back(db, statement):
    await an_order_with_everything(db)
    await db.execute("INSERT INTO order_cancellations (order_id) VALUES ('1'), ('another')")
    await db.execute(statement)
    assert await reversals(db) == [None, None]
    assert (await coupon_counts(db), await promo_counts(db)) == ({"A": (1, 1)}, {"P": (1, 5)})


# What no row may say


@pytest.mark.parametrize(
    ("table", "column", "constraint"),
    [
        ("affiliate_coupons", "code", "code_not_blank"),
        ("affiliate_coupon_usages", "code", "code_not_blank"),
        ("affiliate_coupon_usages", "order_id", "order_id_not_blank"),
        ("affiliate_coupon_adjustments", "code", "code_not_blank"),
        ("promo_codes", "code", "code_not_blank"),
        ("promo_code_uses", "order_id", "order_id_not_blank"),
        ("order_cancellations", "order_id", "order_id_not_blank"),
    ],
)
async def test_an_empty_string_is_no_identity(db, table, column, constraint):
    promo = await a_promo_code(db)
    row = {
        "affiliate_coupons": {"code": "A"},
        "affiliate_coupon_usages": {"order_id": "1", "code": "A"},
        "affiliate_coupon_adjustments": {"code": "A", "delta": 1},
        "promo_codes": {"code": "A"},
        "promo_code_uses": {"order_id": "1", "promo_code_id": promo},
        "order_cancellations": {"order_id": "1"},
    }[table] | {column: ""}
    places = ", ".join(f"${n}" for n in range(1, len(row) + 1))
    error = await refusal(db, f"INSERT INTO {table} ({', '.join(row)}) VALUES ({places})", *row.values())
    assert (error.sqlstate, error.constraint_name) == ("23514", constraint)


async def test_a_use_of_an_unknown_promo_code_is_refused(db):
    error = await refusal(db, "INSERT INTO promo_code_uses (promo_code_id) VALUES (424242)")
    assert error.sqlstate == "23503"


async def test_several_statements_of_one_transaction_count_together_or_not_at_all(db):
    await db.execute(USAGE, "0", "A")
    together = db.transaction()
    await together.start()
    await db.execute(USAGE, "1", "A")
    await db.execute("INSERT INTO order_cancellations (order_id) VALUES ('0')")
    await db.execute(USAGE, "2", "B")
    assert await coupon_counts(db) == {"A": (1, 1), "B": (1, 1)}
    with pytest.raises(asyncpg.CheckViolationError):
        await db.execute(USAGE, "3", "")
    await together.rollback()
    assert await coupon_counts(db) == {"A": (1, 1)}
    await assert_counters_equal_ledgers(db)


async def test_a_trigger_is_not_led_astray_by_the_search_path(db):
    await db.execute(
        "CREATE SCHEMA elsewhere; CREATE TABLE elsewhere.affiliate_coupons (LIKE affiliate_coupons)"
    )
    await db.execute("SET LOCAL search_path TO elsewhere")
    await db.execute("INSERT INTO public.affiliate_coupon_usages (order_id, code) VALUES ('1', 'A')")
    await db.execute("SET LOCAL search_path TO public")
    assert await coupon_counts(db) == {"A": (1, 1)}


@pytest.mark.parametrize("column", ["bonus_amount", "base_reward", "total_reward"])
async def test_what_is_no_number_is_refused_before_it_poisons_a_sum(db, column):
    promo = await a_promo_code(db)
    error = await refusal(
        db, f"INSERT INTO promo_code_uses (promo_code_id, {column}) VALUES ({promo}, 'NaN')"
    )
    assert error.constraint_name == "amounts_are_numbers"


async def test_an_id_that_was_changed_by_hand_is_not_given_out_again(db):
    promo = await a_promo_code(db)
    for _ in range(3):
        await db.execute("INSERT INTO promo_code_uses (promo_code_id, bonus_amount) VALUES ($1, 1)", promo)
    await db.execute("UPDATE promo_code_uses SET id = id + 4")
    for _ in range(6):
        await db.execute("INSERT INTO promo_code_uses (promo_code_id, bonus_amount) VALUES ($1, 1)", promo)
    assert await promo_counts(db) == {"SPRING": (9, 9)}
