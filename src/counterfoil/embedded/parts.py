"""The embedded parts of one data folder together, and how other commands of that folder find them."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import IO, Self

from counterfoil.embedded.broker import EmbeddedBroker
from counterfoil.embedded.places import make_folder, remove_if_empty
from counterfoil.embedded.postgres import EmbeddedPostgres
from counterfoil.embedded.process import lives
from counterfoil.errors import InvalidSetting

ADDRESSES = "embedded.json"


@dataclass(frozen=True)
class RunningParts:
    """Where the parts of a data folder answer; `database_url` holds a password."""

    database_url: str
    kafka_bootstrap_servers: str
    owner_pid: int
    postgres_pid: int
    broker_pid: int

    @property
    def pids(self) -> tuple[int, int, int]:
        """Who started them, PostgreSQL, the broker."""
        return self.owner_pid, self.postgres_pid, self.broker_pid


class EmbeddedParts:
    """PostgreSQL and the broker, started and stopped as one; one owner at a time for a data folder."""

    def __init__(self, data_dir: Path, *, postgres_options: Mapping[str, str] = MappingProxyType({})) -> None:
        self.data_dir = data_dir.absolute()
        self.postgres = EmbeddedPostgres(self.data_dir / "postgres", options=postgres_options)
        self.broker = EmbeddedBroker(self.data_dir / "broker")
        self._lock: IO[str] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def running(self) -> RunningParts:
        """The addresses; DependencyUnreachable before the start."""
        return RunningParts(
            database_url=self.postgres.dsn,
            kafka_bootstrap_servers=self.broker.bootstrap_servers,
            owner_pid=os.getpid(),
            postgres_pid=self.postgres.pid,
            broker_pid=self.broker.pid,
        )

    def start(self) -> RunningParts:
        """Start both, write the addresses down for other commands, and return them; or start neither."""
        make_folder(self.data_dir)
        self._take_lock()
        try:
            self.broker.start()
            self.postgres.start()
            _write_addresses(self.data_dir / ADDRESSES, self.running)
        except BaseException:
            self.stop()
            raise
        return self.running

    def stop(self) -> None:
        """Stop both and take the addresses back; harmless when nothing runs."""
        if self._lock is None:
            return
        (self.data_dir / ADDRESSES).unlink(missing_ok=True)
        self.broker.stop()
        self.postgres.stop()
        self._lock.close()
        self._lock = None

    def remove(self) -> None:
        """Stop both, and delete the database and all else that we made in the folder."""
        self.stop()
        self.postgres.remove()
        self.broker.remove()
        (self.data_dir / ADDRESSES).unlink(missing_ok=True)
        _lock_file(self.data_dir).unlink(missing_ok=True)
        remove_if_empty(self.data_dir)

    def _take_lock(self) -> None:
        lock = _lock_file(self.data_dir).open("a", encoding="ascii")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.close()
            raise InvalidSetting(
                f"COUNTERFOIL_DATA_DIR: the embedded parts of {self.data_dir} run already; stop them, "
                "or choose another folder"
            ) from None
        self._lock = lock


def find_running(data_dir: Path) -> RunningParts | None:
    """The parts that some process runs in this folder now; None when their owner, or one of them, is gone."""
    try:
        found = RunningParts(**json.loads((data_dir / ADDRESSES).read_text(encoding="ascii")))
    except PermissionError:
        raise InvalidSetting(f"COUNTERFOIL_DATA_DIR: {data_dir} belongs to another user") from None
    except (OSError, ValueError, TypeError):
        return None
    return found if _has_owner(data_dir) and all(lives(pid) for pid in found.pids) else None


def _write_addresses(path: Path, running: RunningParts) -> None:
    fresh = path.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    with os.fdopen(
        os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii"
    ) as file:
        json.dump(asdict(running), file)
    fresh.replace(path)


def _lock_file(data_dir: Path) -> Path:
    return data_dir / "embedded.lock"


def _has_owner(data_dir: Path) -> bool:
    """Whether a process holds the folder: a process id alone may belong to another program by now."""
    try:
        with _lock_file(data_dir).open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False
