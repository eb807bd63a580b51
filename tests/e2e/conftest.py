"""One stream for each test, on the Apache Kafka that tests share or on one of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from conftest import Broker
from support.apache_kafka import ApacheKafka
from support.stream import Stream


@pytest.fixture
async def stream(apache_kafka: Broker, topic_prefix: str) -> AsyncIterator[Stream]:
    """This test's topics on the shared Apache Kafka; not made yet."""
    async with Stream(apache_kafka, topic_prefix) as stream:
        yield stream


@pytest.fixture
async def own_stream(own_apache_kafka: ApacheKafka, topic_prefix: str) -> AsyncIterator[Stream]:
    """This test's topics on an Apache Kafka of its own; not made yet."""
    async with Stream(own_apache_kafka, topic_prefix) as stream:
        yield stream
