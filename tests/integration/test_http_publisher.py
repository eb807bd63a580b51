"""Publishing for HTTP requests: acknowledged within the deadline or refused, and well again once Kafka is."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from counterfoil.embedded.broker import EmbeddedBroker
from counterfoil.embedded.ports import free_port
from counterfoil.errors import DependencyUnreachable
from counterfoil.events import Click, Conversion, Rules, decode_click
from counterfoil.publishing import HttpPublisher
from counterfoil.settings import Settings
from support.servers import Broker, servers_folder
from support.waiting import eventually

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
DEADLINE_S = 1.5


def a_click(click_id: str = "c-1", pixel_id: str = "p-1") -> Click:
    return Click(click_id=click_id, pixel_id=pixel_id, timestamp=NOON)


@asynccontextmanager
async def http_publisher(
    address: str, prefix: str, *, deadline_s: float = 5.0, **settings: Any
) -> AsyncIterator[HttpPublisher]:
    chosen = Settings(
        _env_file=None,
        kafka_bootstrap_servers=address,
        topic_click=f"{prefix}click",
        topic_conversion=f"{prefix}conversion",
        **settings,
    )
    publisher = HttpPublisher(chosen, ("click", "conversion"), deadline_s)
    try:
        yield publisher
    finally:
        await publisher.stop()


async def records_of(address: str, topic: str, partitions: int, count: int) -> list[Any]:
    """So many records of a topic, from its beginning."""
    found: list[Any] = []
    async with AIOKafkaConsumer(bootstrap_servers=address, enable_auto_commit=False) as consumer:
        places = [TopicPartition(topic, partition) for partition in range(partitions)]
        consumer.assign(places)
        await consumer.seek_to_beginning(*places)
        async with asyncio.timeout(20):
            while len(found) < count:
                for records in (await consumer.getmany(timeout_ms=200)).values():
                    found += records
    return found


@pytest.fixture
def own_broker() -> Iterator[EmbeddedBroker]:
    """An embedded broker for this test alone, on a port of its own; not started."""
    with servers_folder() as folder:
        own = EmbeddedBroker(folder / "broker", port=free_port())
        yield own
        own.stop()


async def refused_within(publisher: HttpPublisher, deadline_s: float) -> None:
    """Publish in vain, and see that it did not take longer."""
    began = time.monotonic()
    with pytest.raises(DependencyUnreachable, match=r"^Kafka at "):
        await publisher.publish(a_click())
    assert time.monotonic() - began < deadline_s + 0.5


async def test_an_event_is_in_its_topic_once_it_is_acknowledged(broker: Broker, topic_prefix: str) -> None:
    async with http_publisher(broker.bootstrap_servers, topic_prefix, topic_partitions=4) as publisher:
        published = await asyncio.gather(
            *(publisher.publish(a_click(f"c-{n}", f"p-{n % 7}")) for n in range(50)),
            publisher.publish(
                Conversion(order_id="o-1", pixel_id="p", revenue=5, currency="USD", timestamp=NOON)
            ),
        )
    assert {place.topic for place in published} == {f"{topic_prefix}click", f"{topic_prefix}conversion"}
    records = await records_of(broker.bootstrap_servers, f"{topic_prefix}click", 4, 50)
    clicks = [decode_click(record.value, record.headers, record.timestamp, Rules()) for record in records]
    assert {click.click_id for click in clicks} == {f"c-{n}" for n in range(50)}
    assert [record.key.decode() for record in records] == [click.pixel_id for click in clicks]
    assert len({record.partition for record in records}) > 1


async def test_missing_topics_are_made_with_the_partitions_that_are_set(
    own_broker, topic_prefix: str
) -> None:
    await asyncio.to_thread(own_broker.start)
    async with http_publisher(own_broker.bootstrap_servers, topic_prefix, topic_partitions=5) as publisher:
        await publisher.publish(a_click())
    async with AIOKafkaConsumer(
        f"{topic_prefix}click", bootstrap_servers=own_broker.bootstrap_servers
    ) as consumer:
        assert consumer.partitions_for_topic(f"{topic_prefix}click") == {0, 1, 2, 3, 4}


async def test_without_kafka_it_refuses_and_with_kafka_it_works_again(own_broker, topic_prefix: str) -> None:
    async with http_publisher(own_broker.bootstrap_servers, topic_prefix, deadline_s=DEADLINE_S) as publisher:
        await refused_within(publisher, DEADLINE_S)
        await asyncio.to_thread(own_broker.start)
        await eventually(lambda: publisher.publish(a_click()), deadline=10, ignoring=(DependencyUnreachable,))
        await asyncio.to_thread(own_broker.kill)
        await refused_within(publisher, DEADLINE_S)
        await asyncio.to_thread(own_broker.start)  # it has forgotten the topics
        await eventually(lambda: publisher.publish(a_click()), deadline=10, ignoring=(DependencyUnreachable,))


async def test_a_broker_that_hangs_is_given_up_in_time_and_used_again(own_broker, topic_prefix: str) -> None:
    await asyncio.to_thread(own_broker.start)
    async with http_publisher(own_broker.bootstrap_servers, topic_prefix, deadline_s=DEADLINE_S) as publisher:
        await publisher.publish(a_click())
        os.kill(own_broker.pid, signal.SIGSTOP)
        await asyncio.gather(*(refused_within(publisher, DEADLINE_S) for _ in range(20)))
        await refused_within(publisher, DEADLINE_S)
        os.kill(own_broker.pid, signal.SIGCONT)
        await eventually(lambda: publisher.publish(a_click()), deadline=10, ignoring=(DependencyUnreachable,))


async def test_a_kafka_that_never_answers_is_waited_for_once_by_all(topic_prefix: str) -> None:
    connected = 0

    async def silence(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connected
        connected += 1
        await reader.read(-1)
        writer.close()

    async with await asyncio.start_server(silence, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with http_publisher(f"127.0.0.1:{port}", topic_prefix, deadline_s=DEADLINE_S) as publisher:
            await asyncio.gather(*(refused_within(publisher, DEADLINE_S) for _ in range(30)))
            assert connected == 1
            await refused_within(publisher, DEADLINE_S)
            assert connected <= 2


async def test_stopping_does_not_wait_for_a_kafka_that_is_away(topic_prefix: str) -> None:
    began = time.monotonic()
    async with http_publisher(f"127.0.0.1:{free_port()}", topic_prefix) as publisher:
        asking = asyncio.create_task(publisher.publish(a_click()))
        await asyncio.sleep(0)
    with pytest.raises((DependencyUnreachable, asyncio.CancelledError)):
        await asking
    assert time.monotonic() - began < 3


async def test_one_that_was_never_used_stops_at_once(topic_prefix: str) -> None:
    async with http_publisher("127.0.0.1:1", topic_prefix):
        pass
