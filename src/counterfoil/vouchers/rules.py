"""What the events of vouchers come to as rows, and which of two rows of one fact stands."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import NamedTuple

from counterfoil.database.facts import Facts, derived_id
from counterfoil.events import Claim, Impression, Redemption, Scan, VoucherCreated

NEVER = datetime.min.replace(tzinfo=UTC)

ScanRow = tuple[
    str,
    datetime,
    str,
    str | None,
    str,
    str,
    str,
    str | None,
    str | None,
    str | None,
    str,
    int,
    int,
]
"""A row of voucher_scans, in the order of `store.SCAN_COLUMNS`."""


class VoucherRow(NamedTuple):
    """What voucher.created says of a row of vouchers."""

    id: str
    created_at: datetime
    business_id: str | None
    title: str | None
    expires_at: datetime | None
    source_id: int
    source_offset: int

    @property
    def key(self) -> tuple[str]:
        """What there is one of."""
        return (self.id,)

    @property
    def content(self) -> tuple[datetime, str, str, datetime]:
        """Of two rows of one key the smaller content stands, so the earlier."""
        return self.created_at, self.business_id or "", self.title or "", self.expires_at or NEVER


class ImpressionRow(NamedTuple):
    """A row of voucher_impressions."""

    impression_id: str
    occurred_at: datetime
    voucher_id: str
    source_id: int
    source_offset: int

    @property
    def key(self) -> tuple[str]:
        """What there is one of."""
        return (self.impression_id,)

    @property
    def content(self) -> tuple[datetime, str]:
        """Of two rows of one key the smaller content stands, so the earlier."""
        return self.occurred_at, self.voucher_id


class ClaimRow(NamedTuple):
    """What a claim says of a row of customer_vouchers."""

    customer_id: str
    voucher_id: str
    claimed_at: datetime
    metadata: str
    source_id: int
    source_offset: int

    @property
    def key(self) -> tuple[str, str]:
        """What there is one of."""
        return self.customer_id, self.voucher_id

    @property
    def content(self) -> tuple[datetime, str]:
        """Of two rows of one key the smaller content stands, so the earlier."""
        return self.claimed_at, self.metadata


class AttemptRow(NamedTuple):
    """A row of redemption_attempts."""

    attempt_id: str
    attempted_at: datetime
    voucher_id: str
    business_id: str
    customer_id: str | None
    successful: bool
    failure_reason: str | None
    device_info: str
    location: str | None
    metadata: str
    source_id: int
    source_offset: int

    @property
    def key(self) -> tuple[str]:
        """What there is one of."""
        return (self.attempt_id,)

    @property
    def content(self) -> tuple[datetime, str, str, str, bool, str, str, str, str]:
        """Of two rows of one key the smaller content stands, so the earlier; see attempt_order in the database."""
        return (
            self.attempted_at,
            self.voucher_id,
            self.business_id,
            self.customer_id or "",
            self.successful,
            self.failure_reason or "",
            self.device_info,
            self.location or "",
            self.metadata,
        )


def voucher_row(facts: Facts[VoucherCreated], index: int) -> VoucherRow:
    """The row of one event."""
    event = facts.events[index]
    return VoucherRow(
        event.voucher_id,
        event.timestamp,
        event.business_id,
        event.title,
        event.expires_at,
        facts.source_ids[index],
        facts.offsets[index],
    )


def impression_row(facts: Facts[Impression], index: int) -> ImpressionRow:
    """The row of one event."""
    event = facts.events[index]
    return ImpressionRow(
        event.impression_id or derived_id(facts.origin(index)),
        event.timestamp,
        event.voucher_id,
        facts.source_ids[index],
        facts.offsets[index],
    )


def claim_row(facts: Facts[Claim], index: int) -> ClaimRow:
    """The row of one event."""
    event = facts.events[index]
    return ClaimRow(
        event.customer_id,
        event.voucher_id,
        event.timestamp,
        event.metadata,
        facts.source_ids[index],
        facts.offsets[index],
    )


def attempt_row(facts: Facts[Redemption], index: int) -> AttemptRow:
    """The row of one event."""
    event = facts.events[index]
    return AttemptRow(
        event.attempt_id or derived_id(facts.origin(index)),
        event.timestamp,
        event.voucher_id,
        event.business_id,
        event.customer_id,
        event.successful,
        event.failure_reason,
        event.device_info,
        event.location,
        event.metadata,
        facts.source_ids[index],
        facts.offsets[index],
    )


def add_scans(
    rows: dict[object, ScanRow],
    facts: Facts[Scan],
    start: int,
    stop: int,
    keep: Callable[[str], str | None],
) -> list[ScanRow]:
    """Add the rows of some of the scans: of several with one id and time the first; answers the others.

    `keep` tells what is kept of an address.
    """
    again: list[ScanRow] = []
    for index in range(start, min(stop, len(facts.events))):
        scan = facts.events[index]
        scan_id, at = scan.scan_id or derived_id(facts.origin(index)), scan.timestamp
        address = scan.ip_address
        row = (
            scan_id,
            at,
            scan.voucher_id,
            scan.user_id,
            scan.scan_type,
            scan.scan_source,
            scan.device_info,
            scan.location,
            None if address is None else keep(address),
            scan.user_agent,
            scan.metadata,
            facts.source_ids[index],
            facts.offsets[index],
        )
        first = rows.setdefault(scan_id, row)
        if first is not row and first[1] != at:  # one id at two times is two scans
            first = rows.setdefault((scan_id, at), row)
        if first is not row:
            again.append(row)
    return again


def scans_before(facts: Facts[Scan], bound: datetime) -> frozenset[tuple[int, int]]:
    """The sources of those of the scans that occurred before a time."""
    sources = zip(facts.source_ids, facts.offsets, strict=True)
    return frozenset(
        source for scan, source in zip(facts.events, sources, strict=True) if scan.timestamp < bound
    )


def vouchers_of(rows: Iterable[ScanRow | ImpressionRow | AttemptRow]) -> set[str]:
    """The vouchers of rows that have them in their third column."""
    return {row[2] for row in rows}
