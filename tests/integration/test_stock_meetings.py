"""Stock changes of one product in two open transactions, and many at once: stocks stay right, nobody deadlocks."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from counterfoil.database.counters import find_drift, repair
from counterfoil.database.facts import Facts
from counterfoil.errors import TransientFailure
from counterfoil.events import StockChange
from counterfoil.ingest.partitions import Partition
from counterfoil.ingest.records import milliseconds_of
from counterfoil.ingest.writer import hold_rows, plan_events, write_steps
from counterfoil.inventory import low_stock
from counterfoil.inventory.store import STOCK_COUNTS
from counterfoil.routing import routes
from support.builders import NOON, a_record, later, records_of
from support.inventory_model import (
    INVENTORY,
    a_stock_event,
    changes_of,
    exact,
    products_of,
    stored_changes,
    stored_products,
)
from support.meetings import meet
from support.postgres_ledgers import connections, empty, waits_for_a_lock
from support.postgres_road import Scribe, plain_settings, scribes
from support.waiting import eventually

STOCK = Partition("stock-change", 0)
NOW = datetime.now(UTC).replace(microsecond=0)


async def write(connection: asyncpg.Connection, *events: StockChange) -> None:
    """Write events as a worker does who was started just now, in the caller's transaction."""
    (route,) = [route for route in routes(plain_settings(), b"key") if route.name == STOCK.topic]
    facts = Facts([*events], [1] * len(events), list(range(len(events))), origin=lambda i: f"log/{i}")
    steps = await plan_events(route, facts)
    await hold_rows(connection, steps)
    await write_steps(connection, steps)


async def sound(db: asyncpg.Connection) -> bool:
    assert await exact(db)
    assert await find_drift(db, [STOCK_COUNTS]) == []
    return True


def told_of(events: Sequence[StockChange]) -> dict[Partition, list]:
    """These events as the log of a publisher."""
    return {STOCK: [records_of(event, partition=STOCK)[0] for event in events]}


FACTS = {
    "a delta": a_stock_event(event_id="d", quantity_delta=-3),
    "a later delta": a_stock_event(event_id="e", quantity_delta=-4, timestamp=later(30)),
    "an earlier delta": a_stock_event(event_id="f", quantity_delta=-5, timestamp=later(-90)),
    "another content of the delta": a_stock_event(event_id="d", quantity_delta=-9),
    "the delta of another product": a_stock_event("s0", event_id="d", quantity_delta=-3),
    "an absolute": a_stock_event(event_id="a", new_stock=20, timestamp=later(5)),
    "a later absolute": a_stock_event(event_id="b", new_stock=70, timestamp=later(20)),
    "an earlier absolute": a_stock_event(event_id="c", new_stock=50, timestamp=later(-60)),
    "another content of the absolute": a_stock_event(event_id="a", new_stock=4, timestamp=later(5)),
    "a delta instead of the absolute": a_stock_event(event_id="b", quantity_delta=7, timestamp=later(20)),
    "a restock": a_stock_event(event_id="r", event_type="restock", quantity_delta=30, timestamp=later(3)),
    "its name": a_stock_event(event_id="n", name="Bag", threshold=5, timestamp=later(3)),
    "its later name": a_stock_event(event_id="m", name="bag", supplier="Loom", timestamp=later(40)),
}


@pytest.mark.parametrize("known", [False, True], ids=["nothing is known", "all others are known"])
async def test_any_two_stock_changes_in_two_open_transactions_meet(db, database_url, known):
    """Each with each other and with itself: in one order where nothing is known, and in the other where much is."""
    pairs = [
        pair[:: (-1) ** (n + known)]
        for n, pair in enumerate(itertools.combinations_with_replacement(FACTS, 2))
    ]
    async with connections(database_url, 2) as (one, other):
        for first, second in pairs:
            earlier = [FACTS[name] for name in FACTS if name not in {first, second}] if known else []
            sides = [lambda c, e=FACTS[name]: write(c, e) for name in (first, second)]
            await empty(db, INVENTORY)
            async with db.transaction():
                await write(db, *earlier)
            waited = await meet(db, one, other, *sides)
            assert waited or FACTS[first].sku != FACTS[second].sku, (first, second)
            expected = changes_of(told_of([*earlier, FACTS[first], FACTS[second]]))
            assert await stored_changes(db) == expected, (first, second)
            assert await stored_products(db) == products_of(expected), (first, second)
    assert await find_drift(db, [STOCK_COUNTS]) == []


async def insert(connection: asyncpg.Connection, *events: StockChange) -> None:
    """Write events as a person does, who holds nothing before."""
    columns = [
        "event_id",
        "sku",
        "event_type",
        "occurred_at",
        "new_stock",
        "quantity_delta",
        "name",
        "threshold",
    ]
    rows = [tuple(getattr(e, c if c != "occurred_at" else "timestamp") for c in columns) for e in events]
    await connection.copy_records_to_table("inventory_events", records=rows, columns=columns)


async def test_any_two_rows_written_by_hand_in_two_open_transactions_meet(db, database_url):
    """The ledger itself holds what they count in."""
    facts = {name: fact for name, fact in FACTS.items() if "another" not in name and "instead" not in name}
    async with connections(database_url, 2) as (one, other):
        for first, second in itertools.permutations(facts, 2):
            await empty(db, INVENTORY)
            await insert(db, a_stock_event(event_id="known", timestamp=later(-900)))
            sides = [lambda c, e=facts[name]: insert(c, e) for name in (first, second)]
            assert await meet(db, one, other, *sides), (first, second)
            assert await exact(db, f"{first}, {second}")
    assert await find_drift(db, [STOCK_COUNTS]) == []


BY_HAND = {
    "a delta goes": "DELETE FROM inventory_events WHERE event_id = 'd'",
    "a delta is another": "UPDATE inventory_events SET quantity_delta = 100 WHERE event_id = 'd'",
    "a delta becomes an absolute": "UPDATE inventory_events SET new_stock = 100 WHERE event_id = 'e'",
    "a delta moves before the absolutes": "UPDATE inventory_events SET occurred_at = '2020-01-01' WHERE event_id = 'e'",
    "an absolute goes": "DELETE FROM inventory_events WHERE event_id = 'b'",
    "an absolute is a delta": "UPDATE inventory_events SET new_stock = NULL, quantity_delta = 2 WHERE new_stock > 50",
    "an absolute moves to another month": "UPDATE inventory_events SET occurred_at = now() WHERE event_id = 'a'",
    "an absolute moves to another product": "UPDATE inventory_events SET sku = 's5' WHERE event_id = 'b'",
    "a restock is none": "UPDATE inventory_events SET event_type = 'low_stock' WHERE event_id = 'r'",
    "everything goes": "TRUNCATE inventory_events",
    "it is recounted": "SELECT recount_products(ARRAY['s1'])",
    "all are recounted": "SELECT recount_products(NULL)",
    "many are recounted": "SELECT recount_products(array_agg('s' || n)) FROM generate_series(0, 600) AS n",
    "it is another by hand": "UPDATE inventory_products SET name = 'hand', threshold = 1 WHERE sku = 's1'",
}  # fmt: skip
NEW = {
    "a delta": a_stock_event(event_id="new", quantity_delta=1_000, timestamp=later(60)),
    "an old delta": a_stock_event(event_id="new", quantity_delta=1_000, timestamp=later(-60)),
    "an absolute": a_stock_event(event_id="new", new_stock=1_000, timestamp=later(60)),
    "an absolute between": a_stock_event(event_id="new", new_stock=1_000, timestamp=later(10)),
    "a restock of another product": a_stock_event(
        "s5", event_id="new", event_type="restock", quantity_delta=9
    ),
    "another content": a_stock_event(event_id="d", quantity_delta=-100),
    "the name": a_stock_event(event_id="new", name="new", timestamp=later(99)),
}
STANDING = [fact for name, fact in FACTS.items() if "another" not in name and "instead" not in name]


@pytest.mark.parametrize("by_hand_first", [True, False])
async def test_what_is_done_by_hand_and_a_new_change_meet(db, database_url, by_hand_first):
    """Each pair in one of the two orders."""
    pairs = list(itertools.product(BY_HAND, NEW))[by_hand_first::2]
    async with connections(database_url, 2) as (one, other):
        for by_hand, new in pairs:
            await empty(db, INVENTORY)
            async with db.transaction():
                await write(db, *STANDING)
            sides = [lambda c, s=BY_HAND[by_hand]: c.execute(s), lambda c, e=NEW[new]: write(c, e)]
            await meet(db, one, other, *(sides if by_hand_first else reversed(sides)))
            kept = by_hand in {
                "everything goes",
                "it is another by hand",
            }  # a detail that no row tells of any more
            assert await exact(db, f"{by_hand}, {new}", details=not kept)
    assert await find_drift(db, [STOCK_COUNTS]) == []


@pytest.mark.parametrize("by_hand_first", [True, False])
async def test_a_product_made_by_hand_and_its_first_change_meet(db, database_url, by_hand_first):
    by_hand = (
        "INSERT INTO inventory_products (sku, name, stock) VALUES ('s1', 'Bag', 5) ON CONFLICT DO NOTHING"
    )
    async with connections(database_url, 2) as (one, other):
        sides = [lambda c: c.execute(by_hand), lambda c: write(c, FACTS["a delta"])]
        await meet(db, one, other, *(sides if by_hand_first else reversed(sides)))
    assert (await stored_products(db))["s1"].stock == (2 if by_hand_first else -3)
    assert await find_drift(db, [STOCK_COUNTS]) == []


@pytest.mark.parametrize("mender_first", [True, False])
async def test_a_product_that_is_mended_and_a_new_change_meet(db, database_url, mender_first):
    async with connections(database_url, 2) as (one, other):
        for new, event in NEW.items():
            await empty(db, INVENTORY)
            async with db.transaction():
                await write(db, *STANDING)
            await db.execute("UPDATE inventory_products SET stock = 77, counted_from = '2020-01-01'")
            found = await find_drift(db, [STOCK_COUNTS])
            sides = [lambda c, d=found: repair(c, [STOCK_COUNTS], d), lambda c, e=event: write(c, e)]
            await meet(db, one, other, *(sides if mender_first else reversed(sides)))
            assert await exact(db, new)


@pytest.mark.parametrize("isolation", ["REPEATABLE READ", "SERIALIZABLE"])
@pytest.mark.parametrize(
    "late",
    [
        "INSERT INTO inventory_events (sku, quantity_delta) VALUES ('s1', 1)",
        "INSERT INTO inventory_events (sku, new_stock, name) VALUES ('s1', 1, 'Bag')",
        "UPDATE inventory_events SET quantity_delta = 2 WHERE event_id = 'e'",
        "DELETE FROM inventory_events WHERE event_id = 'b'",
        "TRUNCATE inventory_events",
        "INSERT INTO inventory_products (sku, name, stock) VALUES ('s9', 's9', 1)",
        "SELECT recount_products(ARRAY['s1'])",
    ],
)
async def test_a_snapshot_that_is_older_than_what_it_waits_for_is_refused(db, database_url, isolation, late):
    """It would not see the absolute that was committed meanwhile."""
    await write(db, *STANDING)
    async with connections(database_url, 1) as (one,):
        await one.execute(f"BEGIN ISOLATION LEVEL {isolation}; SELECT count(*) FROM inventory_products")
        await write(db, NEW["an absolute"])
        with pytest.raises(asyncpg.FeatureNotSupportedError, match="READ COMMITTED"):
            await one.execute(late)
    assert await sound(db)


# Whoever holds several products holds them in one order


async def both_wait(db: asyncpg.Connection, *waiting: asyncpg.Connection) -> bool:
    await db.execute("SELECT pg_stat_clear_snapshot()")
    pids = [connection.get_server_pid() for connection in waiting]
    waits = "SELECT count(*) FROM pg_stat_activity WHERE pid = ANY ($1) AND wait_event_type = 'Lock'"
    return bool(await db.fetchval(waits, pids) == len(pids))


async def wait_for_each_other(
    db: asyncpg.Connection, database_url: str, blocker: str, *sides: list[StockChange]
) -> None:
    """All come to wait behind what somebody else holds, one after the other, and are let go."""
    async with connections(database_url, 1 + len(sides)) as (holder, *writers):

        async def whole(connection: asyncpg.Connection, events: list[StockChange]) -> None:
            async with connection.transaction():
                await write(connection, *events)

        opened = holder.transaction()
        await opened.start()
        await holder.execute(blocker)
        writing = []
        for writer, events in zip(writers, sides, strict=True):
            writing.append(asyncio.create_task(whole(writer, events)))
            await waits_for_a_lock(db, writer)
        await eventually(lambda: both_wait(db, *writers), deadline=10, every=0.002)
        await opened.commit()
        await asyncio.gather(*writing)


SALES = [a_stock_event(sku, event_id=f"{sku} sold", quantity_delta=-1) for sku in ("s1", "s2")]
HOLD_S1 = "SELECT hold_products(ARRAY['s1'])"


@pytest.mark.parametrize("sides", [1, -1])
async def test_products_of_known_and_new_changes_are_held_in_one_order(db, database_url, sides):
    """Of a batch one is known already and gives way: it is counted after the new ones are."""
    await write(db, a_stock_event("s1", event_id="k", quantity_delta=9))
    changes = [a_stock_event("s1", event_id="k", quantity_delta=2), a_stock_event("s2", event_id="n")]
    await wait_for_each_other(db, database_url, HOLD_S1, *[SALES, changes][::sides])
    assert (await stored_products(db))["s1"].stock == 1
    assert await sound(db)


@pytest.mark.parametrize("sides", [1, -1])
async def test_products_that_details_are_told_of_are_held_in_one_order(db, database_url, sides):
    named = [
        a_stock_event("s2", event_id="n2", quantity_delta=2),
        a_stock_event("s1", event_id="n1", event_type="low_stock", name="Bag"),
    ]
    await wait_for_each_other(db, database_url, HOLD_S1, *[SALES, named][::sides])
    assert await sound(db)


async def test_two_who_bring_the_same_changes_meet_at_their_products(db, database_url):
    """The one has met a known change of late, so he holds the products first; the other one his changes."""
    await write(db, a_stock_event("s1", event_id="k", quantity_delta=9))
    known = a_stock_event("s1", event_id="k", quantity_delta=2)
    for number in range(8):
        new = [a_stock_event(f"s{n}", event_id=f"{number} {n}") for n in range(1, 40)]
        async with connections(f"{database_url}?deadlock_timeout=5ms", 2) as (one, other):
            await asyncio.gather(write_whole(one, [known, *new]), write_whole(other, new))
    assert await sound(db)
    assert await deadlocks(db) == 0


async def write_whole(connection: asyncpg.Connection, events: list[StockChange]) -> None:
    async with connection.transaction():
        await write(connection, *events)


# Many at once


async def deadlocks(db: asyncpg.Connection) -> int:
    await db.execute("SELECT pg_stat_clear_snapshot()")
    return int(await db.fetchval("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"))


def a_crowd(dice: random.Random) -> StockChange:
    """A change of few products, so that they meet often; most of them are told by several workers."""
    sku, number = f"s{dice.randrange(6)}", dice.randrange(60)
    stock = (
        {"new_stock": dice.randrange(40)}
        if dice.random() < 0.3
        else {"quantity_delta": dice.randrange(-9, 9)}
    )
    details = {"name": dice.choice("xyz"), "threshold": dice.randrange(30)} if dice.random() < 0.2 else {}
    return a_stock_event(
        sku,
        event_id=f"{sku} {number}",
        event_type=dice.choice(["sale", "restock", "change"]),
        timestamp=NOW - timedelta(seconds=100 + number),
        **stock,
        **details,
    )


def batches_of(worker: int, count: int, size: int = 25) -> list[list]:
    """Batches of a worker's partition, each in an order of its own."""
    dice, batches, end = random.Random(worker), [], 0
    for _ in range(count):
        events = [a_crowd(dice) for _ in range(dice.randint(1, size))]
        batches.append(
            [
                a_record(end + n, event.to_json(), topic=STOCK.topic, partition=worker, timestamp=milliseconds_of(NOW))
                for n, event in enumerate(events)
            ]
        )  # fmt: skip
        end += len(events)
    return batches


async def test_many_workers_on_the_same_products_never_deadlock(db, database_url):
    """They bring the same changes with other contents, while the scan looks and somebody mends; alerts are raised."""
    batches = [batches_of(worker, 12) for worker in range(8)]
    every_time = plain_settings(alert_cooldown_s=0)
    done = asyncio.Event()
    async with (
        scribes(database_url, 8, settings=every_time) as workers,
        connections(database_url, 1) as (mender,),
    ):

        async def work(worker: Scribe, own: list[list]) -> None:
            for batch in own:
                assert not (await worker.write(batch)).stale  # it would raise what a deadlock is

        async def look() -> None:
            while not done.is_set():
                await low_stock.scan(workers[0].pool, every_time)

        async def mend() -> None:
            for sku in itertools.cycle(f"s{n}" for n in range(6)):
                if done.is_set():
                    return
                await mender.execute(f"SELECT recount_products(ARRAY['{sku}', 's0'])")

        async with asyncio.TaskGroup() as meanwhile:
            meanwhile.create_task(look())
            meanwhile.create_task(mend())
            await asyncio.gather(*(work(worker, own) for worker, own in zip(workers, batches, strict=True)))
            done.set()
    logs: dict[Partition, list] = {}
    for record in itertools.chain.from_iterable(itertools.chain.from_iterable(batches)):
        logs.setdefault(Partition(record.topic, record.partition), []).append(record)
    expected = changes_of(logs)
    assert await stored_changes(db) == expected
    assert await stored_products(db) == products_of(expected)
    assert await find_drift(db, [STOCK_COUNTS]) == []
    assert await db.fetchval("SELECT count(*) FROM alerts") > 20
    assert await deadlocks(db) == 0


def a_statement(dice: random.Random) -> str:
    """Something that somebody does to many rows, in whatever order he finds them."""
    sku, other, number = f"'s{dice.randrange(6)}'", f"'s{dice.randrange(6)}'", dice.randrange(60)
    return dice.choice(
        [
            f"DELETE FROM inventory_events WHERE sku = {sku} AND right(event_id, 1) = '{number % 10}'",
            f"UPDATE inventory_events SET sku = {other} WHERE event_id = 's1 {number}'",
            "UPDATE inventory_events SET quantity_delta = -quantity_delta WHERE right(event_id, 1) = '7'",
            f"UPDATE inventory_events SET occurred_at = occurred_at - interval '1 year' WHERE event_id = 's2 {number}'",
            "TRUNCATE inventory_events",
            f"SELECT recount_products(ARRAY[{sku}, {other}])",
            "SELECT recount_products(NULL)",
        ]
    )


async def test_whatever_is_done_by_hand_under_traffic_nothing_drifts(db, database_url):
    """Who locks many rows by hand may meet a batch the other way round: one of the two is ended, and tried again."""
    impatient, done = f"{database_url}?deadlock_timeout=5ms", asyncio.Event()
    async with scribes(impatient, 3) as workers, connections(impatient, 2) as people:

        async def work(number: int, worker: Scribe) -> None:
            for batch in batches_of(number, 15):
                await until_it_is_written(worker, batch)

        async def change(number: int, connection: asyncpg.Connection) -> None:
            dice = random.Random(number)
            while not done.is_set():
                with contextlib.suppress(asyncpg.DeadlockDetectedError, asyncpg.UniqueViolationError):
                    await connection.execute(a_statement(dice))

        async with asyncio.TaskGroup() as meanwhile:
            for number, person in enumerate(people):
                meanwhile.create_task(change(number, person))
            await asyncio.gather(*(work(number, worker) for number, worker in enumerate(workers)))
            done.set()
    assert await exact(db, details=False)
    assert await find_drift(db, [STOCK_COUNTS]) == []


async def until_it_is_written(worker: Scribe, records: list) -> None:
    """Write a batch, and again when it is the one that is ended of two that wait for each other."""
    while True:
        try:
            await worker.write(records)
        except TransientFailure as error:
            if not str(error).startswith("40P01"):
                raise
        else:
            return


async def test_changes_that_go_from_product_to_product_are_tried_again_and_counted_once(db, database_url):
    """One id told of two products: which other one it was told of is seen too late to hold both in order."""
    logs: dict[Partition, list] = {}
    async with scribes(f"{database_url}?deadlock_timeout=5ms", 4) as workers:

        async def work(number: int, worker: Scribe) -> None:
            dice, partition = random.Random(number), Partition(STOCK.topic, number)
            for batch in range(12):
                told = [
                    a_stock_event(f"s{dice.randrange(5)}", event_id=f"{dice.randrange(20)}",
                                  quantity_delta=dice.randrange(9))
                    for _ in range(10)
                ]  # fmt: skip
                records = records_of(*told, partition=partition, first=10 * batch)
                logs.setdefault(partition, []).extend(records)
                await until_it_is_written(worker, records)

        await asyncio.gather(*(work(number, worker) for number, worker in enumerate(workers)))
    expected = changes_of(logs)
    assert await stored_changes(db) == expected
    assert await stored_products(db) == products_of(expected)
    assert await sound(db)


async def test_changes_of_one_product_by_several_workers_are_counted_exactly(db, database_url):
    changes, size = 20_000, 1_000
    each = changes // 4

    def batch(worker: int, first: int) -> list:
        events = [
            a_stock_event("hot", event_id=f"{worker} {n:05}", timestamp=NOON - timedelta(seconds=n),
                          **({"new_stock": 5} if n % 1_700 == 0 else {"quantity_delta": -1}))
            for n in range(first, first + size)
        ]  # fmt: skip
        return records_of(*events, partition=Partition(STOCK.topic, worker), first=first)

    batches = [[batch(worker, first) for first in range(0, each, size)] for worker in range(4)]
    async with scribes(database_url, 4) as workers:

        async def work(worker: Scribe, own: list[list]) -> None:
            for records in own:
                assert not (await worker.write(records)).stale

        await asyncio.gather(*(work(worker, own) for worker, own in zip(workers, batches, strict=True)))
    assert await db.fetchval("SELECT count(*) FROM inventory_events") == changes
    assert (await stored_products(db))["hot"].stock == 5
    assert await sound(db)
    assert await deadlocks(db) == 0
