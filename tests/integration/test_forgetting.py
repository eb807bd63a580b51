"""Forgetting a customer: what is told of the person is gone from every table, what is counted is not."""

from __future__ import annotations

import asyncio
import base64
import json
import threading
from datetime import UTC, datetime, timedelta
from hashlib import md5

import asyncpg
import pytest

from counterfoil.database.comparison import find_differences
from counterfoil.database.counters import find_drift
from counterfoil.database.facts import Facts
from counterfoil.database.queries import sql
from counterfoil.errors import PoisonRecord, TransientFailure
from counterfoil.events import Event, Rules
from counterfoil.events.erased import place_only
from counterfoil.events.readings import possible_people
from counterfoil.forgetting import people as forgetting
from counterfoil.ingest import dead_letters
from counterfoil.ingest.isolating import write_isolating
from counterfoil.ingest.partitions import Partition
from counterfoil.ingest.records import Malformed
from counterfoil.ingest.retry import retry_dead_letter
from counterfoil.ingest.writer import Planned, hold_locks, plan_events, write_steps
from counterfoil.notifications.alerts import Alert, raise_alerts
from counterfoil.notifications.deliveries import NewNotification, record_notifications
from counterfoil.replaying.applying import compared
from counterfoil.routing import COUNTERS, routes
from support.builders import (
    a_claim_event,
    a_promotion,
    a_record,
    a_redemption_event,
    a_scan_event,
    a_user_event,
    a_voucher_event,
    an_order,
    records_of,
)
from support.forgetting import forget, name_of, under_names, where_named
from support.meetings import meet
from support.postgres_ledgers import connections, promo_counts
from support.postgres_road import plain_settings, scribes
from support.voucher_model import exact, stored_counts, stored_ledgers

PERSON, PHONE = "customer-7", "phone-7"
NOW = datetime.now(UTC).replace(microsecond=0)
THIS_MONTH = NOW.replace(day=1, hour=0, minute=0, second=0)
LAST_MONTH = (THIS_MONTH - timedelta(days=1)).replace(day=1)
ROUTES = {route.name: route for route in routes(plain_settings(), b"key")}
KNOWN = {route.topic: (route, Rules.of(plain_settings())) for route in ROUTES.values()}

DEVICE = json.dumps({"deviceId": PHONE})
TOLD = {
    "a voucher": a_voucher_event("v1", expires_at=NOW + timedelta(days=9), timestamp=LAST_MONTH),
    "a scan": a_scan_event(
        scan_id="s1", user_id=PERSON, timestamp=LAST_MONTH, device_info=DEVICE, ip_address="192.0.2.7",
        user_agent=f"browser of {PERSON}", metadata=json.dumps({"of": PERSON}),
        location='{"city": "Graz", "country": "at", "street": "Lane 7"}',
    ),
    "a scan of another day": a_scan_event(
        scan_id="s2", user_id=PERSON, timestamp=THIS_MONTH, location='{"lat": 47.07, "lng": 15.44}'
    ),
    "a scan of another voucher": a_scan_event("v2", scan_id="s3", user_id=PERSON, timestamp=THIS_MONTH),
    "somebody else's scan": a_scan_event(scan_id="s4", user_id="another-9", timestamp=THIS_MONTH),
    "a claim": a_claim_event("v1", PERSON, timestamp=THIS_MONTH, metadata=json.dumps({"of": PERSON})),
    "another content of the claim": a_claim_event("v1", PERSON, timestamp=THIS_MONTH, metadata='{"z": [1, 2]}'),
    "a later claim": a_claim_event("v1", PERSON, timestamp=THIS_MONTH + timedelta(hours=1)),
    "a claim of another voucher": a_claim_event("v2", PERSON, timestamp=THIS_MONTH),
    "somebody else's claim": a_claim_event("v1", "another-9", timestamp=THIS_MONTH),
    "a redemption": a_redemption_event(
        "v1", PERSON, attempt_id="a1", timestamp=THIS_MONTH + timedelta(hours=2), device_info=DEVICE,
        location='{"street": "Lane 7"}', metadata=json.dumps({"of": PERSON}),
    ),
    "another content of the redemption": a_redemption_event(
        "v1", PERSON, attempt_id="a1", timestamp=THIS_MONTH + timedelta(hours=3)
    ),
    "a redemption that failed": a_redemption_event(
        "v2", PERSON, attempt_id="a2", successful=False, failure_reason=f"{PERSON} unknown", timestamp=THIS_MONTH
    ),
    "an order with a reward": an_order("1", promotions=[a_promotion("P")], customer_address=PERSON),
    "another content of the order": an_order("1", promotions=[a_promotion("P", bonus=9)], customer_address=PERSON),
}  # fmt: skip
A_USER = a_user_event(PERSON, name="Ada", email="ada@example.com")


async def write(connection: asyncpg.Connection, *events: Event) -> None:
    """Write events as a worker does that knows of nobody forgotten, in the caller's transaction."""
    for topic, route in ROUTES.items():
        told = [event for event in events if event.topic == topic]
        if told:
            facts = Facts(told, [1] * len(told), list(range(len(told))), origin=lambda i: f"log/{i}")
            steps = await plan_events(route, facts)
            await hold_locks(connection, steps)
            await write_steps(connection, steps)


def batches(*events: Event) -> list:
    """The same as records, of every topic a partition."""
    found = []
    for topic in dict.fromkeys(event.topic for event in events):
        own = [event for event in events if event.topic == topic]
        found += [
            a_record(r.offset, r.value, topic=topic, timestamp=int(NOW.timestamp() * 1000))
            for r in records_of(*own, partition=Partition(topic, 0))
        ]
    return found


async def tell(address: str, *events: Event, group: str = "counterfoil") -> None:
    """Read these events as a worker does that has begun just now."""
    async with scribes(address, group=group) as (worker,):
        await worker.write(batches(*events))


async def an_alert_of(db: asyncpg.Connection, subject: str, kind: str = "device") -> None:
    payload = {"kind": "scan-rate", "voucher_id": "v1", "value": 9, "limit": 3, "window": 60}
    payload |= {"occurred_at": NOW.isoformat(), "subject": {kind: subject}}
    alert = Alert("scan-rate", "v1", f"{kind}:{subject}", payload)
    (alert_id,) = await raise_alerts(db, "voucher-alert", [alert], timedelta(minutes=5))
    told = NewNotification(alert_id, "voucher-alert", "v1", json.dumps(payload | {"alert_id": alert_id}), NOW)
    await record_notifications(db, [told], ["slack"], timedelta(days=1))
    await db.execute("INSERT INTO scan_rates VALUES ($1, $2, $3, 1)", kind, subject, NOW)


async def park(db: asyncpg.Connection, value: bytes, offset: int = 0, **fields) -> int:
    record = a_record(offset, value, **({"topic": "claim"} | fields))
    await dead_letters.park(db, "cluster-1", [Malformed(record, "invalid_field", "because")])
    return await db.fetchval("SELECT max(id) FROM dead_letters")


@pytest.fixture
async def known(db, database_url):
    """A database that a person has left traces in all of."""
    await tell(database_url, *TOLD.values())
    await an_alert_of(db, PHONE)
    await db.execute(
        "UPDATE customer_vouchers SET notification_preferences = '{\"push\": true}', last_viewed_at = now()"
    )
    drift = [{"table": "voucher_scanner_days", "counter": f"first_at of 2026-01-01 of user {PERSON}"}]
    await db.execute(
        "INSERT INTO verifications (started_at, seconds, checked, drifted, drift) VALUES (now(), 1, '{}', 1, $1)",
        json.dumps(drift),
    )
    await db.execute(
        """INSERT INTO refused_facts (order_id, topic, content) VALUES ('9', 'order.placed', $1)""",
        json.dumps({"code": "P", "customer_address": PERSON}),
    )
    return db


FOUND = {
    "alert_cooldowns": 1, "alerts": 1, "customer_vouchers": 2, "notifications": 1, "outbox": 1, "promo_code_uses": 1,
    "redemption_attempts": 2, "refused_facts": 2, "refused_voucher_facts": 3, "scan_rates": 1, "verifications": 1,
    "voucher_scanner_days": 3, "voucher_scans": 3,
}  # fmt: skip


async def test_nobody_is_found_and_every_count_is_the_same(known):
    before, promos = await stored_counts(known), await promo_counts(known)
    erasure = await forget(known, PERSON)
    name = await name_of(known, PERSON)
    for word in (PERSON, PHONE, "Lane 7"):
        assert await where_named(known, word) == [], word
    assert await stored_counts(known) == under_names(before, {PERSON: name})
    assert await promo_counts(known) == promos
    assert await find_drift(known, COUNTERS) == []
    assert await exact(known)
    assert erasure.as_dict()["erased"] == FOUND
    assert erasure.instead == name
    assert not erasure.keeps_account


async def test_what_is_counted_of_a_row_is_left_and_nothing_else(known):
    await forget(known, PERSON)
    name = await name_of(known, PERSON)
    scans = await known.fetch("SELECT * FROM voucher_scans WHERE user_id = $1 ORDER BY scan_id", name)
    assert [scan["location"] for scan in scans] == [
        '{"city": "Graz", "country": "at"}',
        '{"lat": 47, "lng": 15}',
        None,
    ]
    assert {(s["device_info"], s["metadata"], s["ip_address"], s["user_agent"]) for s in scans} == {
        ("{}", "{}", None, None)
    }
    attempts = await known.fetch("SELECT * FROM redemption_attempts WHERE customer_id = $1", name)
    assert {(a["device_info"], a["metadata"], a["location"], a["failure_reason"]) for a in attempts} == {
        ("{}", "{}", None, None)
    }
    wallet = await known.fetch("SELECT * FROM customer_vouchers WHERE customer_id = $1", name)
    assert {(w["metadata"], w["notification_preferences"], w["last_viewed_at"]) for w in wallet} == {
        ("{}", "{}", None)
    }
    other = await known.fetchrow("SELECT * FROM customer_vouchers WHERE customer_id = 'another-9'")
    assert other["notification_preferences"] == '{"push": true}'
    told = await known.fetchrow(
        """SELECT a.cause, a.payload, n.payload AS told, o.value
           FROM alerts AS a, notifications AS n, outbox AS o"""
    )
    kind, _, instead = told["cause"].partition(":")
    assert {json.dumps(json.loads(told[c])["subject"]) for c in ("payload", "told", "value")} == {
        json.dumps({kind: instead})
    }


async def test_a_dry_run_counts_the_same_and_writes_nothing(known):
    await park(known, json.dumps({"customer_id": PERSON}).encode())
    before = await everything(known)
    erasure = await forget(known, PERSON, dry_run=True)
    assert await everything(known) == before
    assert erasure.as_dict()["erased"] == FOUND | {"dead_letters": 1}
    assert (await forget(known, PERSON)).as_dict()["erased"] == erasure.as_dict()["erased"]


async def test_a_second_run_finds_nothing(known):
    await forget(known, PERSON)
    before = await everything(known)
    again = await forget(known, PERSON)
    assert again.was_forgotten
    assert again.as_dict()["erased"] == {}
    assert await everything(known) == before


async def everything(db) -> dict[str, list]:
    tables = await db.fetch(
        "SELECT oid::regclass::text AS name FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'"
    )
    return {t["name"]: sorted(str(r) for r in await db.fetch(f"SELECT * FROM {t['name']}")) for t in tables}


async def test_whatever_is_told_again_by_the_road_changes_nothing_but_accounts(known, database_url):
    await tell(database_url, A_USER)
    await forget(known, PERSON)
    before = await everything(known)
    await tell(database_url, A_USER, *TOLD.values(), group="a replay")
    after = await everything(known)
    assert {t for t in after if after[t] != before[t]} == {"stream_positions"}
    duplicates = await known.fetchval(
        "SELECT sum(duplicates) FROM stream_positions WHERE consumer_group = 'a replay'"
    )
    assert duplicates == len(TOLD) + 1


async def test_the_rows_left_are_those_that_the_same_events_come_to_now(known, database_url):
    """Columns that say where a row came from aside, since of doubles another may have been first."""
    await forget(known, PERSON)
    erased = await stored_ledgers(known), await stored_counts(known)
    ledgers = ("voucher_scans", "redemption_attempts", "customer_vouchers", "refused_voucher_facts")
    await known.execute(f"TRUNCATE {', '.join(ledgers)}, vouchers, stream_positions")
    await tell(database_url, *TOLD.values())
    assert (await stored_ledgers(known), await stored_counts(known)) == erased


async def test_who_compares_the_log_with_the_ledgers_finds_nothing(known, database_url):
    await tell(database_url, A_USER)
    await forget(known, PERSON)
    async with scribes(database_url) as (worker,):
        batch = await worker.batch_of(batches(A_USER, *TOLD.values()))
        planned = await worker.writer.plan(batch)
        assert await differences(known, planned) != []
        assert await differences(known, await worker.writer.plan_as_seen(known, planned)) == []


async def differences(db: asyncpg.Connection, planned: Planned) -> list:
    found = []
    async with db.transaction(isolation="repeatable_read", readonly=True):
        for _, steps in planned.steps:
            for comparison, rows in await compared(db, steps):
                found += await find_differences(db, comparison, rows)
    return found


async def test_what_is_new_of_the_person_is_counted_under_the_pseudonym(known, database_url):
    await forget(known, PERSON)
    day = "SELECT sum(users) FROM voucher_returns WHERE voucher_id = 'v1'"
    users = await known.fetchval(day)
    news = a_scan_event(scan_id="new", user_id=PERSON, timestamp=THIS_MONTH, device_info=DEVICE)
    async with scribes(database_url, group="later") as (worker,):
        await worker.write(batches(news, a_claim_event("v9", PERSON, metadata='{"a": 1}', timestamp=NOW)))
    assert await known.fetchval(day) == users  # of that day the person is known already
    wallet = "SELECT array_agg(voucher_id ORDER BY 1) FROM customer_vouchers WHERE customer_id = $1"
    assert await known.fetchval(wallet, await name_of(known, PERSON)) == ["v1", "v2", "v9"]
    assert await where_named(known, PERSON) == await where_named(known, PHONE) == []
    assert await exact(known)


async def test_a_partner_keeps_the_account_and_loses_the_name(known, database_url):
    await tell(database_url, A_USER)
    erasure = await forget(known, PERSON)
    assert erasure.keeps_account
    assert {t: n for t, n in erasure.erased.items() if t in {"shop_users", "partners"}} == {
        "shop_users": 1,
        "partners": 1,
    }
    assert await known.fetchrow("SELECT name, email FROM shop_users") == (None, None)
    assert await known.fetchrow("SELECT id, name, email FROM partners") == (f"pn_{PERSON}", None, None)
    await tell(
        database_url, a_user_event(PERSON, name="Ada", timestamp=THIS_MONTH - timedelta(days=900)), group="b"
    )
    assert await known.fetchrow("SELECT name, email FROM shop_users") == (None, None)
    assert await where_named(known, "Ada") == await where_named(known, "ada@example.com") == []


UUID = "bda54a2e-eee6-4ce3-a5bf-3d1f9ddc7d9c"
LONG = "long-" * 40


@pytest.mark.parametrize(
    ("person", "address"),
    [(PERSON, f" {PERSON}\u00a0"), (UUID, UUID.upper()), ("J\u00f6", "Jo\u0308"), (LONG, LONG)],
)
async def test_an_order_names_a_person_however_its_text_is_written(db, database_url, person, address):
    """Elsewhere an id is trimmed and normalised; an order's address is kept as it came."""
    orders = [
        an_order("1", promotions=[a_promotion("P", bonus=bonus)], customer_address=address)
        for bonus in (1, 2)
    ]
    await tell(database_url, *orders)
    counted = await promo_counts(db)
    erasure = await forget(db, person, dry_run=True)
    assert {table: n for table, n in erasure.erased.items() if n} == {
        "promo_code_uses": 1,
        "refused_facts": 1,
    }
    await forget(db, person)
    await tell(
        database_url,
        *orders,
        an_order("2", promotions=[a_promotion("Q")], customer_address=address),
        group="b",
    )
    for word in (address, md5(address.encode()).hexdigest()):
        assert await where_named(db, word) == []
    name = await name_of(db, person)
    assert await db.fetchval("SELECT count(*) FROM promo_code_uses WHERE customer_address = $1", name) == 2
    assert (await promo_counts(db))["P"] == counted["P"]


# Dead letters


@pytest.mark.parametrize(
    ("value", "fields"),
    [
        (json.dumps({"customer_id": PERSON, "x": None}).encode(), {}),
        (f"customerId={PERSON}&voucher=1".encode(), {}),
        (b"not json", {"key": PERSON.encode()}),
        (b"not json", {"headers": [("user", PERSON.encode())]}),
        (b"not json", {"headers": [("user", b"\xff" + PERSON.encode())]}),
        (json.dumps({"data": json.dumps({"user": PERSON})}).encode(), {}),
        (PERSON.replace("-", "%2D").encode(), {}),
        (f'{{"data_base64": "{base64.b64encode(f"<{PERSON}>".encode()).decode()}"}}'.encode(), {}),
        (b'{"u": "\\u0063ustomer-7"}', {}),
        (f'{{"user_id": "{PERSON}"}}'.encode("utf-16"), {}),
        (b"\xff\xfe " + PERSON.encode(), {}),
    ],
)
async def test_a_parked_record_that_names_the_person_is_erased(db, value, fields):
    letter = await park(db, value, **fields)
    assert (await forget(db, PERSON)).erased["dead_letters"] == 1
    row = await db.fetchrow("SELECT * FROM dead_letters")
    assert (row["key"], row["value"], row["headers"], row["error"]) == (None, None, "[]", "erased")
    assert (row["resolution"], row["error_kind"]) == ("erased", "invalid_field")
    assert (await retry_dead_letter(db, letter, KNOWN)).outcome == "gone"
    await park(db, value, **fields)  # from a replay
    assert await db.fetchval("SELECT count(*) FROM dead_letters WHERE value IS NOT NULL") == 0


@pytest.mark.parametrize(
    "value",
    [b'{"customer_id": "customer-77"}', b"old-customer-7", b"customer-7@shop.com", b"xcustomer-7", b"customer-7.5"],
)  # fmt: skip
async def test_a_parked_record_that_names_another_is_left(db, value):
    await park(db, value)
    assert (await forget(db, PERSON)).erased["dead_letters"] == 0
    assert await db.fetchval("SELECT value FROM dead_letters WHERE resolved_at IS NULL") == value


async def test_a_number_is_looked_for_in_fields_of_people_only(db):
    named = [
        b'{"customer_id": 17, ',
        b'{"customerId":"17"}',
        b'{"customer": {"name": "Ada", "id": 17}}',
        b'{\\"user_id\\": \\"17\\"}',
    ]
    others = [
        b'{"customer_id": 170}',
        b'{"quantity": 17, "order_id": "17"}',
        b'{"customer_id": "x", "n": 17}',
    ]
    for offset, value in enumerate(named + others):
        await park(db, value, offset)
    await park(db, b"x", 99, topic="user.created", key=b"17")
    assert (await forget(db, "17")).erased["dead_letters"] == len(named) + 1
    left = await db.fetch("SELECT value FROM dead_letters WHERE value IS NOT NULL ORDER BY id")
    assert [row["value"] for row in left] == others


async def test_a_parked_record_that_had_been_taken_in_says_so_still(db):
    letter = await park(db, json.dumps({"customer_id": PERSON, "voucher_id": "v1"}).encode())
    assert (await retry_dead_letter(db, letter, KNOWN)).outcome == "applied"
    await forget(db, PERSON)
    assert await db.fetchrow("SELECT value, resolution FROM dead_letters") == (None, "applied")
    assert await where_named(db, PERSON) == []


async def test_a_retry_writes_under_the_pseudonym(db):
    await forget(db, PERSON)
    letter = await park(
        db, json.dumps({"customer_id": PERSON, "voucher_id": "v1", "metadata": {"a": 1}}).encode()
    )
    assert (await retry_dead_letter(db, letter, KNOWN)).outcome == "applied"
    row = await db.fetchrow("SELECT customer_id, metadata FROM customer_vouchers")
    assert tuple(row) == (await name_of(db, PERSON), "{}")


NAMED = [
    b'{"customer_id": "customer-7"',
    b"customer-7,v1",
    b'{"of": "\\u0063ustomer-7"}',
    b'{"customer_id": ["ann 8 \xc3\xb6"]}',
    b'{"customer": {"id": 17}, }',
    b'"' + b"BDA54A2E-EEE6-4CE3-A5BF-3D1F9DDC7D9C".lower() + b'"',
    b"(BDA54A2E-EEE6-4CE3-A5BF-3D1F9DDC7D9C)",
]
OTHERS = [b'{"customer_id": "customer-77"', b'{"quantity": 17, }', b'{"of": "ann 8"', None]


async def test_what_cannot_be_read_of_a_forgotten_person_is_parked_without_its_bytes(db, database_url):
    for person in (PERSON, "ann 8 ö", "17", "bda54a2e-eee6-4ce3-a5bf-3d1f9ddc7d9c"):
        await forget(db, person)
    claims = Partition("claim", 0)
    async with scribes(database_url) as (worker,):
        await worker.write(records_of(*NAMED, *OTHERS, partition=claims))
        keyed = a_record(
            len(NAMED + OTHERS), b"x", topic="claim", key=b"v1", headers=[("user", PERSON.encode())]
        )
        await worker.write([keyed])
    rows = await db.fetch("SELECT value, key, headers, error, resolution FROM dead_letters ORDER BY id")
    assert [row["value"] for row in rows] == [*[None] * len(NAMED), *OTHERS, None]
    assert {tuple(row) for row in (*rows[: len(NAMED)], rows[-1])} == {(None, None, "[]", "erased", "erased")}
    assert {row["resolution"] for row in rows[len(NAMED) : -1]} == {None}
    assert await db.fetchval("SELECT dead FROM stream_positions") == len(rows)


@pytest.mark.parametrize("person", ["auth0|5f7", "gid://shop/Customer/9", "user:17", "#1", "%", "1a"])
@pytest.mark.parametrize(
    "value",
    [
        '{{"a": "x, "customer_id": "{0}"}}',
        '{{"customer_id": "{0}',
        '{{"data": "{{\\"customer_id\\": \\"{0}\\"}}"}}',
        "{{'customer_id': '{0}'}}",
        "1;{0};2",
        "<customer>{0}</customer>",
        '{{"customer_id":{0}}}',
        '{{"log": "it failed\\n{0} said so"',
    ],
)
async def test_an_id_that_is_no_word_is_found_before_and_after(db, database_url, person, value):
    written = value.format(person).encode()
    await park(db, written)
    assert (await forget(db, person)).erased["dead_letters"] == 1
    async with scribes(database_url) as (worker,):
        await worker.write(records_of(written, partition=Partition("claim", 1)))
    assert await db.fetch("SELECT value FROM dead_letters WHERE value IS NOT NULL") == []


async def test_an_id_deep_in_a_long_record_is_found_before_and_after(db, database_url):
    long = b'{"a": [' + b"0, " * 420_000 + PERSON.encode() + b" 0, 0, 0"
    await park(db, long)
    await park(db, b"\xff" + long, 1)
    assert (await forget(db, PERSON)).erased["dead_letters"] == 2
    async with scribes(database_url, settings=plain_settings(max_event_bytes=2_000_000)) as (worker,):
        await worker.write(records_of(long, b"\xff" + long, partition=Partition("claim", 1)))
    assert await db.fetch("SELECT value FROM dead_letters WHERE value IS NOT NULL") == []


async def test_a_number_is_an_id_as_the_key_of_a_user(db, database_url):
    await forget(db, "17")
    told = b'{"id": 17, "email": "ada@example.com"'
    user, voucher = (
        a_record(0, told, topic=topic, key=b"17") for topic in ("user.created", "voucher.created")
    )
    async with scribes(database_url) as (worker,):
        await worker.write([user, voucher])
    kept = await db.fetch("SELECT topic, key, value FROM dead_letters ORDER BY topic")
    assert [tuple(row) for row in kept] == [("user.created", None, None), ("voucher.created", b"17", told)]


async def test_to_look_through_what_nobody_could_read_holds_up_neither_the_loop_nor_a_transaction(
    db, database_url, monkeypatch
):
    """The search goes on once the loop has turned, and finds that no transaction is open for it."""
    searching, go_on = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def search(part: bytes) -> set[str]:
        loop.call_soon_threadsafe(searching.set)
        assert go_on.wait(20)
        return possible_people(part)

    await forget(db, PERSON)
    async with scribes(database_url) as (worker,):
        await worker.write(records_of(b"so that it knows", partition=Partition("claim", 0)))
        monkeypatch.setattr("counterfoil.ingest.erasing.possible_people", search)
        told = await worker.batch_of([a_record(1, PERSON.encode(), topic="claim")])
        writing = asyncio.create_task(worker.write_batch(told))
        try:
            async with asyncio.timeout(20):
                await searching.wait()
            open_ones = (
                "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND classid = 3087 AND objid = 5"
            )
            assert await db.fetchval(open_ones) == 0
        finally:
            go_on.set()
        await writing
    assert await db.fetchval("SELECT value FROM dead_letters ORDER BY id DESC LIMIT 1") is None


async def test_a_record_that_the_database_refuses_is_parked_as_of_who_is_forgotten_by_then(db, database_url):
    """Forgotten after the database has refused the record, and before it is parked for that."""
    async with scribes(database_url) as (worker,):
        refused = True

        async def write(planned: Planned) -> None:
            nonlocal refused
            if refused:
                refused = False
                await forget(db, PERSON)
                raise PoisonRecord("because", "a_rule")
            await worker.writer.write(planned, worker.positions)

        batch = await worker.batch_of(batches(a_claim_event("v1", PERSON, timestamp=NOW)))
        await write_isolating(await worker.writer.plan(batch), plan=worker.writer.plan, write=write)
    assert await db.fetchrow("SELECT key, value, error FROM dead_letters") == (None, None, "erased")


async def test_what_is_older_than_the_retention_is_parked_without_its_bytes(known, database_url):
    """It was counted once, and closed; a replay must not keep it anew."""
    await known.execute(f"SELECT close_scan_partitions('{THIS_MONTH.date()}')")
    await forget(known, PERSON)
    async with scribes(database_url, group="a replay") as (worker,):
        batch = await worker.batch_of(batches(TOLD["a scan"]))
        with pytest.raises(PoisonRecord) as refused:
            await worker.write_batch(batch)
        parked = batch.refusing(refused.value)
        await worker.write_batch(parked)
    assert await known.fetchrow("SELECT error_kind, error, value FROM dead_letters") == (
        "before_retention",
        "erased",
        None,
    )
    assert await where_named(known, PERSON) == []


# What is contradicted, closed, broken off


@pytest.mark.parametrize(("person", "other"), [("z9", "m"), ("d1", "e1")])
async def test_a_pseudonym_that_is_smaller_or_larger_than_the_id_was_changes_nothing(
    db, database_url, person, other
):
    """`z9` gave way to `m`, and `forgotten:` would not; `d1` stood against `e1`, and `forgotten:` would not."""
    told = [a_redemption_event("v1", who, attempt_id="a") for who in (person, other)]
    await tell(database_url, *told)
    await still_stands(db, database_url, told, person)


async def still_stands(db, database_url, told, person=PERSON):
    before = under_names(await stored_counts(db), {person: await name_of(db, person)})
    await forget(db, person)
    for group, events in (("one", told), ("other", told[::-1]), ("third", told[:1]), ("fourth", told[1:])):
        await tell(database_url, *events, group=group)
        assert await stored_counts(db) == before, group
    assert await find_drift(db, COUNTERS) == []


async def test_months_that_are_closed_are_forgotten_and_months_that_are_forgotten_are_closed(known):
    close = f"SELECT close_scan_partitions('{THIS_MONTH.date()}')"
    name = await name_of(known, PERSON)
    before = under_names(await stored_counts(known), {PERSON: name})
    transaction = known.transaction()
    await transaction.start()
    await known.execute(close)
    await forget(known, PERSON)
    assert await where_named(known, PERSON) == []
    assert await stored_counts(known) == before
    assert await find_drift(known, COUNTERS) == []
    await transaction.rollback()

    await forget(known, PERSON)
    await known.execute(close)
    assert await stored_counts(known) == before
    assert await find_drift(known, COUNTERS) == []
    assert await where_named(known, PERSON) == []


async def test_a_run_that_is_killed_is_gone_on_with_and_counts_are_right_meanwhile(known, monkeypatch):
    monkeypatch.setattr(forgetting, "CHUNK", 1)
    before = under_names(await stored_counts(known), {PERSON: await name_of(known, PERSON)})

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        await forget(known, PERSON, tell=killed)
    vouchers = "SELECT array_agg(DISTINCT voucher_id) FROM voucher_scans WHERE user_id = $1"
    assert await known.fetchval(vouchers, PERSON) == ["v2"]
    assert await find_drift(known, COUNTERS) == []
    assert await known.fetchval("SELECT sum(users) FROM voucher_returns") == sum(before.returns.values())
    again = await forget(known, PERSON)
    assert again.was_forgotten
    assert again.erased["voucher_scans"] == 1
    assert await where_named(known, PERSON) == []
    assert await stored_counts(known) == before


async def test_what_came_between_the_mark_and_the_rest_is_joined(known, database_url, monkeypatch):
    """Under the pseudonym, while a part of the rows has the id still: one person all the same."""
    monkeypatch.setattr(forgetting, "CHUNK", 1)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        await forget(known, PERSON, tell=killed)
    news = [
        a_scan_event("v2", scan_id="n1", user_id=PERSON, timestamp=THIS_MONTH - timedelta(hours=1)),
        a_scan_event("v2", scan_id="n2", user_id=PERSON, timestamp=THIS_MONTH + timedelta(seconds=1)),
        a_claim_event("v2", PERSON, timestamp=THIS_MONTH - timedelta(seconds=1)),
        a_redemption_event("v2", PERSON, attempt_id="n3", timestamp=THIS_MONTH),
    ]
    await tell(database_url, *news, group="meanwhile")
    assert await find_drift(known, COUNTERS) == []
    await forget(known, PERSON)
    assert await where_named(known, PERSON) == []
    assert await exact(known)
    assert await find_drift(known, COUNTERS) == []
    users = "SELECT count(DISTINCT user_id) FROM voucher_scans WHERE voucher_id = 'v2'"
    assert await known.fetchval(users) == 1
    wallet = "SELECT claimed_at, status FROM customer_vouchers WHERE voucher_id = 'v2'"
    assert [tuple(row) for row in await known.fetch(wallet)] == [
        (THIS_MONTH - timedelta(seconds=1), "REDEEMED")
    ]


# Meetings

NEWS = {
    "a claim": a_claim_event("v3", PERSON, timestamp=NOW, metadata='{"a": 1}'),
    "a scan": a_scan_event("v3", scan_id="n", user_id=PERSON, timestamp=NOW, device_info=DEVICE),
    "a redemption": a_redemption_event("v3", PERSON, attempt_id="n", timestamp=NOW, failure_reason="x"),
    "an order": an_order("3", promotions=[a_promotion("P")], customer_address=PERSON),
}


@pytest.mark.parametrize("news", NEWS)
async def test_a_fact_that_is_planned_before_and_written_after_is_under_the_pseudonym(
    known, database_url, news
):
    async with scribes(database_url, group="another") as (worker,):
        batch = await worker.batch_of(batches(NEWS[news]))
        planned = await worker.writer.plan(batch)
        await forget(known, PERSON)
        await worker.writer.write(planned, worker.positions)
    assert await where_named(known, PERSON) == []
    assert await where_named(known, await name_of(known, PERSON)) != []
    assert await find_drift(known, COUNTERS) == []


@pytest.mark.parametrize("news", NEWS)
async def test_forgetting_waits_for_a_fact_that_is_being_written_and_finds_it(known, database_url, news):
    async def being_written(connection: asyncpg.Connection) -> None:
        await connection.execute(sql("hold_forgotten"))
        await write(connection, NEWS[news])

    async with connections(database_url, 2) as (one, other):

        async def forgotten(connection: asyncpg.Connection) -> None:
            await forgetting._mark(connection, await name_of(connection, PERSON))

        assert await meet(known, one, other, being_written, forgotten)
    await forget(known, PERSON)
    assert await where_named(known, PERSON) == []
    assert await find_drift(known, COUNTERS) == []


@pytest.mark.parametrize("news", NEWS)
async def test_a_fact_waits_for_who_is_being_forgotten(known, database_url, news):
    """The mark is set and not committed: whoever writes now learns of it."""

    async def forgotten(connection: asyncpg.Connection) -> None:
        await forgetting._mark(connection, await name_of(connection, PERSON))

    async with connections(database_url, 2) as (one, other), scribes(database_url, group="b") as (worker,):
        batch = await worker.batch_of(batches(NEWS[news]))
        planned = await worker.writer.plan(batch)

        class Lent:
            async def acquire(self) -> asyncpg.Connection:
                return other

            async def release(self, *_: object, **__: object) -> None:
                pass

        worker.writer._pool = Lent()

        async def written(_connection: asyncpg.Connection) -> None:
            await worker.writer.write(planned, worker.positions)

        assert await meet(known, one, other, forgotten, written)
        worker.writer._connection = None
    await forget(known, PERSON)
    assert await where_named(known, PERSON) == []
    assert await find_drift(known, COUNTERS) == []


async def test_a_whole_address_in_alerts_is_erased_and_a_network_is_nobody_s(db, database_url):
    kept = {"full": "192.0.2.7", "truncate": "198.51.100.0"}
    for policy, address in kept.items():
        async with scribes(database_url, group=policy, settings=plain_settings(ip_policy=policy)) as (
            worker,
        ):
            scan = a_scan_event(scan_id=policy, user_id=PERSON, timestamp=NOW, ip_address=address)
            await worker.write(batches(scan))
        await an_alert_of(db, address, "address")
    await forget(db, PERSON)
    assert await where_named(db, kept["full"]) == []
    assert await where_named(db, kept["truncate"]) == [
        "alert_cooldowns", "alerts", "notifications", "outbox", "scan_rates",
    ]  # fmt: skip


async def test_who_looks_at_scans_meanwhile_brings_no_device_back(known, database_url):
    """Who has read the scans before they are erased, and has not told of them yet, is waited for."""

    async def looking(connection: asyncpg.Connection) -> None:
        await connection.execute(sql("claim_turn"), "watch_scan_rates", timedelta(minutes=1))
        await connection.execute("DELETE FROM alert_cooldowns")
        await an_alert_of(connection, PHONE)

    async with connections(database_url, 2) as (one, other):
        await known.execute("DELETE FROM scan_rates")
        assert await meet(known, one, other, looking, vouchers_forgotten)
    assert await where_named(known, PHONE) == []


async def vouchers_forgotten(connection: asyncpg.Connection) -> None:
    erasure = forgetting.Erasure("customer", dry_run=False)
    key = await forgetting.pseudonym_key(connection)
    await forgetting._Forgetting(connection, key, PERSON, erasure, lambda *_: None)._vouchers()


async def test_two_at_once_do_no_harm(known, database_url):
    before = under_names(await stored_counts(known), {PERSON: await name_of(known, PERSON)})
    async with connections(database_url, 2) as (one, other):

        async def second(connection: asyncpg.Connection) -> None:
            await forget(connection, PERSON)

        assert await meet(known, one, other, vouchers_forgotten, second)
    assert await stored_counts(known) == before
    assert await where_named(known, PERSON) == []
    assert await find_drift(known, COUNTERS) == []


async def test_a_batch_that_names_nobody_asks_nobody(db, database_url):
    """Where the lock is taken, it fails here: another has it alone."""
    async with connections(database_url, 1) as (one,), scribes(database_url, timeout_s=1) as (worker,):
        await one.execute("SELECT pg_advisory_lock(3087, 5)")
        await worker.write(batches(an_order("1", codes=["A"]), a_voucher_event()))
        with pytest.raises(TransientFailure):
            await worker.write(batches(a_claim_event()))


@pytest.mark.parametrize(
    "location",
    [
        '{"city": "Graz", "country": "at", "zip": "8010"}',
        '{"city": "  Graz ", "countryCode": "a"}',
        '{"country": null, "country_code": "AT", "lat": 1, "lng": 2}',
        '{"country": 5, "countryCode": "AT", "lat": 1, "lng": 2}',
        '{"city": "", "latitude": -0.5, "lon": 179.999999999999999999}',
        '{"latitude": null, "lat": 5, "lng": 5}',
        '{"lat": 90.0, "lng": -180}',
        '{"lat": 91, "lng": 1}',
        '{"lat": "1", "lng": 1}',
        '{"lat": true, "lng": 1}',
        '{"lat": 1e-900, "lng": -1e-900}',
        f'{{"city": "{"x" * 59} b"}}',
        f'{{"city": "{"ä" * 70}", "country": "{"é" * 59} y"}}',
        '{"city": "a\\"b\\\\", "country": "\\u00fc"}',
        '{"_dropped": "too_large"}',
        "{}",
    ],
)
async def test_what_is_left_of_a_location_has_the_same_place(shared_db, location):
    left = place_only(location)
    place = await shared_db.fetchval("SELECT scan_place($1::text::jsonb)", location)
    assert await shared_db.fetchval("SELECT scan_place($1::text::jsonb)", left) == place
    assert (left is None) == (place is None)
    assert place_only(left) == left
    assert set(json.loads(left or "{}")) <= {"city", "country"} or set(json.loads(left)) == {"lat", "lng"}
