"""The only place where objects meet: a worker from its settings, started, watched, drained."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Iterator

import asyncpg
import structlog
from litestar.di import Provide

from counterfoil import __version__, scheduling
from counterfoil.affiliates.routes import AFFILIATE_ROUTES
from counterfoil.api.auth import check_exposure
from counterfoil.api.problems import database_away
from counterfoil.api.reporting import reported_topics
from counterfoil.api.server import HttpServer, build_app
from counterfoil.clicks.store import load_visitor_key
from counterfoil.console.dead_letters import DEAD_LETTER_PAGES
from counterfoil.console.explaining import EXPLAIN_PAGES
from counterfoil.console.pages import CONSOLE_ROUTES, Console
from counterfoil.coupons.routes import adjust_affiliate_coupon, list_affiliate_coupons
from counterfoil.database.migrate import available, migrate, migration_status
from counterfoil.database.pool import UNREACHABLE, create_pool, database_address, migrator_address, one_line
from counterfoil.database.sampling import sample_forever
from counterfoil.database.verifications import sample_verification
from counterfoil.database.watch import watch_database
from counterfoil.errors import DependencyUnreachable, HaltingFailure, TransientFailure
from counterfoil.explaining.pages import PageExplainer
from counterfoil.explaining.routes import EXPLAIN_ROUTES
from counterfoil.ingest.copies import DeadLetterCopies
from counterfoil.ingest.dead_letter_routes import DEAD_LETTER_ROUTES
from counterfoil.ingest.failures import classify
from counterfoil.ingest.gaps import GapWatch
from counterfoil.ingest.retry import KnownRoutes
from counterfoil.ingest.road import Road
from counterfoil.inventory.routes import INVENTORY_ROUTES
from counterfoil.inventory.sampling import sample_products
from counterfoil.notifications.channels import channels_of
from counterfoil.notifications.delivery import Timing
from counterfoil.notifications.notifier import Notifier
from counterfoil.notifications.publishing_loop import PublishingLoop
from counterfoil.notifications.relay import Relay
from counterfoil.notifications.routes import OPS_TEST_ROUTES
from counterfoil.partners.routes import PARTNER_ROUTES
from counterfoil.promos.routes import create_promo_code, list_promo_codes
from counterfoil.publishing import HttpPublisher
from counterfoil.routing import COUNTERS, notify_routes, routes, routes_by_topic
from counterfoil.settings import ROLES, Settings, masked_address
from counterfoil.telemetry.event_loop import loop_factory, tune_garbage_collection
from counterfoil.telemetry.health import Health, Phase
from counterfoil.telemetry.metrics import Metrics
from counterfoil.vouchers.routes import VOUCHER_ROUTES
from counterfoil.vouchers.sampling import sample_conversion, sample_scans

log = structlog.get_logger("counterfoil")

HTTP_ROUTES = (
    list_affiliate_coupons,
    adjust_affiliate_coupon,
    list_promo_codes,
    create_promo_code,
    *AFFILIATE_ROUTES,
    *PARTNER_ROUTES,
    *VOUCHER_ROUTES,
    *INVENTORY_ROUTES,
    *DEAD_LETTER_ROUTES,
    *OPS_TEST_ROUTES,
    *CONSOLE_ROUTES,
    *EXPLAIN_ROUTES,
    *EXPLAIN_PAGES,
    *DEAD_LETTER_PAGES,
)

REPORTED_TOPICS = reported_topics(HTTP_ROUTES)
"""What HTTP publishes to, by default names."""

SAMPLES = (sample_scans, sample_conversion, sample_products)

RETRY_S = 2.0
POOL_SIZE = 8
NOTIFIER_POOL_SIZE = 4
CLOSE_WITHIN_S = 5.0

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
        self.console = Console(settings, self.health, self.metrics, lambda: self._pool, __version__)
        self.explainer = PageExplainer(settings)
        self._visitor_key = b""
        self._known_routes: KnownRoutes | None = None
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
        notifying = await self._notifying() if "notify" in self.roles else None
        tasks = [asyncio.create_task(work) for work in _watches(pool, self.health, road, notifying)]
        tasks.append(asyncio.create_task(sample_forever(pool, self.metrics, [sample_verification])))
        if "schedule" in self.roles:
            for work in (
                scheduling.run_forever(pool, self.settings, COUNTERS),
                sample_forever(pool, self.metrics, SAMPLES),
                GapWatch(pool, self.settings, self.metrics).watch_forever(),
            ):
                tasks.append(asyncio.create_task(work))
                tasks[-1].add_done_callback(self._ended)
        if "http" in self.roles:
            tasks.append(asyncio.create_task(self.console.sample_forever(pool)))
        relays = self._relays() if "relay" in self.roles else []
        try:
            if road:
                road.start(self.fail)
            if notifying:
                notifying.start(self.fail)
            for relay in relays:
                relay.start()
            self.health.started = True
            if not self._stopping.is_set():
                self.health.phase = Phase.RUNNING
            await self._stopping.wait()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await asyncio.gather(*(part.stop() for part in (road, notifying) if part))
            # last, so that they take along what the last batches raised
            await asyncio.gather(*(relay.stop() for relay in relays))

    def _relays(self) -> list[PublishingLoop]:
        """What takes to Kafka what was written with its cause."""
        relays: list[PublishingLoop] = [Relay(self.settings, self.metrics)]
        if self.settings.dlq_topics:
            relays.append(DeadLetterCopies(self.settings, self.metrics))
        return relays

    async def _notifying(self) -> Notifying:
        """The notifier; where this worker ingests as well, whether it is ready is not the notifier's to say."""
        health = self.health
        if "ingest" in self.roles:
            health = self.health.beside["notifier"] = Health()
        pool = await create_pool(self.settings, "notifier", NOTIFIER_POOL_SIZE)
        return Notifying(self.settings, pool, health, self.metrics, self.fail)

    def _road(self, pool: asyncpg.Pool) -> Road:
        consumed = self.settings.consumed_topics
        known = routes(self.settings, self._visitor_key)
        return Road(
            settings=self.settings,
            routes=[route for route in known if route.name in consumed],
            group=self.settings.consumer_group,
            pool=pool,
            health=self.health,
            metrics=self.metrics,
            halt=self.fail,
        )

    def _routes_by_topic(self) -> KnownRoutes:
        if self._known_routes is None:
            raise database_away()
        return self._known_routes

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
            dependencies={
                "publisher": Provide(lambda: publisher, sync_to_thread=False),
                "console": Provide(lambda: self.console, sync_to_thread=False),
                "explainer": Provide(lambda: self.explainer, sync_to_thread=False),
                "known_routes": Provide(self._routes_by_topic, sync_to_thread=False),
            },
            version=__version__,
        )
        server = HttpServer(app, self.settings.http_host, self.settings.http_port)
        await server.start()
        preparing = asyncio.create_task(self.console.prepare()) if "http" in self.roles else None
        try:
            yield server.port
        finally:
            if preparing:
                await asyncio.gather(preparing, return_exceptions=True)
            await server.stop()
            await publisher.stop()

    @contextlib.asynccontextmanager
    async def _database(self) -> AsyncIterator[asyncpg.Pool]:
        self._pool = pool = await create_pool(self.settings, "worker", POOL_SIZE)
        try:
            yield pool
        finally:
            self._pool = None
            await _close(pool)

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
            self._known_routes = routes_by_topic(self.settings, self._visitor_key)
            await scheduling.prepare(connection, self.settings)


class Notifying:
    """The role `notify`: alerts come in from Kafka, and a loop for each channel tells them.

    It has connections and a consumer group of its own, so that nothing in it holds up what else the worker does.
    Without a channel nothing is read.
    """

    def __init__(
        self,
        settings: Settings,
        pool: asyncpg.Pool,
        health: Health,
        metrics: Metrics,
        halt: Callable[[HaltingFailure], None],
    ) -> None:
        channels = channels_of(settings)
        names = [channel.name for channel in channels]
        self.pool = pool
        self.health = health
        self.road: Road | None = None
        self._notifier = Notifier(channels, pool, Timing.of(settings), metrics)
        if channels:
            self.road = Road(
                settings=settings,
                routes=notify_routes(settings, lambda: names),
                group=settings.notify_group,
                pool=pool,
                health=health,
                metrics=metrics,
                halt=halt,
                written=self._notifier.wake,
            )

    def start(self, crashed: Callable[[BaseException], None]) -> None:
        """Begin to take in and to tell; `crashed` hears of a task that ends by itself, which none should."""
        if self.road:
            self.road.start(crashed)
        self._notifier.start(crashed)

    async def stop(self) -> None:
        """Finish what is under way, but not for long."""
        await asyncio.gather(*(part.stop() for part in (self.road, self._notifier) if part))
        await _close(self.pool)


def _watches(
    pool: asyncpg.Pool, health: Health, road: Road | None, notifying: Notifying | None
) -> Iterator[Coroutine[None, None, None]]:
    """Who watches the database for the worker's health, and for the notifier's where it has its own."""
    apart = notifying is not None and notifying.health is not health
    roads = [road] if apart or notifying is None else [road, notifying.road]
    yield watch_database(pool, health, _trouble_of(roads))
    if notifying is not None and apart:
        yield watch_database(notifying.pool, notifying.health, _trouble_of([notifying.road]))


def _trouble_of(roads: Collection[Road | None]) -> Callable[[], bool]:
    return lambda: any(road.pipeline.in_trouble for road in roads if road)


async def _close(pool: asyncpg.Pool) -> None:
    try:
        await asyncio.wait_for(pool.close(), CLOSE_WITHIN_S)
    except (TimeoutError, *UNREACHABLE):
        pool.terminate()


def run_worker(settings: Settings, roles: Collection[str], announce: Callable[[int], None]) -> None:
    """Run a worker to its end; raises a CounterfoilError when it had to give up."""
    tune_garbage_collection()
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        try:
            runner.run(_run(settings, roles, announce))
        except HaltingFailure as error:
            raise DependencyUnreachable(f"stopped, nothing was parked: {error}") from error


async def _run(settings: Settings, roles: Collection[str], announce: Callable[[int], None]) -> None:
    await Worker(settings, roles).run(announce)
