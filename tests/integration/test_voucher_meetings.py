"""Facts of one voucher in two open transactions, and many workers at once: counts stay right, nobody deadlocks."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from counterfoil.database.counters import find_drift
from counterfoil.database.facts import Facts
from counterfoil.database.queries import sql
from counterfoil.errors import TransientFailure
from counterfoil.events import Event
from counterfoil.ingest.partitions import Partition
from counterfoil.ingest.writer import hold_rows, plan_events, write_steps
from counterfoil.routing import routes
from counterfoil.vouchers.store import VOUCHER_COUNTERS
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
from support.meetings import meet
from support.postgres_ledgers import VOUCHERS, connections, empty, waits_for_a_lock
from support.postgres_road import Scribe, plain_settings, scribes
from support.voucher_model import counts_of, exact, ledgers_of, stored_counts, stored_ledgers, told_by
from support.waiting import eventually

LEDGERS = ["voucher_scans", "voucher_impressions", "customer_vouchers", "redemption_attempts"]
ROUTES = {route.name: route for route in routes(plain_settings(), b"key")}


async def write(connection: asyncpg.Connection, *events: Event) -> None:
    """Write events as a worker does, in the caller's transaction."""
    steps = []
    for topic, route in ROUTES.items():
        told = [event for event in events if event.topic == topic]
        if told:
            facts = Facts(told, [1] * len(told), list(range(len(told))), origin=lambda i: f"log/{i}")
            steps += await plan_events(route, facts)
    await hold_rows(connection, steps)
    for step in steps:
        await write_steps(connection, [step])


async def sound(db: asyncpg.Connection) -> bool:
    assert await exact(db)
    assert await find_drift(db, VOUCHER_COUNTERS) == []
    return True


DAY = 86_400
FACTS = {
    "a voucher": a_voucher_event(business_id="b", expires_at=later(9 * DAY)),
    "another content of the voucher": a_voucher_event(timestamp=later(-5), title="earlier"),
    "an impression": an_impression_event(impression_id="i"),
    "another content of the impression": an_impression_event(impression_id="i", timestamp=later(-DAY)),
    "a scan": a_scan_event(scan_id="s", user_id="c1"),
    "a scan of the day before": a_scan_event(scan_id="t", user_id="c1", timestamp=later(-DAY)),
    "a scan of the day after": a_scan_event(scan_id="u", user_id="c1", timestamp=later(DAY)),
    "an earlier scan of the day": a_scan_event(scan_id="w", user_id="c1", timestamp=later(-60)),
    "somebody else's scan": a_scan_event(scan_id="x", user_id="c2", location='{"city": "Graz"}'),
    "a claim": a_claim_event(timestamp=later(10)),
    "an earlier claim": a_claim_event(timestamp=later(5), metadata='{"from": "here"}'),
    "a redemption": a_redemption_event(attempt_id="a", timestamp=later(20)),
    "an earlier redemption": a_redemption_event(attempt_id="b", timestamp=later(15)),
    "another content of the redemption": a_redemption_event(attempt_id="a", successful=False, timestamp=later(3)),
    "somebody else's content of the redemption": a_redemption_event("v1", "c2", attempt_id="a", timestamp=later(2)),
}  # fmt: skip


@pytest.mark.parametrize("known", [False, True], ids=["nothing is known", "other contents of all are known"])
async def test_any_two_facts_in_two_open_transactions_meet(db, database_url, known):
    """Each fact with each other and with itself, in either order; where much is known, each pair in one of the two."""
    pairs = list(itertools.product(FACTS, repeat=2))
    if known:
        pairs = [
            pair[:: (-1) ** n] for n, pair in enumerate(itertools.combinations_with_replacement(FACTS, 2))
        ]
    async with connections(database_url, 2) as (one, other):
        for first, second in pairs:
            earlier = [others_content(name) for name in FACTS if name not in {first, second}] if known else []
            sides = [lambda c, e=FACTS[name]: write(c, e) for name in (first, second)]
            await empty(db, VOUCHERS)
            async with db.transaction():
                await write(db, *earlier)
            await meet(db, one, other, *sides)
            expected = ledgers_of(told_of([*earlier, FACTS[first], FACTS[second]]))
            assert await stored_ledgers(db) == expected, (first, second)
            assert await stored_counts(db) == counts_of(expected, NOON), (first, second)
    assert await find_drift(db, VOUCHER_COUNTERS) == []


def others_content(name: str) -> Event:
    """The same fact at another time; of a scan that would be another one."""
    event = FACTS[name]
    return event if event.topic == "scan" else type(event)(**{**fields_of(event), "timestamp": later(4)})


def fields_of(event: Event) -> dict[str, object]:
    return {name: getattr(event, name) for name in event.__struct_fields__}


def told_of(events: list[Event]):
    """What these events tell, written as a publisher writes them."""
    logs = {}
    for event in events:
        logs.setdefault(Partition(event.topic, 0), []).append(records_of(event)[0])
    return told_by(logs)


BY_HAND = {
    "a scan goes": "DELETE FROM voucher_scans WHERE scan_id = 's'",
    "a scan becomes somebody else's": "UPDATE voucher_scans SET user_id = 'c2' WHERE scan_id = 's'",
    "a scan moves to another day": "UPDATE voucher_scans SET occurred_at = '2026-02-20' WHERE scan_id = 's'",
    "a scan moves to another voucher": "UPDATE voucher_scans SET voucher_id = 'v0' WHERE scan_id = 's'",
    "a redemption goes": "DELETE FROM redemption_attempts WHERE attempt_id = 'a'",
    "a redemption fails": "UPDATE redemption_attempts SET successful = false WHERE attempt_id = 'a'",
    "a redemption becomes somebody else's": "UPDATE redemption_attempts SET customer_id = 'c5' WHERE attempt_id = 'a'",
    "an impression goes": "DELETE FROM voucher_impressions",
    "a claim becomes somebody else's": "UPDATE customer_vouchers SET customer_id = 'c5' WHERE customer_id = 'c7'",
    "all scans go": "TRUNCATE voucher_scans",
}  # fmt: skip
NEW = {
    "a scan": a_scan_event(scan_id="new", user_id="c1", timestamp=later(-30)),
    "a scan of the day before": a_scan_event(scan_id="new", user_id="c1", timestamp=later(-DAY)),
    "somebody else's scan": a_scan_event(scan_id="new", user_id="c5"),
    "a claim": a_claim_event(timestamp=later(-40)),
    "a claim of somebody else": a_claim_event(customer_id="c5"),
    "a redemption": a_redemption_event(attempt_id="new", timestamp=later(-50)),
    "a redemption of somebody else": a_redemption_event(customer_id="c5", attempt_id="new", timestamp=later(-50)),
}  # fmt: skip


@pytest.mark.parametrize("by_hand_first", [True, False])
async def test_what_is_done_by_hand_and_a_new_fact_meet(db, database_url, by_hand_first):
    async with connections(database_url, 2) as (one, other):
        for by_hand, new in itertools.product(BY_HAND, NEW):
            await empty(db, VOUCHERS)
            async with db.transaction():
                await write(db, *FACTS.values(), a_claim_event(customer_id="c7", timestamp=later(1)))
            sides = [lambda c, s=BY_HAND[by_hand]: c.execute(s), lambda c, e=NEW[new]: write(c, e)]
            with contextlib.suppress(asyncpg.UniqueViolationError):  # this one has claimed it himself by then
                await meet(db, one, other, *(sides if by_hand_first else reversed(sides)))
            assert await exact(db, f"{by_hand}, {new}")


@pytest.mark.parametrize("isolation", ["REPEATABLE READ", "SERIALIZABLE"])
@pytest.mark.parametrize(
    "late",
    [
        """INSERT INTO voucher_scans (scan_id, voucher_id, user_id, scan_type, scan_source)
           VALUES ('new', 'v1', 'c2', 'CUSTOMER', 'LINK')""",
        "UPDATE voucher_scans SET user_id = 'c3' WHERE scan_id = 'x'",
        "INSERT INTO customer_vouchers (customer_id, voucher_id) VALUES ('c9', 'v1')",
        "UPDATE redemption_attempts SET customer_id = 'c2'",
        "DELETE FROM voucher_impressions",
    ],
)
async def test_a_snapshot_that_is_older_than_what_it_waits_for_is_refused(db, database_url, isolation, late):
    """It would count a user as new whose scan was committed meanwhile, or miss him whom a redemption has become."""
    await write(db, *FACTS.values())
    async with connections(database_url, 1) as (one,):
        await one.execute(f"BEGIN ISOLATION LEVEL {isolation}; SELECT count(*) FROM vouchers")
        await db.execute("UPDATE voucher_scans SET user_id = 'c2' WHERE scan_id = 's'")
        with pytest.raises(asyncpg.FeatureNotSupportedError, match="READ COMMITTED"):
            await one.execute(late)
    assert await sound(db)


# The clock


async def let_expire(connection: asyncpg.Connection) -> None:
    await connection.execute("SELECT expire_claims(100)")


async def extend(connection: asyncpg.Connection) -> None:
    await connection.execute("UPDATE vouchers SET expires_at = now() + interval '1 day'")


async def tell_of_a_longer_time(connection: asyncpg.Connection) -> None:
    await write(connection, a_voucher_event(expires_at=datetime.now(UTC) + timedelta(days=1)))


@pytest.fixture
async def expired(db):
    """A voucher whose time has passed, and its claim."""
    await db.execute(
        "INSERT INTO customer_vouchers (customer_id, voucher_id, claimed_at) VALUES ('c1', 'v1', $1)", NOON
    )
    await db.execute("UPDATE vouchers SET expires_at = now() - interval '1 second'")
    return db


@pytest.mark.parametrize("longer", [extend, tell_of_a_longer_time])
@pytest.mark.parametrize("clock_first", [True, False])
async def test_the_clock_and_a_longer_time_meet_and_the_claim_is_open(
    expired, database_url, longer, clock_first
):
    db = expired
    async with connections(database_url, 2) as (one, other):
        sides = [let_expire, longer]
        await meet(db, one, other, *(sides if clock_first else reversed(sides)))
    assert await db.fetchval("SELECT status FROM customer_vouchers") == "CLAIMED"
    assert await sound(db)


@pytest.mark.parametrize("clock_first", [True, False])
async def test_the_clock_and_a_redemption_meet_and_it_is_redeemed(expired, database_url, clock_first):
    db = expired
    async with connections(database_url, 2) as (one, other):
        sides = [let_expire, lambda c: write(c, a_redemption_event())]
        await meet(db, one, other, *(sides if clock_first else reversed(sides)))
    assert await db.fetchval("SELECT status FROM customer_vouchers") == "REDEEMED"
    assert await sound(db)


@pytest.mark.parametrize("clock_first", [True, False])
async def test_the_clock_and_other_facts_of_the_voucher_meet(expired, database_url, clock_first):
    db = expired
    facts = [
        a_scan_event(user_id="c1", timestamp=later(-9)),
        a_claim_event("v1", "c2"),
        a_claim_event(timestamp=later(-5)),
    ]
    async with connections(database_url, 2) as (one, other):
        sides = [let_expire, lambda c: write(c, *facts)]
        await meet(db, one, other, *(sides if clock_first else reversed(sides)))
    assert await sound(db)


async def test_two_clocks_at_once_expire_each_claim_once(expired, database_url):
    db = expired
    async with connections(database_url, 2) as (one, other):
        await meet(db, one, other, let_expire, let_expire)
    assert await db.fetchval("SELECT status FROM customer_vouchers") == "EXPIRED"


# Whoever holds several vouchers holds them in one order


async def both_wait(db: asyncpg.Connection, *waiting: asyncpg.Connection) -> bool:
    await db.execute("SELECT pg_stat_clear_snapshot()")
    pids = [connection.get_server_pid() for connection in waiting]
    waits = "SELECT count(*) FROM pg_stat_activity WHERE pid = ANY ($1) AND wait_event_type = 'Lock'"
    return bool(await db.fetchval(waits, pids) == len(pids))


async def wait_for_each_other(db, database_url, blocker: str, first: list[Event], then: list[Event]) -> None:
    """Both come to wait behind what somebody else holds, the one before the other, and are let go."""
    async with connections(database_url, 3) as (holder, one, other):

        async def whole(connection: asyncpg.Connection, events: list[Event]) -> None:
            async with connection.transaction():
                await write(connection, *events)

        opened = holder.transaction()
        await opened.start()
        await holder.execute(blocker)
        writing = [asyncio.create_task(whole(one, first))]
        await waits_for_a_lock(db, one)
        writing.append(asyncio.create_task(whole(other, then)))
        await eventually(lambda: both_wait(db, one, other), deadline=10, every=0.002)
        await opened.commit()
        await asyncio.gather(*writing)


SCANS_OF_TWO = [a_scan_event("v1", scan_id="s1"), a_scan_event("v2", scan_id="s2")]
HOLD_V1 = "SELECT hold_vouchers(ARRAY['v1'])"


async def test_a_batch_of_several_topics_holds_all_its_vouchers_before_it_writes(db, database_url):
    """Each has written its claim, and then wants the voucher of the other's: it must have held it before."""
    await wait_for_each_other(
        db,
        database_url,
        "LOCK TABLE voucher_scans IN SHARE MODE",
        [a_claim_event("v2"), a_scan_event("v1", scan_id="s1")],
        [a_claim_event("v1"), a_scan_event("v2", scan_id="s2")],
    )
    assert await sound(db)


async def test_vouchers_known_and_new_are_held_in_one_order(db, database_url):
    """Of a batch of voucher.created one is known already: it is told of after the new ones are made."""
    await write(db, a_scan_event("v1", scan_id="s0"))
    created = [a_voucher_event("v0"), a_voucher_event("v1"), a_voucher_event("v2")]
    await wait_for_each_other(db, database_url, HOLD_V1, SCANS_OF_TWO, created)
    assert await sound(db)


async def test_impressions_known_and_new_hold_their_vouchers_in_one_order(db, database_url):
    """Of a batch one is known already and gives way: it is counted after the new ones are."""
    await write(db, an_impression_event("v1", impression_id="i1"))
    shown = [
        an_impression_event("v1", impression_id="i1", timestamp=later(-DAY)),
        an_impression_event("v2", impression_id="i2"),
    ]
    await wait_for_each_other(db, database_url, HOLD_V1, SCANS_OF_TWO, shown)
    assert await sound(db)


async def test_claims_and_attempts_hold_their_vouchers_in_one_order(db, database_url):
    await write(db, a_claim_event("v1"), a_redemption_event("v1", attempt_id="a1"))
    for number, told in enumerate([
        [a_claim_event("v1", timestamp=later(-DAY)), a_claim_event("v2")],
        [a_redemption_event("v1", attempt_id="a1", timestamp=later(-DAY)), a_redemption_event("v2", attempt_id="a2")],
    ]):  # fmt: skip
        scans = [a_scan_event(v, scan_id=f"{v} {number}") for v in ("v1", "v2")]
        await wait_for_each_other(db, database_url, HOLD_V1, scans, told)
    assert await sound(db)


# Many at once


def a_crowd(dice: random.Random, topic: str, number: int) -> Event:
    """A fact of few vouchers and people, so that they meet often."""
    voucher, person = f"v{dice.randrange(6)}", f"c{dice.randrange(25)}"
    at = NOON - timedelta(days=dice.randrange(4), seconds=dice.randrange(1_000))
    match topic:
        case "voucher.created":
            return a_voucher_event(voucher, title=dice.choice(["a", "b"]), timestamp=at)
        case "impression":
            return an_impression_event(
                voucher, impression_id=f"{voucher} {dice.randrange(200)}", timestamp=at
            )
        case "scan":
            user, place = dice.choice([person, None]), dice.choice([None, '{"city": "Graz"}'])
            return a_scan_event(voucher, scan_id=f"{number}", user_id=user, location=place, timestamp=at)
        case "claim":
            return a_claim_event(voucher, person, timestamp=at)
        case _:
            return a_redemption_event(
                voucher,
                person,
                attempt_id=f"{voucher} {dice.randrange(100)}",
                successful=dice.random() < 0.7,
                timestamp=at,
            )


TOPICS = {"voucher.created": 2, "impression": 10, "claim": 10, "redemption": 6, "scan": 25}
"""How many of each a batch has at most."""


def batches_of(worker: int, count: int) -> list[list]:
    """Batches of all five topics, one of them or some, each in an order of its own."""
    dice, ends = random.Random(worker), dict.fromkeys(TOPICS, 0)
    batches = []
    for _ in range(count):
        records = []
        for topic in dice.sample(list(TOPICS), k=dice.choice([1, 2, 5, 5])):
            events = [
                a_crowd(dice, topic, 1_000_000 * worker + ends[topic] + n)
                for n in range(dice.randint(1, TOPICS[topic]))
            ]
            records += records_of(*events, partition=Partition(topic, worker), first=ends[topic])
            ends[topic] += len(events)
        batches.append(records)
    return batches


async def deadlocks(db: asyncpg.Connection) -> int:
    await db.execute("SELECT pg_stat_clear_snapshot()")
    return int(await db.fetchval("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"))


async def test_many_workers_on_the_same_vouchers_never_deadlock(db, database_url):
    """All five topics in a batch, while the clock and the wallets' owners write, too."""
    batches = [batches_of(worker, 15) for worker in range(8)]
    done = asyncio.Event()
    async with scribes(database_url, 8) as workers, connections(database_url, 2) as (clock, owner):

        async def work(worker: Scribe, own: list[list]) -> None:
            for batch in own:
                assert not (await worker.write(batch)).stale  # it would raise what a deadlock is

        async def pass_time() -> None:
            for expires_at in itertools.cycle(["now() - interval '1 hour'", "NULL"]):
                if done.is_set():
                    return
                await clock.execute(f"UPDATE vouchers SET expires_at = {expires_at} WHERE id = 'v3'")
                await clock.execute("SELECT expire_claims(3)")

        async def look_at_wallets() -> None:
            for voucher in itertools.cycle(f"v{n}" for n in range(6)):
                if done.is_set():
                    return
                await owner.execute(sql("change_in_wallet"), "c3", voucher, "{}", NOON)

        meanwhile = [asyncio.create_task(pass_time()), asyncio.create_task(look_at_wallets())]
        await asyncio.gather(*(work(worker, own) for worker, own in zip(workers, batches, strict=True)))
        done.set()
        await asyncio.gather(*meanwhile)
    logs: dict[Partition, list] = {}
    for record in itertools.chain.from_iterable(itertools.chain.from_iterable(batches)):
        logs.setdefault(Partition(record.topic, record.partition), []).append(record)
    expected, found = ledgers_of(told_by(logs)), await stored_ledgers(db)
    expected.vouchers["v3"] = found.vouchers["v3"]
    assert found == expected
    assert await sound(db)
    assert await deadlocks(db) == 0


async def test_scans_taken_away_and_changed_by_hand_meanwhile_never_deadlock(db, database_url):
    """Their vouchers are held in order, too, whichever order their rows are found in."""
    done = asyncio.Event()
    async with scribes(database_url, 3) as workers, connections(database_url, 2) as (one, other):

        async def work(number: int, worker: Scribe) -> None:
            dice = random.Random(number)
            for batch in range(20):
                told = [
                    a_scan_event(f"v{dice.randrange(40):02}", user_id=f"c{dice.randrange(9)}",
                                 timestamp=later(-dice.randrange(3) * DAY))
                    for _ in range(60)
                ]  # fmt: skip
                await worker.write(records_of(*told, partition=Partition("scan", number), first=60 * batch))

        async def tidy(operator: asyncpg.Connection, change: str) -> None:
            for user in itertools.cycle(range(9)):
                if done.is_set():
                    return
                theirs = f"WHERE user_id = 'c{user}' AND right(scan_id, 1)"
                await operator.execute(f"DELETE FROM voucher_scans {theirs} IN ('1', '2', 'a', 'b')")
                await operator.execute(f"UPDATE voucher_scans SET {change} {theirs} IN ('3', 'c')")

        tidying = [tidy(one, "user_id = 'c1'"), tidy(other, "occurred_at = occurred_at - interval '1 day'")]
        meanwhile = [asyncio.create_task(task) for task in tidying]
        await asyncio.gather(*(work(number, worker) for number, worker in enumerate(workers)))
        done.set()
        await asyncio.gather(*meanwhile)
    assert await sound(db)
    assert await deadlocks(db) == 0


def a_statement(dice: random.Random) -> str:
    """Something that somebody does to many rows of the ledgers, in whatever order he finds them."""
    voucher, person, other = (
        f"'{kind}{dice.randrange(count)}'" for kind, count in (("v", 6), ("c", 25), ("c", 25))
    )
    return dice.choice(
        [
            f"DELETE FROM customer_vouchers WHERE customer_id = {person}",
            f"UPDATE customer_vouchers SET claimed_at = claimed_at - interval '1 day' WHERE voucher_id = {voucher}",
            f"DELETE FROM redemption_attempts WHERE customer_id = {person}",
            f"UPDATE redemption_attempts SET customer_id = {other} WHERE customer_id = {person}",
            f"UPDATE redemption_attempts SET successful = NOT successful WHERE voucher_id = {voucher}",
            f"DELETE FROM voucher_impressions WHERE voucher_id = {voucher}",
            f"UPDATE voucher_scans SET user_id = {other} WHERE user_id = {person}",
            f"UPDATE voucher_scans SET voucher_id = {voucher} WHERE user_id = {person}",
            f"TRUNCATE {dice.choice(LEDGERS)}",
            f"SELECT recount_vouchers(ARRAY[{voucher}, 'v0'])",
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
                with contextlib.suppress(asyncpg.DeadlockDetectedError):
                    await connection.execute(a_statement(dice))

        changing = [asyncio.create_task(change(number, person)) for number, person in enumerate(people)]
        await asyncio.gather(*(work(number, worker) for number, worker in enumerate(workers)))
        done.set()
        await asyncio.gather(*changing)
    assert await sound(db)


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


async def test_facts_that_go_from_voucher_to_voucher_are_tried_again_and_counted_once(db, database_url):
    """One id told of two vouchers: which other one it was told of is seen too late to hold both in order."""
    async with scribes(f"{database_url}?deadlock_timeout=5ms", 4) as workers:

        async def work(number: int, worker: Scribe) -> None:
            dice = random.Random(number)
            for batch in range(15):
                told = [
                    a_redemption_event(f"v{dice.randrange(5)}", f"c{dice.randrange(5)}",
                                       attempt_id=f"{dice.randrange(20)}", timestamp=later(-dice.randrange(99)))
                    for _ in range(10)
                ]  # fmt: skip
                records = records_of(*told, partition=Partition("redemption", number), first=10 * batch)
                await until_it_is_written(worker, records)

        await asyncio.gather(*(work(number, worker) for number, worker in enumerate(workers)))
    assert await db.fetchval("SELECT count(*) FROM redemption_attempts") == 20
    assert await sound(db)


async def test_scans_of_one_voucher_by_several_workers_are_counted_exactly(db, database_url):
    scans, size = 100_000, 1_000
    each = scans // 4

    def batch(worker: int, first: int) -> list:
        events = [
            a_scan_event("hot", scan_id=f"{worker} {n}", user_id=f"c{(worker * each + n) % 7_001}",
                         timestamp=NOON - timedelta(seconds=(n * 37) % (3 * DAY)))
            for n in range(first, first + size)
        ]  # fmt: skip
        return records_of(*events, partition=Partition("scan", worker), first=first)

    batches = [[batch(worker, first) for first in range(0, each, size)] for worker in range(4)]
    async with scribes(database_url, 4) as workers:

        async def work(worker: Scribe, own: list[list]) -> None:
            for records in own:
                assert not (await worker.write(records)).stale

        await asyncio.gather(*(work(worker, own) for worker, own in zip(workers, batches, strict=True)))
    assert await db.fetchval("SELECT scan_count FROM vouchers") == scans
    assert await db.fetchval("SELECT count(*) FROM voucher_scans") == scans
    users = "SELECT count(DISTINCT user_id) FROM voucher_scans"
    assert await db.fetchval("SELECT sum(users) FROM voucher_returns WHERE previous_day = '-infinity'") == (
        await db.fetchval(users)
    )
    assert await find_drift(db, VOUCHER_COUNTERS) == []
    assert await deadlocks(db) == 0
