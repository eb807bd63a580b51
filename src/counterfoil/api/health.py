"""The probes and the metrics, answered without a look at Kafka or PostgreSQL and before any middleware.

| path | 200 when |
|---|---|
| `/livez`, `/healthz` | no batch is stuck; that it answers at all says that the loop turns |
| `/readyz`, `/health` | running, and every check is ok; always JSON |
| `/startupz` | the worker has started once |
| `/metrics` | always |

`?verbose` gives JSON where the plain answer is `ok`.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from counterfoil.api.problems import Answer, problem
from counterfoil.errors import RequestError
from counterfoil.telemetry.health import Health
from counterfoil.telemetry.metrics import Metrics

JSON = "application/json"
TEXT = "text/plain; charset=utf-8"


class Probes:
    """Answers the probe paths from what is in memory."""

    def __init__(self, health: Health, metrics: Metrics) -> None:
        self._health = health
        self._metrics = metrics
        self._by_path: dict[str, Callable[[bytes, str], Answer]] = {
            "/livez": self._live,
            "/healthz": self._live,
            "/readyz": self._ready,
            "/health": self._ready,
            "/startupz": self._started,
            "/metrics": self._exposition,
        }

    @property
    def paths(self) -> frozenset[str]:
        """The paths that are answered here."""
        return frozenset(self._by_path)

    def answer(self, method: str, path: str, query: bytes = b"", accept: str = "") -> Answer | None:
        """The whole answer, or None when the path is not a probe's."""
        respond = self._by_path.get(path)
        if respond is None:
            return None
        if method not in {"GET", "HEAD"}:
            return problem(RequestError(405, "a probe takes GET and HEAD", allow="GET, HEAD"))
        return respond(query, accept)

    def _live(self, query: bytes, _accept: str) -> Answer:
        stuck_for = self._health.stuck_for
        said = "ok" if stuck_for is None else f"a batch has been at work for {stuck_for:.0f} s"
        return self._plain_or_json(query, stuck_for is None, said)

    def _started(self, query: bytes, _accept: str) -> Answer:
        started = self._health.started
        return self._plain_or_json(
            query, started, "ok" if started else f"not started yet: {self._health.phase}"
        )

    def _ready(self, _query: bytes, _accept: str) -> Answer:
        return self._as_json(self._health.ready, "ready" if self._health.ready else "not ready")

    def _exposition(self, _query: bytes, accept: str) -> Answer:
        body, content_type = self._metrics.exposition(accept)
        return _answer(200, content_type, body)

    def _plain_or_json(self, query: bytes, well: bool, said: str) -> Answer:
        if b"verbose" in query:
            return self._as_json(well, said)
        return _answer(200 if well else 503, TEXT, f"{said}\n".encode())

    def _as_json(self, well: bool, said: str) -> Answer:
        health = self._health
        beside = {name: {"checks": _checks(other)} for name, other in health.beside.items()}
        body = msgspec.json.encode(
            {"status": said, "phase": health.phase, "checks": _checks(health), **beside}
        )
        return _answer(200 if well else 503, JSON, body)


def _checks(health: Health) -> dict[str, object]:
    return {name: {"ok": check.ok, "detail": check.detail} for name, check in health.checks.items()}


def _answer(status: int, content_type: str, body: bytes) -> Answer:
    headers = (
        (b"content-type", content_type.encode()),
        (b"cache-control", b"no-store"),
        (b"content-length", str(len(body)).encode()),
    )
    return Answer(status, headers, body)
