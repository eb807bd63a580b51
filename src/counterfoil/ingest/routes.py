"""The shape of the table of contents that `routing.py` fills: topic → event type → handlers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from counterfoil.database.facts import Handler
from counterfoil.events import Rules
from counterfoil.ingest.records import Headers

Decode: TypeAlias = Callable[[bytes | None, Headers, int, Rules], Any]
"""(value, headers, record timestamp in ms, rules) → event; raises InvalidEvent."""


@dataclass(frozen=True, slots=True)
class Route:
    """One event type: its topic here, how its bytes are read, and who records it.

    The order of routes is the order of writing within a transaction; the locks of all are taken before the first.
    """

    name: str
    topic: str
    decode: Decode
    handlers: Sequence[Handler]
