"""The contract of vouchers in plain Python: what a set of events comes to, and what is counted of the rows it leaves.

Brute force: nothing is added up on the way, everything is counted from the rows, and users by `set()`.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any, NamedTuple

import asyncpg

from counterfoil.ingest.partitions import Partition
from counterfoil.ingest.records import Record

NEVER = datetime.min.replace(tzinfo=UTC)

Pair = tuple[str, str]


class Told(NamedTuple):
    """A document with its topic, the name of the record that it came in, and that record's time."""

    document: dict[str, Any]
    origin: str
    sent_at: datetime

    @property
    def time(self) -> datetime:
        given = self.document.get("timestamp")
        return datetime.fromisoformat(given) if given else self.sent_at


class Scan(NamedTuple):
    voucher: str
    user: str | None
    type: str
    source: str
    location: Any = None
    device: Any = None
    user_agent: str | None = None
    metadata: Any = None


class Attempt(NamedTuple):
    """In the order that decides between two of one id."""

    time: datetime
    voucher: str
    business: str
    customer: str
    successful: bool
    reason: str
    device: str
    location: str
    metadata: str


@dataclass
class Ledgers:
    """The rows that facts leave, without what says when or from where they were written.

    `vouchers`: created_at, business, title, expires_at. What is missing of it is None, of the others ''.
    """

    vouchers: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    impressions: dict[str, tuple[datetime, str]] = field(default_factory=dict)
    scans: dict[tuple[str, datetime], Scan] = field(default_factory=dict)
    claims: dict[Pair, tuple[datetime, str]] = field(default_factory=dict)
    attempts: dict[str, Attempt] = field(default_factory=dict)
    refused: set[tuple[Any, ...]] = field(default_factory=set)

    def expires_at(self, voucher: str) -> datetime | None:
        return self.vouchers.get(voucher, (None,) * 4)[3]


@dataclass
class Counts:
    """What is counted and derived of such rows; what comes to nothing has no row."""

    vouchers: dict[str, tuple[int, int, int, int]] = field(default_factory=dict)
    """scans, claims, redemptions, impressions"""
    wallets: dict[Pair, tuple[Any, ...]] = field(default_factory=dict)
    """(customer, voucher) → status, claimed_at, redeemed_at, first_scanned_at"""
    daily: dict[tuple[str, date], tuple[Any, ...]] = field(default_factory=dict)
    hourly: dict[tuple[str, datetime], tuple[int, ...]] = field(default_factory=dict)
    scanner_days: dict[tuple[str, str, date], datetime] = field(default_factory=dict)
    returns: dict[tuple[str, date, date | None], int] = field(default_factory=dict)
    places: dict[tuple[str, date, str], int] = field(default_factory=dict)
    place_months: dict[tuple[str, date, str], int] = field(default_factory=dict)


# What events come to


def told_by(logs: Mapping[Partition, Sequence[Record]]) -> list[Told]:
    """What these logs tell; a record that is not JSON tells nothing."""
    found = []
    for (topic, partition), records in logs.items():
        for record in records:
            try:
                document = json.loads(record.value or b"")
            except ValueError:
                continue
            sent_at = datetime.fromtimestamp(record.timestamp / 1000, UTC)
            found.append(Told({**document, "topic": topic}, f"{topic}/{partition}/{record.offset}", sent_at))
    return found


def told(documents: Iterable[dict[str, Any]]) -> list[Told]:
    """Documents that name all there is to name."""
    return [Told(document, f"document {number}", NEVER) for number, document in enumerate(documents)]


def ledgers_of(facts: Iterable[Told]) -> Ledgers:
    """The rows of these facts in any order: of two contents of one fact the earlier stands, then the smaller."""
    by_topic: dict[str, list[Told]] = defaultdict(list)
    for fact in facts:
        by_topic[fact.document["topic"]].append(fact)
    ledgers = Ledgers()
    created = _smallest(
        (fact.document["voucher_id"], _voucher_content(fact)) for fact in by_topic["voucher.created"]
    )
    ledgers.impressions = _smallest(
        (fact.document.get("impression_id") or fact.origin, (fact.time, fact.document["voucher_id"]))
        for fact in by_topic["impression"]
    )
    for fact in by_topic["scan"]:
        key = (fact.document.get("scan_id") or fact.origin, fact.time)
        ledgers.scans.setdefault(key, _scan(fact.document))
    claims = [
        ((d["customer_id"], d["voucher_id"]), (fact.time, jsonb_text(d.get("metadata") or {})))
        for fact in by_topic["claim"]
        for d in [fact.document]
    ]
    attempts = [
        (fact.document.get("attempt_id") or fact.origin, _attempt(fact)) for fact in by_topic["redemption"]
    ]
    ledgers.claims, ledgers.attempts = _smallest(claims), _smallest(attempts)
    for pair, content in claims:
        if content != ledgers.claims[pair]:
            ledgers.refused.add(("claim", pair[1], pair[0], *content))
    for attempt_id, attempt in attempts:
        if attempt != ledgers.attempts[attempt_id]:
            ledgers.refused.add(("redemption", attempt.voucher, attempt_id, *attempt))
    for fact in (fact for told_of_topic in by_topic.values() for fact in told_of_topic):
        known = created.get(fact.document["voucher_id"])
        ledgers.vouchers[fact.document["voucher_id"]] = _voucher_row(known) if known else (None,) * 4
    return ledgers


def _smallest(contents: Iterable[tuple[Any, Any]]) -> dict[Any, Any]:
    found: dict[Any, list[Any]] = defaultdict(list)
    for key, content in contents:
        found[key].append(content)
    return {key: min(told_of_key) for key, told_of_key in found.items()}


def _voucher_content(fact: Told) -> tuple[Any, ...]:
    document = fact.document
    expires = document.get("expires_at")
    return (
        fact.time,
        document.get("business_id") or "",
        document.get("title") or "",
        datetime.fromisoformat(expires) if expires else NEVER,
    )


def _voucher_row(content: tuple[Any, ...]) -> tuple[Any, ...]:
    time, business, title, expires = content
    return time, business or None, title or None, None if expires == NEVER else expires


def _scan(document: dict[str, Any]) -> Scan:
    return Scan(
        document["voucher_id"],
        document.get("user_id"),
        document["scan_type"],
        document["scan_source"],
        document.get("location"),
        document.get("device_info") or {},
        document.get("user_agent"),
        document.get("metadata") or {},
    )


def _attempt(fact: Told) -> Attempt:
    document = fact.document
    return Attempt(
        fact.time,
        document["voucher_id"],
        document["business_id"],
        document.get("customer_id") or "",
        document["successful"],
        document.get("failure_reason") or "",
        jsonb_text(document.get("device_info") or {}),
        jsonb_text(document["location"]) if document.get("location") is not None else "",
        jsonb_text(document.get("metadata") or {}),
    )


def jsonb_text(value: Any) -> str:
    """As PostgreSQL writes it: shorter keys first, then by their bytes."""
    if isinstance(value, dict):
        members = sorted(value.items(), key=lambda member: (len(member[0].encode()), member[0].encode()))
        inside = ", ".join(f"{jsonb_text(key)}: {jsonb_text(content)}" for key, content in members)
        return f"{{{inside}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(jsonb_text, value))}]"
    return json.dumps(value, ensure_ascii=False)


# What is counted of rows


def counts_of(ledgers: Ledgers, now: datetime) -> Counts:
    """Everything that is counted of these rows, once the schedule has looked at what has expired by now."""
    counts = Counts(wallets=_wallets(ledgers, now))
    counts.daily = _daily(ledgers, counts.wallets)
    _count_scans(ledgers, counts)
    for voucher in _named(ledgers):
        counts.vouchers[voucher] = (
            sum(scan.voucher == voucher for scan in ledgers.scans.values()),
            sum(pair[1] == voucher for pair in ledgers.claims),
            sum(a.voucher == voucher and a.successful for a in ledgers.attempts.values()),
            sum(shown == voucher for _, shown in ledgers.impressions.values()),
        )
    return counts


def unique_users(ledgers: Ledgers, voucher: str, first: date, last: date) -> int:
    """The distinct users of these days."""
    return len(
        {
            scan.user
            for (_, at), scan in ledgers.scans.items()
            if scan.voucher == voucher and scan.user is not None and first <= _day(at) <= last
        }
    )


def _named(ledgers: Ledgers) -> set[str]:
    return {
        *ledgers.vouchers,
        *(scan.voucher for scan in ledgers.scans.values()),
        *(voucher for _, voucher in ledgers.claims),
        *(attempt.voucher for attempt in ledgers.attempts.values()),
        *(voucher for _, voucher in ledgers.impressions.values()),
    }


def _wallets(ledgers: Ledgers, now: datetime) -> dict[Pair, tuple[Any, ...]]:
    redeemed: dict[Pair, list[datetime]] = defaultdict(list)
    for attempt in ledgers.attempts.values():
        if attempt.successful and attempt.customer:
            redeemed[attempt.customer, attempt.voucher].append(attempt.time)
    wallets = {}
    for customer, voucher in {*redeemed, *ledgers.claims}:
        expires_at = ledgers.expires_at(voucher)
        expired = expires_at is not None and expires_at <= now
        status = "REDEEMED" if (customer, voucher) in redeemed else "EXPIRED" if expired else "CLAIMED"
        scanned = [
            at for (_, at), scan in ledgers.scans.items() if (scan.user, scan.voucher) == (customer, voucher)
        ]
        wallets[customer, voucher] = (
            status,
            ledgers.claims.get((customer, voucher), (None,))[0],
            min(redeemed.get((customer, voucher), []), default=None),
            min(scanned, default=None),
        )
    return wallets


def _daily(ledgers: Ledgers, wallets: dict[Pair, tuple[Any, ...]]) -> dict[tuple[str, date], tuple[Any, ...]]:
    days: dict[tuple[str, date], Counter[str]] = defaultdict(Counter)
    for at, voucher in ledgers.impressions.values():
        days[voucher, _day(at)]["impressions"] += 1
    for attempt in ledgers.attempts.values():
        kind = "redemptions" if attempt.successful else "failed"
        days[attempt.voucher, _day(attempt.time)][kind] += 1
    for (_, voucher), (_, claimed_at, redeemed_at, scanned_at) in wallets.items():
        if claimed_at is None:
            continue
        days[voucher, _day(claimed_at)]["claims"] += 1
        if scanned_at is not None and scanned_at <= claimed_at:
            days[voucher, _day(claimed_at)]["timed claims"] += 1
            days[voucher, _day(claimed_at)]["scan to claim"] += _microseconds(claimed_at - scanned_at)
        if redeemed_at is not None and claimed_at <= redeemed_at:
            days[voucher, _day(redeemed_at)]["timed redemptions"] += 1
            days[voucher, _day(redeemed_at)]["claim to redemption"] += _microseconds(redeemed_at - claimed_at)
    return {
        key: (
            c["impressions"], c["claims"], c["timed claims"], _seconds(c["scan to claim"]), c["redemptions"],
            c["failed"], c["timed redemptions"], _seconds(c["claim to redemption"]),
        )
        for key, c in days.items()
    }  # fmt: skip


def _count_scans(ledgers: Ledgers, counts: Counts) -> None:
    hours: dict[tuple[str, datetime], list[Scan]] = defaultdict(list)
    seen: dict[tuple[str, str, date], list[datetime]] = defaultdict(list)
    places: Counter[tuple[str, date, str]] = Counter()
    place_months: Counter[tuple[str, date, str]] = Counter()
    for (_, at), scan in ledgers.scans.items():
        hours[scan.voucher, at.astimezone(UTC).replace(minute=0, second=0, microsecond=0)].append(scan)
        if scan.user is not None:
            seen[scan.voucher, scan.user, _day(at)].append(at)
        place = place_of(scan.location)
        if place is not None:
            places[scan.voucher, _day(at), place] += 1
            place_months[scan.voucher, _day(at).replace(day=1), place] += 1
    for key, scans in hours.items():
        types, sources = Counter(s.type for s in scans), Counter(s.source for s in scans)
        anonymous = sum(s.user is None for s in scans)
        counts.hourly[key] = (
            len(scans), types["CUSTOMER"], types["BUSINESS"], sources["CAMERA"], sources["GALLERY"],
            sources["LINK"], sources["SHARE"], anonymous,
        )  # fmt: skip
    counts.scanner_days = {key: min(times) for key, times in seen.items()}
    counts.returns = dict(
        Counter((v, day, _day_before(seen, v, user, day)) for v, user, day in counts.scanner_days)
    )
    counts.places, counts.place_months = dict(places), dict(place_months)


def _day_before(seen: Iterable[tuple[str, str, date]], voucher: str, user: str, day: date) -> date | None:
    return max((d for v, u, d in seen if (v, u) == (voucher, user) and d < day), default=None)


def place_of(location: Any) -> str | None:
    """A city, a country or both; else the field of one degree that the scan was in."""
    if location is None:
        return None
    names = [
        location.get("city"),
        next((location[k] for k in _COUNTRIES if location.get(k) is not None), None),
    ]
    city, country = (name.strip(" ")[:60] if isinstance(name, str) else "" for name in names)
    if len(country) == 2:
        country = "".join(letter.upper() if letter.isascii() else letter for letter in country)
    if city or country:
        return ", ".join(filter(None, [city, country]))
    latitude = location.get("latitude", location.get("lat"))
    longitude = location.get("longitude", location.get("lon", location.get("lng")))
    if not all(type(angle) in (int, float) for angle in (latitude, longitude)):
        return None
    if abs(latitude) > 90 or abs(longitude) > 180:
        return None
    return f"{latitude // 1:.0f},{longitude // 1:.0f}"


_COUNTRIES = ("country", "countryCode", "country_code")


def _day(at: datetime) -> date:
    return at.astimezone(UTC).date()


def _microseconds(duration: timedelta) -> int:
    return duration // timedelta(microseconds=1)


def _seconds(microseconds: int) -> Decimal:
    return Decimal(microseconds).scaleb(-6)


# The tables as they are


async def stored_ledgers(db: asyncpg.Connection) -> Ledgers:
    """The rows of the ledgers; a derived id is shown as the name of the record that it was derived from."""
    return Ledgers(
        vouchers={
            r["id"]: (r["created_at"], r["business_id"], r["title"], r["expires_at"])
            for r in await db.fetch("SELECT * FROM vouchers")
        },
        impressions={
            r["name"]: (r["occurred_at"], r["voucher_id"])
            for r in await db.fetch(_NAMED.format("impression_id", "voucher_impressions"))
        },
        scans={
            (r["name"], r["occurred_at"]): Scan(
                r["voucher_id"], r["user_id"], r["scan_type"], r["scan_source"],
                None if r["location"] is None else json.loads(r["location"]), json.loads(r["device_info"]),
                r["user_agent"], json.loads(r["metadata"]),
            )
            for r in await db.fetch(_NAMED.format("scan_id", "voucher_scans"))
        },
        claims={
            (r["customer_id"], r["voucher_id"]): (r["claimed_at"], r["metadata"])
            for r in await db.fetch("SELECT * FROM customer_vouchers WHERE claimed_at IS NOT NULL")
        },
        attempts={
            r["name"]: Attempt(
                r["attempted_at"], r["voucher_id"], r["business_id"], r["customer_id"] or "", r["successful"],
                r["failure_reason"] or "", r["device_info"], r["location"] or "", r["metadata"],
            )
            for r in await db.fetch(_NAMED.format("attempt_id", "redemption_attempts"))
        },
        refused={_refused_row(r) for r in await db.fetch("SELECT * FROM refused_voucher_facts")},
    )  # fmt: skip


_NAMED = """
SELECT l.*, CASE WHEN {0} ~ '^[0-9a-f]{{32}}$' THEN s.topic || '/' || s."partition" || '/' || l.source_offset
                 ELSE {0} END AS name
FROM {1} AS l LEFT JOIN stream_sources AS s ON s.id = l.source_id
"""


def _refused_row(row: asyncpg.Record) -> tuple[Any, ...]:
    content = json.loads(row["content"])
    if row["topic"] == "claim":
        time = datetime.fromisoformat(content["claimed_at"])
        return "claim", row["voucher_id"], content["customer_id"], time, jsonb_text(content["metadata"])
    attempt = Attempt(
        datetime.fromisoformat(content["attempted_at"]),
        content["voucher_id"],
        content["business_id"],
        content["customer_id"] or "",
        content["successful"],
        content["failure_reason"] or "",
        jsonb_text(content["device_info"]),
        "" if content["location"] is None else jsonb_text(content["location"]),
        jsonb_text(content["metadata"]),
    )
    return row["topic"], row["voucher_id"], content["attempt_id"], *attempt


async def stored_counts(db: asyncpg.Connection) -> Counts:
    """What the tables say that is counted and derived."""
    return Counts(
        vouchers={
            r["id"]: (r["scan_count"], r["claim_count"], r["redemption_count"], r["impressions"])
            for r in await db.fetch("SELECT * FROM vouchers")
        },
        wallets={
            (r["customer_id"], r["voucher_id"]): tuple(r)[2:]
            for r in await db.fetch(
                """SELECT customer_id, voucher_id, status, claimed_at, redeemed_at, first_scanned_at
                   FROM customer_vouchers"""
            )
        },
        daily={
            (r["voucher_id"], r["day"]): tuple(r)[2:] for r in await db.fetch("SELECT * FROM voucher_daily")
        },
        hourly={
            (r["voucher_id"], r["hour"]): tuple(r)[2:] for r in await db.fetch("SELECT * FROM voucher_hourly")
        },
        scanner_days={
            (r["voucher_id"], r["user_id"], r["day"]): r["first_at"]
            for r in await db.fetch("SELECT * FROM voucher_scanner_days")
        },
        returns={
            (r["voucher_id"], r["day"], r["previous_day"]): r["users"]
            for r in await db.fetch(
                "SELECT voucher_id, day, nullif(previous_day, '-infinity') AS previous_day, users FROM voucher_returns"
            )
        },
        places={
            (r["voucher_id"], r["day"], r["place"]): r["scans"]
            for r in await db.fetch("SELECT * FROM voucher_places")
        },
        place_months={
            (r["voucher_id"], r["month"], r["place"]): r["scans"]
            for r in await db.fetch("SELECT * FROM voucher_place_months")
        },
    )


async def stored_unique_users(db: asyncpg.Connection, voucher: str, first: date, last: date) -> int:
    """The distinct users of these days, as analytics reads them."""
    return int(
        await db.fetchval(
            """SELECT coalesce(sum(users), 0) FROM voucher_returns
               WHERE voucher_id = $1 AND day BETWEEN $2 AND $3 AND previous_day < $2""",
            voucher,
            first,
            last,
        )
    )


async def exact(db: asyncpg.Connection, after: str = "") -> bool:
    """Whether everything that is counted is what the rows of the ledgers come to, as we count them here."""
    now = await db.fetchval("SELECT now() FROM expire_claims(100000)")
    ledgers = await stored_ledgers(db)
    assert await stored_counts(db) == counts_of(ledgers, now), after
    days = sorted({_day(at) for _, at in ledgers.scans})
    for voucher in {scan.voucher for scan in ledgers.scans.values()}:
        for first in days:
            for last in (day for day in days if day >= first):
                found = await stored_unique_users(db, voucher, first, last)
                assert found == unique_users(ledgers, voucher, first, last), (after, voucher, first, last)
    return True
