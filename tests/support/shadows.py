"""A log of every topic, live tables that have read it, and shadows of them without Kafka."""

from __future__ import annotations

import json
import random
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg

from counterfoil.ingest.partitions import Partition
from counterfoil.ingest.records import Record, milliseconds_of
from counterfoil.replaying.shadow import ShadowReport, Wanted, run_shadow
from counterfoil.replaying.sources import Read, Stretch
from counterfoil.replaying.windows import Window
from counterfoil.settings import Settings
from support.builders import a_record
from support.postgres_road import CLUSTER, Scribe, plain_settings

NOW = datetime.now(UTC).replace(microsecond=0)
THIS_MONTH = NOW.replace(day=1, hour=0, minute=0, second=0)

Document = dict[str, Any]
Logs = dict[Partition, list[Record]]


def documents(count: int, seed: int = 1) -> list[Document]:
    """Facts of all topics about few orders, pixels, people, vouchers and products, so that they meet and contradict."""
    dice = random.Random(seed)
    return [_document(dice, number, max(count // 8, 4)) for number in range(count)]


def _document(dice: random.Random, number: int, many: int) -> Document:
    order, voucher, sku = f"o{dice.randrange(many)}", f"v{dice.randrange(9)}", f"s{dice.randrange(9)}"
    pixel, user, person = f"p{dice.randrange(5)}", f"u{dice.randrange(9)}", f"c{dice.randrange(many)}"
    money = f"{dice.randrange(20_000) / 100:.2f}"
    some = {"city": "Graz", "country": "at"}
    link = f"l{dice.randrange(9)}"
    kinds: dict[str, Document] = {
        "order.placed": {
            "order_id": order,
            "total": money,
            "codes": dice.sample("ABC", k=2),
            "promotions": [{"code": dice.choice("PQ"), "base_reward": "1.5", "bonus_amount": str(dice.randrange(5))}],
            "customer_address": f"0x{dice.randrange(9)}",
        },
        "order.canceled": {"order_id": order, "reason": dice.choice(["late", "lost"])},
        "order.refunded": {"order_id": order, "refund_id": f"r{dice.randrange(2)}", "amount": money},
        "conversion": {
            "order_id": order,
            "revenue": money,
            **dice.choice([{"pixel_id": pixel}, {"link_id": link}, {"pixel_id": pixel, "commission": "3"}]),
            "currency": dice.choice(["USD", "USD", "JPY"]),
        },
        "click": {
            "click_id": f"k{number}",
            "pixel_id": pixel,
            "ip_address": f"203.0.113.{dice.randrange(1, 20)}",
            "user_agent": dice.choice(["Mozilla/5.0 (X11; Linux x86_64)", "Googlebot/2.1"]),
            "referrer": "https://news.example.com/",
        },
        "user.created": {"user_id": user, "name": dice.choice(["Ann", "Bo"]), "email": f"{user}@example.com"},
        "link.created": {
            "link_id": f"l{dice.randrange(9)}",
            "url": dice.choice(["https://one.example.com/a", "https://two.example.org/"]),
            **dice.choice([{"user_id": user}, {"partner_id": f"n{dice.randrange(3)}"}]),
            "pixel_id": pixel,
        },
        "voucher.created": {"voucher_id": voucher, "business_id": "b1", "title": dice.choice(["Tea", "tea"]),
                            "expires_at": "2090-01-01T00:00:00Z"},
        "impression": {"impression_id": f"i{dice.randrange(many)}", "voucher_id": voucher},
        "scan": {
            "scan_id": f"n{number}",
            "voucher_id": voucher,
            "user_id": dice.choice([person, None]),
            "scan_type": dice.choice(["CUSTOMER", "BUSINESS"]),
            "scan_source": dice.choice(["CAMERA", "LINK"]),
            "location": dice.choice([some, None]),
            "device_info": {"size": 1.5},
        },
        "claim": {"voucher_id": voucher, "customer_id": person, "metadata": {"from": dice.randrange(3)}},
        "redemption": {
            "attempt_id": f"a{dice.randrange(many)}",
            "voucher_id": voucher,
            "business_id": "b1",
            "customer_id": person,
            "successful": dice.random() < 0.7,
        },
        "stock-change": {
            "event_id": f"e{dice.randrange(many)}",
            "sku": sku,
            "event_type": dice.choice(["sale", "restock", "count"]),
            "quantity_delta": dice.randrange(-9, 10),
            **dice.choice([{}, {"new_stock": dice.randrange(50)}, {"name": f"N{dice.randrange(3)}", "threshold": 7}]),
        },
    }  # fmt: skip
    weights = [8, 1, 3, 8, 6, 1, 2, 1, 3, 6, 4, 4, 6]
    topic = dice.choices(list(kinds), weights=weights)[0]
    seconds = dice.randrange(60) * 20_000 if topic != "stock-change" else 20_000
    return {
        "topic": topic,
        "timestamp": (THIS_MONTH - timedelta(seconds=seconds)).isoformat(),
        **kinds[topic],
    }


def logs_of(facts: Sequence[Document], *, partitions: int = 2, seed: int = 2, offset: int = 0) -> Logs:
    """The facts shuffled, some twice, some malformed records between, as logs that begin at an offset."""
    dice = random.Random(seed)
    sent = [*facts, *dice.choices(facts, k=len(facts) // 4)]
    dice.shuffle(sent)
    logs: Logs = {}
    for fact in sent:
        _append(logs, Partition(fact["topic"], dice.randrange(partitions)), json.dumps(fact).encode(), offset)
        if dice.random() < 0.03:
            _append(logs, Partition(fact["topic"], dice.randrange(partitions)), b"not json", offset)
    return logs


def _append(logs: Logs, partition: Partition, value: bytes, offset: int) -> None:
    log = logs.setdefault(partition, [])
    sent_at = milliseconds_of(NOW) + len(log)
    log.append(
        a_record(
            offset + len(log), value, topic=partition.topic, partition=partition.partition, timestamp=sent_at
        )
    )


async def read_live(address: str, logs: Logs, *, batch: int = 300, settings: Settings | None = None) -> None:
    """Let the live group read the logs to their ends, a batch after another."""
    async with asyncpg.create_pool(address, min_size=0, max_size=4) as pool:
        scribe = Scribe(pool, settings=settings)
        try:
            await read_on(scribe, logs, batch=batch)
        finally:
            await scribe.writer.close()


async def read_on(scribe: Scribe, logs: Logs, *, batch: int = 300) -> None:
    """Read on from where the worker stands."""
    await scribe.hold(logs)
    for partition, log in logs.items():
        at = [record for record in log if record.offset >= scribe.states[partition].expected]
        for start in range(0, len(at), batch):
            await scribe.write(at[start : start + batch])


class MemoryLog:
    """A source of logs in memory, some of them cut off in front, as retention does."""

    def __init__(
        self, logs: Logs, window: Window | None = None, *, begins: Mapping[Partition, int] | None = None
    ) -> None:
        self.notes: list[str] = []
        self._logs = logs
        self._window = window or Window()
        self._begins = begins or {}
        self._at: dict[Partition, int] = {}

    async def open(self) -> list[Stretch]:
        return [
            Stretch(CLUSTER, partition, self._begins.get(partition, 0), log[-1].offset + 1)
            for partition, log in self._logs.items()
            if self._window.has(partition.partition)
        ]

    def seek(self, partition: Partition, offset: int) -> None:
        self._at[partition] = offset

    async def read(self, ends: Mapping[Partition, int]) -> AsyncIterator[Read]:
        for partition, end in ends.items():
            at = self._at[partition]
            if at < end:
                records = [record for record in self._logs[partition] if at <= record.offset < end]
                self._at[partition] = end
                yield Read(partition, self._window.select(records), at, end)

    async def close(self) -> None:
        pass


class Quiet:
    """Shows nothing, and remembers what was told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def begin(self, stretches: Sequence[Stretch], at: Mapping[Partition, int]) -> None:
        pass

    def moved(self, offsets: Mapping[Partition, int]) -> None:
        pass

    def tell(self, line: str) -> None:
        self.lines.append(line)


def live_settings(address: str, **given: object) -> Settings:
    """The settings of who builds a shadow of the tables that `read_live` has made."""
    return plain_settings(database_url=address, visitor_hash_key="a key of tests", **given)


async def shadow(
    address: str,
    logs: Logs,
    window: Window | None = None,
    *,
    begins: Mapping[Partition, int] | None = None,
    settings: Settings | None = None,
    shows: Quiet | None = None,
    **wanted: Any,
) -> ShadowReport:
    """Build a shadow of the live tables from these logs, and compare."""

    async def sources() -> list[MemoryLog]:
        return [MemoryLog(logs, window, begins=begins)]

    asked = Wanted(window or Window(), {"topics": sorted({p.topic for p in logs})}, **wanted)
    return await run_shadow(settings or live_settings(address), sources, asked, shows or Quiet())


def found_in(report: ShadowReport) -> list[tuple[str, str, tuple[Any, ...]]]:
    """What a report names: table, verdict and key."""
    return [(d.table, d.verdict, tuple(d.key.values())) for table in report.tables for d in table.differences]
