"""Watching vouchers: in turns, one worker compares what was scanned and redeemed of late with what is usual."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
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

MOST_JUDGED = 1_000
"""Of more of a kind in one look those with most scans are judged: whoever scans chooses how many devices there are."""

MOST_NOTED = 10_000
"""Of more of a kind in one look those with most scans are kept for the days to come."""

HISTORY = timedelta(days=7)

ALL_PEERS = ""
"""Stands for the busy ones of a kind."""

A_DAY = timedelta(days=1)


class Seen(NamedTuple):
    """What a window held: the subjects with scans enough for an alert, and the others of each kind as a whole."""

    counts: list[Count]
    peers: dict[str, Peers]


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
    seen = await _note_scans(connection, rule, window)
    alerts = await _compare(connection, rule, seen, window)
    cooldown = max(settings.alert_cooldown_s, window.length)  # the same scans are not told twice
    return len(await raise_alerts(connection, TOPIC, alerts, cooldown))


async def _note_scans(connection: Connection, rule: ScanRule, window: Window) -> Seen:
    kinds = list(rule.fewest)
    noted, worth = [rule.noted(kind) for kind in kinds], list(rule.fewest.values())
    hour = _hour_of(window.until)  # which is compared with nothing before it has ended
    stretch = window.since, window.until
    rows = await connection.fetch(
        sql("note_scans_of_window"), *stretch, kinds, noted, worth, hour, MOST_NOTED, MOST_JUDGED
    )
    return _seen(rows)


def _seen(rows: Iterable[asyncpg.Record]) -> Seen:
    seen = Seen([], {})
    for kind, subject, voucher_id, scans, subjects, worth in rows:
        if subject is not None:
            seen.counts.append(Count(kind, subject, voucher_id, scans))
            continue
        seen.peers[kind] = Peers(middle=scans, subjects=subjects)
        if worth > MOST_JUDGED:
            log.warning("scan_rates_not_judged", kind=kind, count=worth - MOST_JUDGED)
    return seen


async def _compare(connection: Connection, rule: ScanRule, seen: Seen, window: Window) -> list[Alert]:
    if not seen.counts:
        return []
    wanted = {(count.kind, count.subject) for count in seen.counts} | {
        (kind, ALL_PEERS) for kind in seen.peers
    }
    days = await _busiest_hours(connection, wanted, window)
    peers = {kind: one._replace(days=days.get((kind, ALL_PEERS), ())) for kind, one in seen.peers.items()}
    alerts = {kind: list[Alert]() for kind in peers}
    for count in sorted(seen.counts, key=lambda count: (-count.scans, count.subject)):
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


# By turns


async def forget_rates(connection: Connection, settings: Settings, now: datetime) -> int:
    """Forget the hours that are compared with no more, and what was told before any cooldown; raises no alert."""
    await connection.execute(sql("forget_scan_rates"), now - HISTORY - A_DAY)
    await forget_cooldowns(connection, settings.alert_cooldown_s + 2 * A_DAY)
    return 0


class Look(NamedTuple):
    """What one worker does once in each stretch of time; `work` answers how many alerts it raised."""

    name: str
    every: timedelta
    work: Callable[[Connection, Settings, datetime], Awaitable[int]]


LOOKS = (
    Look("watch_redemptions", timedelta(minutes=1), watch_failed_redemptions),
    Look("watch_scan_rates", timedelta(minutes=1), watch_scan_rates),
    Look("watch_conversion", timedelta(hours=1), watch_conversion),
    Look("forget_rates", timedelta(hours=1), forget_rates),
)
"""Each has its own turn and transaction, so that one that fails keeps no other from looking; the cheap one is first."""


async def take_turn(look: Look, pool: asyncpg.Pool, settings: Settings) -> int:
    """Look, where it is due and nobody has; answers how many alerts were raised."""
    async with pool.acquire() as connection, connection.transaction():
        now = await connection.fetchval(sql("claim_turn"), look.name, look.every)
        raised = 0 if now is None else await look.work(connection, settings, now)
    if raised:
        log.info("voucher_alerts_raised", look=look.name, count=raised)
    return raised
