"""Clicks: counted once, by day, visitors and bots apart, whatever is done to the ledger and whoever does it."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from datetime import UTC, date, datetime, timedelta
from itertools import count

import asyncpg
import pytest

from counterfoil.clicks.handlers import RecordClicks
from counterfoil.clicks.store import CLICK_COUNTS, CLICK_PARTITIONS, CLICKS, COLUMNS, load_visitor_key
from counterfoil.database.counters import Drift, count_rows, find_drift, repair
from counterfoil.database.facts import Facts, Outcome
from counterfoil.database.ledger import Ledger
from counterfoil.database.partitions import MONTHS_AHEAD, keep_partitions
from counterfoil.errors import PoisonRecord
from counterfoil.ingest.failures import classify
from counterfoil.settings import IpPolicy
from support.builders import a_click_event
from support.postgres_ledgers import connections, waits_for_a_lock
from support.postgres_road import plain_settings

NOW = datetime.now(UTC).replace(microsecond=0)
TODAY = NOW.date()
THIS_MONTH = NOW.replace(day=1, hour=0, minute=0, second=0)
LAST_MONTH = (THIS_MONTH - timedelta(days=1)).replace(day=1)
LONG_AGO = datetime(2020, 5, 17, 12, tzinfo=UTC)
"""A time that has no partition of its own."""

GOOGLEBOT = "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"
CHROME = (
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120.0.0.0 Safari/537.36"
)


def months_later(months: int, start: datetime = THIS_MONTH) -> datetime:
    """The beginning of the month that is so many later, or earlier."""
    number = start.year * 12 + start.month - 1 + months
    return start.replace(year=number // 12, month=number % 12 + 1)


def named(month: datetime) -> str:
    """The partition of a month."""
    return f"aff_clicks_{month:%Y_%m}"


numbers = count(1)


def clicks_of(visitors, *, pixel="px-1", at=NOW, user_agent=CHROME, ids=None):
    """A click of each of these visitors; None is one of whom nothing is known."""
    return [
        a_click_event(
            pixel,
            click_id=click_id or f"click-{next(numbers):06}",
            ip_address=None if visitor is None else f"198.51.100.{visitor}",
            user_agent=None if visitor is None else user_agent,
            timestamp=at,
        )
        for visitor, click_id in zip(visitors, ids or [None] * len(visitors), strict=True)
    ]


def facts_of(events, first=0) -> Facts:
    return Facts(
        list(events), [1] * len(events), list(range(first, first + len(events))), origin=lambda i: f"log/{i}"
    )


class Recorder:
    """A worker's writing of clicks, a batch in a transaction."""

    def __init__(self, db: asyncpg.Connection, policy: IpPolicy = IpPolicy.TRUNCATE) -> None:
        self.db = db
        self.handler = RecordClicks(b"key", policy)

    async def record(self, *batches) -> list[Outcome]:
        return [await self._record(list(batch)) for batch in batches]

    async def _record(self, events) -> Outcome:
        plan = await self.handler.plan(facts_of(events))
        async with self.db.transaction():
            return await self.handler.write(self.db, plan)


async def counted(db) -> dict[tuple[str, date], tuple[int, int, int]]:
    """(pixel, day) → clicks, visitors and bots' clicks, as stored; days that count nothing left out."""
    rows = await db.fetch("SELECT * FROM affiliate_daily WHERE currency = ''")
    found = {(r["pixel_id"], r["day"]): (r["clicks"], r["unique_clicks"], r["bot_clicks"]) for r in rows}
    return {key: counts for key, counts in found.items() if any(counts)}


async def recounted(db) -> dict[tuple[str, date], tuple[int, int, int]]:
    """The same from the rows, in Python."""
    clicks, visitors, bots = Counter(), {}, Counter()
    for row in await db.fetch("SELECT * FROM aff_clicks"):
        key = (row["pixel_id"], row["occurred_at"].astimezone(UTC).date())
        bots[key] += row["is_bot"]
        clicks[key] += not row["is_bot"]
        visitors.setdefault(key, set())
        if not row["is_bot"]:
            visitors[key].add(row["visitor"])
    return {key: (clicks[key], len(visitors[key]), bots[key]) for key in visitors}


async def exact(db) -> bool:
    """Whether every day is what its clicks come to, by our own counting and by that of `verify`."""
    assert await counted(db) == await recounted(db)
    assert await find_drift(db, [CLICK_COUNTS]) == []
    return True


async def partitions(db) -> list[str]:
    rows = await db.fetch(
        "SELECT inhrelid::regclass::text AS name FROM pg_inherits WHERE inhparent = 'aff_clicks'::regclass ORDER BY 1"
    )
    return [row["name"] for row in rows]


async def partition_of(db, click_id: str) -> str:
    return str(
        await db.fetchval("SELECT tableoid::regclass::text FROM aff_clicks WHERE click_id = $1", click_id)
    )


# The road's way in


async def test_clicks_visitors_and_bots_are_counted_apart(db):
    await Recorder(db).record(
        [
            *clicks_of([1, 1, 2, 3]),
            *clicks_of([1], pixel="px-2"),
            *clicks_of([1, 1], at=NOW - timedelta(days=1)),
            *clicks_of([1, 9], user_agent=GOOGLEBOT),
        ]
    )
    assert await counted(db) == {
        ("px-1", TODAY): (4, 3, 2),
        ("px-2", TODAY): (1, 1, 0),
        ("px-1", TODAY - timedelta(days=1)): (2, 1, 0),
    }
    assert await exact(db)


async def test_a_visitor_counts_once_a_day_over_any_number_of_batches(db):
    worker = Recorder(db)
    await worker.record(clicks_of([1, 2]), clicks_of([2, 3, 3]), clicks_of([1, 1, 1]))
    assert await counted(db) == {("px-1", TODAY): (8, 3, 0)}
    await worker.record(clicks_of([1], at=NOW - timedelta(days=1)))
    assert (await counted(db))["px-1", TODAY - timedelta(days=1)] == (1, 1, 0)
    assert await exact(db)


async def test_visitors_of_whom_nothing_is_known_are_one_a_day(db):
    await Recorder(db).record(clicks_of([None, None]), clicks_of([None, 1]))
    assert await counted(db) == {("px-1", TODAY): (4, 2, 0)}


async def test_a_late_click_lands_in_its_own_day(db):
    await Recorder(db).record(clicks_of([1], at=NOW), clicks_of([1], at=LONG_AGO))
    assert await counted(db) == {("px-1", TODAY): (1, 1, 0), ("px-1", LONG_AGO.date()): (1, 1, 0)}


async def test_a_day_ends_at_midnight_in_utc(db):
    midnight = datetime(TODAY.year, TODAY.month, TODAY.day, tzinfo=UTC)
    before = midnight - timedelta(microseconds=1)
    await Recorder(db).record([*clicks_of([1], at=before), *clicks_of([1], at=midnight)])
    assert await counted(db) == {("px-1", before.date()): (1, 1, 0), ("px-1", TODAY): (1, 1, 0)}


@pytest.mark.parametrize("seed", range(6))
async def test_the_days_do_not_depend_on_order_doubles_or_batches(db, seed):
    dice = random.Random(seed)
    clicks = [
        *clicks_of(dice.choices(range(6), k=30)),
        *clicks_of(dice.choices(range(6), k=10), pixel="px-2", at=NOW - timedelta(days=40)),
        *clicks_of([None, 3], at=LONG_AGO),
        *clicks_of([4, 4], user_agent=GOOGLEBOT),
    ]
    await Recorder(db).record(clicks)
    expected = await counted(db)
    await db.execute("TRUNCATE aff_clicks")
    sent = clicks + dice.choices(clicks, k=20)
    dice.shuffle(sent)
    worker = Recorder(db)
    for start in range(0, len(sent), 7):
        await worker.record(sent[start : start + 7])
    assert await counted(db) == expected
    assert await exact(db)


async def test_a_click_sent_again_is_a_duplicate_and_the_first_content_stands(db):
    worker = Recorder(db)
    clicks = clicks_of([1, 2], ids=["a", "b"])
    (first,) = await worker.record(clicks)
    again = [a_click_event("px-9", click_id="a", timestamp=NOW), *clicks_of([3], ids=["c"]), clicks[1]]
    second, third = await worker.record(again, clicks)
    assert (first.unchanged, first.changed()) == (set(), {0, 1})
    assert (second.unchanged, second.changed()) == ({0, 2}, {1})
    assert third.unchanged == {0, 1}
    assert await counted(db) == {("px-1", TODAY): (3, 3, 0)}


async def test_of_doubles_in_one_batch_the_first_stands_and_the_others_are_duplicates(db):
    clicks = [*clicks_of([1], ids=["a"]), *clicks_of([2], ids=["a"]), *clicks_of([3], ids=["b"])]
    (outcome,) = await Recorder(db).record(clicks)
    assert (outcome.unchanged, outcome.changed()) == ({1}, {0, 2})
    assert await counted(db) == {("px-1", TODAY): (2, 2, 0)}


async def test_one_id_at_two_times_is_two_clicks(db):
    await Recorder(db).record(
        [*clicks_of([1], ids=["a"]), *clicks_of([1], ids=["a"], at=NOW - timedelta(seconds=1))]
    )
    assert await counted(db) == {("px-1", TODAY): (2, 1, 0)}


async def test_copied_clicks_are_read_back_as_they_went_in(db):
    rows = sorted(
        [
            ("a", NOW, "px", None, None, None, None, None, 0, False, 1, 0),
            (
                "b",
                NOW,
                "€",
                "l",
                "192.0.2.0",
                CHROME,
                "https://é.example",
                "/",
                -(2**63),
                True,
                2**31 - 1,
                2**63 - 1,
            ),
            (
                "ü",
                LONG_AGO + timedelta(microseconds=1),
                "p" * 255,
                "",
                "",
                "",
                "",
                "",
                2**63 - 1,
                False,
                3,
                7,
            ),
        ]
    )
    assert await Ledger(CLICKS).write(db, rows) == set()
    found = await db.fetch(f'SELECT {", ".join(COLUMNS)} FROM aff_clicks ORDER BY click_id COLLATE "C"')
    assert [tuple(row) for row in found] == rows
    assert await db.fetchval("SELECT bool_and(day = (occurred_at AT TIME ZONE 'UTC')::date) FROM aff_clicks")


async def test_the_key_of_visitors_is_the_settings_or_else_the_databases_own(db):
    kept = await load_visitor_key(db, plain_settings())
    assert len(kept) == 32
    assert kept == await load_visitor_key(db, plain_settings())
    assert await load_visitor_key(db, plain_settings(visitor_hash_key="secret")) == b"secret"


# What it costs: a probe of the index for each visitor, in the partitions of the batch's days and nowhere else


async def reads_of(db, clicks) -> dict[str, tuple[int, int]]:
    """Partition → probes of its indexes, and rows fetched by them, while these clicks are written."""
    rows = (await RecordClicks(b"key", IpPolicy.FULL).plan(facts_of(clicks))).rows
    async with db.transaction():
        before = await _reads(db)
        assert await Ledger(CLICKS).write(db, rows) == set()
        after = await _reads(db)
    spent = {name: tuple(b - a for a, b in zip(before[name], after[name], strict=True)) for name in after}
    assert not any(scans for scans, _, _ in spent.values())
    return {name: (probes, fetched) for name, (_, probes, fetched) in spent.items() if probes}


async def _reads(db) -> dict[str, tuple[int, int, int]]:
    rows = await db.fetch(
        "SELECT relname, seq_scan, idx_scan, idx_tup_fetch FROM pg_stat_xact_user_tables "
        "WHERE relname LIKE 'aff_clicks%'"
    )
    return {row["relname"]: tuple(row)[1:] for row in rows if row["idx_scan"] is not None}


@pytest.mark.parametrize("analyzed", [False, True])
async def test_only_the_partitions_of_the_batchs_days_are_probed(db, analyzed):
    await db.execute("SELECT make_click_partitions(24)")
    worker = Recorder(db)
    await worker.record(
        clicks_of(range(200)), clicks_of(range(200), at=LAST_MONTH), clicks_of([1], at=LONG_AGO)
    )
    if analyzed:
        await db.execute("ANALYZE aff_clicks")
    assert await reads_of(db, clicks_of(range(50))) == {named(THIS_MONTH): (50, 100)}
    assert await reads_of(db, [*clicks_of([1, 900]), *clicks_of([2], at=LAST_MONTH)]) == {
        named(THIS_MONTH): (2, 3),
        named(LAST_MONTH): (1, 2),
    }
    assert await reads_of(db, clicks_of([1], at=LONG_AGO)) == {"aff_clicks_default": (1, 2)}


@pytest.mark.parametrize("analyzed", [False, True])
async def test_one_visitor_of_very_many_clicks_and_pixels_costs_no_more(db, analyzed):
    crowd = [
        *clicks_of([None] * 1_000, pixel="px-busy"),
        *(click for n in range(300) for click in clicks_of([None], pixel=f"px-{n}")),
    ]
    await Recorder(db).record(crowd)
    if analyzed:
        await db.execute("ANALYZE aff_clicks")
    assert await reads_of(db, clicks_of([None], pixel="px-new")) == {named(THIS_MONTH): (1, 1)}
    assert await reads_of(db, clicks_of([None], pixel="px-busy")) == {named(THIS_MONTH): (1, 2)}
    assert await exact(db)


# By hand: whatever statement, on the ledger or on a partition of it

VALUES = {"pixel": ["px-1", "px-2"], "visitor": [0, 1, 2], "bot": ["true", "false", "false"]}
TIMES = [NOW, NOW, LAST_MONTH + timedelta(hours=3), LONG_AGO, LONG_AGO + timedelta(days=1)]


class Operator:
    """Somebody who writes SQL; every choice is drawn from the seed."""

    def __init__(self, db, seed: int) -> None:
        self.db = db
        self.dice = random.Random(seed)
        self.numbers = count()

    async def do_something(self) -> str:
        """Some statement, done; its text."""
        table = await self.table()
        statement = self.dice.choice(
            [
                *[self.insert] * 3,
                *[self.update] * 2,
                self.upsert,
                self.merge,
                self.move,
                self.delete,
                self.insert_and_delete,
                self.insert_twice,
                self.insert_into_both,
                self.truncate,
            ]
        )(table)
        try:
            async with self.db.transaction():
                await self.db.execute(statement)
        except (
            asyncpg.UniqueViolationError,
            asyncpg.CheckViolationError,
            asyncpg.CardinalityViolationError,
            asyncpg.FeatureNotSupportedError,  # a MERGE that PostgreSQL tells wrongly of
        ):
            assert await exact(
                self.db
            )  # no such row in this partition, or twice the same: refused as a whole
        return statement

    async def table(self) -> str:
        """The ledger, or the partition of one of the times."""
        return self.dice.choice(["aff_clicks", "aff_clicks", "aff_clicks_default", named(THIS_MONTH)])

    def row(self, click_id: str | None = None) -> str:
        pick = {name: self.dice.choice(values) for name, values in VALUES.items()}
        click_id = click_id or f"{next(self.numbers)}"
        return f"('{click_id}', '{pick['pixel']}', {pick['visitor']}, {pick['bot']}, '{self.dice.choice(TIMES)}')"

    def rows(self, known: bool = False) -> str:
        ids = self.dice.sample(range(30), k=self.dice.randint(1, 4))
        return ", ".join(self.row(str(n) if known else None) for n in ids)

    def where(self) -> str:
        return self.dice.choice(
            [
                "visitor = 1",
                "pixel_id = 'px-1'",
                "is_bot",
                "right(click_id, 1) IN ('1', '2', '3')",
                "true",
                "false",
            ]
        )

    def insert(self, table: str) -> str:
        return f"INSERT INTO {table} (click_id, pixel_id, visitor, is_bot, occurred_at) VALUES {self.rows()}"

    def upsert(self, table: str) -> str:
        columns = "click_id, pixel_id, visitor, is_bot, occurred_at"
        return (
            f"INSERT INTO {table} ({columns}) VALUES {self.rows(known=True)} ON CONFLICT (click_id, occurred_at) "
            "DO UPDATE SET visitor = excluded.visitor, pixel_id = excluded.pixel_id, is_bot = excluded.is_bot"
        )

    def update(self, table: str) -> str:
        change = self.dice.choice(
            [
                "visitor = visitor + 1",
                "visitor = 1",
                "pixel_id = 'px-2'",
                "is_bot = NOT is_bot",
                "referrer = 'x'",
            ]
        )
        return f"UPDATE {table} SET {change} WHERE {self.where()}"

    def move(self, _table: str) -> str:
        return f"UPDATE aff_clicks SET occurred_at = '{self.dice.choice(TIMES)}' WHERE {self.where()}"

    def delete(self, table: str) -> str:
        return f"DELETE FROM {table} WHERE {self.where()}"

    def merge(self, table: str) -> str:
        return (
            f"MERGE INTO {table} AS c USING (VALUES {self.rows(known=True)}) "
            "AS s(click_id, pixel_id, visitor, is_bot, occurred_at) "
            "ON c.click_id = s.click_id AND c.occurred_at = s.occurred_at::timestamptz "
            "WHEN MATCHED AND s.visitor = 0 THEN DELETE "
            "WHEN MATCHED THEN UPDATE SET visitor = s.visitor, pixel_id = s.pixel_id "
            "WHEN NOT MATCHED THEN INSERT (click_id, pixel_id, visitor, is_bot, occurred_at) "
            "VALUES (s.click_id, s.pixel_id, s.visitor, s.is_bot, s.occurred_at::timestamptz)"
        )

    def insert_and_delete(self, table: str) -> str:
        return f"WITH gone AS ({self.delete(table)} RETURNING 1) {self.insert('aff_clicks')}"

    def insert_twice(self, table: str) -> str:
        return f"WITH first AS ({self.insert('aff_clicks')} RETURNING 1) {self.insert('aff_clicks')}"

    def insert_into_both(self, table: str) -> str:
        return f"WITH first AS ({self.insert('aff_clicks')} RETURNING 1) {self.insert(table)}"

    def truncate(self, table: str) -> str:
        return f"TRUNCATE {table}"


@pytest.mark.parametrize("seed", range(30))
async def test_after_any_statement_by_hand_the_days_are_what_the_ledger_says(db, seed):
    operator = Operator(db, seed)
    for _ in range(15):
        statement = await operator.do_something()
        assert await counted(db) == await recounted(db), statement
    assert await exact(db)


async def test_a_row_with_nothing_but_an_id_and_a_pixel_counts(db):
    for click_id in ("a", "b"):
        await db.execute("INSERT INTO aff_clicks (click_id, pixel_id) VALUES ($1, 'px-1')", click_id)
    assert await counted(db) == {("px-1", TODAY): (2, 1, 0)}


@pytest.mark.parametrize("table", ["aff_clicks", named(THIS_MONTH), named(LAST_MONTH), "aff_clicks_default"])
async def test_truncating_the_ledger_or_a_partition_leaves_what_is_left(db, table):
    await Recorder(db).record([*clicks_of([1]), *clicks_of([1], at=LAST_MONTH), *clicks_of([1], at=LONG_AGO)])
    await db.execute(f"TRUNCATE {table}")
    assert len(await counted(db)) == (0 if table == "aff_clicks" else 2)
    assert await exact(db)


async def test_a_copy_into_a_partition_counts(db):
    rows = (await RecordClicks(b"key", IpPolicy.FULL).plan(facts_of(clicks_of([1, 1, 2])))).rows
    await db.copy_records_to_table(named(THIS_MONTH), records=rows, columns=COLUMNS)
    assert await counted(db) == {("px-1", TODAY): (3, 2, 0)}


async def test_erasing_what_a_click_says_changes_no_day(db):
    await Recorder(db).record(clicks_of([1, 2]))
    before = await db.fetch("SELECT * FROM affiliate_daily")
    await db.execute("UPDATE aff_clicks SET ip_address = NULL, user_agent = NULL, referrer = 'gone'")
    assert await db.fetch("SELECT * FROM affiliate_daily") == before


@pytest.mark.parametrize("at", ["infinity", "-infinity"])
async def test_a_click_at_no_time_is_refused(db, at):
    with pytest.raises(asyncpg.CheckViolationError):
        await db.execute(
            f"INSERT INTO aff_clicks (click_id, pixel_id, occurred_at) VALUES ('a', 'px', '{at}')"
        )


# Drift


@pytest.mark.parametrize(
    ("tampering", "found"),
    [
        ("UPDATE affiliate_daily SET unique_clicks = 9 WHERE currency = ''", [("unique_clicks", "9", "2")]),
        (
            "DELETE FROM affiliate_daily WHERE currency = ''",
            [("bot_clicks", None, "1"), ("clicks", None, "3"), ("unique_clicks", None, "2")],
        ),
        (
            "ALTER TABLE aff_clicks DISABLE TRIGGER USER; DELETE FROM aff_clicks WHERE is_bot",
            [("bot_clicks", "1", "0")],
        ),
    ],
)
async def test_a_day_that_is_not_its_ledgers_is_found_and_mended(db, tampering, found):
    pixel = "a|pixel 2026-01-01|"
    await Recorder(db).record(
        [*clicks_of([1, 1, 2], pixel=pixel), *clicks_of([1], pixel=pixel, user_agent=GOOGLEBOT)]
    )
    await db.execute(
        "INSERT INTO affiliate_daily (pixel_id, day, currency) VALUES ('px-2', '2026-01-01', 'EUR')"
    )
    await db.execute(tampering)
    drifts = await find_drift(db, [CLICK_COUNTS])
    assert drifts == [Drift("affiliate_daily (clicks)", f"{TODAY}|{pixel}", *drift) for drift in found]
    assert await repair(db, [CLICK_COUNTS], drifts) == 1
    assert await exact(db)
    assert await count_rows(db, [CLICK_COUNTS]) == {"affiliate_daily (clicks)": 1}


# Two at once


@pytest.mark.parametrize("known", [False, True], ids=["a new day", "a day that is counted already"])
@pytest.mark.parametrize("end", ["commit", "rollback"])
async def test_a_visitor_whom_two_workers_bring_at_once_counts_once(db, database_url, known, end):
    if known:
        await Recorder(db).record(clicks_of([7]))
    async with connections(database_url, 2) as (one, other):
        opened = one.transaction()
        await opened.start()
        await Recorder(one).record(clicks_of([1, 2]))
        meeting = asyncio.create_task(Recorder(other).record(clicks_of([1, 3])))
        await waits_for_a_lock(db, other)
        await (opened.commit() if end == "commit" else opened.rollback())
        await meeting
    counts = (4, 3, 0) if end == "commit" else (2, 2, 0)
    assert await counted(db) == {("px-1", TODAY): (counts[0] + known, counts[1] + known, 0)}
    assert await exact(db)


@pytest.mark.parametrize("deleted_first", [True, False])
async def test_a_visitor_who_comes_while_his_only_click_is_deleted_counts(db, database_url, deleted_first):
    await Recorder(db).record(clicks_of([1], ids=["a"]))
    async with connections(database_url, 2) as (by_hand, worker):
        steps = [
            (by_hand, lambda: by_hand.execute("DELETE FROM aff_clicks WHERE click_id = 'a'")),
            (worker, lambda: Recorder(worker).record(clicks_of([1], ids=["b"]))),
        ]
        (one, first), (other, second) = steps if deleted_first else reversed(steps)
        opened = one.transaction()
        await opened.start()
        await first()
        meeting = asyncio.create_task(second())
        await waits_for_a_lock(db, other)
        await opened.commit()
        await meeting
    assert await counted(db) == {("px-1", TODAY): (1, 1, 0)}
    assert await exact(db)


async def test_many_batches_at_once_never_deadlock_and_count_right(db, database_url):
    """Every batch touches most of the pixels, in an order of its own."""
    async with connections(database_url, 6) as opened:

        async def work(number: int, connection) -> None:
            dice, worker = random.Random(number), Recorder(connection)
            for _ in range(25):
                pixels = dice.sample(range(40), k=30)
                days = dice.choices([NOW, NOW - timedelta(days=1), LONG_AGO], k=30)
                batch = [
                    click
                    for pixel, at in zip(pixels, days, strict=True)
                    for click in clicks_of(dice.choices(range(5), k=3), pixel=f"px-{pixel:02}", at=at)
                ]
                dice.shuffle(batch)
                await worker.record(batch)

        await asyncio.gather(*(work(number, connection) for number, connection in enumerate(opened)))
    assert await db.fetchval("SELECT count(*) FROM aff_clicks") == 6 * 25 * 90
    assert await exact(db)


async def test_batches_and_statements_by_hand_never_deadlock_and_count_right(db, database_url):
    done = asyncio.Event()
    async with connections(database_url, 4) as (*opened, by_hand):

        async def work(number: int, connection) -> None:
            dice, worker = random.Random(number), Recorder(connection)
            for _ in range(25):
                await worker.record(
                    [
                        c
                        for n in dice.sample(range(20), k=15)
                        for c in clicks_of([dice.randrange(5)], pixel=f"px-{n:02}")
                    ]
                )

        async def tidy() -> None:
            dice = random.Random(9)
            while not done.is_set():
                await by_hand.execute("DELETE FROM aff_clicks WHERE visitor % 7 = $1", dice.randrange(7))
                await by_hand.execute(
                    "UPDATE aff_clicks SET is_bot = NOT is_bot WHERE visitor % 7 = $1", dice.randrange(7)
                )

        tidying = asyncio.create_task(tidy())
        await asyncio.gather(*(work(number, connection) for number, connection in enumerate(opened)))
        done.set()
        await tidying
    assert await exact(db)


# Partitions


async def test_partitions_of_the_months_ahead_are_made_once(db):
    there = {named(months_later(n)) for n in range(-1, MONTHS_AHEAD + 1)} | {"aff_clicks_default"}
    assert set(await partitions(db)) == there
    made = [row[0] for row in await db.fetch("SELECT make_click_partitions(6)")]
    assert made == [named(months_later(n)) for n in (4, 5, 6)]
    assert await db.fetch("SELECT make_click_partitions(6)") == []
    assert set(await partitions(db)) == there | set(made)


async def test_every_partition_has_the_ledgers_triggers_constraints_and_indexes(db):
    await db.execute("SELECT make_click_partitions(5)")
    for name in await partitions(db):
        triggers = await db.fetch(
            "SELECT tgname FROM pg_trigger WHERE tgrelid = $1::regclass AND NOT tgisinternal ORDER BY 1", name
        )
        assert [row[0] for row in triggers] == [
            "keep_visitor_forgotten", "recount_changed", "recount_deleted", "recount_inserted", "recount_truncated",
        ]  # fmt: skip
        indexes = "SELECT count(*) FROM pg_index WHERE indrelid = $1::regclass"
        assert await db.fetchval(indexes, name) == await db.fetchval(indexes, "aff_clicks") == 2
        checks = (
            "SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = $1::regclass "
            "AND contype = 'c' ORDER BY 1"
        )
        assert await db.fetch(checks, name) == await db.fetch(checks, "aff_clicks")


async def test_a_month_begins_and_ends_in_utc(db, database_url):
    async with connections(database_url, 1, timezone="Pacific/Auckland") as (elsewhere,):
        await elsewhere.execute("SELECT make_click_partitions(5)")
        start, end = months_later(5), months_later(6)
        for click_id, at in {"first": start, "last": end - timedelta(microseconds=1), "next": end}.items():
            await elsewhere.execute(
                "INSERT INTO aff_clicks (click_id, pixel_id, occurred_at) VALUES ($1, 'px', $2)", click_id, at
            )
        await elsewhere.execute("INSERT INTO aff_clicks (click_id, pixel_id) VALUES ('now', 'px')")
    found = [await partition_of(db, click_id) for click_id in ("first", "last", "next", "now")]
    assert found == [named(start), named(start), "aff_clicks_default", named(THIS_MONTH)]
    assert await exact(db)


async def test_what_the_default_partition_holds_of_a_month_is_moved_and_nothing_is_counted_anew(db):
    far = months_later(5)
    await Recorder(db).record(
        [
            *clicks_of([1, 1, 2], at=far, ids=["a", "b", "c"]),
            *clicks_of([1], at=months_later(6), ids=["d"]),
            *clicks_of([1], at=LONG_AGO, ids=["e"]),
            *clicks_of([1], at=far + timedelta(days=1), user_agent=GOOGLEBOT, ids=["f"]),
        ]
    )
    rows = await db.fetch("SELECT * FROM aff_clicks ORDER BY click_id")
    days = await db.fetch("SELECT * FROM affiliate_daily ORDER BY pixel_id, day")
    assert {await partition_of(db, row["click_id"]) for row in rows} == {"aff_clicks_default"}
    await db.execute("SELECT make_click_partitions(5)")
    assert [await partition_of(db, row["click_id"]) for row in rows] == [
        *[named(far)] * 3,
        *["aff_clicks_default"] * 2,
        named(far),
    ]
    assert await db.fetch("SELECT * FROM aff_clicks ORDER BY click_id") == rows
    assert await db.fetch("SELECT * FROM affiliate_daily ORDER BY pixel_id, day") == days
    await Recorder(db).record(clicks_of([2, 3], at=far))
    await db.execute("DELETE FROM aff_clicks_default")
    assert await exact(db)


async def test_two_who_make_partitions_at_once_make_each_once(db, database_url):
    await Recorder(db).record(clicks_of([1], at=months_later(5)))
    async with connections(database_url, 4) as several:
        answers = await asyncio.gather(*(c.fetch("SELECT make_click_partitions(8)") for c in several))
    assert sorted(len(rows) for rows in answers) == [0, 0, 0, 5]
    assert await exact(db)


@pytest.mark.parametrize("writer_first", [True, False])
async def test_a_click_that_meets_the_making_of_its_partition_is_not_refused(db, database_url, writer_first):
    """A writer that had found the default partition, and then not fitted into it, would park a good record."""
    far = months_later(5)
    async with connections(database_url, 2) as (one, other):
        opened = one.transaction()
        await opened.start()
        if writer_first:
            await Recorder(one).record(clicks_of([1], at=far, ids=["a"]))
            meeting = asyncio.create_task(other.fetch("SELECT make_click_partitions(5)"))
        else:
            await one.execute("SELECT make_click_partitions(5)")
            meeting = asyncio.create_task(Recorder(other).record(clicks_of([1], at=far, ids=["a"])))
        await waits_for_a_lock(db, other)
        await opened.commit()
        await meeting
    assert await partition_of(db, "a") == named(far)
    assert await exact(db)


async def test_making_partitions_does_not_wait_long_for_a_long_reader(db, database_url):
    """Who waits for the whole ledger has every writer waiting behind."""
    async with connections(database_url, 1) as (reader,):
        opened = reader.transaction()
        await opened.start()
        await reader.execute("SELECT count(*) FROM aff_clicks")
        with pytest.raises(asyncpg.LockNotAvailableError):
            await db.execute("SET statement_timeout = '10s'; SELECT make_click_partitions(5)")
        await opened.rollback()


# Retention


async def close_before(db, before: datetime) -> list[str]:
    return [row[0] for row in await db.fetch("SELECT close_click_partitions($1)", before.date())]


@pytest.fixture
async def some_months(db):
    """Clicks of this month, of the last, of the one before it (which has no partition) and of long ago; their days."""
    await Recorder(db).record(
        [
            *clicks_of([1, 1, 2]),
            *clicks_of([1, 2, 2], at=LAST_MONTH),
            *clicks_of([3], at=LAST_MONTH, user_agent=GOOGLEBOT),
            *clicks_of([1, 1], at=LAST_MONTH - timedelta(days=3)),
            *clicks_of([1], at=LONG_AGO),
        ]
    )
    return await counted(db)


async def test_closing_drops_the_months_before_and_keeps_their_counts(db, some_months):
    assert await close_before(db, THIS_MONTH + timedelta(hours=1)) == [named(LAST_MONTH)]
    assert await db.fetchval("SELECT min(occurred_at) >= $1 FROM aff_clicks", THIS_MONTH)
    assert named(LAST_MONTH) not in await partitions(db)
    assert await counted(db) == some_months
    assert await find_drift(db, [CLICK_COUNTS]) == []


async def test_a_month_is_closed_whole_or_not_at_all(db, some_months):
    await close_before(db, LAST_MONTH + timedelta(days=20))
    assert await db.fetchval("SELECT min(occurred_at) FROM aff_clicks") == LAST_MONTH
    assert await db.fetchval("SELECT closed_before FROM ledger_bounds") == LAST_MONTH
    assert await counted(db) == some_months


async def test_closing_goes_on_where_it_ended(db, some_months):
    await close_before(db, LAST_MONTH)
    assert await close_before(db, LAST_MONTH) == []
    await close_before(db, THIS_MONTH)
    assert await close_before(db, LAST_MONTH) == []
    assert await db.fetchval("SELECT closed_before FROM ledger_bounds") == THIS_MONTH
    assert await counted(db) == some_months
    assert await find_drift(db, [CLICK_COUNTS]) == []


async def test_clicks_older_than_the_closing_are_refused_and_named(db, some_months):
    await close_before(db, THIS_MONTH)
    late = clicks_of([9, 9], at=THIS_MONTH - timedelta(microseconds=1))
    with pytest.raises(PoisonRecord) as caught:
        await Recorder(db).record([*clicks_of([9]), *late])
    assert (caught.value.kind, caught.value.sources) == ("before_retention", {(1, 1), (1, 2)})
    assert str(THIS_MONTH.date()) in str(caught.value)
    await Recorder(db).record(clicks_of([9], at=THIS_MONTH))
    assert await find_drift(db, [CLICK_COUNTS]) == []


@pytest.mark.parametrize(
    "by_hand",
    [
        "INSERT INTO aff_clicks (click_id, pixel_id, occurred_at) VALUES ('x', 'px', '2020-05-17')",
        "INSERT INTO aff_clicks_default (click_id, pixel_id, occurred_at) VALUES ('x', 'px', '2020-05-17')",
        "UPDATE aff_clicks SET occurred_at = '2020-05-17'",
    ],
)
async def test_nothing_is_put_before_the_closing_by_hand(db, some_months, by_hand):
    await close_before(db, THIS_MONTH)
    with pytest.raises(asyncpg.CheckViolationError) as caught:
        await db.execute(by_hand)
    assert caught.value.constraint_name == "before_retention"
    assert classify(caught.value).kind == "before_retention"


@pytest.mark.parametrize(
    "statement", ["TRUNCATE aff_clicks", "DELETE FROM aff_clicks", "TRUNCATE aff_clicks_default"]
)
async def test_what_was_closed_stays_counted_whatever_is_done_to_the_ledger(db, some_months, statement):
    await close_before(db, THIS_MONTH)
    await db.execute(statement)
    closed = {key: counts for key, counts in some_months.items() if key[1] < THIS_MONTH.date()}
    assert (await counted(db)).items() >= closed.items()
    assert await find_drift(db, [CLICK_COUNTS]) == []


async def test_a_closed_day_is_mended_from_its_closing(db, some_months):
    await close_before(db, THIS_MONTH)
    await db.execute("UPDATE affiliate_daily SET clicks = 77, unique_clicks = 0")
    assert await repair(db, [CLICK_COUNTS], await find_drift(db, [CLICK_COUNTS])) == len(some_months)
    assert await counted(db) == some_months


async def test_a_count_that_has_drifted_is_not_closed(db, some_months):
    await db.execute("UPDATE affiliate_daily SET clicks = 77 WHERE day = $1", LONG_AGO.date())
    with pytest.raises(asyncpg.DataError, match="affiliate_daily is not what aff_clicks says") as caught:
        await close_before(db, THIS_MONTH)
    assert "verify --repair" in caught.value.hint
    assert await db.fetchval("SELECT count(*) FROM ledger_closings") == 0


async def test_what_has_not_passed_is_not_closed(db):
    with pytest.raises(asyncpg.DataError, match="only what has passed"):
        await close_before(db, NOW + timedelta(days=2))


async def test_partitions_that_were_closed_are_not_made_again(db):
    await close_before(db, THIS_MONTH)
    assert await db.fetch("SELECT make_click_partition($1)", LAST_MONTH.date()) == [(None,)]
    assert named(LAST_MONTH) not in await partitions(db)


@pytest.mark.parametrize("writer_first", [True, False])
async def test_a_click_that_meets_its_closing_is_counted_or_refused(
    db, database_url, some_months, writer_first
):
    late = clicks_of([5], at=LAST_MONTH)
    async with connections(database_url, 2) as (one, other):
        opened = one.transaction()
        await opened.start()
        if writer_first:
            await Recorder(one).record(late)
            meeting = asyncio.create_task(close_before(other, THIS_MONTH))
        else:
            await close_before(one, THIS_MONTH)
            meeting = asyncio.create_task(Recorder(other).record(late))
        await waits_for_a_lock(db, other)
        await opened.commit()
        if writer_first:
            await meeting
        else:
            with pytest.raises(asyncpg.CheckViolationError):
                await meeting
    before = some_months["px-1", LAST_MONTH.date()]
    assert (await counted(db))["px-1", LAST_MONTH.date()] == (
        before[0] + writer_first,
        before[1] + writer_first,
        1,
    )
    assert await find_drift(db, [CLICK_COUNTS]) == []


async def test_the_schedule_makes_partitions_and_closes_nothing_unless_told(db, some_months):
    await db.execute(f"DROP TABLE {named(months_later(3))}")
    await keep_partitions(db, CLICK_PARTITIONS, None)
    assert named(months_later(3)) in await partitions(db)
    assert named(LAST_MONTH) in await partitions(db)
    await keep_partitions(db, CLICK_PARTITIONS, 1)
    assert named(LAST_MONTH) not in await partitions(db) or NOW.day == 1
    assert await counted(db) == some_months
    assert await db.fetchval("SHOW statement_timeout") == "0"


async def test_only_who_was_granted_it_may_make_or_close_partitions(db):
    for function in ("make_click_partitions(integer)", "close_click_partitions(date)"):
        assert not await db.fetchval("SELECT has_function_privilege('public', $1, 'EXECUTE')", function)


# The last 30 days


async def metrics(db, today: date | None = None) -> dict[str, tuple]:
    async with db.transaction():
        if today:
            await db.execute("SELECT set_config('counterfoil.today', $1, true)", today.isoformat())
        rows = await db.fetch("SELECT * FROM affiliate_metrics_30d WHERE currency = ''")
    return {
        row["pixel_id"]: (row["clicks_30d"], row["unique_clicks_30d"], row["bot_clicks_30d"]) for row in rows
    }


async def test_the_figures_of_30_days_shrink_as_days_pass_without_any_event(db):
    for days_ago, visitors in {0: [1, 1], 1: [1, 2], 29: [1], 30: [4, 5, 6]}.items():
        await Recorder(db).record(clicks_of(visitors, at=NOW - timedelta(days=days_ago)))
    await Recorder(db).record(clicks_of([1], user_agent=GOOGLEBOT))
    assert await metrics(db) == {"px-1": (5, 4, 1)}
    figures = {days: (await metrics(db, TODAY + timedelta(days=days))).get("px-1") for days in range(-30, 31)}
    assert figures[-1] == (6, 6, 0)  # as of yesterday
    assert figures[0] == (5, 4, 1)
    assert figures[1] == figures[28] == (4, 3, 1)
    assert figures[29] == (2, 1, 1)
    assert figures[30] is None
    assert figures[-30] == (3, 3, 0)


async def test_a_late_click_changes_the_figures_of_the_days_that_hold_it(db):
    await Recorder(db).record(clicks_of([1], at=NOW - timedelta(days=35)))
    assert await metrics(db) == {}
    assert await metrics(db, TODAY - timedelta(days=6)) == {"px-1": (1, 1, 0)}


async def test_the_figures_of_30_days_are_by_currency(db):
    await db.execute(
        "INSERT INTO affiliate_daily (pixel_id, day, currency, conversions, revenue, commission) VALUES "
        "('px-1', $1, 'EUR', 2, 30.5, 3), ('px-1', $2, 'EUR', 1, 10, 1), ('px-1', $1, 'USD', 1, 5, 0.5)",
        TODAY,
        TODAY - timedelta(days=29),
    )
    rows = await db.fetch(
        "SELECT currency, conversions_30d, revenue_30d, commission_30d FROM affiliate_metrics_30d ORDER BY 1"
    )
    assert [tuple(row) for row in rows] == [("EUR", 3, 40.5, 4), ("USD", 1, 5, 0.5)]


async def test_a_merge_that_postgresql_misreports_is_refused(db) -> None:
    await db.execute("INSERT INTO aff_clicks (click_id, pixel_id, occurred_at) VALUES ('old', 'p1', $1)", NOW)
    merge = """
        MERGE INTO aff_clicks AS c USING (VALUES ('new', 'p2'), ('old', 'p3')) AS s(click_id, pixel_id)
        ON c.click_id = s.click_id
        WHEN MATCHED THEN UPDATE SET pixel_id = s.pixel_id
        WHEN NOT MATCHED THEN INSERT (click_id, pixel_id) VALUES (s.click_id, s.pixel_id)
    """
    try:
        await db.execute(merge)
    except asyncpg.FeatureNotSupportedError as error:
        assert "MERGE" in str(error)  # noqa: PT017 - a version that tells what it did counts it
    assert await find_drift(db, [CLICK_COUNTS]) == []
