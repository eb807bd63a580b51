"""Apache Kafka without Docker: its jars through Maven, one KRaft process on Java 17 or later.

Correctness is claimed on this one: the embedded broker has flaws of its own.
"""

from __future__ import annotations

import base64
import fcntl
import functools
import hashlib
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from pathlib import Path
from typing import Self
from xml.etree import ElementTree

from counterfoil.embedded.broker import answers_kafka
from counterfoil.embedded.ports import free_port
from counterfoil.embedded.process import ServerProcess, last_lines, run_to_end
from counterfoil.errors import DependencyUnreachable

FOLDER = Path(__file__).with_name("kafka")
OLDEST_JAVA = 17

JVM_OPTIONS = (
    "-Xms256m",
    "-Xmx512m",
    "-XX:+UseSerialGC",  # two cores are shared with the tests
    "-XX:TieredStopAtLevel=1",  # starts sooner; a test run is too short for the second compiler
    f"-Dlog4j2.configurationFile={FOLDER / 'log4j2.properties'}",
)

PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
log.dirs={data}
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=500
broker.heartbeat.interval.ms=250
broker.session.timeout.ms=2000
controlled.shutdown.enable=false
"""


def kafka_version() -> str:
    """The version that the pom names."""
    pom = ElementTree.parse(FOLDER / "pom.xml")
    return pom.findtext(".//{*}kafka.version", default="unknown")


def apache_by_maven() -> str:
    """What a run on it says it ran on."""
    return f"Apache Kafka {kafka_version()} by Maven, KRaft, one process"


@functools.cache
def apache_kafka_missing() -> str | None:
    """Why Apache Kafka can't run here, or None; fetches its jars the first time."""
    java = _java()
    if java is None:
        return "there is no java"
    version = _java_version(java)
    if version < OLDEST_JAVA:
        return f"java is version {version}, and Apache Kafka takes {OLDEST_JAVA}"
    try:
        _jars()
    except (DependencyUnreachable, OSError) as error:
        return str(error)
    return None


class ApacheKafka:
    """A broker on 127.0.0.1 whose log outlives it, and which does not outlive this process."""

    def __init__(self, data_dir: Path, *, start_timeout: float = 60.0) -> None:
        self.data_dir = data_dir.absolute()
        self.log_file = self.data_dir / "kafka.log"
        self.port = free_port()
        self._controller_port = free_port()
        self._properties = self.data_dir / "server.properties"
        self._start_timeout = start_timeout
        self._process: ServerProcess | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def bootstrap_servers(self) -> str:
        """Its address; every restart keeps it."""
        return f"127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """The process id of its Java."""
        return self._running().pid

    def start(self) -> None:
        """Begin to serve, and return when it answers; what was in the log is there again."""
        if not self._properties.exists():
            self._format()
        self._process = ServerProcess(
            _command("kafka.Kafka", str(self._properties)), log=self.log_file, death_signal=signal.SIGKILL
        )
        self._await_answer()

    def stop(self) -> None:
        """End it in order."""
        self._end((signal.SIGTERM, 20.0))

    def kill(self) -> None:
        """End it as a crash would, with SIGKILL."""
        self._end()

    def restart(self) -> None:
        """Stop and start, with the same port and log."""
        self.stop()
        self.start()

    def pause(self) -> None:
        """Let it hang: its connections stay open and nothing is answered."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on after `pause`."""
        os.kill(self.pid, signal.SIGCONT)

    def _running(self) -> ServerProcess:
        if self._process is None:
            raise DependencyUnreachable("Apache Kafka is not running")
        return self._process

    def _end(self, *steps: tuple[signal.Signals, float]) -> None:
        if self._process is not None:
            self._process.stop(*steps)
            self._process = None

    def _format(self) -> None:
        self.data_dir.mkdir(parents=True, exist_ok=True)
        fresh = self._properties.with_suffix(".new")
        fresh.write_text(
            PROPERTIES.format(port=self.port, controller=self._controller_port, data=self.data_dir / "log"),
            encoding="utf-8",
        )
        cluster_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        # `=`, because an id may begin with a dash.
        run_to_end(
            _command("kafka.tools.StorageTool", "format", f"--cluster-id={cluster_id}", "-c", str(fresh))
        )
        fresh.rename(self._properties)

    def _await_answer(self) -> None:
        process = self._running()
        deadline = time.monotonic() + self._start_timeout
        while process.wait(0.05) is None and time.monotonic() < deadline:
            if answers_kafka(self.port):
                return
        self.kill()
        said = self.log_file.read_text(encoding="utf-8", errors="replace")
        raise DependencyUnreachable(f"Apache Kafka did not start: {last_lines(said)}")


def _command(main_class: str, *arguments: str) -> list[str]:
    java = _java()
    if java is None:
        raise DependencyUnreachable("there is no java")
    return [java, *JVM_OPTIONS, "-cp", f"{_jars()}/*", main_class, *arguments]


def _java() -> str | None:
    home = os.environ.get("JAVA_HOME")
    return (home and shutil.which("java", path=f"{home}/bin")) or shutil.which("java")


def _java_version(java: str) -> int:
    asked = subprocess.run([java, "-version"], capture_output=True, text=True, check=False)
    found = re.search(r'version "(?:1\.)?(\d+)', asked.stderr)
    return int(found[1]) if found else 0


@functools.cache
def _jars() -> Path:
    """Kafka's jars, fetched once for each content of the pom; DependencyUnreachable says why not."""
    pom = (FOLDER / "pom.xml").read_bytes()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "counterfoil"
    jars = cache / f"kafka-{kafka_version()}-{hashlib.sha256(pom).hexdigest()[:8]}"
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not jars.exists():
            _fetch(pom, jars)
    return jars


def _fetch(pom: bytes, jars: Path) -> None:
    maven = shutil.which("mvn")
    if maven is None:
        raise DependencyUnreachable("there is no mvn to fetch Apache Kafka with")
    with tempfile.TemporaryDirectory(dir=jars.parent) as folder:
        (Path(folder) / "pom.xml").write_bytes(pom)
        copy = [
            "-q",
            "-B",
            "-Dstyle.color=never",
            "dependency:copy-dependencies",
            f"-DoutputDirectory={folder}/jars",
        ]
        try:
            fetched = subprocess.run(
                [maven, *copy], cwd=folder, capture_output=True, text=True, timeout=600, check=False
            )
        except subprocess.TimeoutExpired:
            raise DependencyUnreachable("mvn did not fetch Apache Kafka within 10 minutes") from None
        if fetched.returncode != 0:
            errors = [line for line in fetched.stdout.splitlines() if "[ERROR]" in line][:1]
            raise DependencyUnreachable(f"mvn can't fetch Apache Kafka: {' '.join(errors)[:300]}")
        (Path(folder) / "jars").rename(jars)
