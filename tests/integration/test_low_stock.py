"""What is told of low stock: once a cooldown for each level, or by episodes, however many workers and scans look."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import count

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from counterfoil.database.counters import find_drift
from counterfoil.database.facts import Facts
from counterfoil.events import StockChange
from counterfoil.inventory import low_stock
from counterfoil.inventory.handlers import AlertRule, RecordStockChanges
from counterfoil.inventory.store import STOCK_COUNTS
from counterfoil.settings import AlertPolicy
from support.inventory_model import (
    DEFAULT_THRESHOLD,
    INVENTORY,
    LOG,
    Change,
    Key,
    Teller,
    a_stock_event,
    exact,
    product_of,
    stored_products,
)
from support.postgres_ledgers import connections, empty, waits_for_a_lock
from support.postgres_road import plain_settings
from support.waiting import eventually

NOW = datetime.now(UTC).replace(microsecond=0)
LONG_AGO = NOW - timedelta(days=2)

COOLDOWN_S = 250
SETTINGS = {
    policy: plain_settings(
        alert_policy=policy, alert_cooldown_s=COOLDOWN_S, stock_scan_interval_s=86_400, alert_max_age_s=3_600
    )
    for policy in AlertPolicy
}
LEVEL, EPISODE = SETTINGS[AlertPolicy.LEVEL], SETTINGS[AlertPolicy.EPISODE]
_numbers = count(1)


def rule(policy: str = "level", *, cooldown: float = COOLDOWN_S, max_age: float = 3_600) -> AlertRule:
    return AlertRule(AlertPolicy(policy), timedelta(seconds=cooldown), timedelta(seconds=max_age))


@cache
def recently() -> datetime:
    """A time that is young enough to be told of for as long as this module runs."""
    return datetime.now(UTC) - timedelta(minutes=10)


def a_change(sku: str = "s1", *, at: datetime | None = None, **fields: object) -> StockChange:
    """A change of now with an id of its own; each is later than those before."""
    number = next(_numbers)
    time = at or recently() + timedelta(milliseconds=number)
    return a_stock_event(
        sku, **({"event_id": f"e{number:06}", "timestamp": time, "event_type": "sale"} | fields)
    )


async def record(db: asyncpg.Connection, *events: StockChange, under: AlertRule | None = None) -> None:
    """Write a batch as a worker does who has just been started, in the caller's transaction or in one of its own."""
    handler = RecordStockChanges(under or rule())
    sources = [next(_numbers) for _ in events]
    plan = await handler.plan(Facts([*events], [1] * len(events), sources, origin=lambda i: f"log/{i}"))
    async with db.transaction():
        await handler.write(db, plan)


async def time_passes(db: asyncpg.Connection, seconds: float) -> None:
    """As if what was told had been told that much earlier."""
    await db.execute("UPDATE alert_cooldowns SET raised_at = raised_at - make_interval(secs => $1)", seconds)


async def told(db: asyncpg.Connection) -> list[tuple[str, str, int]]:
    """(SKU, kind, stock) of what was told, in its order; each is in the outbox, in the history and in the log."""
    alerts = {row["alert_id"]: row for row in await db.fetch("SELECT * FROM alerts")}
    logged = {row["event_id"]: row for row in await db.fetch(f"SELECT * FROM inventory_events WHERE {LOG}")}
    outbox = await db.fetch("SELECT * FROM outbox ORDER BY id")
    found = [(row, json.loads(row["value"])) for row in outbox]
    assert {value["alert_id"] for _, value in found} == alerts.keys() == logged.keys()
    assert len(found) == len(alerts)
    for row, value in found:
        alert, log = alerts[value["alert_id"]], logged[value["alert_id"]]
        assert (row["topic"], row["key"], json.loads(alert["payload"])) == ("low-stock", value["sku"], value)
        assert (log["sku"], log["new_stock"], log["old_stock"], log["occurred_at"]) == (
            value["sku"], value["stock"], value["previous_stock"], alert["raised_at"],
        )  # fmt: skip
        assert json.loads(log["metadata"]).items() >= {"alertSent": False, "notifiers": []}.items()
        assert (value["kind"] == "low") == (value["stock"] < value["threshold"])
    return [(value["sku"], value["kind"], value["stock"]) for _, value in found]


@pytest.fixture
async def pool(database_url: str) -> AsyncIterator[asyncpg.Pool]:
    async with asyncpg.create_pool(database_url, min_size=0, max_size=20) as pool:
        yield pool


# Any sequence of batches, times and scans

SKUS = ["hot", "S2", "ü3"]
skus = st.sampled_from(["hot", "hot", "S2", "ü3"])
events = st.fixed_dictionaries(
    {"sku": skus},
    optional={
        "new_stock": st.sampled_from([0, 1, 3, 6, 9, 10, 30]),
        "threshold": st.sampled_from([0, 4, 10]),
        "old": st.just(True),
        "event_type": st.sampled_from(["sale", "sale", "low_stock"]),
    },
).map(lambda told: told if "new_stock" in told else told | {"quantity_delta": -3})
steps = st.one_of(
    st.lists(events, min_size=1, max_size=4),
    st.lists(events, min_size=1, max_size=4),
    st.sampled_from(["100 s pass", "100 s pass", "scan", "all of it again"]),
)


@dataclass
class Expected:
    """What should be told, by the model alone."""

    teller: Teller
    rows: dict[Key, Change] = field(default_factory=dict)
    now: float = 0
    told: list[tuple[str, str, int]] = field(default_factory=list)

    def look(self, skus: set[str]) -> None:
        for sku in sorted(skus):
            product = product_of(sku, self.rows)
            kind = self.teller.look(sku, product.stock, product.threshold, self.now)
            if kind:
                self.told.append((sku, kind, product.stock))

    def hear(self, batch: list[StockChange], max_age: timedelta) -> None:
        for event in batch:
            self.rows[event.timestamp, event.event_id] = Change(
                event.sku,
                event.event_type,
                new_stock=event.new_stock,
                quantity_delta=event.quantity_delta,
                threshold=event.threshold,
            )
        self.look({event.sku for event in batch if event.timestamp > NOW - max_age})


@pytest.mark.parametrize("policy", AlertPolicy)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(program=st.lists(steps, min_size=2, max_size=14))
async def test_everything_that_is_due_is_told_and_nothing_else(db, pool, policy, program):
    """In any order of batches, late changes, doubles and scans, by workers that were started just now."""
    await empty(db, INVENTORY)
    expected, under = Expected(Teller(policy, COOLDOWN_S)), rule(policy)
    sent: list[StockChange] = []
    for step in program:
        if step == "100 s pass":
            await time_passes(db, 100)
            expected.now += 100
        elif step == "scan":
            await low_stock.scan(pool, SETTINGS[policy])
            expected.look({change.sku for change in expected.rows.values()})
        elif step == "all of it again":
            await record(db, *sent, under=under)
        else:
            batch = [
                a_change(**{name: value for name, value in event.items() if name != "old"},
                         **({"at": LONG_AGO} if "old" in event else {}))
                for event in step
            ]  # fmt: skip
            sent += batch
            await record(db, *batch, under=under)
            expected.hear(batch, under.max_age)
        assert await told(db) == expected.told
    assert await exact(db)
    assert await find_drift(db, [STOCK_COUNTS]) == []


async def test_a_batch_tells_of_its_last_stock_once(shared_db):
    await record(
        shared_db, *(a_change(new_stock=stock) for stock in (3, 2, 50, 7)), a_change("s2", new_stock=9)
    )
    assert await told(shared_db) == [("s1", "low", 7), ("s2", "low", 9)]


async def test_an_alert_says_what_is_known_of_the_product(shared_db):
    await record(shared_db, a_change(new_stock=12, name="Bag", threshold=8))
    await record(shared_db, a_change(quantity_delta=-5))
    value = json.loads(await shared_db.fetchval("SELECT value FROM outbox"))
    raised = await shared_db.fetchrow("SELECT alert_id, raised_at FROM alerts")
    assert value.pop("alert_id") == raised["alert_id"]
    assert abs(datetime.fromisoformat(value.pop("occurred_at")) - raised["raised_at"]) < timedelta(seconds=5)
    assert value == {
        "sku": "s1", "name": "Bag", "stock": 7, "threshold": 8, "previous_stock": 12, "kind": "low",
    }  # fmt: skip


async def test_a_threshold_is_the_first_stock_that_is_not_low(shared_db):
    await record(shared_db, a_change(new_stock=DEFAULT_THRESHOLD))
    assert await told(shared_db) == []
    await record(shared_db, a_change(quantity_delta=-1))
    assert await told(shared_db) == [("s1", "low", DEFAULT_THRESHOLD - 1)]


async def test_a_level_is_told_again_after_its_cooldown_and_another_level_at_once(shared_db):
    for stock in (5, 9, 5):
        await record(shared_db, a_change(new_stock=stock))
    assert await told(shared_db) == [("s1", "low", 5), ("s1", "low", 9)]
    await time_passes(shared_db, COOLDOWN_S - 10)
    await record(shared_db, a_change(new_stock=5))
    assert len(await told(shared_db)) == 2
    await time_passes(shared_db, 10)
    await record(shared_db, a_change(new_stock=5))
    assert await told(shared_db) == [("s1", "low", 5), ("s1", "low", 9), ("s1", "low", 5)]


@pytest.mark.parametrize(("age", "alerts"), [(3_500, 1), (3_700, 0)])
async def test_what_is_too_old_is_counted_and_not_told(shared_db, age, alerts):
    await record(shared_db, a_change(new_stock=3, at=datetime.now(UTC) - timedelta(seconds=age)))
    assert len(await told(shared_db)) == alerts
    assert (await stored_products(shared_db))["s1"].stock == 3


async def test_a_product_is_told_of_when_one_of_its_changes_is_young_enough(shared_db):
    await record(
        shared_db,
        a_change(new_stock=30),
        a_change(quantity_delta=-9, at=LONG_AGO),
        a_change("s2", at=LONG_AGO),
    )
    await record(shared_db, a_change(new_stock=4), a_change(quantity_delta=-9, at=LONG_AGO))
    assert await told(shared_db) == [("s1", "low", 4)]


async def test_a_duplicate_tells_of_nothing(shared_db):
    """Also where it stands beside something new of another product."""
    first = a_change(new_stock=3)
    await record(shared_db, first)
    await time_passes(shared_db, COOLDOWN_S)
    await record(shared_db, first, a_change("s2", new_stock=4))
    assert await told(shared_db) == [("s1", "low", 3), ("s2", "low", 4)]


async def test_a_content_that_replaces_another_tells_of_its_product(shared_db):
    first = a_change(new_stock=30)
    again = {"event_id": first.event_id, "at": first.timestamp}
    await record(shared_db, first)
    await record(shared_db, a_change(new_stock=4, **again))
    await record(shared_db, a_change(new_stock=5, **again))
    assert await told(shared_db) == [("s1", "low", 4)]


async def test_an_episode_is_told_at_its_beginning_each_halving_zero_and_its_end(shared_db):
    for stock in (12, 8, 6, 4, 3, 2, 1, 0, -3, 5, 9, 10, 50, 9):
        await record(shared_db, a_change(new_stock=stock), under=rule("episode"))
    assert await told(shared_db) == [
        *(("s1", "low", stock) for stock in (8, 4, 2, 1, 0)), ("s1", "recovered", 10), ("s1", "low", 9),
    ]  # fmt: skip


async def test_what_a_cooldown_kept_back_of_an_episode_is_told_by_a_scan(db, pool):
    """Else it would be low, and the last that anybody heard is that it has recovered."""
    for stock in (5, 20, 5):
        await record(db, a_change(new_stock=stock), under=rule("episode"))
    assert await told(db) == [("s1", "low", 5), ("s1", "recovered", 20)]
    assert await low_stock.scan(pool, EPISODE) == 0
    await time_passes(db, COOLDOWN_S)
    assert await low_stock.scan(pool, EPISODE) == 1
    assert await low_stock.scan(pool, EPISODE) == 0
    assert (await told(db))[2:] == [("s1", "low", 5)]


async def test_the_log_of_an_alert_gives_way_to_nothing(shared_db):
    await record(shared_db, a_change(new_stock=5))
    alert_id, raised_at = await shared_db.fetchrow("SELECT alert_id, raised_at FROM alerts")
    await record(shared_db, a_change("s2", quantity_delta=-1, event_id=alert_id, at=raised_at))
    assert await told(shared_db) == [("s1", "low", 5)]
    assert await exact(shared_db)


async def test_what_is_not_committed_is_not_told(db):
    transaction = db.transaction()
    await transaction.start()
    await record(db, a_change(new_stock=5))
    await transaction.rollback()
    assert await told(db) == []
    await record(db, a_change(new_stock=5))
    assert len(await told(db)) == 1


async def test_the_alerts_of_a_product_leave_in_the_order_of_its_stocks(db, database_url):
    """Eight writers at once; whoever adds to the outbox holds the product until he has committed."""
    await record(db, *(a_change(sku, new_stock=5) for sku in SKUS), under=rule(cooldown=0))
    async with connections(database_url, 8) as writers:

        async def sell(writer: asyncpg.Connection) -> None:
            for _ in range(6):
                sales = [a_change(sku, quantity_delta=-1) for sku in SKUS]
                await record(writer, *sales, under=rule(cooldown=0))

        await asyncio.gather(*map(sell, writers))
    found = await told(db)
    for sku in SKUS:
        assert [stock for s, _, stock in found if s == sku] == [*range(5, 5 - 49, -1)]
    assert await exact(db)


# The scan


async def low_products(db: asyncpg.Connection, number: int) -> None:
    """Products of which nobody was told."""
    await db.execute(
        """INSERT INTO inventory_products (sku, name, stock)
           SELECT 's' || n, 'of ' || n, 3 FROM generate_series(1, $1) AS n""",
        number,
    )


@pytest.mark.parametrize("policy", AlertPolicy)
async def test_more_products_than_are_held_at_once_are_all_found(db, pool, policy):
    await low_products(db, 1_203)
    await db.execute("INSERT INTO inventory_products (sku, name, stock) VALUES ('enough', 'enough', 99)")
    assert await low_stock.scan(pool, SETTINGS[policy]) == 1_203
    assert await low_stock.scan(pool, SETTINGS[policy]) == 0
    assert len(await told(db)) == 1_203
    await time_passes(db, COOLDOWN_S)
    assert await low_stock.scan(pool, SETTINGS[policy]) == (1_203 if policy == "level" else 0)


@pytest.mark.parametrize("policy", AlertPolicy)
async def test_eight_scans_at_once_tell_of_each_product_once(db, pool, policy, monkeypatch):
    monkeypatch.setattr(low_stock, "AT_ONCE", 7)
    await low_products(db, 60)
    raised = await asyncio.gather(*(low_stock.scan(pool, SETTINGS[policy]) for _ in range(8)))
    raised.append(await low_stock.scan(pool, SETTINGS[policy]))  # what all of them had skipped
    assert sum(raised) == 60
    assert len({sku for sku, *_ in await told(db)}) == len(await told(db)) == 60


async def test_of_eight_workers_one_scans_in_each_stretch_of_time(db, pool):
    await low_products(db, 20)
    raised = await asyncio.gather(*(low_stock.take_scan(pool, LEVEL) for _ in range(8)))
    assert sorted(raised) == [0] * 7 + [20]
    await db.execute("UPDATE inventory_products SET threshold = 50")
    await time_passes(db, COOLDOWN_S)
    assert await low_stock.take_scan(pool, LEVEL) == 0
    await db.execute("UPDATE job_turns SET turn = turn - interval '1 day'")
    assert await low_stock.take_scan(pool, LEVEL) == 20


@pytest.mark.parametrize("policy", AlertPolicy)
async def test_what_was_changed_by_hand_is_found_by_the_scan(db, pool, policy):
    await record(db, a_change(new_stock=20), under=rule(policy))
    await db.execute("UPDATE inventory_products SET threshold = 21")
    assert await low_stock.scan(pool, SETTINGS[policy]) == 1
    await db.execute("UPDATE inventory_products SET threshold = 20")
    assert await low_stock.scan(pool, SETTINGS[policy]) == (policy == "episode")
    kinds = ["low"] + ["recovered"] * (policy == "episode")
    assert await told(db) == [("s1", kind, 20) for kind in kinds]


async def test_what_a_writer_holds_is_his_to_tell_of(db, pool, database_url):
    """The scan does not wait for him, and is not waited for where it holds nothing."""
    await record(db, *(a_change(sku, new_stock=5, at=LONG_AGO) for sku in ("s1", "s2", "s3")))
    async with connections(database_url, 1) as (writer,):
        opened = writer.transaction()
        await opened.start()
        await record(writer, a_change("s2", quantity_delta=-1))
        assert await asyncio.wait_for(low_stock.scan(pool, LEVEL), 5) == 2
        await opened.commit()
    assert sorted(await told(db)) == [("s1", "low", 5), ("s2", "low", 4), ("s3", "low", 5)]
    assert await low_stock.scan(pool, LEVEL) == 0


async def test_a_writer_who_waits_for_a_scan_tells_of_what_he_finds_then(db, pool, database_url):
    """Both have found the same level: it is told once, and the other one as well."""
    await record(db, *(a_change(sku, new_stock=5, at=LONG_AGO) for sku in ("s1", "s2")))
    async with connections(database_url, 2) as (scanner, writer):
        opened = scanner.transaction()
        await opened.start()
        assert (
            await scanner.fetchval(
                "SELECT count(*) FROM raise_low_stock(ARRAY['s1', 's2'], 'level', '4 min')"
            )
            == 2
        )
        await scanner.execute("SELECT hold_products(ARRAY['s1', 's2'])")
        sales = [a_change("s1", quantity_delta=0), a_change("s2", quantity_delta=-1)]
        writing = asyncio.create_task(record(writer, *sales))
        await waits_for_a_lock(db, writer)
        await opened.commit()
        await writing
    assert await told(db) == [("s1", "low", 5), ("s2", "low", 5), ("s2", "low", 4)]


async def test_a_worker_that_has_lost_its_turn_scans_no_further(db, pool, database_url, monkeypatch):
    monkeypatch.setattr(low_stock, "AT_ONCE", 10)
    await low_products(db, 30)
    of_second_page = (await db.fetch("SELECT sku FROM inventory_products ORDER BY sku"))[15]["sku"]
    async with connections(database_url, 1) as (other,):
        opened = other.transaction()
        await opened.start()
        await other.execute(
            "INSERT INTO alert_cooldowns VALUES ('low-stock', '3:' || $1, '2000-01-01Z')", of_second_page
        )
        scanning = asyncio.create_task(low_stock.take_scan(pool, LEVEL))
        held = "SELECT count(*) FROM pg_locks WHERE locktype = 'transactionid' AND NOT granted"
        await eventually(lambda: db.fetchval(held), deadline=10, every=0.005)
        cut = await db.fetchval(
            """SELECT count(pg_terminate_backend(pid, 5000)) FROM pg_locks JOIN pg_stat_activity USING (pid)
               WHERE locktype = 'advisory' AND state = 'idle in transaction' AND pid <> pg_backend_pid()"""
        )
        assert cut == 1
        await opened.commit()
        with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
            await scanning
    assert len(await told(db)) == 20
    assert await low_stock.take_scan(pool, LEVEL) == 10


async def test_what_is_lowest_is_listed_first_with_how_many_there_are(shared_db):
    for sku, stock, threshold in (("a", 5, 10), ("b", 1, 10), ("c", -1, 0), ("d", 10, 10), ("e", 4, 10)):
        await record(shared_db, a_change(sku, new_stock=stock, threshold=threshold, name=f"of {sku}"))
    found = await low_stock.find_low_stock(shared_db, 3)
    assert [tuple(product) for product in found.products] == [
        ("c", "of c", -1, 0), ("b", "of b", 1, 10), ("e", "of e", 4, 10),
    ]  # fmt: skip
    assert found.in_all == 4


# Who was told


async def test_every_channel_that_was_told_is_noted_whatever_comes_at_once(db, database_url):
    await record(db, *(a_change(f"s{n}", new_stock=3) for n in range(150)))
    before = await stored_products(db)
    ids = [row["alert_id"] for row in await db.fetch("SELECT alert_id FROM alerts ORDER BY 1")]
    channels = ["webhook", "email", "slack-1", "mail-2"]
    async with connections(database_url, 4) as several:

        async def note(connection: asyncpg.Connection, channel: str) -> None:
            for start in range(4):
                async with connection.transaction():
                    own = (ids[start:] + ids[:start])[:: (-1) ** channels.index(channel)]
                    await connection.execute("SELECT note_told($1, $2)", [*own, "unknown"], channel)

        await asyncio.gather(*map(note, several, channels))
    rows = await db.fetch(f"SELECT metadata FROM inventory_events WHERE {LOG}")
    assert len(rows) == 150
    for row in rows:
        noted = json.loads(row["metadata"])
        assert (noted["alertSent"], noted["notifiers"], noted["kind"]) == (True, sorted(channels), "low")
    assert await stored_products(db) == before
    assert await exact(db)


async def test_noting_who_was_told_changes_nobody_elses_event(shared_db):
    """One with the same id, but of another time or kind."""
    await record(shared_db, a_change(new_stock=3))
    alert_id = await shared_db.fetchval("SELECT alert_id FROM alerts")
    await record(shared_db, a_change(event_id=alert_id, event_type="low_stock"))
    await shared_db.execute("SELECT note_told($1, 'webhook')", [alert_id])
    rows = await shared_db.fetch(
        "SELECT metadata FROM inventory_events WHERE event_id = $1 ORDER BY occurred_at", alert_id
    )
    assert [json.loads(row["metadata"]).get("alertSent") for row in rows] == [None, True]
