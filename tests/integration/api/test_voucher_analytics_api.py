"""What came of a voucher, by HTTP: the same as counting its facts one by one, for any days."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
from collections import Counter
from datetime import UTC, date, datetime, timedelta
from typing import Any, NamedTuple

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from counterfoil.database.queries import sql

MIDNIGHT = datetime(2026, 2, 27, tzinfo=UTC)
DAY = timedelta(days=1)
NUMBERS = itertools.count()
PLACES = {
    None: None,
    '{"city": "Bern"}': "Bern",
    '{"city": " Bern ", "country": "ch"}': "Bern, CH",
    '{"lat": 46.9, "lng": -7.4}': "46,-8",
    '{"accuracy": 5}': None,
}


def path(voucher_id: str, query: str = "") -> str:
    return f"/api/v1/vouchers/{voucher_id}/analytics{query}"


async def scans(
    db: asyncpg.Connection, voucher_id: str, count: int, *, at: str, user: str = "NULL", place: str = "NULL"
) -> None:
    """So many scans of a voucher, each with a number `n` from 0 that the expressions may use."""
    await db.execute(
        "INSERT INTO voucher_scans (scan_id, voucher_id, scan_type, scan_source, occurred_at, user_id, location)"
        f" SELECT gen_random_uuid(), $1, 'CUSTOMER', 'CAMERA', {at}, {user}, {place}"
        f" FROM generate_series(0, {count - 1}) AS n",
        voucher_id,
    )


# Counting one by one


class Scan(NamedTuple):
    time: datetime
    user: str | None
    type: str
    source: str
    location: str | None


class Claim(NamedTuple):
    time: datetime
    customer: str


class Attempt(NamedTuple):
    time: datetime
    customer: str | None
    successful: bool


class Impression(NamedTuple):
    time: datetime


def day_of(fact: Any) -> date:
    return fact.time.date()


def hour_of(fact: Any) -> str:
    return fact.time.replace(minute=0, second=0, microsecond=0).isoformat(timespec="milliseconds")[:-6] + "Z"


def of_kind(facts: list[Any], kind: type) -> list[Any]:
    return [fact for fact in facts if isinstance(fact, kind)]


def ratio(part: float, whole: int) -> Any:
    return pytest.approx(part / whole, rel=1e-12) if whole else None


def seconds(times: list[timedelta]) -> float:
    return sum(times, timedelta(0)) / timedelta(seconds=1)


def by_brute_force(facts: list[Any], first: date | None, last: date | None) -> dict[str, Any]:
    """What the answer must be, but for the voucher's id."""
    now = [f for f in facts if (first or date.min) <= day_of(f) <= (last or date.max)]
    scanned, claims, attempts = of_kind(now, Scan), of_kind(now, Claim), of_kind(now, Attempt)
    redeemed = [attempt for attempt in attempts if attempt.successful]
    failed = len(attempts) - len(redeemed)
    first_scans = [
        min((s.time for s in of_kind(facts, Scan) if s.user == c.customer), default=None) for c in claims
    ]
    to_claim = [c.time - seen for c, seen in zip(claims, first_scans, strict=True) if seen and seen <= c.time]
    to_redeem = []
    for claim in of_kind(facts, Claim):
        times = [a.time for a in of_kind(facts, Attempt) if a.successful and a.customer == claim.customer]
        if (
            times
            and min(times) >= claim.time
            and (first or date.min) <= min(times).date() <= (last or date.max)
        ):
            to_redeem.append(min(times) - claim.time)
    places = Counter(PLACES[s.location] for s in scanned if PLACES[s.location])
    return {
        "from": first and first.isoformat(),
        "to": last and last.isoformat(),
        "totalScans": len(scanned),
        "uniqueUsers": len({s.user for s in scanned if s.user}),
        "anonymousScans": sum(s.user is None for s in scanned),
        "scansByType": {kind: sum(s.type == kind for s in scanned) for kind in ("CUSTOMER", "BUSINESS")},
        "scansBySource": {
            source: sum(s.source == source for s in scanned)
            for source in ("CAMERA", "GALLERY", "LINK", "SHARE")
        },
        "impressions": len(of_kind(now, Impression)),
        "claims": len(claims),
        "redemptions": len(redeemed),
        "failedRedemptions": failed,
        "conversionRate": ratio(len(claims), len(scanned)),
        "claimToRedemptionRate": ratio(len(redeemed), len(claims)),
        "failureRate": ratio(failed, len(attempts)),
        "averageTimeToClaim": ratio(seconds(to_claim), len(to_claim)),
        "averageTimeToRedeem": ratio(seconds(to_redeem), len(to_redeem)),
        "scansPerDay": [
            {
                "day": day.isoformat(),
                "scans": sum(day_of(s) == day for s in scanned),
                "uniqueUsers": len({s.user for s in scanned if s.user and day_of(s) == day}),
                "claims": sum(day_of(c) == day for c in claims),
                "redemptions": sum(day_of(r) == day for r in redeemed),
                "failedRedemptions": sum(day_of(a) == day and not a.successful for a in attempts),
                "impressions": sum(day_of(i) == day for i in of_kind(now, Impression)),
            }
            for day in sorted({day_of(f) for f in now})
        ],
        "scansPerHour": [
            {"hour": hour, "scans": number} for hour, number in sorted(Counter(map(hour_of, scanned)).items())
        ],
        "places": [
            {"place": place, "scans": number}
            for place, number in sorted(places.items(), key=lambda found: (-found[1], found[0]))
        ],
    }


moments = st.builds(
    lambda day, second: MIDNIGHT + day * DAY + timedelta(seconds=second),
    st.integers(0, 3),
    st.sampled_from([0, 0.000001, 3_599.999999, 3_600, 50_000.25, 86_399.999999]),
)
people = st.sampled_from(["u-1", "u-2", "U-3"])
scans_of_any_kind = st.builds(
    Scan,
    moments,
    people | people | st.none(),
    st.sampled_from(["CUSTOMER", "BUSINESS"]),
    st.sampled_from(["CAMERA", "GALLERY", "LINK", "SHARE"]),
    st.sampled_from(list(PLACES)),
)
claims = st.builds(Claim, moments, people)
attempts = st.builds(Attempt, moments, people | st.none(), st.booleans())
impressions = st.builds(Impression, moments)
facts_of_any_kind = st.one_of(
    scans_of_any_kind, scans_of_any_kind, scans_of_any_kind, claims, attempts, impressions
)
days = st.none() | st.builds(lambda day: MIDNIGHT.date() + day * DAY, st.integers(-1, 4))


async def insert(db: asyncpg.Connection, voucher_id: str, fact: Any) -> None:
    """One fact into its ledger, as somebody does by hand."""
    name = f"f{next(NUMBERS)}"
    match fact:
        case Scan():
            await db.execute(
                "INSERT INTO voucher_scans"
                " (scan_id, voucher_id, occurred_at, user_id, scan_type, scan_source, location)"
                " VALUES ($1, $2, $3, $4, $5, $6, $7)",
                name,
                voucher_id,
                *fact,
            )
        case Claim():
            await db.execute(
                "INSERT INTO customer_vouchers (voucher_id, claimed_at, customer_id) VALUES ($1, $2, $3)"
                " ON CONFLICT (customer_id, voucher_id) DO UPDATE SET claimed_at = excluded.claimed_at",
                voucher_id,
                *fact,
            )
        case Attempt():
            await db.execute(
                "INSERT INTO redemption_attempts (attempt_id, voucher_id, business_id, attempted_at, customer_id,"
                " successful) VALUES ($1, $2, 'b', $3, $4, $5)",
                name,
                voucher_id,
                *fact,
            )
        case Impression():
            await db.execute(
                "INSERT INTO voucher_impressions (impression_id, voucher_id, occurred_at) VALUES ($1, $2, $3)",
                name,
                voucher_id,
                *fact,
            )


def one_claim_a_customer(facts: list[Any]) -> list[Any]:
    seen: set[str] = set()
    return [
        fact
        for fact in facts
        if not isinstance(fact, Claim) or (fact.customer not in seen and not seen.add(fact.customer))
    ]


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    facts=st.lists(facts_of_any_kind, min_size=4, max_size=24).map(one_claim_a_customer),
    spans=st.lists(st.tuples(days, days), min_size=3, max_size=3),
    order=st.randoms(use_true_random=False),
)
async def test_it_is_what_counting_every_fact_comes_to(
    client, db, facts, spans, order: random.Random
) -> None:
    number = next(NUMBERS)
    voucher_id, other = f"v-{number}", f"w-{number}"
    told = [(voucher_id, fact) for fact in facts] + [(other, fact) for fact in facts[::2]]
    order.shuffle(told)
    for of_voucher, fact in told:
        await insert(db, of_voucher, fact)
    for span in ((None, None), *spans):
        first, last = sorted(span) if None not in span else span
        query = "&".join(f"{name}={day}" for name, day in (("from", first), ("to", last)) if day)
        reply = await client.get(path(voucher_id, f"?{query}"))
        assert reply.status == 200
        assert reply.json == {"voucherId": voucher_id} | by_brute_force(facts, first, last)


# What there is nothing of


async def test_of_a_voucher_that_was_only_created_everything_is_0_or_null(client, db) -> None:
    await db.execute("INSERT INTO vouchers (id) VALUES ('v')")
    reply = await client.get(path("v"))
    assert reply.status == 200
    assert reply.json == {"voucherId": "v"} | by_brute_force([], None, None)
    assert reply.json["scansByType"] == {"CUSTOMER": 0, "BUSINESS": 0}
    assert reply.json["scansBySource"] == {"CAMERA": 0, "GALLERY": 0, "LINK": 0, "SHARE": 0}
    assert reply.json["conversionRate"] is reply.json["averageTimeToRedeem"] is None


async def test_a_voucher_that_nothing_was_told_of_is_404(client) -> None:
    reply = await client.get(path("nothing"))
    assert reply.status == 404
    assert reply.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("from=2026-02-30", "from"),
        ("from=2026-2-1", "from"),
        ("from=20260201", "from"),
        ("from=2026-W05", "from"),
        ("from=", "from"),
        ("from=2026-02-01T00:00:00Z", "from"),
        ("to=yesterday", "to"),
        ("to=%D9%A2026-01-01", "to"),
        ("to=0000-01-01", "to"),
        ("from=2026-02-02&to=2026-02-01", "to"),
    ],
)
async def test_what_is_no_day_is_422_naming_the_parameter(client, query: str, field: str) -> None:
    reply = await client.get(path("v", f"?{query}"))
    assert reply.status == 422
    assert reply.headers["content-type"] == "application/problem+json"
    assert reply.json["errors"][0]["field"] == field


async def test_what_is_no_id_is_422_naming_the_voucher(client) -> None:
    reply = await client.get(path("%E2%80%8B"))
    assert (reply.status, reply.json["errors"][0]["field"]) == (422, "voucherId")


async def test_days_at_the_ends_of_time_are_taken(client, db) -> None:
    await scans(db, "v", 2, at="now()", user="'u'")
    for query in ("?from=0001-01-01", "?to=9999-12-31", "?from=0001-01-01&to=9999-12-31", "?to=9999-12-30"):
        reply = await client.get(path("v", query))
        assert (reply.json["totalScans"], reply.json["uniqueUsers"]) == (2, 1)
    assert reply.json["to"] == "9999-12-30"


# Bounds of the lists


async def test_of_many_days_hours_and_places_the_last_and_the_greatest_are_shown(client, db) -> None:
    day = "'2025-01-01T00:30Z'::timestamptz + n * interval '1 day'"
    await scans(db, "v", 400, at=day, user="'u' || n % 7")
    found = (await client.get(path("v"))).json
    assert (found["totalScans"], found["uniqueUsers"], len(found["scansPerDay"])) == (400, 7, 366)
    assert found["scansPerDay"][0]["day"] == "2025-02-04"
    assert found["scansPerDay"][-1] | {"uniqueUsers": 1, "scans": 1} == found["scansPerDay"][-1]
    assert len(found["scansPerHour"]) == 168
    assert found["scansPerHour"][0]["hour"] == "2025-08-21T00:00:00.000Z"
    assert found["scansPerHour"][-1] == {"hour": "2026-02-04T00:00:00.000Z", "scans": 1}
    of_some_days = (await client.get(path("v", "?from=2025-01-01&to=2025-01-08"))).json
    assert (of_some_days["totalScans"], of_some_days["uniqueUsers"]) == (8, 7)

    place = "jsonb_build_object('city', 'C' || n % 60)"
    await scans(db, "w", 91, at="'2026-01-01Z'", place=place)
    places = (await client.get(path("w"))).json["places"]
    assert len(places) == 50
    assert [found["scans"] for found in places] == [2] * 31 + [1] * 19
    for scans_of_them in (2, 1):
        names = [found["place"] for found in places if found["scans"] == scans_of_them]
        assert names == sorted(names)


# What it costs, and when it is read


async def test_every_number_is_of_one_moment(client, db, database_url) -> None:
    """While scans come in, each by a user of its own: what is added up from one roll-up is what others say."""
    await db.execute("INSERT INTO vouchers (id) VALUES ('v')")
    writer = await asyncpg.connect(database_url)
    enough = asyncio.Event()

    async def write() -> int:
        for number in itertools.count(1):
            await scans(writer, "v", 3, at="now()", user=f"'u{number}-' || n", place='\'{"city": "Bern"}\'')
            if enough.is_set():
                return number * 3
        raise AssertionError

    writing = asyncio.create_task(write())
    seen = []
    while len(seen) < 15 or seen[-1] == 0:
        found = (await client.get(path("v"))).json
        seen.append(found["totalScans"])
        assert {
            found["uniqueUsers"],
            found["scansByType"]["CUSTOMER"],
            found["scansBySource"]["CAMERA"],
            sum(day["scans"] for day in found["scansPerDay"]),
            sum(day["uniqueUsers"] for day in found["scansPerDay"]),
            sum(hour["scans"] for hour in found["scansPerHour"]),
            sum(place["scans"] for place in found["places"]),
        } == {seen[-1]}
    enough.set()
    assert (await client.get(path("v"))).json["totalScans"] <= await writing
    assert seen == sorted(seen)
    await writer.close()


def nodes(plan: dict) -> list[dict]:
    """Every node of a plan."""
    return [plan, *(node for part in plan.get("Plans", ()) for node in nodes(part))]


async def test_only_the_roll_ups_of_the_voucher_are_read(db) -> None:
    days_and_vouchers = (
        "generate_series('2026-01-01'::timestamp, '2026-02-19', '1 day') AS day, generate_series(1, 300) AS v"
    )
    await db.execute(
        f"""
        INSERT INTO voucher_hourly (voucher_id, hour, scans, customer_scans, camera_scans)
        SELECT 'v' || v, day AT TIME ZONE 'UTC', 1, 1, 1 FROM {days_and_vouchers};
        INSERT INTO voucher_daily (voucher_id, day) SELECT 'v' || v, day FROM {days_and_vouchers};
        INSERT INTO voucher_returns SELECT 'v' || v, day, '-infinity', 1 FROM {days_and_vouchers};
        INSERT INTO voucher_places SELECT 'v' || v, day, 'Bern', 1 FROM {days_and_vouchers};
        INSERT INTO voucher_place_months
        SELECT voucher_id, date_trunc('month', day), place, count(*) FROM voucher_places GROUP BY 1, 2, 3;
        ANALYZE voucher_hourly, voucher_daily, voucher_returns, voucher_places, voucher_place_months;
        """
    )
    span = "v7", date.min, date(2026, 2, 1)
    for statement, more in (
        ("voucher_days", ()),
        ("voucher_users", ()),
        ("voucher_users_by_day", ()),
        ("voucher_hours", (168,)),
        ("voucher_top_places", (50,)),
    ):
        for mode in ("force_custom_plan", "force_generic_plan"):
            await db.execute(f"SET plan_cache_mode = {mode}")
            explained = await db.fetchval(f"EXPLAIN (FORMAT JSON) {sql(statement)}", *span, *more)
            found = nodes(json.loads(explained)[0]["Plan"])
            assert "Seq Scan" not in {node["Node Type"] for node in found}, (statement, mode)
            assert {node["Index Name"] for node in found if "Index Name" in node} <= {
                "voucher_hourly_pkey",
                "voucher_daily_pkey",
                "voucher_returns_pkey",
                "voucher_places_pkey",
                "voucher_place_months_pkey",
            }


async def test_reads_are_timed(client, db) -> None:
    await db.execute("INSERT INTO vouchers (id) VALUES ('v')")
    for voucher_id in ("v", "v", "nothing"):
        await client.get(path(voucher_id))
    metrics = (await client.get("/metrics")).body
    assert b'counterfoil_query_seconds_count{query="voucher_analytics"} 3.0' in metrics
