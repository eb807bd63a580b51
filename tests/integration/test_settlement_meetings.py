"""Facts of one order in two open transactions, and many workers at once: what is owed stays right, nobody deadlocks."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from datetime import UTC, datetime
from decimal import Decimal

import asyncpg
import pytest

from counterfoil.database.counters import find_drift
from counterfoil.ingest.partitions import Partition
from counterfoil.routing import COUNTERS
from support.attribution_model import World, model, stored
from support.builders import a_record
from support.postgres_ledgers import connections, waits_for_a_lock
from support.postgres_road import plain_settings, scribes
from support.waiting import eventually

CONVERSION = """INSERT INTO conversions (order_id, beneficiary, pixel_id, revenue, currency, occurred_at)
                VALUES ('1', 'pixel:p2', 'p2', 100, 'USD', '2026-03-02Z')"""
FACTS = {
    "an earlier conversion": """
        INSERT INTO conversions (order_id, beneficiary, pixel_id, revenue, currency, occurred_at)
        VALUES ('1', 'pixel:p1', 'p1', 50, 'JPY', '2026-03-01Z')""",
    "a refund": "INSERT INTO order_refunds (order_id, refund_id, amount) VALUES ('1', 'r', 30)",
    "a cancellation": "INSERT INTO order_cancellations (order_id) VALUES ('1')",
    "a link": """INSERT INTO links (id, url, program_id, named_partner_id, pixel_id, occurred_at)
                 VALUES ('l', 'https://a.com', 'a_1', 'px', 'p2', '2026-03-01Z')""",
    "a rate": "INSERT INTO default_rates (percent, valid_from) VALUES (20, '2026-03-01Z')",
    "a status": "INSERT INTO affiliates (handle, name, pixel_id, status) VALUES ('h', 'H', 'p2', 'paused')",
}
TWO_WAIT_FOR_ADVISORY_LOCKS = """
SELECT count(*) = 2 FROM pg_locks
WHERE locktype = 'advisory' AND NOT granted
  AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""
USAGE = "INSERT INTO affiliate_coupon_usages (order_id, code) VALUES ('1', 'A')"
TOTAL = "INSERT INTO order_totals (order_id, total, currency) VALUES ('1', 100, 'USD')"
OWNER = "INSERT INTO affiliate_coupon_owners (code, pixel_id) VALUES ('A', 'p2')"
PAIRS = {
    **{f"a conversion and {name}": (CONVERSION, fact) for name, fact in FACTS.items()},
    "two refunds": (
        f"{CONVERSION}; {FACTS['a refund']}",
        "INSERT INTO order_refunds (order_id, refund_id, amount) VALUES ('1', 's', 30)",
    ),
    "a user and his link": (
        f"{CONVERSION}; INSERT INTO shop_users (id) VALUES ('u')",
        """INSERT INTO links (id, url, program_id, user_id, pixel_id)
           VALUES ('l', 'https://a.com', 'a_1', 'u', 'p2')""",
    ),
    "an order and its coupon's owner": (f"{USAGE}; {TOTAL}", OWNER),
    "an order's total and another of its codes": (f"{OWNER}; {TOTAL}", USAGE),
    "an order by coupon and a status": (f"{OWNER}; {USAGE}; {TOTAL}", FACTS["a status"]),
    "an order by coupon and a conversion": (f"{OWNER}; {USAGE}; {TOTAL}", FACTS["an earlier conversion"]),
    "an order by coupon and a link": (f"{OWNER}; {USAGE}; {TOTAL}", FACTS["a link"]),
    "a link and a rate of its program": (
        f"{CONVERSION}; {FACTS['a link']}",
        "INSERT INTO program_rates (program_id, percent) VALUES ('a_1', 50)",
    ),
}


async def outcome(db):
    """What came of it: stored, and proven against the facts."""
    assert await find_drift(db, COUNTERS) == []
    return await stored(db)


@pytest.fixture
async def db_with_a_rate(db):
    await db.execute("INSERT INTO default_rates (percent, valid_from) VALUES (10, '2020-01-01Z')")
    return db


@pytest.mark.parametrize("known", [False, True], ids=["a new order", "a known order"])
@pytest.mark.parametrize("reverse", [False, True], ids=["in this order", "the other way round"])
@pytest.mark.parametrize("pair", list(PAIRS))
async def test_facts_in_two_open_transactions_meet(db_with_a_rate, database_url, pair, reverse, known):
    """The one has settled and not committed yet, the other writes and commits: nothing of either is missed."""
    db = db_with_a_rate
    first, second = reversed(PAIRS[pair]) if reverse else PAIRS[pair]
    if known:
        await db.execute("INSERT INTO order_settlements (order_id) VALUES ('1')")
    async with connections(database_url, 2) as (one, other):
        opened = one.transaction()
        await opened.start()
        await one.execute(first)
        await one.execute("SET CONSTRAINTS ALL IMMEDIATE")
        meeting = asyncio.create_task(other.execute(f"BEGIN; {second}; COMMIT"))

        async def the_other_waits_or_is_done():
            waits = "SELECT wait_event_type = 'Lock' FROM pg_stat_activity WHERE pid = $1"
            return meeting.done() or await db.fetchval(waits, other.get_server_pid())

        await eventually(the_other_waits_or_is_done, deadline=10, every=0.002)
        await opened.commit()
        await meeting
    found = await outcome(db)
    assert len(found.attributions) == 1
    assert len([entry for entry in found.posted.values() if any(entry)]) <= 1


@pytest.mark.parametrize(
    ("by_hand", "by_us"),
    [
        (
            "UPDATE affiliates SET status = 'paused'",
            "INSERT INTO affiliate_status_changes (pixel_id, status) VALUES ('p1', 'paused')",
        ),
        (
            "UPDATE affiliates SET pixel_id = 'p2'",
            "INSERT INTO affiliate_status_changes (pixel_id, status) VALUES ('p1', 'paused')",
        ),
        (
            "INSERT INTO affiliates (handle, name, pixel_id) VALUES ('i', 'I', 'p2')",
            """INSERT INTO affiliates (handle, name, pixel_id) VALUES ('i', 'I', 'p2') ON CONFLICT DO NOTHING""",
        ),
        (
            "UPDATE programs SET commission_percent = 5",
            "INSERT INTO program_rates (program_id, percent) VALUES ('a_1', 6)",
        ),
        (
            "INSERT INTO programs (id, base_domain, commission_percent) VALUES ('b_1', 'b.com', 5)",
            "INSERT INTO programs (id, base_domain) VALUES ('b_1', 'b.com') ON CONFLICT DO NOTHING",
        ),
    ],
)
async def test_what_is_set_by_hand_and_what_we_set_wait_in_one_order(db, database_url, by_hand, by_us):
    """We hold the lock before we touch a row; whoever writes the row by hand gets the lock first as well."""
    await db.execute("INSERT INTO affiliates (handle, name, pixel_id) VALUES ('h', 'H', 'p1')")
    await db.execute("INSERT INTO programs (id, base_domain, commission_percent) VALUES ('a_1', 'a.com', 1)")
    async with connections(database_url, 2) as (hand, we):
        opened = we.transaction()
        await opened.start()
        await we.execute("SELECT pg_advisory_xact_lock(3087, 2)")
        meeting = asyncio.create_task(hand.execute(by_hand))
        await waits_for_a_lock(db, hand, kind="advisory")
        await we.execute(by_us)
        await opened.commit()
        with contextlib.suppress(asyncpg.UniqueViolationError):
            await meeting


@pytest.mark.parametrize(
    ("facts", "same"),
    [
        ({"order.placed": {"order_id": "1", "total": "20", "codes": ["A"]}}, USAGE),
        (
            {
                "order.refunded": {"order_id": "1", "refund_id": "r", "amount": "1"},
                "conversion": {"order_id": "1", "pixel_id": "p1", "revenue": "10"},
            },
            "INSERT INTO order_refunds (order_id, refund_id, amount) VALUES ('1', 'r', 1)",
        ),
    ],
    ids=["an order", "a refund and a conversion"],
)
async def test_a_batch_waits_for_its_locks_before_it_writes_what_others_wait_for(
    db, database_url, facts, same
):
    """An operator waits for somebody who shares the lock and comes to wait for our row; so we must not hold it yet."""
    async with (
        connections(database_url, 2) as (sharer, operator),
        scribes(database_url, settings=plain_settings(attribute_by_coupon=True)) as (worker,),
    ):
        records = [a_record(0, json.dumps(fact).encode(), topic=topic) for topic, fact in facts.items()]
        batch = await worker.batch_of(records)
        shared = sharer.transaction()
        await shared.start()
        await sharer.execute("SELECT pg_advisory_xact_lock_shared(3087, 2)")
        alone = asyncio.create_task(operator.execute("INSERT INTO default_rates (percent) VALUES (5)"))
        await waits_for_a_lock(db, operator, kind="advisory")
        writing = asyncio.create_task(worker.write_batch(batch))
        await eventually(lambda: db.fetchval(TWO_WAIT_FOR_ADVISORY_LOCKS), deadline=10, every=0.005)
        await sharer.execute(same)
        await shared.commit()
        await asyncio.gather(alone, writing)


def documents(count: int, seed: int) -> list[dict]:
    """Facts of few orders, pixels, links and users, so that they meet often."""
    dice = random.Random(seed)
    kinds = {
        "conversion": lambda: {
            "pixel_id": f"p{dice.randrange(4)}",
            "revenue": f"{dice.randrange(9_000) / 100}",
        },
        "order.refunded": lambda: {
            "refund_id": f"{dice.randrange(3)}",
            "amount": f"{dice.randrange(3_000) / 100}",
        },
        "order.canceled": dict,
        "order.placed": lambda: {"total": "20", "codes": dice.sample("ABC", k=2)},
        "link.created": lambda: {
            "link_id": f"l{dice.randrange(9)}",
            "url": dice.choice(["https://a.com", "https://b.com"]),
            "user_id": f"u{dice.randrange(5)}",
            "pixel_id": f"p{dice.randrange(4)}",
        },
        "user.created": lambda: {"user_id": f"u{dice.randrange(5)}"},
    }
    topics = dice.choices(list(kinds), weights=[6, 4, 1, 3, 1, 1], k=count)
    return [
        {
            "topic": topic,
            "order_id": f"{dice.randrange(150)}",
            "timestamp": f"2026-03-01T11:59:{dice.randrange(60):02}Z",
            **kinds[topic](),
        }
        for topic in topics
    ]


async def test_many_workers_settle_the_same_orders_without_deadlocks(db, database_url):
    facts = documents(6_000, seed=2)
    world = World(defaults=[(Decimal(10), datetime(2020, 1, 1, tzinfo=UTC))], owners={"A": "p3"})
    await db.execute("INSERT INTO default_rates (percent, valid_from) VALUES (10, '2020-01-01Z')")
    await db.execute("INSERT INTO affiliate_coupon_owners VALUES ('A', 'p3')")
    async with scribes(database_url, 4, settings=plain_settings(attribute_by_coupon=True)) as crowd:

        async def work(number, worker):
            dice = random.Random(number)
            ends: dict[str, int] = {}
            own = facts[number::4]
            while own:
                batch, own = own[: (size := dice.randint(1, 120))], own[size:]
                records = []
                for fact in batch:
                    offset = ends.get(fact["topic"], 0)
                    ends[fact["topic"]] = offset + 1
                    value = json.dumps(fact).encode()
                    records.append(a_record(offset, value, topic=fact["topic"], partition=number))
                partitions = {Partition(topic, number) for topic in ends}
                await worker.hold(partitions - worker.states.keys())
                assert not (await worker.write(records)).stale

        await asyncio.gather(*(work(number, worker) for number, worker in enumerate(crowd)))
    assert await outcome(db) == model(facts, world)
    await db.execute("SELECT pg_stat_clear_snapshot()")
    deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
    assert await db.fetchval(deadlocks) == 0


def conversion(order_id: str, pixel: str) -> str:
    return (
        "INSERT INTO conversions (order_id, beneficiary, pixel_id, revenue, currency, occurred_at) "
        f"VALUES ('{order_id}', 'pixel:{pixel}', '{pixel}', 100, 'USD', '2026-03-01Z')"
    )


def refund(order_id: str) -> str:
    return f"INSERT INTO order_refunds (order_id, refund_id, amount) VALUES ('{order_id}', 'r', 10)"


async def test_transactions_of_several_facts_wait_for_each_other_in_one_order(db_with_a_rate, database_url):
    """Each touches the days of both pixels, one after the other and the other way round: settled at commit, once."""
    db = db_with_a_rate
    for order_id, pixel in (("a", "p1"), ("b", "p2"), ("c", "p2"), ("d", "p1")):
        await db.execute(conversion(order_id, pixel))
    async with connections(database_url, 2) as (one, other):
        for connection, order_id in ((one, "a"), (other, "b")):
            await connection.execute(f"BEGIN; {refund(order_id)}")
        await asyncio.gather(one.execute(f"{refund('c')}; COMMIT"), other.execute(f"{refund('d')}; COMMIT"))
    assert len((await outcome(db)).attributions) == 4


async def test_new_and_known_orders_of_one_batch_hold_their_days_in_one_order(db_with_a_rate, database_url):
    """What is changed is counted before what is added: the days of both are held before either."""
    db = db_with_a_rate
    for number in (1, 3, 5, 6):
        await db.execute(conversion(f"known {number}", f"p{number}"))
    async with connections(database_url, 3) as (blocker, one, other):
        await blocker.execute(
            "BEGIN; UPDATE affiliate_daily SET updated_at = now() WHERE pixel_id IN ('p5', 'p6')"
        )
        settling = [
            asyncio.create_task(
                connection.execute(
                    f"BEGIN; {refund(f'known {changed}')}; {refund(f'known {last}')}; "
                    f"{conversion(f'new {added}', f'p{added}')}; COMMIT"
                )
            )
            for connection, changed, last, added in ((one, 3, 5, 1), (other, 1, 6, 3))
        ]

        async def both_wait():
            return (
                await db.fetchval(
                    "SELECT count(*) FROM pg_stat_activity WHERE pid = ANY ($1) AND wait_event_type = 'Lock'",
                    [one.get_server_pid(), other.get_server_pid()],
                )
                == 2
            )

        await eventually(both_wait, deadline=10, every=0.002)
        await blocker.execute("COMMIT")
        await asyncio.gather(*settling)
    assert len((await outcome(db)).attributions) == 6
