"""`counterfoil bench --clicks`: clicks through a worker, beside bare COPY into the same partitioned table."""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import median

from rich.console import Console
from rich.table import Table

from counterfoil.bench.clicks import Click, sample_clicks, with_one_pixel
from counterfoil.bench.contenders import bare_clicks
from counterfoil.bench.exact import account_differences, click_differences
from counterfoil.bench.report import Surroundings, passes, rate_of, rates
from counterfoil.bench.sources import Ground, machine
from counterfoil.bench.worker import WorkerRun, measure


@dataclass(kw_only=True)
class ClickReport(Surroundings):
    """The runs of each contender, in records a second."""

    clicks: int
    copy: list[float] = field(default_factory=list)
    worker: list[WorkerRun] = field(default_factory=list)
    duplicates: list[WorkerRun] = field(default_factory=list)
    hot_pixel: list[WorkerRun] = field(default_factory=list)

    def as_dict(self) -> dict[str, object]:
        """The whole, for JSON; rates are records a second, medians beside their runs."""
        worker = rate_of(self.worker)
        return {
            "machine": self.machine,
            "kafka": self.kafka,
            "postgresql": {"server": self.postgres, "settings": self.postgres_settings},
            "clicks": self.clicks,
            "runs": len(self.worker),
            "worker": passes(self.worker),
            "duplicates": passes(self.duplicates),
            "hot_pixel": passes(self.hot_pixel),
            "copy": rates(self.copy),
            "ratios": {
                "worker_to_copy": round(worker / median(self.copy), 3),
                "duplicates_to_worker": round(rate_of(self.duplicates) / worker, 3),
                "hot_pixel_to_worker": round(rate_of(self.hot_pixel) / worker, 3),
            },
            "exact": not self.differences,
            "differences": self.differences,
        }

    def _print_table(self) -> None:
        console = Console(highlight=False)
        worker, copy = rate_of(self.worker), median(self.copy)
        table = Table(
            title=f"{self.clicks:,} clicks, medians of {len(self.worker)} runs", title_justify="left"
        )
        for name in ("", "records/s", "of this worker"):
            table.add_column(name, justify="left" if not name else "right", no_wrap=not name)
        for name, rate in (
            ("this worker", worker),
            ("  duplicates alone", rate_of(self.duplicates)),
            ("  one hot pixel", rate_of(self.hot_pixel)),
            ("bare COPY", copy),
        ):
            table.add_row(name, f"{rate:,.0f}", f"{rate / worker:.0%}")
        console.print(table)
        console.print(f"{worker / copy:.0%} of bare COPY into the same partitioned table")
        self._print_surroundings(console)


class ClickBench:
    """The passes; each has a schema of its own, and what it counted is compared before that goes."""

    def __init__(self, made: Ground, console: Console, clicks: int) -> None:
        self._ground = made
        self._console = console
        self._clicks = sample_clicks(clicks)
        self._hot = with_one_pixel(self._clicks)
        self._passes = 0
        self.report = ClickReport(
            clicks=clicks,
            machine=machine(),
            kafka=made.kafka,
            postgres=made.postgres,
            postgres_settings=made.postgres_settings,
        )

    async def run(self, runs: int) -> None:
        """All passes, the order of them reversed in every second run."""
        self._say(f"{self.report.kafka} · {self.report.postgres}")
        self._say(f"putting {len(self._clicks):,} clicks into a topic, twice")
        self._topic = await self._ground.topic("clicks", self._clicks)
        self._hot_topic = await self._ground.topic("hot-pixel", self._hot)
        contests = (self._copy, self._worker_and_duplicates, self._hot_pixel)
        for number in range(runs):
            self._say(f"run {number + 1} of {runs}")
            for contest in contests if number % 2 == 0 else reversed(contests):
                async with self._ground.schema() as schema:
                    await contest(schema)

    async def _copy(self, _schema: str) -> None:
        rate = await bare_clicks(self._ground, self._clicks)
        self.report.copy.append(rate)
        self.report.differences += await click_differences(self._ground, self._clicks, counted=False)
        self._say(f"  bare COPY              {rate:9,.0f} rows/s")

    async def _worker_and_duplicates(self, schema: str) -> None:
        run = await self._pass(schema, self._topic, "applied", self._clicks)
        self.report.worker.append(run)
        self._say(f"  this worker            {run.per_second:9,.0f} clicks/s")
        run = await self._pass(schema, self._topic, "duplicates", self._clicks)
        self.report.duplicates.append(run)
        self._say(f"  duplicates alone       {run.per_second:9,.0f} clicks/s")

    async def _hot_pixel(self, schema: str) -> None:
        run = await self._pass(schema, self._hot_topic, "applied", self._hot)
        self.report.hot_pixel.append(run)
        self._say(f"  one hot pixel          {run.per_second:9,.0f} clicks/s")

    async def _pass(self, schema: str, topic: str, outcome: str, clicks: list[Click]) -> WorkerRun:
        self._passes += 1
        group = f"{self._ground.name}.clicks.{self._passes}"
        run = await measure(self._ground, schema, topic, group, len(clicks), event="click")
        self.report.differences += await account_differences(self._ground, group, outcome, len(clicks))
        self.report.differences += await click_differences(self._ground, clicks)
        return run

    def _say(self, text: str) -> None:
        self._console.print(text, markup=False)
