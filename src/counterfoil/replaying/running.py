"""The command `replay`: from what was asked for to an exit code."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import signal
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import asyncpg
import structlog

from counterfoil.clicks.store import load_visitor_key
from counterfoil.database.pool import UNREACHABLE, create_pool, database_address, one_line
from counterfoil.database.queries import sql
from counterfoil.errors import DependencyUnreachable, HaltingFailure, InvalidSetting, SchemaMismatch
from counterfoil.events import Rules
from counterfoil.ingest.partitions import PartitionState
from counterfoil.ingest.positions import Positions
from counterfoil.ingest.routes import Route
from counterfoil.replaying.applying import LEASE_S, Begun, ReplayWriter, alive, begin
from counterfoil.replaying.checking import CheckingWriter, Findings, states_of
from counterfoil.replaying.display import Display, show, warn
from counterfoil.replaying.engine import Engine, Pace
from counterfoil.replaying.exported import ExportedFile
from counterfoil.replaying.kafka_log import KafkaLog
from counterfoil.replaying.progress import ReplayPositions
from counterfoil.replaying.report import Report
from counterfoil.replaying.shadow import ShadowReport, Wanted, run_shadow
from counterfoil.replaying.shadow_display import show_shadow
from counterfoil.replaying.sharing import PartDisplay, SharedReplay
from counterfoil.replaying.sources import Source, Stretch
from counterfoil.replaying.windows import WHOLE, Share, Window
from counterfoil.routing import routes
from counterfoil.settings import Settings, masked_address
from counterfoil.telemetry.event_loop import loop_factory, tune_garbage_collection

POOL_SIZE = 4
CLOSE_WITHIN_S = 1.0

MEANING = ("code_case", "default_currency", "max_event_bytes", "ip_policy", "attribute_by_coupon")
"""Settings that decide what is written of a record: what was begun under others is not gone on with."""

NOT_MIGRATED = (asyncpg.UndefinedTableError, asyncpg.UndefinedColumnError, asyncpg.UndefinedFunctionError)
"""What PostgreSQL says to this version's statements where an older one has migrated last."""

STATES_NOT_MIGRATED = tuple(f"{error.sqlstate} " for error in NOT_MIGRATED)
"""How the failure of a batch begins, for the same reason."""


@dataclass(frozen=True)
class Request:
    """What a replay is asked for; topics by their default names or as they are called here.

    With a `share` it is one of several processes: whoever has started them tells a person of it.
    """

    topics: tuple[str, ...]
    window: Window
    everything: bool = False
    mode: str = "check"
    overwrite: bool = False
    with_alerts: bool = False
    max_rate: int | None = None
    processes: int = 1
    share: Share = WHOLE
    file: Path | None = None
    restart: bool = False
    limit: int = 20
    rules: tuple[str, ...] = ()
    keep: bool = False
    schema: str | None = None
    as_json: bool = False

    @property
    def is_part(self) -> bool:
        """Whether other processes do the rest of it."""
        return self.share != WHOLE


def run_replay(settings: Settings, request: Request, print_json: Callable[[object], None]) -> int:
    """Run a replay and print what it came to; 0 when all is as the log says, 1 when not, 130 after Ctrl-C.

    Raises InvalidSetting, SchemaMismatch or DependencyUnreachable in one line.
    """
    check_request(settings, request)
    database_address(settings)
    if request.mode == "shadow":
        return _run_shadow(settings, request, print_json)
    with (PartDisplay if request.is_part else Display)(f"replay ({request.mode})") as display:
        replay = _replay(settings, request, display)
        code = interruptible(replay.run())
    if code is not None:
        warn(replay.how_it_was_left())
        return code
    if isinstance(display, PartDisplay):
        display.report(replay.report)
    elif request.as_json:
        print_json(replay.report.as_dict())
    else:
        show(replay.report)
    return 1 if replay.report.found else 0


def _replay(settings: Settings, request: Request, display: Display) -> Replay | SharedReplay:
    if request.processes == 1:
        return Replay(settings, request, display)
    return SharedReplay(request, Logs(settings, request, display.tell), display)


def _run_shadow(settings: Settings, request: Request, print_json: Callable[[object], None]) -> int:
    reports: list[ShadowReport] = []

    async def build(logs: Logs, display: Display) -> None:
        wanted = Wanted(
            request.window,
            logs.asked,
            request.schema,
            request.rules,
            request.keep,
            request.restart,
            request.limit,
            request.max_rate,
        )
        reports.append(await run_shadow(settings, logs.sources, wanted, display))

    with Display("replay (shadow)") as display:
        logs = Logs(settings, request, display.tell)
        code = interruptible(build(logs, display))
    if code is not None:
        warn(
            f"stopped at {display.how_far}; nothing live was written; the same command goes on with the shadow"
        )
        return code
    (report,) = reports
    report.notes += logs.notes
    if request.as_json:
        print_json(report.as_dict())
    else:
        show_shadow(report)
    return 1 if report.found else 0


def interruptible(work: Coroutine[Any, Any, None]) -> int | None:
    """Run it to its end, quietly; the exit code where Ctrl-C or SIGTERM came before that."""
    # whoever reads says in its own words what is wrong
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger("ERROR"))

    async def cancelled_by_signals() -> None:
        task = cast("asyncio.Task[None]", asyncio.current_task())
        for number in (signal.SIGTERM, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
        await work

    tune_garbage_collection()
    try:
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            runner.run(cancelled_by_signals())
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except asyncio.CancelledError:
        return 128 + signal.SIGTERM
    return None


# What was asked for


def check_request(settings: Settings, request: Request) -> None:
    """Raises InvalidSetting that names the option and its rule where the options do not go together."""
    named = bool(request.topics)
    if named and request.everything:
        raise InvalidSetting("--all: takes no topics beside it")
    if not (named or request.everything or request.file):
        raise InvalidSetting(f"TOPIC: takes one or more of {', '.join(settings.topics)}; or say --all")
    topics_of(settings, request.topics)
    for option, given, mode in (
        ("--overwrite", request.overwrite, "apply"),
        ("--with-alerts", request.with_alerts, "apply"),
        ("--with", bool(request.rules), "shadow"),
        ("--keep", request.keep, "shadow"),
        ("--schema", request.schema is not None, "shadow"),
    ):
        if given and request.mode != mode:
            raise InvalidSetting(f"{option}: goes with --mode {mode}, not {request.mode}")
    _check_processes(request)
    if request.restart and request.mode == "check":
        raise InvalidSetting("--restart: goes with --mode apply or shadow: a check begins anew each time")
    check_window(request.window, len(request.topics))


def _check_processes(request: Request) -> None:
    if request.processes == 1:
        return
    if request.mode == "shadow":
        raise InvalidSetting("--processes: goes with --mode check or apply, not shadow")
    if request.file is not None:
        raise InvalidSetting(
            "--processes: goes with Kafka, not with --file, which is read from its beginning"
        )
    if request.max_rate is not None and request.max_rate < request.processes:
        raise InvalidSetting("--max-rate: takes at least one record a second for each of --processes")


def check_window(window: Window, topics: int) -> None:
    """Raises InvalidSetting where a window is none."""
    if window.since is not None and window.until is not None and window.since >= window.until:
        raise InvalidSetting("--from: takes a time before that of --to")
    first, end = window.first_offset, window.end_offset
    for option, offset in (("--from-offset", first), ("--to-offset", end)):
        if offset is not None and (topics != 1 or len(window.partitions or ()) != 1):
            raise InvalidSetting(f"{option}: takes one TOPIC and one --partition beside it")
    if first is not None and end is not None and first >= end:
        raise InvalidSetting("--from-offset: takes an offset before that of --to-offset, which is not read")


def topics_of(settings: Settings, names: Sequence[str]) -> list[str]:
    """Topics as they are called here, sorted; all that are known where none is named. Raises InvalidSetting."""
    here = settings.topics | {topic: topic for topic in settings.topics.values()}
    for name in names:
        if name not in here:
            raise InvalidSetting(f"{name}: no such topic; takes one of {', '.join(settings.topics)}")
    return sorted({here[name] for name in names} or settings.topics.values())


class Logs:
    """What a replay reads: Kafka, or a file; `asked` names it, `notes` say what of it is not read."""

    def __init__(self, settings: Settings, request: Request, tell: Callable[[str], None]) -> None:
        self._settings = settings
        self._request = request
        self._tell = tell
        self._topics = topics_of(settings, request.topics)
        self.asked: dict[str, Any] = {"topics": self._topics, "file": None}
        self.notes: list[str] = []

    async def sources(self) -> Sequence[Source]:
        """One for each cluster; the digest of a file is in `asked` from then on."""
        request = self._request
        if request.file is None:
            named = bool(request.topics)
            return [
                KafkaLog(
                    self._settings,
                    self._topics,
                    request.window,
                    named=named,
                    share=request.share,
                    tell=self._tell,
                )
            ]
        file = ExportedFile(request.file, self._topics, request.window)
        sources = await file.sources()
        self.asked["file"] = file.digest
        self.notes = []
        for topic, count in sorted(file.others.items()) if not request.topics else ():
            records = "1 record" if count == 1 else f"{count:,} records"
            self.notes.append(f"{records} of {topic} passed over: no event type is read from it")
        return sources


# The replay itself


class Replay:
    """One check, or one replay that writes; `report` is what it came to."""

    def __init__(self, settings: Settings, request: Request, display: Display) -> None:
        self._settings = settings
        self._request = request
        self._display = display
        self._logs = Logs(settings, request, display.tell)
        self._began = False
        self.report = Report(request.mode, request.window.as_dict())

    async def run(self) -> None:
        """Read the log once more, and compare or write.

        Raises DependencyUnreachable, SchemaMismatch, InvalidSetting or HaltingFailure.
        """
        try:
            async with _pool(self._settings) as pool:
                await self._run(pool)
        except (*NOT_MIGRATED, HaltingFailure) as error:
            if isinstance(error, HaltingFailure) and not str(error).startswith(STATES_NOT_MIGRATED):
                raise
            raise SchemaMismatch(f"{error}; run `counterfoil migrate` first") from error
        except DependencyUnreachable as error:
            if self._request.is_part:
                raise  # how the whole was left, the first process knows
            raise DependencyUnreachable(f"{error}; {self.how_it_was_left()}") from error
        except (*UNREACHABLE, asyncpg.PostgresError) as error:
            where = masked_address(database_address(self._settings))
            raise DependencyUnreachable(f"PostgreSQL at {where}: {one_line(error)}") from error

    def how_it_was_left(self) -> str:
        """Where it was when it was broken off, and how to go on."""
        if not self._began:
            return "nothing was written"
        if self._request.mode == "check":
            return f"stopped at {self._display.how_far}; nothing was written"
        return f"stopped at {self._display.how_far}; the same command goes on from there"

    async def _run(self, pool: asyncpg.Pool) -> None:
        async with pool.acquire() as connection:
            key = await load_visitor_key(connection, self._settings)
        known = routes(self._settings, key, alerts=self._request.with_alerts)
        findings = Findings(self._request.limit)
        for source in await self._logs.sources():
            try:
                stretches = await source.open()
                started = time.monotonic()
                if not stretches:
                    continue
                if self._request.mode == "check":
                    await self._check(pool, known, source, stretches, findings)
                else:
                    await self._apply(pool, known, source, stretches)
                self.report.seconds += time.monotonic() - started
            finally:
                self.report.notes += source.notes
                await close(source)
        self.report.notes += self._logs.notes
        self.report.take_findings(findings)

    async def _check(
        self,
        pool: asyncpg.Pool,
        known: Sequence[Route],
        source: Source,
        stretches: Sequence[Stretch],
        findings: Findings,
    ) -> None:
        cluster_id = stretches[0].cluster_id
        async with pool.acquire() as connection:
            states = await states_of(connection, cluster_id, stretches)
        self._begin(stretches, {})
        writer = CheckingWriter(pool, known, findings, self._timeout_s)
        live = Positions(cluster_id, self._settings.consumer_group)
        await self._engine(known, writer).run(source, _ends(stretches), live, states)

    async def _apply(
        self, pool: asyncpg.Pool, known: Sequence[Route], source: Source, stretches: Sequence[Stretch]
    ) -> None:
        cluster_id = stretches[0].cluster_id
        begun, positions, states = await self._placed(pool, source, stretches, restart=self._request.restart)
        at = {state.partition: state.expected for state in states}
        self._begin(stretches, at)
        if begun.resumed is not None:
            self._display.goes_on([begun.id], begun.resumed)
        writer = ReplayWriter(
            pool,
            known,
            self._timeout_s,
            overwriting=self._request.overwrite,
            copies=self._settings.dlq_topics,
        )
        async with alive(pool, begun.id):
            try:
                await self._engine(known, writer).run(source, _ends(stretches), positions, states)
            finally:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(writer.close(), CLOSE_WITHIN_S)
            await self._display.others_are_done()
            await self._finish(pool, positions, stretches)
        resumed = None if begun.resumed is None else begun.resumed.isoformat()
        self.report.replays.append({"id": begun.id, "cluster": cluster_id, "resumed_from": resumed})

    async def _placed(
        self, pool: asyncpg.Pool, source: Source, stretches: Sequence[Stretch], *, restart: bool
    ) -> tuple[Begun, ReplayPositions, list[PartitionState]]:
        """The replay to go on with, or a new one, and where it stands; a log that was made anew is read anew."""
        spec, cluster_id, tell = self._spec(stretches), stretches[0].cluster_id, self._display.tell
        async with pool.acquire() as connection:
            begun = await begin(connection, spec, cluster_id, restart=restart, tell=tell)
            positions = ReplayPositions(begun.id, cluster_id)
            states = await positions.open(connection, stretches)
        if begun.resumed is None or not isinstance(source, KafkaLog):
            return begun, positions, states
        replaced = await source.replaced(states)
        if replaced is None:
            return begun, positions, states
        tell(f"begins anew, and does not go on with replay {begun.id}: it read another log, for {replaced}")
        await pool.execute(sql("let_go_of_replay"), begun.id)
        return await self._placed(pool, source, stretches, restart=True)

    async def _finish(
        self, pool: asyncpg.Pool, positions: ReplayPositions, stretches: Sequence[Stretch]
    ) -> None:
        async with pool.acquire() as connection:
            if left := await positions.left(connection, stretches):
                raise HaltingFailure(
                    f"another process has taken this replay over, with {left:,} records to go"
                )
            rows = [dict(row) for row in await connection.fetch(sql("sum_replay"), positions.replay_id)]
            await connection.execute(sql("finish_replay"), positions.replay_id, json.dumps(rows), LEASE_S)
        self.report.take_accounts(rows)

    def _begin(self, stretches: Sequence[Stretch], at: dict[Any, int]) -> None:
        self._began = True
        self._display.begin(stretches, at)

    def _engine(self, known: Sequence[Route], writer: Any) -> Engine:
        return Engine(
            known,
            Rules.of(self._settings),
            writer,
            Pace(self._request.max_rate),
            self._display.moved,
            tell=self._display.tell,
            batch_records=self._settings.batch_max_records,
        )

    def _spec(self, stretches: Sequence[Stretch]) -> dict[str, Any]:
        """What makes two replays the same: one of them can go on where the other was broken off."""
        request = self._request
        return {
            "mode": request.mode,
            **self._logs.asked,
            "window": request.window.as_dict(),
            "overwrite": request.overwrite,
            "with_alerts": request.with_alerts,
            "settings": {name: str(getattr(self._settings, name)) for name in MEANING},
            **({"share": [stretch.partition for stretch in stretches]} if request.is_part else {}),
        }

    @property
    def _timeout_s(self) -> float:
        return 2 * self._settings.database_timeout_s.total_seconds()


def _ends(stretches: Sequence[Stretch]) -> dict[Any, int]:
    return {stretch.partition: stretch.end_offset for stretch in stretches}


async def close(source: Source) -> None:
    """Let go of a source, and do not wait for it for long."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(source.close(), CLOSE_WITHIN_S)


@contextlib.asynccontextmanager
async def _pool(settings: Settings) -> AsyncIterator[asyncpg.Pool]:
    pool = await create_pool(settings, "replay", POOL_SIZE)
    try:
        yield pool
    finally:
        try:
            await asyncio.wait_for(pool.close(), CLOSE_WITHIN_S)
        except (TimeoutError, *UNREACHABLE, asyncpg.PostgresError):
            pool.terminate()
