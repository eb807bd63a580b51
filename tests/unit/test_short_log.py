"""When a log that ends before our position is taken for another one."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from counterfoil.ingest import watch as watch_module
from counterfoil.ingest.watch import SHORT_LOG_S, Watch
from counterfoil.telemetry.health import Health
from counterfoil.telemetry.metrics import Metrics
from support.builders import PLACED, a_state


@pytest.fixture
def road(monkeypatch):
    """A watch with a clock of its own, and what it asked to have read again."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(watch_module, "time", SimpleNamespace(monotonic=lambda: clock.now, time=lambda: 0.0))
    requests: list[str] = []
    watch = Watch(
        pipeline=SimpleNamespace(forget=lambda _partitions: None),
        locator=SimpleNamespace(request=lambda _state, reason: requests.append(reason)),
        subscription=None,
        commits=None,
        cluster=None,
        health=Health(),
        metrics=Metrics(),
    )
    return SimpleNamespace(watch=watch, clock=clock, requests=requests)


def test_an_end_before_the_position_is_another_log_only_when_it_stays_there(road):
    state = a_state(100, partition=PLACED)
    road.watch._notice_short_log(state, 40)
    road.clock.now = SHORT_LOG_S
    road.watch._notice_short_log(state, 40)
    assert road.requests == []
    road.clock.now = SHORT_LOG_S + 1
    road.watch._notice_short_log(state, 40)
    assert road.requests == ["position 100 lies beyond its end at 40"]


def test_what_was_seen_before_a_partition_was_held_anew_says_nothing(road):
    road.watch._notice_short_log(a_state(100, partition=PLACED), 40)
    road.clock.now = 2 * SHORT_LOG_S
    road.watch._notice_short_log(a_state(100, partition=PLACED), 40)
    assert road.requests == []
