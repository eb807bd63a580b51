"""The contender: `counterfoil run --only ingest` as a process of its own, watched from outside."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from dotenv import dotenv_values

import counterfoil
from counterfoil.bench.sources import Ground
from counterfoil.database.pool import database_address
from counterfoil.embedded.process import ON_LINUX, ServerProcess, last_lines
from counterfoil.errors import DependencyUnreachable
from counterfoil.settings import PREFIX, topic_setting

LOOK_EVERY_S = 0.02
JOINS_WITHIN_S = 90.0
STANDS_STILL_S = 60.0
DRAINS_WITHIN_S = 20.0

NO_SETTINGS: Mapping[str, str] = MappingProxyType({})

FILES = ("KAFKA_SSL_CAFILE", "KAFKA_SSL_CERTFILE", "KAFKA_SSL_KEYFILE")


@dataclass(frozen=True)
class WorkerRun:
    """One pass: records a second from the first commit to the last, CPU time a record in it, peak memory.

    CPU and memory are None where the system does not tell.
    """

    per_second: float
    cpu_us: float | None
    peak_mib: float | None


@dataclass(frozen=True)
class _Look:
    at: float
    accounted: int
    cpu_s: float | None


@contextlib.asynccontextmanager
async def worker(  # noqa: PLR0913 - where, what, and how
    ground: Ground,
    schema: str,
    topic: str,
    group: str,
    *,
    event: str = "order.placed",
    roles: str = "ingest",
    settings: Mapping[str, str] = NO_SETTINGS,
) -> AsyncIterator[ServerProcess]:
    """A worker that reads one topic into one schema; asked to end, and killed when it does not."""
    log = ground.folder / f"{group}.log"
    child = ServerProcess(
        [sys.executable, "-m", "counterfoil", "run", "--only", roles],
        log=log,
        death_signal=signal.SIGKILL,
        environment=environment(ground, schema, group) | consuming(event, topic) | dict(settings),
    )
    try:
        yield child
        os.kill(child.pid, signal.SIGTERM)
        code = await asyncio.to_thread(child.wait, DRAINS_WITHIN_S)
        if code != 0:
            raise DependencyUnreachable(f"the worker ended with exit code {code}: {said(log)}")
    except TimeoutError as error:
        raise DependencyUnreachable(f"the worker does not go on: {said(log)}") from error
    finally:
        child.stop()


async def measure(  # noqa: PLR0913 - where, what, and how much
    ground: Ground,
    schema: str,
    topic: str,
    group: str,
    records: int,
    *,
    event: str = "order.placed",
    roles: str = "ingest",
    settings: Mapping[str, str] = NO_SETTINGS,
) -> WorkerRun:
    """Let a fresh worker read a preloaded topic to its end."""
    async with worker(ground, schema, topic, group, event=event, roles=roles, settings=settings) as child:
        first, last = await _first_and_last(ground, child, group, records)
        took = last.at - first.at
        counted = last.accounted - first.accounted
        cpu = (
            None if last.cpu_s is None or first.cpu_s is None else (last.cpu_s - first.cpu_s) / counted * 1e6
        )
        return WorkerRun(per_second=counted / took, cpu_us=cpu, peak_mib=_peak_mib(child.pid))


async def accounted(ground: Ground, group: str) -> int:
    """Records that the accounts of a group cover."""
    return int(
        await ground.connection.fetchval(
            "SELECT coalesce(sum(next_offset - first_offset), 0)::bigint FROM stream_positions "
            "WHERE consumer_group = $1",
            group,
        )
    )


async def until_accounted(ground: Ground, child: ServerProcess, group: str, records: int) -> None:
    """Wait until a group's accounts cover so many records."""
    async for look in _looks(ground, child, group):
        if look.accounted >= records:
            return


async def _first_and_last(
    ground: Ground, child: ServerProcess, group: str, records: int
) -> tuple[_Look, _Look]:
    """The looks between which the work was done; the first that shows something, unless that shows all."""
    idle: _Look | None = None
    first: _Look | None = None
    async for look in _looks(ground, child, group):
        if look.accounted == 0:
            idle = look
        elif first is None:
            first = idle if idle is not None and look.accounted >= records else look
        if look.accounted >= records and first is not None:
            return first, look
    raise AssertionError("looks do not end by themselves")


async def _looks(ground: Ground, child: ServerProcess, group: str) -> AsyncIterator[_Look]:
    """A look at the accounts every 20 ms; TimeoutError when they stand still for long."""
    moved, before = time.perf_counter(), 0
    while True:
        if child.exit_code is not None:
            raise TimeoutError
        count = await accounted(ground, group)
        look = _Look(time.perf_counter(), count, _cpu_s(child.pid))
        if count != before:
            moved, before = look.at, count
        elif look.at - moved > (STANDS_STILL_S if count else JOINS_WITHIN_S):
            raise TimeoutError
        yield look
        await asyncio.sleep(LOOK_EVERY_S)


def _cpu_s(pid: int) -> float | None:
    if not ON_LINUX:
        return None
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _peak_mib(pid: int) -> float | None:
    if not ON_LINUX:
        return None
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def environment(ground: Ground, schema: str, group: str) -> dict[str, str]:
    """The variables of a process of ours that works on this ground."""
    settings = ground.settings
    session_ms = int(settings.kafka_session_timeout_ms.total_seconds() * 1000)
    made = {
        "DATABASE_URL": database_address(settings),
        "DB_SCHEMA": schema,
        "KAFKA_BOOTSTRAP_SERVERS": settings.kafka_bootstrap_servers,
        "KAFKA_SESSION_TIMEOUT_MS": str(session_ms),
        "CONSUMER_GROUP": group,
        "MIGRATE_ON_START": "false",
        "EMBEDDED": "false",
        "HTTP_PORT": "0",
        "LOG_LEVEL": "WARNING",
        "LOG_FORMAT": "json",
    }
    given = {name: value for name, value in _given().items() if name.startswith(PREFIX)}
    return given | {f"{PREFIX}{name}": value for name, value in made.items()} | {"PYTHONPATH": _python_path()}


def consuming(event: str, topic: str) -> dict[str, str]:
    """One topic alone, of one kind of event."""
    return {f"{PREFIX}CONSUMERS": event, f"{PREFIX}{topic_setting(event).upper()}": topic}


def _given() -> Mapping[str, str]:
    """The variables that our own settings come from; the worker runs in another folder."""
    given = {name.upper(): value for name, value in dotenv_values(".env").items() if value} | dict(os.environ)
    files = {f"{PREFIX}{name}" for name in FILES} & given.keys()
    return given | {name: str(Path(given[name]).absolute()) for name in files}


def _python_path() -> str:
    """Where this very package lies, and what is on our own path."""
    parts = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    given = [str(Path(part).absolute()) for part in parts if part]
    return os.pathsep.join([str(Path(counterfoil.__file__).resolve().parents[1]), *given])


def said(log: Path) -> str:
    """The last lines of what a process has logged."""
    return last_lines(log.read_text(encoding="utf-8", errors="replace"))
