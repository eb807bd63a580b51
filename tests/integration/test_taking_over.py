"""A shadow takes over what the log does not tell, and nothing else: what people do is no difference, what is altered is."""

# ruff: noqa: E501 - what people do, a statement a line

from __future__ import annotations

import asyncio
import json
import random
from datetime import timedelta

import asyncpg
import pytest

from counterfoil.errors import InvalidSetting
from counterfoil.ingest.partitions import Partition
from counterfoil.ingest.records import milliseconds_of
from counterfoil.replaying.shadow import Wanted, run_shadow
from counterfoil.replaying.windows import Window
from support.builders import a_record
from support.databases import execute
from support.postgres_road import Scribe, plain_settings
from support.roles import owner_and_worker
from support.shadows import (
    NOW,
    THIS_MONTH,
    MemoryLog,
    Quiet,
    documents,
    found_in,
    live_settings,
    logs_of,
    read_live,
    read_on,
    shadow,
)

LONG_AGO = "2020-02-10T12:00:00Z"

PEOPLE = {
    "the default rate": "INSERT INTO default_rates (percent, valid_from) VALUES (10, '2000-01-01Z')",
    "a later default rate": f"INSERT INTO default_rates (percent, valid_from) VALUES (7, '{THIS_MONTH - timedelta(days=5)}')",
    "a rate of a program": "INSERT INTO program_rates (program_id, percent, valid_from) SELECT id, 20, '2000-01-01Z' FROM programs LIMIT 1",
    "a program by hand": "INSERT INTO programs (id, base_domain, commission_percent) VALUES ('by-hand', 'three.example.net', 5)",
    "an affiliate": "INSERT INTO affiliates (handle, name, pixel_id) VALUES ('ann', 'Ann', 'p1')",
    "an affiliate who is paused": "INSERT INTO affiliates (handle, name, pixel_id, status) VALUES ('bo', 'Bo', 'p2', 'paused')",
    "a pause at a time": f"INSERT INTO affiliate_status_changes (pixel_id, status, valid_from) VALUES ('p3', 'paused', '{THIS_MONTH - timedelta(days=6)}')",
    "the owner of a coupon": "INSERT INTO affiliate_coupon_owners (code, pixel_id) VALUES ('A', 'p4')",
    "an adjustment": "INSERT INTO affiliate_coupon_adjustments (code, delta) VALUES ('A', 5), ('NEW', 2)",
    "a promo code": "INSERT INTO promo_codes (code) VALUES ('BYHAND')",
    "an adjustment of a promo code": "INSERT INTO promo_code_adjustments (promo_code_id, delta, bonus_delta) SELECT id, 3, 4.5 FROM promo_codes",
    "a use of no order": "INSERT INTO promo_code_uses (promo_code_id, bonus_amount, customer_address) SELECT id, 2, '0xhand' FROM promo_codes",
    "a use of an order": "INSERT INTO promo_code_uses (promo_code_id, order_id, bonus_amount) SELECT id, 'hand', 2 FROM promo_codes",
    "a usage": f"INSERT INTO affiliate_coupon_usages (order_id, code, occurred_at) VALUES ('hand', 'A', '{LONG_AGO}')",
    "a usage of orders that the log tells of": f"""INSERT INTO affiliate_coupon_usages (order_id, code, occurred_at)
        SELECT 'o' || n, c, '{LONG_AGO}' FROM generate_series(0, 9) AS n, unnest('{{A,B}}'::text[]) AS c ON CONFLICT DO NOTHING""",
    "a cancellation": "INSERT INTO order_cancellations (order_id, reason) VALUES ('hand', 'by hand'), ('o1', 'by hand') ON CONFLICT DO NOTHING",
    "a total": "INSERT INTO order_totals (order_id, total, currency, occurred_at) VALUES ('hand', 100, 'USD', '2026-01-01Z')",
    "a click": "INSERT INTO aff_clicks (click_id, pixel_id, occurred_at, visitor) VALUES ('hand', 'p1', now() - interval '1 hour', 5)",
    "conversions of orders that the log tells of": f"""INSERT INTO conversions (order_id, beneficiary, pixel_id, revenue, currency, occurred_at)
        SELECT 'o' || n, 'pixel:p1', 'p1', 50, 'USD', '{LONG_AGO}' FROM generate_series(0, 9) AS n ON CONFLICT DO NOTHING""",
    "a refund": f"INSERT INTO order_refunds (order_id, refund_id, amount, occurred_at) VALUES ('o2', 'hand', 10, '{LONG_AGO}'), ('o3', 'r0', 1, '{LONG_AGO}') ON CONFLICT DO NOTHING",
    "a user": "INSERT INTO shop_users (id, name) VALUES ('hand', 'Hand')",
    "another partner of a user": "INSERT INTO partners (id, name) VALUES ('given', 'Given'); INSERT INTO partner_users (partner_id, user_id) VALUES ('given', 'u1'), ('given', 'u8')",
    "another default partner": "UPDATE shop_users SET default_partner_id = 'given' WHERE id IN ('u1', 'u2')",
    "a partner's name": "UPDATE partners SET name = 'Known' WHERE id = 'n1'",
    "a link": "INSERT INTO links (id, url, user_id, program_id, pixel_id) VALUES ('hand', 'https://one.example.com/hand', 'u1', 'by-hand', 'p9')",
    "an enrollment": "INSERT INTO program_enrollments (partner_id, program_id, status) VALUES ('given', 'by-hand', 'pending')",
    "a voucher": "INSERT INTO vouchers (id) VALUES ('hand')",
    "a voucher that expires": "INSERT INTO vouchers (id, expires_at) VALUES ('hand2', '2090-01-01Z')",
    "an impression": "INSERT INTO voucher_impressions (impression_id, voucher_id) VALUES ('hand', 'v1')",
    "a scan": "INSERT INTO voucher_scans (scan_id, voucher_id, user_id, scan_type, scan_source, occurred_at) VALUES ('hand', 'v1', 'c1', 'CUSTOMER', 'LINK', now() - interval '1 hour')",
    "an attempt": f"INSERT INTO redemption_attempts (attempt_id, voucher_id, business_id, customer_id, successful, attempted_at) VALUES ('hand', 'v1', 'b1', 'c1', true, '{LONG_AGO}'), ('a1', 'v2', 'b1', 'c2', true, '{LONG_AGO}') ON CONFLICT DO NOTHING",
    "claims": f"INSERT INTO customer_vouchers (customer_id, voucher_id, claimed_at) SELECT 'c' || n, 'v1', '{LONG_AGO}' FROM generate_series(0, 20) AS n ON CONFLICT DO NOTHING",
    "a redemption without an attempt": f"INSERT INTO customer_vouchers (customer_id, voucher_id, claimed_at, redeemed_at, status) VALUES ('hand', 'v1', NULL, '{LONG_AGO}', 'REDEEMED')",
    "a redemption of a claim": f"UPDATE customer_vouchers SET redeemed_at = '{LONG_AGO}', status = 'REDEEMED' WHERE customer_id = 'c5' AND redeemed_at IS NULL",
    "preferences": "UPDATE customer_vouchers SET notification_preferences = '{\"push\": false}', last_viewed_at = now()",
    "an expiry": "UPDATE customer_vouchers SET status = 'EXPIRED' WHERE status = 'CLAIMED' AND customer_id < 'c3'",
    "a product with stock": "INSERT INTO inventory_products (sku, name, stock, threshold) VALUES ('hand', 'By hand', 30, 3)",
    "a product without": "INSERT INTO inventory_products (sku, name, unit_price, last_restocked) VALUES ('hand2', 'By hand', 2.5, now())",
    "a count by hand": "INSERT INTO inventory_events (sku, event_type, new_stock, occurred_at) VALUES ('s1', 'count', 40, now() - interval '2 hours')",
    "a change of an event of the log": f"INSERT INTO inventory_events (event_id, sku, quantity_delta, occurred_at) SELECT 'e' || n, 's2', -99, '{THIS_MONTH - timedelta(seconds=20_000)}' FROM generate_series(0, 5) AS n ON CONFLICT DO NOTHING",
    "the price of a product": "UPDATE inventory_products SET unit_price = 9.5, supplier = 'Somebody' WHERE sku = 's3'",
    "the default threshold": "UPDATE stock_defaults SET threshold = 4",
    "an imported commission": "INSERT INTO commissions (partner_id, order_id, amount, earnings, currency, occurred_at) VALUES ('given', 'imported', 100, 10, 'USD', '2025-01-01Z'), (NULL, 'imported', 7, 1, 'USD', '2025-01-01Z'), ('given', 'o5', 3, 2, 'USD', '2025-01-01Z')",
    "approval": "SELECT approve_commissions(0)",
    "payouts": "SELECT pay_commissions(id, 'USD', 'March', 'ann') FROM partners",
    "an alert": "INSERT INTO alerts (alert_id, kind, subject, cause, payload) VALUES ('alert', 'low-stock', 's1', 'c', '{}'); INSERT INTO inventory_events (event_id, sku, event_type, new_stock) VALUES ('alert', 's1', 'low_stock', 1)",
    "a dead letter that is dropped": "UPDATE dead_letters SET resolved_at = now(), resolution = 'dropped', resolved_by = 'ann', resolved_because = 'junk' WHERE id = (SELECT min(id) FROM dead_letters)",
    "a dead letter that was good": f"INSERT INTO dead_letters (cluster_id, topic, \"partition\", \"offset\", record_timestamp, error_kind, error, resolved_at, resolution) VALUES ('cluster-1', 'click', 0, 0, '{NOW}', 'database', 'x', now(), 'applied')",
}  # fmt: skip
"""What people do, and the clock, each in a transaction of its own; it may find nothing to do."""


async def act(db, dice, share=1.0):
    """People act, in an order of chance."""
    for what in dice.sample(sorted(PEOPLE), k=round(share * len(PEOPLE))):
        try:
            await db.execute(PEOPLE[what])
        except asyncpg.UniqueViolationError:
            continue  # somebody has done so before


async def live_by_halves(address, db, logs, seed, settings=None):
    """The live group reads the logs, and people act before, between and after."""
    dice = random.Random(seed)
    async with asyncpg.create_pool(address, min_size=0, max_size=4) as pool:
        scribe = Scribe(pool, settings=settings)
        for share in (0, 0.5, 1):
            await act(db, dice, 0.5)
            part = {p: log[: round(share * len(log))] for p, log in logs.items()}
            await read_on(scribe, {p: log for p, log in part.items() if log})
        await act(db, dice)
        await scribe.writer.close()


def nothing_differs(report):
    assert found_in(report) == [], [d for table in report.tables for d in table.differences]
    return not report.found


@pytest.mark.parametrize("seed", range(3))
async def test_whatever_people_do_is_no_difference(database_url, db, seed):
    logs = logs_of(documents(800, seed=seed), seed=seed)
    by_coupon = {"attribute_by_coupon": bool(seed % 2)}
    await live_by_halves(database_url, db, logs, seed, plain_settings(**by_coupon))

    report = await shadow(database_url, logs, settings=live_settings(database_url, **by_coupon))

    assert nothing_differs(report)
    assert report.digests[0] == report.digests[1] or any(table.excused for table in report.tables)
    assert sum(by_hand for by_hand, _ in report.taken_over.values()) > 20
    assert await db.fetchval("SELECT count(*) FROM pg_namespace WHERE nspname = 'public_shadow'") == 0


@pytest.mark.parametrize("seed", range(2))
async def test_what_is_not_read_is_taken_over_as_it_stands(database_url, db, seed):
    logs = logs_of(documents(800, seed=seed), seed=seed)
    await live_by_halves(database_url, db, logs, seed)
    half = {partition: len(log) // 2 for partition, log in logs.items()}
    windows = {
        "the beginning has left the log": {"begins": half},
        "one partition": {"window": Window(partitions=frozenset({0}))},
        "records of some time": {"window": Window(since=NOW + timedelta(milliseconds=20), until=NOW + timedelta(milliseconds=60))},
    }  # fmt: skip
    for what, how in windows.items():
        report = await shadow(database_url, logs, **how)
        assert nothing_differs(report), what
        assert any(unread for _, unread in report.taken_over.values()), what
        assert any("not proved" in note for note in report.notes), what

    some = {partition: log for partition, log in logs.items() if partition.topic in ("click", "scan")}
    report = await shadow(database_url, some)
    assert nothing_differs(report)
    assert report.taken_over["aff_clicks"][1] == 0 < report.taken_over["conversions"][1]


async def test_what_is_read_is_proved_and_what_is_not_read_is_not(database_url, db):
    logs = logs_of(documents(600))
    await read_live(database_url, logs)
    begins = {partition: len(log) // 2 for partition, log in logs.items()}
    rows = await db.fetch(
        """SELECT u.order_id, u.code, s."partition", u.source_offset FROM affiliate_coupon_usages AS u
           JOIN stream_sources AS s ON s.id = u.source_id WHERE u.reversed_at IS NULL ORDER BY 1, 2"""
    )
    read = {place: {json.loads(r.value)["order_id"] for r in logs[place][first:] if r.value != b"not json"}
            for place, first in begins.items() if place.topic == "order.placed"}  # fmt: skip
    proved = next(
        row for row in rows if row["source_offset"] >= begins[Partition("order.placed", row["partition"])]
    )
    unproved = next(row for row in rows if not any(row["order_id"] in orders for orders in read.values()))
    for row in (proved, unproved):
        await db.execute(
            "DELETE FROM affiliate_coupon_usages WHERE (order_id, code) = ($1, $2)",
            row["order_id"],
            row["code"],
        )

    report = await shadow(database_url, logs, begins=begins)
    found = found_in(report)
    assert ("affiliate_coupon_usages", "missing", (proved["order_id"], proved["code"])) in found
    assert ("affiliate_coupons", "differs", (proved["code"],)) in found
    assert len(found) == 2


ALTERED = {
    "affiliate_coupon_usages": ("occurred_at = occurred_at - interval '1 day'", ("order_id", "code")),
    "aff_clicks": ("referrer = 'https://elsewhere.example.com/'", ("click_id", "occurred_at")),
    "conversions": ("click_id = 'another'", ("order_id", "beneficiary")),
    "order_cancellations": ("reason = 'another'", ("order_id",)),
    "voucher_scans": ("metadata = '{\"a\": 1}'", ("scan_id", "occurred_at")),
    "vouchers": ("title = 'Coffee'", ("id",)),
    "redemption_attempts": ("failure_reason = 'another'", ("attempt_id",)),
    "customer_vouchers": ("metadata = '{\"a\": 1}'", ("customer_id", "voucher_id")),
    "inventory_events": ("metadata = '{\"a\": 1}'", ("occurred_at", "event_id")),
    "links": ("url = 'https://elsewhere.example.com/'", ("id",)),
    "shop_users": ("email = 'another@example.com'", ("id",)),
    "promo_code_uses": ("shop_id = 'another'", ("order_id",)),
    "affiliate_coupons": ("times_used = times_used + 1", ("code",)),
    "voucher_hourly": ("anonymous_scans = anonymous_scans + 1", ("voucher_id", "hour")),
    "inventory_products": ("stock = stock + 1", ("sku",)),
    "affiliate_daily": ("clicks = clicks + 1", ("pixel_id", "day", "currency")),
    "commissions": ("earnings = earnings + 1", ("order_id", "beneficiary", "currency")),
}  # fmt: skip


async def test_rows_that_are_altered_by_hand_are_named_and_no_others(database_url, db):
    logs = logs_of(documents(900))
    await db.execute(PEOPLE["the default rate"])
    await live_by_halves(database_url, db, logs, 1)
    wanted = set()
    for table, (change, key) in ALTERED.items():
        async with db.transaction():
            await db.execute("SET LOCAL session_replication_role = replica")
            names = ", ".join(key)
            sourced = "source_id IS NOT NULL" if await has_source(db, table) else "true"
            extra = " AND origin = 'settled'" if table == "commissions" else ""
            row = await db.fetchval(
                f"""UPDATE {table} SET {change}
                    WHERE ROW(tableoid, ctid)::text = (SELECT ROW(tableoid, ctid)::text FROM {table} WHERE {sourced}{extra}
                                                       ORDER BY {names} LIMIT 1)
                    RETURNING jsonb_build_array({names})::text"""
            )
        wanted.add((table, tuple(json.loads(row))))

    report = await shadow(database_url, logs)
    found = {(table, key) for table, verdict, key in found_in(report) if verdict == "differs"}
    uses = {key for key in found if key[0] == "promo_code_uses"}
    assert found - uses == {key for key in wanted if key[0] != "promo_code_uses"}
    assert len(uses) == 1
    assert len(found) == len(found_in(report)) == len(ALTERED)


async def has_source(db, table):
    return await db.fetchval(
        "SELECT EXISTS (SELECT FROM pg_attribute WHERE attrelid = $1::regclass AND attname = 'source_id')",
        table,
    )


async def test_a_row_that_names_a_record_which_does_not_tell_of_it_is_only_live(database_url, db):
    logs = logs_of(documents(200))
    await read_live(database_url, logs)
    source = await db.fetchval("SELECT id FROM stream_sources WHERE topic = 'order.placed' LIMIT 1")
    await db.execute(
        "INSERT INTO affiliate_coupon_usages (order_id, code, source_id, source_offset) VALUES ('forged', 'A', $1, 0)",
        source,
    )
    assert ("affiliate_coupon_usages", "only live", ("forged", "A")) in found_in(
        await shadow(database_url, logs)
    )


async def test_what_retention_has_closed_is_taken_over_and_counted(database_url, db):
    old = [
        {**fact, "timestamp": (THIS_MONTH - timedelta(days=n % 80)).isoformat()}
        for n, fact in enumerate(documents(900, seed=5))
    ]
    logs = logs_of(old)
    await read_live(database_url, logs)
    for ledger in ("click", "scan", "inventory"):
        await db.fetch(f"SELECT close_{ledger}_partitions($1)", (THIS_MONTH - timedelta(days=40)).date())
    assert await db.fetchval("SELECT count(*) FROM ledger_closings") > 20
    await db.execute("INSERT INTO aff_clicks (click_id, pixel_id) VALUES ('hand', 'p1')")

    assert nothing_differs(await shadow(database_url, logs))

    await db.execute("UPDATE voucher_hourly SET scans = scans + 1, link_scans = link_scans + 1, customer_scans = customer_scans + 1 "
                     "WHERE hour = (SELECT min(hour) FROM voucher_hourly)")  # fmt: skip
    assert [table for table, _, _ in found_in(await shadow(database_url, logs))] == ["voucher_hourly"]


async def test_what_retention_closes_meanwhile_is_closed_in_the_shadow_too(database_url, db, monkeypatch):
    monkeypatch.setattr("counterfoil.replaying.shadow.NEAR", 0)
    old = [
        {**fact, "timestamp": (THIS_MONTH - timedelta(days=n % 80)).isoformat()}
        for n, fact in enumerate(documents(900, seed=5))
    ]
    logs = logs_of(old)
    await read_live(database_url, logs)

    class Closing(MemoryLog):
        async def read(self, ends):
            async for read in super().read(ends):
                yield read
            for ledger in ("click", "scan", "inventory"):
                await db.fetch(
                    f"SELECT close_{ledger}_partitions($1)", (THIS_MONTH - timedelta(days=40)).date()
                )

    async def sources():
        return [Closing(logs)]

    report = await run_shadow(live_settings(database_url), sources, Wanted(Window(), {}), Quiet())
    assert nothing_differs(report)
    assert await db.fetchval("SELECT count(*) FROM ledger_closings") > 20


async def test_of_a_click_that_was_told_twice_in_two_ways_either_may_stand(database_url, db):
    times = {"timestamp": (THIS_MONTH - timedelta(hours=1)).isoformat(), "click_id": "k"}
    clicks = [{**times, "pixel_id": "p1", "ip_address": "203.0.113.1"}, {**times, "pixel_id": "p2"}]
    logs = {
        Partition("click", n): [
            a_record(
                0, json.dumps(click).encode(), topic="click", partition=n, timestamp=milliseconds_of(NOW)
            )
        ]
        for n, click in enumerate(clicks)
    }
    await read_live(database_url, dict(reversed(logs.items())))
    assert await db.fetchval("SELECT pixel_id FROM aff_clicks") == "p2"

    report = await shadow(database_url, logs)
    assert nothing_differs(report)
    assert report.digests[0] == report.digests[1]


async def test_where_a_person_is_forgotten_meanwhile_the_shadow_begins_anew(database_url, db, monkeypatch):
    """What it has written of the person by then stands under no pseudonym."""
    monkeypatch.setattr("counterfoil.replaying.shadow.NEAR", 0)
    logs = logs_of(documents(300))
    await read_live(database_url, logs)
    pseudonyms = iter("ab")

    class Forgetting(MemoryLog):
        async def read(self, ends):
            if pseudonym := next(pseudonyms, None):
                await db.execute(
                    "INSERT INTO forgotten_people (pseudonym) VALUES ($1)", f"forgotten:{pseudonym * 32}"
                )
            async for read in super().read(ends):
                yield read

    async def sources():
        return [Forgetting(logs)]

    shows = Quiet()
    report = await run_shadow(live_settings(database_url), sources, Wanted(Window(), {}), shows)
    assert nothing_differs(report)
    assert sum("people were forgotten meanwhile: the shadow begins anew" in line for line in shows.lines) == 2


# The schema


@pytest.fixture
def roles(postgres_server):
    """An owner and a worker's login, in a database that the owner has migrated."""
    with owner_and_worker(postgres_server.dsn) as addresses:
        yield addresses


async def test_the_workers_role_reads_and_the_migrators_builds(roles, postgres_server):
    owner, worker = roles
    logs = logs_of(documents(400))
    await read_live(worker, logs)
    db = await asyncpg.connect(owner)
    await act(db, random.Random(1))
    settings = live_settings(worker, migrate_database_url=owner)
    with pytest.raises(InvalidSetting, match="GRANT CREATE ON DATABASE counterfoil_rights_"):
        await shadow(worker, logs, settings=settings)

    name, role = await db.fetchrow("SELECT current_database(), current_user")
    execute(postgres_server.dsn, f"GRANT CREATE ON DATABASE {name} TO {role}")
    assert nothing_differs(await shadow(worker, logs, settings=settings))
    await db.close()


async def test_a_shadow_raises_no_alert_and_tells_nobody(database_url, db):
    logs = logs_of(documents(400))
    await read_live(database_url, logs)
    await shadow(database_url, logs, keep=True)
    for table in ("outbox", "alerts", "notifications", "alert_cooldowns", "settlements_due"):
        assert await db.fetchval(f"SELECT count(*) FROM public_shadow.{table}") == 0
    logged = await db.fetch(
        "SELECT relname FROM pg_class WHERE relnamespace = 'public_shadow'::regnamespace AND relkind = 'r' AND relpersistence = 'p'"
    )
    assert {row["relname"] for row in logged} == {
        "counterfoil_migrations", "currencies", "partitioned_ledgers", "stock_defaults", "deployment_keys"
    }  # fmt: skip


async def test_a_shadow_does_not_wait_for_the_locks_of_live_writers(database_url, db):
    logs = logs_of(documents(300))
    await read_live(database_url, logs)
    async with db.transaction():
        for number in (1, 2, 5):
            await db.execute("SELECT pg_advisory_xact_lock(3087, $1)", number)
        async with asyncio.timeout(60):
            report = await shadow(database_url, logs)
    assert nothing_differs(report)


async def test_a_schema_that_no_shadow_has_made_is_refused_and_left(database_url, db):
    await db.execute("CREATE SCHEMA public_shadow; CREATE TABLE public_shadow.mine (n integer)")
    with pytest.raises(InvalidSetting, match="public_shadow: no shadow has made this schema"):
        await shadow(database_url, logs_of(documents(20)))
    assert await db.fetchval("SELECT count(*) FROM public_shadow.mine") == 0


async def test_an_empty_schema_and_another_shadow_are_replaced_and_that_is_said(database_url, db):
    logs = logs_of(documents(100))
    await read_live(database_url, logs)
    await db.execute("CREATE SCHEMA other")
    await shadow(database_url, logs, schema="other", keep=True)
    assert await db.fetchval("SELECT count(*) FROM other.affiliate_coupon_usages") > 0

    shows = Quiet()
    report = await shadow(database_url, logs, schema="other", keep=True, shows=shows)
    assert (report.resumed, nothing_differs(report)) == (True, True)
    assert "goes on with the shadow of" in shows.lines[0]
    some = {partition: log for partition, log in logs.items() if partition.topic == "click"}
    report = await shadow(database_url, some, schema="other", shows=shows)
    assert (report.resumed, nothing_differs(report)) == (False, True)
    assert "was another and is replaced" in shows.lines[1]


@pytest.mark.parametrize("name", ["public", "Shadow", "x" * 64, 'a"b', "ä"])
async def test_a_name_that_no_shadow_may_have_is_refused(database_url, name):
    with pytest.raises(InvalidSetting, match="--schema"):
        await shadow(database_url, {}, schema=name)


@pytest.mark.parametrize("who", ["nobody", "people"])
async def test_a_shadow_that_was_compared_is_gone_on_with_where_that_comes_to_the_same(database_url, db, who):
    """People who write what the log tells too have replaced what was read of it: then it begins anew."""
    logs = logs_of(documents(400))
    half = {p: log[: len(log) // 2] for p, log in logs.items() if len(log) > 1}
    if who == "people":
        await live_by_halves(database_url, db, half, 3)
    else:
        await read_live(database_url, half)
        await db.execute(PEOPLE["a use of no order"] + ";" + PEOPLE["a click"])
    await shadow(database_url, logs, keep=True)
    await db.execute(
        """DELETE FROM affiliate_coupon_usages WHERE order_id = 'hand'; DELETE FROM default_rates;
           DELETE FROM affiliate_coupon_owners; DELETE FROM aff_clicks WHERE click_id = 'hand';
           DELETE FROM voucher_scans WHERE scan_id = 'hand'; DELETE FROM promo_code_uses WHERE order_id IS NULL"""
    )
    await read_live(database_url, logs)

    shows = Quiet()
    report = await shadow(database_url, logs, shows=shows)
    assert nothing_differs(report)
    assert "goes on" in shows.lines[0]
    assert report.resumed == (who == "nobody") == ("begins anew" not in "".join(shows.lines))
