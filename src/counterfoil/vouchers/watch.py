"""Watching vouchers: one worker a minute compares what was scanned and redeemed of late with what is usual."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import asyncpg
import structlog

from counterfoil.database.connection import Connection
from counterfoil.database.queries import sql
from counterfoil.notifications.alerts import Alert, forget_cooldowns, raise_alerts
from counterfoil.settings import Settings
from counterfoil.vouchers.alert_rules import (
    Conversion,
    Count,
    Peers,
    ScanRule,
    Window,
    failed_redemptions_alert,
    low_conversion_alert,
    scan_limit,
    scan_rate_alert,
)

log = structlog.get_logger("counterfoil.vouchers")

TOPIC = "voucher-alert"

MOST_OF_A_KIND = 100
"""Of more in one look those with most scans are told: who is told of thousands reads none."""

HISTORY = timedelta(days=7)

ALL_PEERS = ""
"""Stands for the busy ones of a kind."""

A_DAY = timedelta(days=1)


class Seen(NamedTuple):
    """What a window held: the subjects with scans enough to be noted, and the others of each kind as a whole."""

    counts: list[Count]
    peers: dict[str, Peers]


async def watch_vouchers(pool: asyncpg.Pool, settings: Settings) -> int:
    """Do what is due and nobody has done; answers how many alerts were raised. Each look is one transaction."""
    async with pool.acquire() as connection:
        raised = await _watch_minute(connection, settings)
        raised += await _watch_hour(connection, settings)
    if raised:
        log.info("voucher_alerts_raised", count=raised)
    return raised


async def _watch_minute(connection: Connection, settings: Settings) -> int:
    async with connection.transaction():
        now = await connection.fetchval(sql("claim_turn"), "watch_vouchers", timedelta(minutes=1))
        if now is None:
            return 0
        raised = await watch_scan_rates(connection, settings, now)
        return raised + await watch_failed_redemptions(connection, settings, now)


async def _watch_hour(connection: Connection, settings: Settings) -> int:
    async with connection.transaction():
        now = await connection.fetchval(sql("claim_turn"), "watch_conversion", timedelta(hours=1))
        if now is None:
            return 0
        await connection.execute(sql("forget_scan_rates"), now - HISTORY - A_DAY)
        await forget_cooldowns(connection, settings.alert_cooldown_s + 2 * A_DAY)
        return await watch_conversion(connection, settings, now)


# Scan rates


def scan_rule(settings: Settings) -> ScanRule:
    """The rule as the settings have it; a kind whose least limit is 0 is not watched."""
    fewest = {
        "voucher": settings.voucher_scan_rate_min,
        "device": settings.voucher_device_scan_rate_min,
        "address": settings.voucher_address_scan_rate_min,
    }
    return ScanRule(
        window=min(settings.voucher_scan_window_s, settings.alert_max_age_s),
        factor=settings.voucher_scan_rate_factor,
        fewest={kind: scans for kind, scans in fewest.items() if scans},
        ceiling=settings.voucher_scan_rate_ceiling or None,
    )


async def watch_scan_rates(connection: Connection, settings: Settings, until: datetime) -> int:
    """Raise what the window that ends now has too much of, and note what it had; the caller owns the transaction."""
    rule = scan_rule(settings)
    if not rule.fewest:
        return 0
    window = Window(until, rule.window)
    seen = await _count_scans(connection, rule, window)
    alerts = await _compare(connection, rule, seen, window)
    await _note(connection, seen, window)
    cooldown = max(settings.alert_cooldown_s, window.length)  # the same scans are not told twice
    return len(await raise_alerts(connection, TOPIC, alerts, cooldown))


async def _count_scans(connection: Connection, rule: ScanRule, window: Window) -> Seen:
    kinds = list(rule.fewest)
    noted = [rule.noted(kind) for kind in kinds]
    seen = Seen([], {})
    for row in await connection.fetch(sql("count_scans_of_window"), window.since, window.until, kinds, noted):
        if row["subject"] is None:
            seen.peers[row["kind"]] = Peers(high=row["scans"], subjects=row["subjects"])
        else:
            seen.counts.append(Count(row["kind"], row["subject"], row["voucher_id"], row["scans"]))
    return seen


async def _compare(connection: Connection, rule: ScanRule, seen: Seen, window: Window) -> list[Alert]:
    worth = [count for count in seen.counts if count.scans >= rule.fewest[count.kind]]
    if not worth:
        return []
    wanted = {(count.kind, count.subject) for count in worth} | {(kind, ALL_PEERS) for kind in seen.peers}
    days = await _busiest_hours(connection, wanted, window)
    peers = {kind: one._replace(days=days.get((kind, ALL_PEERS), ())) for kind, one in seen.peers.items()}
    alerts = {kind: list[Alert]() for kind in peers}
    for count in sorted(worth, key=lambda count: (-count.scans, count.subject)):
        own = days.get((count.kind, count.subject), ())
        alert = scan_rate_alert(count, scan_limit(count.kind, own, peers[count.kind], rule), window)
        if alert is not None:
            alerts[count.kind].append(alert)
    return [alert for kind, of_kind in alerts.items() for alert in _bounded(of_kind, kind)]


async def _busiest_hours(
    connection: Connection, wanted: Iterable[tuple[str, str]], window: Window
) -> dict[tuple[str, str], list[float]]:
    """By kind and subject: the busiest hour of each day of late, as scans of a window."""
    kinds, subjects = zip(*sorted(wanted), strict=True)
    hour = _hour_of(window.until)
    rows = await connection.fetch(sql("find_busiest_hours"), kinds, subjects, hour - HISTORY, hour)
    seconds = window.length.total_seconds()
    return {(row["kind"], row["subject"]): [round(rate * seconds, 6) for rate in row["days"]] for row in rows}


async def _note(connection: Connection, seen: Seen, window: Window) -> None:
    """Keep what will be usual: of devices, addresses and peers; a voucher's own hours are counted already."""
    rates = [(kind, ALL_PEERS, peers.high) for kind, peers in seen.peers.items()]
    rates += [(count.kind, count.subject, count.scans) for count in seen.counts if count.kind != "voucher"]
    if rates:
        kinds, subjects, scans = zip(*rates, strict=True)
        seconds = window.length.total_seconds()
        per_second = [count / seconds for count in scans]
        await connection.execute(sql("note_scan_rates"), _hour_of(window.until), kinds, subjects, per_second)


def _bounded(alerts: Sequence[Alert], kind: str) -> Sequence[Alert]:
    if len(alerts) > MOST_OF_A_KIND:
        log.warning("scan_rate_alerts_left_out", kind=kind, count=len(alerts) - MOST_OF_A_KIND)
    return alerts[:MOST_OF_A_KIND]


def _hour_of(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(minute=0, second=0, microsecond=0)


# Failed redemptions


async def watch_failed_redemptions(connection: Connection, settings: Settings, until: datetime) -> int:
    """Raise the vouchers that too many attempts of late have failed on; the caller owns the transaction."""
    limit = settings.voucher_failed_redemptions_limit
    if not limit:
        return 0
    window = Window(until, min(settings.voucher_failed_redemptions_window_s, settings.alert_max_age_s))
    rows = await connection.fetch(
        sql("find_failing_vouchers"), window.since, window.until, limit, MOST_OF_A_KIND
    )
    alerts = [failed_redemptions_alert(row["voucher_id"], row["failed"], limit, window) for row in rows]
    cooldown = max(settings.alert_cooldown_s, window.length)  # the same attempts are not told twice
    return len(await raise_alerts(connection, TOPIC, alerts, cooldown))


# Conversion


async def watch_conversion(connection: Connection, settings: Settings, now: datetime) -> int:
    """Raise the vouchers with many scans and few claims, each once a UTC day; the caller owns the transaction."""
    limit, fewest = settings.voucher_low_conversion_limit, settings.voucher_low_conversion_min_scans
    if not limit:
        return 0
    window = Window(now, settings.voucher_low_conversion_days * A_DAY)
    first_day = (window.since + A_DAY).astimezone(UTC).date()  # today is one of them
    rows = await connection.fetch(sql("find_low_conversion"), first_day, fewest, limit, MOST_OF_A_KIND)
    alerts = [low_conversion_alert(Conversion(*row), limit, window) for row in rows]
    return len(await raise_alerts(connection, TOPIC, alerts, A_DAY))
