"""What `doctor` says of Apache Kafka, of the topics and of what is not read, each made wrong for real."""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from typing import Any

import asyncpg
import pytest

from counterfoil.doctor import State, examine
from counterfoil.embedded.ports import free_port
from counterfoil.ingest import gaps
from counterfoil.ingest.bounds import Bounds, find_bounds
from counterfoil.ingest.partitions import Partition
from counterfoil.settings import DEFAULT_TOPICS, OUTGOING_TOPICS, topic_setting
from support import apache_kafka as apache
from support.apache_kafka import ApacheKafka
from support.command import counterfoil
from support.factories import a_malformed_order, order_ids, orders
from support.ledgers import everything_is_read
from support.postgres_road import plain_settings
from support.probes import is_unready_for
from support.servers import Broker, StartWorker, servers_folder
from support.stream import Stream

pytestmark = pytest.mark.kafka

Doctor = Callable[..., Awaitable[tuple[int, dict[str, list[dict[str, str]]]]]]

LOGIN = """\
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller},LOGIN://127.0.0.1:SASL_PORT
advertised.listeners=PLAINTEXT://127.0.0.1:{port},LOGIN://127.0.0.1:SASL_PORT
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,LOGIN:SASL_PLAINTEXT
listener.name.login.sasl.enabled.mechanisms=PLAIN
listener.name.login.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule \
required user_shop="right";
"""


@pytest.fixture
def surroundings(database_url: str, topic_prefix: str, apache_kafka: Broker) -> dict[str, Any]:
    """Settings of this test's database and topics."""
    return {
        "database_url": database_url,
        "kafka_bootstrap_servers": apache_kafka.bootstrap_servers,
        "consumer_group": f"{topic_prefix}group",
        "topic_partitions": 1,
        "http_port": free_port(),
        **{topic_setting(n): f"{topic_prefix}{n}" for n in (*DEFAULT_TOPICS, *OUTGOING_TOPICS)},
    }


@pytest.fixture
def doctor(surroundings: dict[str, Any]) -> Doctor:
    """Run `counterfoil doctor --json` in these surroundings: the exit code, and the findings by check."""

    async def run(**settings: object) -> tuple[int, dict[str, list[dict[str, str]]]]:
        ended = await counterfoil("doctor", "--json", **(surroundings | settings))
        assert ended.code in {0, 1, 3}, ended.err
        by_check: dict[str, list[dict[str, str]]] = {}
        for finding in json.loads(ended.out):
            by_check.setdefault(finding["check"], []).append(finding)
        return ended.code, by_check

    return run


def wrong(findings: dict[str, list[dict[str, str]]]) -> dict[str, str]:
    """What is not well: the message of each check, its state before it."""
    return {
        check: f"{finding['state']}: {finding['message']}"
        for check, there in findings.items()
        for finding in there
        if finding["state"] != "ok"
    }


async def test_beside_a_worker_that_has_read_everything_nothing_is_wrong(
    stream: Stream, db: asyncpg.Connection, start_worker: StartWorker, doctor: Doctor
) -> None:
    worker = await start_worker(stream.kafka, topic_partitions=1)
    await stream.publish(*orders(order_ids(10)))
    await everything_is_read(db, stream)

    code, findings = await doctor(http_port=worker.port)
    assert (code, wrong(findings)) == (0, {})
    assert findings["worker"][0]["message"] == f"the one at 127.0.0.1:{worker.port} is ready"
    assert findings["topics"][0]["message"] == f"all {len(DEFAULT_TOPICS + OUTGOING_TOPICS)} topics are there"


async def test_topics_that_are_missing_or_narrow_are_named(stream: Stream, doctor: Doctor) -> None:
    code, findings = await doctor()
    assert code == 1
    assert wrong(findings).keys() == {"topics"}
    assert wrong(findings)["topics"].startswith(f"problem: not in Kafka: {stream.placed}, ")
    await stream.create(partitions=2)
    _, findings = await doctor(topic_partitions=3, consumers="click")
    (missing, narrow) = findings["topics"]
    assert missing["message"].startswith("not in Kafka: ")  # what the relay publishes to
    assert narrow["state"] == "warning"
    assert narrow["message"].endswith(f"COUNTERFOIL_TOPIC_PARTITIONS=3: {stream.clicks} 2")


async def test_what_is_read_by_nobody_waits_and_then_stands_still(
    stream: Stream, db: asyncpg.Connection, start_worker: StartWorker, doctor: Doctor
) -> None:
    worker = await start_worker(stream.kafka, topic_partitions=1)
    await stream.publish(*orders(order_ids(10)))
    await everything_is_read(db, stream)
    assert await worker.terminate() == 0
    await stream.publish(*orders(order_ids(3)))
    code, findings = await doctor()
    assert (code, wrong(findings)) == (
        1,
        {"consumers": f"problem: hold records and are read by nobody: {stream.placed} (1 partition)"},
    )
    assert findings["lag"][0]["message"].startswith("3 records to be read, the oldest of ")

    await db.execute("UPDATE stream_positions SET updated_at = now() - interval '1 hour'")
    _, findings = await doctor(standstill_after_s=1)
    assert wrong(findings)["standstill"] == (
        f"problem: stands still: 1 position before 3 records: {stream.placed}/0@10"
    )
    assert findings["lag"][0]["message"] == "everything is read"


@pytest.mark.slow
async def test_a_position_that_moves_while_it_is_looked_at_does_not_stand_still(
    stream: Stream,
    db: asyncpg.Connection,
    start_worker: StartWorker,
    surroundings: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    worker = await start_worker(stream.kafka, topic_partitions=1)
    await stream.publish(*orders(order_ids(10)))
    await everything_is_read(db, stream)
    await db.execute("UPDATE stream_positions SET updated_at = now() - interval '1 hour'")
    an_hour_ago = int((time.time() - 3_600) * 1000)
    writing = db.transaction()
    seen: list[int | None] = []

    async def look_and_let_go(*arguments: Any) -> dict[Partition, Bounds]:
        bounds = await find_bounds(*arguments)
        seen.append(bounds[Partition(stream.placed, 0)].unread_at)
        await writing.rollback()
        return bounds

    monkeypatch.setattr(gaps, "find_bounds", look_and_let_go)
    await writing.start()
    await db.execute("LOCK TABLE affiliate_coupons IN EXCLUSIVE MODE")
    await stream.publish(*(replace(o, timestamp_ms=an_hour_ago) for o in orders(order_ids(3))))
    findings, _ = await examine(plain_settings(**(surroundings | {"http_port": worker.port})))
    assert seen == [an_hour_ago]
    assert "standstill" not in {finding.check for finding in findings if finding.state is not State.OK}


async def test_what_was_deleted_unread_is_told_of_before_and_after_it_is_accounted_for(
    stream: Stream, db: asyncpg.Connection, start_worker: StartWorker, doctor: Doctor
) -> None:
    worker = await start_worker(stream.kafka, topic_partitions=1)
    await stream.publish(*orders(order_ids(10)))
    await everything_is_read(db, stream)
    assert await worker.terminate() == 0
    await stream.publish(*orders(order_ids(5)))
    await stream.delete_before(stream.placed, 15)
    _, findings = await doctor()
    assert wrong(findings)["retention"] == (
        f"problem: Kafka deleted 5 offsets before we read them: {stream.placed}/0@10"
    )

    worker = await start_worker(stream.kafka, topic_partitions=1)
    await stream.publish(*orders(order_ids(1)))
    await everything_is_read(db, stream)
    code, findings = await doctor()
    assert code == 1
    assert wrong(findings)["retention"].startswith("problem: offsets were lost to retention, last at 20")
    assert wrong(findings)["retention"].endswith(f": {stream.placed} 5")
    assert "replay --file" in findings["retention"][0]["fix"]

    await db.execute("UPDATE lost_offsets SET noticed_at = now() - interval '8 days'")
    code, findings = await doctor()
    assert (code, wrong(findings)) == (0, {})
    assert findings["retention"][0]["message"] == "nothing was deleted unread; long ago 5 were"


@pytest.mark.slow
async def test_a_record_that_has_nearly_reached_its_age_is_about_to_be_lost(
    stream: Stream, db: asyncpg.Connection, start_worker: StartWorker, doctor: Doctor
) -> None:
    worker = await start_worker(stream.kafka, topic_partitions=1)
    await stream.publish(*orders(order_ids(10)))
    await everything_is_read(db, stream)
    assert await worker.terminate() == 0
    six_and_a_half_days_ago = int(
        (time.time() - 6.5 * 86_400) * 1000
    )  # of the seven that Kafka keeps by default
    await stream.publish(*(replace(o, timestamp_ms=six_and_a_half_days_ago) for o in orders(order_ids(1))))
    _, findings = await doctor()
    assert wrong(findings)["retention"] == f"warning: about to be deleted unread: {stream.placed}/0"


async def test_a_topic_that_the_breaker_holds_is_told_of(
    stream: Stream, start_worker: StartWorker, doctor: Doctor
) -> None:
    await stream.create(partitions=1)
    await stream.publish(*(a_malformed_order() for _ in range(1_500)))
    worker = await start_worker(stream.kafka, ready_within=None)
    await is_unready_for(worker, "breaker")
    _, findings = await doctor(http_port=worker.port)
    assert f"breaker: topic {stream.placed} is paused" in wrong(findings)["worker"]
    assert wrong(findings)["dead-letters"].startswith("warning: ")


async def test_another_protocol_than_kafkas_is_told_of(apache_kafka: Broker, doctor: Doctor) -> None:
    code, findings = await doctor(kafka_security_protocol="SSL")
    assert code == 1  # PostgreSQL could be looked at
    (kafka,) = findings["kafka"]
    assert kafka["fix"] == "set COUNTERFOIL_KAFKA_SECURITY_PROTOCOL to PLAINTEXT"
    _, findings = await doctor(
        kafka_security_protocol="SASL_PLAINTEXT", kafka_sasl_username="shop", kafka_sasl_password="hidden"
    )
    (kafka,) = findings["kafka"]
    assert kafka["state"] == "problem"
    assert "COUNTERFOIL_KAFKA_SECURITY_PROTOCOL" in kafka["fix"]
    assert "hidden" not in str(findings)


@pytest.fixture
def with_login(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of an Apache Kafka that wants a login: shop, right."""
    missing = apache.apache_kafka_missing()
    if missing:
        pytest.skip(f"NOT TESTED, Apache Kafka can't run here: {missing}")
    port = free_port()
    usual = [line for line in apache.PROPERTIES.splitlines(keepends=True) if "listeners=" not in line]
    login = LOGIN.replace("SASL_PORT", str(port))
    monkeypatch.setattr(apache, "PROPERTIES", "".join(usual) + login)
    with servers_folder() as folder, ApacheKafka(folder / "kafka"):
        yield f"127.0.0.1:{port}"


@pytest.mark.slow
async def test_a_login_that_kafka_refuses_names_its_settings(with_login: str, doctor: Doctor) -> None:
    right = {
        "kafka_bootstrap_servers": with_login,
        "kafka_security_protocol": "SASL_PLAINTEXT",
        "kafka_sasl_username": "shop",
        "kafka_sasl_password": "right",
    }
    _, findings = await doctor(**right)
    assert findings["kafka"][0]["state"] == "ok"
    _, findings = await doctor(**(right | {"kafka_sasl_password": "hidden"}))
    (kafka,) = findings["kafka"]
    assert kafka["message"].endswith("refuses the login")
    assert kafka["fix"] == "correct COUNTERFOIL_KAFKA_SASL_USERNAME and COUNTERFOIL_KAFKA_SASL_PASSWORD"
    _, findings = await doctor(**(right | {"kafka_sasl_mechanism": "SCRAM-SHA-256"}))
    assert "COUNTERFOIL_KAFKA_SASL_MECHANISM" in findings["kafka"][0]["fix"]
    _, findings = await doctor(kafka_bootstrap_servers=with_login)
    assert "COUNTERFOIL_KAFKA_SECURITY_PROTOCOL" in findings["kafka"][0]["fix"]
