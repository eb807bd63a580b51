"""What is known of the worker's health; written by the parts that know, read by the probes."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum


class Phase(StrEnum):
    """Where the worker is in its life."""

    STARTING = "starting"
    RUNNING = "running"
    DRAINING = "draining"
    HALTED = "halted"


@dataclass(slots=True)
class Check:
    """One thing that must be well for the worker to be ready; `detail` says how it stands and holds no secret."""

    ok: bool = False
    detail: str = "not looked at yet"

    def passed(self, detail: str = "") -> None:
        """It is well."""
        self.ok, self.detail = True, detail

    def failed(self, detail: str) -> None:
        """It is not; `detail` says why."""
        self.ok, self.detail = False, detail


@dataclass(slots=True)
class Health:
    """The worker's state, as the probes tell it.

    `checks` is by name and all of them must be ok for readiness: `database`, `kafka`, `group`, `lag`, `breaker`
    where the worker ingests; a role adds what it needs. `beside` is shown, and decides nothing.
    """

    stuck_after_s: float = 120.0
    phase: Phase = Phase.STARTING
    checks: dict[str, Check] = field(default_factory=dict)
    beside: dict[str, Health] = field(default_factory=dict)
    started: bool = False
    batch_since: float | None = None
    clock: Callable[[], float] = time.monotonic

    def check(self, name: str) -> Check:
        """The check of this name, made when it is first asked for."""
        return self.checks.setdefault(name, Check())

    def batch_begins(self) -> None:
        """An attempt to write a batch starts now."""
        self.batch_since = self.clock()

    def batch_ends(self) -> None:
        """The attempt is over, well or not."""
        self.batch_since = None

    @property
    def stuck_for(self) -> float | None:
        """Seconds that the current attempt has taken, once that is longer than any attempt may take; else None."""
        if self.batch_since is None:
            return None
        taken = self.clock() - self.batch_since
        return taken if taken > self.stuck_after_s else None

    @property
    def live(self) -> bool:
        """True unless a batch is stuck: what a restart would mend."""
        return self.stuck_for is None

    @property
    def ready(self) -> bool:
        """True when the worker is running, not stuck, and every check is ok."""
        return self.phase is Phase.RUNNING and self.live and all(check.ok for check in self.checks.values())
