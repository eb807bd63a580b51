"""A replay reads its window: by the records' own times, by partition, by offset; and says what is no longer there."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest
from aiokafka import TopicPartition
from aiokafka.admin.records_to_delete import RecordsToDelete

from counterfoil.ingest.records import milliseconds_of
from counterfoil.replaying import kafka_log
from counterfoil.replaying.kafka_log import KafkaLog
from counterfoil.replaying.windows import Window
from counterfoil.settings import topic_setting
from support.factories import Message, an_order, order_ids, orders
from support.ledgers import usages
from support.postgres_road import plain_settings
from support.replaying import Replays
from support.servers import Broker
from support.stream import Stream

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def at(minutes: float, order_id: str, partition: int = 0) -> Message:
    """An order whose record was written so many minutes after noon."""
    order = an_order(order_id=order_id, partition=partition)
    return Message(
        order.value, order.key, partition=partition,
        timestamp_ms=milliseconds_of(NOON + timedelta(minutes=minutes)),
    )  # fmt: skip


def a_log(stream: Stream, window: Window) -> KafkaLog:
    settings = plain_settings(
        kafka_bootstrap_servers=stream.kafka.bootstrap_servers,
        **{topic_setting("order.placed"): stream.placed},
    )
    return KafkaLog(settings, [stream.placed], window)


async def read_whole(log: KafkaLog) -> tuple[list[str], int]:
    """The ids of the orders that it reads, and how many offsets it went through from where it began."""
    stretches = await log.open()
    ids: list[str] = []
    at = {stretch.partition: stretch.first_offset for stretch in stretches}
    went = 0
    async for read in log.read({s.partition: s.end_offset for s in stretches}):
        assert read.first_offset == at[read.partition]
        at[read.partition] = read.next_offset
        went += read.next_offset - read.first_offset
        ids += [json.loads(record.value or b"")["order_id"] for record in read.records]
    assert at == {stretch.partition: stretch.end_offset for stretch in stretches}
    await log.close()
    return sorted(ids), went


@pytest.mark.parametrize("kind", ["broker", pytest.param("apache_kafka", marks=pytest.mark.kafka)])
async def test_a_window_of_time_has_exactly_its_records_however_they_lie(
    kind: str, request: pytest.FixtureRequest, topic_prefix: str
) -> None:
    kafka: Broker = request.getfixturevalue(kind)
    async with Stream(kafka, topic_prefix) as stream:
        await stream.create(partitions=2)
        await stream.publish(at(0, "a"), at(30, "b"), at(10, "c"), at(40, "d"), at(20, "e"), at(60, "f"))
        await stream.publish(at(5, "g", 1), at(35, "h", 1))
        await stream.publish(at(29.999, "i", 1), at(-90, "j", 1))

        def window(since: float | None, until: float | None) -> Window:
            times = [None if m is None else NOON + timedelta(minutes=m) for m in (since, until)]
            return Window(*times)

        async def found(since: float | None, until: float | None) -> str:
            return "".join((await read_whole(a_log(stream, window(since, until))))[0])

        assert await found(20, 40) == "behi"
        assert await found(30, None) == "bdfh"
        assert await found(None, 10) == "agj"
        assert await found(61, None) == ""
        assert await found(None, None) == "abcdefghij"
        assert await found(40, 40.0001) == "d"


@pytest.mark.kafka
async def test_a_window_that_begins_late_is_not_read_from_the_beginning(stream: Stream) -> None:
    await stream.create(partitions=1)
    for start in range(0, 5_000, 500):
        await stream.publish(*(at(n, f"o{n:04}") for n in range(start, start + 500)))

    ids, went = await read_whole(a_log(stream, Window(since=NOON + timedelta(minutes=4_900))))

    assert ids == [f"o{n}" for n in range(4_900, 5_000)]
    assert went == 100


async def test_partitions_and_offsets_bound_a_window(
    broker: Broker, topic_prefix: str, database_url: str, db: asyncpg.Connection
) -> None:
    async with Stream(broker, topic_prefix) as stream:
        await stream.create(partitions=2)
        first, second = order_ids(10), order_ids(10)
        await stream.publish(*orders(first, partition=0), *orders(second, partition=1))
        window = ("--partition", "1", "--from-offset", "3", "--to-offset", "7")

        applied = await Replays(stream, database_url).apply("order.placed", *window)

        assert await usages(db) == [(order_id, "SPRING") for order_id in second[3:7]]
        assert applied.topic(stream.placed)["read"] == 4
        assert (
            applied.summary["window"] | {"partitions": [1], "from_offset": 3, "to_offset": 7}
            == (applied.summary["window"])
        )


@pytest.mark.kafka
async def test_a_window_that_begins_before_the_log_does_is_said(
    stream: Stream, database_url: str, db: asyncpg.Connection
) -> None:
    await stream.create(partitions=1)
    await stream.publish(*(at(n, f"o{n}") for n in range(20)))
    async with stream.admin() as admin:
        await admin.delete_records({TopicPartition(stream.placed, 0): RecordsToDelete(before_offset=12)})
    replays = Replays(stream, database_url)
    note = f"{stream.placed}/0 begins at offset 12, 2026-03-01 12:12:00Z: what is older is no longer in Kafka"

    whole = await replays.apply("order.placed")
    late = await replays.check("order.placed", "--from", "2026-03-01T12:15:00Z")
    early = await replays.check("order.placed", "--from", "2026-03-01T12:05:00Z")

    assert (whole.summary["notes"], late.summary["notes"], early.summary["notes"]) == ([note], [], [note])
    assert len(await usages(db)) == 8
    assert (late.topic(stream.placed)["read"], early.topic(stream.placed)["read"]) == (5, 8)


@pytest.mark.slow
@pytest.mark.kafka
async def test_records_that_leave_kafka_while_it_reads_are_said_and_the_rest_is_read(stream: Stream) -> None:
    await stream.create(partitions=1)
    await stream.publish(*(at(n, f"o{n:02}") for n in range(20)))
    log = a_log(stream, Window())
    (stretch,) = await log.open()
    async with stream.admin() as admin:
        await admin.delete_records({TopicPartition(stream.placed, 0): RecordsToDelete(before_offset=12)})

    log.seek(stretch.partition, 1)  # what was fetched ahead of 0 is of no use there
    reads = [read async for read in log.read({stretch.partition: stretch.end_offset})]
    await log.close()

    assert sum(len(read.records) for read in reads) == 8
    assert (reads[0].first_offset, reads[-1].next_offset) == (1, 20)
    assert log.notes == [f"{stream.placed}/0: offsets 1 to 11 have left Kafka before they were read"]


@pytest.mark.slow
async def test_whoever_takes_records_slowly_is_not_taken_for_a_silent_kafka(
    broker: Broker, topic_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Stream(broker, topic_prefix) as stream:
        await stream.create(partitions=1)
        await stream.publish(*orders(order_ids(20)))
        log = a_log(stream, Window())
        (stretch,) = await log.open()
        monkeypatch.setattr(kafka_log, "POLL_RECORDS", 5)
        monkeypatch.setattr(kafka_log, "SILENT_S", 0.2)
        monkeypatch.setattr(kafka_log, "GIVE_UP_S", 0.3)
        found = 0
        async for read in log.read({stretch.partition: stretch.end_offset}):
            found += len(read.records)
            await asyncio.sleep(0.4)  # longer than Kafka is waited for
        await log.close()
        assert found == 20


@pytest.mark.kafka
async def test_transaction_markers_and_what_was_aborted_are_passed_over(stream: Stream) -> None:
    await stream.create(partitions=1)
    await stream.publish_in_transaction(an_order(order_id="a", partition=0))
    await stream.publish_in_transaction(an_order(order_id="b", partition=0), abort=True)
    await stream.publish(an_order(order_id="c", partition=0))
    await stream.publish_in_transaction(an_order(order_id="d", partition=0), abort=True)

    assert await read_whole(a_log(stream, Window())) == (["a", "c"], 7)
