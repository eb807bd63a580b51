"""What the demo runs on: embedded parts in a folder of their own, and a worker that may be killed."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import counterfoil
from counterfoil.embedded.parts import EmbeddedParts, RunningParts
from counterfoil.embedded.process import ServerProcess, last_lines
from counterfoil.errors import DependencyUnreachable
from counterfoil.settings import PREFIX, Settings

SESSION_MS = 1_000
"""A killed worker's partitions come back after three of them."""

BATCH_RECORDS = 50
"""Small transactions, so that the worker is killed between many."""


class Stage:
    """PostgreSQL, the broker, and a worker; none outlives this process, and the folder goes with `remove`."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.gettempdir()) / f"counterfoil-demo-{secrets.token_hex(4)}"
        self.parts = EmbeddedParts(self.folder, postgres_options={"shared_buffers": "64MB"})
        self.worker: ServerProcess | None = None
        self._log = self.folder / "worker.log"

    @property
    def running(self) -> RunningParts:
        """Where the parts answer."""
        return self.parts.running

    @property
    def settings(self) -> Settings:
        """Settings for our own side; nothing of the caller's environment is in them."""
        return Settings.model_construct(
            kafka_bootstrap_servers=self.running.kafka_bootstrap_servers, kafka_idempotence=False
        )

    def start_worker(self) -> ServerProcess:
        """Start `counterfoil run` in a session of its own."""
        given = {
            "DATABASE_URL": self.running.database_url,
            "KAFKA_BOOTSTRAP_SERVERS": self.running.kafka_bootstrap_servers,
            "KAFKA_IDEMPOTENCE": "false",
            "KAFKA_SESSION_TIMEOUT_MS": str(SESSION_MS),
            "BATCH_MAX_RECORDS": str(BATCH_RECORDS),
            "HTTP_PORT": "0",
            "LOG_FORMAT": "json",
        }
        self.worker = ServerProcess(
            [sys.executable, "-m", "counterfoil", "run"],
            log=self._log,
            death_signal=signal.SIGKILL,
            environment={f"{PREFIX}{name}": value for name, value in given.items()}
            | {"PYTHONPATH": _python_path()},
        )
        return self.worker

    def kill_worker(self) -> None:
        """End it as a crash would, with SIGKILL."""
        if self.worker is not None:
            self.worker.stop()

    def check_worker(self) -> None:
        """Raise DependencyUnreachable, with the end of its log, when the worker has ended by itself."""
        if self.worker is not None and self.worker.exit_code is not None:
            said = self._log.read_text(encoding="utf-8", errors="replace")
            raise DependencyUnreachable(
                f"the worker ended with exit code {self.worker.exit_code}: {last_lines(said)}"
            )

    def remove(self) -> None:
        """End all of it and delete the folder."""
        self.kill_worker()
        self.parts.remove()
        shutil.rmtree(self.folder, ignore_errors=True)


@contextlib.contextmanager
def stage() -> Iterator[Stage]:
    """A stage with PostgreSQL and the broker up, removed at the end; a second Ctrl-C can't stop that."""
    made = Stage()
    try:
        made.parts.start()
        yield made
    finally:
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        made.remove()
        signal.signal(signal.SIGINT, before)


def _python_path() -> str:
    """Where this very package lies, and what is on our own path: the worker starts in another folder."""
    given = [
        str(Path(part).absolute()) for part in os.environ.get("PYTHONPATH", "").split(os.pathsep) if part
    ]
    return os.pathsep.join([str(Path(counterfoil.__file__).resolve().parents[1]), *given])
