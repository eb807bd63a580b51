"""The probes: each state of the worker as they tell it."""

from __future__ import annotations

import json

import pytest

from counterfoil.api.health import Probes
from counterfoil.api.problems import Answer
from counterfoil.telemetry.health import Health, Phase
from counterfoil.telemetry.metrics import Metrics


def a_health(
    phase: Phase = Phase.RUNNING, *, stuck: bool = False, started: bool = True, **checks: bool
) -> Health:
    health = Health(phase=phase, started=started, clock=lambda: 1_000.0)
    health.batch_since = 0.0 if stuck else None
    for name, ok in checks.items():
        health.check(name).passed("fine") if ok else health.check(name).failed("is away")
    return health


def ask(health: Health, path: str, query: bytes = b"", method: str = "GET") -> Answer:
    answer = Probes(health, Metrics()).answer(method, path, query)
    assert answer is not None
    return answer


@pytest.mark.parametrize("path", ["/livez", "/healthz"])
def test_live_is_plain_text(path: str) -> None:
    answer = ask(a_health(), path)
    assert (answer.status, answer.body) == (200, b"ok\n")
    assert (b"content-type", b"text/plain; charset=utf-8") in answer.headers


@pytest.mark.parametrize("path", ["/livez", "/healthz"])
def test_a_stuck_batch_is_not_live(path: str) -> None:
    answer = ask(a_health(stuck=True), path)
    assert (answer.status, answer.body) == (503, b"a batch has been at work for 1000 s\n")


def test_live_does_not_ask_whether_the_database_is_there() -> None:
    assert ask(a_health(database=False), "/livez").status == 200


@pytest.mark.parametrize("path", ["/readyz", "/health"])
def test_ready_says_each_check(path: str) -> None:
    answer = ask(a_health(database=True), path)
    assert answer.status == 200
    assert json.loads(answer.body) == {
        "status": "ready",
        "phase": "running",
        "checks": {"database": {"ok": True, "detail": "fine"}},
    }


def test_what_stands_beside_is_shown_and_decides_nothing() -> None:
    health = a_health(database=True)
    health.beside["notifier"] = a_health(kafka=False)
    answer = ask(health, "/readyz")
    assert answer.status == 200
    body = json.loads(answer.body)
    assert body["notifier"] == {"checks": {"kafka": {"ok": False, "detail": "is away"}}}
    assert set(body["checks"]) == {"database"}


@pytest.mark.parametrize(
    "health",
    [
        a_health(database=True, kafka=False),
        a_health(Phase.STARTING, database=True),
        a_health(Phase.DRAINING, database=True),
        a_health(Phase.HALTED, database=True),
        a_health(stuck=True, database=True),
    ],
)
def test_not_ready_answers_503(health: Health) -> None:
    answer = ask(health, "/readyz")
    assert answer.status == 503
    assert json.loads(answer.body)["status"] == "not ready"


@pytest.mark.parametrize(("started", "status"), [(True, 200), (False, 503)])
def test_started(started: bool, status: int) -> None:
    assert ask(a_health(started=started), "/startupz").status == status


def test_verbose_gives_json() -> None:
    answer = ask(a_health(database=True), "/livez", b"verbose")
    assert json.loads(answer.body)["checks"]["database"]["ok"] is True


def test_other_methods_are_refused() -> None:
    answer = ask(a_health(), "/livez", method="POST")
    assert answer.status == 405
    assert (b"allow", b"GET, HEAD") in answer.headers


def test_other_paths_are_not_its_own() -> None:
    assert Probes(a_health(), Metrics()).answer("GET", "/livez/x") is None
