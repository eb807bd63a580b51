"""The real HTTP server on a port of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any

import asyncpg
import pytest
from litestar.di import Provide
from litestar.types import ControllerRouterHandler

from counterfoil.affiliates.routes import AFFILIATE_ROUTES
from counterfoil.api.server import HttpServer, build_app
from counterfoil.coupons.routes import adjust_affiliate_coupon, list_affiliate_coupons
from counterfoil.errors import DependencyUnreachable
from counterfoil.events import Event
from counterfoil.promos.routes import create_promo_code, list_promo_codes
from counterfoil.settings import Settings
from counterfoil.telemetry.health import Health
from counterfoil.telemetry.metrics import Metrics
from counterfoil.vouchers.routes import VOUCHER_ROUTES
from support.http_client import Client

ADMIN_ROUTES = (
    list_affiliate_coupons,
    adjust_affiliate_coupon,
    list_promo_codes,
    create_promo_code,
    *AFFILIATE_ROUTES,
    *VOUCHER_ROUTES,
)


class KeptPublisher:
    """Stands where Kafka's publisher stands: keeps the events, or is unreachable while `away`."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.away = False

    async def publish(self, event: Event) -> None:
        if self.away:
            raise DependencyUnreachable("Kafka at kafka.internal:9092: away")
        self.events.append(event)


Serve = Callable[..., Awaitable[Client]]


class Impatient:
    """asyncio with short sleeps: uvicorn's of 0.1 s, two at each end, are most of these tests' time."""

    def __getattr__(self, name: str) -> Any:
        return getattr(asyncio, name)

    async def sleep(self, delay: float) -> None:
        await asyncio.sleep(delay / 20)


@pytest.fixture
async def serve(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Serve]:
    """Start the server: `client = await serve(pool=pool, token="s3cret")`; stopped at the end."""
    monkeypatch.setattr("uvicorn.server.asyncio", Impatient())
    servers: list[HttpServer] = []

    async def start(
        pool: Any = None,
        token: str | None = None,
        routes: Iterable[ControllerRouterHandler] = ADMIN_ROUTES,
        health: Health | None = None,
        publisher: Any = None,
        **settings: Any,
    ) -> Client:
        provider = pool if callable(pool) else lambda: pool
        chosen = Settings(_env_file=None, admin_token=token, **settings)
        published = publisher or KeptPublisher()
        app = build_app(
            chosen,
            health or Health(),
            Metrics(),
            provider,
            list(routes),
            {"publisher": Provide(lambda: published, sync_to_thread=False)},
        )
        server = HttpServer(app, "127.0.0.1", 0)
        await server.start()
        servers.append(server)
        return Client(server.port, token)

    yield start
    for server in servers:
        await server.stop()


@pytest.fixture
def kept() -> KeptPublisher:
    """What stands where Kafka's publisher stands."""
    return KeptPublisher()


@pytest.fixture
async def pool(database_url: str) -> AsyncIterator[asyncpg.Pool]:
    """Connections to this test's database."""
    async with asyncpg.create_pool(database_url, min_size=0, max_size=20) as made:
        yield made


@pytest.fixture
async def client(serve: Serve, pool: asyncpg.Pool) -> Client:
    """The admin routes on this test's database, open on loopback."""
    return await serve(pool)
