"""The event loop that records travel on: which one it is, and how rarely it looks for garbage."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable


def tune_garbage_collection() -> None:
    """Look for cycles rarely: records make none, and looking through a backlog of them held the loop for 60 ms."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """The fastest loop that there is here; None for asyncio's own."""
    try:
        import uvloop  # noqa: PLC0415 - not on Windows
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory
