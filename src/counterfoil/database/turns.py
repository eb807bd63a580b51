"""Whose turn it is on the event loop, where two kinds of long work share it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager


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
        while self._feeding:  # noqa: ASYNC110 - for a few turns, and an event would cost one more
            await asyncio.sleep(0)


TURNS = Turns()
"""Of this process: it has one event loop."""
