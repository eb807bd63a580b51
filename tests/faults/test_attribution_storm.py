"""Facts of every topic flow through three workers while operators change everything that orders are judged by.

Nobody deadlocks, what is posted is what is owed, and nothing is paid twice.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal

import asyncpg
import pytest

from support.affiliate_traffic import Document, MixedTraffic, assert_settled, documents, publish
from support.command import counterfoil
from support.http_client import Client
from support.ledgers import assert_accounts_close, dead_letters, everything_is_read
from support.postgres_ledgers import connections
from support.probes import metric
from support.servers import StartWorker
from support.stream import Stream
from support.worker import Worker

pytestmark = pytest.mark.kafka

SETTINGS = {"attribute_by_coupon": "true", "default_commission_percent": 10, "batch_max_records": 200}

ANSWERS = {("PATCH", 200), ("PATCH", 409), ("POST", 201), ("POST", 202), ("POST", 409)}
"""Done, published, or in contradiction to what is there: nothing that a caller must try again."""

WRONGLY_PAID = """
SELECT p.id, p.amount, sum(c.earnings) AS of_rows
FROM payouts AS p LEFT JOIN commissions AS c ON c.payout_id = p.id
GROUP BY p.id
HAVING p.amount <> sum(c.earnings) OR count(*) = 0
    OR bool_or((c.partner_id, c.currency, c.status) IS DISTINCT FROM (p.partner_id, p.currency, 'paid'))
"""


class LiveTraffic(MixedTraffic):
    """Facts that happen when they are sent, and are sent again at times."""

    async def publish(self, chunk: Sequence[Document]) -> None:
        for fact in chunk:
            fact["timestamp"] = now()
        again = self.sent[-1:] + self.sent[:: max(len(self.sent) // 10, 1)]
        await publish(self._stream, [*chunk, *again])


class Operator:
    """Does one thing after another, at random but repeatably; `facts` is what was said on the way."""

    def __init__(self, number: int, orders: int, client: Client, db: asyncpg.Connection) -> None:
        self._dice = random.Random(number)
        self._number = number
        self._orders = orders
        self._client = client
        self._db = db
        self.facts: list[Document] = []
        self.answers: set[tuple[str, int]] = set()
        self.done = 0

    async def work(self, enough: asyncio.Event) -> None:
        while not enough.is_set():
            await self._dice.choice(self._deeds)()
            self.done += 1

    @property
    def _deeds(self) -> list[Callable[[], Awaitable[object]]]:
        return [
            self._pause, self._pause_by_hand, self._own_coupons, self._set_rate, self._set_rate_by_hand,
            self._set_default, self._approve, self._approve, self._pay, self._pay, self._pay,
            self._cancel, self._refund, self._convert,
        ]  # fmt: skip

    async def _asked(self, method: str, path: str, body: Document, **headers: str) -> int:
        reply = await self._client.send(method, path, body, **headers)
        self.answers.add((method, reply.status))
        return reply.status

    @property
    def _status(self) -> str:
        return self._dice.choice(["active", "active", "paused"])

    async def _pause(self) -> None:
        path = f"/api/affiliates/a{self._dice.randrange(5)}"
        await self._asked("PATCH", path, {"status": self._status})

    async def _pause_by_hand(self) -> None:
        pixel = f"p{self._dice.randrange(5)}"
        await self._db.execute("UPDATE affiliates SET status = $1 WHERE pixel_id = $2", self._status, pixel)

    async def _own_coupons(self) -> None:
        codes = self._dice.sample("ABC", k=self._dice.randrange(3))
        await self._asked("PATCH", f"/api/affiliates/a{self._dice.randrange(5)}", {"couponCodes": codes})

    async def _set_rate(self) -> None:
        await self._db.execute(
            "INSERT INTO program_rates (program_id, percent) SELECT id, $1 FROM programs ORDER BY random() LIMIT 1",
            Decimal(self._dice.randrange(30)),
        )

    async def _set_rate_by_hand(self) -> None:
        await self._db.execute(
            """UPDATE programs SET commission_percent = $1
               WHERE id = (SELECT id FROM programs ORDER BY random() LIMIT 1)""",
            Decimal(self._dice.randrange(30)),
        )

    async def _set_default(self) -> None:
        await self._db.execute(
            "INSERT INTO default_rates (percent) VALUES ($1)", Decimal(self._dice.randrange(30))
        )

    async def _approve(self) -> None:
        await self._db.fetchval("SELECT approve_commissions(0)")

    async def _pay(self) -> None:
        """Ask twice at once, as somebody does who is impatient."""
        path = f"/api/partners/pn_u{self._dice.randrange(9)}/payouts"
        body = {"currency": self._dice.choice(["USD", "USD", "JPY", "BHD"])}
        key = {"idempotency_key": f"{self._number}-{self.done}"} if self._dice.random() < 0.5 else {}
        await asyncio.gather(*(self._asked("POST", path, body, **key) for _ in range(2)))

    async def _cancel(self) -> None:
        fact = {"topic": "order.canceled", "timestamp": now(), "order_id": self._order()}
        await self._db.execute(
            "INSERT INTO order_cancellations (order_id) VALUES ($1) ON CONFLICT DO NOTHING", fact["order_id"]
        )
        self.facts.append(fact)

    async def _refund(self) -> None:
        refund_id = f"by-hand-{self._number}-{self.done}"
        fact = {"topic": "order.refunded", "timestamp": now(), "order_id": self._order(), "amount": "1.01"}
        await self._db.execute(
            "INSERT INTO order_refunds (order_id, refund_id, amount) VALUES ($1, $2, 1.01)",
            fact["order_id"],
            refund_id,
        )
        self.facts.append(fact | {"refund_id": refund_id})

    async def _convert(self) -> None:
        fact = {"timestamp": now(), "order_id": self._order(), "pixel_id": "p1", "revenue": "12.34"}
        if await self._asked("POST", "/api/affiliates/track/conversion", fact) == 202:
            self.facts.append(fact | {"topic": "conversion"})

    def _order(self) -> str:
        return f"o{self._dice.randrange(self._orders)}"


@dataclass
class Scene:
    """What a storm happens in."""

    stream: Stream
    db: asyncpg.Connection
    database_url: str
    start_worker: StartWorker

    async def storm(self, *, records: int, kills: int) -> None:
        """Let facts flow through three workers, one of which dies at times, and through another group of one."""
        early = await self.set_up()
        orders = records // 5
        groups = [self.stream.group] * 3 + [f"{self.stream.group}.again"]  # the last reads it all once more
        workers = await asyncio.gather(*(self.start(group) for group in groups))
        traffic = LiveTraffic(self.stream, documents(records, seed=records, orders=orders))
        async with connections(self.database_url, 3) as sessions:
            clients = [Client(worker.port) for worker in workers[:2]]
            crew = [Operator(n, orders, clients[n % 2], session) for n, session in enumerate(sessions)]
            async with at_work(crew), traffic:
                for kill in range(1, kills + 1):
                    await traffic.reached(kill * records // (kills + 1), deadline=600)
                    workers[2].kill()
                    workers[2] = await self.start(groups[2], ready_within=None)
        self.stream.ends = await self.stream.log_ends()  # what HTTP has published counts as well
        for group in set(groups):
            await everything_is_read(self.db, self.stream, group=group, deadline=120)

        said = [fact for operator in crew for fact in operator.facts]
        await self.assert_counted([*early, *traffic.sent, *said])
        await self.assert_paid_once()
        assert {answer for operator in crew for answer in operator.answers} <= ANSWERS
        await self.assert_nobody_deadlocked(workers)

    async def start(self, group: str, **options: object) -> Worker:
        return await self.start_worker(self.stream.kafka, consumer_group=group, **SETTINGS, **options)

    async def set_up(self) -> list[Document]:
        """Five affiliates, and the users and links that they come with."""
        await self.db.execute(
            """INSERT INTO affiliates (handle, name, pixel_id)
               SELECT 'a' || n, 'A', 'p' || n FROM generate_series(0, 4) AS n"""
        )
        await self.stream.create()
        early = [f for f in documents(300, seed=1) if f["topic"] in {"user.created", "link.created"}]
        await publish(self.stream, early)
        return early

    async def assert_counted(self, facts: list[Document]) -> None:
        await assert_settled(self.db, facts)
        await assert_accounts_close(self.db, self.stream)
        assert await dead_letters(self.db) == []
        assert (await counterfoil("verify", database_url=self.database_url)).code == 0

    async def assert_paid_once(self) -> None:
        """Each payout is the sum of its rows, and whatever is paid is in one."""
        assert await self.db.fetchval("SELECT count(*) FROM payouts") > 0
        assert await self.db.fetch(WRONGLY_PAID) == []
        paid, in_payouts = "status = 'paid'", "payout_id IS NOT NULL"
        assert await self.db.fetch(f"SELECT * FROM commissions WHERE ({paid}) <> ({in_payouts})") == []

    async def assert_nobody_deadlocked(self, workers: Sequence[Worker]) -> None:
        assert [await metric(worker, "batch_retries_total") for worker in workers] == [0] * len(workers)
        for worker in workers:  # a backend tells at its end what it has counted
            assert await worker.terminate() == 0
        await self.db.execute("SELECT pg_stat_force_next_flush()")
        found = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
        assert await self.db.fetchval(found) == 0


@asynccontextmanager
async def at_work(crew: Sequence[Operator]) -> AsyncIterator[None]:
    """Operators who work until the end of the block."""
    enough = asyncio.Event()
    tasks = [asyncio.create_task(operator.work(enough)) for operator in crew]
    try:
        yield
    finally:
        enough.set()
        await asyncio.gather(*tasks)


@pytest.fixture
def scene(stream: Stream, db: asyncpg.Connection, database_url: str, start_worker: StartWorker) -> Scene:
    return Scene(stream, db, database_url, start_worker)


async def test_a_storm_of_facts_and_operators_owes_what_it_should_and_pays_nothing_twice(
    scene: Scene,
) -> None:
    await scene.storm(records=2_000, kills=1)


@pytest.mark.slow
async def test_a_long_storm_of_facts_and_operators_owes_what_it_should_and_pays_nothing_twice(
    scene: Scene,
) -> None:
    await scene.storm(records=30_000, kills=10)


def now() -> str:
    """The time in milliseconds, as our events tell it."""
    return f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%f}"[:-3] + "Z"
