"""The whole claim at once: a log of every topic is counted, altered by hand, checked, healed, replayed and rebuilt."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Sequence
from typing import Any

import asyncpg

from counterfoil.embedded.process import KEPT_VARIABLES
from counterfoil.replaying.comparing import digest_of
from support.ledgers import assert_accounts_close, everything_is_read
from support.mixed_log import Fact, mixed_log
from support.replaying import Replays
from support.servers import StartWorker
from support.stream import Flow, Stream
from support.worker import Worker, python_path

Named = set[tuple[str, str, tuple[str, ...]]]
"""(table, verdict, key) of differences."""

SETTINGS: dict[str, object] = {
    "default_commission_percent": 7,
    "stock_scan_interval_s": 3600,
    "verify_interval_s": 0,
}

DELETED = {
    "affiliate_coupon_usages": ("order_id", "code"),
    "promo_code_uses": ("order_id", "promo_code_id"),
    "order_cancellations": ("order_id",),
    "order_refunds": ("order_id", "refund_id"),
    "conversions": ("order_id", "beneficiary"),
    "aff_clicks": ("click_id", "occurred_at"),
    "voucher_scans": ("scan_id", "occurred_at"),
    "voucher_impressions": ("impression_id",),
    "redemption_attempts": ("attempt_id",),
    "inventory_events": ("occurred_at", "event_id"),
}
"""Ledgers of which rows are deleted, with their keys."""

ALTERED = {
    "affiliate_coupon_usages": "occurred_at = occurred_at - interval '1 day'",
    "promo_code_uses": "bonus_amount = bonus_amount + 1",
    "order_refunds": "amount = amount + 0.01",
    "conversions": "revenue = revenue / 2",
    "aff_clicks": "landing_page = 'https://elsewhere.example/'",
    "voucher_scans": "scan_source = CASE scan_source WHEN 'LINK' THEN 'SHARE' ELSE 'LINK' END",
    "voucher_impressions": "occurred_at = occurred_at - interval '1 hour'",
    "redemption_attempts": "business_id = 'nobody'",
    "inventory_events": "new_stock = 3, quantity_delta = NULL, old_stock = NULL",
}
"""Ledgers of which rows are altered, and what is set."""

SHOWN = {
    "promo_code_uses": "SELECT k0, (SELECT code FROM promo_codes WHERE id = k1) FROM altered",
}
"""How the keys are named, where not as they are stored."""

COUNTERS = {
    "affiliate_coupons": ("code", "times_used = times_used + 1"),
    "vouchers": ("id", "scan_count = scan_count + 3"),
    "inventory_products": ("sku", "stock = stock - 1"),
}
"""Counters that are written by hand, their keys, and what is set."""

EACH = 3
"""Rows of each table that are altered."""


class MixedTraffic(Flow[Fact]):
    """Facts of every topic that keep coming."""

    async def publish(self, chunk: Sequence[Fact]) -> None:
        await publish(self._stream, chunk)


async def publish(stream: Stream, facts: Sequence[Fact]) -> None:
    """Send facts to their topics."""
    by_topic: dict[str, list[Any]] = {}
    for fact in facts:
        by_topic.setdefault(fact.topic, []).append(fact.message)
    for topic, messages in by_topic.items():
        await stream.publish(*messages, topic=stream.topic(topic))


class Proof:
    """Claims about one log."""

    def __init__(
        self, stream: Stream, db: asyncpg.Connection, database_url: str, count: int, within: float
    ) -> None:
        self._stream = stream
        self._db = db
        self._count = count
        self._within = within
        self._replays = Replays(stream, database_url, within)
        self._replays.settings |= SETTINGS
        self._digest: dict[str, str] = {}
        self.workers: list[Worker] = []

    async def holds(self, start_worker: StartWorker) -> None:
        """All of it, one after the other."""
        await self.is_counted(start_worker)
        await self.is_what_the_log_says()
        await self.altered_rows_are_named_and_healed()
        await self.replays_change_nothing()

    async def is_counted(self, start_worker: StartWorker) -> None:
        """Every record of the log ends in one place."""
        await self._stream.create(partitions=3)
        now = int(time.time() * 1000)
        some: list[Fact] = []
        for fact in mixed_log(self._count, end_ms=now):
            some.append(fact)
            if len(some) == 20_000:
                await publish(self._stream, some)
                some.clear()
        await publish(self._stream, some)
        self.workers = [await start_worker(self._stream.kafka, **SETTINGS) for _ in range(2)]
        await everything_is_read(self._db, self._stream, deadline=self._within)
        await assert_accounts_close(self._db, self._stream)
        self._digest = await digest_of(self._db)

    async def is_what_the_log_says(self) -> None:
        """Nothing is found by a check, by verifying, and by a shadow, which is equal to the last row."""
        checked = await self._replays.check("--all")
        assert checked.code == 0, str(checked)
        assert checked.summary["totals"]["read"] >= self._count
        assert checked.summary["totals"]["malformed"] > 0
        assert await self._drift() == set()
        await self._shadow_is_equal()

    async def altered_rows_are_named_and_healed(self) -> None:
        """What is deleted and altered by hand, and nothing else, is named; then the log heals it."""
        altered = await self._alter()
        checked = await self._replays.check("--all", "--limit", "1000")
        assert checked.code == 1
        assert named(checked.summary) == altered, differing(named(checked.summary), altered)
        drifted = await self._write_counters()
        found = await self._drift()
        assert found == drifted, differing(found, drifted)

        healed = await self._replays.apply("--all", "--overwrite")
        assert healed.code == 0, str(healed)
        mended = await self._drift(repair=True)
        assert mended <= drifted, mended  # writing what was missing has counted some of it anew
        assert await self._drift() == set()
        assert (await self._replays.check("--all")).code == 0
        digest = await digest_of(self._db)
        assert digest == self._digest, differing(set(digest.items()), set(self._digest.items()))

    async def replays_change_nothing(self) -> None:
        """One replay, two at once, and one that is killed and gone on with, under live traffic."""
        facts = list(mixed_log(self._count // 5, seed=7, end_ms=int(time.time() * 1000), prefix="live-"))
        async with MixedTraffic(self._stream, facts, chunk=200) as traffic:
            alone = await self._replays.apply("--all")
            assert alone.summary["totals"]["applied"] <= alone.summary["totals"]["read"]
            await asyncio.gather(self._replays.apply("--all"), self._replays.apply("--all"))
            resumed = await self._killed_and_resumed()
            assert resumed.summary["resumed"]
            traffic.enough()
        await everything_is_read(self._db, self._stream, deadline=self._within)
        await assert_accounts_close(self._db, self._stream)
        assert await self._drift() == set()
        await self._shadow_is_equal()

    async def _shadow_is_equal(self) -> None:
        shadow = await self._replays.replay("--all", "--mode", "shadow")
        assert shadow.code == 0, (shadow.summary["differences"], shadow.summary["notes"])
        assert shadow.summary["differences"] == []
        digest = shadow.summary["digest"]
        assert digest["live"] == digest["shadow"]

    async def _killed_and_resumed(self) -> Any:
        """A replay that is killed once it has written something, and the next one, which goes on with it."""
        rate = ("--max-rate", str(max(self._count // 3, 1_000)))
        arguments = ("replay", "--all", "--mode", "apply", *rate)
        environment = {name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ}
        settings = {f"COUNTERFOIL_{n.upper()}": str(v) for n, v in self._replays.settings.items()}
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "counterfoil", *arguments),
            env=environment | settings | {"PYTHONPATH": python_path()},
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        written = 0
        while not written:
            written = await self._db.fetchval(
                """SELECT coalesce(sum(p.next_offset - p.first_offset), 0) FROM replay_positions AS p
                   JOIN replays AS r ON r.id = p.replay_id WHERE r.finished_at IS NULL"""
            )
            assert process.returncode is None, "it ended before it could be killed"
            await asyncio.sleep(0.05)  # a process of another program: nobody tells us
        process.send_signal(signal.SIGKILL)
        await process.wait()
        return await self._replays.apply("--all", *rate)

    async def _alter(self) -> Named:
        found: Named = set()
        for table, key in DELETED.items():
            rows = await self._some(table, key, offset=0)
            await self._db.execute(
                f"DELETE FROM {table} WHERE ({', '.join(key)}) IN (SELECT {_columns(key)} FROM altered)"
            )
            found |= {(table, "missing", row) for row in rows}
        for table, values in ALTERED.items():
            key = DELETED[table]
            rows = await self._some(table, key, offset=EACH)
            await self._db.execute(
                f"UPDATE {table} SET {values} WHERE ({', '.join(key)}) IN (SELECT {_columns(key)} FROM altered)"
            )
            found |= {(table, "differs", row) for row in rows}
        return found

    async def _some(self, table: str, key: tuple[str, ...], offset: int) -> list[tuple[str, ...]]:
        """Some rows of a ledger, kept as `altered`, and how a check names them."""
        columns = ", ".join(f"{name} AS k{n}" for n, name in enumerate(key))
        await self._db.execute("DROP TABLE IF EXISTS altered")
        await self._db.execute(
            f"""CREATE TEMP TABLE altered AS SELECT {columns} FROM {table} WHERE source_id IS NOT NULL
                ORDER BY {", ".join(key)} OFFSET {offset} LIMIT {EACH}"""
        )
        rows = await self._db.fetch(SHOWN.get(table, "SELECT * FROM altered"))
        assert len(rows) == EACH, f"{table} has too few rows"
        return [tuple(_text(value) for value in row) for row in rows]

    async def _write_counters(self) -> set[tuple[str, str]]:
        found = set()
        for table, (key, values) in COUNTERS.items():
            rows = await self._db.fetch(
                f"""UPDATE {table} SET {values}
                    WHERE {key} IN (SELECT {key} FROM {table} ORDER BY {key} LIMIT {EACH}) RETURNING {key}"""
            )
            found |= {(table, row[0]) for row in rows}
        return found

    async def _drift(self, *, repair: bool = False) -> set[tuple[str, str]]:
        ended = await self._replays.command("verify", "--json", *(["--repair"] if repair else []))
        report = json.loads(ended.out)
        return {(drift["table"], drift["key"]) for drift in report["drift"]}


def named(summary: dict[str, Any]) -> Named:
    """The rows that a check names."""
    return {
        (each["table"], verdict, tuple(_text(value) for value in each["key"]))
        for verdict in ("missing", "differs")
        for each in summary[verdict]
    }


def differing(found: set[Any], wanted: set[Any]) -> str:
    """What a failed comparison says."""
    return f"too much: {sorted(found - wanted)}; not found: {sorted(wanted - found)}"


def _columns(key: Sequence[str]) -> str:
    return ", ".join(f"k{n}" for n in range(len(key)))


def _text(value: Any) -> str:
    return value.isoformat() if hasattr(value, "isoformat") else str(value)
