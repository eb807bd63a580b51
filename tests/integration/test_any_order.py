"""The central promise: the tables are a function of the set of events alone.

Not of their order, doubles, batches, partitions, workers, or of where a worker is killed.
"""

from __future__ import annotations

import random

from hypothesis import HealthCheck, given, settings

from counterfoil.database.counters import find_drift
from counterfoil.routing import COUNTERS
from support.contract_model import model, stored
from support.order_events import facts
from support.postgres_ledgers import empty
from support.postgres_road import scribes
from support.schedules import Schedule, accounts_close, run, schedules


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(documents=facts, one=schedules, other=schedules)
async def test_any_schedule_of_a_set_of_events_ends_in_the_same_tables(
    db, database_url, documents, one, other
):
    expected = model(documents)
    async with scribes(database_url, 2) as workers:
        for schedule in (one, other):
            await empty(db)
            logs = await run(schedule, documents, workers)
            assert await stored(db) == expected
            assert await find_drift(db, COUNTERS) == []
            assert await accounts_close(db, logs)


async def test_many_events_in_one_schedule_end_in_the_tables_of_the_model(db, database_url):
    """The same with more orders than the small alphabets have, and long batches."""
    dice = random.Random(7)
    documents = [
        {
            "order_id": str(dice.randrange(800)),
            "timestamp": f"2026-03-01T12:00:{dice.randrange(60):02}Z",
            **(
                {"canceled": True, "reason": dice.choice(["a", "b"])}
                if dice.random() < 0.2
                else {
                    "codes": dice.sample("ABCDEFGH", k=3),
                    "promotions": [{"code": dice.choice("PQ"), "bonus_amount": str(dice.randrange(5))}],
                }
            ),
        }
        for _ in range(3_000)
    ]
    async with scribes(database_url, 2) as workers:
        logs = await run(Schedule(seed=11, partitions=2, crashes=True, batch=400), documents, workers)
    assert await stored(db) == model(documents)
    assert await find_drift(db, COUNTERS) == []
    assert await accounts_close(db, logs)
