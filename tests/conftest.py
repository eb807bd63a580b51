"""Fixtures: real PostgreSQL, real brokers, real workers; a run says at its end which ones it ran on."""

from __future__ import annotations

import os
import uuid
from collections.abc import AsyncIterator, Generator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import asyncpg
import hypothesis
import pytest

from counterfoil.embedded import ports
from counterfoil.embedded.broker import EmbeddedBroker
from counterfoil.embedded.postgres import EmbeddedPostgres
from counterfoil.settings import DEFAULT_TOPICS, OUTGOING_TOPICS, topic_setting
from support.apache_kafka import ApacheKafka, apache_by_maven, apache_kafka_missing
from support.databases import address_of, clone, drop, make_template, server_version
from support.servers import Broker, Server, StartWorker, servers_folder
from support.shared_kafka import NoApacheKafka, SharedKafka, shared_apache_kafka, started_apache_kafka
from support.stream import Stream
from support.worker import LOG_TAIL, Worker

DATABASE_VARIABLE = "COUNTERFOIL_TEST_DATABASE_URL"
KAFKA_VARIABLE = "COUNTERFOIL_TEST_KAFKA"

FAST_AND_UNSAFE = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "max_connections": "200",
}
"""A test's data is lost with the machine: nobody mourns it."""

RAN_ON: pytest.StashKey[dict[str, str]] = pytest.StashKey()
LOG_FILES: pytest.StashKey[list[Path]] = pytest.StashKey()
SHARED: pytest.StashKey[SharedKafka] = pytest.StashKey()

SHARED_KAFKA = "shared_kafka"
"""What a test process is told under this name by the one that hands out the tests."""

WHOLE_FILES = (
    "tests/e2e/test_bench.py",
    "tests/e2e/test_console_browser.py",
    "tests/e2e/test_ledger_bench.py",
    "tests/packaging/test_wheel.py",
)
"""Each has something dear that all its tests look at: they go to one process together, and first of all."""


hypothesis.settings.register_profile("counterfoil", deadline=None)  # a busy machine breaks no property
hypothesis.settings.load_profile("counterfoil")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[RAN_ON] = {}
    _keep_to_ports_of_our_own(config)


def pytest_report_header() -> list[str]:
    postgres = f"address in {DATABASE_VARIABLE}" if os.environ.get(DATABASE_VARIABLE) else "embedded"
    kafka = f"address in {KAFKA_VARIABLE}" if os.environ.get(KAFKA_VARIABLE) else "embedded, and Apache Kafka"
    return [f"PostgreSQL: {postgres}; Kafka: {kafka}"]


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, exitstatus: int, config: pytest.Config
) -> None:
    for what, description in config.stash[RAN_ON].items():
        terminalreporter.write_line(f"ran on {what}: {description}")


# With `-n`, tests run in several processes, and this one hands them out and reports.


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_setupnodes(config: pytest.Config) -> None:
    config.stash[SHARED] = SharedKafka()


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell a test process where to ask for Apache Kafka."""
    node.workerinput[SHARED_KAFKA] = node.config.stash[SHARED].place


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Hand out WHOLE_FILES, then test after test; pytest-xdist's own groups do nothing with pytest 9.2."""
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            return file if file in WHOLE_FILES else nodeid

    return Scheduling(config, log)


def pytest_sessionfinish(session: pytest.Session) -> None:
    ours = getattr(session.config, "workeroutput", None)
    if ours is not None:
        ours["ran_on"] = session.config.stash[RAN_ON]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    """Note what a test process ran on."""
    node.config.stash[RAN_ON].update(getattr(node, "workeroutput", {}).get("ran_on", {}))


def pytest_unconfigure(config: pytest.Config) -> None:
    if shared := config.stash.get(SHARED, None):
        shared.close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show the logs of a failed test's own workers and servers."""
    report = yield
    if report.failed:
        for file in item.stash.get(LOG_FILES, []):
            if file.exists():
                text = file.read_text(encoding="utf-8", errors="replace")[-LOG_TAIL:]
                report.sections.append((f"log of {file.parent.name}/{file.name}", text))
    return report


@pytest.fixture(scope="session")
def postgres_server(pytestconfig: pytest.Config) -> Iterator[Server]:
    """A PostgreSQL server: the one that COUNTERFOIL_TEST_DATABASE_URL names, else an embedded one."""
    given = os.environ.get(DATABASE_VARIABLE)
    if given:
        server = Server(given, f"PostgreSQL {server_version(given)} at the address in {DATABASE_VARIABLE}")
        pytestconfig.stash[RAN_ON]["postgres_server"] = server.description
        yield server
        return
    with servers_folder() as folder:
        postgres = EmbeddedPostgres(folder / "postgres", options=FAST_AND_UNSAFE)
        try:
            postgres.start()
            version = server_version(postgres.dsn)
            server = Server(postgres.dsn, f"embedded PostgreSQL {version}, fsync off")
            pytestconfig.stash[RAN_ON]["postgres_server"] = server.description
            yield server
        finally:
            postgres.remove()


@pytest.fixture(scope="session")
def template_database(postgres_server: Server) -> Iterator[str]:
    """The name of a database with every migration applied, never connected to again."""
    name = make_template(postgres_server.dsn)
    yield name
    drop(name, postgres_server.dsn)


@pytest.fixture
def database_url(postgres_server: Server, template_database: str) -> Iterator[str]:
    """The address of a fresh, migrated database for this test alone."""
    name = clone(template_database, postgres_server.dsn)
    yield address_of(name, postgres_server.dsn)
    drop(name, postgres_server.dsn)


@pytest.fixture
async def db(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection to this test's database."""
    connection = await asyncpg.connect(database_url)
    yield connection
    connection.terminate()


@pytest.fixture
def own_postgres(request: pytest.FixtureRequest) -> Iterator[EmbeddedPostgres]:
    """A PostgreSQL for this test alone, to be stopped and restarted; fsync is on. Not migrated."""
    with servers_folder() as folder:
        postgres = EmbeddedPostgres(folder / "postgres")
        _show_on_failure(request, postgres.log_file)
        try:
            postgres.start()
            request.config.stash[RAN_ON]["own_postgres"] = "embedded PostgreSQL, fsync on"
            yield postgres
        finally:
            postgres.remove()


@pytest.fixture(scope="session")
def broker(pytestconfig: pytest.Config) -> Iterator[Broker]:
    """A broker for what any Kafka does: the one that COUNTERFOIL_TEST_KAFKA names, else the embedded one."""
    given = _given_broker()
    if given:
        pytestconfig.stash[RAN_ON]["broker"] = given.description
        yield given
        return
    with servers_folder() as folder, EmbeddedBroker(folder / "broker") as embedded:
        description = "embedded broker (Tansu, in memory)"
        pytestconfig.stash[RAN_ON]["broker"] = description
        yield Broker(embedded.bootstrap_servers, description, session_timeout_ms=1_000)


@pytest.fixture(scope="session")
def apache_kafka(pytestconfig: pytest.Config) -> Iterator[Broker]:
    """Apache Kafka itself: by address, in a container, or by Maven; the test is skipped where none runs."""
    with ExitStack() as started:
        try:
            kafka = _given_broker() or _shared_apache_kafka(pytestconfig)
            kafka = kafka or started.enter_context(started_apache_kafka())
        except NoApacheKafka as why:
            pytest.skip(f"NOT TESTED, Apache Kafka can't run here: {why}")
        pytestconfig.stash[RAN_ON]["apache_kafka"] = kafka.description
        yield kafka


@pytest.fixture
def own_apache_kafka(request: pytest.FixtureRequest) -> Iterator[ApacheKafka]:
    """Apache Kafka for this test alone, to be killed, paused and restarted; skipped where Maven has none."""
    missing = apache_kafka_missing()
    if missing:
        pytest.skip(f"NOT TESTED, Apache Kafka can't run here: {missing}")
    with servers_folder() as folder:
        kafka = ApacheKafka(folder / "kafka")
        _show_on_failure(request, kafka.log_file)
        try:
            kafka.start()
            request.config.stash[RAN_ON]["own_apache_kafka"] = apache_by_maven()
            yield kafka
        finally:
            kafka.kill()


@pytest.fixture
def topic_prefix() -> str:
    """Begins the names of this test's topics and groups, since it shares the broker."""
    return f"t{uuid.uuid4().hex[:10]}."


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


@pytest.fixture
def start_worker(
    request: pytest.FixtureRequest, database_url: str, topic_prefix: str
) -> Iterator[StartWorker]:
    """Start `counterfoil run` on this test's database: `await start_worker(broker, code_case="upper")`.

    Takes a Broker or ApacheKafka, and settings in lower case. Topics and group begin with `topic_prefix`.
    Killed at the end; its log is shown when the test fails.
    """
    workers: list[Worker] = []
    with servers_folder() as folder:

        async def start(
            kafka: Broker | ApacheKafka, *, ready_within: float | None = 60.0, **settings: object
        ) -> Worker:
            defaults: dict[str, Any] = {
                "database_url": database_url,
                "consumer_group": f"{topic_prefix}group",
                **{
                    topic_setting(name): f"{topic_prefix}{name}"
                    for name in (*DEFAULT_TOPICS, *OUTGOING_TOPICS)
                },
                "kafka_session_timeout_ms": getattr(kafka, "session_timeout_ms", 1_000),
            }
            log_file = folder / f"worker-{len(workers) + 1}.log"
            _show_on_failure(request, log_file)
            worker = Worker(
                kafka_bootstrap_servers=kafka.bootstrap_servers, log_file=log_file, **(defaults | settings)
            )
            workers.append(worker)
            await worker.start(ready_within=ready_within)
            return worker

        yield start
        for worker in workers:
            worker.kill()


def _show_on_failure(request: pytest.FixtureRequest, log_file: Path) -> None:
    request.node.stash.setdefault(LOG_FILES, []).append(log_file)


def _keep_to_ports_of_our_own(config: pytest.Config) -> None:
    """See that no other process of this run takes a port between our choice of it and our server's start."""
    ours = getattr(config, "workerinput", None)
    count = ours["workercount"] if ours else config.getoption("numprocesses", None) or 0
    number = int(ours["workerid"].removeprefix("gw")) % count + 1 if ours else 0
    share = (ports.HIGHEST - ports.LOWEST) // (count + 1)
    ports.LOWEST += number * share
    ports.HIGHEST = ports.LOWEST + share


def _given_broker() -> Broker | None:
    address = os.environ.get(KAFKA_VARIABLE)
    return Broker(address, f"the broker at the address in {KAFKA_VARIABLE}", 6_000) if address else None


def _shared_apache_kafka(config: pytest.Config) -> Broker | None:
    """That of the process which hands out the tests, where it is another one than ours."""
    ours = getattr(config, "workerinput", None)
    return shared_apache_kafka(tuple(ours[SHARED_KAFKA])) if ours else None
