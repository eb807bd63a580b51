"""`counterfoil bench --clicks` and `--scans`: one ledger's road, beside bare COPY into the same partitioned table."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from counterfoil.bench.clicks import sample_clicks, with_one_pixel
from counterfoil.bench.contenders import bare_clicks, bare_scans
from counterfoil.bench.exact import account_differences, click_differences, scan_differences
from counterfoil.bench.report import Surroundings, passes, rate_of, rates
from counterfoil.bench.scans import sample_scans, with_one_voucher
from counterfoil.bench.sources import Ground, machine
from counterfoil.bench.worker import WorkerRun, measure


class Traffic(NamedTuple):
    """What of one event type is measured: how it is made, written bare, and compared with what came of it."""

    event: str
    """The topic, by its default name."""
    hot: str
    """What all of them meet in the pass that counts in one place."""
    sample: Callable[[int], Sequence[Any]]
    with_one: Callable[[Sequence[Any]], Sequence[Any]]
    bare: Callable[[Ground, Sequence[Any]], Awaitable[float]]
    differences: Callable[..., Awaitable[list[str]]]


CLICKS = Traffic("click", "pixel", sample_clicks, with_one_pixel, bare_clicks, click_differences)
SCANS = Traffic("scan", "voucher", sample_scans, with_one_voucher, bare_scans, scan_differences)


@dataclass(kw_only=True)
class LedgerReport(Surroundings):
    """The runs of each contender, in records a second."""

    traffic: Traffic
    count: int
    copy: list[float] = field(default_factory=list)
    worker: list[WorkerRun] = field(default_factory=list)
    duplicates: list[WorkerRun] = field(default_factory=list)
    hot: list[WorkerRun] = field(default_factory=list)

    def as_dict(self) -> dict[str, object]:
        """The whole, for JSON; rates are records a second, medians beside their runs."""
        worker, hot = rate_of(self.worker), f"hot_{self.traffic.hot}"
        return {
            "machine": self.machine,
            "kafka": self.kafka,
            "postgresql": {"server": self.postgres, "settings": self.postgres_settings},
            f"{self.traffic.event}s": self.count,
            "runs": len(self.worker),
            "worker": passes(self.worker),
            "duplicates": passes(self.duplicates),
            hot: passes(self.hot),
            "copy": rates(self.copy),
            "ratios": {
                "worker_to_copy": round(worker / median(self.copy), 3),
                "duplicates_to_worker": round(rate_of(self.duplicates) / worker, 3),
                f"{hot}_to_worker": round(rate_of(self.hot) / worker, 3),
            },
            "exact": not self.differences,
            "differences": self.differences,
        }

    def _print_table(self) -> None:
        console = Console(highlight=False)
        worker, copy = rate_of(self.worker), median(self.copy)
        table = Table(
            title=f"{self.count:,} {self.traffic.event}s, medians of {len(self.worker)} runs",
            title_justify="left",
        )
        for name in ("", "records/s", "of this worker"):
            table.add_column(name, justify="left" if not name else "right", no_wrap=not name)
        for name, rate in (
            ("this worker", worker),
            ("  duplicates alone", rate_of(self.duplicates)),
            (f"  one hot {self.traffic.hot}", rate_of(self.hot)),
            ("bare COPY", copy),
        ):
            table.add_row(name, f"{rate:,.0f}", f"{rate / worker:.0%}")
        console.print(table)
        console.print(f"{worker / copy:.0%} of bare COPY into the same partitioned table")
        self._print_surroundings(console)


class LedgerBench:
    """The passes; each has a schema of its own, and what it counted is compared before that goes."""

    def __init__(self, made: Ground, console: Console, traffic: Traffic, count: int) -> None:
        self._ground = made
        self._console = console
        self._traffic = traffic
        self._samples = traffic.sample(count)
        self._hot = traffic.with_one(self._samples)
        self._passes = 0
        self.report = LedgerReport(
            traffic=traffic,
            count=count,
            machine=machine(),
            kafka=made.kafka,
            postgres=made.postgres,
            postgres_settings=made.postgres_settings,
        )

    async def run(self, runs: int) -> None:
        """All passes, the order of them reversed in every second run."""
        event = self._traffic.event
        self._say(f"{self.report.kafka} · {self.report.postgres}")
        self._say(f"putting {len(self._samples):,} {event}s into a topic, twice")
        self._topic = await self._ground.topic(f"{event}s", self._samples)
        self._hot_topic = await self._ground.topic(f"hot-{self._traffic.hot}", self._hot)
        contests = (self._copy, self._worker_and_duplicates, self._hot_pass)
        for number in range(runs):
            self._say(f"run {number + 1} of {runs}")
            for contest in contests if number % 2 == 0 else reversed(contests):
                async with self._ground.schema() as schema:
                    await contest(schema)

    async def _copy(self, _schema: str) -> None:
        rate = await self._traffic.bare(self._ground, self._samples)
        self.report.copy.append(rate)
        self.report.differences += await self._traffic.differences(self._ground, self._samples, counted=False)
        self._say(f"  {'bare COPY':22} {rate:9,.0f} rows/s")

    async def _worker_and_duplicates(self, schema: str) -> None:
        run = await self._pass(schema, self._topic, "applied", self._samples, "this worker")
        self.report.worker.append(run)
        run = await self._pass(schema, self._topic, "duplicates", self._samples, "duplicates alone")
        self.report.duplicates.append(run)

    async def _hot_pass(self, schema: str) -> None:
        said = f"one hot {self._traffic.hot}"
        self.report.hot.append(await self._pass(schema, self._hot_topic, "applied", self._hot, said))

    async def _pass(
        self, schema: str, topic: str, outcome: str, samples: Sequence[Any], said: str
    ) -> WorkerRun:
        self._passes += 1
        event = self._traffic.event
        group = f"{self._ground.name}.{event}s.{self._passes}"
        run = await measure(self._ground, schema, topic, group, len(samples), event=event)
        self._say(f"  {said:22} {run.per_second:9,.0f} {event}s/s")
        self.report.differences += await account_differences(self._ground, group, outcome, len(samples))
        self.report.differences += await self._traffic.differences(self._ground, samples)
        return run

    def _say(self, text: str) -> None:
        self._console.print(text, markup=False)
