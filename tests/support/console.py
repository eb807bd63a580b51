"""The pages on a server of their own, beside a real database and without Kafka."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import asyncpg
from litestar.di import Provide
from litestar.types import ControllerRouterHandler

from counterfoil.api.server import HttpServer, build_app
from counterfoil.console.dead_letters import DEAD_LETTER_PAGES
from counterfoil.console.explaining import EXPLAIN_PAGES
from counterfoil.console.pages import CONSOLE_ROUTES, Console
from counterfoil.explaining.pages import PageExplainer
from counterfoil.explaining.routes import EXPLAIN_ROUTES
from counterfoil.ingest.dead_letter_routes import DEAD_LETTER_ROUTES
from counterfoil.inventory.routes import INVENTORY_ROUTES
from counterfoil.notifications.routes import OPS_TEST_ROUTES
from counterfoil.routing import routes_by_topic
from counterfoil.settings import Settings
from counterfoil.telemetry.health import Health, Phase
from counterfoil.telemetry.metrics import Metrics
from support.http_client import Client, Reply

TOKEN = "s3cret-token"

ROUTES = (
    *CONSOLE_ROUTES,
    *EXPLAIN_PAGES,
    *DEAD_LETTER_PAGES,
    *EXPLAIN_ROUTES,
    *DEAD_LETTER_ROUTES,
    *INVENTORY_ROUTES,
    *OPS_TEST_ROUTES,
)


@dataclass
class Served:
    """A running server; `client` sends no token, `console` and `health` are those behind its pages."""

    port: int
    client: Client
    console: Console
    health: Health
    metrics: Metrics

    @property
    def address(self) -> str:
        """As a browser names it."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def host(self) -> str:
        """Its Host header."""
        return f"127.0.0.1:{self.port}"

    async def log_in(self, token: str = TOKEN, **headers: str) -> Reply:
        """Post the form of the login page."""
        form = {"content-type": "application/x-www-form-urlencoded", **headers}
        return await self.client.ask("POST", "/ops/login", f"token={token}", form)

    async def session(self) -> str:
        """The cookie of a new session, as a request sends it."""
        return (await self.log_in()).headers["set-cookie"].partition(";")[0]

    async def csrf_token(self, cookie: str) -> str:
        """What the pages of a session send along."""
        page = await self.client.get("/ops", cookie=cookie)
        [token] = re.findall(rb'name="csrf-token" content="([0-9a-f]*)"', page.body)
        return token.decode()


@asynccontextmanager
async def serving(
    pool: asyncpg.Pool | Callable[[], asyncpg.Pool | None] | None,
    token: str | None = TOKEN,
    routes: Iterable[ControllerRouterHandler] = ROUTES,
    **settings: Any,
) -> AsyncIterator[Served]:
    """A server on this database; open to this machine where the token is None."""
    provider = pool if callable(pool) else lambda: pool
    chosen = Settings(_env_file=None, admin_token=token, **settings)
    health, metrics = Health(phase=Phase.RUNNING, started=True), Metrics()
    health.check("database").passed()
    console = Console(chosen, health, metrics, provider, "1.2.3")
    known = routes_by_topic(chosen, b"k" * 32)
    dependencies = {
        "console": console,
        "explainer": PageExplainer(chosen),
        "known_routes": known,
        "publisher": None,
    }
    app = build_app(
        chosen, health, metrics, provider, list(routes), {name: _given(v) for name, v in dependencies.items()}
    )
    server = HttpServer(app, "127.0.0.1", 0)
    await server.start()
    try:
        yield Served(server.port, Client(server.port), console, health, metrics)
    finally:
        await server.stop()


async def park(
    db: asyncpg.Connection,
    value: bytes | None,
    *,
    topic: str = "order.placed",
    offset: int = 0,
    kind: str = "not_json",
    error: str = "the record is no JSON document",
    key: bytes | None = b"key",
) -> int:
    """Park a record by hand; its id."""
    return await db.fetchval(
        'INSERT INTO dead_letters (cluster_id, topic, "partition", "offset", key, value, record_timestamp, '
        "error_kind, error) VALUES ('c', $1, 0, $2, $3, $4, '2026-03-01T12:00:00Z', $5, $6) RETURNING id",
        topic,
        offset,
        key,
        value,
        kind,
        error,
    )


async def stock(
    db: asyncpg.Connection, sku: str, count: int, *, threshold: int = 10, name: str | None = None
) -> None:
    """A product with its stock."""
    await db.execute(
        "INSERT INTO inventory_products (sku, name, threshold) VALUES ($1, $2, $3)",
        sku,
        name or sku,
        threshold,
    )
    await db.execute(
        "INSERT INTO inventory_events (sku, event_type, new_stock) VALUES ($1, 'change', $2)", sku, count
    )


def _given(value: Any) -> Provide:
    return Provide(lambda: value, sync_to_thread=False)
