"""Many dead letters at a time: retried exactly once, judged, dropped with a reason, and forgotten in time."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest

from counterfoil.database.counters import find_drift
from counterfoil.errors import HaltingFailure
from counterfoil.events import Rules
from counterfoil.ingest import dead_letters, retry
from counterfoil.ingest.dead_letters import (
    Chosen,
    Verdict,
    drop,
    field_of,
    forget_dead_letters,
    judge,
    measure,
)
from counterfoil.ingest.letter_text import hex_dump, lines_of
from counterfoil.ingest.records import Malformed
from counterfoil.ingest.retry import judge_chosen, retry_chosen, retry_dead_letters
from counterfoil.routing import COUNTERS, routes
from support.builders import a_click_event, a_promotion, a_record, an_order
from support.postgres_ledgers import a_promo_code, connections, coupon_counts, waits_for_a_lock
from support.postgres_road import CLUSTER, plain_settings

KNOWN = {route.topic: (route, Rules.of(plain_settings())) for route in routes(plain_settings(), b"key")}
DECODERS = {topic: route.decode for topic, (route, _) in KNOWN.items()}


async def parked(db, *values: bytes | None, topic: str = "order.placed", partition: int = 0) -> list[int]:
    """Park records of one partition; their ids."""
    first = await db.fetchval("SELECT count(*) FROM dead_letters")
    found = [
        Malformed(
            a_record(first + n, value, topic=topic, partition=partition), "too_large", "must be smaller"
        )
        for n, value in enumerate(values)
    ]
    await dead_letters.park(db, CLUSTER, found)
    return [row["id"] for row in await db.fetch("SELECT id FROM dead_letters ORDER BY id")][first:]


async def retried(db, **stretch: int) -> list[retry.Retried]:
    """Retry all that are open."""
    begin = {"after": 0, "last": (await measure(db, Chosen())).last} | stretch
    return [one async for batch in retry_chosen(db, Chosen(), KNOWN, **begin) for one in batch]


def outcomes(found: list[retry.Retried]) -> list[str]:
    return [one.outcome for one in found]


# Retried


async def test_records_of_several_topics_are_retried_in_one_transaction(db):
    orders = [an_order(str(n), codes=["A"], promotions=[a_promotion("P")]).to_json() for n in range(3)]
    ids = await parked(db, *orders, b"{", orders[0])
    ids += await parked(db, a_click_event(click_id="c").to_json(), topic="click", partition=3)
    ids += await parked(db, b"{}", topic="nowhere")
    found = await retry_dead_letters(db, ids, KNOWN)
    assert [one.id for one in found] == ids
    expected = ["applied", "applied", "applied", "refused", "duplicate", "applied", "refused"]
    assert outcomes(found) == expected
    assert await coupon_counts(db) == {"A": (3, 3), "P": (3, 3)}
    assert await db.fetchval("SELECT count(DISTINCT retried_at) FROM dead_letters") == 1
    rows = await db.fetch("SELECT resolution, error_kind FROM dead_letters ORDER BY id")
    assert [row["resolution"] or row["error_kind"] for row in rows] == [
        "applied",
        "applied",
        "applied",
        "not_json",
        "duplicate",
        "applied",
        "unknown_topic",
    ]
    assert [tuple(row) for row in await db.fetch("SELECT source_offset FROM aff_clicks")] == [(5,)]
    assert await find_drift(db, COUNTERS) == []


async def test_one_that_the_database_refuses_costs_no_other_its_retry(db):
    await a_promo_code(db, "P")
    await db.execute("ALTER TABLE promo_code_uses ADD CONSTRAINT no_such_bonus CHECK (bonus_amount <> 5)")
    bonuses = (1, 5, 2)
    await parked(
        db,
        *(an_order(str(n), codes=["A"], promotions=[a_promotion("P", bonus=n)]).to_json() for n in bonuses),
    )
    found = await retried(db)
    assert outcomes(found) == ["applied", "refused", "applied"]
    assert found[1].reason == "23514 no_such_bonus"
    assert (await coupon_counts(db))["A"] == (2, 2)


async def test_a_fault_of_ours_refuses_nothing(db):
    await parked(db, an_order("1", codes=["A"]).to_json(), b"{")
    await db.execute("ALTER TABLE affiliate_coupon_usages RENAME TO gone")
    with pytest.raises(HaltingFailure):
        await retried(db)
    assert await db.fetchval("SELECT count(*) FROM dead_letters WHERE retried_at IS NULL") == 2


async def test_all_that_match_are_retried_batch_by_batch_and_once(db, monkeypatch):
    await parked(db, *(an_order(str(n), codes=["A"]).to_json() if n % 2 else b"{" for n in range(25)))
    found = [
        [one.outcome for one in batch]
        async for batch in retry_chosen(db, Chosen(), KNOWN, after=0, last=2**62, at_once=10)
    ]
    assert [len(batch) for batch in found] == [10, 10, 5]
    assert sum(batch.count("applied") for batch in found) == 12
    assert (await coupon_counts(db)) == {"A": (12, 12)}
    assert set(outcomes(await retried(db))) == {"refused"}  # what is resolved is not tried again


async def test_a_batch_is_no_larger_than_memory_has_room_for(db, monkeypatch):
    monkeypatch.setattr(retry, "BYTES_AT_ONCE", 2_500)
    await parked(db, *(b"x" * 1_000 for _ in range(4)), b"x" * 9_000, b"{")
    found = [len(batch) async for batch in retry_chosen(db, Chosen(), KNOWN, after=0, last=2**62)]
    assert found == [2, 2, 1, 1]


async def test_what_is_parked_meanwhile_is_left_for_the_next_time(db):
    [first] = await parked(db, b"{")
    await parked(db, b"{")
    assert [one.id for one in await retried(db, last=first)] == [first]


async def test_two_who_retry_all_at_once_apply_each_record_once(db, database_url):
    await parked(db, *(an_order(str(n), codes=["A", f"of {n}"]).to_json() for n in range(600)))
    async with connections(database_url, 3) as each:
        found = await asyncio.gather(*(retried(connection) for connection in each))
    applied = [one.id for part in found for one in part if one.outcome == "applied"]
    assert len(applied) == len(set(applied)) == 600
    assert {one.outcome for part in found for one in part} <= {"applied", "gone"}
    assert (await coupon_counts(db))["A"] == (600, 600)
    assert await find_drift(db, COUNTERS) == []


async def test_who_is_stopped_in_a_batch_leaves_it_as_it_was(db, database_url):
    await parked(db, *(an_order(str(n), codes=["A"]).to_json() for n in range(20)))
    async with connections(database_url, 2) as (holder, stopped):
        held = holder.transaction()
        await held.start()
        await holder.execute("SELECT pg_advisory_xact_lock(3087, 1)")  # what the batch is going to wait for
        found: list[retry.Retried] = []

        async def work() -> None:
            async for batch in retry_chosen(stopped, Chosen(), KNOWN, after=0, last=2**62, at_once=10):
                found.extend(batch)

        working = asyncio.create_task(work())
        await waits_for_a_lock(db, stopped)
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
        await held.rollback()
    assert found == []
    assert await db.fetchval("SELECT count(*) FROM dead_letters WHERE retried_at IS NULL") == 20
    assert outcomes(await retried(db)) == ["applied"] * 20


# Judged


async def test_what_the_rules_say_now_changes_nothing(db):
    ids = await parked(db, an_order("1").to_json(), b'{"id": "1", "total": "-1"}', None)
    ids += await parked(db, b"{}", topic="nowhere")
    rules = Rules.of(plain_settings())
    found = [one async for batch in judge_chosen(db, Chosen(), DECODERS, rules, ids[-1]) for one in batch]
    assert [key for key, _ in found] == ids
    verdicts = [verdict for _, verdict in found]
    assert verdicts[0] == Verdict(True)
    assert (verdicts[1].kind, verdicts[1].field) == ("invalid_field", "total")
    assert (verdicts[2].kind, verdicts[2].field) == ("empty", "")
    assert str(verdicts[3]) == "no event type is read from the topic nowhere"
    assert await db.fetchval("SELECT count(*) FROM dead_letters WHERE retried_at IS NULL") == 4


def test_a_decoder_that_breaks_is_a_refusal():
    def broken(*_):
        raise RecursionError

    record = a_record(0, b"{}")
    assert not judge(record, {record.topic: broken}, Rules.of(plain_settings())).accepted


@pytest.mark.parametrize(
    ("kind", "error", "field"),
    [
        ("invalid_field", "total: must be a number", "total"),
        ("missing_field", "items[0].code: must be there", "items[0].code"),
        ("not_json", "line 1: an unexpected end", ""),
        ("database", "23514 no_such_bonus", ""),
    ],
)
def test_the_field_of_a_stored_error_is_its_beginning(kind, error, field):
    assert field_of(kind, error) == field


# Dropped


async def test_what_is_dropped_stays_with_its_bytes_and_says_who_and_why(db):
    first, second, third = await parked(db, b"1", b"2", b"3")
    assert await drop(db, [first, second], "alice", "a test of the shop") == [first, second]
    row = await db.fetchrow("SELECT * FROM dead_letters WHERE id = $1", first)
    assert (row["resolution"], row["resolved_by"], row["resolved_because"], row["value"]) == (
        "dropped",
        "alice",
        "a test of the shop",
        b"1",
    )
    assert row["resolved_at"] is not None
    assert await drop(db, [first, third, 424242], "bob", "again") == [third]
    assert await db.fetchval("SELECT resolved_by FROM dead_letters WHERE id = $1", first) == "alice"
    assert outcomes(await retry_dead_letters(db, [first], KNOWN)) == ["gone"]


@pytest.mark.parametrize(("actor", "because"), [("alice", " "), ("", "why")])
async def test_nothing_is_dropped_without_who_and_why(db, actor, because):
    ids = await parked(db, b"1")
    with pytest.raises(asyncpg.CheckViolationError, match="dropped_has_its_reason"):
        await drop(db, ids, actor, because)


async def test_what_is_being_retried_is_not_dropped_as_well(db, database_url):
    [letter] = await parked(db, an_order("1", codes=["A"]).to_json())
    async with connections(database_url, 2) as (one, other):
        held = one.transaction()
        await held.start()
        assert outcomes(await retry_dead_letters(one, [letter], KNOWN)) == ["applied"]
        dropping = asyncio.create_task(drop(other, [letter], "alice", "why"))
        await waits_for_a_lock(db, other)
        await held.commit()
        assert await dropping == []
    assert await db.fetchval("SELECT resolution FROM dead_letters") == "applied"


# Forgotten


async def test_only_what_was_resolved_long_ago_is_forgotten(db, database_url):
    old, young, waiting, copied = await parked(db, b"1", b"2", b"3", b"4")
    await drop(db, [old, young, copied], "alice", "why")
    await db.execute(
        "UPDATE dead_letters SET first_seen_at = now() - interval '99 days', resolved_at = CASE WHEN id = $1 "
        "THEN now() - interval '6 days 23 hours' ELSE resolved_at - interval '8 days' END, copy_due = (id = $2)",
        young,
        copied,
    )
    await db.execute("UPDATE dead_letters SET resolved_at = NULL WHERE id = $1", waiting)
    async with asyncpg.create_pool(database_url, min_size=0, max_size=1) as pool:
        assert await forget_dead_letters(pool, 7) == 1
        assert await forget_dead_letters(pool, 7) == 0
    assert [row["id"] for row in await db.fetch("SELECT id FROM dead_letters ORDER BY id")] == [
        young,
        waiting,
        copied,
    ]


async def test_a_thousand_old_ones_go_in_several_transactions(db, database_url):
    ids = await parked(db, *([b"1"] * 1_200))
    await drop(db, ids, "alice", "why")
    await db.execute("UPDATE dead_letters SET resolved_at = resolved_at - interval '2 days'")
    async with asyncpg.create_pool(database_url, min_size=0, max_size=1) as pool:
        assert await forget_dead_letters(pool, 1) == 1_200


async def test_a_retention_of_less_than_a_day_is_none(db):
    with pytest.raises(asyncpg.InvalidParameterValueError):
        await db.fetchval("SELECT forget_dead_letters(0, 10)")


# Written for a terminal


def a_letter(**given):
    letter = dict.fromkeys(
        (
            "retried_at",
            "resolved_at",
            "resolution",
            "resolved_by",
            "resolved_because",
            "copied_at",
            "copy_error",
        )
    )
    at = a_time()
    return (
        letter
        | {
            "id": 1,
            "topic": "t",
            "partition": 0,
            "offset": 7,
            "cluster_id": "c",
            "record_timestamp": at,
            "first_seen_at": at,
            "key": None,
            "error_kind": "invalid_field",
            "field": "total",
            "error": "total: wrong\x1b[31m\nred",
            "now": "accepted",
            "copy_due": False,
            "headers": [["name\x07", "v"], ["bin", {"base64": "/w=="}], ["none", None]],
        }
        | given
    )


def a_time():
    from support.builders import NOON

    return NOON


def test_nothing_of_a_record_breaks_out_of_its_line():
    shown = list(lines_of(a_letter(), b'{"a": "\x1b[2J"}\r\nmore', full=False))
    assert all(line.isprintable() for line in shown)
    assert "  Error       total: wrong\\u001b[31m\\u000ared" in shown
    assert '    {"a": "\\u001b[2J"}' in shown
    assert "    name\\u0007: v" in shown
    assert "    none: null" in shown
    assert "    more" in shown


def test_a_large_value_is_cut_and_says_so_unless_all_is_asked_for():
    value = b"x" * 10_000
    short, full = ("\n".join(lines_of(a_letter(), value, full=full)) for full in (False, True))
    assert "5,904 more characters; all with --full" in short
    assert "9,488 more bytes; all with --full" in short
    assert "--full" not in full
    assert "x" * 10_000 in full
    assert len(short) < 10_000


def test_bytes_are_dumped_with_their_offsets():
    assert list(hex_dump(bytes(range(0x41, 0x53)))) == [
        "00000000  41 42 43 44 45 46 47 48  49 4a 4b 4c 4d 4e 4f 50  |ABCDEFGHIJKLMNOP|",
        "00000010  51 52                                             |QR|",
    ]
    assert list(hex_dump(b"")) == []


def test_a_null_value_is_said_to_be_null():
    assert "  The value is null." in list(lines_of(a_letter(), None, full=False))
