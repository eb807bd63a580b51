"""Vouchers by hand: whatever is done to a ledger and whoever does it, every number stays what its rows come to."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import NamedTuple

import asyncpg
import pytest

from counterfoil.database.counters import find_drift, repair
from counterfoil.database.facts import Facts
from counterfoil.database.partitions import MONTHS_AHEAD, keep_partitions
from counterfoil.errors import PoisonRecord
from counterfoil.ingest.failures import classify
from counterfoil.ingest.partitions import Partition
from counterfoil.ingest.records import milliseconds_of
from counterfoil.settings import IpPolicy
from counterfoil.vouchers.handlers import RecordScans
from counterfoil.vouchers.schedule import expire_claims
from counterfoil.vouchers.store import SCAN_PARTITIONS, VOUCHER_COUNTERS
from support.builders import a_claim_event, a_scan_event, records_of
from support.postgres_ledgers import VOUCHERS, connections, empty, waits_for_a_lock
from support.postgres_road import plain_settings, scribes
from support.voucher_model import Counts, exact, place_of, stored_counts, stored_unique_users

NOW = datetime.now(UTC).replace(microsecond=0)
THIS_MONTH = NOW.replace(day=1, hour=0, minute=0, second=0)
LAST_MONTH = (THIS_MONTH - timedelta(days=1)).replace(day=1)
LONG_AGO = datetime(2020, 5, 17, 12, tzinfo=UTC)
"""A time that has no partition of its own."""

CLAIMS = Partition("claim", 0)
LEDGERS = ["voucher_scans", "voucher_impressions", "customer_vouchers", "redemption_attempts"]


def months_later(months: int, start: datetime = THIS_MONTH) -> datetime:
    """The beginning of the month that is so many later, or earlier."""
    number = start.year * 12 + start.month - 1 + months
    return start.replace(year=number // 12, month=number % 12 + 1)


def named(month: datetime) -> str:
    """The partition of a month."""
    return f"voucher_scans_{month:%Y_%m}"


def a_scan(scan_id: str, *, voucher: str = "v1", user: str | None = "u1", at: datetime = NOW) -> tuple:
    return scan_id, voucher, at, user, "CUSTOMER", "CAMERA"


async def scan(db: asyncpg.Connection, *scans: tuple, table: str = "voucher_scans") -> None:
    """Write scans, all in one statement."""
    await db.copy_records_to_table(
        table,
        records=scans,
        columns=["scan_id", "voucher_id", "occurred_at", "user_id", "scan_type", "scan_source"],
    )


async def redeem(db: asyncpg.Connection, attempt_id: str, customer: str = "u1", at: datetime = NOW) -> None:
    await db.execute(
        """INSERT INTO redemption_attempts (attempt_id, voucher_id, business_id, customer_id, attempted_at, successful)
           VALUES ($1, 'v1', 'b', $2, $3, true)""",
        attempt_id,
        customer,
        at,
    )


async def claim(db: asyncpg.Connection, customer: str = "u1", at: datetime = NOW) -> None:
    await db.execute(
        "INSERT INTO customer_vouchers (customer_id, voucher_id, claimed_at) VALUES ($1, 'v1', $2)",
        customer,
        at,
    )


async def wallet(db: asyncpg.Connection) -> dict[str, str]:
    """Customer → status, of v1."""
    return dict(
        await db.fetch("SELECT customer_id, status FROM customer_vouchers WHERE voucher_id = 'v1' ORDER BY 1")
    )


async def sound(db: asyncpg.Connection) -> bool:
    """Whether everything is exact by our own counting and by that of `verify`."""
    assert await exact(db)
    assert await find_drift(db, VOUCHER_COUNTERS) == []
    return True


# By hand: whatever statement, on a ledger or on a partition of it

TIMES = [THIS_MONTH, THIS_MONTH + timedelta(hours=26), LAST_MONTH, LONG_AGO, LONG_AGO + timedelta(minutes=90)]
PLACES = ["NULL", """'{"city": "Graz", "country": "at"}'""", """'{"lat": 47.1, "lng": 15.4}'""", "'{}'"]


class Table(NamedTuple):
    """What an operator knows of a ledger: how he names a row, what he writes into it, and how he changes it."""

    key: tuple[str, ...]
    values: dict[str, Callable[[random.Random], str]]
    changes: list[str]
    wheres: list[str]


def quoted(*choices: object) -> Callable[[random.Random], str]:
    return lambda dice: f"'{dice.choice(choices)}'"


def either(*choices: str) -> Callable[[random.Random], str]:
    return lambda dice: dice.choice(choices)


VOUCHER = quoted("v1", "v2", "v3")
PERSON = either("'u1'", "'u2'", "'u3'", "NULL")
TIME = quoted(*TIMES)

TABLES = {
    "voucher_scans": Table(
        ("scan_id", "occurred_at"),
        {
            "occurred_at": TIME,
            "voucher_id": VOUCHER,
            "user_id": PERSON,
            "scan_type": quoted("CUSTOMER", "BUSINESS"),
            "scan_source": quoted("CAMERA", "GALLERY", "LINK", "SHARE"),
            "location": either(*PLACES),
        },
        [
            "voucher_id = 'v2'",
            "user_id = 'u2'",
            "user_id = NULL",
            "scan_type = 'BUSINESS'",
            "scan_source = 'LINK'",
            """location = '{"city": "Linz"}'""",
            "location = NULL",
            "metadata = '{}'",
            "scan_id = scan_id || 'x'",
            "voucher_id = 'v3', user_id = 'u1', occurred_at = occurred_at + interval '1 minute'",
        ],
        ["user_id = 'u1'", "user_id IS NULL", "voucher_id = 'v1'", "right(scan_id, 1) IN ('1', '2', '3')", "true"],
    ),
    "voucher_impressions": Table(
        ("impression_id",),
        {"occurred_at": TIME, "voucher_id": VOUCHER},
        ["voucher_id = 'v2'", "occurred_at = occurred_at - interval '1 day'", "impression_id = impression_id || 'x'"],
        ["voucher_id = 'v1'", "right(impression_id, 1) IN ('1', '2', '3')", "true"],
    ),
    "customer_vouchers": Table(
        ("customer_id", "voucher_id"),
        {"claimed_at": TIME},
        [
            "claimed_at = claimed_at + interval '1 day'",
            "claimed_at = claimed_at - interval '3 years'",
            "metadata = '{}', last_viewed_at = now()",
            "claimed_at = CASE WHEN status <> 'REDEEMED' THEN claimed_at END",
            "customer_id = CASE WHEN status = 'CLAIMED' THEN 'u4' ELSE customer_id END",
            "voucher_id = CASE WHEN status = 'CLAIMED' THEN 'v4' ELSE voucher_id END",
        ],
        ["customer_id = 'u1'", "voucher_id = 'v1'", "status = 'CLAIMED'", "customer_id = 'u2'", "true"],
    ),
    "redemption_attempts": Table(
        ("attempt_id",),
        {
            "attempted_at": TIME,
            "voucher_id": VOUCHER,
            "business_id": quoted("b"),
            "customer_id": PERSON,
            "successful": either("true", "true", "false"),
        },
        [
            "successful = NOT successful",
            "customer_id = 'u3'",
            "customer_id = NULL",
            "voucher_id = 'v2'",
            "attempted_at = attempted_at - interval '2 years'",
            "attempted_at = attempted_at + interval '1 hour', customer_id = 'u1', successful = true",
            "failure_reason = 'because'",
            "attempt_id = attempt_id || 'x'",
        ],
        ["successful", "customer_id = 'u1'", "voucher_id = 'v1'", "right(attempt_id, 1) IN ('1', '2', '3')", "true"],
    ),
}  # fmt: skip


REFUSALS = (
    asyncpg.UniqueViolationError,
    asyncpg.CheckViolationError,  # no such row in this partition
    asyncpg.CardinalityViolationError,
    asyncpg.FeatureNotSupportedError,  # a MERGE that PostgreSQL tells wrongly of
)
"""A statement that meets one of these is refused as a whole."""


class Operator:
    """Somebody who writes SQL; every choice is drawn from the seed."""

    def __init__(self, db: asyncpg.Connection, seed: int) -> None:
        self.db = db
        self.dice = random.Random(seed)
        self.numbers = count(10)

    async def do_something(self) -> str:
        """Some statement, done; its text."""
        ledger = self.dice.choice([*LEDGERS, "voucher_scans"])
        statement = self.dice.choice(
            [
                *[self.insert] * 4,
                *[self.update] * 3,
                self.upsert,
                self.merge,
                self.move,
                self.delete,
                self.replace,
                self.several_at_once,
                self.let_expire,
                self.truncate,
            ]
        )(ledger)
        with contextlib.suppress(*REFUSALS):
            async with self.db.transaction():
                await self.db.execute(statement)
        return statement

    def place(self, ledger: str) -> str:
        """The ledger, or a partition of it."""
        if ledger != "voucher_scans":
            return ledger
        return self.dice.choice([ledger, ledger, "voucher_scans_default", named(THIS_MONTH)])

    def rows(self, ledger: str, *, known: bool = False) -> tuple[str, str]:
        """Some rows, and the names of their columns."""
        table = TABLES[ledger]
        values = {**table.values}
        columns = list(dict.fromkeys([*table.key, *values]))
        rows = []
        for number in self.dice.sample(range(10), k=self.dice.randint(1, 8)):
            if ledger == "customer_vouchers":
                named_row = {"customer_id": f"'u{number % 3 + 1}'", "voucher_id": f"'v{number // 3 + 1}'"}
            else:
                named_row = {table.key[0]: f"'{number if known else next(self.numbers)}'"}
            row = named_row | {name: draw(self.dice) for name, draw in values.items()}
            rows.append(f"({', '.join(row[column] for column in columns)})")
        return ", ".join(columns), ", ".join(rows)

    def where(self, ledger: str) -> str:
        return self.dice.choice(TABLES[ledger].wheres)

    def insert(self, ledger: str) -> str:
        columns, rows = self.rows(ledger, known=self.dice.random() < 0.5)
        return f"INSERT INTO {self.place(ledger)} ({columns}) VALUES {rows} ON CONFLICT DO NOTHING"

    def upsert(self, ledger: str) -> str:
        table = TABLES[ledger]
        columns, rows = self.rows(ledger, known=True)
        changed = ", ".join(f"{name} = excluded.{name}" for name in table.values if name not in table.key)
        return (
            f"INSERT INTO {self.place(ledger)} ({columns}) VALUES {rows} "
            f"ON CONFLICT ({', '.join(table.key)}) DO UPDATE SET {changed}"
        )

    def update(self, ledger: str) -> str:
        change = self.dice.choice(TABLES[ledger].changes)
        return f"UPDATE {self.place(ledger)} SET {change} WHERE {self.where(ledger)}"

    def move(self, _ledger: str) -> str:
        """Scans to another day, and mostly to another partition."""
        return f"UPDATE voucher_scans SET occurred_at = {TIME(self.dice)} WHERE {self.where('voucher_scans')}"

    def delete(self, ledger: str) -> str:
        return f"DELETE FROM {self.place(ledger)} WHERE {self.where(ledger)}"

    def merge(self, ledger: str) -> str:
        table = TABLES[ledger]
        columns, rows = self.rows(ledger, known=True)
        names = columns.split(", ")
        typed = {"occurred_at", "claimed_at", "attempted_at"}
        given = {name: f"s.{name}::timestamptz" if name in typed else f"s.{name}" for name in names}
        given |= {"location": "s.location::jsonb"} if "location" in names else {}
        matched = " AND ".join(f"t.{name} = {given[name]}" for name in table.key)
        changed = ", ".join(f"{name} = {given[name]}" for name in table.values if name not in table.key)
        return (
            f"MERGE INTO {self.place(ledger)} AS t USING (VALUES {rows}) AS s({columns}) ON {matched} "
            "WHEN MATCHED AND t.voucher_id = 'v3' THEN DELETE "
            f"WHEN MATCHED THEN UPDATE SET {changed} "
            f"WHEN NOT MATCHED THEN INSERT ({columns}) VALUES ({', '.join(given[name] for name in names)})"
        )

    def replace(self, ledger: str) -> str:
        """Rows go and others come in one statement."""
        return f"WITH gone AS ({self.delete(ledger)} RETURNING 1) {self.insert(ledger)}"

    def several_at_once(self, ledger: str) -> str:
        """Two or three ledgers in one statement, of which the triggers see everything done."""
        others = self.dice.sample(LEDGERS, k=2)
        parts = [f"x{n} AS ({self.insert(other)} RETURNING 1)" for n, other in enumerate(others)]
        return f"WITH {', '.join(parts)} {self.dice.choice([self.update, self.delete, self.insert])(ledger)}"

    def let_expire(self, _ledger: str) -> str:
        when = self.dice.choice(["now() - interval '1 day'", "now() + interval '1 day'", "NULL"])
        return f"UPDATE vouchers SET expires_at = {when} WHERE id = {VOUCHER(self.dice)}"

    def truncate(self, ledger: str) -> str:
        if self.dice.random() < 0.3:
            return f"TRUNCATE {', '.join(self.dice.sample(LEDGERS, k=2))}"
        return f"TRUNCATE {self.place(ledger)}"


async def test_after_any_statement_by_hand_every_number_is_what_its_rows_come_to(db):
    for seed in range(30):
        await empty(db, VOUCHERS)
        operator = Operator(db, seed)
        for _ in range(15):
            statement = await operator.do_something()
            assert await exact(db, f"{seed}: {statement}")
        assert await sound(db)


@pytest.mark.parametrize(
    "table", ["voucher_scans", named(THIS_MONTH), named(LAST_MONTH), "voucher_scans_default"]
)
async def test_truncating_the_scans_or_a_partition_leaves_what_is_left(shared_db, table):
    times = [NOW, LAST_MONTH, LONG_AGO]
    await claim(shared_db, at=NOW + timedelta(days=1))
    await scan(shared_db, *(a_scan(f"{at}", at=at) for at in times))
    await shared_db.execute(f"TRUNCATE {table}")
    assert await shared_db.fetchval("SELECT scan_count FROM vouchers") == (
        0 if table == "voucher_scans" else 2
    )
    assert await sound(shared_db)


async def test_a_copy_into_a_ledger_or_a_partition_counts(shared_db):
    await scan(shared_db, a_scan("1"), a_scan("2"), a_scan("3", user=None))
    await scan(shared_db, a_scan("4", user="u2"), table=named(THIS_MONTH))
    await scan(shared_db, a_scan("5", at=LONG_AGO), table="voucher_scans_default")
    people = [(f"u{number}", "v1", NOW) for number in range(1, 4)]
    await shared_db.copy_records_to_table(
        "customer_vouchers", records=people, columns=["customer_id", "voucher_id", "claimed_at"]
    )
    await shared_db.copy_records_to_table(
        "redemption_attempts",
        records=[("a", "v1", "b", "u1", True, NOW), ("b", "v1", "b", None, False, NOW)],
        columns=["attempt_id", "voucher_id", "business_id", "customer_id", "successful", "attempted_at"],
    )
    await shared_db.copy_records_to_table(
        "voucher_impressions", records=[("i", "v1"), ("j", "v1")], columns=["impression_id", "voucher_id"]
    )
    row = await shared_db.fetchrow(
        "SELECT scan_count, claim_count, redemption_count, impressions FROM vouchers"
    )
    assert tuple(row) == (5, 3, 1, 2)
    assert await wallet(shared_db) == {"u1": "REDEEMED", "u2": "CLAIMED", "u3": "CLAIMED"}
    assert await sound(shared_db)


async def test_a_merge_that_inserts_and_then_updates_is_counted_or_refused(shared_db):
    """Of a partitioned table PostgreSQL 18 tells that the updated row has become the inserted one."""
    await scan(shared_db, a_scan("old"))
    with contextlib.suppress(asyncpg.FeatureNotSupportedError):
        async with shared_db.transaction():
            await shared_db.execute(
                """MERGE INTO voucher_scans AS t
                   USING (VALUES ('new', 'v2'), ('old', 'v3')) AS s(scan_id, voucher_id) ON t.scan_id = s.scan_id
                   WHEN MATCHED THEN UPDATE SET voucher_id = s.voucher_id
                   WHEN NOT MATCHED THEN INSERT (scan_id, voucher_id, scan_type, scan_source)
                                         VALUES (s.scan_id, s.voucher_id, 'CUSTOMER', 'LINK')"""
            )
    assert await sound(shared_db)


async def test_a_row_with_nothing_but_what_is_needed_counts_today(shared_db):
    await shared_db.execute(
        "INSERT INTO voucher_scans (scan_id, voucher_id, scan_type, scan_source) VALUES ('s', 'v1', 'CUSTOMER', 'LINK')"
    )
    await shared_db.execute("INSERT INTO customer_vouchers (customer_id, voucher_id) VALUES ('u1', 'v1')")
    await shared_db.execute("INSERT INTO voucher_impressions (impression_id, voucher_id) VALUES ('i', 'v1')")
    await shared_db.execute(
        "INSERT INTO redemption_attempts (attempt_id, voucher_id, business_id) VALUES ('a', 'v1', 'b')"
    )
    found = await stored_counts(shared_db)
    assert found.vouchers == {"v1": (1, 1, 0, 1)}
    assert [key[1] for key in found.daily] == [datetime.now(UTC).date()]
    assert await sound(shared_db)


async def test_erasing_what_a_scan_says_changes_no_count(shared_db):
    await scan(shared_db, a_scan("1"), a_scan("2", user=None))
    before = await stored_counts(shared_db)
    await shared_db.execute(
        "UPDATE voucher_scans SET ip_address = NULL, user_agent = NULL, device_info = '{}', metadata = '{}'"
    )
    assert await stored_counts(shared_db) == before


SCAN = "INSERT INTO voucher_scans (scan_id, voucher_id, user_id, scan_type, scan_source, occurred_at) VALUES "
CLAIM = "INSERT INTO customer_vouchers (customer_id, voucher_id, claimed_at, status, redeemed_at) VALUES "
ATTEMPT = (
    "INSERT INTO redemption_attempts (attempt_id, voucher_id, business_id, customer_id, attempted_at) VALUES "
)
IMPRESSION = "INSERT INTO voucher_impressions (impression_id, voucher_id, occurred_at) VALUES "


@pytest.mark.parametrize(
    ("statement", "constraint"),
    [
        (f"{SCAN} ('', 'v', 'u', 'CUSTOMER', 'LINK', now())", "scan_id_not_blank"),
        (f"{SCAN} ('s', '', 'u', 'CUSTOMER', 'LINK', now())", "voucher_id_not_blank"),
        (f"{SCAN} ('s', 'v', '', 'CUSTOMER', 'LINK', now())", "user_id_not_blank"),
        (f"{SCAN} ('s', 'v', 'u', 'customer', 'LINK', now())", "scan_type_is_known"),
        (f"{SCAN} ('s', 'v', 'u', 'CUSTOMER', 'PHONE', now())", "scan_source_is_known"),
        (f"{SCAN} ('s', 'v', 'u', 'CUSTOMER', 'LINK', 'infinity')", "occurred_at_is_a_time"),
        (f"{SCAN} ('s', 'v', 'u', 'CUSTOMER', 'LINK', '-infinity')", "occurred_at_is_a_time"),
        (f"{CLAIM} ('', 'v', now(), 'CLAIMED', NULL)", "customer_id_not_blank"),
        (f"{CLAIM} ('u', '', now(), 'CLAIMED', NULL)", "voucher_id_not_blank"),
        (f"{CLAIM} ('u', 'v', now(), 'LOST', NULL)", "status_is_known"),
        (f"{CLAIM} ('u', 'v', NULL, 'CLAIMED', NULL)", "claimed_or_redeemed"),
        (f"{CLAIM} ('u', 'v', now(), 'CLAIMED', now())", "redeemed_when_it_says_so"),
        (f"{CLAIM} ('u', 'v', 'infinity', 'CLAIMED', NULL)", "claimed_at_is_a_time"),
        (f"{CLAIM} ('u', 'v', now(), 'REDEEMED', 'infinity')", "redeemed_at_is_a_time"),
        (f"{ATTEMPT} ('', 'v', 'b', 'u', now())", "attempt_id_not_blank"),
        (f"{ATTEMPT} ('a', '', 'b', 'u', now())", "voucher_id_not_blank"),
        (f"{ATTEMPT} ('a', 'v', '', 'u', now())", "business_id_not_blank"),
        (f"{ATTEMPT} ('a', 'v', 'b', '', now())", "customer_id_not_blank"),
        (f"{ATTEMPT} ('a', 'v', 'b', 'u', 'infinity')", "attempted_at_is_a_time"),
        (f"{IMPRESSION} ('', 'v', now())", "impression_id_not_blank"),
        (f"{IMPRESSION} ('i', '', now())", "voucher_id_not_blank"),
        (f"{IMPRESSION} ('i', 'v', 'infinity')", "occurred_at_is_a_time"),
        ("INSERT INTO vouchers (id) VALUES ('')", "id_not_blank"),
        ("INSERT INTO vouchers (id, business_id) VALUES ('v', '')", "business_id_not_blank"),
        ("INSERT INTO vouchers (id, created_at) VALUES ('v', 'infinity')", "created_at_is_a_time"),
        ("UPDATE vouchers SET scan_count = -1", "counts_not_negative"),
        ("UPDATE vouchers SET claim_count = -1", "counts_not_negative"),
        ("UPDATE voucher_hourly SET scans = 2, camera_scans = 2", "every_scan_has_a_type"),
        ("UPDATE voucher_hourly SET scans = 2, customer_scans = 2", "every_scan_has_a_source"),
        ("UPDATE voucher_returns SET users = -1", "users_not_negative"),
        ("UPDATE voucher_returns SET previous_day = day", "previous_is_before"),
        ("UPDATE voucher_daily SET impressions = -1", "counts_not_negative"),
        ("UPDATE voucher_daily SET scan_to_claim_s = -1", "times_not_negative"),
        ("UPDATE voucher_daily SET claim_to_redemption_s = 'NaN'", "times_not_negative"),
    ],
)
async def test_an_error_names_what_is_wrong(shared_db, statement, constraint):
    await scan(shared_db, a_scan("1"))
    await claim(shared_db)
    with pytest.raises(asyncpg.CheckViolationError) as caught:
        await shared_db.execute(statement)
    assert caught.value.constraint_name == constraint


async def test_a_count_that_would_go_below_nothing_is_an_error(shared_db):
    """No clamp hides that it was wrong before."""
    await scan(shared_db, a_scan("1"), a_scan("2"))
    await shared_db.execute("UPDATE vouchers SET scan_count = 1")
    with pytest.raises(asyncpg.CheckViolationError) as caught:
        async with shared_db.transaction():
            await shared_db.execute("DELETE FROM voucher_scans")
    assert caught.value.constraint_name == "counts_not_negative"
    assert await shared_db.fetchval("SELECT count(*) FROM voucher_scans") == 2


# What is derived of a wallet


async def test_a_redemption_without_a_claim_makes_a_row_and_counts_no_claim(shared_db):
    await redeem(shared_db, "a", at=NOW)
    row = await shared_db.fetchrow("SELECT * FROM customer_vouchers")
    assert (row["status"], row["claimed_at"], row["redeemed_at"]) == ("REDEEMED", None, NOW)
    assert (await stored_counts(shared_db)).vouchers == {"v1": (0, 0, 1, 0)}
    await shared_db.execute("DELETE FROM redemption_attempts")
    assert await wallet(shared_db) == {}
    assert await sound(shared_db)


async def test_a_claim_that_is_told_after_its_redemption_is_counted(db, database_url):
    await redeem(db, "a", at=NOW)
    told = records_of(a_claim_event(customer_id="u1", timestamp=NOW - timedelta(hours=1)), partition=CLAIMS)
    async with scribes(database_url) as (worker,):
        await worker.write([replace(record, timestamp=milliseconds_of(NOW)) for record in told])
    row = await db.fetchrow("SELECT * FROM customer_vouchers")
    assert (row["status"], row["claimed_at"]) == ("REDEEMED", NOW - timedelta(hours=1))
    assert (
        await db.fetchval("SELECT claim_to_redemption_s FROM voucher_daily WHERE timed_redemptions = 1")
        == 3_600
    )
    assert await sound(db)


async def test_the_earliest_redemption_stands_and_taking_all_back_leaves_the_claim(shared_db):
    await claim(shared_db, at=NOW - timedelta(hours=2))
    for attempt_id, at in (("a", NOW), ("b", NOW - timedelta(hours=1)), ("c", NOW + timedelta(hours=1))):
        await redeem(shared_db, attempt_id, at=at)
    redeemed = "SELECT redeemed_at FROM customer_vouchers"
    assert await shared_db.fetchval(redeemed) == NOW - timedelta(hours=1)
    await shared_db.execute("UPDATE redemption_attempts SET successful = false WHERE attempt_id = 'b'")
    assert await shared_db.fetchval(redeemed) == NOW
    await shared_db.execute("TRUNCATE redemption_attempts")
    assert await shared_db.fetchval(redeemed) is None
    assert await wallet(shared_db) == {"u1": "CLAIMED"}
    assert await sound(shared_db)


async def test_a_redemption_written_by_hand_stands_as_long_as_no_attempt_tells_another(shared_db):
    await shared_db.execute(f"{CLAIM} ('u1', 'v1', '{NOW}', 'REDEEMED', '{NOW + timedelta(hours=1)}')")
    assert (
        await shared_db.fetchval("SELECT timed_redemptions FROM voucher_daily WHERE timed_redemptions > 0")
        == 1
    )
    assert await find_drift(shared_db, VOUCHER_COUNTERS) == []
    await redeem(shared_db, "a", at=NOW + timedelta(hours=3))
    assert await shared_db.fetchval("SELECT redeemed_at FROM customer_vouchers") == NOW + timedelta(hours=3)
    assert await sound(shared_db)


async def test_a_redeemed_row_that_becomes_anothers_leaves_behind_what_attempts_tell(shared_db):
    """With him who has it now it stands as written by hand."""
    await claim(shared_db, "u1", at=NOW - timedelta(hours=1))
    await redeem(shared_db, "a", "u1", at=NOW)
    await shared_db.execute("UPDATE customer_vouchers SET customer_id = 'u9'")
    rows = await shared_db.fetch(
        "SELECT customer_id, status, claimed_at, redeemed_at FROM customer_vouchers ORDER BY 1"
    )
    assert [tuple(row) for row in rows] == [
        ("u1", "REDEEMED", None, NOW),
        ("u9", "REDEEMED", NOW - timedelta(hours=1), NOW),
    ]
    assert await find_drift(shared_db, VOUCHER_COUNTERS) == []


# The clock


PASSED, TO_COME = "now() - interval '1 second'", "now() + interval '1 day'"


@pytest.fixture
async def pool(database_url):
    async with asyncpg.create_pool(database_url, min_size=0, max_size=2) as pool:
        yield pool


async def test_the_schedule_expires_what_is_not_redeemed(db, pool):
    await claim(db, "u1")
    await claim(db, "u2")
    await redeem(db, "a", customer="u2")
    assert await expire_claims(pool, plain_settings()) == 0
    await db.execute(f"UPDATE vouchers SET expires_at = {PASSED}")
    assert await wallet(db) == {"u1": "CLAIMED", "u2": "REDEEMED"}
    assert await expire_claims(pool, plain_settings()) == 1
    assert await expire_claims(pool, plain_settings()) == 0
    assert await wallet(db) == {"u1": "EXPIRED", "u2": "REDEEMED"}
    assert await sound(db)


async def test_the_schedule_expires_more_than_it_takes_at_once(db, pool, monkeypatch):
    monkeypatch.setattr("counterfoil.vouchers.schedule.EXPIRED_AT_ONCE", 3)
    await db.execute(
        """INSERT INTO customer_vouchers (customer_id, voucher_id)
           SELECT n, 'v' || n % 3 FROM generate_series(1, 10) AS n"""
    )
    await db.execute(f"UPDATE vouchers SET expires_at = {PASSED} WHERE id <> 'v0'")
    assert await expire_claims(pool, plain_settings()) == 7
    assert await sound(db)


async def test_a_redemption_beats_the_clock_and_taking_it_back_lets_it_expire_again(db, pool):
    await claim(db)
    await db.execute(f"UPDATE vouchers SET expires_at = {PASSED}")
    await expire_claims(pool, plain_settings())
    await redeem(db, "a")
    assert await wallet(db) == {"u1": "REDEEMED"}
    await db.execute("DELETE FROM redemption_attempts")
    await expire_claims(pool, plain_settings())
    assert await wallet(db) == {"u1": "EXPIRED"}
    assert await sound(db)


@pytest.mark.parametrize("expires", [TO_COME, "NULL"])
async def test_a_voucher_that_is_valid_for_longer_opens_what_had_expired(db, pool, expires):
    await claim(db, "u1")
    await claim(db, "u2")
    await redeem(db, "a", customer="u2")
    await db.execute(f"UPDATE vouchers SET expires_at = {PASSED}")
    await expire_claims(pool, plain_settings())
    await db.execute(f"UPDATE vouchers SET expires_at = {expires}")
    assert await wallet(db) == {"u1": "CLAIMED", "u2": "REDEEMED"}
    assert await sound(db)


async def test_another_time_that_has_passed_as_well_opens_nothing(db, pool):
    await claim(db)
    await db.execute(f"UPDATE vouchers SET expires_at = {PASSED}")
    await expire_claims(pool, plain_settings())
    await db.execute("UPDATE vouchers SET expires_at = '2020-01-01'")
    assert await wallet(db) == {"u1": "EXPIRED"}


async def test_a_claim_of_a_voucher_that_has_expired_expires_at_the_next_look(db, pool):
    await db.execute(f"INSERT INTO vouchers (id, expires_at) VALUES ('v1', {PASSED})")
    await claim(db)
    assert await wallet(db) == {"u1": "CLAIMED"}
    assert await expire_claims(pool, plain_settings()) == 1
    assert await wallet(db) == {"u1": "EXPIRED"}


async def test_a_wallet_is_ordered_by_claim_then_voucher_and_what_was_never_claimed_is_last(shared_db):
    rows = [("v3", NOW), ("v2", NOW), ("v1", NOW + timedelta(seconds=1)), ("v9", NOW - timedelta(days=1))]
    await shared_db.executemany(
        "INSERT INTO customer_vouchers (customer_id, voucher_id, claimed_at) VALUES ('u', $1, $2)", rows
    )
    await shared_db.execute(
        f"{CLAIM} ('u', 'v0', NULL, 'REDEEMED', now()), ('x', 'v5', now(), 'CLAIMED', NULL)"
    )
    order = "SELECT wallet_order, voucher_id FROM customer_wallets WHERE customer_id = 'u' ORDER BY 1"
    assert [tuple(row) for row in await shared_db.fetch(order)] == [
        (1, "v9"), (2, "v2"), (3, "v3"), (4, "v1"), (5, "v0"),
    ]  # fmt: skip


# Users and places


@pytest.mark.parametrize("seed", range(4))
async def test_unique_users_of_any_days_are_exact(shared_db, seed):
    """Brute force over every range of days is part of being exact."""
    dice = random.Random(seed)
    for number in range(60):
        at = LAST_MONTH + timedelta(days=dice.randrange(12), hours=dice.randrange(24))
        users = dice.sample(["u1", "u2", "u3", "u4", None], k=2)
        await scan(shared_db, *(a_scan(f"{number} {user}", user=user, at=at) for user in users))
        if number % 6 == 5:
            await shared_db.execute(
                "DELETE FROM voucher_scans WHERE right(scan_id, 1) = $1", dice.choice("1234")
            )
    assert await sound(shared_db)


async def test_who_comes_back_is_counted_on_each_day_and_once_in_all(shared_db):
    days = [LAST_MONTH + timedelta(days=n) for n in (0, 3, 9)]
    for number, at in enumerate([days[1], days[0], days[2], days[0]]):
        await scan(shared_db, a_scan(f"{number}", at=at))
    first, middle, last = (day.date() for day in days)
    found = (await stored_counts(shared_db)).returns
    assert found == {("v1", first, None): 1, ("v1", middle, first): 1, ("v1", last, middle): 1}
    assert [
        await stored_unique_users(shared_db, "v1", a, b) for a, b in ((first, last), (middle, middle))
    ] == [1, 1]


PLACE_CASES = [
    (None, None),
    ({}, None),
    ({"city": "Graz"}, "Graz"),
    ({"country": "at"}, "AT"),
    ({"city": "Graz", "country": "Austria"}, "Graz, Austria"),
    ({"city": " Graz ", "country": " at "}, "Graz, AT"),
    ({"city": "", "country": ""}, None),
    ({"city": "  ", "lat": 1, "lng": 2}, "1,2"),
    ({"city": None, "countryCode": "de"}, "DE"),
    ({"country": None, "country_code": "fr"}, "FR"),
    ({"country": "Chad", "countryCode": "td"}, "Chad"),
    ({"country": "ßß"}, "ßß"),
    ({"city": "x" * 100}, "x" * 60),
    ({"city": {"name": "Graz"}, "country": ["at"]}, None),
    ({"city": 5, "country": True}, None),
    ({"city": {"name": "Graz"}, "lat": 47.07, "lng": 15.44}, "47,15"),
    ({"latitude": 47.07, "longitude": 15.44}, "47,15"),
    ({"lat": 47.07, "lon": 15.44}, "47,15"),
    ({"lat": -0.5, "lng": -0.01}, "-1,-1"),
    ({"lat": -1, "lng": 0}, "-1,0"),
    ({"lat": 90, "lng": -180}, "90,-180"),
    ({"lat": 90.01, "lng": 0}, None),
    ({"lat": 0, "lng": 180.5}, None),
    ({"lat": "47", "lng": "15"}, None),
    ({"lat": 47}, None),
    ({"lat": 1e300, "lng": 0}, None),
    ({"latitude": None, "lat": 47, "lng": 15}, None),
    ({"lat": True, "lng": 15}, None),
    ({"x": 1, "coords": {"lat": 1, "lng": 2}}, None),
]


@pytest.mark.parametrize(("location", "place"), PLACE_CASES)
async def test_where_a_scan_was(shared_db, location, place):
    text = None if location is None else json.dumps(location)
    assert await shared_db.fetchval("SELECT scan_place($1::jsonb)", text) == place == place_of(location)


# Drift


async def some_rows(db: asyncpg.Connection) -> None:
    """Something in every table that counts, over several days."""
    await scan(
        db, *(a_scan(f"{at}{n}", user=f"u{n}", at=at) for at in (NOW, LAST_MONTH, LONG_AGO) for n in (1, 2))
    )
    await db.execute("""UPDATE voucher_scans SET location = '{"city": "Graz"}'""")
    await claim(db, "u1", at=NOW + timedelta(minutes=1))
    await claim(db, "u2", at=LAST_MONTH + timedelta(minutes=1))
    await redeem(db, "a", customer="u1", at=NOW + timedelta(minutes=2))
    await db.execute(f"{ATTEMPT} ('failed', 'v1', 'b', 'u2', now())")
    await db.execute(f"{IMPRESSION} ('i', 'v1', now())")


def numbers_that_count() -> list[tuple[str, str]]:
    """A change of each stored number, and the table where it is found."""
    numbers = {
        "vouchers": ["scan_count", "claim_count", "redemption_count", "impressions"],
        "voucher_hourly": ["anonymous_scans"],
        "voucher_places": ["scans"],
        "voucher_place_months": ["scans"],
        "voucher_returns": ["users"],
        "voucher_daily": [
            "impressions", "claims", "timed_claims", "scan_to_claim_s", "redemptions", "failed_redemptions",
            "timed_redemptions", "claim_to_redemption_s",
        ],
    }  # fmt: skip
    found = [
        (f"UPDATE {table} SET {name} = {name} + 1", table) for table in numbers for name in numbers[table]
    ]
    for kind, other in (
        ("customer_scans", "business_scans"),
        ("camera_scans", "share_scans"),
        ("link_scans", "gallery_scans"),
    ):
        found.append((f"UPDATE voucher_hourly SET {kind} = {other}, {other} = {kind}", "voucher_hourly"))
    return [case for case in found if "link_scans = " not in case[0]]


ROWS_THAT_COUNT = [
    ("DELETE FROM vouchers", "vouchers"),
    ("INSERT INTO vouchers (id, scan_count) VALUES ('unknown', 3)", "vouchers"),
    ("DELETE FROM voucher_hourly", "voucher_hourly"),
    ("INSERT INTO voucher_hourly VALUES ('v2', '2026-01-01Z', 1, 1, 0, 1, 0, 0, 0, 0)", "voucher_hourly"),
    ("DELETE FROM voucher_places", "voucher_places"),
    ("DELETE FROM voucher_place_months", "voucher_place_months"),
    ("INSERT INTO voucher_places VALUES ('v2', '2026-01-01', 'Linz', 2)", "voucher_places"),
    ("INSERT INTO voucher_place_months VALUES ('v2', '2026-01-01', 'Linz', 2)", "voucher_place_months"),
    ("TRUNCATE voucher_returns", "voucher_returns"),
    ("UPDATE voucher_returns SET day = day + 1", "voucher_returns"),
    ("UPDATE voucher_returns SET previous_day = '1999-01-01' WHERE previous_day = '-infinity'", "voucher_returns"),
    ("DELETE FROM voucher_daily", "voucher_daily"),
    ("INSERT INTO voucher_daily VALUES ('v2', '2026-01-01', 1)", "voucher_daily"),
    ("DELETE FROM voucher_scanner_days WHERE user_id = 'u1'", "voucher_scanner_days"),
    ("TRUNCATE voucher_scanner_days", "voucher_scanner_days"),
    ("INSERT INTO voucher_scanner_days VALUES ('v1', 'u9', '2026-01-01', '2026-01-01Z')", "voucher_scanner_days"),
    ("UPDATE voucher_scanner_days SET user_id = 'u9' WHERE user_id = 'u1'", "voucher_scanner_days"),
    ("UPDATE voucher_scanner_days SET first_at = first_at + interval '1 second'", "voucher_scanner_days"),
    ("UPDATE voucher_scanner_days SET first_at = first_at - interval '9 years'", "voucher_scanner_days"),
    ("UPDATE customer_vouchers SET first_scanned_at = NULL", "customer_vouchers"),
    ("UPDATE customer_vouchers SET first_scanned_at = '2001-01-01Z'", "customer_vouchers"),
    ("UPDATE customer_vouchers SET redeemed_at = NULL, status = 'CLAIMED'", "customer_vouchers"),
    ("UPDATE customer_vouchers SET redeemed_at = redeemed_at - interval '1 second'", "customer_vouchers"),
]  # fmt: skip

LEDGERS_CHANGED = [
    ("voucher_scans", "DELETE FROM voucher_scans WHERE user_id = 'u1'"),
    ("voucher_scans", "UPDATE voucher_scans SET voucher_id = 'v2', user_id = 'u5'"),
    ("voucher_scans", "UPDATE voucher_scans SET occurred_at = occurred_at - interval '1 minute' WHERE user_id = 'u1'"),
    ("customer_vouchers", "DELETE FROM customer_vouchers"),
    ("redemption_attempts", "DELETE FROM redemption_attempts"),
    ("redemption_attempts", "UPDATE redemption_attempts SET successful = NOT successful"),
    ("redemption_attempts", "UPDATE redemption_attempts SET attempted_at = attempted_at - interval '1 year'"),
    ("voucher_impressions", "UPDATE voucher_impressions SET voucher_id = 'v2'"),
]  # fmt: skip


async def mended(db: asyncpg.Connection) -> set[str]:
    """The tables in which something had drifted; after mending once nothing has."""
    found = await find_drift(db, VOUCHER_COUNTERS)
    await repair(db, VOUCHER_COUNTERS, found)
    assert await find_drift(db, VOUCHER_COUNTERS) == []
    return {drift.table for drift in found}


@pytest.mark.parametrize(("tampering", "table"), [*numbers_that_count(), *ROWS_THAT_COUNT])
async def test_a_number_that_is_not_its_ledgers_is_found_and_mended(shared_db, tampering, table):
    await some_rows(shared_db)
    assert await sound(shared_db)
    before = await stored_counts(shared_db)
    await shared_db.execute(tampering)
    assert table in await mended(shared_db)
    found = await stored_counts(shared_db)
    found.vouchers = {key: counts for key, counts in found.vouchers.items() if any(counts)}
    assert found == before
    assert await exact(shared_db)


@pytest.mark.parametrize(("ledger", "change"), LEDGERS_CHANGED)
async def test_a_ledger_that_was_changed_past_its_triggers_is_found_and_counted(shared_db, ledger, change):
    await some_rows(shared_db)
    await shared_db.execute(
        f"SET session_replication_role = replica; {change}; SET session_replication_role = origin"
    )
    assert await mended(shared_db)
    if "DELETE FROM redemption_attempts" not in change and "SET successful" not in change:
        assert await exact(shared_db)  # a redemption that no attempt tells of stands as if written by hand


async def test_a_voucher_that_is_sound_is_recounted_to_the_same(shared_db):
    await some_rows(shared_db)
    before = await stored_counts(shared_db)
    await shared_db.execute("SELECT recount_vouchers(ARRAY['v1', 'unknown'])")
    found = await stored_counts(shared_db)
    assert found.vouchers.pop("unknown") == (0, 0, 0, 0)
    assert found == before


async def test_mending_under_traffic_never_drifts(db, database_url):
    """Whoever is recounted while his facts are written waits for them, or they for him."""
    done = asyncio.Event()
    async with scribes(database_url, 2) as workers, connections(database_url, 1) as (mender,):

        async def work(number: int) -> None:
            dice = random.Random(number)
            for batch in range(25):
                events = [
                    a_scan_event(f"v{dice.randrange(4)}", scan_id=f"{number} {batch} {n}",
                                 user_id=f"u{dice.randrange(5)}",
                                 timestamp=LONG_AGO + timedelta(days=dice.randrange(5)))
                    for n in range(20)
                ]  # fmt: skip
                told = [
                    a_claim_event(f"v{dice.randrange(4)}", f"u{dice.randrange(50)}", timestamp=LONG_AGO)
                    for _ in range(5)
                ]
                await workers[number].write(
                    records_of(*events, partition=Partition("scan", number), first=20 * batch)
                    + records_of(*told, partition=Partition("claim", number), first=5 * batch)
                )

        async def tamper_and_mend() -> int:
            dice, times = random.Random(9), 0
            while not done.is_set():
                change = dice.choice([*numbers_that_count(), *ROWS_THAT_COUNT])[0]
                if "INTO" not in change and "DELETE FROM vouchers" not in change and "TRUNCATE" not in change:
                    where = " AND " if "WHERE" in change else " WHERE "
                    voucher = "id" if "UPDATE vouchers" in change else "voucher_id"
                    try:  # a person locks rows in any order, and a count may not go below nothing
                        await mender.execute(
                            f"BEGIN; SELECT hold_vouchers(ARRAY['v1']); {change}{where}{voucher} = 'v1'; COMMIT"
                        )
                    except (asyncpg.CheckViolationError, asyncpg.UniqueViolationError):
                        await mender.execute("ROLLBACK")
                found = await find_drift(mender, VOUCHER_COUNTERS)
                assert {drift.key for drift in found} <= {"v1"}
                await repair(mender, VOUCHER_COUNTERS, found)
                assert await find_drift(mender, VOUCHER_COUNTERS) == []
                times += bool(found)
            return times

        mending = asyncio.create_task(tamper_and_mend())
        await asyncio.gather(work(0), work(1))
        done.set()
        assert await mending > 3
    assert await db.fetchval("SELECT count(*) FROM voucher_scans") == 1_000
    assert await sound(db)


async def test_traffic_and_truncates_are_no_drift(db, database_url):
    done = asyncio.Event()
    async with scribes(database_url) as (worker,), connections(database_url, 1) as (operator,):

        async def work() -> None:
            for batch in range(40):
                events = [
                    a_scan_event(f"v{n}", user_id=f"u{n}", timestamp=LONG_AGO + timedelta(days=batch % 3))
                    for n in range(10)
                ]
                await worker.write(records_of(*events, partition=Partition("scan", 0), first=10 * batch))

        async def truncate() -> None:
            while not done.is_set():
                await operator.execute("TRUNCATE voucher_scans")
                await asyncio.sleep(0.02)

        truncating = asyncio.create_task(truncate())
        working = asyncio.create_task(work())
        while not working.done():
            assert await find_drift(db, VOUCHER_COUNTERS) == []
        await working
        done.set()
        await truncating
    assert await sound(db)


# Partitions


async def partitions(db: asyncpg.Connection) -> list[str]:
    rows = await db.fetch(
        """SELECT inhrelid::regclass::text AS name FROM pg_inherits
           WHERE inhparent = 'voucher_scans'::regclass ORDER BY 1"""
    )
    return [row["name"] for row in rows]


async def partition_of(db: asyncpg.Connection, scan_id: str) -> str:
    return str(
        await db.fetchval("SELECT tableoid::regclass::text FROM voucher_scans WHERE scan_id = $1", scan_id)
    )


async def test_partitions_of_the_months_ahead_are_made_once(shared_db):
    there = {named(months_later(n)) for n in range(-1, MONTHS_AHEAD + 1)} | {"voucher_scans_default"}
    assert set(await partitions(shared_db)) == there
    made = [row[0] for row in await shared_db.fetch("SELECT make_partitions('voucher_scans', 6)")]
    assert made == [named(months_later(n)) for n in (4, 5, 6)]
    assert await shared_db.fetch("SELECT make_partitions('voucher_scans', 6)") == []
    assert set(await partitions(shared_db)) == there | set(made)


async def test_every_partition_has_the_ledgers_triggers_constraints_and_indexes(shared_db):
    await shared_db.execute("SELECT make_partitions('voucher_scans', 5)")
    triggers = (
        "SELECT tgname, tgfoid FROM pg_trigger WHERE tgrelid = $1::regclass AND NOT tgisinternal ORDER BY 1"
    )
    indexes = "SELECT count(*) FROM pg_index WHERE indrelid = $1::regclass"
    checks = (
        "SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = $1::regclass "
        "AND contype = 'c' ORDER BY 1"
    )
    for name in await partitions(shared_db):
        for what in (triggers, checks):
            assert await shared_db.fetch(what, name) == await shared_db.fetch(what, "voucher_scans")
        assert await shared_db.fetchval(indexes, name) == await shared_db.fetchval(indexes, "voucher_scans")


async def test_a_month_begins_and_ends_in_utc(db, database_url):
    async with connections(database_url, 1, timezone="Pacific/Auckland") as (elsewhere,):
        await elsewhere.execute("SELECT make_partitions('voucher_scans', 5)")
        start, end = months_later(5), months_later(6)
        times = {"first": start, "last": end - timedelta(microseconds=1), "next": end, "now": NOW}
        await scan(elsewhere, *(a_scan(scan_id, at=at) for scan_id, at in times.items()))
        assert await exact(elsewhere)
    found = [await partition_of(db, scan_id) for scan_id in times]
    assert found == [named(start), named(start), "voucher_scans_default", named(THIS_MONTH)]
    assert await sound(db)


async def test_what_the_default_partition_holds_of_a_month_is_moved_and_nothing_is_counted_anew(shared_db):
    far = months_later(5)
    times = {"a": far, "b": far, "c": months_later(6), "d": LONG_AGO}
    await scan(shared_db, *(a_scan(scan_id, at=at) for scan_id, at in times.items()))
    rows, counts = (
        await shared_db.fetch("SELECT * FROM voucher_scans ORDER BY scan_id"),
        await stored_counts(shared_db),
    )
    assert {await partition_of(shared_db, row["scan_id"]) for row in rows} == {"voucher_scans_default"}
    await shared_db.execute("SELECT make_partitions('voucher_scans', 5)")
    moved = [await partition_of(shared_db, scan_id) for scan_id in times]
    assert moved == [named(far), named(far), "voucher_scans_default", "voucher_scans_default"]
    assert await shared_db.fetch("SELECT * FROM voucher_scans ORDER BY scan_id") == rows
    assert await stored_counts(shared_db) == counts
    await shared_db.execute("DELETE FROM voucher_scans_default")
    await scan(shared_db, a_scan("e", at=LONG_AGO), a_scan("f", at=far, user="u2"))
    assert await sound(shared_db)


async def test_two_who_make_partitions_at_once_make_each_once(db, database_url):
    await scan(db, a_scan("a", at=months_later(5)))
    async with connections(database_url, 4) as several:
        answers = await asyncio.gather(
            *(c.fetch("SELECT make_partitions('voucher_scans', 8)") for c in several)
        )
    assert sorted(len(rows) for rows in answers) == [0, 0, 0, 5]
    assert await sound(db)


@pytest.mark.parametrize("writer_first", [True, False])
async def test_a_scan_that_meets_the_making_of_its_partition_is_not_refused(db, database_url, writer_first):
    """A writer that had found the default partition, and then not fitted into it, would park a good record."""
    far = months_later(5)
    async with connections(database_url, 2) as (one, other):
        opened = one.transaction()
        await opened.start()
        if writer_first:
            await scan(one, a_scan("a", at=far))
            meeting = asyncio.create_task(other.execute("SELECT make_partitions('voucher_scans', 5)"))
        else:
            await one.execute("SELECT make_partitions('voucher_scans', 5)")
            meeting = asyncio.create_task(scan(other, a_scan("a", at=far)))
        await waits_for_a_lock(db, other)
        await opened.commit()
        await meeting
    assert await partition_of(db, "a") == named(far)
    assert await sound(db)


async def test_whoever_wants_the_whole_ledger_does_not_wait_long_for_a_reader(shared_db):
    """Every writer would wait behind."""
    settings = "SELECT proname, proconfig FROM pg_proc WHERE proname = ANY ($1)"
    functions = await shared_db.fetch(settings, ["make_partitions", "close_scan_partitions"])
    assert len(functions) == 2
    assert all("lock_timeout=3s" in row["proconfig"] for row in functions)


# Retention


async def close_before(db: asyncpg.Connection, before: datetime) -> list[str]:
    async with db.transaction():
        return [row[0] for row in await db.fetch("SELECT close_scan_partitions($1)", before.date())]


async def scans_of_some_months(db: asyncpg.Connection) -> Counts:
    """Scans of this month, of the last, of the one before it (which has no partition) and of long ago; their counts."""
    await some_rows(db)
    await scan(db, a_scan("early", at=LAST_MONTH - timedelta(days=3)), a_scan("2", user=None, at=LAST_MONTH))
    return await stored_counts(db)


@pytest.fixture
async def some_months(shared_db):
    return await scans_of_some_months(shared_db)


async def test_closing_drops_the_months_before_and_keeps_their_counts(shared_db, some_months):
    assert await close_before(shared_db, THIS_MONTH + timedelta(hours=1)) == [named(LAST_MONTH)]
    assert await shared_db.fetchval("SELECT min(occurred_at) >= $1 FROM voucher_scans", THIS_MONTH)
    assert named(LAST_MONTH) not in await partitions(shared_db)
    assert await stored_counts(shared_db) == some_months
    assert await find_drift(shared_db, VOUCHER_COUNTERS) == []


async def test_a_month_is_closed_whole_or_not_at_all(shared_db, some_months):
    await close_before(shared_db, LAST_MONTH + timedelta(days=20))
    assert await shared_db.fetchval("SELECT min(occurred_at) FROM voucher_scans") == LAST_MONTH
    assert await shared_db.fetchval("SELECT closed_before FROM ledger_bounds") == LAST_MONTH
    assert await stored_counts(shared_db) == some_months


async def test_closing_goes_on_where_it_ended(shared_db, some_months):
    await close_before(shared_db, LAST_MONTH)
    assert await close_before(shared_db, LAST_MONTH) == []
    await close_before(shared_db, THIS_MONTH)
    assert await close_before(shared_db, LAST_MONTH) == []
    assert await shared_db.fetchval("SELECT closed_before FROM ledger_bounds") == THIS_MONTH
    assert await stored_counts(shared_db) == some_months
    assert await find_drift(shared_db, VOUCHER_COUNTERS) == []


async def test_a_user_of_a_closed_month_who_comes_back_is_not_new(shared_db, some_months):
    await close_before(shared_db, THIS_MONTH)
    first, today = LONG_AGO.date(), NOW.date()
    before = await stored_unique_users(shared_db, "v1", first, today)
    at = NOW + timedelta(days=1)
    await scan(shared_db, a_scan("again", user="u1", at=at), a_scan("new", user="u9", at=at))
    assert await stored_unique_users(shared_db, "v1", first, at.date()) == before + 1
    assert await stored_unique_users(shared_db, "v1", at.date(), at.date()) == 2
    await shared_db.execute("DELETE FROM voucher_scans WHERE scan_id IN ('again', 'new')")
    assert await stored_counts(shared_db) == some_months
    assert await find_drift(shared_db, VOUCHER_COUNTERS) == []


async def test_a_claim_after_the_closing_knows_its_customers_first_scan(shared_db, some_months):
    await scan(shared_db, a_scan("x", user="u7", at=LAST_MONTH))
    await close_before(shared_db, THIS_MONTH)
    await claim(shared_db, "u7", at=NOW)
    assert (
        await shared_db.fetchval("SELECT first_scanned_at FROM customer_vouchers WHERE customer_id = 'u7'")
        == LAST_MONTH
    )
    assert await find_drift(shared_db, VOUCHER_COUNTERS) == []


def some_facts(*events) -> Facts:
    return Facts(list(events), [1] * len(events), list(range(len(events))), origin=lambda i: f"log/{i}")


async def record(db: asyncpg.Connection, *events) -> None:
    """As a worker writes scans, a batch in a transaction."""
    handler = RecordScans(b"key", IpPolicy.TRUNCATE)
    plan = await handler.plan(some_facts(*events))
    async with db.transaction():
        await handler.write(db, plan)


async def test_scans_older_than_the_closing_are_refused_and_named(shared_db, some_months):
    await close_before(shared_db, THIS_MONTH)
    late = [a_scan_event(timestamp=THIS_MONTH - timedelta(microseconds=n)) for n in (1, 2)]
    with pytest.raises(PoisonRecord) as caught:
        await record(shared_db, a_scan_event(timestamp=NOW), *late)
    assert (caught.value.kind, caught.value.sources) == ("before_retention", {(1, 1), (1, 2)})
    assert str(THIS_MONTH.date()) in str(caught.value)
    await record(shared_db, a_scan_event(timestamp=THIS_MONTH))
    assert await find_drift(shared_db, VOUCHER_COUNTERS) == []


@pytest.mark.parametrize(
    "by_hand",
    [
        f"{SCAN} ('x', 'v1', 'u1', 'CUSTOMER', 'LINK', '2020-05-17')",
        f"{SCAN.replace('voucher_scans', 'voucher_scans_default')} ('x', 'v1', 'u1', 'CUSTOMER', 'LINK', '2020-05-17')",
        "UPDATE voucher_scans SET occurred_at = '2020-05-17'",
    ],
)
async def test_nothing_is_put_before_the_closing_by_hand(shared_db, some_months, by_hand):
    await close_before(shared_db, THIS_MONTH)
    with pytest.raises(asyncpg.CheckViolationError) as caught:
        await shared_db.execute(by_hand)
    assert caught.value.constraint_name == "before_retention"
    assert classify(caught.value).kind == "before_retention"


@pytest.mark.parametrize(
    "statement",
    [
        "TRUNCATE voucher_scans",
        "DELETE FROM voucher_scans",
        "TRUNCATE voucher_scans_default",
        "UPDATE voucher_scans SET user_id = 'u2', voucher_id = 'v2'",
        "TRUNCATE customer_vouchers",
    ],
)
async def test_what_was_closed_stays_counted_whatever_is_done_to_the_ledger(
    shared_db, some_months, statement
):
    await close_before(shared_db, THIS_MONTH)
    await shared_db.execute(statement)
    found = await stored_counts(shared_db)
    for kept in ("hourly", "places", "place_months", "scanner_days", "returns"):
        before = getattr(some_months, kept)
        closed = {key: number for key, number in before.items() if _day_of(key) < THIS_MONTH.date()}
        assert getattr(found, kept).items() >= closed.items()
    assert await find_drift(shared_db, VOUCHER_COUNTERS) == []


def _day_of(key: tuple):
    at = next(part for part in key if not isinstance(part, str))
    return at.date() if isinstance(at, datetime) else at


@pytest.mark.parametrize(
    "tampering",
    [
        "UPDATE vouchers SET scan_count = 77",
        "DELETE FROM voucher_hourly",
        "TRUNCATE voucher_places",
        "TRUNCATE voucher_place_months",
        "DELETE FROM voucher_returns",
        "UPDATE customer_vouchers SET first_scanned_at = NULL",
        "UPDATE voucher_scanner_days SET first_at = '2001-01-01Z' WHERE day >= date_trunc('month', now())",
    ],
)
async def test_what_is_counted_of_closed_days_is_mended_from_what_was_kept(shared_db, some_months, tampering):
    await close_before(shared_db, THIS_MONTH)
    await shared_db.execute(tampering)
    assert await mended(shared_db)
    assert await stored_counts(shared_db) == some_months


@pytest.mark.parametrize(
    "tampering",
    [
        "UPDATE voucher_hourly SET anonymous_scans = 2 WHERE hour < '2021-01-01'",
        "DELETE FROM voucher_places WHERE day < '2021-01-01'",
        "UPDATE voucher_scanner_days SET first_at = '2001-01-01Z' WHERE day < '2021-01-01'",
        "INSERT INTO voucher_scanner_days VALUES ('v1', 'u9', '2020-01-01', '2020-01-01Z')",
    ],
)
async def test_what_has_drifted_is_not_closed(shared_db, some_months, tampering):
    await shared_db.execute(tampering)
    with pytest.raises(asyncpg.DataError, match="is not what it says") as caught:
        await close_before(shared_db, THIS_MONTH)
    assert "verify --repair" in caught.value.hint
    assert await shared_db.fetchval("SELECT count(*) FROM ledger_closings") == 0


async def test_what_has_not_passed_is_not_closed(shared_db):
    with pytest.raises(asyncpg.DataError, match="only what has passed"):
        await close_before(shared_db, NOW + timedelta(days=2))


async def test_partitions_that_were_closed_are_not_made_again(shared_db):
    await close_before(shared_db, THIS_MONTH)
    assert await shared_db.fetchval("SELECT make_partition('voucher_scans', $1)", LAST_MONTH.date()) is None
    assert named(LAST_MONTH) not in await partitions(shared_db)


@pytest.mark.parametrize("writer_first", [True, False])
async def test_a_scan_that_meets_its_closing_is_counted_or_refused(db, database_url, writer_first):
    some_months = await scans_of_some_months(db)
    late = a_scan("late", user="u5", at=LAST_MONTH)
    async with connections(database_url, 2) as (one, other):
        opened = one.transaction()
        await opened.start()
        if writer_first:
            await scan(one, late)
            meeting = asyncio.create_task(close_before(other, THIS_MONTH))
        else:
            await close_before(one, THIS_MONTH)
            meeting = asyncio.create_task(scan(other, late))
        await waits_for_a_lock(db, other)
        await opened.commit()
        if writer_first:
            await meeting
        else:
            with pytest.raises(asyncpg.CheckViolationError):
                await meeting
    found = (await stored_counts(db)).vouchers["v1"][0]
    assert found == some_months.vouchers["v1"][0] + writer_first
    assert await find_drift(db, VOUCHER_COUNTERS) == []


async def test_the_schedule_makes_partitions_and_closes_nothing_unless_told(db, database_url):
    some_months = await scans_of_some_months(db)
    await db.execute(f"DROP TABLE {named(months_later(3))}")
    await keep_partitions(db, SCAN_PARTITIONS, None)
    assert named(months_later(3)) in await partitions(db)
    assert named(LAST_MONTH) in await partitions(db)
    await keep_partitions(db, SCAN_PARTITIONS, 1)
    assert named(LAST_MONTH) not in await partitions(db) or NOW.day == 1
    assert await stored_counts(db) == some_months
    assert await db.fetchval("SHOW statement_timeout") == "0"


async def test_only_who_was_granted_it_may_call_what_runs_with_its_owners_rights(shared_db):
    definers = await shared_db.fetch(
        "SELECT oid::regprocedure::text AS name FROM pg_proc WHERE prosecdef AND pronamespace = 'public'::regnamespace"
    )
    assert len(definers) > 20
    for row in definers:
        assert not await shared_db.fetchval(
            "SELECT has_function_privilege('public', $1, 'EXECUTE')", row["name"]
        )
