# ruff: noqa: E501 - a statement on a line reads like a table
"""Any sequence of statements that people may type at the ledgers keeps counter = ledger after each of them."""

from __future__ import annotations

import asyncpg
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from counterfoil.database.counters import find_drift
from counterfoil.routing import COUNTERS
from support.postgres_ledgers import assert_counters_equal_ledgers, empty

orders = st.sampled_from(["'1'", "'2'", "'3'"])
codes = st.sampled_from(["'A'", "'B'", "'C'"])
promos = st.sampled_from(["101", "102"])
times = st.sampled_from(["NULL", "now()", "'2026-01-01Z'"])
amounts = st.sampled_from(["NULL", "0", "1.5", "2.000001"])
deltas = st.sampled_from(["-2", "0", "1", "3"])
ORDER = " WHERE order_id = {order}"


def statements(template: str, **parts: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.fixed_dictionaries(parts).map(lambda chosen: template.format(**chosen))


def rows(template: str, **parts: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.lists(statements(template, **parts), min_size=1, max_size=6, unique=True).map(", ".join)


usage_rows = rows("({order}, {code}, {time})", order=orders, code=codes, time=times)
use_rows = rows(
    "({promo}, {order}, {bonus}, {time})",
    promo=promos,
    order=orders | st.just("NULL"),
    bonus=amounts,
    time=times,
)
conflicts = st.sampled_from(["", " ON CONFLICT DO NOTHING"])
conditions = st.sampled_from(
    ["", " WHERE reversed_at IS NULL", " WHERE reversed_at IS NOT NULL"]
) | statements(ORDER, order=orders)

USAGES = "affiliate_coupon_usages"
USES = "promo_code_uses"
programs = st.lists(
    st.one_of(
        statements(f"INSERT INTO {USAGES} (order_id, code, reversed_at) VALUES {{rows}}{{then}}", rows=usage_rows, then=conflicts),
        statements(
            f"INSERT INTO {USAGES} (order_id, code, reversed_at) VALUES ({{order}}, {{code}}, {{time}}) "
            "ON CONFLICT (order_id, code) DO UPDATE SET code = {other}, reversed_at = excluded.reversed_at",
            order=orders, code=codes, time=times, other=codes,
        ),
        statements(f"UPDATE {USAGES} SET code = {{code}}{{where}}", code=codes, where=conditions),
        statements(f"UPDATE {USAGES} SET order_id = {{order}}{{where}}", order=orders, where=conditions),
        statements(f"UPDATE {USAGES} SET reversed_at = {{time}}{{where}}", time=times, where=conditions),
        statements(f"DELETE FROM {USAGES}{{where}}", where=conditions),
        st.sampled_from([f"DELETE FROM {USAGES}", f"DELETE FROM {USES}"]),
        statements("INSERT INTO affiliate_coupon_adjustments (code, delta) VALUES {rows}", rows=rows("({code}, {delta})", code=codes, delta=deltas)),
        statements("UPDATE affiliate_coupon_adjustments SET code = {code}, delta = delta + {delta}", code=codes, delta=deltas),
        statements("DELETE FROM affiliate_coupon_adjustments WHERE code = {code}", code=codes),
        statements(f"INSERT INTO {USES} (promo_code_id, order_id, bonus_amount, reversed_at) VALUES {{rows}}{{then}}", rows=use_rows, then=conflicts),
        statements(f"UPDATE {USES} SET promo_code_id = {{promo}}{{where}}", promo=promos, where=conditions),
        statements(f"UPDATE {USES} SET bonus_amount = {{bonus}}{{where}}", bonus=amounts, where=conditions),
        statements(f"UPDATE {USES} SET reversed_at = {{time}}{{where}}", time=times, where=conditions),
        statements(f"DELETE FROM {USES}{{where}}", where=conditions),
        statements(
            "INSERT INTO promo_code_adjustments (promo_code_id, delta, bonus_delta) VALUES ({promo}, {delta}, {bonus})",
            promo=promos, delta=deltas, bonus=deltas,
        ),
        statements("UPDATE promo_code_adjustments SET promo_code_id = {promo}, delta = delta + {delta}", promo=promos, delta=deltas),
        statements("INSERT INTO order_cancellations (order_id, canceled_at) VALUES ({order}, now()) ON CONFLICT DO NOTHING", order=orders),
        statements("UPDATE order_cancellations SET order_id = {to} WHERE order_id = {order}", to=orders, order=orders),
        statements("UPDATE order_cancellations SET canceled_at = '2026-02-02Z'{where}", where=statements(ORDER, order=orders)),
        statements("DELETE FROM order_cancellations{where}", where=statements(ORDER, order=orders)),
        st.sampled_from([f"TRUNCATE {table}" for table in (USAGES, USES, "order_cancellations", "affiliate_coupon_adjustments")]),
    ),
    min_size=1,
    max_size=20,
)  # fmt: skip


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(program=programs, together=st.booleans())
async def test_any_program_of_manual_statements_keeps_counter_equal_to_ledger(db, program, together):
    await empty(db)
    await db.execute("INSERT INTO promo_codes (id, code) VALUES (101, 'P'), (102, 'Q')")
    whole = db.transaction()
    if together:
        await whole.start()
    for statement in [*program, f"DELETE FROM {USAGES}", f"DELETE FROM {USES}"]:
        try:
            async with db.transaction():
                await db.execute(statement)
        except (
            asyncpg.IntegrityConstraintViolationError
        ):  # a key that is there, a count below 0: then nothing is written
            pass
        await assert_counters_equal_ledgers(db, after=statement)
    if together:
        await whole.commit()
    assert await find_drift(db, COUNTERS) == []
