"""Builds ledgers and counters once more from the log, beside the live ones, and says where the two are not the same."""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple, Protocol, TypeAlias

import asyncpg

from counterfoil import __version__
from counterfoil.clicks.store import load_visitor_key
from counterfoil.database.connection import Connection
from counterfoil.database.pool import UNREACHABLE, connect, connection_options, migrator_address, one_line
from counterfoil.database.queries import sql
from counterfoil.errors import DependencyUnreachable, InvalidSetting, SchemaMismatch
from counterfoil.events import Rules
from counterfoil.ingest.partitions import Partition, PartitionState
from counterfoil.ingest.writer import Writer
from counterfoil.replaying.compared import BY_TABLE, COMPARED
from counterfoil.replaying.comparing import (
    Comparing,
    Content,
    Excuse,
    TableComparison,
    digest_of_all,
)
from counterfoil.replaying.engine import Engine, Pace
from counterfoil.replaying.offsets import NotedSource, ShadowPositions, offsets_read
from counterfoil.replaying.shadow_schema import ShadowSchema
from counterfoil.replaying.sources import Source, Stretch
from counterfoil.replaying.taking_over import Amendments, TakingOver
from counterfoil.replaying.what_if import (
    EARNINGS,
    Earning,
    OtherRules,
    compare_earnings,
    parse_rules,
    totals_of,
)
from counterfoil.replaying.windows import Window
from counterfoil.routing import routes
from counterfoil.settings import Settings, masked_address

NEAR = 2_000
"""Records that may be left to read when the live tables are looked at: what is read then keeps their snapshot open."""

ROUNDS = 30
"""How often it is tried to come so near."""

WRITE_WITHIN_S = 600.0

SCHEMA_NAME = re.compile(r"[a-z_][a-z0-9_]{0,62}")
NAME_BYTES = 63
"""What PostgreSQL takes for a name."""

Sources: TypeAlias = Callable[[], Awaitable[Sequence[Source]]]
"""Opens the logs that are read: anew, where a shadow begins anew."""

FIRST_STANDS = ("aff_clicks", "voucher_scans")
"""Ledgers where of two contents of one identity the first that came stands, which in another order is another."""


class Shows(Protocol):
    """What a shadow tells of itself while it is built."""

    def begin(self, stretches: Sequence[Stretch], at: Mapping[Partition, int]) -> None: ...
    def moved(self, offsets: Mapping[Partition, int]) -> None: ...
    def tell(self, line: str) -> None: ...


class Wanted(NamedTuple):
    """What a shadow is asked for; `asked` is what else makes it the one that it is, such as its topics."""

    window: Window
    asked: Mapping[str, Any]
    schema: str | None = None
    rules: Sequence[str] = ()
    keep: bool = False
    restart: bool = False
    limit: int = 20
    max_rate: int | None = None


@dataclass
class ShadowReport:
    """What a shadow came to: tables with what is not the same, or with other rules what would have been earned."""

    schema: str
    window: Window
    tables: list[TableComparison] = field(default_factory=list)
    taken_over: dict[str, tuple[int, int]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    earnings: list[Earning] | None = None
    orders_that_differ: int = 0
    records: int = 0
    seconds: float = 0.0
    resumed: bool = False
    kept: bool = False

    @property
    def found(self) -> bool:
        """Whether something is not the same; what would have been under other rules is no finding."""
        return any(table.found for table in self.tables)

    @property
    def digests(self) -> tuple[str, str]:
        """One digest of all live tables, and one of all the shadow's."""
        live = {table.table: table.live.digest for table in self.tables}
        shadow = {table.table: table.shadow.digest for table in self.tables}
        return digest_of_all(live), digest_of_all(shadow)

    @property
    def rate(self) -> float:
        """Records in a second."""
        return self.records / self.seconds if self.seconds else 0.0

    def as_dict(self) -> dict[str, Any]:
        """As `--json` prints it."""
        live, shadow = self.digests
        return {
            "mode": "shadow",
            "window": self.window.as_dict(),
            "schema": self.schema if self.kept else None,
            "tables": [self._table(table) for table in self.tables],
            "differences": [d._asdict() for table in self.tables for d in table.differences],
            "digest": {"live": live, "shadow": shadow} if self.tables else None,
            "what_if": self._what_if(),
            "notes": self.notes,
            "records": self.records,
            "seconds": round(self.seconds, 3),
            "rate": round(self.rate, 1),
            "resumed": self.resumed,
        }

    def _table(self, table: TableComparison) -> dict[str, Any]:
        by_hand, unread = self.taken_over.get(table.table, (0, 0))
        return {
            "table": table.table,
            "live": table.live.rows,
            "shadow": table.shadow.rows,
            "missing": table.missing,
            "only_live": table.only_live,
            "differs": table.differing,
            "by_hand": by_hand,
            "not_read": unread,
        }

    def _what_if(self) -> dict[str, Any] | None:
        if self.earnings is None:
            return None
        return {
            "earnings": [_earning(earning) for earning in self.earnings],
            "totals": [_earning(earning) for earning in totals_of(self.earnings)],
            "orders_that_differ": self.orders_that_differ,
        }


def _earning(earning: Earning) -> dict[str, Any]:
    names = ("earned", "would_have_earned", "difference")
    named = {name: f"{amount:f}" for name, amount in zip(names, earning.amounts, strict=True)}
    return {"kind": earning.kind, "name": earning.name, "currency": earning.currency, **named}


class BeginAnew(Exception):
    """What was built does not fit any more what is live; the message says why."""


async def run_shadow(settings: Settings, sources: Sources, wanted: Wanted, shows: Shows) -> ShadowReport:
    """Build a shadow, compare it with the live tables, and take it away again unless it is to be kept.

    Raises InvalidSetting, SchemaMismatch, DependencyUnreachable or HaltingFailure in one line.
    """
    began = time.monotonic()
    schema = schema_of(settings, wanted.schema)
    other = parse_rules(wanted.rules)
    try:
        async with _connections(settings, schema, shows) as connections:
            report = await _build(
                lambda: Shadow(settings, wanted, shows, connections, other), sources, restart=wanted.restart
            )
            if not wanted.keep:
                await connections.schema.drop()
    except asyncpg.UndefinedTableError as error:
        raise SchemaMismatch(f"{error}; run `counterfoil migrate` first") from error
    except (*UNREACHABLE, asyncpg.PostgresError) as error:
        where = masked_address(migrator_address(settings))
        raise DependencyUnreachable(
            f"PostgreSQL at {where}: {one_line(error)}; the same command goes on with the shadow"
        ) from error
    report.seconds = time.monotonic() - began
    return report


def schema_of(settings: Settings, name: str | None) -> str:
    """The schema that a shadow is built in; raises InvalidSetting where that cannot be one."""
    schema = name or f"{settings.db_schema}_shadow"
    if not SCHEMA_NAME.fullmatch(schema) or schema == settings.db_schema:
        raise InvalidSetting(
            f"--schema {schema}: takes a name of small letters, digits and _, {NAME_BYTES} of them at most, "
            "that is not the live schema's"
        )
    return schema


class Connections(NamedTuple):
    """What a shadow works with: `live` reads, the owner of the schema makes it, and the writer has a pool."""

    live: Connection
    schema: ShadowSchema
    pool: asyncpg.Pool


async def _build(shadow_of: Callable[[], Shadow], sources: Sources, *, restart: bool) -> ShadowReport:
    """Build and compare, anew where what people have done meanwhile asks for it."""
    while True:
        async with contextlib.AsyncExitStack() as stack:
            opened = [NotedSource(source) for source in await sources()]
            for source in opened:
                stack.push_async_callback(_close, source)
            shadow = shadow_of()
            try:
                return await shadow.run(opened, restart=restart)
            except BeginAnew as why:
                shadow.tell(f"{why}: the shadow begins anew")
                restart = True


async def _close(source: Source) -> None:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(source.close(), 5)


@contextlib.asynccontextmanager
async def _connections(settings: Settings, name: str, shows: Shows) -> AsyncIterator[Connections]:
    """All that are needed; the live one reads with the worker's rights, the others write with the migrator's."""
    address = migrator_address(settings)
    options = connection_options(name, None, "shadow")
    options["server_settings"] |= {
        "search_path": f"{name},pg_catalog,pg_temp",  # in this order: see shadow_schema's own locks
        "idle_in_transaction_session_timeout": "0",
        "synchronous_commit": "off",
    }
    async with contextlib.AsyncExitStack() as stack:
        live = await connect(settings, "shadow", patient=True)
        stack.callback(live.terminate)
        owner = await asyncpg.connect(address, **options)
        stack.callback(owner.terminate)
        pool = await asyncpg.create_pool(address, min_size=0, max_size=2, **options)
        stack.callback(pool.terminate)
        schema = ShadowSchema(owner, name, shows.tell)
        await schema.hold()
        yield Connections(live, schema, pool)


@dataclass
class Reading:
    """One source, how far it may be read, and where the shadow stands in it."""

    source: NotedSource
    stretches: Mapping[Partition, Stretch]
    positions: ShadowPositions
    states: list[PartitionState] = field(default_factory=list)

    @property
    def cluster_id(self) -> str:
        """The cluster that it is of."""
        return self.positions.cluster_id

    @property
    def at(self) -> dict[Partition, int]:
        """Where each partition stands."""
        return {state.partition: state.expected for state in self.states}

    async def find_states(self, connection: Connection, partitions: Iterable[Partition]) -> None:
        """Read where these partitions stand: at the beginning of their stretches, where they stand nowhere yet."""

        async def first_offsets(wanted: list[Partition]) -> Mapping[Partition, int]:
            return {partition: self.stretches[partition].first_offset for partition in wanted}

        self.states = await self.positions.load(connection, partitions, first_offsets)
        self.positions.source_ids = {state.partition: state.source_id for state in self.states}

    def ends(self, live: Mapping[Partition, int], window: Window) -> dict[Partition, int]:
        """Up to where it is to be read so that the shadow knows what is live, and no more."""
        found = {}
        for partition, stretch in self.stretches.items():
            if partition in live:
                limit = window.end_offset if self.source.grows else stretch.end_offset
                found[partition] = live[partition] if limit is None else min(limit, live[partition])
        return found

    def left(self, ends: Mapping[Partition, int]) -> int:
        """How many offsets lie before these ends."""
        return sum(max(0, ends[partition] - at) for partition, at in self.at.items())

    def stretches_to(self, ends: Mapping[Partition, int]) -> list[Stretch]:
        """What is to be read up to these ends."""
        return [
            Stretch(self.cluster_id, partition, at, max(at, ends[partition]))
            for partition, at in self.at.items()
        ]

    def unread_partitions(self, ends: Mapping[Partition, int], group: str) -> list[str]:
        """Notes on what the live group does not read at all."""
        unread = sorted(self.stretches.keys() - ends.keys())
        names = ", ".join(f"{partition.topic}/{partition.partition}" for partition in unread)
        return (
            [f"the group {group} reads nothing of {names}: what is live of it is not proved"] if names else []
        )


class Shadow:
    """One shadow: built to where the live group stands, told what is not in the log, and compared."""

    def __init__(
        self,
        settings: Settings,
        wanted: Wanted,
        shows: Shows,
        connections: Connections,
        other: OtherRules | None,
    ) -> None:
        self._live_settings = settings
        self._settings = other.settings_of(settings) if other else settings
        self._wanted = wanted
        self._shows = shows
        self._live, self._schema, self._pool = connections
        self._other = other
        self._amendments: Amendments = {}
        self._resumed = False
        self._forgotten = 0
        self.report = ShadowReport(self._schema.name, wanted.window, kept=wanted.keep)

    async def run(self, sources: Sequence[NotedSource], *, restart: bool) -> ShadowReport:
        """Build it from these sources, and compare it."""
        readings = [await self._open(source) for source in sources]
        self._resumed = self.report.resumed = await self._schema.prepare(
            migrator_address(self._live_settings), self._specification(), restart=restart
        )
        if self._other:
            self._amendments = await self._other.amendments(self._live)
        async with self._pool.acquire() as shadow, self._engine() as engine:
            await self._begin(shadow, readings)
            await self._catch_up(engine, readings)
            async with self._snapshot():
                taking = await self._finish(engine, readings, shadow)
                await (self._earn(shadow) if self._other else self._compare(shadow, taking))
        self._note_what_is_not_proved(taking)
        self.report.notes = [*(note for source in sources for note in source.notes), *self.report.notes]
        return self.report

    def tell(self, line: str) -> None:
        """Say something to whoever waits for it."""
        self._shows.tell(line)

    def _specification(self) -> dict[str, Any]:
        """What makes two shadows the same: what is read, by which rules, and of what live schema."""
        settings = self._settings
        return {
            "version": __version__,
            "asked": dict(self._wanted.asked),
            "window": self._wanted.window.as_dict(),
            "rules": sorted(self._wanted.rules),
            "live": settings.db_schema,
            "group": settings.consumer_group,
            "topics": settings.topics,
            "settings": [
                settings.code_case, settings.default_currency, settings.attribute_by_coupon, settings.ip_policy,
                settings.max_event_bytes,
            ],
        }  # fmt: skip

    @contextlib.asynccontextmanager
    async def _engine(self) -> AsyncIterator[Engine]:
        key = await load_visitor_key(self._live, self._live_settings)
        known = routes(self._settings, key, alerts=False)
        writer = Writer(self._pool, known, WRITE_WITHIN_S)
        pace = Pace(self._wanted.max_rate)
        try:
            yield Engine(
                known, Rules.of(self._settings), writer, pace, self._shows.moved, tell=self._shows.tell
            )
        finally:
            await writer.close()

    @contextlib.asynccontextmanager
    async def _snapshot(self) -> AsyncIterator[None]:
        """Let all that is read live be of one moment."""
        async with self._live.transaction(isolation="repeatable_read", readonly=True):
            await self._live.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
            yield

    # Reading

    @staticmethod
    async def _open(source: NotedSource) -> Reading:
        stretches = {stretch.partition: stretch for stretch in await source.open()}
        cluster_id = next((stretch.cluster_id for stretch in stretches.values()), "")
        return Reading(source, stretches, ShadowPositions(cluster_id, source))

    async def _begin(self, shadow: Connection, readings: Sequence[Reading]) -> None:
        """Take over the rules that people have set, and find where the shadow stands."""
        async with self._snapshot():
            ends = [await self._ends(reading) for reading in readings]
            await self._copy_sources(shadow)
            self._forgotten = await self._live.fetchval(sql("last_forgotten_person"))
            if self._resumed and await shadow.fetchval(sql("last_forgotten_person")) != self._forgotten:
                raise BeginAnew("people were forgotten since it was begun")
            taking = self._taking_over(shadow)
            if self._resumed and not await taking.give_back(await offsets_read(shadow)):
                raise BeginAnew("rows by hand stand in the place of rows of the log")
            await taking.take_rules()
        for reading, its_ends in zip(readings, ends, strict=True):
            await reading.find_states(shadow, its_ends)
            self.report.notes += reading.unread_partitions(its_ends, self._live_settings.consumer_group)
            replaced = await self._live.fetch(
                sql("replaced_logs"), reading.cluster_id, self._live_settings.consumer_group
            )
            self.report.notes += [
                f"{row['topic']}/{row['partition']} was replaced by another log: what came of the first is only live"
                for row in replaced
                if Partition(row["topic"], row["partition"]) in reading.stretches
            ]

    def _taking_over(self, shadow: Connection) -> TakingOver:
        return TakingOver(self._live, shadow, self._amendments, again=self._resumed)

    async def _copy_sources(self, shadow: Connection) -> None:
        rows = await self._live.fetch(sql("list_stream_sources"))
        names = ("id", "cluster_id", "topic", "partition")
        await shadow.execute(sql("copy_stream_sources"), *([row[name] for row in rows] for name in names))

    async def _ends(self, reading: Reading) -> dict[Partition, int]:
        rows = await self._live.fetch(
            sql("live_positions"), reading.cluster_id, self._live_settings.consumer_group
        )
        live = {Partition(row["topic"], row["partition"]): row["next_offset"] for row in rows}
        return reading.ends(live, self._wanted.window)

    async def _catch_up(self, engine: Engine, readings: Sequence[Reading]) -> None:
        """Read to where the live group stands, again and again until little is left."""
        for _ in range(ROUNDS):
            due = [(reading, await self._ends(reading)) for reading in readings]
            if sum(reading.left(ends) for reading, ends in due) <= NEAR:
                return
            await self._read(engine, due)

    async def _read(self, engine: Engine, due: Sequence[tuple[Reading, Mapping[Partition, int]]]) -> None:
        for reading, ends in due:
            if count := reading.left(ends):
                self._shows.begin(reading.stretches_to(ends), reading.at)
                await engine.run(reading.source, ends, reading.positions, reading.states)
                self.report.records += count

    async def _finish(self, engine: Engine, readings: Sequence[Reading], shadow: Connection) -> TakingOver:
        """Let the shadow know exactly what the live tables know in the snapshot."""
        due = [(reading, await self._ends(reading)) for reading in readings]
        if await self._live.fetchval(sql("last_forgotten_person")) != self._forgotten:
            raise BeginAnew("people were forgotten meanwhile")
        taking = self._taking_over(shadow)
        await taking.take_rules()
        await self._read(engine, due)
        await taking.take_rest(await offsets_read(shadow))
        return taking

    # Comparing

    async def _earn(self, shadow: Connection) -> None:
        self.report.earnings = await compare_earnings(self._live, shadow)
        compared = await Comparing(self._live, shadow).compare(EARNINGS, 0)
        self.report.orders_that_differ = compared.found

    async def _compare(self, shadow: Connection, taking: TakingOver) -> None:
        """Compare all tables; first those whose doubles stand as they came, for counters hang on them."""
        comparing = Comparing(self._live, shadow)
        found = {
            table: await self._compare_first_standing(comparing, table, taking) for table in FIRST_STANDS
        }
        excuses: dict[str, Excuse] = {"dead_letters": self._excuse_letter}
        for compared in COMPARED:
            if compared.table not in found:
                excuse = excuses.get(compared.table)
                found[compared.table] = await comparing.compare(compared, self._wanted.limit, excuse)
        self.report.tables = [found[compared.table] for compared in COMPARED]
        self.report.taken_over = taking.counts

    async def _compare_first_standing(
        self, comparing: Comparing, table: str, taking: TakingOver
    ) -> TableComparison:
        """Compare a ledger; where another content came first here, the live one is taken, and counted."""
        doubles: list[Content] = []

        def is_double(live: Content | None, shadow: Content | None) -> bool:
            if live is None or shadow is None or _source_of(live) == _source_of(shadow):
                return False
            doubles.append(live)
            return True

        compared = BY_TABLE[table]
        found = await comparing.compare(compared, self._wanted.limit, is_double)
        if not doubles:
            return found
        ids = [double[compared.key[0]] for double in doubles]
        times = [datetime.fromisoformat(double[compared.key[1]]) for double in doubles]
        await taking.take_live(table, ids, times)
        return await comparing.compare(compared, self._wanted.limit)

    def _excuse_letter(self, live: Content | None, shadow: Content | None) -> bool:
        """What has become good is parked live alone; what retention has deleted, or closed since, here alone."""
        if shadow is None:
            return live is not None and not live["is_open"]
        if live is not None or shadow["error_kind"] == "before_retention":
            return True
        days = self._live_settings.dead_letter_retention_days
        at = datetime.fromisoformat(shadow["record_timestamp"])
        return days is not None and at < datetime.now(UTC) - timedelta(days=days)

    def _note_what_is_not_proved(self, taking: TakingOver) -> None:
        unread = [f"{count:,} of {table}" for table, (_, count) in taking.counts.items() if count]
        if unread:
            self.report.notes.append(
                f"rows of records that were not read are taken over as they stand, and not proved: {', '.join(unread)}"
            )


def _source_of(content: Content) -> tuple[Any, Any]:
    return content["source_id"], content["source_offset"]
