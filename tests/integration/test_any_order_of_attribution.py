"""The central promise for affiliates and partners: what is owed is a function of the set of events alone.

Whatever the order of users, links, clicks, conversions, orders, refunds and cancellations, of an operator's rates and
statuses between them, of doubles, batches, workers and crashes: equal tables, and posted = target to the last digit.
"""

from __future__ import annotations

import random
from decimal import Decimal

from hypothesis import HealthCheck, given, settings

from counterfoil.database.counters import find_drift
from counterfoil.routing import COUNTERS
from support.attribution_events import INSTANTS, a_document, facts, interludes, worlds
from support.attribution_model import World, model, stored
from support.postgres_ledgers import empty
from support.postgres_road import plain_settings, scribes
from support.schedules import Schedule, accounts_close, run, schedules


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(documents=facts, world=worlds(), one=schedules, other=schedules)
async def test_what_is_owed_is_a_function_of_the_set_of_events(
    db, database_url, documents, world, one, other
):
    expected = model(documents, world)
    async with scribes(database_url, 2, settings=plain_settings(attribute_by_coupon=True)) as workers:
        for schedule in (one, other):
            await empty(db)
            logs = await run(schedule, documents, workers, interludes(db, world))
            assert await stored(db) == expected
            assert await find_drift(db, COUNTERS) == []
            assert await db.fetchval("SELECT count(*) FROM settlements_due") == 0
            assert await accounts_close(db, logs)


async def test_many_events_of_every_kind_end_in_the_tables_of_the_model(db, database_url):
    """The same with more orders than the small alphabets have, and long batches."""
    dice = random.Random(5)
    documents = [a_document(dice) for _ in range(4_000)]
    world = World(
        statuses=[("p1", "paused", INSTANTS[4]), ("p1", "active", INSTANTS[0])],
        defaults=[(Decimal("7.5"), INSTANTS[2])],
        owners={"A": "p2"},
    )
    async with scribes(database_url, 2, settings=plain_settings(attribute_by_coupon=True)) as workers:
        schedule = Schedule(seed=3, partitions=2, crashes=True, batch=400)
        logs = await run(schedule, documents, workers, interludes(db, world))
    assert await stored(db) == model(documents, world)
    assert await find_drift(db, COUNTERS) == []
    assert await accounts_close(db, logs)
