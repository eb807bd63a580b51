"""What the worker of this machine says of itself, where one listens at the address of the settings."""

from __future__ import annotations

import asyncio
import http.client
import json
from typing import Any

from counterfoil.doctor.findings import Finding, problem, warning, well
from counterfoil.settings import Settings

ASKED_WITHIN_S = 3.0

EVERY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - where one that listens everywhere is asked

FIXES = {
    "breaker": "mend the producer of that topic, drop or retry what is parked, and restart the worker",
    "kafka": "see what is said of kafka here",
    "database": "see what is said of database here",
}


async def check_worker(settings: Settings) -> list[Finding]:
    """The checks of `/readyz` that fail; that nobody answers is no finding, a worker may run elsewhere."""
    if settings.http_port == 0:
        return []
    host = EVERY_ADDRESS.get(settings.http_host, settings.http_host)
    where = f"{host}:{settings.http_port}"
    try:
        status, body = await asyncio.to_thread(_ask, host, settings.http_port)
    except (OSError, http.client.HTTPException):
        return [well("worker", f"none answers at {where}; it may run elsewhere, or have no port")]
    except ValueError:
        fix = "give the worker another COUNTERFOIL_HTTP_PORT"
        return [warning("worker", f"something else than a worker answers at {where}", fix)]
    failing = {name: check["detail"] for name, check in body["checks"].items() if not check["ok"]}
    if status == 200 and not failing:
        return [well("worker", f"the one at {where} is ready")]
    found = [
        problem(
            "worker", f"the one at {where} is not ready: {name}: {detail}", FIXES.get(name, "see its log")
        )
        for name, detail in failing.items()
    ]
    return found or [warning("worker", f"the one at {where} is {body['phase']}", "look again")]


def _ask(host: str, port: int) -> tuple[int, dict[str, Any]]:
    """Status and body of `/readyz`; ValueError where that is no worker's."""
    connection = http.client.HTTPConnection(host, port, timeout=ASKED_WITHIN_S)
    try:
        connection.request("GET", "/readyz")
        response = connection.getresponse()
        body = json.loads(response.read())
    finally:
        connection.close()
    if not isinstance(body, dict) or not {"checks", "phase"} <= body.keys():
        raise ValueError(body)
    return response.status, body
