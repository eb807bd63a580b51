"""Whose turn it is on the event loop, where two kinds of long work share it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

TURNS_OF_A_COPY = 100
"""Turns of the loop after which a COPY is not being fed but stalled: behind a lock, or a network."""

STALLED_S = 0.002


class Turns:
    """Lets feeding PostgreSQL go before preparing what comes later; probes are answered between slices of either.

    Without it the two alternate: PostgreSQL waits for rows while later ones are decoded, and then there is nothing
    left to decode while it works on them.
    """

    def __init__(self) -> None:
        self._feeding = 0

    @contextmanager
    def feeding(self) -> Iterator[None]:
        """Rows are being sent to PostgreSQL."""
        self._feeding += 1
        try:
            yield
        finally:
            self._feeding -= 1

    async def preparing(self) -> None:
        """Between two slices of other work: let the loop turn, and wait while PostgreSQL is fed."""
        await asyncio.sleep(0)
        for _ in range(TURNS_OF_A_COPY):
            if not self._feeding:
                return
            await asyncio.sleep(0)
        while self._feeding:  # noqa: ASYNC110 - PostgreSQL takes no rows now: seldom, and then for long
            await asyncio.sleep(STALLED_S)


TURNS = Turns()
"""Of this process: it has one event loop."""
