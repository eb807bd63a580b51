"""Inventory by hand: whatever is done to the ledger and whoever does it, every product stays what its rows come to."""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import count

import asyncpg
import pytest

from counterfoil.database.counters import find_drift, repair
from counterfoil.database.facts import Facts
from counterfoil.database.files import sql_folder
from counterfoil.database.partitions import MONTHS_AHEAD, keep_partitions
from counterfoil.errors import PoisonRecord, TransientFailure
from counterfoil.events import StockChange
from counterfoil.ingest.failures import classify
from counterfoil.ingest.partitions import Partition
from counterfoil.ingest.records import milliseconds_of
from counterfoil.inventory import low_stock
from counterfoil.inventory.handlers import AlertRule, RecordStockChanges
from counterfoil.inventory.store import STOCK_COUNTS, STOCK_PARTITIONS, set_default_threshold
from counterfoil.settings import AlertPolicy
from support.builders import records_of
from support.inventory_model import (
    INVENTORY,
    Product,
    a_stock_event,
    exact,
    stored_products,
)
from support.postgres_ledgers import connections, empty, waits_for_a_lock
from support.postgres_road import plain_settings, scribes
from support.roles import owner_and_worker

NOW = datetime.now(UTC).replace(microsecond=0)
THIS_MONTH = NOW.replace(day=1, hour=0, minute=0, second=0)
LAST_MONTH = (THIS_MONTH - timedelta(days=1)).replace(day=1)
LONG_AGO = datetime(2020, 5, 17, 12, tzinfo=UTC)
"""A time that has no partition of its own."""

NO_ALERTS = AlertRule(AlertPolicy.LEVEL, timedelta(0), timedelta(microseconds=1))


def months_later(months: int, start: datetime = THIS_MONTH) -> datetime:
    """The beginning of the month that is so many later, or earlier."""
    number = start.year * 12 + start.month - 1 + months
    return start.replace(year=number // 12, month=number % 12 + 1)


def named(month: datetime) -> str:
    """The partition of a month."""
    return f"inventory_events_{month:%Y_%m}"


async def change(
    db: asyncpg.Connection,
    event_id: str,
    at: datetime,
    *,
    sku: str = "s1",
    table: str = "inventory_events",
    **told,
) -> None:
    """Write one row by hand."""
    columns = {"event_id": event_id, "occurred_at": at, "sku": sku, **told}
    places = ", ".join(f"${n + 1}" for n in range(len(columns)))
    await db.execute(f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({places})", *columns.values())


async def record(db: asyncpg.Connection, *events: StockChange) -> None:
    """As a worker writes stock changes, a batch in a transaction."""
    handler = RecordStockChanges(NO_ALERTS)
    facts = Facts([*events], [1] * len(events), list(range(len(events))), origin=lambda i: f"log/{i}")
    plan = await handler.plan(facts)
    async with db.transaction():
        await handler.write(db, plan)


async def stock(db: asyncpg.Connection, sku: str = "s1") -> int:
    return int(await db.fetchval("SELECT stock FROM inventory_products WHERE sku = $1", sku))


async def drift(db: asyncpg.Connection) -> list:
    return await find_drift(db, [STOCK_COUNTS])


async def sound(db: asyncpg.Connection, *, details: bool = True) -> bool:
    """Whether everything is exact by our own counting and by that of `verify`."""
    assert await exact(db, details=details)
    assert await drift(db) == []
    return True


# By hand: whatever statement, on the ledger or on a partition of it

TIMES = [THIS_MONTH, THIS_MONTH + timedelta(hours=26), LAST_MONTH, LONG_AGO, LONG_AGO + timedelta(minutes=90)]
COLUMNS = ("event_id", "occurred_at", "sku", "event_type", "new_stock", "quantity_delta", "name", "threshold")
CHANGES = [
    "quantity_delta = coalesce(quantity_delta, 0) - 5",
    "new_stock = 7",
    "new_stock = NULL, quantity_delta = coalesce(quantity_delta, 3)",
    "sku = 's2'",
    "sku = sku || 'x'",
    "event_type = 'restock'",
    "event_type = 'low_stock'",
    "event_type = 'change', quantity_delta = 4",
    "event_id = event_id || 'x'",
    "metadata = '{}', old_stock = 3, unit_price = 4.5, supplier = 'Loom'",
    "name = NULL",
    "name = 'bag', threshold = 3",
    "occurred_at = occurred_at + interval '1 minute'",
    "sku = 's3', occurred_at = occurred_at - interval '3 years', name = 'old'",
]
WHERES = [
    "sku = 's1'",
    "new_stock IS NULL",
    "name IS NOT NULL",
    "right(event_id, 1) IN ('1', '2', '3')",
    "event_type = 'low_stock'",
    "true",
]
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
        self.truncated = False

    async def do_something(self) -> str:
        """Some statement, or two in one transaction, done; their text."""
        kinds = [
            *[self.insert] * 4, *[self.update] * 3, *[self.upsert] * 2, self.merge, self.move, self.delete,
            self.replace, self.several_at_once, self.truncate,
        ]  # fmt: skip
        statement = "; ".join(self.dice.choice(kinds)() for _ in range(self.dice.choice([1, 1, 2])))
        with contextlib.suppress(*REFUSALS):
            async with self.db.transaction():
                await self.db.execute(statement)
                self.truncated |= "TRUNCATE" in statement
        return statement

    def place(self) -> str:
        return self.dice.choice(["inventory_events"] * 2 + ["inventory_events_default", named(THIS_MONTH)])

    def rows(self, *, known: bool) -> str:
        dice, rows = self.dice, []
        for number in dice.sample(range(10), k=dice.randint(1, 8)):
            row = {
                "event_id": f"'{number if known else next(self.numbers)}'",
                "occurred_at": f"'{dice.choice(TIMES)}'",
                "sku": dice.choice(["'s1'", "'s1'", "'s2'", "'s3'"]),
                "event_type": dice.choice(["'sale'", "'change'", "'restock'", "'low_stock'"]),
                "new_stock": dice.choice(["NULL", "NULL", "NULL", "0", "20", "-4"]),
                "quantity_delta": dice.choice(["-3", "5", "40"]),
                "name": dice.choice(["NULL", "NULL", "NULL", "'Bag'", "'bag'"]),
                "threshold": dice.choice(["NULL", "NULL", "NULL", "0", "30"]),
            }
            rows.append(f"({', '.join(row[column] for column in COLUMNS)})")
        return ", ".join(rows)

    def insert(self) -> str:
        known = self.dice.random() < 0.5
        into = f"INSERT INTO {self.place()} ({', '.join(COLUMNS)}) VALUES {self.rows(known=known)}"
        return f"{into} ON CONFLICT DO NOTHING"

    def upsert(self) -> str:
        changed = ", ".join(f"{name} = excluded.{name}" for name in COLUMNS[2:])
        return (
            f"INSERT INTO {self.place()} ({', '.join(COLUMNS)}) VALUES {self.rows(known=True)} "
            f"ON CONFLICT (occurred_at, event_id) DO UPDATE SET {changed}"
        )

    def update(self) -> str:
        return f"UPDATE {self.place()} SET {self.dice.choice(CHANGES)} WHERE {self.dice.choice(WHERES)}"

    def move(self) -> str:
        """To another time, and mostly to another partition."""
        where = self.dice.choice(WHERES)
        return f"UPDATE inventory_events SET occurred_at = '{self.dice.choice(TIMES)}' WHERE {where}"

    def delete(self) -> str:
        return f"DELETE FROM {self.place()} WHERE {self.dice.choice(WHERES)}"

    def merge(self) -> str:
        typed = {"occurred_at": "timestamptz", "new_stock": "bigint", "threshold": "integer"}
        given = {name: f"s.{name}::{typed[name]}" if name in typed else f"s.{name}" for name in COLUMNS}
        changed = ", ".join(f"{name} = {given[name]}" for name in COLUMNS[2:])
        return (
            f"MERGE INTO {self.place()} AS t USING (VALUES {self.rows(known=True)}) AS s({', '.join(COLUMNS)}) "
            f"ON t.event_id = s.event_id AND t.occurred_at = {given['occurred_at']} "
            "WHEN MATCHED AND t.sku = 's3' THEN DELETE "
            f"WHEN MATCHED THEN UPDATE SET {changed} "
            f"WHEN NOT MATCHED THEN INSERT ({', '.join(COLUMNS)}) VALUES ({', '.join(given.values())})"
        )

    def replace(self) -> str:
        """Rows go and others come in one statement."""
        return f"WITH gone AS ({self.delete()} RETURNING 1) {self.insert()}"

    def several_at_once(self) -> str:
        """Of which each trigger sees everything done."""
        parts = [self.insert(), self.insert(), self.dice.choice([self.update, self.upsert])()]
        self.dice.shuffle(parts)
        *before, last = parts
        return f"WITH {', '.join(f'x{n} AS ({part} RETURNING 1)' for n, part in enumerate(before))} {last}"

    def truncate(self) -> str:
        return f"TRUNCATE {self.place()}" if self.dice.random() < 0.5 else self.delete()


async def test_after_any_statement_by_hand_every_product_is_what_its_rows_come_to(db):
    """Details too, as long as nothing was truncated: what rows had told is not known by then, and stands."""
    for seed in range(25):
        await empty(db, INVENTORY)
        operator = Operator(db, seed)
        for _ in range(12):
            statement = await operator.do_something()
            assert await exact(db, f"{seed}: {statement}", details=not operator.truncated)
        assert await drift(db) == []


@pytest.mark.parametrize(
    ("table", "left"),
    [
        ("inventory_events", 0),
        (named(THIS_MONTH), 6),
        (named(LAST_MONTH), 5),
        ("inventory_events_default", 3),
    ],
)
async def test_truncating_the_ledger_or_a_partition_leaves_what_is_left(shared_db, table, left):
    for number, at in enumerate([NOW, LAST_MONTH, LONG_AGO]):
        await change(shared_db, f"{number}", at, quantity_delta=number + 1 + (number == 2))
    assert await stock(shared_db) == 7
    await shared_db.execute(f"TRUNCATE {table}")
    assert await stock(shared_db) == left
    assert await sound(shared_db)


EVENT_OF = "INSERT INTO {} (occurred_at, sku, new_stock, quantity_delta) VALUES"


async def test_truncating_the_absolute_brings_back_what_it_had_covered(shared_db):
    await change(shared_db, "a", LAST_MONTH, quantity_delta=4)
    await change(shared_db, "b", THIS_MONTH, new_stock=50)
    await change(shared_db, "c", THIS_MONTH + timedelta(microseconds=1), quantity_delta=1)
    assert await stock(shared_db) == 51
    await shared_db.execute(f"TRUNCATE {named(THIS_MONTH)}")
    assert await stock(shared_db) == 4
    assert await sound(shared_db)


async def test_a_copy_into_the_ledger_or_a_partition_counts(shared_db):
    for number, (table, at) in enumerate(
        [("inventory_events", NOW), (named(THIS_MONTH), NOW), ("inventory_events_default", LONG_AGO)]
    ):
        await shared_db.copy_records_to_table(
            table,
            records=[(f"{number} {n}", f"s{n % 2}", at, None, 3, "restock") for n in range(10)],
            columns=["event_id", "sku", "occurred_at", "new_stock", "quantity_delta", "event_type"],
        )
    assert [await stock(shared_db, sku) for sku in ("s0", "s1")] == [45, 45]
    assert await sound(shared_db)


@pytest.mark.parametrize("months", [(THIS_MONTH, LAST_MONTH), (LAST_MONTH, THIS_MONTH)])
async def test_rows_of_two_partitions_in_one_statement_are_counted_once(shared_db, months):
    """Who counts the absolute reads the delta of the other partition as well."""
    absolute, delta = (f"{EVENT_OF.format(named(month))} ('{month}'" for month in months)
    for first, second in (
        (f"{absolute}, 's1', 20, 0)", f"{delta}, 's1', NULL, 5)"),
        (f"{delta}, 's2', NULL, 5)", f"{absolute}, 's2', 20, 0)"),
    ):
        await shared_db.execute(f"WITH one AS ({first} RETURNING 1) {second}")
    assert [await stock(shared_db, sku) for sku in ("s1", "s2")] == [25 if months[0] < months[1] else 20] * 2
    assert await sound(shared_db)


async def test_a_merge_that_inserts_and_then_updates_is_counted_or_refused(shared_db):
    """Of a partitioned table PostgreSQL 18 tells that the updated row has become the inserted one."""
    await change(shared_db, "old", NOW, quantity_delta=5)
    with contextlib.suppress(asyncpg.FeatureNotSupportedError):
        async with shared_db.transaction():
            await shared_db.execute(
                """MERGE INTO inventory_events AS t USING (VALUES ('new', 's2'), ('old', 's3')) AS s(id, sku)
                   ON t.event_id = s.id WHEN MATCHED THEN UPDATE SET sku = s.sku
                   WHEN NOT MATCHED THEN INSERT (event_id, sku, quantity_delta) VALUES (s.id, s.sku, 1)"""
            )
    assert await sound(shared_db)


async def test_a_product_that_was_deleted_comes_back_with_its_stock(shared_db):
    await record(shared_db, a_stock_event(sku="s1", new_stock=50, quantity_delta=None))
    await shared_db.execute("DELETE FROM inventory_products")
    await record(shared_db, a_stock_event(sku="s1", quantity_delta=-1, timestamp=NOW + timedelta(seconds=1)))
    assert await stock(shared_db, "s1") == 49
    assert await drift(shared_db) == []


async def test_the_second_statement_of_a_transaction_reads_no_more_than_its_products(shared_db):
    """A plan that joined two sets row by row took half a minute for this."""
    absolute = (
        "INSERT INTO inventory_events (sku, new_stock) SELECT 's' || n, n FROM generate_series(1, 3000) AS n"
    )
    delta = "INSERT INTO inventory_events (sku, quantity_delta) SELECT 's' || n, 1 FROM generate_series(1, 3000) AS n"
    async with asyncio.timeout(10), shared_db.transaction():
        await shared_db.execute(absolute)
        await shared_db.execute(delta)
        await shared_db.execute(absolute)
    assert await drift(shared_db) == []


async def test_more_products_than_are_recounted_one_by_one_are_recounted_to_the_same(shared_db):
    """Of many all rows are read at once; the same statement on few takes the other way, with the same outcome."""
    await shared_db.execute(
        """INSERT INTO inventory_events (event_id, occurred_at, sku, event_type, new_stock, quantity_delta)
           SELECT n::text, $1::timestamptz + make_interval(secs => n % 97), 's' || n % 611,
                  CASE n % 3 WHEN 0 THEN 'restock' ELSE 'sale' END, CASE n % 5 WHEN 0 THEN n END, n % 7
           FROM generate_series(1, 4000) AS n""",
        LAST_MONTH,
    )
    await shared_db.execute(
        "UPDATE inventory_events SET quantity_delta = quantity_delta + 1 WHERE event_id < '3'"
    )
    before = await stored_products(shared_db)
    assert len(before) == 611
    assert await sound(shared_db)
    for skus in (
        "array_agg(sku)",
        "(array_agg(sku))[:400]",
        "array_agg(sku) || ARRAY[NULL, 'unknown', 's1']",
    ):
        await shared_db.execute(
            "UPDATE inventory_products SET stock = -1, last_restocked = NULL, counted_from = '2000-01-01'"
        )
        await shared_db.execute(f"SELECT recount_products({skus}) FROM inventory_products")
        found = await stored_products(shared_db)
        right = {sku for sku in before if found[sku] == before[sku]}
        assert len(right) == (400 if "400" in skus else 611)
    assert found["unknown"] == Product(name="unknown")
    await shared_db.execute("SELECT recount_products(NULL)")
    assert await sound(shared_db)
    await shared_db.execute("TRUNCATE inventory_events")
    assert {product[:3] for product in (await stored_products(shared_db)).values()} == {(0, None, None)}


EVENT = (
    "INSERT INTO inventory_events (event_id, occurred_at, sku, event_type, new_stock, quantity_delta) VALUES "
)
PRODUCT = "INSERT INTO inventory_products (sku, name, threshold, unit_price) VALUES "


@pytest.mark.parametrize(
    ("statement", "constraint"),
    [
        (f"{EVENT} ('', now(), 's', 'sale', 1, NULL)", "event_id_not_blank"),
        (f"{EVENT} ('e', now(), '', 'sale', 1, NULL)", "sku_not_blank"),
        (f"{EVENT} ('e', now(), 's', 'Sale', 1, NULL)", "event_type_is_a_word"),
        (f"{EVENT} ('e', now(), 's', 'sale', NULL, NULL)", "stock_or_delta"),
        (f"{EVENT} ('e', now(), 's', 'sale', 9007199254740992, NULL)", "new_stock_is_a_count"),
        (f"{EVENT} ('e', now(), 's', 'sale', NULL, -9007199254740992)", "quantity_delta_is_a_count"),
        (f"{EVENT} ('e', 'infinity', 's', 'sale', 1, NULL)", "occurred_at_is_a_time"),
        (f"{EVENT} ('e', '-infinity', 's', 'sale', 1, NULL)", "occurred_at_is_a_time"),
        ("UPDATE inventory_events SET name = ''", "name_not_blank"),
        ("UPDATE inventory_events SET threshold = -1", "threshold_not_negative"),
        ("UPDATE inventory_events SET unit_price = 'NaN'", "unit_price_not_negative"),
        (f"{PRODUCT} ('', 'n', 1, 1)", "sku_not_blank"),
        (f"{PRODUCT} ('p', 'n', -1, 1)", "threshold_not_negative"),
        (f"{PRODUCT} ('p', 'n', 1, -1)", "unit_price_not_negative"),
        ("UPDATE stock_defaults SET threshold = -1", "threshold_not_negative"),
    ],
)
async def test_an_error_names_what_is_wrong(shared_db, statement, constraint):
    await change(shared_db, "1", NOW, quantity_delta=1)
    with pytest.raises(asyncpg.CheckViolationError) as caught:
        await shared_db.execute(statement)
    assert caught.value.constraint_name == constraint


async def test_a_row_with_nothing_but_what_is_needed_counts_now(shared_db):
    await shared_db.execute("INSERT INTO inventory_events (sku, quantity_delta) VALUES ('s1', 5)")
    row = await shared_db.fetchrow("SELECT *, last_restocked = now() AS just_now FROM inventory_products")
    assert (row["stock"], row["previous_stock"], row["name"], row["just_now"]) == (5, 0, "s1", True)
    assert row["created_at"] is None
    assert await sound(shared_db)


# Products written by hand


async def test_a_product_written_by_hand_brings_its_stock_along(shared_db):
    await shared_db.execute(
        """INSERT INTO inventory_products (sku, name, stock, threshold) VALUES ('s1', 'Bag', 5, 3), ('s2', 'Hat', 0, 3),
                                                                              ('s3', 'Owed', -2, 3)"""
    )
    assert [await stock(shared_db, sku) for sku in ("s1", "s2", "s3")] == [5, 0, -2]
    rows = await shared_db.fetch("SELECT sku, event_type, quantity_delta FROM inventory_events ORDER BY 1")
    assert [tuple(row) for row in rows] == [("s1", "opening", 5), ("s3", "opening", -2)]
    assert await shared_db.fetchval("SELECT previous_stock FROM inventory_products WHERE sku = 's1'") == 0
    await change(shared_db, "1", LONG_AGO, quantity_delta=3)
    assert await stock(shared_db) == 8
    await change(shared_db, "2", NOW, new_stock=40)
    assert await stock(shared_db) == 40
    assert await shared_db.fetchval("SELECT name FROM inventory_products WHERE sku = 's1'") == "Bag"
    assert await sound(shared_db, details=False)


async def test_of_a_product_that_the_ledger_knows_the_ledgers_stock_stands(shared_db):
    await change(shared_db, "1", NOW, quantity_delta=3)
    await shared_db.execute("DELETE FROM inventory_products")
    assert [found.counter for found in await drift(shared_db)] == ["last_restocked", "stock"]
    await shared_db.execute("INSERT INTO inventory_products (sku, name, stock) VALUES ('s1', 's1', 77)")
    assert await stock(shared_db) == 3
    assert await sound(shared_db)


async def test_a_product_that_is_opened_twice_is_opened_once(shared_db):
    opened = "INSERT INTO inventory_products (sku, name, stock) VALUES ('s1', 's1', 5)"
    await shared_db.execute(opened)
    await shared_db.execute("DELETE FROM inventory_products")
    await shared_db.execute(opened)
    await shared_db.execute(f"{opened.replace('5', '9')} ON CONFLICT DO NOTHING")
    assert await stock(shared_db) == 5
    assert await sound(shared_db)


async def test_what_a_person_wrote_of_a_product_stands_until_it_is_told_later(shared_db):
    await change(shared_db, "2", NOW, quantity_delta=1, name="told")
    await shared_db.execute("UPDATE inventory_products SET name = 'by hand', threshold = 4")
    await change(shared_db, "1", LONG_AGO, quantity_delta=1, name="told before", threshold=5)
    row = await shared_db.fetchrow("SELECT name, threshold FROM inventory_products")
    assert tuple(row) == ("by hand", 5)  # no threshold was told before
    await change(shared_db, "3", NOW, quantity_delta=1, name="told again")
    assert await shared_db.fetchval("SELECT name FROM inventory_products") == "told again"


async def test_a_new_product_has_the_default_threshold_of_the_settings(shared_db):
    await change(shared_db, "1", NOW, quantity_delta=1)
    assert await set_default_threshold(shared_db, 25)
    assert not await set_default_threshold(shared_db, 25)
    await change(shared_db, "2", NOW, sku="s2", quantity_delta=1)
    thresholds = {sku: product.threshold for sku, product in (await stored_products(shared_db)).items()}
    assert thresholds == {"s1": 10, "s2": 25}


# Drift


async def some_rows(db: asyncpg.Connection) -> None:
    """Of s1 an absolute and more, of s2 deltas only; this month, the last, and long ago."""
    for sku in ("s1", "s2"):
        for number, at in enumerate([LONG_AGO, LAST_MONTH, NOW - timedelta(seconds=1)]):
            await change(db, f"{sku} {number}", at, sku=sku, event_type="restock", quantity_delta=number + 3)
    await change(db, "absolute", LAST_MONTH + timedelta(days=1), new_stock=40)
    await change(db, "after", LAST_MONTH + timedelta(days=2), quantity_delta=-7)


TAMPERING = [
    "UPDATE inventory_products SET stock = stock + 1",
    "UPDATE inventory_products SET stock = 0 WHERE sku = 's2'",
    "UPDATE inventory_products SET last_restocked = NULL",
    "UPDATE inventory_products SET last_restocked = last_restocked + interval '1 microsecond' WHERE sku = 's1'",
    "UPDATE inventory_products SET counted_from = '-infinity', counted_from_event = '' WHERE sku = 's1'",
    "UPDATE inventory_products SET counted_from = '2020-01-01Z', counted_from_event = 'x' WHERE sku = 's2'",
    "UPDATE inventory_products SET counted_from_event = 'x' WHERE sku = 's1'",
    "DELETE FROM inventory_products WHERE sku = 's2'",
]
PAST_THE_TRIGGERS = [
    "DELETE FROM inventory_events WHERE event_id = 'absolute'",
    "DELETE FROM inventory_events",
    "UPDATE inventory_events SET sku = 's3' WHERE sku = 's2'",
    "UPDATE inventory_events SET new_stock = 3 WHERE event_id = 'after'",
    "UPDATE inventory_events SET occurred_at = '2020-01-01' WHERE event_id = 'absolute'",
    "UPDATE inventory_events SET event_type = 'low_stock' WHERE event_id = 's2 2'",
]


@pytest.mark.parametrize("tampering", TAMPERING)
async def test_a_number_that_is_not_its_ledgers_is_found_and_mended(shared_db, tampering):
    await some_rows(shared_db)
    assert await sound(shared_db)
    before = await stored_products(shared_db)
    await shared_db.execute(tampering)
    found = await drift(shared_db)
    assert found
    await repair(shared_db, [STOCK_COUNTS], found)
    assert await stored_products(shared_db) == before
    assert await sound(shared_db)


@pytest.mark.parametrize("statement", PAST_THE_TRIGGERS)
async def test_a_ledger_that_was_changed_past_its_triggers_is_found_and_counted(shared_db, statement):
    await some_rows(shared_db)
    await shared_db.execute(
        f"SET session_replication_role = replica; {statement}; SET session_replication_role = origin"
    )
    found = await drift(shared_db)
    assert found
    await repair(shared_db, [STOCK_COUNTS], found)
    assert await sound(shared_db)


async def test_mending_under_traffic_never_drifts(db, database_url):
    """Whoever is recounted while his changes are written waits for them, or they for him."""
    done = asyncio.Event()
    async with scribes(database_url, 2) as workers, connections(database_url, 1) as (mender,):

        async def work(number: int) -> None:
            dice, topic = random.Random(number), Partition("stock-change", number)
            for batch in range(25):
                told = [
                    a_stock_event(
                        f"s{dice.randrange(4)}",
                        event_id=f"{number} {batch} {n}",
                        timestamp=LONG_AGO + timedelta(seconds=dice.randrange(999)),
                        **(
                            {"new_stock": 9}
                            if dice.random() < 0.1
                            else {"quantity_delta": dice.randrange(-9, 9)}
                        ),
                    )
                    for n in range(20)
                ]
                await workers[number].write(records_of(*told, partition=topic, first=20 * batch))

        async def tamper_and_mend() -> int:
            dice, times = random.Random(9), 0
            while not done.is_set():
                tampering = dice.choice(TAMPERING[:-1]).partition(" WHERE")[0]
                await mender.execute(f"{tampering} WHERE sku = 's1'")
                found = await drift(mender)
                assert {wrong.key for wrong in found} <= {"s1"}
                await repair(mender, [STOCK_COUNTS], found)
                assert await drift(mender) == []
                times += bool(found)
            return times

        async with asyncio.TaskGroup() as meanwhile:
            mending = meanwhile.create_task(tamper_and_mend())
            await asyncio.gather(work(0), work(1))
            done.set()
    assert mending.result() > 3
    assert await db.fetchval("SELECT count(*) FROM inventory_events") == 1_000
    assert await sound(db)


async def test_traffic_and_truncates_are_no_drift(db, database_url):
    """Who truncates holds the ledger and wants all products: where he meets a batch one of the two is tried again."""
    impatient, done = f"{database_url}?deadlock_timeout=5ms", asyncio.Event()
    async with scribes(impatient) as (worker,), connections(impatient, 1) as (operator,):

        async def work() -> None:
            for batch in range(30):
                told = [a_stock_event(f"s{n}", timestamp=LONG_AGO + timedelta(days=batch)) for n in range(10)]
                records = records_of(*told, partition=Partition("stock-change", 0), first=10 * batch)
                while True:
                    with contextlib.suppress(TransientFailure):
                        await worker.write(records)
                        break

        async def truncate() -> None:
            while not done.is_set():
                with contextlib.suppress(asyncpg.DeadlockDetectedError):
                    await operator.execute("TRUNCATE inventory_events")
                await asyncio.sleep(0.02)

        async with asyncio.TaskGroup() as meanwhile:
            meanwhile.create_task(truncate())
            working = meanwhile.create_task(work())
            while not working.done():
                assert await drift(db) == []
            done.set()
    assert await sound(db)


# Partitions and retention


async def partitions(db: asyncpg.Connection) -> set[str]:
    rows = await db.fetch(
        "SELECT inhrelid::regclass::text AS name FROM pg_inherits WHERE inhparent = 'inventory_events'::regclass"
    )
    return {row["name"] for row in rows}


async def partition_of(db: asyncpg.Connection, event_id: str) -> str:
    found = "SELECT tableoid::regclass::text FROM inventory_events WHERE event_id = $1"
    return str(await db.fetchval(found, event_id))


async def close_before(db: asyncpg.Connection, before: datetime) -> list[str]:
    async with db.transaction():
        return [row[0] for row in await db.fetch("SELECT close_inventory_partitions($1)", before.date())]


async def test_partitions_of_the_months_ahead_are_made_once(shared_db):
    there = {named(months_later(n)) for n in range(-1, MONTHS_AHEAD + 1)} | {"inventory_events_default"}
    assert await partitions(shared_db) == there
    made = [row[0] for row in await shared_db.fetch("SELECT make_partitions('inventory_events', 5)")]
    assert made == [named(months_later(n)) for n in (4, 5)]
    assert await partitions(shared_db) == there | set(made)


async def test_every_partition_has_the_ledgers_triggers_constraints_and_indexes(shared_db):
    triggers = (
        "SELECT tgname, tgfoid FROM pg_trigger WHERE tgrelid = $1::regclass AND NOT tgisinternal ORDER BY 1"
    )
    indexes = "SELECT count(*) FROM pg_index WHERE indrelid = $1::regclass"
    checks = (
        "SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = $1::regclass "
        "AND contype = 'c' ORDER BY 1"
    )
    for name in await partitions(shared_db):
        for what in (triggers, checks, indexes):
            assert await shared_db.fetch(what, name) == await shared_db.fetch(what, "inventory_events")


async def test_what_the_default_partition_holds_of_a_month_is_moved_and_nothing_is_counted_anew(shared_db):
    far = months_later(5)
    for event_id, at in (("a", far), ("b", months_later(6)), ("c", LONG_AGO)):
        await change(shared_db, event_id, at, quantity_delta=2)
    before = await stored_products(shared_db)
    await shared_db.execute("SELECT make_partitions('inventory_events', 5)")
    moved = [await partition_of(shared_db, event_id) for event_id in "abc"]
    assert moved == [named(far), "inventory_events_default", "inventory_events_default"]
    assert await stored_products(shared_db) == before
    assert await sound(shared_db)


@pytest.mark.parametrize("writer_first", [True, False])
async def test_a_change_that_meets_the_making_of_its_partition_is_not_refused(db, database_url, writer_first):
    far = months_later(5)
    async with connections(database_url, 2) as (one, other):
        opened = one.transaction()
        await opened.start()
        making = "SELECT make_partitions('inventory_events', 5)"
        if writer_first:
            await record(one, a_stock_event(event_id="a", timestamp=far))
            meeting = asyncio.create_task(other.execute(making))
        else:
            await one.execute(making)
            meeting = asyncio.create_task(record(other, a_stock_event(event_id="a", timestamp=far)))
        await waits_for_a_lock(db, other)
        await opened.commit()
        await meeting
    assert await partition_of(db, "a") == named(far)
    assert await sound(db)


@pytest.fixture
async def some_months(shared_db):
    """The products of some rows; s1 has its absolute in the last month."""
    await some_rows(shared_db)
    return await stored_products(shared_db)


@pytest.mark.parametrize(
    "steps", [[THIS_MONTH + timedelta(hours=1)], [LAST_MONTH, THIS_MONTH], [LONG_AGO, THIS_MONTH]]
)
async def test_closing_drops_the_months_before_and_keeps_their_stocks(shared_db, some_months, steps):
    """Of s1 its absolute with what came after it, of s2 what its deltas came to; each with its last restock."""
    for before in steps:
        await close_before(shared_db, before)
        assert await close_before(shared_db, before) == []
        assert await stored_products(shared_db) == some_months
        assert await drift(shared_db) == []
    assert await shared_db.fetchval("SELECT min(occurred_at) >= $1 FROM inventory_events", THIS_MONTH)
    assert named(LAST_MONTH) not in await partitions(shared_db)


AFTER = {
    "a delta": ({"quantity_delta": -4}, -4, -4),
    "a restock": ({"quantity_delta": 5, "event_type": "restock"}, 5, 5),
    "an absolute": ({"new_stock": 11}, None, None),
}


@pytest.mark.parametrize("what", AFTER)
async def test_what_comes_after_a_closing_counts_on_from_it(shared_db, some_months, what):
    await close_before(shared_db, THIS_MONTH)
    told, *moved = AFTER[what]
    for sku, delta in zip(("s1", "s2"), moved, strict=True):
        await change(shared_db, f"{sku} new", NOW, sku=sku, **told)
        assert await stock(shared_db, sku) == (11 if delta is None else some_months[sku].stock + delta)
    assert await drift(shared_db) == []
    await shared_db.execute("UPDATE inventory_events SET metadata = '{}', old_stock = 1")
    assert await drift(shared_db) == []
    await shared_db.execute("DELETE FROM inventory_events WHERE right(event_id, 3) = 'new'")
    assert await stored_products(shared_db) == some_months
    await shared_db.execute("TRUNCATE inventory_events")
    closed = {sku: product[:2] for sku, product in (await stored_products(shared_db)).items()}
    assert closed == {"s1": (33, LAST_MONTH), "s2": (7, LAST_MONTH)}
    assert await drift(shared_db) == []


async def test_details_of_closed_months_stand_again_where_later_ones_are_taken_back(shared_db):
    old = LAST_MONTH + timedelta(days=1)
    await shared_db.execute(
        "INSERT INTO inventory_events (event_id, occurred_at, sku, new_stock, name, threshold) "
        "VALUES ('old', $1, 's1', 5, 'Old name', 7), ('new', $2, 's1', 6, 'New name', NULL)",
        old,
        NOW,
    )
    for before in (THIS_MONTH, THIS_MONTH):  # a second closing has nothing to take what was kept from
        await close_before(shared_db, before)
    assert await details(shared_db) == ("New name", 7)
    await shared_db.execute("DELETE FROM inventory_events WHERE event_id = 'new'")
    assert await details(shared_db) == ("Old name", 7)


async def details(db):
    return tuple(await db.fetchrow("SELECT name, threshold FROM inventory_products WHERE sku = 's1'"))


async def test_a_product_opened_after_a_closing_is_opened_where_it_ends(shared_db, some_months):
    await close_before(shared_db, THIS_MONTH)
    await shared_db.execute("INSERT INTO inventory_products (sku, name, stock) VALUES ('s9', 's9', 5)")
    assert await shared_db.fetchval("SELECT occurred_at FROM inventory_events WHERE sku = 's9'") == THIS_MONTH
    assert await stock(shared_db, "s9") == 5
    assert await drift(shared_db) == []


async def test_changes_older_than_the_closing_are_refused_and_named(shared_db, some_months):
    await close_before(shared_db, THIS_MONTH)
    late = [a_stock_event(timestamp=THIS_MONTH - timedelta(microseconds=n)) for n in (1, 2)]
    with pytest.raises(PoisonRecord) as caught:
        await record(shared_db, a_stock_event(timestamp=NOW), *late)
    assert (caught.value.kind, caught.value.sources) == ("before_retention", {(1, 1), (1, 2)})
    assert str(THIS_MONTH.date()) in str(caught.value)
    await record(shared_db, a_stock_event(timestamp=THIS_MONTH))
    assert await drift(shared_db) == []


@pytest.mark.parametrize(
    "by_hand",
    [
        f"{EVENT} ('x', '2020-05-17', 's1', 'sale', 1, NULL)",
        f"{EVENT} ('x', '2020-05-17', 's1', 'low_stock', 1, NULL)",
        f"{EVENT.replace('inventory_events', 'inventory_events_default')} ('x', '2020-05-17', 's1', 'sale', 1, NULL)",
        "UPDATE inventory_events SET occurred_at = '2020-05-17'",
    ],
)
async def test_nothing_is_put_before_the_closing_by_hand(shared_db, some_months, by_hand):
    await close_before(shared_db, THIS_MONTH)
    with pytest.raises(asyncpg.CheckViolationError) as caught:
        await shared_db.execute(by_hand)
    assert caught.value.constraint_name == "before_retention"
    assert classify(caught.value).kind == "before_retention"


@pytest.mark.parametrize("tampering", TAMPERING)
async def test_what_is_counted_of_closed_months_is_mended_from_what_was_kept(
    shared_db, some_months, tampering
):
    await close_before(shared_db, THIS_MONTH)
    await shared_db.execute(tampering)
    await repair(shared_db, [STOCK_COUNTS], await drift(shared_db))
    assert await stored_products(shared_db) == some_months
    assert await drift(shared_db) == []


@pytest.mark.parametrize("tampering", [TAMPERING[0], TAMPERING[1], TAMPERING[2], TAMPERING[-1]])
async def test_what_has_drifted_is_not_closed(shared_db, some_months, tampering):
    await shared_db.execute(tampering)
    with pytest.raises(asyncpg.DataError, match="is not what it says") as caught:
        await close_before(shared_db, THIS_MONTH)
    assert "verify --repair" in caught.value.hint


async def test_what_has_not_passed_is_not_closed(shared_db):
    with pytest.raises(asyncpg.DataError, match="only what has passed"):
        await close_before(shared_db, NOW + timedelta(days=2))


@pytest.mark.parametrize("writer_first", [True, False])
async def test_a_change_that_meets_its_closing_is_counted_or_refused(db, database_url, writer_first):
    await some_rows(db)
    before = await stock(db, "s2")
    late = a_stock_event("s2", event_id="late", timestamp=LAST_MONTH)
    async with connections(database_url, 2) as (one, other):
        opened = one.transaction()
        await opened.start()
        if writer_first:
            await record(one, late)
            meeting = asyncio.create_task(close_before(other, THIS_MONTH))
        else:
            await close_before(one, THIS_MONTH)
            meeting = asyncio.create_task(record(other, late))
        await waits_for_a_lock(db, other)
        await opened.commit()
        if writer_first:
            await meeting
        else:
            with pytest.raises(asyncpg.CheckViolationError):
                await meeting
    assert await stock(db, "s2") == before + writer_first
    assert await drift(db) == []


async def test_the_schedule_makes_partitions_and_closes_nothing_unless_told(db):
    await some_rows(db)
    products = await stored_products(db)
    await db.execute(f"DROP TABLE {named(months_later(3))}")
    await keep_partitions(db, STOCK_PARTITIONS, None)
    assert {named(months_later(3)), named(LAST_MONTH)} <= await partitions(db)
    await keep_partitions(db, STOCK_PARTITIONS, 1)
    assert named(LAST_MONTH) not in await partitions(db) or NOW.day == 1
    assert await stored_products(db) == products


# The worker's role


@pytest.fixture(scope="module")
def worker_url(postgres_server):
    """The address of a worker's login in a database that somebody else has migrated."""
    with owner_and_worker(postgres_server.dsn) as (_, worker):
        yield worker


@pytest.mark.parametrize("policy", AlertPolicy)
async def test_inventory_works_with_the_workers_rights(worker_url, policy):
    """Told, told again with other contents, scanned, noted, looked through by `verify`, mended, partitions kept."""
    sku, chosen = (
        f"w {policy}",
        plain_settings(alert_policy=policy, alert_max_age_s=10**9, alert_cooldown_s=0),
    )
    topic = Partition("stock-change", 0)
    async with scribes(worker_url, settings=chosen, group=f"of {policy}") as (worker,):
        for n, (delta, at) in enumerate([(3, LONG_AGO), (2, LONG_AGO), (7, LONG_AGO), (50, NOW), (-48, NOW)]):
            told = a_stock_event(
                sku,
                event_id=f"{sku} {at}" if delta < 50 else "k",
                quantity_delta=delta,
                timestamp=at,
                name="n",
            )
            (sent,) = records_of(told, partition=topic, first=n)
            await worker.write([replace(sent, timestamp=milliseconds_of(NOW))])
        await low_stock.scan(worker.pool, chosen)
        await low_stock.take_scan(worker.pool, chosen)
        async with worker.pool.acquire() as connection:
            assert await stock(connection, sku) == 4
            ids = [row["alert_id"] for row in await connection.fetch("SELECT alert_id FROM alerts")]
            assert ids
            await connection.execute("SELECT note_told($1, 'webhook')", ids)
            assert (await low_stock.find_low_stock(connection)).in_all > 0
            await set_default_threshold(connection, 11)
            await keep_partitions(connection, STOCK_PARTITIONS, None)
            assert await drift(connection) == []
            await connection.execute("SELECT recount_products(ARRAY[$1::text])", sku)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE inventory_products SET stock = 1",
        "UPDATE inventory_products SET counted_from = now()",
        "DELETE FROM inventory_products",
        "DELETE FROM inventory_events",
        "TRUNCATE inventory_events",
        "DELETE FROM inventory_events_default",
        f"DELETE FROM {named(THIS_MONTH)}",
        "INSERT INTO inventory_events_default (sku, quantity_delta) VALUES ('s', 1)",
        "DELETE FROM refused_stock_changes",
        "INSERT INTO ledger_closings (ledger, key, sums, closed_before) VALUES ('inventory_events', 's1', '{}', now())",
        "DELETE FROM alerts",
    ],
)
async def test_the_worker_rewrites_no_stock(worker_url, statement):
    async with connections(worker_url, 1) as (worker,):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await worker.execute(statement)


async def test_every_table_view_and_function_of_inventory_is_granted_as_it_should_be(worker_url):
    """The worker may read all of it, and calls none that runs as the owner but those that are named here."""
    migration = (sql_folder() / "migrations" / "0009_inventory.sql").read_text(encoding="utf-8")
    relations = re.findall(r"CREATE (?:TABLE|VIEW) (\w+)", migration)
    functions = re.findall(r"CREATE FUNCTION (\w+)\(", migration)
    allowed = {"hold_products", "take_products", "recount_products", "close_inventory_partitions"}
    assert len(relations) >= 8
    async with connections(worker_url, 1) as (worker,):
        for relation in relations:
            assert await worker.fetchval(f"SELECT count(*) FROM {relation}") >= 0
        rows = await worker.fetch(
            """SELECT proname, prosecdef, has_function_privilege(oid, 'EXECUTE') AS callable,
                      proconfig IS NOT NULL OR prosqlbody IS NOT NULL AS guarded
               FROM pg_proc WHERE proname = ANY ($1) AND pronamespace = current_schema()::regnamespace""",
            functions,
        )
    assert {row["proname"] for row in rows} == set(functions)
    assert {row["proname"] for row in rows if row["prosecdef"] and row["callable"]} == allowed
    assert all(row["callable"] for row in rows if not row["prosecdef"])
    assert [row["proname"] for row in rows if not row["guarded"]] == []
