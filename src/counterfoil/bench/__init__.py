"""`counterfoil bench`: this worker beside bare COPY and beside a handler with a transaction for each event."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from functools import partial
from typing import Protocol, cast

from rich.console import Console

from counterfoil.bench.contenders import bare_copy, peer
from counterfoil.bench.exact import account_differences, drift, ledger_differences
from counterfoil.bench.latency import RATE, measure_latency
from counterfoil.bench.ledger_bench import CLICKS, SCANS, LedgerBench
from counterfoil.bench.orders import Order, sample_orders, with_one_code
from counterfoil.bench.replays import all_cores, measure_replay
from counterfoil.bench.report import Report, Surroundings
from counterfoil.bench.sources import Ground, ground, machine
from counterfoil.bench.worker import WorkerRun, measure

PEER_ORDERS = 3_000
LATENCY_S = 11
"""Seconds of steady publishing; the first warms up."""


class Bench(Protocol):
    """Passes that fill a report."""

    @property
    def report(self) -> Surroundings:
        """What was measured."""

    async def run(self, runs: int) -> None:
        """All passes, so many times."""


MakeBench = Callable[[Ground, Console], Bench]


def run_bench(orders: int, clicks: int | None, scans: int | None, runs: int, as_json: bool) -> int:
    """Measure orders, or that many clicks or scans; 0 when every count was exact, 1 when not, 130 after Ctrl-C.

    Kafka is the one that the settings name, else the embedded broker; PostgreSQL likewise, in schemas of its own.
    All that it makes is removed at the end.
    """
    make: MakeBench = partial(OrderBench, orders=orders)
    if clicks is not None:
        make = partial(LedgerBench, traffic=CLICKS, count=clicks)
    if scans is not None:
        make = partial(LedgerBench, traffic=SCANS, count=scans)
    try:
        report = asyncio.run(_bench(make, runs))
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except asyncio.CancelledError:
        return 128 + signal.SIGTERM
    report.print(as_json=as_json)
    return 1 if report.differences else 0


async def _bench(make: MakeBench, runs: int) -> Surroundings:
    task = cast("asyncio.Task[Surroundings]", asyncio.current_task())
    for number in (signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    console = Console(stderr=True, highlight=False)
    with console.status("starting") as status:
        async with ground() as made:
            bench = make(made, console)
            status.update("measuring")
            await bench.run(runs)
            return bench.report


class OrderBench:
    """The passes of a bench; each has a schema of its own, and what it counted is compared before that goes."""

    def __init__(self, made: Ground, console: Console, orders: int) -> None:
        self._ground = made
        self._console = console
        self._orders = sample_orders(orders)
        self._hot = with_one_code(self._orders)
        self._few = self._orders[:PEER_ORDERS]
        self._passes = 0
        self.report = Report(
            orders=orders,
            peer_orders=len(self._few),
            processes=all_cores(),
            machine=machine(),
            kafka=made.kafka,
            postgres=made.postgres,
            postgres_settings=made.postgres_settings,
        )

    async def run(self, runs: int) -> None:
        """All passes, the order of them reversed in every second run."""
        self._say(f"{self.report.kafka} · {self.report.postgres}")
        self._say(f"putting {len(self._orders):,} orders into a topic, twice")
        self._topic = await self._ground.topic("spread", self._orders)
        self._hot_topic = await self._ground.topic("hot", self._hot)
        self._peer_topic = await self._ground.topic("peer", self._few)
        contests = (self._copy, self._worker_and_duplicates, self._hot_code, self._peer)
        for number in range(runs):
            self._say(f"run {number + 1} of {runs}")
            for contest in contests if number % 2 == 0 else reversed(contests):
                async with self._ground.schema() as schema:
                    await contest(schema)
        async with self._ground.schema() as schema:
            await self._latency(schema)

    async def _copy(self, _schema: str) -> None:
        rate = await bare_copy(self._ground, self._orders)
        self.report.copy.append(rate)
        self.report.differences += await ledger_differences(self._ground, self._orders, "bare", None)
        self._say(f"  bare COPY              {rate:9,.0f} rows/s")

    async def _worker_and_duplicates(self, schema: str) -> None:
        run = await self._pass(schema, self._topic, "applied", self._orders)
        self.report.worker.append(run)
        self._say(f"  this worker            {run.per_second:9,.0f} orders/s")
        await self._replays(schema)
        run = await self._pass(schema, self._topic, "duplicates", self._orders)
        self.report.duplicates.append(run)
        self._say(f"  duplicates alone       {run.per_second:9,.0f} orders/s")

    async def _replays(self, schema: str) -> None:
        """The same orders replayed, right after they were written, by one process and by as many as there are cores."""
        for processes, rates in (
            (1, self.report.replay),
            (self.report.processes, self.report.replay_processes),
        ):
            run = await measure_replay(self._ground, schema, self._topic, len(self._orders), processes)
            rates.append(run.per_second)
            self.report.differences += run.differences
            self.report.differences += await ledger_differences(self._ground, self._orders)
            self.report.differences += await drift(self._ground, f"replay by {processes}")
            self._say(f"  {f'replayed by {processes}':22} {run.per_second:9,.0f} orders/s")

    async def _hot_code(self, schema: str) -> None:
        run = await self._pass(schema, self._hot_topic, "applied", self._hot)
        self.report.hot_code.append(run)
        self._say(f"  one hot code           {run.per_second:9,.0f} orders/s")

    async def _pass(self, schema: str, topic: str, outcome: str, orders: list[Order]) -> WorkerRun:
        group = self._group()
        run = await measure(self._ground, schema, topic, group, len(orders))
        self.report.differences += await account_differences(self._ground, group, outcome, len(orders))
        self.report.differences += await ledger_differences(self._ground, orders)
        return run

    async def _peer(self, schema: str) -> None:
        rate = await peer(self._ground, schema, self._peer_topic, self._group(), len(self._few))
        self.report.peer.append(rate)
        self.report.differences += await ledger_differences(
            self._ground, self._few, "peer_usages", "peer_coupons"
        )
        self._say(f"  a transaction each     {rate:9,.0f} orders/s")

    async def _latency(self, schema: str) -> None:
        self._say(f"publishing {RATE:,} orders a second")
        orders = self._orders[: LATENCY_S * RATE]
        group = self._group()
        topic = await self._ground.topic("steady")
        self.report.latency = await measure_latency(self._ground, schema, topic, group, orders)
        self.report.differences += await account_differences(self._ground, group, "applied", len(orders))
        self.report.differences += await ledger_differences(self._ground, orders)

    def _group(self) -> str:
        self._passes += 1
        return f"{self._ground.name}.{self._passes}"

    def _say(self, text: str) -> None:
        self._console.print(text, markup=False)
