"""The promise of forgetting: whenever a person is forgotten, and whatever is told again, all counts are the same.

And nobody is found any more: not in a table, and not after everything was read once more.
"""

from __future__ import annotations

import asyncio
import random
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from counterfoil.database.counters import find_drift
from counterfoil.errors import TransientFailure
from counterfoil.routing import COUNTERS
from counterfoil.vouchers.schedule import expire_claims
from support.forgetting import forget, name_of, under_names, where_named
from support.postgres_ledgers import EVERYTHING, empty
from support.postgres_road import Scribe, plain_settings
from support.schedules import Schedule, run
from support.voucher_model import exact, stored_counts, stored_ledgers

NOW = datetime.now(UTC).replace(microsecond=0)
THIS_MONTH = NOW.replace(day=1, hour=0, minute=0, second=0)
TIMES = [
    (THIS_MONTH + timedelta(seconds=seconds)).isoformat() for seconds in (-90_000, -86_400, -1, 0, 3_600)
]
VOUCHERS, PEOPLE = ["v1", "v1", "V2"], ["person-one", "person-one", "person-two", "ö3"]
LOCATIONS = [None, {"city": "Graz", "country": "at", "street": "1"}, {"lat": -0.5, "lng": 13.4}, {"room": 5}]
FORGOTTEN = {"person-one", "person-two"}

times, vouchers, people = st.sampled_from(TIMES), st.sampled_from(VOUCHERS), st.sampled_from(PEOPLE)
details = st.sampled_from([{}, {"a": 1}, {"b": "ä"}])


def scan_of(number):
    """A scan: of one id and time there is one content."""
    dice = random.Random(number)
    user = dice.choice([*PEOPLE, None])
    return {
        "topic": "scan",
        "timestamp": TIMES[number % len(TIMES)],
        "scan_id": f"s{number // 2}",
        "voucher_id": dice.choice(VOUCHERS),
        "scan_type": dice.choice(["CUSTOMER", "BUSINESS"]),
        "scan_source": dice.choice(["CAMERA", "LINK"]),
        "device_info": {"deviceId": f"the phone of {user}"},
        "user_agent": "a browser",
        "ip_address": "192.0.2.7",
        "metadata": {"of": user},
        "location": dice.choice(LOCATIONS),
        **({"user_id": user} if user else {}),
    }


def claim_of(voucher, person, time, named):
    return {
        "topic": "claim",
        "timestamp": time,
        "voucher_id": voucher,
        "customer_id": person,
        "metadata": {"of": [person, named]},
    }


def redemption_of(number, time, extra):
    """An attempt: one that is told twice differs in anything but who made it."""
    return {
        "topic": "redemption",
        "timestamp": time,
        "attempt_id": f"a{number}",
        "voucher_id": "v1" if number % 2 else "V2",
        "business_id": "b1",
        "customer_id": PEOPLE[number % len(PEOPLE)],
        **extra,
    }


scans = st.builds(scan_of, st.integers(0, 30))
claims = st.builds(claim_of, vouchers, people, times, st.integers(0, 1))
redemptions = st.builds(
    redemption_of,
    st.integers(0, 3),
    times,
    st.fixed_dictionaries(
        {"successful": st.booleans()},
        optional={"failure_reason": st.sampled_from(["late", "Late"]), "device_info": details, "location": details},
    ),
)  # fmt: skip
facts = st.lists(st.one_of(scans, scans, claims, claims, redemptions), min_size=1, max_size=14)
schedules = st.builds(
    Schedule,
    seed=st.integers(0, 2**32),
    partitions=st.integers(1, 2),
    crashes=st.booleans(),
    sent_at=st.just(NOW),
)


@pytest.fixture
async def pool(database_url):
    async with asyncpg.create_pool(database_url, min_size=0, max_size=6) as pool:
        yield pool


@asynccontextmanager
async def fresh_workers(pool, count, group="counterfoil"):
    workers = [Scribe(pool, group=group) for _ in range(count)]
    try:
        yield workers
    finally:
        for worker in workers:
            await worker.writer.close()


async def written(pool, schedule, documents, workers=1, interludes=(), group="counterfoil"):
    """Write what these documents come to by a schedule, and let the clock pass."""
    async with fresh_workers(pool, workers, group) as crowd:
        await run(schedule, documents, crowd, interludes)
    await expire_claims(pool, plain_settings())


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    documents=facts, one=schedules, other=schedules, again=schedules, workers=st.integers(1, 2), late=st.booleans()
)  # fmt: skip
async def test_whoever_is_forgotten_when_every_count_is_the_same(
    db, pool, documents, one, other, again, workers, late
):
    await everybody_is_known(db)
    await written(pool, one, documents, workers)
    names = {person: await name_of(db, person) for person in FORGOTTEN}
    expected = under_names(await stored_counts(db), names)

    await everybody_is_known(db)
    forgetting = [partial(forget, db, person) for person in sorted(FORGOTTEN)]
    await written(pool, other, documents, workers, [] if late else forgetting)
    if late:
        for one_is_forgotten in forgetting:
            await one_is_forgotten()
    assert await stored_counts(db) == expected
    assert await nobody_is_found(db)

    before = await stored_ledgers(db)
    await written(pool, again, documents, workers, group="a replay")
    assert await stored_counts(db) == expected
    assert await stored_ledgers(db) == before
    assert await nobody_is_found(db)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(documents=facts, one=schedules, other=schedules)
async def test_what_is_left_is_what_the_log_comes_to_for_who_has_forgotten(db, pool, documents, one, other):
    """So nothing that reads the log again, and compares, finds anything."""
    await everybody_is_known(db)
    await written(pool, one, documents)
    for person in FORGOTTEN:
        await forget(db, person)
    erased = await stored_ledgers(db), await stored_counts(db)
    await empty(db, [table for table in EVERYTHING if not table.startswith("forgotten")])
    await written(pool, other, documents)
    assert (await stored_ledgers(db), await stored_counts(db)) == erased


async def everybody_is_known(db):
    await empty(db, [*EVERYTHING, "forgotten_people"])


async def nobody_is_found(db):
    for person in FORGOTTEN:
        assert await where_named(db, person) == []
    assert await find_drift(db, COUNTERS) == []
    assert await exact(db)
    return True


@pytest.mark.parametrize("seed", range(3))
async def test_people_are_forgotten_under_live_traffic(db, pool, database_url, seed):
    """Three workers write, each the whole log of a group of its own, while everybody but one is forgotten."""
    dice = random.Random(seed)
    documents = [a_document(dice, number) for number in range(1_200)]
    people = [f"person-{number}-" for number in range(12)]
    await written(pool, Schedule(seed=seed, partitions=2, crashes=False, batch=200, sent_at=NOW), documents)
    names = {person: await name_of(db, person) for person in people[1:]}
    expected = under_names(await stored_counts(db), names)

    await everybody_is_known(db)
    schedules = [
        Schedule(seed=seed + n, partitions=1, crashes=False, batch=40, sent_at=NOW) for n in range(3)
    ]
    writing = [
        asyncio.create_task(written_with_patience(pool, schedule, documents, f"group {n}"))
        for n, schedule in enumerate(schedules)
    ]
    async with asyncpg.create_pool(database_url, min_size=0, max_size=2) as erasing:

        async def erase(person: str) -> None:
            async with erasing.acquire() as connection:
                await forget(connection, person)

        await asyncio.gather(*(erase(person) for person in people[1:]), *writing)
    await expire_claims(pool, plain_settings())
    assert await stored_counts(db) == expected
    for person in people[1:]:
        assert await where_named(db, person) == []
    assert await find_drift(db, COUNTERS) == []


async def written_with_patience(pool, schedule, documents, group):
    """Write a log of one's own to its end, batch after batch, again where others were in the way."""
    async with fresh_workers(pool, 1, group) as (worker,):
        for partition, log in schedule.log(documents).items():
            await worker.hold([partition])
            for start in range(0, len(log), schedule.batch):
                while True:
                    try:
                        await worker.write(log[start : start + schedule.batch])
                        break
                    except TransientFailure:
                        await worker.hold([partition])


def a_document(dice, number):
    person, voucher = f"person-{dice.randrange(12)}-", f"v{dice.randrange(6)}"
    user = dice.choice([person, None])
    at = (THIS_MONTH - timedelta(seconds=dice.randrange(20 * 86_400))).isoformat()
    kinds = {
        "scan": {
            "scan_id": f"s{number}",
            "user_id": user,
            "scan_type": "CUSTOMER",
            "scan_source": "LINK",
            "device_info": {"deviceId": f"phone of {user}"},
            "location": dice.choice(LOCATIONS),
        },
        "claim": {"customer_id": person, "metadata": {"of": person}},
        "redemption": {
            "attempt_id": f"a{number}",
            "customer_id": person,
            "business_id": "b1",
            "successful": dice.random() < 0.7,
            "failure_reason": f"of {person}",
        },
    }
    topic = dice.choices(list(kinds), weights=[5, 3, 2])[0]
    return {"topic": topic, "voucher_id": voucher, "timestamp": at, **kinds[topic]}
