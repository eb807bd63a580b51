"""What the worker is measured beside: bare COPY, and a handler with a transaction for each event."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import asyncpg
from faststream.kafka import KafkaBroker

from counterfoil.bench.clicks import Click
from counterfoil.bench.orders import Order
from counterfoil.bench.scans import USER_AGENT, Scan
from counterfoil.bench.sources import Ground
from counterfoil.clicks.rules import ClickRow
from counterfoil.clicks.store import CLICKS
from counterfoil.database.ledger import LedgerTable
from counterfoil.database.pool import create_pool
from counterfoil.events.addresses import network_of
from counterfoil.kafka.connection import faststream_security
from counterfoil.vouchers.rules import ScanRow
from counterfoil.vouchers.store import SCANS

COPY_ROWS = 5_000
COLUMNS = ("order_id", "code", "occurred_at", "source_id", "source_offset")
PEER_WITHIN_S = 300.0

Row = tuple[str, str, datetime, int, int]


async def bare_copy(ground: Ground, orders: Sequence[Order]) -> float:
    """Rows a second of binary COPY, 5,000 sorted rows each, into the ledger without its triggers."""
    connection = ground.connection
    await connection.execute("CREATE TABLE bare (LIKE affiliate_coupon_usages INCLUDING ALL)")
    batches = [_rows(orders, start) for start in range(0, len(orders), COPY_ROWS)]
    began = time.perf_counter()
    for rows in batches:
        await connection.copy_records_to_table("bare", records=rows, columns=COLUMNS)
    return len(orders) / (time.perf_counter() - began)


def _rows(orders: Sequence[Order], start: int) -> list[Row]:
    some = orders[start : start + COPY_ROWS]
    return sorted((o.order_id, o.code, o.placed_at, 1, start + number) for number, o in enumerate(some))


async def bare_clicks(ground: Ground, clicks: Sequence[Click]) -> float:
    """Rows a second of binary COPY, 5,000 sorted rows each, into the ledger of clicks without its triggers."""
    starts = range(0, len(clicks), COPY_ROWS)
    return await _bare_ledger(ground, CLICKS, [_click_rows(clicks, start) for start in starts])


async def bare_scans(ground: Ground, scans: Sequence[Scan]) -> float:
    """Rows a second of binary COPY, 5,000 sorted rows each, into the ledger of scans without its triggers."""
    starts = range(0, len(scans), COPY_ROWS)
    return await _bare_ledger(ground, SCANS, [_scan_rows(scans, start) for start in starts])


async def _bare_ledger(ground: Ground, ledger: LedgerTable, batches: Sequence[Sequence[Any]]) -> float:
    await ground.connection.execute(f"ALTER TABLE {ledger.table} DISABLE TRIGGER USER")
    began = time.perf_counter()
    for rows in batches:
        await ground.connection.copy_records_to_table(ledger.table, records=rows, columns=ledger.columns)
    return sum(map(len, batches)) / (time.perf_counter() - began)


def _click_rows(clicks: Sequence[Click], start: int) -> list[ClickRow]:
    return sorted(
        (
            click.click_id,
            click.clicked_at,
            click.pixel_id,
            None,
            network_of(click.ip_address),
            click.user_agent,
            "https://blog.example/2026/11/ten-bags-for-winter",
            "https://shop.example/products/the-bag?utm_source=blog",
            hash((click.ip_address, click.user_agent)),
            False,
            1,
            start + number,
        )
        for number, click in enumerate(clicks[start : start + COPY_ROWS])
    )


def _scan_rows(scans: Sequence[Scan], start: int) -> list[ScanRow]:
    return sorted(
        (
            scan.scan_id,
            scan.scanned_at,
            scan.voucher_id,
            scan.user_id,
            scan.scan_type,
            scan.scan_source,
            json.dumps(scan.device_info),
            None if scan.location is None else json.dumps(scan.location),
            network_of(scan.ip_address),
            USER_AGENT,
            "{}",
            1,
            start + number,
        )
        for number, scan in enumerate(scans[start : start + COPY_ROWS])
    )


async def peer(ground: Ground, schema: str, topic: str, group: str, orders: int) -> float:
    """Orders a second of a plain FastStream handler: its default subscriber, one transaction for each event."""
    await ground.connection.execute(
        "CREATE TABLE peer_usages (LIKE affiliate_coupon_usages INCLUDING ALL);"
        "CREATE TABLE peer_coupons (LIKE affiliate_coupons INCLUDING ALL)"
    )
    settings = ground.settings
    pool = await create_pool(settings.model_copy(update={"db_schema": schema}), "bench peer", 1)
    broker = KafkaBroker(
        settings.kafka_bootstrap_servers.split(","), security=faststream_security(settings), logger=None
    )
    times: list[float] = []
    done = asyncio.Event()

    @broker.subscriber(topic, group_id=group, auto_offset_reset="earliest")
    async def count(order: dict[str, Any]) -> None:
        async with pool.acquire() as connection, connection.transaction():
            await _count(connection, order)
        times.append(time.perf_counter())
        if len(times) == orders:
            done.set()

    try:
        await broker.start()
        await asyncio.wait_for(done.wait(), PEER_WITHIN_S)
    finally:
        await broker.stop()
        await pool.close()
    return (len(times) - 1) / (times[-1] - times[0])


async def _count(connection: asyncpg.pool.PoolConnectionProxy[Any], order: dict[str, Any]) -> None:
    for code in order["codes"]:
        added = await connection.fetchval(
            "INSERT INTO peer_usages (order_id, code, occurred_at) VALUES ($1, $2, $3) "
            "ON CONFLICT DO NOTHING RETURNING true",
            order["order_id"],
            code,
            datetime.fromisoformat(order["timestamp"]),
        )
        if added:
            await connection.execute(
                "INSERT INTO peer_coupons AS c (code, times_used) VALUES ($1, 1) "
                "ON CONFLICT (code) DO UPDATE SET times_used = c.times_used + 1, updated_at = now()",
                code,
            )
