"""What a check has found: how it stands, in a sentence, and what mends it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from counterfoil.errors import DependencyUnreachable

LOOK_WITHIN_S = 5.0
"""How long a single question to PostgreSQL or Kafka may take."""


class State(StrEnum):
    """How something stands; all but `ok` make the command exit with 1."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the answer; `message` and `fix` hold no secret. What is well may have a fix too: it is advice."""

    check: str
    state: State
    message: str
    fix: str = ""

    def as_dict(self) -> dict[str, Any]:
        """As `--json` shows it."""
        return asdict(self)


Look = Callable[[], Awaitable[Iterable[Finding]]]


def well(check: str, message: str, advice: str = "") -> Finding:
    """Nothing to mend."""
    return Finding(check, State.OK, message, advice)


def warning(check: str, message: str, fix: str) -> Finding:
    """Counting goes on, and somebody should see to it."""
    return Finding(check, State.WARNING, message, fix)


def problem(check: str, message: str, fix: str) -> Finding:
    """Something does not work, or has been lost."""
    return Finding(check, State.PROBLEM, message, fix)


async def within(
    check: str, look: Awaitable[Iterable[Finding]], seconds: float = LOOK_WITHIN_S
) -> list[Finding]:
    """What a look finds; that it took too long, where it did."""
    try:
        async with asyncio.timeout(seconds):
            return list(await look)
    except TimeoutError:
        return [warning(check, f"no answer within {seconds:g} s", "look again when there is less to do")]
    except DependencyUnreachable as error:
        return [warning(check, f"could not be looked at: {error}", "look again once it answers")]


def some(names: Iterable[object], shown: int = 5) -> str:
    """The first of some names, and how many more there are."""
    every = [str(name) for name in names]
    more = f" and {len(every) - shown} more" if len(every) > shown else ""
    return ", ".join(every[:shown]) + more


def plural(count: int, one: str, many: str = "") -> str:
    """The number with its noun, as in `1 partition` or `3 partitions`."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def span(seconds: float) -> str:
    """A length of time in its largest unit."""
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
