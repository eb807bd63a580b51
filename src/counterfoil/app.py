"""The only place where objects meet: a worker from its settings, started, watched, drained."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Iterator

import asyncpg
import structlog
from litestar.di import Provide

from counterfoil import __version__, scheduling
from counterfoil.affiliates.routes import AFFILIATE_ROUTES
from counterfoil.api.auth import check_exposure
from counterfoil.api.reporting import reported_topics
from counterfoil.api.server import HttpServer, build_app
from counterfoil.clicks.store import load_visitor_key
from counterfoil.coupons.routes import adjust_affiliate_coupon, list_affiliate_coupons
from counterfoil.database.migrate import available, migrate, migration_status
from counterfoil.database.pool import UNREACHABLE, create_pool, database_address, migrator_address, one_line
from counterfoil.database.watch import watch_database
from counterfoil.errors import DependencyUnreachable, HaltingFailure, TransientFailure
from counterfoil.ingest.failures import classify
from counterfoil.ingest.road import Road
from counterfoil.notifications.relay import Relay
from counterfoil.partners.routes import PARTNER_ROUTES
from counterfoil.promos.routes import create_promo_code, list_promo_codes
from counterfoil.publishing import HttpPublisher
from counterfoil.routing import routes
from counterfoil.settings import ROLES, Settings, masked_address
from counterfoil.telemetry.health import Health, Phase
from counterfoil.telemetry.metrics import Metrics
from counterfoil.vouchers import sampling
from counterfoil.vouchers.routes import VOUCHER_ROUTES

log = structlog.get_logger("counterfoil")

HTTP_ROUTES = (
    list_affiliate_coupons,
    adjust_affiliate_coupon,
    list_promo_codes,
    create_promo_code,
    *AFFILIATE_ROUTES,
    *PARTNER_ROUTES,
    *VOUCHER_ROUTES,
)

REPORTED_TOPICS = reported_topics(HTTP_ROUTES)
"""What HTTP publishes to, by default names."""

RETRY_S = 2.0
POOL_SIZE = 8

NOT_YET = (*UNREACHABLE, asyncpg.InsufficientResourcesError)


class Worker:
    """One process of counterfoil in some of its roles."""

    def __init__(self, settings: Settings, roles: Collection[str] = ROLES) -> None:
        check_exposure(settings)
        self.settings = settings
        self.roles = frozenset(roles)
        self.health = Health(stuck_after_s=4 * settings.database_timeout_s.total_seconds())
        self.metrics = Metrics(__version__)
        self._pool: asyncpg.Pool | None = None
        self._visitor_key = b""
        self._stopping = asyncio.Event()
        self._failure: BaseException | None = None

    async def run(self, announce: Callable[[int], None] = lambda _port: None) -> None:
        """Work until SIGTERM or Ctrl-C, then finish what was begun; `announce` hears the HTTP port.

        Raises SchemaMismatch, HaltingFailure or InvalidSetting where only a person can help.
        """
        with self._signals():
            async with self._http() as port:
                announce(port)
                try:
                    async with self._database() as pool:
                        await self._work(pool)
                finally:
                    self.health.phase = Phase.HALTED if self._failure else Phase.DRAINING
        if self._failure is not None:
            raise self._failure

    def stop(self) -> None:
        """Begin to drain."""
        self.health.phase = Phase.DRAINING
        self._stopping.set()

    def fail(self, error: BaseException) -> None:
        """Stop, and end with this error."""
        log.error("halted", reason=one_line(error))
        self._failure = self._failure or error
        self.health.phase = Phase.HALTED
        self._stopping.set()

    def _ended(self, task: asyncio.Task[None]) -> None:
        """Stop where a task ends that runs for ever."""
        if not task.cancelled() and (error := task.exception()) is not None:
            self.fail(error)

    async def _work(self, pool: asyncpg.Pool) -> None:
        if not await self._schema_is_ready(pool):
            return
        road = self._road(pool) if "ingest" in self.roles else None
        in_trouble = (lambda: road.pipeline.in_trouble) if road else (lambda: False)
        tasks = [asyncio.create_task(watch_database(pool, self.health, in_trouble))]
        if "schedule" in self.roles:
            for work in (
                scheduling.run_forever(pool, self.settings),
                sampling.run_forever(pool, self.metrics),
            ):
                tasks.append(asyncio.create_task(work))
                tasks[-1].add_done_callback(self._ended)
        relay = Relay(self.settings, self.metrics) if "relay" in self.roles else None
        try:
            if road:
                road.start(self.fail)
            if relay:
                relay.start()
            self.health.started = True
            if not self._stopping.is_set():
                self.health.phase = Phase.RUNNING
            await self._stopping.wait()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            if road:
                await road.stop()
            if relay:  # last, so that it takes along what the last batches raised
                await relay.stop()

    def _road(self, pool: asyncpg.Pool) -> Road:
        return Road(
            settings=self.settings,
            routes=routes(self.settings, self._visitor_key),
            pool=pool,
            health=self.health,
            metrics=self.metrics,
            halt=self.fail,
        )

    # Parts with an end of their own

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        try:
            yield
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)

    @contextlib.asynccontextmanager
    async def _http(self) -> AsyncIterator[int]:
        publisher = HttpPublisher(self.settings, REPORTED_TOPICS)
        app = build_app(
            settings=self.settings,
            health=self.health,
            metrics=self.metrics,
            pool_provider=lambda: self._pool,
            route_handlers=HTTP_ROUTES if "http" in self.roles else (),
            dependencies={"publisher": Provide(lambda: publisher, sync_to_thread=False)},
            version=__version__,
        )
        server = HttpServer(app, self.settings.http_host, self.settings.http_port)
        await server.start()
        try:
            yield server.port
        finally:
            await server.stop()
            await publisher.stop()

    @contextlib.asynccontextmanager
    async def _database(self) -> AsyncIterator[asyncpg.Pool]:
        self._pool = pool = await create_pool(self.settings, "worker", POOL_SIZE)
        try:
            yield pool
        finally:
            self._pool = None
            try:
                await asyncio.wait_for(pool.close(), 5)
            except (TimeoutError, *UNREACHABLE):
                pool.terminate()

    async def _schema_is_ready(self, pool: asyncpg.Pool) -> bool:
        """Migrate, or wait until somebody has; False when the worker is told to stop before that."""
        check = self.health.check("database")
        while not self._stopping.is_set():
            try:
                migrated = await self._unless_stopped(self._migrate(pool))
                if migrated:
                    await self._prepare(pool)
                    check.passed()
                    return True
                if self._stopping.is_set():
                    return False
                check.failed("the schema is behind; run `counterfoil migrate`")
                log.warning("schema_behind", next_in_s=RETRY_S)
            except NOT_YET as error:
                where = masked_address(database_address(self.settings))
                check.failed(f"PostgreSQL at {where}: {one_line(error)}")
                log.warning("database_away", address=where, reason=one_line(error), next_in_s=RETRY_S)
            except asyncpg.PostgresError as error:
                failure = classify(error)
                if not isinstance(failure, TransientFailure):
                    raise HaltingFailure(f"{error.sqlstate} {one_line(error)}") from error
                check.failed(str(failure))
                log.warning("migration_put_off", reason=str(failure), next_in_s=RETRY_S)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), RETRY_S)
        return False

    async def _unless_stopped(self, work: Coroutine[None, None, bool]) -> bool:
        """What the work answers; False when the worker is told to stop before it does."""
        working = asyncio.create_task(work)
        stopping = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
            return await working if working.done() else False
        finally:
            for task in (working, stopping):
                task.cancel()
            await asyncio.gather(working, stopping, return_exceptions=True)

    async def _migrate(self, pool: asyncpg.Pool) -> bool:
        """Apply what is due where we may; True when nothing is due any more."""
        settings = self.settings
        if settings.migrate_on_start:
            applied = await migrate(migrator_address(settings), settings.db_schema)
            if applied:
                log.info("migrated", applied=applied)
            return True
        async with pool.acquire() as connection:
            states = await migration_status(connection, settings.db_schema)
        return len([s for s in states if s.applied_at]) == len(available())

    async def _prepare(self, pool: asyncpg.Pool) -> None:
        async with pool.acquire() as connection:
            self._visitor_key = await load_visitor_key(connection, self.settings)
            await scheduling.prepare(connection, self.settings)


def run_worker(settings: Settings, roles: Collection[str], announce: Callable[[int], None]) -> None:
    """Run a worker to its end; raises a CounterfoilError when it had to give up."""
    _tune_garbage_collection()
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        try:
            runner.run(_run(settings, roles, announce))
        except HaltingFailure as error:
            raise DependencyUnreachable(f"stopped, nothing was parked: {error}") from error


async def _run(settings: Settings, roles: Collection[str], announce: Callable[[int], None]) -> None:
    await Worker(settings, roles).run(announce)


def _tune_garbage_collection() -> None:
    """Look for cycles rarely: records make none, and looking through a backlog of them held the loop for 60 ms."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop  # noqa: PLC0415 - not on Windows
    except ImportError:
        return None
    return uvloop.new_event_loop
