"""What an order says of a promo code once more, in other words: the smaller content stands, the other is kept."""

from __future__ import annotations

import json
import random
from decimal import Decimal

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from counterfoil.promos.rules import promo_uses
from support.builders import a_promotion, an_order, later, records_of
from support.postgres_ledgers import EVERYTHING, empty
from support.postgres_road import scribes
from support.schedules import run, schedules


def long_text(seed: int, length: int) -> str:
    """Text of four bytes a character that does not compress."""
    return "".join(chr(c) for c in random.Random(seed).choices(range(0x20000, 0x2A6D0), k=length))


async def refused(db):
    """What was kept, oldest record first."""
    rows = await db.fetch("SELECT * FROM refused_facts ORDER BY source_offset")
    assert {row["topic"] for row in rows} <= {"order.placed"}
    return [
        (row["order_id"], row["source_offset"], json.loads(row["content"], parse_float=Decimal))
        for row in rows
    ]


def an_order_with_a_use(bonus: object, **fields: object):
    return an_order("1", promotions=[a_promotion("P", base=1, bonus=bonus)], **fields)


async def test_a_use_that_does_not_stand_is_kept_and_counted(db, database_url):
    dear = an_order_with_a_use(9, customer_address="0xa", shop_id="s1")
    async with scribes(database_url) as (scribe,):
        await scribe.write(records_of(an_order_with_a_use(5)))
        written = await scribe.write(records_of(dear, first=1))
    assert written.refused == {"order.placed": 1}
    assert await refused(db) == [
        (
            "1",
            1,
            {
                "code": "P",
                "occurred_at": "2026-03-01T12:00:00+00:00",
                "bonus_amount": 9,
                "base_reward": 1,
                "customer_address": "0xa",
                "shop_id": "s1",
            },
        )
    ]


async def test_a_use_that_gives_way_is_kept_with_the_record_that_told_of_it(db, database_url):
    async with scribes(database_url) as (scribe,):
        await scribe.write(records_of(an_order_with_a_use(9)))
        written = await scribe.write(records_of(an_order_with_a_use(5), first=1))
    assert written.refused == {"order.placed": 1}
    assert [(offset, content["bonus_amount"]) for _, offset, content in await refused(db)] == [(0, 9)]


async def test_a_use_refused_again_is_neither_kept_nor_counted_again(db, database_url):
    records = records_of(
        an_order_with_a_use(5),
        an_order_with_a_use(9),
        an_order_with_a_use(9, timestamp=later()),
        an_order("2"),
    )
    async with scribes(database_url) as (scribe,):
        assert (await scribe.write(records)).refused == {"order.placed": 2}
        before = await refused(db)
        again = records_of(*(an_order_with_a_use(b) for b in (9, 5)), first=4)
        assert (await scribe.write(again)).refused == {}
    assert await refused(db) == before


async def test_a_refused_use_may_have_texts_that_no_index_takes(db, database_url):
    address, shop, order_id, code = (
        long_text(seed, length) for seed, length in enumerate((2_048, 255, 255, 255))
    )
    orders = [
        an_order(
            order_id, promotions=[a_promotion(code, bonus=bonus)], customer_address=address, shop_id=shop
        )
        for bonus in (1, 2, 0)
    ]
    async with scribes(database_url) as (scribe,):
        await scribe.write(records_of(orders[0]))
        await scribe.write(records_of(*orders[1:], first=1))
    kept = await refused(db)
    assert [(content["code"], content["bonus_amount"]) for _, _, content in kept] == [(code, 1), (code, 2)]
    assert {content["customer_address"][:16] for _, _, content in kept} == {address[:16]}
    assert await db.fetchval("SELECT count(*) FROM dead_letters") == 0


told = st.fixed_dictionaries(
    {
        "order_id": st.sampled_from(["1", "2"]),
        "timestamp": st.sampled_from([f"2026-03-01T12:00:0{second}Z" for second in range(2)]),
        "promotions": st.lists(
            st.fixed_dictionaries(
                {"code": st.sampled_from("PQ"), "bonus_amount": st.sampled_from(["0", "1.5"])},
                optional={"base_reward": st.sampled_from(["0", "2"])},
            ),
            min_size=1,
            max_size=2,
        ),
    },
    optional={"customer_address": st.sampled_from(["0xa", "é"])},
)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(documents=st.lists(told, min_size=1, max_size=10), schedule=schedules)
async def test_whatever_was_told_of_a_use_and_does_not_stand_is_kept_once(
    db, database_url, documents, schedule
):
    async with scribes(database_url, 2) as workers:
        await empty(db, EVERYTHING)
        logs = await run(schedule, documents, workers)
        await workers[0].hold(logs)
        for state in workers[0].states.values():
            state.expected = 0
        batch = await workers[0].batch_of([record for log in logs.values() for record in log])
    events = [event for chunk in batch.chunks for event in chunk.events]
    standing = promo_uses(events)
    contents = {
        (*key, *use)
        for event in events
        for key, (use, _) in promo_uses([event]).items()
        if use != standing[key][0]
    }
    found = {
        (
            order_id,
            content["code"],
            content["bonus_amount"],
            content["base_reward"],
            content["customer_address"] or "",
        )
        for order_id, _, content in await refused(db)
    }
    assert found == {(o, c, bonus, base, address) for o, c, _, bonus, base, address, _ in contents}
