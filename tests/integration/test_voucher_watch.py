"""Watching vouchers on PostgreSQL: what a window holds, what is usual, who is told of what, and by whom."""

from __future__ import annotations

import asyncio
import json
import random
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest
from structlog.testing import capture_logs

from counterfoil.database.queries import sql
from counterfoil.scheduling import JOBS
from counterfoil.settings import Settings
from counterfoil.vouchers import watch
from counterfoil.vouchers.watch import watch_conversion, watch_failed_redemptions, watch_scan_rates
from support.postgres_road import plain_settings

NOW = datetime(2026, 3, 10, 12, 30, tzinfo=UTC)
A_DAY = timedelta(days=1)
AN_HOUR = timedelta(hours=1)
PLAIN = plain_settings()
WATCHING = [job for job in JOBS if job.name in {look.name for look in watch.LOOKS}]


@pytest.fixture
async def pool(database_url: str) -> AsyncIterator[asyncpg.Pool]:
    async with asyncpg.create_pool(database_url, min_size=0, max_size=8) as made:
        yield made


async def scans(
    db: asyncpg.Connection,
    count: int,
    voucher_id: str = "v-1",
    *,
    at: datetime | None = None,
    device: object = None,
    address: str | None = None,
) -> None:
    """So many scans, by default in the middle of the window that ends now."""
    info = device if isinstance(device, Mapping) else {"deviceId": device} if device else {}
    await db.execute(
        """INSERT INTO voucher_scans (scan_id, voucher_id, occurred_at, scan_type, scan_source, device_info, ip_address)
           SELECT $1 || n, $2, $3, 'CUSTOMER', 'CAMERA', $4::jsonb, $5 FROM generate_series(1, $6::integer) AS n""",
        f"{uuid.uuid4()}-",
        voucher_id,
        at or NOW - timedelta(minutes=2),
        json.dumps(info),
        address,
        count,
    )


async def usual_days(db: asyncpg.Connection, an_hour: int, voucher_id: str = "v-1", days: int = 3) -> None:
    """Days before today, each with so many scans in one hour."""
    for day in range(1, days + 1):
        await scans(db, an_hour, voucher_id, at=NOW - day * A_DAY)


async def failures(db: asyncpg.Connection, count: int, voucher_id: str = "v-1", at: datetime = NOW) -> None:
    await db.execute(
        """INSERT INTO redemption_attempts (attempt_id, attempted_at, voucher_id, business_id, successful)
           SELECT $1 || n, $2, $3, 'b-1', false FROM generate_series(1, $4::integer) AS n""",
        f"{uuid.uuid4()}-",
        at - timedelta(minutes=1),
        voucher_id,
        count,
    )


async def watched(db: asyncpg.Connection, at: datetime = NOW, **settings: object) -> int:
    return await watch_scan_rates(db, plain_settings(**settings), at)


async def watch_vouchers(pool: asyncpg.Pool, settings: Settings) -> int:
    """What the schedule does of it, one job after the other; how many alerts were raised."""
    return sum([await job.work(pool, settings) for job in WATCHING])


async def counted(db: asyncpg.Connection, *, answered: int = 1_000) -> list[asyncpg.Record]:
    """What is answered of the window that ends now, of those with a scan or more."""
    kinds, least = ["voucher", "device", "address"], [1, 1, 1]
    since = NOW - timedelta(minutes=5)
    return await db.fetch(sql("note_scans_of_window"), since, NOW, kinds, least, least, NOW, 10_000, answered)


async def told(db: asyncpg.Connection) -> list[dict[str, Any]]:
    """What went out, in order, without the ids."""
    rows = await db.fetch("SELECT topic, key, value FROM outbox ORDER BY id")
    assert {row["topic"] for row in rows} <= {"voucher-alert"}
    values = [json.loads(row["value"]) for row in rows]
    assert [row["key"] for row in rows] == [value["voucher_id"] for value in values]
    return [value for value in values if value.pop("alert_id")]


# Scan rates


async def test_a_voucher_far_above_its_usual_days_is_told_of(shared_db) -> None:
    await usual_days(shared_db, 144)  # 12 in five minutes
    await scans(shared_db, 120)
    assert await watched(shared_db) == 0
    await scans(shared_db, 1)
    assert await watched(shared_db) == 1
    assert await told(shared_db) == [
        {
            "kind": "scan-rate",
            "voucher_id": "v-1",
            "value": 121,
            "limit": 121,
            "window": 300,
            "occurred_at": "2026-03-10T12:30:00Z",
        }
    ]


async def test_a_rush_of_every_day_raises_nothing_and_an_attack_of_yesterday_hides_none(shared_db) -> None:
    await usual_days(shared_db, 2_400, "busy")
    await usual_days(shared_db, 12, "quiet", days=4)
    await scans(shared_db, 5_000, "quiet", at=NOW - A_DAY)
    await scans(shared_db, 200, "busy")
    await scans(shared_db, 200, "quiet")
    assert await watched(shared_db) == 1
    assert [alert["voucher_id"] for alert in await told(shared_db)] == ["quiet"]


async def test_the_hour_that_runs_is_not_usual_yet(shared_db) -> None:
    await usual_days(shared_db, 12, days=2)
    await scans(shared_db, 3_000, at=NOW - timedelta(minutes=20))
    await usual_days(shared_db, 12, days=3)
    await scans(shared_db, 200)
    assert await watched(shared_db) == 1


@pytest.mark.parametrize(
    "outside",
    [NOW, NOW + timedelta(minutes=1), NOW - timedelta(minutes=5, seconds=1), NOW - 3 * AN_HOUR],
    ids=["now", "later", "before", "replayed"],
)
async def test_scans_outside_the_window_raise_nothing(shared_db, outside: datetime) -> None:
    await usual_days(shared_db, 12)
    await scans(shared_db, 5_000, at=outside)
    assert await watched(shared_db) == 0


async def test_what_is_older_than_alerts_may_be_is_not_looked_at(shared_db) -> None:
    await usual_days(shared_db, 12)
    await scans(shared_db, 5_000)
    assert await watched(shared_db, alert_max_age_s=60) == 0
    assert await watched(shared_db) == 1


async def test_a_cold_start_raises_nothing_unless_there_is_a_ceiling(shared_db) -> None:
    await scans(shared_db, 5_000, device="d-1", address="10.0.0.0")
    assert await watched(shared_db) == 0
    assert await watched(shared_db, voucher_scan_rate_ceiling=5_001) == 0
    assert await watched(shared_db, voucher_scan_rate_ceiling=5_000) == 3
    assert {alert["limit"] for alert in await told(shared_db)} == {5_000}


async def test_who_is_new_is_compared_with_the_busy_ones_of_the_same_window(shared_db) -> None:
    for number in range(19):
        await scans(shared_db, 1 + number % 3, f"v-{number}", device=f"d-{number}")
    await scans(shared_db, 30, "v-7", device="greedy")
    await scans(shared_db, 3, "v-8", device="greedy")
    assert await watched(shared_db) == 1
    (alert,) = await told(shared_db)
    assert (alert["subject"], alert["voucher_id"], alert["value"]) == ({"device": "greedy"}, "v-7", 33)


async def test_two_that_are_attacked_at_once_do_not_hide_each_other_on_a_cold_start(shared_db) -> None:
    for number in range(18):
        await scans(shared_db, 1 + number % 3, f"v-{number}")
    await scans(shared_db, 500, "one")
    await scans(shared_db, 600, "another")
    assert await watched(shared_db) == 2
    assert [(alert["voucher_id"], alert["limit"]) for alert in await told(shared_db)] == [
        ("another", 100),
        ("one", 100),
    ]


async def test_who_is_new_is_compared_with_what_was_busy_on_the_days_before(shared_db) -> None:
    for day in (3, 2, 1):
        await scans(shared_db, 5, device="usual", at=NOW - day * A_DAY)
        assert await watched(shared_db, NOW - day * A_DAY + timedelta(minutes=1)) == 0
    await scans(shared_db, 51, device="new")
    await scans(shared_db, 50, device="other")
    assert await watched(shared_db, voucher_scan_rate_min=0) == 1
    (alert,) = await told(shared_db)
    assert (alert["subject"], alert["limit"]) == ({"device": "new"}, 51)


async def test_a_device_that_is_busy_every_day_is_as_usual(shared_db) -> None:
    for day in (3, 2, 1):
        await scans(shared_db, 40, "v-1", device="till", at=NOW - day * A_DAY)
        await watched(shared_db, NOW - day * A_DAY + timedelta(minutes=1))
    await scans(shared_db, 400, device="till")
    assert await watched(shared_db, voucher_scan_rate_min=0) == 0
    await scans(shared_db, 1, device="till")
    assert await watched(shared_db, voucher_scan_rate_min=0) == 1
    (alert,) = await told(shared_db)
    assert (alert["subject"], alert["value"], alert["limit"]) == ({"device": "till"}, 401, 401)


async def test_devices_are_known_by_several_names_and_nobody_by_none(shared_db) -> None:
    infos = [
        {"deviceId": "a"},
        {"device_id": "a"},
        {"id": "a"},
        {"deviceId": " ", "id": "a"},
        {"deviceId": None},
    ]
    for info in [*infos, {"model": "x"}, {"deviceId": ""}]:
        await scans(shared_db, 25, device=info)
    assert await watched(shared_db, voucher_scan_rate_min=0, voucher_scan_rate_ceiling=30) == 1
    (alert,) = await told(shared_db)
    assert (alert["subject"], alert["value"]) == ({"device": "a"}, 100)


async def test_an_address_is_told_of_by_what_is_kept_of_it(shared_db) -> None:
    await scans(shared_db, 60, "v-1", address="192.0.2.0")
    await scans(shared_db, 60, "v-2", address="192.0.2.0")
    await scans(shared_db, 500, "v-3")
    assert await watched(shared_db, voucher_scan_rate_ceiling=1, voucher_scan_rate_min=0) == 1
    (alert,) = await told(shared_db)
    assert (alert["subject"], alert["voucher_id"], alert["value"]) == ({"address": "192.0.2.0"}, "v-1", 120)


async def test_an_id_of_a_device_may_be_of_any_length(shared_db) -> None:
    await scans(shared_db, 30, device={"id": "x" * 10_000})
    assert await watched(shared_db, voucher_scan_rate_ceiling=1) == 1
    assert (await told(shared_db))[0]["subject"] == {"device": "x" * 255}


async def test_the_same_scans_are_told_once_and_an_attack_that_goes_on_again(shared_db) -> None:
    await usual_days(shared_db, 12)
    await scans(shared_db, 500)
    assert await watched(shared_db, alert_cooldown_s=10) == 1
    assert await watched(shared_db, NOW + timedelta(minutes=1), alert_cooldown_s=10) == 0
    await shared_db.execute("UPDATE alert_cooldowns SET raised_at = raised_at - interval '5 minutes'")
    await scans(shared_db, 500, at=NOW + timedelta(minutes=4))
    assert await watched(shared_db, NOW + timedelta(minutes=5), alert_cooldown_s=10) == 1


async def test_a_limit_of_0_is_off(shared_db) -> None:
    await scans(shared_db, 500, device="d", address="a")
    off = {f"voucher_{kind}scan_rate_min": 0 for kind in ("", "device_", "address_")}
    assert await watched(shared_db, **off, voucher_scan_rate_ceiling=1) == 0
    assert await shared_db.fetchval("SELECT count(*) FROM scan_rates") == 0
    await failures(shared_db, 50)
    assert (
        await watch_failed_redemptions(shared_db, plain_settings(voucher_failed_redemptions_limit=0), NOW)
        == 0
    )
    assert await watch_conversion(shared_db, conversion_settings(voucher_low_conversion_limit=0), NOW) == 0


async def test_of_very_many_those_with_most_scans_are_told(shared_db) -> None:
    await shared_db.execute(
        """INSERT INTO voucher_scans (scan_id, voucher_id, occurred_at, scan_type, scan_source, device_info)
           SELECT device || '-' || n, 'v', $1, 'CUSTOMER', 'CAMERA', jsonb_build_object('id', 'd' || device)
           FROM generate_series(1, 120) AS device, generate_series(1, device) AS n""",
        NOW - timedelta(minutes=1),
    )
    limits = {"voucher_scan_rate_min": 0, "voucher_device_scan_rate_min": 1, "voucher_scan_rate_factor": 1}
    await watched(shared_db, NOW - AN_HOUR)
    rates = [("device", "", NOW - day * A_DAY, 0.0) for day in (1, 2, 3)]
    await shared_db.executemany("INSERT INTO scan_rates VALUES ($1, $2, $3, $4)", rates)
    assert await watched(shared_db, **limits) == 100
    assert [alert["value"] for alert in await told(shared_db)] == list(range(120, 20, -1))


async def test_the_busiest_window_of_an_hour_is_kept(shared_db) -> None:
    for minute, count in ((1, 40), (10, 90), (20, 60)):
        await scans(shared_db, count, device="d", at=NOW + timedelta(minutes=minute - 1))
        await watched(shared_db, NOW + timedelta(minutes=minute), alert_cooldown_s=0)
    kept = await shared_db.fetch(
        "SELECT kind, subject, hour, busiest * 300 AS scans FROM scan_rates ORDER BY 1, 2"
    )
    hour = NOW.replace(minute=0)
    assert [tuple(row) for row in kept] == [
        ("device", "", hour, 90),
        ("device", "d", hour, 90),
        ("voucher", "", hour, 90),
    ]


async def test_of_each_kind_those_with_most_scans_are_noted_and_judged(shared_db, monkeypatch) -> None:
    monkeypatch.setattr(watch, "MOST_NOTED", 2)
    monkeypatch.setattr(watch, "MOST_JUDGED", 3)
    for count in (40, 41, 42, 43, 44):
        await scans(shared_db, count, device=f"d-{count}")
    with capture_logs() as logs:
        assert await watched(shared_db, voucher_scan_rate_min=0, voucher_scan_rate_ceiling=30) == 3
    assert [alert["value"] for alert in await told(shared_db)] == [44, 43, 42]
    assert [(log["event"], log["kind"], log["count"]) for log in logs] == [
        ("scan_rates_not_judged", "device", 2)
    ]
    kept = await shared_db.fetch("SELECT subject, busiest * 300 FROM scan_rates ORDER BY 1")
    assert [tuple(row) for row in kept] == [("", 44), ("d-43", 43), ("d-44", 44)]


async def test_who_is_worth_no_alert_is_noted_without_leaving_the_database(shared_db) -> None:
    await shared_db.execute(
        """INSERT INTO voucher_scans (scan_id, voucher_id, occurred_at, scan_type, scan_source, device_info)
           SELECT device || '-' || n, 'v', $1, 'CUSTOMER', 'CAMERA', jsonb_build_object('id', 'd' || device)
           FROM generate_series(1, 50) AS device, generate_series(1, 5) AS n""",
        NOW - timedelta(minutes=1),
    )
    fetched: list[Any] = []
    shared_db.add_query_logger(fetched.append)
    assert await watched(shared_db, voucher_scan_rate_min=0) == 0
    assert await shared_db.fetchval("SELECT count(*) FROM scan_rates WHERE subject <> ''") == 50
    assert not [query for query in fetched if "d1" in str(query.args)]


async def test_each_is_counted_beside_the_voucher_that_it_scanned_most_of_equal_ones_the_smaller(
    shared_db,
) -> None:
    rng = random.Random(4)
    pairs = Counter((f"d-{rng.randrange(9)}", f"v-{rng.randrange(6)}") for _ in range(120))
    for (device, voucher_id), count in pairs.items():
        await scans(shared_db, count, voucher_id, device=device)
    expected = {}
    for device in {device for device, _ in pairs}:
        of_device = {voucher_id: count for (who, voucher_id), count in pairs.items() if who == device}
        most = min(of_device, key=lambda voucher_id: (-of_device[voucher_id], voucher_id))
        expected[device] = (most, sum(of_device.values()))
    rows = [row for row in await counted(shared_db) if row["kind"] == "device" and row["subject"]]
    assert {row["subject"]: (row["voucher_id"], row["scans"]) for row in rows} == expected


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", ()):
        yield from nodes(child)


async def test_counting_a_window_sorts_no_row_for_each_scan(shared_db) -> None:
    await shared_db.execute(
        """INSERT INTO voucher_scans (scan_id, voucher_id, occurred_at, scan_type, scan_source, device_info, ip_address)
           SELECT n::text, 'v-' || n % 10, $1, 'CUSTOMER', 'CAMERA', jsonb_build_object('id', 'd' || n % 30),
                  '10.0.' || n % 20 || '.0'
           FROM generate_series(1, 5000) AS n""",
        NOW - timedelta(minutes=1),
    )
    await shared_db.execute("ANALYZE voucher_scans")
    kinds = ["voucher", "device", "address"]
    explained = await shared_db.fetchval(
        f"EXPLAIN (ANALYZE, FORMAT JSON) {sql('note_scans_of_window')}",
        *(NOW - timedelta(minutes=5), NOW, kinds, [1, 1, 1], [500, 168, 251], NOW, 10_000, 1_000),
    )
    plan = json.loads(explained)[0]["Plan"]
    sorted_rows = [node["Actual Rows"] for node in nodes(plan) if "Sort" in node["Node Type"]]
    assert sorted_rows
    assert max(sorted_rows) < 1_000


# Failed redemptions


async def test_many_failed_redemptions_are_told_of(shared_db) -> None:
    await failures(shared_db, 9, "few")
    await failures(shared_db, 12, "many")
    await failures(shared_db, 50, "long ago", at=NOW - AN_HOUR)
    await shared_db.execute(
        """INSERT INTO redemption_attempts (attempt_id, attempted_at, voucher_id, business_id, successful)
           SELECT 'good' || n, $1, 'few', 'b', true FROM generate_series(1, 20) AS n""",
        NOW - timedelta(minutes=1),
    )
    assert await watch_failed_redemptions(shared_db, PLAIN, NOW) == 1
    assert await watch_failed_redemptions(shared_db, PLAIN, NOW + timedelta(minutes=1)) == 0
    assert await told(shared_db) == [
        {
            "kind": "failed-redemptions",
            "voucher_id": "many",
            "value": 12,
            "limit": 10,
            "window": 900,
            "occurred_at": "2026-03-10T12:30:00Z",
        }
    ]


# Conversion


def conversion_settings(**given: object) -> Settings:
    return plain_settings(
        **{"voucher_low_conversion_min_scans": 50, "voucher_low_conversion_limit": 0.1, **given}
    )


async def claims(db: asyncpg.Connection, count: int, voucher_id: str, at: datetime = NOW) -> None:
    await db.execute(
        """INSERT INTO customer_vouchers (customer_id, voucher_id, claimed_at)
           SELECT 'c-' || n, $1, $2 FROM generate_series(1, $3::integer) AS n""",
        voucher_id,
        at,
        count,
    )


async def test_many_scans_with_few_claims_are_told_of_once_a_day(shared_db) -> None:
    for voucher_id, scanned, claimed in (("low", 60, 5), ("enough", 60, 6), ("few", 49, 0), ("none", 70, 0)):
        await scans(shared_db, scanned, voucher_id, at=NOW - 5 * A_DAY)
        await claims(shared_db, claimed, voucher_id)
    assert await watch_conversion(shared_db, conversion_settings(), NOW) == 2
    assert await watch_conversion(shared_db, conversion_settings(), NOW + AN_HOUR) == 0
    first, second = await told(shared_db)
    assert (first["voucher_id"], first["value"], first["claims"], first["scans"]) == ("none", 0.0, 0, 70)
    assert second == {
        "kind": "low-conversion",
        "voucher_id": "low",
        "value": 0.083333,
        "limit": 0.1,
        "window": 604_800,
        "scans": 60,
        "claims": 5,
        "occurred_at": "2026-03-10T12:30:00Z",
    }
    assert await watch_conversion(shared_db, conversion_settings(), NOW + A_DAY) == 2


async def test_conversion_is_of_the_last_days_and_of_vouchers_that_can_be_claimed(shared_db) -> None:
    await scans(shared_db, 60, "old", at=NOW - 7 * A_DAY)
    await scans(shared_db, 60, "expired")
    await shared_db.execute("UPDATE vouchers SET expires_at = now() WHERE id = 'expired'")
    assert await watch_conversion(shared_db, conversion_settings(), NOW) == 0
    assert await watch_conversion(shared_db, conversion_settings(voucher_low_conversion_days=8), NOW) == 1


# By the clock


async def test_of_eight_workers_one_looks_and_the_next_minute_again(pool, db) -> None:
    now = await db.fetchval("SELECT now()")
    await failures(db, 20, at=now)
    settings = plain_settings(alert_cooldown_s=0)

    async def everybody() -> list[int]:
        return await asyncio.gather(*(watch_vouchers(pool, settings) for _ in range(8)))

    assert sum(await everybody()) == 1
    turns = dict(await db.fetch("SELECT job, turn FROM job_turns"))
    assert set(turns) == {"watch_redemptions", "watch_scan_rates", "watch_conversion", "forget_rates"}
    assert sum(await everybody()) == 0
    await db.execute("UPDATE job_turns SET turn = turn - interval '1 minute' WHERE job = 'watch_redemptions'")
    await db.execute("UPDATE alert_cooldowns SET raised_at = raised_at - interval '1 hour'")
    assert sum(await everybody()) == 1
    assert len(await told(db)) == 2


async def test_a_look_that_fails_is_done_by_the_next(pool, db) -> None:
    await failures(db, 20, at=await db.fetchval("SELECT now()"))
    await db.execute("ALTER TABLE outbox ADD CONSTRAINT broken CHECK (key = '')")
    with pytest.raises(asyncpg.CheckViolationError):
        await watch_vouchers(pool, PLAIN)
    await db.execute("ALTER TABLE outbox DROP CONSTRAINT broken")
    assert await watch_vouchers(pool, PLAIN) == 1


@pytest.mark.parametrize(
    ("broken", "look"),
    [
        ("ALTER TABLE scan_rates ADD CONSTRAINT broken CHECK (kind = '')", "watch_scan_rates"),
        ("ALTER TABLE redemption_attempts RENAME TO gone", "watch_redemptions"),
        ("ALTER TABLE voucher_daily RENAME TO gone", "watch_conversion"),
        ("ALTER TABLE alert_cooldowns RENAME raised_at TO gone", "forget_rates"),
    ],
)
async def test_a_look_that_fails_keeps_no_other_from_looking(pool, db, broken: str, look: str) -> None:
    at = await db.fetchval("SELECT now()")
    await scans(db, 40, device="d", at=at - timedelta(minutes=1))
    await db.execute(broken)
    done = await asyncio.gather(*(job.work(pool, PLAIN) for job in WATCHING), return_exceptions=True)
    failed = {job.name for job, one in zip(WATCHING, done, strict=True) if isinstance(one, BaseException)}
    assert failed == {look}
    turns = await db.fetch("SELECT job FROM job_turns")
    assert {row["job"] for row in turns} == {job.name for job in WATCHING} - {look}


async def test_failed_redemptions_are_told_though_scans_cannot_be_counted(pool, db) -> None:
    at = await db.fetchval("SELECT now()")
    await failures(db, 20, at=at)
    await scans(db, 40, device="d", at=at - timedelta(minutes=1))
    await db.execute("ALTER TABLE scan_rates ADD CONSTRAINT broken CHECK (kind = '')")
    await asyncio.gather(*(job.work(pool, PLAIN) for job in JOBS), return_exceptions=True)
    assert [alert["kind"] for alert in await told(db)] == ["failed-redemptions"]


async def test_a_turn_that_another_worker_is_taking_is_not_waited_for(pool, db) -> None:
    async with db.transaction():
        await db.fetch("SELECT 1")
        assert await watch_vouchers(pool, PLAIN) == 0  # makes the rows
    await db.execute("UPDATE job_turns SET turn = turn - interval '1 day'")
    async with db.transaction():
        await db.execute(
            """SELECT pg_advisory_xact_lock(3087, hashtext(format('turn of %s in %s', job, current_schema())))
               FROM job_turns"""
        )
        await asyncio.wait_for(watch_vouchers(pool, PLAIN), 10)
    assert await db.fetchval("SELECT max(turn) < now() - interval '1 hour' FROM job_turns")


async def test_what_is_compared_no_more_is_forgotten(pool, db) -> None:
    await db.execute(
        """INSERT INTO scan_rates
           VALUES ('device', 'a', now() - interval '9 days', 1), ('device', 'b', now(), 1);
           INSERT INTO alert_cooldowns
           VALUES ('scan-rate', 'a', now() - interval '3 days'), ('scan-rate', 'b', now());"""
    )
    await watch_vouchers(pool, PLAIN)
    assert await db.fetchval("SELECT array_agg(subject) FROM scan_rates") == ["b"]
    assert await db.fetchval("SELECT array_agg(cause) FROM alert_cooldowns") == ["b"]
