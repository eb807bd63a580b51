"""A bad record is kept as it came, never stops a good one, and can be sent down the road again."""

from __future__ import annotations

import base64
import json
from typing import Any

import asyncpg
import pytest
from aiokafka.producer import message_accumulator, producer
from aiokafka.record import default_records

from support.alerts import listening
from support.command import counterfoil
from support.factories import Message, a_malformed_order, an_order, order_ids, orders
from support.ledgers import (
    account,
    assert_accounts_close,
    counted,
    dead_letters,
    everything_is_read,
    positions,
    usages,
)
from support.probes import failing_checks, is_unready_for, livez
from support.servers import StartWorker
from support.stream import Stream
from support.waiting import eventually
from support.worker import Worker

pytestmark = pytest.mark.kafka

NOT_TEXT = b"\xff\xfe\x00"
ODD_HEADERS = [
    ("trace", NOT_TEXT),
    ("empty", None),
    ("plain", "ünï".encode()),
    ("nul", b"a\0b"),
    ("plain", b""),
]

MALFORMED = {
    "empty": Message(None, b"tombstone", ODD_HEADERS),
    "not_utf8": Message(b'{"order_id": "\xff"}', b"\xff\x00 key", ODD_HEADERS),
    "not_json": Message(b'{"order_id": "1"', b"key"),
    "not_object": Message(b'["order"]', b"", [("", b"nameless")]),
    "missing_field": Message(b'{"codes": ["A"]}', None),
    "invalid_field": Message(b'{"order_id": "1", "total": "-1"}', b"key"),
    "wrong_event": Message(b'{"name": "click", "data": {"id": "1"}}', b"key"),
    "too_large": Message(b'{"order_id": "' + b"1" * 3_000 + b'"}', b"key"),
}


def headers_of(letter: asyncpg.Record) -> list[tuple[str, bytes | None]]:
    return [(name, to_bytes(value)) for name, value in json.loads(letter["headers"])]


def to_bytes(value: Any) -> bytes | None:
    if isinstance(value, dict):
        return base64.b64decode(value["base64"])
    return None if value is None else value.encode()


async def test_malformed_records_are_parked_as_they_came_and_the_good_ones_around_them_count(
    stream: Stream, db: asyncpg.Connection, start_worker: StartWorker
) -> None:
    await stream.create(partitions=1)
    ids = iter(order_ids(len(MALFORMED) + 1))
    await stream.publish(an_order(order_id=next(ids)))
    offsets = {}
    for kind, message in MALFORMED.items():
        ((_, offsets[kind]), _) = await stream.publish(message, an_order(order_id=next(ids)))
    await start_worker(stream.kafka, max_event_bytes=2_000)
    await everything_is_read(db, stream)

    letters = {letter["error_kind"]: letter for letter in await dead_letters(db)}
    assert letters.keys() == MALFORMED.keys()
    for kind, sent in MALFORMED.items():
        letter = letters[kind]
        assert (letter["topic"], letter["partition"], letter["offset"]) == (stream.placed, 0, offsets[kind])
        assert (letter["key"], letter["value"], headers_of(letter)) == (
            sent.key,
            sent.value,
            list(sent.headers),
        )
        assert letter["error"]
        assert letter["resolved_at"] is None
    assert await counted(db) == {"SPRING": len(MALFORMED) + 1}
    found = await account(db, stream.placed)
    assert (found.applied, found.dead, found.skipped) == (len(MALFORMED) + 1, len(MALFORMED), 0)
    await assert_accounts_close(db, stream)


async def test_a_good_order_with_a_null_key_and_odd_headers_counts(
    stream: Stream, db: asyncpg.Connection, start_worker: StartWorker
) -> None:
    await stream.create(partitions=1)
    (order_id,) = order_ids(1)
    value = an_order(order_id=order_id).value
    await stream.publish(Message(value, None, [*ODD_HEADERS, ("ce_time", NOT_TEXT), ("ce_type", None)]))
    await start_worker(stream.kafka)
    await everything_is_read(db, stream)

    assert await usages(db) == [(order_id, "SPRING")]
    assert await dead_letters(db) == []


class NoText(str):
    """A header's name that goes out as bytes that are no UTF-8, as other clients than ours can send it."""

    __slots__ = ()

    def encode(self, *_: str) -> bytes:
        return NOT_TEXT


async def test_a_header_name_that_is_no_text_stops_no_record(
    stream: Stream, db: asyncpg.Connection, start_worker: StartWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (producer, message_accumulator):  # the compiled one takes no other kind of str
        monkeypatch.setattr(module, "DefaultRecordBatchBuilder", default_records._DefaultRecordBatchBuilderPy)
    await stream.create(partitions=1)
    ids = order_ids(3)
    odd = Message(an_order(order_id=ids[1]).value, None, [(NoText("name"), b"value")])
    for message in (an_order(order_id=ids[0]), odd, an_order(order_id=ids[2])):
        await stream.publish(message)
    await start_worker(stream.kafka)
    await everything_is_read(db, stream, deadline=20)

    found = await account(db, stream.placed)
    assert (found.read, found.applied + found.dead) == (3, 3)
    assert (ids[2], "SPRING") in await usages(db)


async def test_a_parked_record_is_parked_once_however_often_the_log_is_read(
    stream: Stream, db: asyncpg.Connection, start_worker: StartWorker
) -> None:
    await stream.create(partitions=1)
    await stream.publish(a_malformed_order(), *orders(order_ids(2)))
    for group in ("first", "second"):
        worker = await start_worker(stream.kafka, consumer_group=f"{stream.group}.{group}")
        await everything_is_read(db, stream, group=f"{stream.group}.{group}")
        assert await worker.terminate() == 0

    assert len(await dead_letters(db)) == 1
    assert await counted(db) == {"SPRING": 2}


async def test_the_breaker_pauses_a_topic_of_malformed_records_and_parks_no_more(
    stream: Stream, db: asyncpg.Connection, start_worker: StartWorker
) -> None:
    await stream.create(partitions=1)
    half_malformed = [m for order in orders(order_ids(500)) for m in (order, a_malformed_order())]
    await stream.publish(*half_malformed)
    worker = await start_worker(stream.kafka, ready_within=None)
    told = await is_unready_for(worker, "breaker")
    assert stream.placed in told
    parked = await eventually_settled(db, stream)
    assert 0 < parked <= 500

    await stream.publish(*(a_malformed_order() for _ in range(300)), *orders(order_ids(10)))
    await stream.publish(Message(b'{"order_id": "1"}', b"1"), topic=stream.canceled)
    await eventually(lambda: db.fetchval("SELECT count(*) FROM order_cancellations"))  # the other topic flows

    assert len(await dead_letters(db)) == parked
    assert (await positions(db))[stream.placed, 0] <= 1_000
    assert await livez(worker) == 200
    await eventually(lambda: only_the_breaker_fails(worker))
    await assert_accounts_close(db, stream)
    assert await worker.terminate() == 0


async def test_nothing_is_lost_behind_a_tripped_breaker_once_it_is_switched_off(
    stream: Stream, db: asyncpg.Connection, start_worker: StartWorker
) -> None:
    await stream.create(partitions=2)
    ids = order_ids(600)
    # two of three: of half of them the breaker may see less than half, as the partitions happen to be read
    await stream.publish(
        *(m for order in orders(ids) for m in (a_malformed_order(), order, a_malformed_order()))
    )
    worker = await start_worker(stream.kafka, ready_within=None)
    await is_unready_for(worker, "breaker")
    assert await worker.terminate() == 0

    tolerant = await start_worker(stream.kafka, breaker_share=1)
    await everything_is_read(db, stream)

    assert await usages(db) == sorted((order_id, "SPRING") for order_id in ids)
    found = await account(db, stream.placed)
    assert (found.applied, found.duplicates, found.dead, found.skipped) == (600, 0, 1200, 0)
    await eventually(lambda: every_check_passes(tolerant))  # the group may still be giving out its partitions
    await assert_accounts_close(db, stream)


async def every_check_passes(worker: Worker) -> bool:
    return await failing_checks(worker) == {}


async def only_the_breaker_fails(worker: Worker) -> bool:
    return set(await failing_checks(worker)) == {"breaker"}


async def eventually_settled(db: asyncpg.Connection, stream: Stream) -> int:
    """Wait until the account agrees with what was taken before the breaker tripped; how many were parked."""

    async def settled() -> int:
        read = (await account(db, stream.placed)).read
        return len(await dead_letters(db)) if read >= 998 else 0

    return await eventually(settled)


async def test_retry_sends_parked_records_down_the_live_path_once_the_setting_is_mended(
    stream: Stream, db: asyncpg.Connection, start_worker: StartWorker, database_url: str
) -> None:
    await stream.create()
    small, large = order_ids(5), order_ids(5)
    await stream.publish(*orders(small))
    await stream.publish(
        *(an_order(order_id=order_id, codes=["spring"], note="x" * 500) for order_id in large)
    )
    worker = await start_worker(stream.kafka, max_event_bytes=300)
    await everything_is_read(db, stream)
    assert await counted(db) == {"SPRING": 5}
    settings = {"database_url": database_url, "topic_order_placed": stream.placed}

    refused = await counterfoil("dead-letters", "retry", "--all", **settings, max_event_bytes=300)
    assert refused.code == 1
    assert refused.out.count("refused") == 5
    assert await counted(db) == {"SPRING": 5}

    mended = {**settings, "code_case": "upper"}
    listed = await counterfoil("dead-letters", "list", "--json", **mended)
    first, *_ = json.loads(listed.out)
    one = await counterfoil("dead-letters", "retry", str(first["id"]), "--json", **mended)
    assert (one.code, [r["outcome"] for r in json.loads(one.out)]) == (0, ["applied"])
    assert await counted(db) == {"SPRING": 6}
    rest = await counterfoil("dead-letters", "retry", "--reason", "too_large", "--json", **mended)
    assert (rest.code, [r["outcome"] for r in json.loads(rest.out)]) == (0, ["applied"] * 4)

    assert await usages(db) == sorted((order_id, "SPRING") for order_id in small + large)
    assert await counted(db) == {"SPRING": 10}
    assert {(letter["resolution"], letter["resolved_at"] is None) for letter in await dead_letters(db)} == {
        ("applied", False)
    }
    again = await counterfoil("dead-letters", "retry", str(first["id"]), **mended)
    assert again.code == 1  # it is resolved already
    assert await counted(db) == {"SPRING": 10}
    await assert_accounts_close(db, stream)
    assert worker.exit_code is None


async def test_a_retried_record_that_came_again_meanwhile_is_a_duplicate(
    stream: Stream, db: asyncpg.Connection, start_worker: StartWorker, database_url: str
) -> None:
    await stream.create(partitions=1)
    order = an_order(note="x" * 500)
    await stream.publish(order)
    strict = await start_worker(stream.kafka, max_event_bytes=300)
    await everything_is_read(db, stream)
    assert await strict.terminate() == 0
    await start_worker(stream.kafka)
    await stream.publish(order)
    await everything_is_read(db, stream)

    retried = await counterfoil(
        "dead-letters",
        "retry",
        "--all",
        "--json",
        database_url=database_url,
        topic_order_placed=stream.placed,
    )

    assert (retried.code, [r["outcome"] for r in json.loads(retried.out)]) == (0, ["duplicate"])
    assert await counted(db) == {"SPRING": 1}


async def test_a_copy_of_each_parked_record_comes_out_where_it_is_asked_for(
    stream: Stream, db: asyncpg.Connection, start_worker: StartWorker
) -> None:
    """The idempotent producer is on, as by default; a worker that is killed leaves what it owes to the next."""
    await stream.create(partitions=1)
    await stream.publish(*MALFORMED.values(), an_order())
    silent = await start_worker(stream.kafka, only="ingest", dlq_topics=True, max_event_bytes=2_000)
    await everything_is_read(db, stream)
    silent.kill()  # parked, and nobody has published yet

    async with listening(stream.kafka.bootstrap_servers, f"{stream.placed}.dlq") as heard:
        await start_worker(stream.kafka, dlq_topics=True, max_event_bytes=2_000)
        await heard.hears_records(len(MALFORMED))
        await stream.publish(Message(b"[]", b"last"))
        await heard.hears_records(len(MALFORMED) + 1)
        await eventually(lambda: db.fetchval("SELECT count(*) = 0 FROM dead_letters WHERE copy_due"))
    by_kind = {
        dict(r.headers)["__connect.errors.exception.class.name"].decode(): r for r in heard.records[:-1]
    }
    assert by_kind.keys() == MALFORMED.keys()
    for kind, sent in MALFORMED.items():
        copy = by_kind[kind]
        assert (copy.key, copy.value) == (sent.key, sent.value)
        assert list(copy.headers)[:-5] == list(sent.headers)
        assert dict(copy.headers)["__connect.errors.topic"] == stream.placed.encode()
    assert await counted(db) == {"SPRING": 1}


async def test_without_the_setting_no_topic_of_copies_is_made(
    stream: Stream, db: asyncpg.Connection, start_worker: StartWorker
) -> None:
    await stream.create(partitions=1)
    await stream.publish(a_malformed_order())
    worker = await start_worker(stream.kafka)
    await everything_is_read(db, stream)
    assert await worker.terminate() == 0

    assert await db.fetchval("SELECT count(*) FROM dead_letters WHERE copy_due OR copied_at IS NOT NULL") == 0
    async with stream.admin() as admin:
        assert f"{stream.placed}.dlq" not in await admin.list_topics()
