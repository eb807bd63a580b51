"""`counterfoil demo`: sample traffic, a worker killed in the middle, and every count compared."""

from __future__ import annotations

import asyncio
import os
import signal
from dataclasses import dataclass, field
from typing import cast

import asyncpg

from counterfoil.database.migrate import migrate
from counterfoil.demo.counts import Counts, counted, differences, tally
from counterfoil.demo.display import Display
from counterfoil.demo.stage import Stage, stage
from counterfoil.demo.traffic import Sample, Traffic, traffic
from counterfoil.errors import InvalidSetting
from counterfoil.invocation import command
from counterfoil.kafka.cluster import Cluster
from counterfoil.publishing import Published, Publisher

ORDERS_VARIABLE = "COUNTERFOIL_DEMO_ORDERS"
SEED_VARIABLE = "COUNTERFOIL_DEMO_SEED"

DEFAULT_ORDERS = 3_000
DEFAULT_SEED = 2026
PARTITIONS = 4

PUBLISHING_S = 5.0
"""How long publishing takes, the burst before the kill left out."""

KILL_AFTER = 0.4
"""The share of the records that is accounted for before the burst that the kill goes into."""

BURST = 0.2
"""The share of the records that is published at once, so that the worker has its hands full."""

LOOK_EVERY_S = 0.004
WITHIN_S = 90.0


def run_demo(orders: int | None = None, seed: int | None = None) -> int:
    """Run the demo in a throw-away folder; 0 when every count is exact, 1 when not, 130 after Ctrl-C.

    `orders` and `seed` default to COUNTERFOIL_DEMO_ORDERS and COUNTERFOIL_DEMO_SEED. Nothing is left behind.
    """
    orders = _whole_number(ORDERS_VARIABLE, DEFAULT_ORDERS) if orders is None else orders
    seed = _whole_number(SEED_VARIABLE, DEFAULT_SEED) if seed is None else seed
    if orders < 100:
        raise InvalidSetting(f"{ORDERS_VARIABLE}: takes 100 or more")
    try:
        return asyncio.run(_demo(traffic(seed, orders), seed))
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except asyncio.CancelledError:
        return 128 + signal.SIGTERM


def _whole_number(variable: str, default: int) -> int:
    given = os.environ.get(variable) or str(default)
    if not given.isdecimal():
        raise InvalidSetting(f"{variable}: takes a whole number")
    return int(given)


@dataclass
class Show:
    """What happened on the way to the summary."""

    published: list[tuple[Sample, Published]] = field(default_factory=list)
    counted_at_kill: int = 0
    waiting_at_kill: int = 0
    back_after_s: float = 0.0


async def _demo(plan: Traffic, seed: int) -> int:
    task = cast("asyncio.Task[int]", asyncio.current_task())
    for number in (signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    with Display() as display:
        display.step(f"seed {seed}: {len(plan.orders):,} orders, {len(plan.samples):,} records")
        # Starting and removing hold the loop on purpose: a Ctrl-C in between is heard at the next await.
        with stage() as made:
            display.step("PostgreSQL and a Kafka broker are up, in a folder that goes with the demo")
            connection = await asyncpg.connect(made.running.database_url)
            show, found = await _play(display, made, connection, plan)
            sent = tally(plan.orders, show.published)
            wrong = differences(sent, found)
            _summarise(display, plan, show, found, wrong)
    return 1 if wrong else 0


async def _play(
    display: Display, made: Stage, connection: asyncpg.Connection, plan: Traffic
) -> tuple[Show, Counts]:
    await migrate(made.running.database_url)
    cluster = Cluster(made.settings)
    await cluster.create_topics(made.settings.topics.values(), PARTITIONS)
    await cluster.close()
    made.start_worker()
    display.step("the schema is applied, the worker starts; orders are coming in meanwhile")
    async with Publisher(made.settings) as publisher:
        act = _Act(display, made, connection, publisher, plan.samples)
        try:
            await asyncio.wait_for(act.play(), WITHIN_S)
        except TimeoutError:
            display.step(f"not everything is accounted for after {WITHIN_S:g} s", style="bold red")
    found = await counted(connection)
    await connection.close()
    return act.show, found


class _Act:
    """Publishes, kills, starts again, and waits until the last record is accounted for."""

    def __init__(
        self,
        display: Display,
        made: Stage,
        connection: asyncpg.Connection,
        publisher: Publisher,
        samples: list[Sample],
    ) -> None:
        self.show = Show()
        self._display = display
        self._stage = made
        self._connection = connection
        self._publisher = publisher
        self._samples = samples
        self._sent = 0

    async def play(self) -> None:
        before_burst = round(KILL_AFTER * len(self._samples))
        after_burst = round((KILL_AFTER + BURST) * len(self._samples))
        every_s = PUBLISHING_S / (len(self._samples) - after_burst + before_burst)
        await asyncio.gather(self._publish(before_burst, every_s), self._until(before_burst))
        await self._kill_in_the_middle_of(after_burst)
        killed_at = self._display.elapsed
        self._stage.start_worker()
        rest = asyncio.create_task(self._publish(len(self._samples), every_s))
        try:
            await self._until(self.show.counted_at_kill + 1)
            self.show.back_after_s = self._display.elapsed - killed_at
            self._display.step(
                f"the worker is back after {self.show.back_after_s:.1f} s and goes on where it stood"
            )
            await rest
        finally:
            rest.cancel()
        await self._until(len(self._samples))
        self._display.step("the lag is 0; comparing every count with what was sent")

    async def _kill_in_the_middle_of(self, end: int) -> None:
        base = await self._accounted()
        await self._publish(end, 0)
        await self._until(base + 1)
        self._stage.kill_worker()
        await self._connections_gone()
        self.show.counted_at_kill = await self._accounted()
        self.show.waiting_at_kill = self._sent - self.show.counted_at_kill
        self._display.step(
            f"the worker is killed (SIGKILL) with {self.show.counted_at_kill:,} records accounted for "
            f"and {self.show.waiting_at_kill:,} waiting",
            style="bold yellow",
        )

    async def _connections_gone(self) -> None:
        """Wait until the server has noticed: a commit that was under way may still have gone through."""
        of_worker = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'counterfoil worker'"
        while await self._connection.fetchval(of_worker):  # noqa: ASYNC110 - nobody tells us
            await asyncio.sleep(LOOK_EVERY_S)

    async def _publish(self, end: int, every_s: float) -> None:
        """Publish up to the sample `end`, a tick of 20 ms at a time, and keep where each went."""
        tick = max(1, round(0.02 / every_s)) if every_s else end
        while self._sent < end:
            samples = self._samples[self._sent : min(end, self._sent + tick)]
            futures = [await self._publisher.enqueue(s.topic, s.key, s.value, s.headers) for s in samples]
            self.show.published += zip(samples, await self._publisher.acknowledge(futures), strict=True)
            self._sent += len(samples)
            await asyncio.sleep(len(samples) * every_s)

    async def _until(self, count: int) -> None:
        while (accounted := await self._accounted()) < count:
            self._stage.check_worker()
            self._display.counting(self._sent, accounted, len(self._samples))
            await asyncio.sleep(LOOK_EVERY_S)

    async def _accounted(self) -> int:
        total = "SELECT coalesce(sum(next_offset - first_offset), 0)::bigint FROM stream_positions"
        return int(await self._connection.fetchval(total))


def _summarise(display: Display, plan: Traffic, show: Show, found: Counts, wrong: list[str]) -> None:
    canceled = sum(order.canceled for order in plan.orders)
    doubled = sum(sample.doubled for sample in plan.samples)
    malformed = sum(sample.malformed is not None for sample in plan.samples)
    usages = sum(found.times_used_by_coupon.values())
    uses = sum(times_used for times_used, _ in found.promo_codes.values())
    bonus = sum(issued for _, issued in found.promo_codes.values())
    taken_back = sum(state == "reversed" for state in found.coupon_usages.values())
    rows: list[tuple[str, object, str]] = [
        (
            "sent",
            len(show.published),
            f"{len(plan.orders):,} orders in six shapes, {canceled:,} cancellations",
        ),
        ("counted", usages, "coupon usages, each once"),
        ("promo uses", uses, f"with {bonus:,.2f} of bonus"),
        ("taken back", taken_back, "usages of canceled orders: marked, not deleted"),
        ("duplicates refused", found.total("duplicates"), f"{doubled:,} records were published twice"),
        ("dead letters", len(found.dead_letters), f"{malformed:,} malformed records, bytes as they came"),
        ("drift", len(found.drift), "counters that are not what their ledgers say"),
        ("worker killed", f"{show.back_after_s:.1f} s", "until it was back"),
        ("", show.waiting_at_kill, "records were waiting for it when it was killed"),
    ]
    display.end_progress()
    display.table("What you saw", rows)
    for line in wrong:
        display.step(f"DIFFERENCE  {line}", style="bold red")
    if wrong:
        display.step("what was counted is not what was sent", style="bold red")
    else:
        display.step(
            "exact: every coupon, promo, usage, cancellation, dead letter, position", style="bold green"
        )
    display.plain(_next_commands())


def _next_commands() -> str:
    counterfoil = command()
    return f"""
Next:
  {counterfoil} run --embedded
      the worker, with parts of its own
  {counterfoil} publish order.placed docs/samples/orders.jsonl
      from another terminal; twice, if you like
  {counterfoil} verify
      every counter, recounted from its ledger
"""
