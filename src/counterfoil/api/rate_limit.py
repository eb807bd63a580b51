"""So many requests a minute from one client to the public endpoints."""

from __future__ import annotations

import math
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Any

from litestar.connection import ASGIConnection
from litestar.handlers.base import BaseRouteHandler

from counterfoil.api.auth import PUBLIC, is_authorised
from counterfoil.api.clients import Clients, same_client
from counterfoil.errors import RequestError
from counterfoil.settings import Settings

MINUTE_S = 60.0

REMEMBERED = 65_536
"""Clients that are remembered, about 12 MB; beyond it the one that was silent longest is forgotten."""


class Windows:
    """Counts each client's requests in windows of a minute, the first of which begins with its first request."""

    def __init__(
        self, limit: int, remembered: int = REMEMBERED, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._limit = limit
        self._remembered = remembered
        self._clock = clock
        self._windows: OrderedDict[bytes, tuple[float, int]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._windows)

    def wait_s(self, client: bytes) -> float:
        """Count a request: 0 when it may pass, else the seconds until the next may."""
        now = self._clock()
        began_at, count = self._windows.get(client, (now, 0))
        if now - began_at >= MINUTE_S:
            began_at, count = now, 0
        allowed = count < self._limit
        self._windows[client] = (began_at, count + allowed)
        self._windows.move_to_end(client)
        if len(self._windows) > self._remembered:
            self._windows.popitem(last=False)
        return 0.0 if allowed else began_at + MINUTE_S - now


class LatestMinute:
    """Counts what is done in any minute, wherever it begins; for few, since it remembers the time of each."""

    def __init__(self, limit: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._latest: deque[float] = deque(maxlen=limit)

    def wait_s(self) -> float:
        """Count one: 0 when it may be done, else the seconds until it may."""
        now = self._clock()
        is_full = len(self._latest) == self._latest.maxlen
        wait_s = self._latest[0] + MINUTE_S - now if is_full else 0.0
        if wait_s > 0:
            return wait_s
        self._latest.append(now)
        return 0.0


class RateLimit:
    """Its `guard` refuses what is too much; whoever holds the admin token is never too much."""

    def __init__(self, settings: Settings, clients: Clients) -> None:
        limit = settings.rate_limit_per_minute
        self._windows = Windows(limit) if limit else None
        self._clients = clients
        self._spares_authorised = settings.admin_token is not None

    async def guard(self, connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
        """Raise 429 with Retry-After."""
        if self._windows is None or not handler.opt.get(PUBLIC):
            return
        if self._spares_authorised and is_authorised(connection.scope):
            return
        wait_s = self._windows.wait_s(same_client(self._clients.address(connection.scope)))
        if wait_s:
            raise RequestError(
                429, "too many requests from this address", retry_after=max(1, math.ceil(wait_s))
            )
