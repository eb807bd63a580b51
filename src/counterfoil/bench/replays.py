"""The log once more: `counterfoil replay --mode apply` as a process of its own: all records are duplicates."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from typing import NamedTuple

from counterfoil.bench.sources import PARTITIONS, Ground, machine
from counterfoil.bench.worker import LOOK_EVERY_S, STANDS_STILL_S, consuming, environment, said
from counterfoil.embedded.process import ServerProcess
from counterfoil.errors import DependencyUnreachable

ENDS_WITHIN_S = 30.0


class ReplayRun(NamedTuple):
    """One replay: records a second from its first commit to its last, as of a worker's pass; and what went wrong."""

    per_second: float
    differences: list[str]


def all_cores() -> int:
    """So many processes as there are cores, two at least, and no more than a topic has partitions."""
    return min(max(2, int(str(machine()["cpus"] or 1))), PARTITIONS)


async def measure_replay(ground: Ground, schema: str, topic: str, records: int, processes: int) -> ReplayRun:
    """Replay a topic that is in the ledgers already, by so many processes.

    Raises DependencyUnreachable where it ends otherwise than in order.
    """
    log = ground.folder / f"{schema}.replay.{processes}.log"
    before = await ground.connection.fetchval("SELECT coalesce(max(id), 0) FROM replays")
    child = ServerProcess(
        [
            *(sys.executable, "-m", "counterfoil", "replay", "order.placed", "--mode", "apply", "--json"),
            *("--processes", str(processes)),
        ],
        log=log,
        death_signal=signal.SIGTERM,
        environment=environment(ground, schema, ground.name) | consuming("order.placed", topic),
    )
    try:
        per_second = await _per_second(ground, child, before, records)
        code = await asyncio.to_thread(child.wait, ENDS_WITHIN_S)
    except TimeoutError as error:
        raise DependencyUnreachable(f"the replay does not go on: {said(log)}") from error
    finally:
        child.stop((signal.SIGTERM, 5.0))
    if code != 0:
        raise DependencyUnreachable(f"the replay ended with exit code {code}: {said(log)}")
    return ReplayRun(per_second, await _differences(ground, before, records, processes))


async def _per_second(ground: Ground, child: ServerProcess, before: int, records: int) -> float:
    """Look at its accounts until they cover so many records; TimeoutError where they stand still."""
    idle = moved = time.perf_counter()
    first: tuple[float, int] | None = None
    count = 0
    while count < records:
        is_over = child.exit_code is not None
        found, now = await _accounted(ground, before), time.perf_counter()
        if found == 0:
            idle = now
        elif first is None:
            first = (idle, 0) if found >= records else (now, found)
        if found != count:
            moved, count = now, found
        elif is_over or now - moved > STANDS_STILL_S:
            raise TimeoutError
        await asyncio.sleep(LOOK_EVERY_S)
    began, counted = first or (idle, 0)
    return (records - counted) / (moved - began)


async def _accounted(ground: Ground, before: int) -> int:
    return int(
        await ground.connection.fetchval(
            "SELECT coalesce(sum(next_offset - first_offset), 0)::bigint FROM replay_positions WHERE replay_id > $1",
            before,
        )
    )


async def _differences(ground: Ground, before: int, records: int, processes: int) -> list[str]:
    """Where the replays since then are not one of each process, and duplicates all of them."""
    row = await ground.connection.fetchrow(
        "SELECT count(DISTINCT replay_id) AS replays, sum(applied) AS applied, sum(duplicates) AS duplicates, "
        "sum(dead) AS dead, sum(passed_over) AS passed_over FROM replay_positions WHERE replay_id > $1",
        before,
    )
    found = {name: int(number) for name, number in dict(row or {}).items() if number}
    if found == {"replays": processes, "duplicates": records}:
        return []
    return [f"replay by {processes}: {records:,} duplicates expected, found {found}"]
