"""The gap check beside the embedded broker, which has flaws: it sees what is to be seen, and makes no error there."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator

import asyncpg
import pytest
from aiokafka import AIOKafkaConsumer

from counterfoil.doctor import State, examine
from counterfoil.embedded.broker import EmbeddedBroker
from counterfoil.ingest.gaps import GapWatch, topics_of
from counterfoil.kafka.cluster import Cluster
from counterfoil.settings import Settings
from counterfoil.telemetry.metrics import Metrics
from support.factories import order_ids, orders
from support.postgres_road import plain_settings
from support.servers import servers_folder
from support.stream import Stream
from support.waiting import eventually


@pytest.fixture
def tansu() -> Iterator[EmbeddedBroker]:
    with servers_folder() as folder, EmbeddedBroker(folder / "broker") as broker:
        yield broker


@pytest.fixture
def settings(tansu: EmbeddedBroker, database_url: str) -> Settings:
    return plain_settings(
        kafka_bootstrap_servers=tansu.bootstrap_servers,
        database_url=database_url,
        http_port=0,
        topic_partitions=2,
        standstill_after_s=1,
    )


@pytest.fixture
async def pool(database_url: str) -> AsyncIterator[asyncpg.Pool]:
    async with asyncpg.create_pool(database_url, min_size=0) as pool:
        yield pool


async def position(db: asyncpg.Connection, settings: Settings, next_offset: int) -> None:
    cluster = Cluster(settings)
    await db.execute(
        'INSERT INTO stream_positions (cluster_id, consumer_group, topic, "partition", first_offset, next_offset)'
        " VALUES ($1, 'counterfoil', 'order.placed', 0, $2, $2)"
        ' ON CONFLICT (cluster_id, consumer_group, topic, "partition")'
        " DO UPDATE SET first_offset = $2, next_offset = $2, updated_at = now() - interval '1 hour'",
        await cluster.cluster_id(),
        next_offset,
    )
    await cluster.close()


def errors(tansu: EmbeddedBroker) -> int:
    return tansu.log_file.read_text(errors="replace").count("ERROR")


@contextlib.asynccontextmanager
async def a_member(tansu: EmbeddedBroker) -> AsyncIterator[None]:
    """Somebody of the group, who has joined it."""
    async with AIOKafkaConsumer(
        "order.placed", bootstrap_servers=tansu.bootstrap_servers, group_id="counterfoil"
    ) as consumer:
        await eventually(consumer.assignment)
        yield


async def test_ends_are_right_and_nothing_is_made_or_refused_by_asking(
    tansu: EmbeddedBroker, settings: Settings, pool: asyncpg.Pool, db: asyncpg.Connection
) -> None:
    cluster, metrics = Cluster(settings), Metrics()
    watch = GapWatch(pool, settings, metrics)
    await cluster.create_topics(["order.placed", "click"], 2)
    topics = topics_of(settings)

    def shown(name: str) -> float:
        return metrics.value(name, {"topic": "order.placed"})

    async with Stream(tansu, "") as stream:
        await stream.publish(*orders(order_ids(5), partition=0))
    for _ in range(2):
        await watch.look()
    assert shown("partitions_without_consumer") == 1  # nobody has read here

    async with a_member(tansu):
        for next_offset, stands_still in ((5, 0), (3, 1), (9, 0)):
            await position(db, settings, next_offset)
            await watch.look()
            assert shown("positions_standing_still") == stands_still
        assert shown("partitions_without_consumer") == 0
        findings, _ = await examine(settings)
        assert {f.check: f.message for f in findings if f.state is not State.OK}.keys() == {"topics"}

    assert errors(tansu) == 0
    assert (await cluster.leaders(topics)).keys() == {"order.placed", "click"}
    await watch.close()
    await cluster.close()
