"""The central promise for vouchers: every count is a function of the set of events alone.

Whatever the order of vouchers, impressions, scans, claims and redemptions, of the clock and of what people change
between them, of doubles, batches, workers and crashes: equal tables, and not one number that is not its ledger's.
"""

from __future__ import annotations

import json
import random
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from counterfoil.database.counters import find_drift
from counterfoil.ingest.partitions import Partition
from counterfoil.routing import COUNTERS
from counterfoil.vouchers.schedule import expire_claims
from support.builders import a_record
from support.postgres_ledgers import empty
from support.postgres_road import Scribe, plain_settings
from support.schedules import Schedule, accounts_close, run
from support.voucher_model import (
    counts_of,
    exact,
    ledgers_of,
    stored_counts,
    stored_ledgers,
    told_by,
)

NOW = datetime.now(UTC).replace(microsecond=0)
THIS_MONTH = NOW.replace(day=1, hour=0, minute=0, second=0)
LONG_AGO = datetime(2020, 2, 29, tzinfo=UTC)
"""A time that has no partition of its own."""

TIMES = [
    (midnight + timedelta(seconds=seconds)).isoformat()
    for midnight in (LONG_AGO, THIS_MONTH)  # there the months meet, and two partitions
    for seconds in (-86_400, -2.5, -1, 0, 3_600)
]
PASSED, TO_COME = "2020-03-01T00:00:00Z", "2090-01-01T00:00:00Z"

VOUCHERS, PEOPLE = ["v1", "v1", "V2", "ü3"], ["p1", "p1", "P2", "ö3"]
"""Few, and one of them more often, so that facts meet."""

vouchers, people = st.sampled_from(VOUCHERS), st.sampled_from(PEOPLE)
times = st.sampled_from(TIMES)
objects = st.sampled_from([{}, {"a": 1}, {"b": "ä", "aa": [2, None]}, {"a": 1.5, "b": {"c": True}}])
LOCATIONS = [None, {"city": "Graz", "country": "at"}, {"lat": -0.5, "lng": 13.4}, {"room": 5}]


def event(topic, required, optional=()):
    return st.fixed_dictionaries(
        {"topic": st.just(topic), **required}, optional={"timestamp": times, **dict(optional)}
    )


created = event(
    "voucher.created",
    {"voucher_id": st.sampled_from(["v1", "V2"])},
    {
        "business_id": st.sampled_from(["b1", "B2"]),
        "title": st.sampled_from(["Tea", "tea", "ä"]),
        "expires_at": st.sampled_from([PASSED, TO_COME]),
    },
)
impressions = event("impression", {"voucher_id": vouchers}, {"impression_id": st.sampled_from(["i1", "i2"])})
claims = event("claim", {"voucher_id": vouchers, "customer_id": people}, {"metadata": objects})
redemptions = event(
    "redemption",
    {"voucher_id": vouchers, "business_id": st.sampled_from(["b1", "B2"]), "successful": st.booleans()},
    {
        "attempt_id": st.sampled_from(["a1", "A2", "a3"]),
        "customer_id": people,
        "failure_reason": st.sampled_from(["late", "Late"]),
        "device_info": objects,
        "location": objects,
        "metadata": objects,
    },
)


def scan_of(number, *, named=True):
    """A scan; one id and time has one content: of two the first that came would stand."""
    dice = random.Random(number)
    user, location = dice.choice([*PEOPLE, None]), dice.choice(LOCATIONS)
    document = {
        "topic": "scan",
        "timestamp": dice.choice(TIMES),
        "voucher_id": dice.choice(VOUCHERS),
        "scan_type": dice.choice(["CUSTOMER", "BUSINESS"]),
        "scan_source": dice.choice(["CAMERA", "GALLERY", "LINK", "SHARE"]),
        **({"scan_id": f"s{number // 2}"} if named else {}),  # two that share an id differ in their times
        **({"user_id": user} if user else {}),
        **({"location": location} if location else {}),
    }
    return document | ({"timestamp": TIMES[number % len(TIMES)]} if named else {})


scans = st.builds(scan_of, st.integers(0, 39), named=st.sampled_from([True, True, True, False]))
facts = st.lists(
    st.one_of(created, impressions, scans, scans, scans, claims, claims, redemptions, redemptions),
    min_size=1,
    max_size=14,
)
schedules = st.builds(
    Schedule,
    seed=st.integers(0, 2**32),
    partitions=st.integers(1, 2),
    crashes=st.booleans(),
    sent_at=st.just(NOW),
)

PEOPLE_CHANGE = {
    "the expiry": f"UPDATE vouchers SET expires_at = '{PASSED}' WHERE id = 'ü3'",
    "the expiry again": f"UPDATE vouchers SET expires_at = '{TO_COME}' WHERE id = 'ü3'",
    "a wallet": """UPDATE customer_vouchers SET notification_preferences = '{"push": false}', last_viewed_at = now()
                   WHERE customer_id <> 'ö3'""",
}


@pytest.fixture
async def pool(database_url):
    """Connections that outlive an example: what the triggers' functions have planned is planned once."""
    async with asyncpg.create_pool(database_url, min_size=0, max_size=6) as pool:
        yield pool


@asynccontextmanager
async def fresh_workers(pool, count):
    """Workers that have learned nothing yet."""
    workers = [Scribe(pool) for _ in range(count)]
    try:
        yield workers
    finally:
        for worker in workers:
            await worker.writer.close()


def interludes(db, pool):
    """The clock, and what people do to what is theirs; of the voucher ü3 no event tells when it expires."""
    return [
        *(partial(expire_claims, pool, plain_settings()) for _ in range(2)),
        *(partial(db.execute, statement) for statement in PEOPLE_CHANGE.values()),
    ]


async def tables_are_those_of_the_model(db, pool, logs) -> bool:
    """Rows and counts are what these logs come to; what people have set is taken as it is."""
    expected = ledgers_of(told_by(logs))
    by_hand = await db.fetchval("SELECT expires_at FROM vouchers WHERE id = 'ü3'")
    if by_hand is not None:
        expected.vouchers["ü3"] = (None, None, None, by_hand)
    await expire_claims(pool, plain_settings())
    assert await stored_ledgers(db) == expected
    assert await stored_counts(db) == counts_of(expected, NOW)
    assert await find_drift(db, COUNTERS) == []
    return await accounts_close(db, logs)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(documents=facts, one=schedules, other=schedules, workers=st.integers(1, 2))
async def test_what_is_counted_of_vouchers_is_a_function_of_the_set_of_events(
    db, pool, documents, one, other, workers
):
    for schedule in (one, other):
        await empty(db)
        async with fresh_workers(pool, workers) as crowd:
            logs = await run(schedule, documents, crowd, interludes(db, pool))
        assert await tables_are_those_of_the_model(db, pool, logs)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    numbers=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 30)), min_size=2, max_size=12),
    others=st.lists(st.one_of(claims, redemptions), max_size=6),
    schedule=schedules,
)
async def test_of_scans_that_contradict_each_other_one_is_counted_whole(db, pool, numbers, others, schedule):
    """The first that came stands, so it depends on the order which one that is; never what comes of it."""
    contradicting = [
        {**scan_of(content), "scan_id": f"s{name}", "timestamp": TIMES[name]} for name, content in numbers
    ]
    await empty(db)
    async with fresh_workers(pool, 1) as crowd:
        logs = await run(schedule, [*contradicting, *others], crowd)
    told = told_by(logs)
    stored = await stored_ledgers(db)
    known = [ledgers_of([fact]).scans for fact in told if fact.document["topic"] == "scan"]
    assert all({key: scan} in known for key, scan in stored.scans.items())
    assert stored.scans.keys() == ledgers_of(told).scans.keys()
    assert await exact(db)
    assert await find_drift(db, COUNTERS) == []


VOUCHER = {"topic": "voucher.created", "voucher_id": "v1"}
CLAIM = {"topic": "claim", "voucher_id": "v1", "customer_id": "p1"}
ATTEMPT = {
    "topic": "redemption",
    "attempt_id": "a1",
    "voucher_id": "v1",
    "business_id": "b1",
    "successful": False,
}
CONTENTS = [
    (VOUCHER, {"business_id": "b1"}, {}),
    (VOUCHER, {"title": "tea"}, {"title": "Tea"}),
    (VOUCHER, {"title": "é"}, {"title": "z"}),
    (VOUCHER, {"expires_at": PASSED}, {"expires_at": TO_COME}),
    (VOUCHER, {"expires_at": PASSED}, {}),
    ({"topic": "impression", "impression_id": "i1"}, {"voucher_id": "v1"}, {"voucher_id": "V2"}),
    (CLAIM, {"metadata": {"b": 1}}, {"metadata": {"aa": 1}}),
    (CLAIM, {"metadata": {"b": 1}}, {"metadata": {}}),
    (ATTEMPT, {"voucher_id": "V2"}, {"voucher_id": "v1"}),
    (ATTEMPT, {"business_id": "B2"}, {"business_id": "b1"}),
    (ATTEMPT, {"customer_id": "p1"}, {}),
    (ATTEMPT, {"customer_id": "p1", "successful": True}, {"customer_id": "p1"}),
    (ATTEMPT, {"failure_reason": "late"}, {}),
    (ATTEMPT, {"device_info": {"b": 1}}, {"device_info": {"aa": 1}}),
    (ATTEMPT, {"location": {"b": 1}}, {"location": {}}),
    (ATTEMPT, {"location": {}}, {}),
    (ATTEMPT, {"metadata": {"b": "é"}}, {"metadata": {"b": "z"}}),
]


@pytest.mark.parametrize("in_one_batch", [True, False])
async def test_of_contents_that_differ_in_one_thing_the_same_stands(db, pool, in_one_batch):
    """Everything that is told decides, here and in the database alike, whichever comes first."""
    for common, one, other in CONTENTS:
        for contents in ((one, other), (other, one)):
            documents = [{"timestamp": TIMES[0], **common, **content} for content in contents]
            log = [
                a_record(offset, json.dumps(document).encode(), topic=common["topic"])
                for offset, document in enumerate(documents)
            ]
            await empty(db)
            async with fresh_workers(pool, 1) as (worker,):
                for batch in [log] if in_one_batch else [log[:1], log[1:]]:
                    await worker.write(batch)
            assert await tables_are_those_of_the_model(db, pool, {Partition(common["topic"], 0): log}), (
                contents
            )


@pytest.mark.parametrize("seed", range(6))
async def test_a_voucher_that_is_named_by_what_is_refused_alone_is_known(db, pool, seed):
    """In one batch or in two, whichever of them comes first."""
    times = dict(zip(["v1", "V2"], TIMES, strict=False))
    documents = [
        {"topic": topic, "voucher_id": voucher, "timestamp": time, **content}
        for voucher, time in times.items()
        for topic, content in {
            "impression": {"impression_id": "i1"},
            "redemption": {"attempt_id": "a1", "business_id": "b1", "successful": False},
        }.items()
    ]
    for told in (documents[::2], documents[1::2]):
        await empty(db)
        schedule = Schedule(seed=seed, partitions=1, crashes=False, batch=1 + seed % 2, sent_at=NOW)
        async with fresh_workers(pool, 1) as workers:
            logs = await run(schedule, told, workers)
        assert await tables_are_those_of_the_model(db, pool, logs)


async def test_many_events_of_vouchers_end_in_the_tables_of_the_model(db, pool):
    """The same with more vouchers and people than the small alphabets have, and long batches."""
    dice = random.Random(5)
    documents = [a_document(dice, number) for number in range(4_000)]
    schedule = Schedule(seed=3, partitions=2, crashes=True, batch=400, sent_at=NOW)
    async with fresh_workers(pool, 2) as workers:
        logs = await run(schedule, documents, workers, interludes(db, pool))
    assert await tables_are_those_of_the_model(db, pool, logs)


def a_document(dice, number):
    voucher, person = f"v{dice.randrange(25)}", f"p{dice.randrange(60)}"
    time = (THIS_MONTH - timedelta(seconds=dice.randrange(20 * 86_400))).isoformat()
    kinds = {
        "voucher.created": {
            "business_id": f"b{dice.randrange(3)}",
            "expires_at": dice.choice([PASSED, TO_COME]),
        },
        "impression": {"impression_id": f"i{dice.randrange(300)}"},
        "scan": {
            "scan_id": f"s{number}",
            "user_id": dice.choice([person, None]),
            "scan_type": dice.choice(["CUSTOMER", "BUSINESS"]),
            "scan_source": dice.choice(["CAMERA", "GALLERY", "LINK", "SHARE"]),
            "location": dice.choice(LOCATIONS),
        },
        "claim": {"customer_id": person, "metadata": {"from": dice.randrange(3)}},
        "redemption": {
            "attempt_id": f"a{dice.randrange(400)}",
            "customer_id": dice.choice([person, person, None]),
            "business_id": f"b{dice.randrange(3)}",
            "successful": dice.random() < 0.7,
        },
    }
    topic = dice.choices(list(kinds), weights=[1, 3, 8, 6, 3])[0]
    return {"topic": topic, "voucher_id": voucher, "timestamp": time, **kinds[topic]}
