"""What a bench found: medians, ratios, a table or JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from statistics import median

from rich.console import Console
from rich.table import Table

from counterfoil.bench.latency import RATE, Latency
from counterfoil.bench.worker import WorkerRun


@dataclass(kw_only=True)
class Surroundings:
    """What every bench tells beside its figures."""

    machine: dict[str, object]
    kafka: str
    postgres: str
    postgres_settings: dict[str, str]
    differences: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, object]:
        """The whole, for JSON."""
        raise NotImplementedError

    def print(self, *, as_json: bool) -> None:
        """To standard output."""
        if as_json:
            print(json.dumps(self.as_dict(), indent=2, ensure_ascii=False))
        else:
            self._print_table()

    def _print_table(self) -> None:
        raise NotImplementedError

    def _print_surroundings(self, console: Console) -> None:
        settings = ", ".join(f"{name} {value}" for name, value in self.postgres_settings.items())
        console.print(f"{self.kafka} · {self.postgres} ({settings})", soft_wrap=True)
        console.print(" · ".join(f"{name} {value}" for name, value in self.machine.items()), soft_wrap=True)
        for line in self.differences:
            console.print(f"NOT EXACT  {line}", style="bold red", markup=False)
        if not self.differences:
            console.print("every count was exact", style="green")


@dataclass(kw_only=True)
class Report(Surroundings):
    """The runs of each contender, in records a second; those of a replay by one process, and by `processes`."""

    orders: int
    peer_orders: int
    copy: list[float] = field(default_factory=list)
    peer: list[float] = field(default_factory=list)
    worker: list[WorkerRun] = field(default_factory=list)
    duplicates: list[WorkerRun] = field(default_factory=list)
    hot_code: list[WorkerRun] = field(default_factory=list)
    processes: int = 2
    replay: list[float] = field(default_factory=list)
    replay_processes: list[float] = field(default_factory=list)
    latency: Latency | None = None

    def as_dict(self) -> dict[str, object]:
        """The whole, for JSON; rates are records a second, medians beside their runs."""
        worker, copy, peer = rate_of(self.worker), median(self.copy), median(self.peer)
        return {
            "machine": self.machine,
            "kafka": self.kafka,
            "postgresql": {"server": self.postgres, "settings": self.postgres_settings},
            "orders": self.orders,
            "peer_orders": self.peer_orders,
            "runs": len(self.worker),
            "worker": passes(self.worker),
            "duplicates": passes(self.duplicates),
            "hot_code": passes(self.hot_code),
            "replay": {"processes": 1} | rates(self.replay),
            "replay_processes": {"processes": self.processes} | rates(self.replay_processes),
            "copy": rates(self.copy),
            "peer": rates(self.peer),
            "ratios": {
                "worker_to_copy": round(worker / copy, 3),
                "worker_to_peer": round(worker / peer, 1),
                "duplicates_to_worker": round(rate_of(self.duplicates) / worker, 3),
                "hot_code_to_worker": round(rate_of(self.hot_code) / worker, 3),
                "replay_to_worker": round(median(self.replay) / worker, 3),
                "replay_processes_to_worker": round(median(self.replay_processes) / worker, 3),
            },
            "latency": self.latency and {"per_second": RATE} | _rounded(asdict(self.latency)),
            "exact": not self.differences,
            "differences": self.differences,
        }

    def _print_table(self) -> None:
        console = Console(highlight=False)
        worker, copy = rate_of(self.worker), median(self.copy)
        table = Table(
            title=f"{self.orders:,} orders, medians of {len(self.worker)} runs", title_justify="left"
        )
        for name in ("", "records/s", "of this worker", "µs CPU a record", "peak MiB"):
            table.add_column(name, justify="left" if not name else "right", no_wrap=not name)
        for name, runs in (
            ("this worker", self.worker),
            ("  duplicates alone", self.duplicates),
            ("  one hot code", self.hot_code),
        ):
            table.add_row(
                name,
                f"{rate_of(runs):,.0f}",
                f"{rate_of(runs) / worker:.0%}",
                _said(_median(runs, lambda run: run.cpu_us), ".1f"),
                _said(_median(runs, lambda run: run.peak_mib), ".0f"),
            )
        for name, rate in (
            ("  replayed (all duplicates)", median(self.replay)),
            (f"  replayed by {self.processes} processes", median(self.replay_processes)),
        ):
            table.add_row(name, f"{rate:,.0f}", f"{rate / worker:.0%}", "", "")
        table.add_row("bare COPY", f"{copy:,.0f}", f"{copy / worker:.0%}", "", "")
        peer = median(self.peer)
        table.add_row("a transaction each", f"{peer:,.0f}", f"{peer / worker:.1%}", "", "")
        console.print(table)
        console.print(
            f"{worker / copy:.0%} of bare COPY · {worker / peer:.0f} times a transaction for each event"
        )
        if self.latency:
            console.print(
                f"publish to row at {RATE:,} a second: p50 {self.latency.p50_ms:.0f} ms, "
                f"p99 {self.latency.p99_ms:.0f} ms, longest {self.latency.max_ms:.0f} ms"
            )
        self._print_surroundings(console)


def rate_of(runs: list[WorkerRun]) -> float:
    """The median, in records a second."""
    return median(run.per_second for run in runs)


def _median(runs: list[WorkerRun], value: Callable[[WorkerRun], float | None]) -> float | None:
    known = [found for run in runs if (found := value(run)) is not None]
    return median(known) if known else None


def rates(runs: list[float]) -> dict[str, object]:
    """A contender without more to it than its rate, for JSON."""
    return {"per_second": round(median(runs)), "runs": [round(rate) for rate in runs]}


def passes(runs: list[WorkerRun]) -> dict[str, object]:
    """The worker's passes of one kind, for JSON."""
    return _rounded(
        {
            "per_second": rate_of(runs),
            "cpu_us_per_record": _median(runs, lambda run: run.cpu_us),
            "peak_mib": _median(runs, lambda run: run.peak_mib),
        }
    ) | {"runs": [round(run.per_second) for run in runs]}


def _rounded(values: dict[str, float | None]) -> dict[str, object]:
    return {name: None if value is None else round(value, 2) for name, value in values.items()}


def _said(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)
