"""The real HTTP server on a port of its own, and a client that speaks to it from a thread."""

from __future__ import annotations

import asyncio
import http.client
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import asyncpg
import pytest
from litestar.types import ControllerRouterHandler

from counterfoil.api.server import HttpServer, build_app
from counterfoil.coupons.routes import adjust_affiliate_coupon, list_affiliate_coupons
from counterfoil.promos.routes import create_promo_code, list_promo_codes
from counterfoil.settings import Settings
from counterfoil.telemetry.health import Health
from counterfoil.telemetry.metrics import Metrics

ADMIN_ROUTES = (list_affiliate_coupons, adjust_affiliate_coupon, list_promo_codes, create_promo_code)


@dataclass(frozen=True)
class Reply:
    """An HTTP answer; header names are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Client:
    """Asks one server, each request on a connection of its own."""

    port: int
    token: str | None = None

    async def get(self, path: str, **headers: str) -> Reply:
        return await self.ask("GET", path, None, headers)

    async def post(self, path: str, body: object, **headers: str) -> Reply:
        content = body if isinstance(body, str | bytes) else json.dumps(body)
        return await self.ask("POST", path, content, {"content-type": "application/json", **headers})

    async def ask(
        self, method: str, path: str, body: str | bytes | Iterable[bytes] | None, headers: dict[str, str]
    ) -> Reply:
        return await asyncio.to_thread(self._ask, method, path, body, headers)

    def _ask(self, method: str, path: str, body: Any, headers: dict[str, str]) -> Reply:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if self.token is not None:
            named.setdefault("authorization", f"Bearer {self.token}")
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)) as connection:
            connection.request(method, path, body, named)
            answer = connection.getresponse()
            found = {name.lower(): value for name, value in answer.getheaders()}
            return Reply(answer.status, found, answer.read())


Serve = Callable[..., Awaitable[Client]]


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Start the server: `client = await serve(pool=pool, token="s3cret")`; stopped at the end."""
    servers: list[HttpServer] = []

    async def start(
        pool: Any = None,
        token: str | None = None,
        routes: Iterable[ControllerRouterHandler] = ADMIN_ROUTES,
        health: Health | None = None,
        **settings: Any,
    ) -> Client:
        provider = pool if callable(pool) else lambda: pool
        chosen = Settings(_env_file=None, admin_token=token, **settings)
        server = HttpServer(
            build_app(chosen, health or Health(), Metrics(), provider, list(routes)), "127.0.0.1", 0
        )
        await server.start()
        servers.append(server)
        return Client(server.port, token)

    yield start
    for server in servers:
        await server.stop()


@pytest.fixture
async def pool(database_url: str) -> AsyncIterator[asyncpg.Pool]:
    """Connections to this test's database."""
    async with asyncpg.create_pool(database_url, min_size=0, max_size=20) as made:
        yield made


@pytest.fixture
async def client(serve: Serve, pool: asyncpg.Pool) -> Client:
    """The admin routes on this test's database, open on loopback."""
    return await serve(pool)
