"""What a channel promises, and the two ways in which it may fail."""

from __future__ import annotations

from typing import Protocol

from counterfoil.notifications.messages import Message

SEND_WITHIN_S = 10.0
"""A send that takes longer has failed."""


class TryLater(Exception):
    """The message was not taken, or nobody knows; `retry_after_s` is what the other side asks for. Holds no secret."""

    def __init__(self, reason: str, retry_after_s: float | None = None) -> None:
        super().__init__(reason)
        self.retry_after_s = retry_after_s


class Refused(Exception):
    """The message will not be taken however often it is sent; holds no secret."""


class Gone(Refused):
    """Nor will any other message be taken: there is nobody to take it, or not from us."""


class Channel(Protocol):
    """One way to tell somebody."""

    name: str
    """Stands in `notifications.channel`."""

    description: str
    """Where it leads, without its secrets."""

    async def send(self, message: Message) -> None:
        """Return once the message is taken; raises TryLater or Refused within the deadline."""
        ...

    async def close(self) -> None:
        """Let go of what it holds."""
        ...
