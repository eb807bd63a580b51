"""What the metrics tell of vouchers: claims as a worker writes them, and all of them once a minute."""

from __future__ import annotations

from datetime import datetime, timedelta
from itertools import count
from math import isnan

import pytest

from counterfoil.ingest.partitions import Partition
from counterfoil.ingest.writer import Written
from counterfoil.telemetry.metrics import Metrics
from counterfoil.vouchers import handlers
from counterfoil.vouchers.sampling import sample_conversion, sample_scans
from support.builders import a_claim_event, a_scan_event, later, records_of
from support.postgres_road import Scribe, scribes

SCANS, CLAIMS = Partition("scan", 0), Partition("claim", 0)


@pytest.fixture
async def scribe(database_url):
    async with scribes(database_url) as (worker,):
        yield worker


async def written(scribe: Scribe, partition: Partition, *events, first: int = 0) -> Written:
    return await scribe.write(records_of(*events, partition=partition, first=first))


# Claims, as they are written


async def test_a_claim_tells_the_time_since_the_scan_and_how_many_vouchers_the_customer_has(scribe, db):
    await written(scribe, SCANS, a_scan_event(user_id="c1"), a_scan_event(user_id="c1", timestamp=later(60)))
    batch = await written(
        scribe,
        CLAIMS,
        a_claim_event("v1", "c1", timestamp=later(90)),
        a_claim_event("v2", "c1", timestamp=later(91)),
        a_claim_event("v1", "c2", timestamp=later(92)),
    )
    assert sorted(batch.observed["wallet_size"]) == [1, 2]
    assert batch.observed["scan_to_claim_seconds"] == [90]


async def test_a_claim_before_its_scan_tells_no_time(scribe, db):
    await written(scribe, SCANS, a_scan_event(user_id="c1", timestamp=later(60)))
    batch = await written(scribe, CLAIMS, a_claim_event("v1", "c1"))
    assert batch.observed == {"wallet_size": [1]}


async def test_what_is_claimed_once_more_tells_nothing(scribe, db):
    await written(scribe, CLAIMS, a_claim_event("v1", "c1"))
    again = await written(scribe, CLAIMS, a_claim_event("v1", "c1", timestamp=later()), first=1)
    assert again.observed == {}


async def test_of_a_backlog_of_claims_only_some_are_looked_at(scribe, db, monkeypatch):
    monkeypatch.setattr(handlers, "OBSERVED", 3)
    batch = await written(scribe, CLAIMS, *(a_claim_event("v1", f"c{n}") for n in range(10)))
    assert batch.observed["wallet_size"] == [1, 1, 1]


async def test_a_huge_wallet_is_counted_to_a_thousand_and_no_further(scribe, db):
    await db.execute(
        "INSERT INTO customer_vouchers (customer_id, voucher_id) "
        "SELECT 'c1', 'v' || n FROM generate_series(1, 1200) AS n"
    )
    batch = await written(scribe, CLAIMS, a_claim_event("another", "c1"))
    assert batch.observed["wallet_size"] == [1_001]


# All vouchers, once a minute


async def last_minute(db) -> datetime:
    """Where the last full minute begins."""
    begin: datetime = await db.fetchval("SELECT date_trunc('minute', now()) - interval '1 minute'")
    return begin


numbers = count()


async def scan(db, at: datetime, user: str | None = None, location: str | None = None) -> None:
    await db.execute(
        "INSERT INTO voucher_scans (scan_id, voucher_id, occurred_at, user_id, scan_type, scan_source, location) "
        "VALUES ($1, 'v1', $2, $3, 'CUSTOMER', 'LINK', $4)",
        f"scan-{next(numbers)}",
        at,
        user,
        location,
    )


async def test_the_last_full_minute_has_its_scans_users_and_places(shared_db):
    metrics, begin = Metrics(), await last_minute(shared_db)
    await scan(shared_db, begin, "u1", '{"city": "Berlin", "country": "de"}')
    await scan(shared_db, begin + timedelta(seconds=59), "u1", '{"city": "Berlin", "country": "DE"}')
    await scan(shared_db, begin + timedelta(seconds=30), None, '{"lat": 52.5, "lng": 13.4}')
    await scan(shared_db, begin + timedelta(seconds=30), "u2")
    await scan(shared_db, begin - timedelta(microseconds=1), "before")
    await scan(shared_db, begin + timedelta(minutes=1), "after")
    await sample_scans(shared_db, metrics)
    assert metrics.value("scans_per_minute") == 4
    assert metrics.value("unique_scanners") == 2
    assert metrics.value("scan_places") == 2


async def test_the_ratios_are_those_of_today(shared_db):
    metrics, now = Metrics(), await shared_db.fetchval("SELECT now()")
    for number in range(8):
        await scan(shared_db, now, f"c{number}")
    await scan(shared_db, now - timedelta(days=1))
    await shared_db.execute(
        "INSERT INTO customer_vouchers (customer_id, voucher_id) SELECT 'c' || n, 'v1' FROM generate_series(1, 4) AS n;"
        "INSERT INTO redemption_attempts (attempt_id, voucher_id, business_id, customer_id, successful) "
        "VALUES ('a1', 'v1', 'b1', 'c1', true), ('a2', 'v1', 'b1', 'c2', false)"
    )
    await sample_conversion(shared_db, metrics)
    assert metrics.value("scan_to_claim_ratio") == 0.5
    assert metrics.value("claim_to_redemption_ratio") == 0.25


async def test_where_nothing_was_scanned_there_is_no_ratio(shared_db):
    metrics = Metrics()
    await sample_scans(shared_db, metrics)
    await sample_conversion(shared_db, metrics)
    assert metrics.value("scans_per_minute") == 0
    assert isnan(metrics.value("scan_to_claim_ratio"))
    assert isnan(metrics.value("claim_to_redemption_ratio"))
