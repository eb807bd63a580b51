"""The relay's rounds: woken, refused, cut off and stopped, and every row published in the end."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest
from structlog.testing import capture_logs

from counterfoil.embedded.broker import EmbeddedBroker
from counterfoil.embedded.ports import free_port
from counterfoil.errors import DependencyUnreachable
from counterfoil.notifications import publishing_loop
from counterfoil.notifications import relay as relaying
from counterfoil.notifications.outbox import OutboxRow
from counterfoil.notifications.relay import Relay
from counterfoil.telemetry.metrics import Metrics
from support.alerts import PARTITIONS, TOPIC, listening, nothing_waits, raise_numbers
from support.postgres_road import plain_settings
from support.servers import Broker, servers_folder
from support.waiting import eventually

ALIVE = "SELECT pid FROM pg_stat_activity WHERE application_name = 'counterfoil relay' AND datname = current_database()"

StartRelay = Callable[..., Any]


@pytest.fixture
def own_broker() -> Iterator[EmbeddedBroker]:
    """An embedded broker for this test alone, on a port of its own."""
    with servers_folder() as folder, EmbeddedBroker(folder / "broker", port=free_port()) as own:
        yield own


@asynccontextmanager
async def relaying_to(address: str, topic: str, database_url: str) -> AsyncIterator[Metrics]:
    """A relay of this process."""
    settings = plain_settings(
        database_url=database_url,
        kafka_bootstrap_servers=address,
        topic_voucher_alert=topic,
        topic_partitions=PARTITIONS,
    )
    metrics = Metrics()
    relay = Relay(settings, metrics)
    relay.start()
    try:
        yield metrics
    finally:
        await relay.stop()


async def is_idle(db: asyncpg.Connection) -> bool:
    """Whether the relay has looked and found nothing."""
    return bool(
        await db.fetchval(f"SELECT EXISTS ({ALIVE} AND query ~ '(COMMIT|outbox)' AND state = 'idle')")
    )


async def test_a_relay_wakes_when_a_row_is_announced(
    broker: Broker, topic_prefix: str, db: asyncpg.Connection, database_url: str, monkeypatch
) -> None:
    monkeypatch.setattr(relaying, "POLL_S", 600.0)
    topic = f"{topic_prefix}{TOPIC}"
    async with (
        relaying_to(broker.bootstrap_servers, topic, database_url) as metrics,
        listening(broker.bootstrap_servers, topic) as listener,
    ):
        for number in range(1, 4):
            await raise_numbers(db, number)
            assert len(await listener.hears(number)) == number
            await eventually(lambda: nothing_waits(db))
        await eventually(lambda: metrics.value("outbox_rows") == 0)
        assert metrics.value("relayed_total", {"topic": topic}) == 3


async def test_a_row_that_nobody_announced_is_found_by_looking(
    broker: Broker, topic_prefix: str, db: asyncpg.Connection, database_url: str, monkeypatch
) -> None:
    monkeypatch.setattr(relaying, "POLL_S", 0.05)
    topic = f"{topic_prefix}{TOPIC}"
    await db.execute("ALTER TABLE outbox DISABLE TRIGGER announce")
    async with (
        relaying_to(broker.bootstrap_servers, topic, database_url),
        listening(broker.bootstrap_servers, topic) as listener,
    ):
        await eventually(lambda: is_idle(db))
        await raise_numbers(db, 1)
        assert len(await listener.hears(1)) == 1


async def test_a_relay_whose_connection_is_cut_makes_another(
    broker: Broker, topic_prefix: str, db: asyncpg.Connection, database_url: str, monkeypatch
) -> None:
    monkeypatch.setattr(relaying, "POLL_S", 600.0)
    topic = f"{topic_prefix}{TOPIC}"
    async with (
        relaying_to(broker.bootstrap_servers, topic, database_url),
        listening(broker.bootstrap_servers, topic) as listener,
    ):
        pid = await eventually(lambda: db.fetchval(ALIVE))
        await db.execute("SELECT pg_terminate_backend($1)", pid)
        await eventually(lambda: db.fetchval(f"{ALIVE} AND pid <> $1", pid))
        await raise_numbers(db, 1)
        assert len(await listener.hears(1)) == 1


async def test_a_broker_that_dies_and_comes_back_gets_what_waited(
    own_broker: EmbeddedBroker, db: asyncpg.Connection, database_url: str, monkeypatch
) -> None:
    monkeypatch.setattr(relaying, "ANSWER_WITHIN_S", 1.0)
    async with relaying_to(own_broker.bootstrap_servers, TOPIC, database_url) as metrics:
        await raise_numbers(db, 1)
        await eventually(lambda: nothing_waits(db))
        await asyncio.to_thread(own_broker.kill)
        with capture_logs() as logs:
            ids = await raise_numbers(db, 2, 3)
            await eventually(lambda: [entry for entry in logs if entry["event"] == "relay_put_off"])
        await eventually(lambda: metrics.value("outbox_rows") == 2)
        await asyncio.to_thread(own_broker.start)  # it has forgotten the topic
        async with listening(own_broker.bootstrap_servers, TOPIC) as listener:
            assert (await listener.hears(2))[-2:] == [(2, ids[0]), (3, ids[1])]
        await eventually(lambda: nothing_waits(db))


async def test_a_broker_that_hangs_holds_up_no_shutdown_and_loses_nothing(
    own_broker: EmbeddedBroker, db: asyncpg.Connection, database_url: str, monkeypatch
) -> None:
    monkeypatch.setattr(publishing_loop, "FINISH_WITHIN_S", 0.3)
    monkeypatch.setattr(publishing_loop, "LET_GO_WITHIN_S", 0.3)
    async with relaying_to(own_broker.bootstrap_servers, TOPIC, database_url):
        await raise_numbers(db, 1)
        await eventually(lambda: nothing_waits(db))
        os.kill(own_broker.pid, signal.SIGSTOP)
        await raise_numbers(db, 2)
        await eventually(lambda: db.fetchval(f"SELECT EXISTS ({ALIVE} AND state = 'idle in transaction')"))
        began = time.monotonic()
    assert time.monotonic() - began < 2
    assert await db.fetchval("SELECT count(*) FROM outbox") == 1
    os.kill(own_broker.pid, signal.SIGCONT)


class Refusing:
    """A publisher that knows what it takes: numbers of rows."""

    def __init__(self, takes: set[int]) -> None:
        self._takes = takes

    async def enqueue(self, topic: str, key: str, value: bytes, headers: object) -> int:
        if topic == "silent":
            await asyncio.Event().wait()
        return int(value)

    async def acknowledge(self, futures: list[int]) -> None:
        if not self._takes.issuperset(futures):
            raise DependencyUnreachable("refused")


def rows(*given: tuple[str, str]) -> list[OutboxRow]:
    return [OutboxRow(n, topic, key, str(n).encode(), []) for n, (topic, key) in enumerate(given, 1)]


async def published(takes: set[int], *given: tuple[str, str]) -> tuple[list[int], list[str]]:
    outcomes = await relaying._publish(Refusing(takes), rows(*given))
    refusals = [type(outcome.refusal).__name__ for outcome in outcomes if outcome.refusal]
    return sorted(row for outcome in outcomes for row in outcome.done), refusals


async def test_a_refused_row_stays_and_so_do_those_of_its_key_that_come_after_it() -> None:
    keys = [("t", "a"), ("t", "b"), ("t", "a"), ("t", "b"), ("u", "a")]
    assert await published({2, 3, 4, 5}, *keys) == ([2, 4, 5], ["DependencyUnreachable"])
    assert await published({1, 2, 4, 5}, *keys) == ([1, 2, 4, 5], ["DependencyUnreachable"])
    assert await published(set(range(9)), *keys) == ([1, 2, 3, 4, 5], [])


async def test_a_topic_that_kafka_does_not_answer_for_holds_up_no_other(monkeypatch) -> None:
    monkeypatch.setattr(relaying, "ANSWER_WITHIN_S", -0.95)
    assert await published({2}, ("silent", "a"), ("t", "a")) == ([2], ["TimeoutError"])
