"""Where logs of Apache Kafka begin and end, and what is to be read from a position on."""

from __future__ import annotations

from dataclasses import replace

import pytest
from aiokafka import AIOKafkaProducer

from counterfoil.embedded.ports import free_port
from counterfoil.errors import DependencyUnreachable
from counterfoil.ingest.bounds import Bounds, find_bounds
from counterfoil.ingest.partitions import Partition
from support.factories import order_ids, orders
from support.postgres_road import plain_settings
from support.stream import Stream

pytestmark = pytest.mark.kafka

SENT_AT = 1_750_000_000_000


async def bounds_of(stream: Stream, *positions: int) -> list[Bounds]:
    """The bounds of the partitions of `order.placed`, read from these positions."""
    settings = plain_settings(kafka_bootstrap_servers=stream.kafka.bootstrap_servers)
    wanted = {Partition(stream.placed, n): offset for n, offset in enumerate(positions)}
    found = await find_bounds(settings, wanted)
    return [found[partition] for partition in wanted]


async def publish(stream: Stream, count: int, partition: int = 0) -> None:
    await stream.publish(
        *(replace(order, timestamp_ms=SENT_AT) for order in orders(order_ids(count), partition=partition))
    )


@pytest.fixture
async def log(stream: Stream) -> Stream:
    await stream.create(partitions=3)
    return stream


async def test_the_first_record_from_the_position_on_is_found(log: Stream) -> None:
    await publish(log, 5)
    await publish(log, 3, partition=1)
    await log.delete_before(log.placed, 2)
    assert await bounds_of(log, 4, 3, 0) == [Bounds(2, 5, SENT_AT), Bounds(0, 3), Bounds(0, 0)]


async def test_before_the_beginning_it_is_read_from_there_and_beyond_the_end_nothing_is(log: Stream) -> None:
    await publish(log, 5)
    await publish(log, 3, partition=1)
    await log.delete_before(log.placed, 2)
    assert await bounds_of(log, 0, 9) == [Bounds(2, 5, SENT_AT), Bounds(0, 3)]


async def test_markers_are_nothing_to_read_and_an_open_transaction_holds_back(log: Stream) -> None:
    await log.publish_in_transaction(*orders(order_ids(2), partition=0))
    await log.publish_in_transaction(*orders(order_ids(2), partition=0), abort=True)
    assert await bounds_of(log, 2) == [Bounds(0, 6)]

    async with AIOKafkaProducer(
        bootstrap_servers=log.kafka.bootstrap_servers, transactional_id=f"{log.placed}.open"
    ) as producer:
        await producer.begin_transaction()
        await producer.send_and_wait(log.placed, b"{}", partition=0)
        assert await bounds_of(log, 6) == [Bounds(0, 7, held_back=True)]
        await producer.abort_transaction()
    assert await bounds_of(log, 6) == [Bounds(0, 8)]


async def test_a_kafka_that_is_away_is_unreachable() -> None:
    settings = plain_settings(kafka_bootstrap_servers=f"127.0.0.1:{free_port()}")
    with pytest.raises(DependencyUnreachable, match="Kafka at"):
        await find_bounds(settings, {Partition("order.placed", 0): 0})
    assert await find_bounds(settings, {}) == {}
