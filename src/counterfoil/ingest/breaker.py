"""Tells a producer's bad deploy from bad luck: the share of malformed records among a topic's last ones."""

from __future__ import annotations

from collections import deque

WINDOW = 1_000


class Breaker:
    """Trips when the share of malformed among the last 1,000 records reaches a limit; it stays tripped.

    A limit of 1 switches it off.
    """

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self.tripped = False
        self._read = 0
        self._malformed_at: deque[int] = deque()

    @property
    def share(self) -> float:
        """The share of malformed among the last records."""
        return len(self._malformed_at) / min(self._read, WINDOW) if self._read else 0.0

    def saw(self, well_formed: int, *, then_malformed: bool = False) -> bool:
        """Count some well-formed records and perhaps a malformed one after them; True when tripped."""
        self._read += well_formed
        if then_malformed:
            self._read += 1
            self._malformed_at.append(self._read)
        while self._malformed_at and self._malformed_at[0] <= self._read - WINDOW:
            self._malformed_at.popleft()
        if self.limit < 1 and self._read >= WINDOW and self.share >= self.limit:
            self.tripped = True
        return self.tripped
