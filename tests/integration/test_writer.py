"""One batch, one transaction: fence, dead letters, ledgers and account, whole or not at all."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest

from counterfoil.coupons.handlers import RecordCouponUsages
from counterfoil.errors import HaltingFailure, PoisonRecord, TransientFailure
from counterfoil.ingest.failures import classify
from counterfoil.ingest.partitions import Partition
from counterfoil.ingest.positions import Positions
from support.builders import (
    CANCELED,
    PLACED,
    a_cancellation,
    a_promotion,
    a_record,
    an_order,
    later,
    records_of,
)
from support.postgres_ledgers import assert_counters_equal_ledgers, coupon_counts, promo_counts
from support.postgres_road import scribes
from support.schedules import attempt_that_breaks
from support.waiting import eventually

OTHER = Partition(PLACED.topic, 1)


@pytest.fixture
async def worker(database_url):
    async with scribes(database_url) as (one,):
        yield one


@pytest.fixture
async def two_workers(database_url):
    async with scribes(database_url, 2) as both:
        yield both


async def account(db, partition=PLACED) -> dict[str, int]:
    row = await db.fetchrow(
        "SELECT next_offset, applied, duplicates, dead, skipped FROM stream_positions "
        'WHERE topic = $1 AND "partition" = $2',
        *partition,
    )
    return dict(row)


def counts(next_offset, *, applied=0, duplicates=0, dead=0, skipped=0):
    return locals()


async def nothing_is_written(db) -> bool:
    tables = (
        "affiliate_coupon_usages",
        "promo_code_uses",
        "order_cancellations",
        "dead_letters",
        "affiliate_coupons",
    )
    rows = [await db.fetchval(f"SELECT count(*) FROM {table}") for table in tables]
    moved = await db.fetchval("SELECT count(*) FROM stream_positions WHERE next_offset > 0")
    return not any(rows) and not moved


# What is written


async def test_a_batch_is_written_with_its_ledgers_dead_letters_and_account(db, worker):
    records = records_of(
        an_order("1", codes=["A"], promotions=[a_promotion("P", base=10, bonus=5)]),
        b"not json",
        an_order("2"),
        an_order("1", codes=["A"]),
        None,
    )
    written = await worker.write([*records, *records_of(a_cancellation("2"), partition=CANCELED)])
    assert not written.stale
    assert await account(db) == counts(5, applied=2, duplicates=1, dead=2)
    assert await account(db, CANCELED) == counts(1, applied=1)
    assert await coupon_counts(db) == {"A": (1, 1), "P": (1, 1)}
    assert await promo_counts(db) == {"P": (1, 5)}
    parked = await db.fetch('SELECT "offset", value FROM dead_letters ORDER BY "offset"')
    assert [tuple(row) for row in parked] == [(1, b"not json"), (4, None)]


async def test_a_ledger_row_names_its_record(db, worker):
    await worker.write(
        [*records_of(an_order(), first=0), *records_of(an_order("1", codes=["A"]), partition=OTHER)]
    )
    row = await db.fetchrow(
        'SELECT s.topic, s."partition", u.source_offset FROM affiliate_coupon_usages AS u '
        "JOIN stream_sources AS s ON s.id = u.source_id"
    )
    assert tuple(row) == (*OTHER, 0)


async def test_an_order_without_codes_is_applied_each_time_it_comes(db, worker):
    await worker.write(records_of(an_order("1"), an_order("1"), an_order("1")))
    assert await account(db) == counts(3, applied=3)


@pytest.mark.parametrize(
    ("first", "again", "outcome"),
    [
        (an_order(codes=["A"]), an_order(codes=["A"]), "duplicates"),
        (an_order(codes=["A"]), an_order(codes=["A", "B"]), "applied"),
        (an_order(codes=["A", "B"]), an_order(codes=["B"]), "duplicates"),
        (an_order(codes=["A"]), an_order(codes=["A"], timestamp=later(-9)), "applied"),
        (an_order(codes=["A"]), an_order(codes=["A"], timestamp=later(9)), "duplicates"),
        (an_order(codes=["A"]), an_order(promotions=[a_promotion("A")]), "applied"),
        (
            an_order(promotions=[a_promotion("A", bonus=5)]),
            an_order(promotions=[a_promotion("A", bonus=4)]),
            "applied",
        ),
        (
            an_order(promotions=[a_promotion("A", bonus=5)]),
            an_order(promotions=[a_promotion("A", bonus=6)]),
            "duplicates",
        ),
    ],
)
@pytest.mark.parametrize("together", [True, False], ids=["in one batch", "in two batches"])
async def test_a_record_is_a_duplicate_when_all_that_it_says_is_there(
    db, worker, first, again, outcome, together
):
    records = records_of(first, again)
    for batch in [records] if together else [records[:1], records[1:]]:
        await worker.write(batch)
    # in one batch it is open which of the two records brought the row; that one did, and the other not, is certain
    expected = counts(2, applied=2) if outcome == "applied" else counts(2, applied=1, duplicates=1)
    found = await account(db)
    if together and outcome == "applied":
        assert found["applied"] >= 1
        assert found["applied"] + found["duplicates"] == 2
    else:
        assert found == expected


async def test_a_cancellation_that_changes_nothing_is_a_duplicate(db, worker):
    await worker.write(records_of(a_cancellation(timestamp=later(5), reason="b"), partition=CANCELED))
    again = [
        a_cancellation(timestamp=later(5), reason="b"),
        a_cancellation(timestamp=later(6), reason="a"),
        a_cancellation(timestamp=later(5), reason="c"),
    ]
    await worker.write(records_of(*again, partition=CANCELED, first=1))
    await worker.write(
        records_of(a_cancellation(timestamp=later(5), reason="a"), partition=CANCELED, first=4)
    )
    assert await account(db, CANCELED) == counts(5, applied=2, duplicates=3)
    assert await db.fetchval("SELECT reason FROM order_cancellations") == "a"


async def test_a_late_order_of_a_canceled_one_is_applied_and_does_not_count(db, worker):
    await worker.write(records_of(a_cancellation("1"), partition=CANCELED))
    await worker.write(records_of(an_order("1", codes=["A"], promotions=[a_promotion("P")])))
    assert await account(db) == counts(1, applied=1)
    assert await coupon_counts(db) == {"A": (0, 0), "P": (0, 0)}
    assert await promo_counts(db) == {"P": (0, 0)}


async def test_skipped_offsets_close_the_account(db, worker):
    value = an_order(codes=["A"]).to_json()
    await worker.write([a_record(2, value), a_record(5, value), a_record(6, b"not json")])
    assert await account(db) == counts(7, applied=1, duplicates=1, dead=1, skipped=4)


async def test_what_the_log_had_lost_is_kept_with_its_account(db, worker):
    await worker.hold([PLACED])
    worker.states[PLACED].log_begin = 4
    before, after = records_of(an_order("1"), first=4), records_of(an_order("2"), first=9)
    with pytest.raises(TransientFailure):
        await attempt_that_breaks(worker, before)
    assert await lost(db) == []
    await worker.write(before)
    await worker.write(after)  # from 5 to 9 there is a gap as well, and the log reaches further back
    assert await account(db) == counts(10, applied=2, skipped=8)
    assert await lost(db) == [("cluster-1", "counterfoil", PLACED.topic, 0, 0, 4)]


async def lost(db) -> list[tuple[object, ...]]:
    rows = await db.fetch("SELECT * FROM lost_offsets ORDER BY first_offset")
    return [tuple(row)[:-1] for row in rows]


async def test_the_last_record_of_the_account_is_its_anchor(db, worker):
    await worker.write([a_record(0, b"{}", timestamp=1_000), a_record(1, b"{}", timestamp=2_345)])
    await worker.hold([PLACED])
    assert worker.states[PLACED].anchor == (1, 2_345)


async def test_a_record_without_a_timestamp_is_kept_like_any_other(db, worker):
    await worker.write([a_record(0, b"{}", timestamp=-1)])
    assert await account(db) == counts(1, dead=1)
    assert await db.fetchval("SELECT record_timestamp < '1970-01-01Z' FROM dead_letters")


# The fence


async def test_a_stale_partition_is_dropped_alone(db, two_workers):
    owner, zombie = two_workers
    await zombie.hold([PLACED, OTHER])
    await owner.write(records_of(an_order("1", codes=["A"])))
    written = await zombie.write(
        [
            *records_of(an_order("x", codes=["X"]), b"not json"),
            *records_of(an_order("2", codes=["A"]), partition=OTHER),
        ]
    )
    assert written.stale == {PLACED}
    assert [found.partition for found in written.accounts] == [OTHER]
    assert (await account(db), await account(db, OTHER)) == (counts(1, applied=1), counts(1, applied=1))
    assert await coupon_counts(db) == {"A": (2, 2)}
    assert await db.fetchval("SELECT count(*) FROM dead_letters") == 0


async def test_two_workers_with_one_batch_write_it_once(db, two_workers):
    records = records_of(*(an_order(str(n), codes=["A"]) for n in range(20)))
    for worker in two_workers:
        await worker.hold([PLACED])
    written = await asyncio.gather(*(worker.write(records) for worker in two_workers))
    assert sorted(len(w.accounts) for w in written) == [0, 1]
    assert await account(db) == counts(20, applied=20)
    assert await coupon_counts(db) == {"A": (20, 20)}


async def test_a_position_that_is_gone_is_stale(db, worker):
    await worker.hold([PLACED])
    await db.execute("DELETE FROM stream_positions")
    assert (await worker.write(records_of(an_order("1", codes=["A"])))).stale == {PLACED}
    assert await nothing_is_written(db)


async def test_groups_and_clusters_have_positions_of_their_own(db, database_url, worker):
    records = records_of(an_order("1", codes=["A"]))
    await worker.write(records)
    async with scribes(database_url, group="another") as (other,):
        await other.write(records)
    other = Positions("cluster-2", worker.positions.group)
    assert await other.lock(db, [PLACED]) == {}
    assert await db.fetch("SELECT applied, duplicates FROM stream_positions ORDER BY consumer_group") == [
        (0, 1),
        (1, 0),
    ]


async def test_a_replaced_log_begins_a_new_account_and_keeps_the_old_one(db, worker):
    await worker.write(records_of(an_order("1", codes=["A"]), an_order("2", codes=["A"])))
    await worker.positions.restart(db, PLACED, 2, 0, "recreated")
    await worker.positions.restart(db, PLACED, 2, 0, "somebody else was first")
    retired = await db.fetch("SELECT next_offset, applied, reason FROM stream_positions_retired")
    assert [tuple(row) for row in retired] == [(2, 2, "recreated")]
    await worker.hold([PLACED])
    assert worker.states[PLACED].anchor is None
    await worker.write(records_of(an_order("2", codes=["A"]), an_order("3", codes=["A"])))
    assert await account(db) == counts(2, applied=1, duplicates=1)
    assert await coupon_counts(db) == {"A": (3, 3)}


# Failures


async def test_poison_leaves_nothing(db, worker):
    await worker.hold([PLACED])
    batch = await worker.batch_of(
        records_of(an_order("1", codes=["A"]), b"not json", an_order("2", codes=["A"]))
    )
    batch.chunks[0].events[1] = an_order("2", codes=["nul \0"])
    with pytest.raises(PoisonRecord, match=r"^22021 "):
        await worker.write_batch(batch)
    assert await nothing_is_written(db)
    await worker.write(records_of(an_order("1", codes=["A"])))
    assert await coupon_counts(db) == {"A": (1, 1)}


async def test_the_reason_of_poison_quotes_no_value(db, worker):
    await worker.hold([PLACED])
    batch = await worker.batch_of(records_of(an_order("1", codes=["A"])))
    batch.chunks[0].events[0] = an_order("", codes=["secret"])
    with pytest.raises(PoisonRecord) as caught:
        await worker.write_batch(batch)
    assert str(caught.value) == "23514 order_id_not_blank"


async def test_a_connection_killed_in_the_transaction_is_transient_and_the_next_write_works(
    db, worker, monkeypatch
):
    await worker.hold([PLACED])
    write = RecordCouponUsages.write

    async def write_then_die(self, connection, plan):
        outcome = await write(self, connection, plan)
        await db.execute("SELECT pg_terminate_backend($1)", connection.get_server_pid())
        return outcome

    records = records_of(an_order("1", codes=["A"], promotions=[a_promotion("P")]))
    monkeypatch.setattr(RecordCouponUsages, "write", write_then_die)
    with pytest.raises(TransientFailure):
        await worker.write(records)
    assert await nothing_is_written(db)
    monkeypatch.undo()
    await worker.write(records)
    assert await coupon_counts(db) == {"A": (1, 1), "P": (1, 1)}


async def test_an_idle_connection_that_was_killed_is_transient_and_the_next_write_works(db, worker):
    await worker.write(records_of(an_order("1", codes=["A"])))
    await db.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    following = records_of(an_order("2", codes=["A"]), first=1)
    with pytest.raises(TransientFailure):
        await worker.write(following)
    # the pool may hold another one that was killed, and say so
    await eventually(lambda: worker.write(following), ignoring=(TransientFailure,))
    assert await coupon_counts(db) == {"A": (2, 2)}


async def test_a_commit_whose_answer_was_lost_is_found_by_the_next_attempt(db, worker, monkeypatch):
    """Committed, but the worker never heard of it: the same batch again is stale, and nothing counts twice."""
    await worker.hold([PLACED])
    records = records_of(an_order("1", codes=["A"]), b"not json")
    commit = asyncpg.transaction.Transaction.commit

    async def commit_unheard(self):
        await commit(self)
        if self._connection.is_in_transaction():
            return
        raise ConnectionResetError("the line broke")

    with monkeypatch.context() as broken:
        broken.setattr(asyncpg.transaction.Transaction, "commit", commit_unheard)
        with pytest.raises(TransientFailure):
            await worker.write(records)
    assert (await worker.write(records)).stale == {PLACED}
    await worker.hold([PLACED])
    assert worker.states[PLACED].stored == 2
    assert await account(db) == counts(2, applied=1, dead=1)
    assert await coupon_counts(db) == {"A": (1, 1)}


async def test_an_attempt_that_takes_too_long_is_given_up_and_rolled_back(db, database_url):
    async with scribes(database_url, timeout_s=0.3) as (worker,):
        await worker.hold([PLACED])
        async with db.transaction():
            await db.execute("LOCK TABLE affiliate_coupon_usages IN EXCLUSIVE MODE")
            with pytest.raises(TransientFailure, match="TimeoutError"):
                await worker.write(records_of(an_order("1", codes=["A"])))
        assert await nothing_is_written(db)
        await worker.write(records_of(an_order("1", codes=["A"])))
    assert await coupon_counts(db) == {"A": (1, 1)}


async def test_a_cancelled_write_gives_its_connection_up(db, worker):
    await worker.hold([PLACED])
    async with db.transaction():
        await db.execute("LOCK TABLE affiliate_coupon_usages IN EXCLUSIVE MODE")
        writing = asyncio.create_task(worker.write(records_of(an_order("1", codes=["A"]))))
        await asyncio.sleep(0.05)
        writing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await writing
    assert await nothing_is_written(db)
    await worker.write(records_of(an_order("1", codes=["A"])))
    assert await coupon_counts(db) == {"A": (1, 1)}


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("bigint", 2**70),
        ("bigint[]", 2**70),
        ("bigint", "x"),
        ("text", 5),
        ("text", "\ud800"),
        ("text[]", "\ud800"),
    ],
)
async def test_what_the_client_cannot_send_is_poison(db, kind, value):
    with pytest.raises(Exception) as caught:  # noqa: PT011 - asyncpg has no common base for these
        await db.fetch(f"SELECT $1::{kind}", [value] if kind.endswith("[]") else value)
    assert isinstance(classify(caught.value), PoisonRecord)


async def test_a_missing_table_halts(db, worker):
    await worker.hold([PLACED])
    await db.execute("ALTER TABLE affiliate_coupon_usages RENAME TO gone")
    with pytest.raises(HaltingFailure, match=r"^42P01 "):
        await worker.write(records_of(an_order("1", codes=["A"])))


async def test_the_largest_rewards_that_the_rules_accept_are_no_poison(db, worker):
    largest = "99999999999999.999999"
    await worker.write(records_of(an_order(promotions=[a_promotion("P", base=largest, bonus=largest)])))
    assert await account(db) == counts(1, applied=1)


async def test_a_worker_beside_promo_codes_made_by_hand_parks_nothing(db, worker):
    await db.execute("INSERT INTO promo_codes (id, code) VALUES (1, 'BY HAND')")
    await worker.write(records_of(an_order(promotions=[a_promotion("NEW")])))
    assert await promo_counts(db) == {"BY HAND": (0, 0), "NEW": (1, 5)}
    await assert_counters_equal_ledgers(db)


@pytest.mark.parametrize("timestamp", [1_700_000_000_000_000, 2**63 - 1, -(2**62)])
async def test_a_record_stamped_out_of_all_bounds_is_accounted_for_like_any_other(db, worker, timestamp):
    order = b'{"order_id": "1", "codes": ["A"], "timestamp": "2026-01-01T00:00:00Z"}'
    await worker.write(
        [a_record(0, b"no json", timestamp=timestamp), a_record(1, order, timestamp=timestamp)]
    )
    found = await account(db)
    assert found["next_offset"] == 2
    assert found["applied"] + found["dead"] == 2
