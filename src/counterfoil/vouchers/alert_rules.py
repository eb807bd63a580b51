"""When a voucher's figures are worth an alert: what is usual of it, and how far above that is too far.

Scans are counted in a window. What is usual is the median, over the days of late, of each day's busiest hour: a rush
that comes every day is usual, an attack of yesterday is not, and neither is the night. Who has fewer than three such
days is compared with the busy ones of his kind as well; where these are not known either, with the middle one of his
kind in this window, and where there are too few of them, only a ceiling counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from math import ceil, floor
from statistics import median_low
from typing import NamedTuple

from counterfoil.notifications.alerts import Alert

DAYS_OF_HISTORY = 3
"""So many days tell what is usual: one of them may be odd."""

ENOUGH_PEERS = 20
"""So many subjects in one window tell what the middle one comes to, even if several of them are attacked at once."""

SCAN_RATE = "scan-rate"
FAILED_REDEMPTIONS = "failed-redemptions"
LOW_CONVERSION = "low-conversion"


class Window(NamedTuple):
    """A stretch of time that ends at `until`."""

    until: datetime
    length: timedelta

    @property
    def since(self) -> datetime:
        """When it began."""
        return self.until - self.length


class ScanRule(NamedTuple):
    """From the settings: the window, how far is too far, and the fewest scans of each kind that are worth an alert."""

    window: timedelta
    factor: float
    fewest: dict[str, int]
    """By kind (`voucher`, `device`, `address`), of those that are watched."""
    ceiling: int | None

    def noted(self, kind: str) -> int:
        """The fewest scans that can make a limit other than the least one: with fewer, nothing is worth noting."""
        return ceil(self.fewest[kind] / self.factor)


class Count(NamedTuple):
    """The scans that one voucher, device or address has in a window; `voucher_id` is the one that it scanned most."""

    kind: str
    subject: str
    voucher_id: str
    scans: int


class Conversion(NamedTuple):
    """What a voucher has come to over some days; it was scanned at least once."""

    voucher_id: str
    scans: int
    claims: int


class Peers(NamedTuple):
    """What others of a kind come to: the busy ones on each of the days of late, the middle one of so many now."""

    days: Sequence[float] = ()
    middle: float = 0.0
    subjects: int = 0

    @property
    def usual(self) -> float | None:
        """None where it is not known: neither a past, nor enough of them now."""
        if len(self.days) >= DAYS_OF_HISTORY:
            return median_low(self.days)
        return self.middle if self.subjects >= ENOUGH_PEERS else None


def usual_scans(days: Sequence[float], peers: Peers) -> float | None:
    """The scans that are usual in a window, by the busiest hour of each of its days; None where nobody knows."""
    own = median_low(days) if days else 0.0
    if len(days) >= DAYS_OF_HISTORY:
        return own
    return None if peers.usual is None else max(own, peers.usual)


def scan_limit(kind: str, days: Sequence[float], peers: Peers, rule: ScanRule) -> int | None:
    """The fewest scans in a window that are far above what is usual; None where there is no such number."""
    usual = usual_scans(days, peers)
    far = rule.ceiling if usual is None else floor(rule.factor * usual) + 1
    return None if far is None else max(rule.fewest[kind], far)


def scan_rate_alert(count: Count, limit: int | None, window: Window) -> Alert | None:
    """The alert of a window; None where its scans stay below the limit."""
    if limit is None or count.scans < limit:
        return None
    payload = _payload(SCAN_RATE, count.voucher_id, count.scans, limit, window)
    if count.kind != "voucher":
        payload["subject"] = {count.kind: count.subject}
    return Alert(SCAN_RATE, count.voucher_id, f"{count.kind}:{count.subject}", payload)


def failed_redemptions_alert(voucher_id: str, failed: int, limit: int, window: Window) -> Alert:
    """The alert of a voucher that has so many failed attempts in a window."""
    payload = _payload(FAILED_REDEMPTIONS, voucher_id, failed, limit, window)
    return Alert(FAILED_REDEMPTIONS, voucher_id, voucher_id, payload)


def low_conversion_alert(found: Conversion, limit: float, window: Window) -> Alert:
    """The alert of a voucher with so few claims for its scans; the same of one UTC day is the same cause."""
    share = round(found.claims / found.scans, 6)
    payload = _payload(LOW_CONVERSION, found.voucher_id, share, limit, window)
    payload |= {"scans": found.scans, "claims": found.claims}
    return Alert(
        LOW_CONVERSION, found.voucher_id, f"{window.until.astimezone(UTC).date()}:{found.voucher_id}", payload
    )


def _payload(kind: str, voucher_id: str, value: float, limit: float, window: Window) -> dict[str, object]:
    return {
        "kind": kind,
        "voucher_id": voucher_id,
        "value": value,
        "limit": limit,
        "window": int(window.length.total_seconds()),
        "occurred_at": window.until.astimezone(UTC),
    }
