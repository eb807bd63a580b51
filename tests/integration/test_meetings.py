"""Facts that meet in two open transactions, and many workers at once: counts stay right, nobody deadlocks."""

from __future__ import annotations

import asyncio
import contextlib
import random

import asyncpg
import pytest

from counterfoil.coupons.store import COUPON_COUNTS
from counterfoil.database.counters import find_drift, repair
from counterfoil.errors import TransientFailure
from counterfoil.ingest.partitions import Partition
from counterfoil.promos.store import PROMO_COUNTS
from counterfoil.routing import COUNTERS
from support.builders import CANCELED, PLACED, a_cancellation, a_promotion, an_order, later, records_of
from support.postgres_ledgers import (
    a_promo_code,
    assert_counters_equal_ledgers,
    connections,
    coupon_counts,
    promo_counts,
    waits_for_a_lock,
)
from support.postgres_road import Scribe, scribes
from support.waiting import eventually

PLACE = "INSERT INTO affiliate_coupon_usages (order_id, code) VALUES ('1', 'A')"
USE = "INSERT INTO promo_code_uses (promo_code_id, order_id, bonus_amount) SELECT id, '1', 5 FROM promo_codes"
CANCEL = "INSERT INTO order_cancellations (order_id, canceled_at) VALUES ('1', '2026-03-01Z')"


async def canceled_whole(db) -> bool:
    assert (
        await db.fetchval("SELECT count(*) FROM affiliate_coupon_usages WHERE reversed_at = '2026-03-01Z'")
        == 1
    )
    assert await coupon_counts(db) == {"A": (0, 0)}
    assert await find_drift(db, COUNTERS) == []
    return True


@pytest.mark.parametrize(
    ("first", "second"), [(PLACE, CANCEL), (CANCEL, PLACE)], ids=["placed first", "canceled first"]
)
async def test_placed_and_canceled_meet_in_either_commit_order(db, database_url, first, second):
    async with connections(database_url, 2) as (one, other):
        opened = one.transaction()
        await opened.start()
        await one.execute(first)
        meeting = asyncio.create_task(other.execute(second))
        await waits_for_a_lock(db, other, kind="advisory")
        await opened.commit()
        await meeting
    assert await canceled_whole(db)


@pytest.mark.parametrize(
    ("first", "second"), [(USE, CANCEL), (CANCEL, USE)], ids=["used first", "canceled first"]
)
async def test_a_promo_use_and_a_cancellation_meet_in_either_commit_order(db, database_url, first, second):
    await a_promo_code(db)
    async with connections(database_url, 2) as (one, other):
        opened = one.transaction()
        await opened.start()
        await one.execute(first)
        meeting = asyncio.create_task(other.execute(second))
        await waits_for_a_lock(db, other, kind="advisory")
        await opened.commit()
        await meeting
    assert await promo_counts(db) == {"SPRING": (0, 0)}


@pytest.mark.parametrize("end", ["commit", "rollback"])
async def test_an_operator_and_a_worker_meet(db, database_url, end):
    """An operator's open cancellation holds the worker back until it ends, one way or the other."""
    async with connections(database_url, 1) as (operator,), scribes(database_url) as (worker,):
        opened = operator.transaction()
        await opened.start()
        await operator.execute(CANCEL)
        writing = asyncio.create_task(
            worker.write(records_of(an_order("1", codes=["A"]), an_order("2", codes=["A"])))
        )

        async def the_worker_waits():
            return await db.fetchval(
                "SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'advisory'"
            )

        await eventually(the_worker_waits, deadline=10, every=0.005)
        await (opened.commit() if end == "commit" else opened.rollback())
        await writing
    assert await coupon_counts(db) == {"A": (1, 1) if end == "commit" else (2, 2)}
    await assert_counters_equal_ledgers(db)


@pytest.mark.parametrize(
    "by_hand",
    [
        "UPDATE affiliate_coupon_usages SET order_id = '1' WHERE order_id = 'x'",
        "UPDATE affiliate_coupon_usages SET code = 'B' WHERE order_id = 'x'",
        "DELETE FROM affiliate_coupon_usages WHERE order_id = 'x'",
        "INSERT INTO affiliate_coupon_usages (order_id, code) VALUES ('1', 'C'), ('9', 'A')",
        "INSERT INTO affiliate_coupon_adjustments (code, delta) VALUES ('A', 5)",
    ],
)
async def test_any_statement_by_hand_waits_for_an_open_cancellation(db, database_url, by_hand):
    await db.execute(PLACE)
    await db.execute("INSERT INTO affiliate_coupon_usages (order_id, code) VALUES ('x', 'A')")
    async with connections(database_url, 2) as (one, other):
        opened = one.transaction()
        await opened.start()
        await one.execute("INSERT INTO order_cancellations (order_id) VALUES ('1')")
        meeting = asyncio.create_task(other.execute(by_hand))
        await waits_for_a_lock(db, other, kind="advisory")
        await opened.commit()
        with contextlib.suppress(asyncpg.UniqueViolationError):
            await meeting
    await assert_counters_equal_ledgers(db)


async def test_placing_orders_never_waits_for_placing_orders(db, database_url):
    """The frequent side takes its lock shared: only the rows of one code make two workers wait for each other."""
    async with connections(database_url, 2) as (one, other):
        opened = one.transaction()
        await opened.start()
        await one.execute(PLACE)
        async with asyncio.timeout(5):
            await other.execute("INSERT INTO affiliate_coupon_usages (order_id, code) VALUES ('2', 'B')")
        await opened.commit()


async def test_two_workers_with_the_same_new_order_count_it_once(db, database_url):
    async with connections(database_url, 1) as (operator,), scribes(database_url) as (worker,):
        opened = operator.transaction()
        await opened.start()
        await operator.execute(PLACE)
        writing = asyncio.create_task(worker.write(records_of(an_order("1", codes=["A"]))))
        await asyncio.sleep(0)
        await opened.commit()
        written = await writing
    assert await coupon_counts(db) == {"A": (1, 1)}
    assert [account.next_offset for account in written.accounts] == [1]


class Stubborn:
    """A worker that tries a batch until it is written, and counts the deadlocks that it met."""

    def __init__(self, scribe: Scribe) -> None:
        self.scribe = scribe
        self.deadlocks: list[str] = []

    async def write(self, records) -> None:
        while True:
            try:
                await self.scribe.write(records)
            except TransientFailure as error:
                if str(error).startswith("40P01"):
                    self.deadlocks.append(f"{error.__cause__.detail}\n{error.__cause__.context}")
            else:
                return


def batches_of(worker: int, dice: random.Random, *, promos: bool = True) -> list[list]:
    """Batches of placed and canceled orders that other workers have as well, in an order of its own."""
    placed, canceled = Partition(PLACED.topic, worker), Partition(CANCELED.topic, worker)
    batches, at = [], [0, 0]
    for _ in range(12):
        orders = [an_order_of_the_crowd(dice, promos=promos) for _ in range(25)]
        taken_back = [
            a_cancellation(str(dice.randrange(120)), timestamp=later(dice.randrange(5))) for _ in range(2)
        ]
        if dice.random() < 0.6:
            taken_back = []
        batches.append(
            records_of(*orders, partition=placed, first=at[0])
            + records_of(*taken_back, partition=canceled, first=at[1])
        )
        at = [at[0] + len(orders), at[1] + len(taken_back)]
    return batches


def an_order_of_the_crowd(dice: random.Random, *, promos: bool):
    codes = dice.sample(["A", "B", "C", "D", "E", "F"], k=dice.randrange(1, 5))
    return an_order(
        str(dice.randrange(120)),
        codes=codes,
        promotions=[a_promotion(code, bonus=dice.randrange(4)) for code in codes[: 2 * promos]],
        timestamp=later(dice.randrange(3)),
    )


@pytest.mark.parametrize("promos", [False, True], ids=["coupons", "coupons and promos"])
async def test_many_workers_on_the_same_codes_never_deadlock(db, database_url, promos):
    async with scribes(database_url, 6) as workers:
        crowd = [Stubborn(worker) for worker in workers]

        async def work(number: int, worker: Stubborn) -> None:
            for batch in batches_of(number, random.Random(number), promos=promos):
                await worker.write(batch)

        await asyncio.gather(*(work(number, worker) for number, worker in enumerate(crowd)))
    await assert_counters_equal_ledgers(db)
    assert [deadlock for worker in crowd for deadlock in worker.deadlocks] == []


async def test_many_operators_who_take_rows_away_and_back_never_deadlock(db, database_url):
    """Their statements are counted by UPDATE, whose row order is the plan's: the rows are locked in order before."""
    codes = [f"{n:02}" for n in range(60)]
    async with connections(database_url, 6) as operators:

        async def work(number: int, operator: asyncpg.Connection) -> None:
            dice = random.Random(number)
            for _ in range(25):
                chosen = dice.sample(codes, k=dice.randrange(5, 50))
                await operator.execute(
                    "INSERT INTO affiliate_coupon_usages (order_id, code) SELECT $1, unnest($2::text[])",
                    str(number),
                    chosen,
                )
                await operator.execute(
                    "UPDATE affiliate_coupon_usages SET reversed_at = now() WHERE code = ANY ($1) "
                    "AND order_id = $2",
                    dice.sample(codes, k=30),
                    str(number),
                )
                await operator.execute("DELETE FROM affiliate_coupon_usages WHERE order_id = $1", str(number))

        await asyncio.gather(*(work(number, operator) for number, operator in enumerate(operators)))
    await assert_counters_equal_ledgers(db)


async def test_repairing_under_traffic_never_deadlocks_and_never_drifts(db, database_url):
    async with scribes(database_url, 4) as workers, connections(database_url, 1) as (mender,):
        crowd = [Stubborn(worker) for worker in workers]
        done = asyncio.Event()
        alarms = []

        async def work(number: int, worker: Stubborn) -> None:
            for batch in batches_of(number, random.Random(100 + number)):
                await worker.write(batch)

        async def mend() -> None:
            while not done.is_set():
                alarms.extend(await find_drift(mender, COUNTERS))
                codes = [
                    (c.table, r["code"])
                    for c in (COUPON_COUNTS, PROMO_COUNTS)
                    for r in await mender.fetch(f"SELECT code FROM {c.table}")
                ]
                await repair(mender, COUNTERS, [FalseAlarm(table, code) for table, code in codes])

        mending = asyncio.create_task(mend())
        await asyncio.gather(*(work(number, worker) for number, worker in enumerate(crowd)))
        done.set()
        await mending
    assert alarms == []
    await assert_counters_equal_ledgers(db)
    assert [deadlock for worker in crowd for deadlock in worker.deadlocks] == []


class FalseAlarm:
    """A row to be repaired that needs no repair."""

    def __init__(self, table: str, key: str) -> None:
        self.table, self.key = table, key
