"""The scans of a bench: a campaign's vouchers, some of them scanned by far the most, by users and by passers-by."""

from __future__ import annotations

import json
import random
import uuid
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import NamedTuple

SEED = 2026
VOUCHERS = 300
USERS = 200_000
USER_SHARE = 0.6
PLACE_SHARE = 0.3
AT_HOME_SHARE = 0.9
BUSINESS_SHARE = 0.05
APART = timedelta(milliseconds=1)
USER_AGENT = "Mozilla/5.0 (iPhone; CPU iPhone OS 19_0 like Mac OS X) AppleWebKit/605.1.15 Mobile/15E148"

_SOURCES = ("CAMERA",) * 7 + ("GALLERY", "LINK", "SHARE")
_CITIES = [f"{name} {side}" for name in ("Berlin", "Leipzig", "Hamburg", "Köln") for side in range(10)]


class Scan(NamedTuple):
    """A scan as an app reports it."""

    scan_id: str
    voucher_id: str
    user_id: str | None
    scan_type: str
    scan_source: str
    device: str
    city: str | None
    ip_address: str
    scanned_at: datetime

    @property
    def key(self) -> str:
        """The key of its record."""
        return self.voucher_id

    @property
    def device_info(self) -> dict[str, str]:
        """What its app says of the phone."""
        return {"app": "5.2.1", "deviceId": self.device, "os": "iOS 19.0"}

    @property
    def location(self) -> dict[str, str] | None:
        """Where that was, where its app says so."""
        return None if self.city is None else {"city": self.city, "country": "DE"}

    @property
    def value(self) -> bytes:
        """Its JSON, 400 bytes or so."""
        fields = {
            "scan_id": self.scan_id,
            "voucher_id": self.voucher_id,
            "user_id": self.user_id,
            "scan_type": self.scan_type,
            "scan_source": self.scan_source,
            "device_info": self.device_info,
            "location": self.location,
            "ip_address": self.ip_address,
            "user_agent": USER_AGENT,
            "timestamp": self.scanned_at.isoformat(),
        }
        return json.dumps(fields, separators=(",", ":")).encode()


def sample_scans(count: int, *, seed: int = SEED) -> list[Scan]:
    """Scans of the last minutes, 1 ms apart, of 300 vouchers: the first tenth of them has a third of the scans.

    Six in ten are by one of 200,000 users, evenly. Three in ten say where they were: nine in ten of these in the city
    where the voucher is valid, the others in any of 40. Their ids are random (UUIDv4).
    """
    dice = random.Random(seed)  # noqa: S311 - sample data
    first = datetime.now(UTC).replace(microsecond=0) - count * APART - timedelta(minutes=1)
    vouchers = [str(uuid.UUID(int=dice.getrandbits(128), version=4)) for _ in range(VOUCHERS)]
    return [_scan(dice, vouchers, first + number * APART) for number in range(count)]


def _scan(dice: random.Random, vouchers: Sequence[str], at: datetime) -> Scan:
    voucher, user = int(dice.random() ** 2 * VOUCHERS), dice.randrange(USERS)
    return Scan(
        scan_id=str(uuid.UUID(int=dice.getrandbits(128), version=4)),
        voucher_id=vouchers[voucher],
        user_id=f"cus_{user:06}" if dice.random() < USER_SHARE else None,
        scan_type="BUSINESS" if dice.random() < BUSINESS_SHARE else "CUSTOMER",
        scan_source=dice.choice(_SOURCES),
        device=f"{user:012x}",
        city=_city(dice, voucher) if dice.random() < PLACE_SHARE else None,
        ip_address=f"10.{user >> 16}.{user >> 8 & 255}.{user & 255}",
        scanned_at=at,
    )


def _city(dice: random.Random, voucher: int) -> str:
    return _CITIES[voucher % len(_CITIES)] if dice.random() < AT_HOME_SHARE else dice.choice(_CITIES)


def with_one_voucher(scans: Sequence[Scan]) -> list[Scan]:
    """The same scans, all of the same voucher."""
    return [scan._replace(voucher_id=scans[0].voucher_id) for scan in scans]


def hourly_counts(scans: Sequence[Scan]) -> Counter[tuple[str, datetime, str]]:
    """(voucher, hour, what of it) → scans: all, of each type, by each source, of nobody that is known."""
    counts = Counter[tuple[str, datetime, str]]()
    for scan in scans:
        hour = scan.scanned_at.replace(minute=0, second=0, microsecond=0)
        anonymous = ("anonymous",) if scan.user_id is None else ()
        for name in ("all", scan.scan_type, scan.scan_source, *anonymous):
            counts[scan.voucher_id, hour, name] += 1
    return counts


def place_counts(scans: Sequence[Scan]) -> Counter[tuple[str, date, str]]:
    """(voucher, day, place) → scans."""
    return Counter(
        (scan.voucher_id, scan.scanned_at.date(), f"{scan.city}, DE")
        for scan in scans
        if scan.city is not None
    )


def unique_users(scans: Sequence[Scan]) -> Counter[tuple[str]]:
    """(voucher,) → different users."""
    return Counter(
        (voucher,) for voucher, _ in {(scan.voucher_id, scan.user_id) for scan in scans if scan.user_id}
    )
