"""What tests know of the servers that they share, and where a server keeps its files."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from support.worker import Worker

IN_MEMORY = Path("/dev/shm")


@dataclass(frozen=True)
class Server:
    """A PostgreSQL server that tests share: the address of a database whose role may make others."""

    dsn: str
    description: str


@dataclass(frozen=True)
class Broker:
    """A Kafka broker that tests share: use topics and groups of your own (`topic_prefix`)."""

    bootstrap_servers: str
    description: str
    session_timeout_ms: int
    """The shortest session that it surely accepts: the sooner a dead worker's partitions move on."""


StartWorker = Callable[..., Awaitable[Worker]]


@contextmanager
def servers_folder() -> Iterator[Path]:
    """A folder for a server's files, deleted at the end.

    Not pytest's `tmp_path`, which is closed to the user that PostgreSQL runs as when we are root. In memory
    where there is room: some disks take 240 ms to clone a database, memory takes 12.
    """
    in_memory = IN_MEMORY if _has_room(IN_MEMORY) else None
    folder = Path(tempfile.mkdtemp(prefix="counterfoil-test-", dir=in_memory))
    folder.chmod(0o711)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _has_room(folder: Path) -> bool:
    return os.access(folder, os.W_OK) and shutil.disk_usage(folder).free > 4 * 1024**3
