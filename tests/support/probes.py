"""What a worker says of itself over HTTP."""

from __future__ import annotations

import http.client
import json
import re
from typing import Any

from support.waiting import eventually
from support.worker import Worker

NOT_LISTENING = (OSError, http.client.HTTPException)


async def livez(worker: Worker) -> int:
    """The status of `/livez`."""
    return (await worker.get("/livez"))[0]


async def readiness(worker: Worker) -> tuple[int, dict[str, Any]]:
    """Status and body of `/readyz`."""
    status, body = await worker.get("/readyz")
    return status, json.loads(body)


async def failing_checks(worker: Worker) -> dict[str, str]:
    """The checks that are not well, with what they say."""
    _, body = await readiness(worker)
    return {name: check["detail"] for name, check in body["checks"].items() if not check["ok"]}


async def is_unready_for(worker: Worker, check: str, *, deadline: float = 30.0) -> str:
    """Wait until `/readyz` answers 503 and names this check; what it says of it. `/livez` stays 200 all the while."""

    async def told() -> str | None:
        assert await livez(worker) == 200
        status, _ = await readiness(worker)
        return (await failing_checks(worker)).get(check) if status == 503 else None

    return await eventually(told, deadline=deadline, every=0.1, ignoring=NOT_LISTENING)


async def holds(worker: Worker, partitions: int) -> bool:
    """Whether the group has given this worker so many partitions, and it has read their positions."""
    _, body = await worker.get("/metrics")
    return body.count("\ncounterfoil_lag_records{") == partitions


async def metric(worker: Worker, name: str, **labels: str) -> float:
    """The sum of a metric's samples with these labels; 0 when there is none."""
    _, text = await worker.get("/metrics")
    wanted = [f'{key}="{value}"' for key, value in labels.items()]
    found = re.findall(rf"^counterfoil_{name}(\{{[^\n]*\}})? (\S+)$", text, re.MULTILINE)
    return sum(float(value) for given, value in found if all(part in given for part in wanted))
