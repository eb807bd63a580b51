"""The HTTP server: Litestar behind the front, on uvicorn, in the worker's own event loop."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, cast

import asyncpg
import structlog
import uvicorn
from litestar import Litestar
from litestar.di import Provide
from litestar.types import ControllerRouterHandler

from counterfoil.api.auth import Gate, require_authority, require_json
from counterfoil.api.clients import Clients
from counterfoil.api.cross_origin import CrossOrigin
from counterfoil.api.front import Front
from counterfoil.api.health import Probes
from counterfoil.api.openapi import openapi_route
from counterfoil.api.problems import database_away, handle_error
from counterfoil.api.protocol import ProbeProtocol
from counterfoil.api.rate_limit import RateLimit
from counterfoil.api.reporting import Switch
from counterfoil.api.requests import read_listing
from counterfoil.errors import HaltingFailure, InvalidSetting
from counterfoil.settings import Settings
from counterfoil.telemetry.health import Health
from counterfoil.telemetry.metrics import Metrics

log = structlog.get_logger(__name__)

KEEP_ALIVE_S = 5
LONGEST_HEAD_BYTES = 16 * 1024

PoolProvider = Callable[[], asyncpg.Pool | None]
"""The pool as it is now; None, or any error that says so, while the database is away."""


def build_app(  # noqa: PLR0913, PLR0917 - all the parts that it joins
    settings: Settings,
    health: Health,
    metrics: Metrics,
    pool_provider: PoolProvider,
    route_handlers: Sequence[ControllerRouterHandler] = (),
    dependencies: Mapping[str, Provide] | None = None,
    version: str = "",
) -> Front:
    """The whole HTTP side as an ASGI application.

    Routes may ask for `pool`, `settings`, `metrics`, `listing` and `client`, and for what is among the dependencies.
    """
    clients = Clients(settings)

    def provide_pool() -> asyncpg.Pool:
        pool = pool_provider()
        if pool is None:
            raise database_away()
        return pool

    def provide_settings() -> Settings:
        return settings

    def provide_metrics() -> Metrics:
        return metrics

    provided = {
        "pool": Provide(provide_pool, sync_to_thread=False),
        "settings": Provide(provide_settings, sync_to_thread=False),
        "metrics": Provide(provide_metrics, sync_to_thread=False),
        "listing": Provide(read_listing, sync_to_thread=False),
        "client": Provide(clients.client, sync_to_thread=False),
        **(dependencies or {}),
    }
    routed = Litestar(
        route_handlers=[*route_handlers, openapi_route(route_handlers, provided, version)],
        dependencies=provided,
        guards=[
            require_authority,
            RateLimit(settings, clients).guard,
            Switch(settings).guard,
            require_json,
        ],
        exception_handlers={Exception: handle_error},
        response_headers={"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"},
        openapi_config=None,
        logging_config=None,
        request_max_body_size=None,  # the front counts
        debug=False,
    )
    metrics.observe(health)
    gate, cross_origin = Gate(settings, routed.routes), CrossOrigin(routed.routes)
    return Front(Probes(health, metrics), gate, cross_origin, routed)


class HttpServer:
    """Serves an ASGI application on one address; installs no signal handlers."""

    def __init__(self, app: Front, host: str, port: int) -> None:
        self._app = app
        self._host = host
        self._wanted_port = port
        self._uvicorn: _Uvicorn | None = None
        self._serving: asyncio.Task[None] | None = None
        self.port = 0

    async def start(self) -> None:
        """Return once the port is bound and served; raises InvalidSetting when the address cannot be had."""
        listener = await _listen(self._host, self._wanted_port)
        self.port = listener.getsockname()[1]
        server = self._uvicorn = _Uvicorn(_configuration(self._app))
        self._serving = asyncio.create_task(server.serve([listener]), name="http")
        started = asyncio.create_task(server.bound.wait())
        await asyncio.wait({self._serving, started}, return_when=asyncio.FIRST_COMPLETED)
        started.cancel()
        if not server.started:
            listener.close()
            raise HaltingFailure(f"the HTTP server did not start: {_reason(self._serving)}")
        log.info("http_listening", host=self._host, port=self.port)

    async def wait(self) -> None:
        """Return when the server has ended; raises what ended it."""
        if self._serving is not None:
            await asyncio.shield(self._serving)

    async def stop(self, deadline_s: float = 5.0) -> None:
        """Take no new request, finish the open ones, cut what is left at the deadline."""
        if self._uvicorn is None or self._serving is None:
            return
        self._uvicorn.should_exit = True
        done, _ = await asyncio.wait({self._serving}, timeout=deadline_s)
        if not done:
            self._uvicorn.cut()
            await asyncio.wait({self._serving}, timeout=1.0)
            self._serving.cancel()
            await asyncio.wait({self._serving}, timeout=1.0)


class _Uvicorn(uvicorn.Server):
    """uvicorn, told apart from the process: signals are the app's, and being bound can be awaited."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.bound = asyncio.Event()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        try:
            await super().startup(sockets)
        except SystemExit:  # it would end the loop, and with it the whole worker
            raise HaltingFailure("the lifespan of a route failed") from None
        self.bound.set()

    def cut(self) -> None:
        """Give up what is still open."""
        self.force_exit = True
        for task in self.server_state.tasks:
            task.cancel()
        for connection in list(self.server_state.connections):
            if connection.transport is not None:
                connection.transport.abort()


def _configuration(app: Front) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        interface="asgi3",
        http=cast("type[asyncio.Protocol]", partial(ProbeProtocol, app.probes)),
        ws="none",
        lifespan="on",
        log_config=None,
        log_level="error",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        h11_max_incomplete_event_size=LONGEST_HEAD_BYTES,
    )


async def _listen(host: str, port: int) -> socket.socket:
    loop = asyncio.get_running_loop()
    bare = host.strip("[]")
    try:
        found = await loop.getaddrinfo(bare, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise InvalidSetting(
            f"COUNTERFOIL_HTTP_HOST: {host} is no address of this machine ({error})"
        ) from None
    family, _, _, _, address = min(found, key=lambda entry: entry[0] != socket.AF_INET)
    try:
        return _bound(family, address)
    except OSError as error:
        raise _refused(error, host, port) from None


def _bound(family: int, address: tuple[Any, ...]) -> socket.socket:
    # The protocol is named, or asyncio would not switch off Nagle's algorithm: 40 ms for each answer.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        if hasattr(socket, "AF_INET6") and family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        if os.name == "posix":  # elsewhere it would let two servers share a port
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(512)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener


def _refused(error: OSError, host: str, port: int) -> InvalidSetting:
    if error.errno == errno.EADDRINUSE:
        return InvalidSetting(
            f"COUNTERFOIL_HTTP_PORT: {port} on {host} is in use; take another, or 0 for any"
        )
    if error.errno == errno.EACCES:
        return InvalidSetting(f"COUNTERFOIL_HTTP_PORT: {port} on {host} needs rights that this user has not")
    return InvalidSetting(f"COUNTERFOIL_HTTP_HOST: cannot listen on {host} ({error.strerror})")


def _reason(serving: asyncio.Task[None]) -> str:
    error = serving.exception() if serving.done() and not serving.cancelled() else None
    return repr(error) if error else "it ended at once"
