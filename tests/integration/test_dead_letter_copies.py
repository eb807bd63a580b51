"""Copies of dead letters: bytes as they came and Kafka Connect's headers, at least once, one bad one stops no other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest
from structlog.testing import capture_logs

from counterfoil.errors import DependencyUnreachable
from counterfoil.ingest import copies as copying
from counterfoil.ingest import dead_letters
from counterfoil.ingest.copies import Copy, DeadLetterCopies, Outcome, copied_headers
from counterfoil.ingest.records import Malformed
from counterfoil.telemetry.metrics import Metrics
from support.alerts import PARTITIONS, listening
from support.builders import a_record
from support.postgres_road import CLUSTER, plain_settings
from support.servers import Broker
from support.waiting import eventually

ALIVE = (
    "SELECT pid FROM pg_stat_activity "
    "WHERE application_name = 'counterfoil dead letter copies' AND datname = current_database()"
)


@pytest.fixture(params=["embedded", pytest.param("apache", marks=pytest.mark.kafka)])
def kafka(request: pytest.FixtureRequest) -> Broker:
    """Each broker in turn."""
    return request.getfixturevalue("broker" if request.param == "embedded" else "apache_kafka")


@pytest.fixture
def topic(topic_prefix: str) -> str:
    return f"{topic_prefix}order.placed"


async def park(
    db: asyncpg.Connection, topic: str, *values: bytes | None, copies: bool = True, **fields: Any
) -> None:
    """Park records of one partition, at offsets that go on from those that are there."""
    first = await db.fetchval("SELECT count(*) FROM dead_letters")
    found = [
        Malformed(a_record(first + n, value, topic=topic, **fields), "not_json", "must be JSON")
        for n, value in enumerate(values)
    ]
    await dead_letters.park(db, CLUSTER, found, copies=copies)


@asynccontextmanager
async def copying_to(kafka: Broker, database_url: str, **settings: Any) -> AsyncIterator[Metrics]:
    """A publisher of copies in this process."""
    metrics = Metrics()
    chosen = plain_settings(
        database_url=database_url,
        kafka_bootstrap_servers=kafka.bootstrap_servers,
        topic_partitions=PARTITIONS,
        **settings,
    )
    publisher = DeadLetterCopies(chosen, metrics)
    publisher.start()
    try:
        yield metrics
    finally:
        await publisher.stop()


async def none_is_due(db: asyncpg.Connection) -> bool:
    return bool(await db.fetchval("SELECT NOT EXISTS (SELECT FROM dead_letters WHERE copy_due)"))


async def test_a_copy_is_the_record_as_it_came_and_says_where_from_and_why(
    kafka: Broker, topic: str, db: asyncpg.Connection, database_url: str
) -> None:
    own = [("trace", b"\xff\x00"), ("trace", None), ("", b""), ("__connect.errors.topic", b"before")]
    await park(db, topic, b"\xff\x00{", None, b"", key=b"\xfe key", headers=own)
    await park(db, topic, None, key=None)
    async with (
        copying_to(kafka, database_url) as metrics,
        listening(kafka.bootstrap_servers, f"{topic}.dlq") as heard,
    ):
        await heard.hears_records(4)
        await eventually(lambda: none_is_due(db))
    records = sorted(heard.records, key=lambda record: dict(record.headers)["__connect.errors.offset"])
    assert [(r.key, r.value) for r in records] == [
        (b"\xfe key", b"\xff\x00{"),
        (b"\xfe key", None),
        (b"\xfe key", b""),
        (None, None),
    ]
    assert list(records[0].headers) == [
        *own,
        ("__connect.errors.topic", topic.encode()),
        ("__connect.errors.partition", b"0"),
        ("__connect.errors.offset", b"0"),
        ("__connect.errors.exception.class.name", b"not_json"),
        ("__connect.errors.exception.message", b"must be JSON"),
    ]
    assert metrics.value("dead_letters_copied_total", {"topic": topic}) == 4
    assert await db.fetchval("SELECT count(*) FROM dead_letters WHERE copied_at IS NOT NULL") == 4


async def test_copies_of_a_partition_come_in_order_under_their_key(
    kafka: Broker, topic: str, db: asyncpg.Connection, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copying, "AT_ONCE", 7)
    for n in range(30):
        await park(db, topic, b"%d" % n, key=b"the same")
    async with (
        copying_to(kafka, database_url),
        copying_to(kafka, database_url),
        listening(kafka.bootstrap_servers, f"{topic}.dlq") as heard,
    ):
        await heard.hears_records(30)
        await eventually(lambda: none_is_due(db))
    assert [int(record.value) for record in heard.records] == list(range(30))
    assert len({record.partition for record in heard.records}) == 1


async def test_only_what_was_parked_while_copies_were_asked_for_is_copied(
    broker: Broker, topic: str, db: asyncpg.Connection, database_url: str
) -> None:
    await park(db, topic, b"before", copies=False)
    await park(db, topic, b"since")
    async with (
        copying_to(broker, database_url),
        listening(broker.bootstrap_servers, f"{topic}.dlq") as heard,
    ):
        await heard.hears_records(1)
        await eventually(lambda: none_is_due(db))
    assert [record.value for record in heard.records] == [b"since"]
    assert await db.fetchval("SELECT array_agg(copied_at IS NULL ORDER BY id) FROM dead_letters") == [
        True,
        False,
    ]


async def test_who_is_cut_off_between_kafkas_answer_and_his_commit_publishes_again(
    broker: Broker, topic: str, db: asyncpg.Connection, database_url: str
) -> None:
    await park(db, topic, b"1", b"2", key=b"k")
    async with (
        listening(broker.bootstrap_servers, f"{topic}.dlq") as heard,
        copying_to(broker, database_url),
    ):
        async with db.transaction():
            await db.execute("SELECT FROM dead_letters FOR UPDATE")  # published, they cannot be noted
            await heard.hears_records(2)
            await eventually(lambda: db.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"))
            await db.execute("SELECT pg_terminate_backend(pid) FROM (" + ALIVE + ") AS it")
        await heard.hears_records(4)
        await eventually(lambda: none_is_due(db))
    assert [record.value for record in heard.records] == [b"1", b"2", b"1", b"2"]


async def test_a_record_that_kafka_never_takes_says_so_and_holds_up_no_other(
    apache_kafka: Broker, topic: str, db: asyncpg.Connection, database_url: str
) -> None:
    large = b"x" * (2 * 1024 * 1024)
    await park(db, topic, b"1", large, b"3", key=b"k")
    with capture_logs() as logs:
        async with (
            copying_to(apache_kafka, database_url),
            listening(apache_kafka.bootstrap_servers, f"{topic}.dlq") as heard,
        ):
            await heard.hears_records(2)
            await eventually(lambda: none_is_due(db))
    assert [record.value for record in heard.records] == [b"1", b"3"]
    rows = await db.fetch(
        "SELECT copied_at IS NULL AS missing, copy_error, value FROM dead_letters ORDER BY id"
    )
    assert [row["missing"] for row in rows] == [False, True, False]
    assert "MessageSizeTooLarge" in rows[1]["copy_error"]
    assert rows[1]["value"] == large
    assert [entry["offset"] for entry in logs if entry["event"] == "dead_letter_not_copied"] == [1]


async def test_what_not_even_the_client_sends_holds_up_no_other(
    broker: Broker, topic: str, db: asyncpg.Connection, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copying, "LARGEST_RECORD", 10_000)
    await park(db, topic, b"1", b"x" * 20_000, b"3", key=b"k")
    async with (
        copying_to(broker, database_url),
        listening(broker.bootstrap_servers, f"{topic}.dlq") as heard,
    ):
        await heard.hears_records(2)
        await eventually(lambda: none_is_due(db))
    assert [record.value for record in heard.records] == [b"1", b"3"]


async def test_a_topic_that_cannot_be_made_holds_up_no_other(
    apache_kafka: Broker, topic: str, db: asyncpg.Connection, database_url: str
) -> None:
    endless = topic.ljust(249, "x")  # its copies' name is longer than Kafka takes
    await park(db, endless, b"never")
    await park(db, topic, b"1")
    with capture_logs() as logs:
        async with (
            copying_to(apache_kafka, database_url),
            listening(apache_kafka.bootstrap_servers, f"{topic}.dlq") as heard,
        ):
            await heard.hears_records(1)
            await eventually(lambda: [e for e in logs if e["event"] == "dead_letter_copies_set_aside"])
    assert await db.fetchval("SELECT topic FROM dead_letters WHERE copy_due") == endless


async def test_copies_wait_while_kafka_is_away(topic: str, db: asyncpg.Connection, database_url: str) -> None:
    await park(db, topic, b"1")
    away = Broker("127.0.0.1:9", "away", 1_000)
    with capture_logs() as logs:
        async with copying_to(away, database_url) as metrics:
            await eventually(lambda: [e for e in logs if e["event"] == "dead_letter_copies_put_off"])
            assert metrics.value("dead_letter_copies_waiting") == 1
    assert not await none_is_due(db)


async def test_a_header_name_that_is_no_text_is_written_readably() -> None:
    copy = Copy(1, "t", 0, 0, None, None, [("a\udcff", b"1")], "kind", "why")
    assert copied_headers(copy)[0] == ("a\\xff", b"1")


async def test_stopping_while_nothing_is_due_takes_no_time(
    broker: Broker, db: asyncpg.Connection, database_url: str
) -> None:
    async with asyncio.timeout(10):
        async with copying_to(broker, database_url):
            await eventually(lambda: db.fetchval(ALIVE))


class Refusing:
    """A publisher that knows what it takes: numbers of copies."""

    def __init__(self, takes: set[int]) -> None:
        self._takes = takes

    async def enqueue(self, topic: str, key: object, value: bytes, headers: object) -> int:
        return int(value)

    async def acknowledge(self, futures: list[int]) -> None:
        if not self._takes.issuperset(futures):
            raise DependencyUnreachable("refused")


@pytest.mark.parametrize(
    ("takes", "done"),
    [({2, 3, 4}, [2, 4]), ({1, 2, 4}, [1, 2, 4]), ({1, 3, 4}, [1, 3]), ({1, 2, 3, 4}, [1, 2, 3, 4])],
)
async def test_what_comes_behind_a_refused_copy_of_its_partition_is_published_after_it(
    takes: set[int], done: list[int]
) -> None:
    copies = [Copy(n, "t", n % 2, n, b"k", b"%d" % n, [], "kind", "why") for n in range(1, 5)]
    outcome = Outcome([], {})
    left = await copying._publish_together(Refusing(takes), copies, outcome)
    assert outcome.done == done
    assert [copy.id for copy in left] == sorted({1, 2, 3, 4} - set(done))
