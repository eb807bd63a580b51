"""`counterfoil explain voucher`: the rows behind a voucher's counts, and whether the counts are what these come to."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta

import asyncpg
import pytest

from counterfoil.database.queries import sql
from counterfoil.events import Rules
from counterfoil.explaining import explain, vouchers
from counterfoil.explaining.rows import Span
from counterfoil.explaining.view import AGREES, DISAGREES, sections
from counterfoil.ingest.partitions import Partition
from support.builders import (
    NOON,
    a_claim_event,
    a_redemption_event,
    a_scan_event,
    a_voucher_event,
    an_impression_event,
    later,
    records_of,
)
from support.postgres_ledgers import connections
from support.postgres_road import scribes

SCAN = """INSERT INTO voucher_scans (scan_id, voucher_id, occurred_at, user_id, scan_type, scan_source)
          VALUES ($1, 'v1', $2, $3, 'CUSTOMER', 'CAMERA')"""


@pytest.fixture
async def today(db):
    """The day after NOON."""
    database = await db.fetchval("SELECT current_database()")
    await db.execute(f"ALTER DATABASE {database} SET counterfoil.today = '{NOON.date() + timedelta(days=1)}'")
    return db


@pytest.fixture
async def told(today, database_url):
    """A voucher of which every topic has told: four scans by two users and nobody, two claims, three attempts."""
    async with scribes(database_url) as (worker,):
        await worker.write(
            [
                *records_of(
                    a_voucher_event(title="A fifth off", business_id="b1", expires_at=later(86_400)),
                    partition=Partition("voucher.created", 1),
                ),
                *records_of(an_impression_event(), partition=Partition("impression", 0)),
                *records_of(
                    *(a_scan_event(scan_id=f"s{n}", user_id=user, timestamp=later(n)) for n, user in SCANNED),
                    a_scan_event(
                        scan_id="s4",
                        timestamp=later(4),
                        scan_source="LINK",
                        ip_address="203.0.113.9",
                        location='{"city": "Berlin"}',
                        metadata='{"source": "poster"}',
                    ),
                    partition=Partition("scan", 0),
                ),
                *records_of(
                    *(a_claim_event(customer_id=f"c{n}", timestamp=later(60 * n)) for n in (1, 2)),
                    partition=Partition("claim", 0),
                ),
                *records_of(
                    a_redemption_event(
                        attempt_id="a1", timestamp=later(300), successful=False, failure_reason="closed"
                    ),
                    a_redemption_event(
                        attempt_id="a2", timestamp=later(301), successful=False, failure_reason="closed"
                    ),
                    a_redemption_event(attempt_id="a3", timestamp=later(302)),
                    partition=Partition("redemption", 0),
                ),
            ]
        )
    return today


SCANNED = ((1, "c1"), (2, "c1"), (3, "c2"))


@pytest.fixture
async def report(database_url):
    """The report of the voucher v1, or of another."""

    async def report(voucher="v1", **span):
        connection = await asyncpg.connect(database_url)
        try:
            return await explain(connection, "voucher", voucher, Rules(), Span(**span))
        finally:
            connection.terminate()

    return report


def shown(report) -> str:
    """The prose and the cells that a terminal shows."""
    return "\n".join(f"{section.title}\n{section.rows or ''}" for section in sections(report))


# What was told of it


async def test_a_voucher_is_explained_by_what_every_topic_told(told, report):
    found = await report()
    voucher = found["voucher"]
    assert (voucher["title"], voucher["business_id"], voucher["created_at"]) == ("A fifth off", "b1", NOON)
    assert (voucher["source"]["topic"], voucher["source"]["partition"]) == ("voucher.created", 1)
    assert found["stored"] == {"scan_count": 4, "claim_count": 2, "redemption_count": 1, "impressions": 1}
    assert found["unique_users"] == {"ever": 2, "of_days": 2}
    assert found["states"] == [
        {"status": "CLAIMED", "wallets": 1, "claims": 1},
        {"status": "REDEEMED", "wallets": 1, "claims": 1},
    ]
    assert [
        (d["day"], d["scans"], d["users"], d["claims"], d["failed_redemptions"]) for d in found["daily"]
    ] == [(NOON.date(), 4, 2, 2, 2)]
    assert found["places"] == [{"place": "Berlin", "scans": 1}]
    assert found["agrees"]


async def test_its_rows_stand_newest_first_with_the_records_that_they_came_from(told, report):
    found = await report()
    assert [scan["scan_id"] for scan in found["scans"]] == ["s4", "s3", "s2", "s1"]
    assert [wallet["customer_id"] for wallet in found["wallets"]] == ["c2", "c1"]
    assert [(a["attempt_id"], a["successful"], a["failure_reason"]) for a in found["attempts"]] == [
        ("a3", True, None),
        ("a2", False, "closed"),
        ("a1", False, "closed"),
    ]
    assert [(f["failure_reason"], f["attempts"]) for f in found["failures"]] == [("closed", 2)]
    for name, topic in (("scans", "scan"), ("wallets", "claim"), ("attempts", "redemption")):
        assert {row["source"]["topic"] for row in found[name]} == {topic}
    assert found["totals"] == {
        "scans": 4,
        "wallets": 2,
        "attempts": 3,
        "failures": 1,
        "places": 1,
        "refused_facts": 0,
        "closings": 0,
    }


async def test_of_an_address_is_shown_what_the_ledger_keeps(told, report):
    assert (await report())["scans"][0]["ip_address"] == "203.0.113.0"


async def test_what_gave_way_is_shown_as_refused(told, report, database_url):
    async with scribes(database_url) as (worker,):
        again = a_claim_event(customer_id="c1", timestamp=later(-5))
        await worker.write(records_of(again, partition=Partition("claim", 1)))
        other = a_redemption_event(attempt_id="a3", timestamp=later(999), business_id="b2")
        await worker.write(records_of(other, partition=Partition("redemption", 1)))
    found = await report()
    assert [(f["event"], f["of_what"], f["source"]["partition"]) for f in found["refused_facts"]] == [
        ("claim", "c1", 0),
        ("redemption", "a3", 1),
    ]
    assert found["totals"]["refused_facts"] == 2
    assert "refused: the earlier content stands" in shown(found)


async def test_a_voucher_that_is_only_known_by_a_scan_is_explained(today, report):
    await today.execute(SCAN, "s1", NOON, None)
    found = await report()
    assert (found["voucher"]["created_at"], found["stored"]["scan_count"]) == (None, 1)
    assert "No voucher.created told of it yet" in shown(found)


async def test_what_nobody_told_of_is_not_known(today, report):
    assert await report("v9") is None


# What its counts are compared with


def test_every_table_that_counts_is_compared():
    assert {compared.where for compared in vouchers.COMPARED} == {
        "voucher_hourly",
        "voucher_daily",
        "voucher_scanner_days",
        "customer_vouchers",
        "redemption_attempts",
        "ledger_closings",
    }


@pytest.mark.parametrize(
    ("by_hand", "counters"),
    [
        ("UPDATE vouchers SET scan_count = 9", {"scan_count"}),
        ("UPDATE voucher_hourly SET scans = 5, link_scans = link_scans + 1, business_scans = 1", {"scan_count"}),
        ("UPDATE vouchers SET claim_count = 9", {"claim_count"}),
        ("UPDATE voucher_daily SET claims = 9", {"claim_count"}),
        ("UPDATE vouchers SET redemption_count = 9", {"redemption_count"}),
        ("UPDATE voucher_daily SET failed_redemptions = 9", {"voucher_daily.failed_redemptions"}),
        ("UPDATE vouchers SET impressions = 9", {"impressions"}),
        ("UPDATE voucher_returns SET users = 9", {"voucher_returns.users"}),
        ("UPDATE customer_vouchers SET redeemed_at = redeemed_at + interval '1 s' WHERE customer_id = 'c1'",
         {"redeemed_at of customer c1"}),
        ("UPDATE customer_vouchers SET first_scanned_at = NULL WHERE customer_id = 'c2'",
         {"first_scanned_at of customer c2"}),
        ("DELETE FROM vouchers", {"scan_count", "claim_count", "redemption_count", "impressions"}),
    ],
)  # fmt: skip
async def test_what_was_overwritten_is_told(told, report, by_hand, counters):
    async with told.transaction():
        await told.execute("SET LOCAL session_replication_role = replica")
        await told.execute(by_hand)
    found = await report()
    assert {drift["counter"] for drift in found["drift"]} == counters
    assert not found["agrees"]
    assert DISAGREES in shown(found)


async def test_the_text_says_that_the_scans_are_not_counted_again(told, report):
    assert "The scans themselves are counted again by `counterfoil verify`." in AGREES["voucher"]
    assert AGREES["voucher"] in shown(await report())


async def test_a_redemption_that_was_written_by_hand_stands(told, report):
    await told.execute(
        "UPDATE customer_vouchers SET status = 'REDEEMED', redeemed_at = $1 WHERE customer_id = 'c2'",
        later(400),
    )
    found = await report()
    assert [wallet["status"] for wallet in found["wallets"]] == ["REDEEMED", "REDEEMED"]
    assert (found["stored"]["redemption_count"], found["drift"]) == (1, [])


# How much of it


async def test_a_list_that_is_cut_says_how_long_it_is(told, report):
    found = await report(limit=1)
    assert [len(found[name]) for name in ("scans", "wallets", "attempts")] == [1, 1, 1]
    assert found["scans"][0]["scan_id"] == "s4"
    assert "Attempts to redeem (1 of 3, newest first)" in shown(found)
    assert "(1 of 4, newest first)" in shown(found)
    assert "were not found within" not in shown(found)


async def test_users_and_scans_are_those_of_the_days_that_are_asked_for(told, report):
    await told.execute(SCAN, "old", NOON - timedelta(days=40), "c9")
    await told.execute(SCAN, "earlier", NOON - timedelta(days=9), "c1")
    await told.execute(SCAN, "tomorrow", NOON + timedelta(days=3), "c9")
    found = await report()
    assert (found["totals"]["scans"], found["unique_users"]) == (5, {"ever": 3, "of_days": 2})
    assert [scan["scan_id"] for scan in found["scans"]] == ["s4", "s3", "s2", "s1", "earlier"]
    assert (await report(days=2))["totals"]["scans"] == 4
    assert (await report(days=60))["scans"][-1]["scan_id"] == "old"
    assert (await report(days=1))["unique_users"]["of_days"] == 0


async def test_an_hour_with_very_many_scans_is_looked_through_in_parts(told, report):
    await told.execute(
        "UPDATE voucher_hourly SET scans = 200000, customer_scans = 200000, camera_scans = 199999"
    )
    parts = await told.fetch(sql("explain_scan_windows"), "v1", 30_000, 3)
    assert (len(parts), parts[0]["until"], parts[-1]["since"]) == (5, str(later(3_600))[:-3], str(NOON)[:-3])
    assert [part["since"] for part in parts[:-1]] == [part["until"] for part in parts[1:]]
    assert [scan["scan_id"] for scan in (await report(limit=3))["scans"]] == ["s4", "s3", "s2"]


async def test_scans_that_are_not_found_in_time_are_left_out_and_the_rest_is_told(
    told, report, database_url, monkeypatch
):
    monkeypatch.setattr(vouchers, "LOOK_FOR_S", 0.05)
    async with connections(database_url, 1) as (other,), other.transaction():
        await other.execute("LOCK TABLE voucher_scans")
        found = await report()
    assert (found["scans"], found["scans_found"], found["totals"]["scans"]) == ([], False, 4)
    assert found["agrees"]
    assert "were not found within" in shown(found)


async def test_only_the_partition_of_a_window_is_read(shared_db):
    statement = sql("explain_scans_of_window")
    for parameter, value in (
        ("$1", "'v'"),
        ("$2", "'2026-03-01Z'"),
        ("$3", "'2026-03-01 01:00Z'"),
        ("$4", "5"),
    ):
        statement = statement.replace(parameter, value)
    plan = "\n".join(row[0] for row in await shared_db.fetch(f"EXPLAIN {statement}"))
    assert "voucher_scans_default" in plan
    assert "voucher_scans_2" not in plan


# What is closed


async def test_closed_days_are_shown_with_what_they_count(db, report):
    await db.execute(SCAN, "old", datetime(2025, 3, 1, 12, tzinfo=UTC), "c1")
    await db.execute(SCAN, "old too", datetime(2025, 3, 1, 13, tzinfo=UTC), "c2")
    await db.fetch("SELECT close_scan_partitions('2025-04-01')")
    found = await report(days=30_000)
    assert [(c["day"], c["scans"], c["reason"]) for c in found["closings"]] == [(date(2025, 3, 1), 2, None)]
    assert {
        "counter": "voucher_hourly.scans, closed",
        "stored": 2,
        "counted": 2,
        "where": "ledger_closings",
    } in found["compared"]
    assert (found["scans"], found["scans_found"], found["agrees"]) == ([], False, True)
    assert "The other scans of these days are closed" in shown(found)
    await db.execute("UPDATE ledger_closings SET sums = '{}'")
    assert [d["counter"] for d in (await report())["drift"]] == ["voucher_hourly.scans, closed"]


# What events put together


async def test_what_an_event_calls_source_is_no_source(told, report):
    found = await report()
    assert found["scans"][0]["metadata"] == {"source": "poster"}
    assert "scan/0@3" in shown(found)


async def test_numbers_of_any_size_are_told_as_json(told, report):
    await told.execute(
        """UPDATE voucher_scans
           SET metadata = format('{"big": 1%s, "half": 1%s.5, "s": 0.25}', repeat('0', 5000), repeat('0', 400))::jsonb
           WHERE scan_id = 's4'"""
    )
    metadata = (await report())["scans"][0]["metadata"]
    assert json.loads(json.dumps(metadata, allow_nan=False))["s"] == 0.25
    assert (len(metadata["big"]), metadata["half"][-2:]) == (5001, ".5")
