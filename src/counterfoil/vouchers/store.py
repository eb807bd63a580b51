"""The ledgers of vouchers, and the roll-ups that the database keeps from them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from struct import Struct
from typing import Any

from counterfoil.database.binary_copy import timestamptz
from counterfoil.database.comparison import Comparison
from counterfoil.database.connection import Connection
from counterfoil.database.counters import Counter
from counterfoil.database.joined import joined_ids, joined_numbers, joined_texts, joined_times
from counterfoil.database.ledger import LedgerTable
from counterfoil.database.partitions import PartitionedLedger
from counterfoil.database.queries import sql
from counterfoil.events.objects import EMPTY_OBJECT
from counterfoil.events.scan import SCAN_SOURCES, SCAN_TYPES
from counterfoil.vouchers.rules import AttemptRow, ClaimRow, ImpressionRow, ScanRow, VoucherRow

SCAN_COLUMNS = (
    "scan_id",
    "occurred_at",
    "voucher_id",
    "user_id",
    "scan_type",
    "scan_source",
    "device_info",
    "location",
    "ip_address",
    "user_agent",
    "metadata",
    "source_id",
    "source_offset",
)

_start = Struct(">hi").pack
_time_and_length = Struct(">iqi").pack
_length = Struct(">i").pack
_end = Struct(">iiiq").pack
_NULL = _length(-1)
_JSONB = b"\x01"
"""The version of the format in which the value follows."""


def _value(text: str) -> bytes:
    encoded = text.encode()
    return _length(len(encoded)) + encoded


# Few words that every scan has: encoded once.
_EMPTY_OBJECT = _value(_JSONB.decode() + EMPTY_OBJECT)
_KINDS = {(kind, origin): _value(kind) + _value(origin) for kind in SCAN_TYPES for origin in SCAN_SOURCES}


def encode_scans(rows: Sequence[ScanRow]) -> bytes:
    """Rows of voucher_scans in PostgreSQL's binary COPY format, each value after its length in bytes."""
    parts: list[bytes] = []
    count = len(SCAN_COLUMNS)
    for (
        scan_id,
        at,
        voucher_id,
        user,
        kind,
        origin,
        device,
        location,
        address,
        agent,
        metadata,
        source_id,
        offset,
    ) in rows:
        scan, voucher = scan_id.encode(), voucher_id.encode()
        parts += (
            _start(count, len(scan)),
            scan,
            _time_and_length(8, timestamptz(at), len(voucher)),
            voucher,
        )
        if user is None:
            parts.append(_NULL)
        else:
            encoded = user.encode()
            parts += (_length(len(encoded)), encoded)
        parts.append(_KINDS[kind, origin])
        for document in (device, location):
            if document is None:
                parts.append(_NULL)
            else:
                encoded = document.encode()
                parts += (_length(len(encoded) + 1), _JSONB, encoded)
        for text in (address, agent):
            if text is None:
                parts.append(_NULL)
            else:
                encoded = text.encode()
                parts += (_length(len(encoded)), encoded)
        if metadata == EMPTY_OBJECT:
            parts.append(_EMPTY_OBJECT)
        else:
            encoded = metadata.encode()
            parts += (_length(len(encoded) + 1), _JSONB, encoded)
        parts.append(_end(4, source_id, 8, offset))
    return b"".join(parts)


def join_scans(columns: Sequence[Sequence[Any]]) -> Sequence[str]:
    """Ids and times, each column as one text."""
    scan_ids, times = columns
    return joined_ids(scan_ids), joined_times(times)


SCANS = LedgerTable(
    table="voucher_scans",
    columns=SCAN_COLUMNS,
    key_size=2,
    deciding=2,
    insert="insert_scans",
    find_new="find_new_scans",
    replace=None,
    encode=encode_scans,
    join=join_scans,
)

SCAN_PARTITIONS = PartitionedLedger(make="make_scan_partitions", close="close_scan_partitions")

VOUCHERS = LedgerTable(
    table="vouchers",
    columns=VoucherRow._fields,
    key_size=1,
    deciding=5,
    insert="insert_vouchers",
    find_new="find_new_vouchers",
    replace="replace_vouchers",
)

IMPRESSIONS = LedgerTable(
    table="voucher_impressions",
    columns=ImpressionRow._fields,
    key_size=1,
    deciding=3,
    insert="insert_impressions",
    find_new="find_new_impressions",
    replace="replace_impressions",
)

CLAIMS = LedgerTable(
    table="customer_vouchers",
    columns=ClaimRow._fields,
    key_size=2,
    deciding=4,
    insert="insert_claims",
    find_new="find_new_claims",
    replace="replace_claims",
    keep_refused="keep_refused_claims",
)

ATTEMPTS = LedgerTable(
    table="redemption_attempts",
    columns=AttemptRow._fields,
    key_size=1,
    deciding=10,
    insert="insert_redemptions",
    find_new="find_new_redemptions",
    replace="replace_redemptions",
    keep_refused="keep_refused_redemptions",
)


def _compared(ledger: LedgerTable, what: str, held: str = "voucher_id") -> Comparison:
    return Comparison(
        ledger.table,
        ledger.columns,
        ledger.key_size,
        find=f"find_different_{what}",
        overwrite=f"overwrite_{what}",
        holds="hold_vouchers",
        held=held,
    )


COMPARED_SCANS = _compared(SCANS, "scans")._replace(
    joins=(joined_ids, joined_times, joined_ids, *[joined_texts] * 8, joined_numbers, joined_numbers)
)
COMPARED_VOUCHERS = _compared(VOUCHERS, "vouchers", held="id")
COMPARED_IMPRESSIONS = _compared(IMPRESSIONS, "impressions")
COMPARED_CLAIMS = _compared(CLAIMS, "claims")
COMPARED_ATTEMPTS = _compared(ATTEMPTS, "redemptions")


def _counter(table: str) -> Counter:
    return Counter(
        table=table,
        drift=f"drift_of_{table}",
        lock="hold_voucher",
        recount="recount_voucher",
        size=f"count_{table}",
    )


VOUCHER_COUNTERS = tuple(
    _counter(table)
    for table in (
        "vouchers",
        "voucher_hourly",
        "voucher_places",
        "voucher_place_months",
        "voucher_scanner_days",
        "voucher_returns",
        "voucher_daily",
        "customer_vouchers",
    )
)
"""The key of each is the voucher: whatever of it has drifted, all of it is recounted."""


async def hold_vouchers(connection: Connection, ids: Collection[str]) -> None:
    """Make and hold the rows of vouchers, until the caller's transaction ends."""
    if ids:
        await connection.execute(sql("hold_vouchers"), list(ids))


async def observe_claims(connection: Connection, claims: Sequence[tuple[str, str]]) -> dict[str, list[float]]:
    """Histogram → values of written claims (customer, voucher): times since the first scans, sizes of the wallets."""
    observed: dict[str, list[float]] = {}
    if claims:
        for row in await connection.fetch(sql("observe_claims"), *map(list, zip(*claims, strict=True))):
            observed.setdefault(row["histogram"], []).append(row["value"])
    return observed


async def scans_closed_before(connection: Connection) -> datetime | None:
    """The time up to which retention has closed the ledger of scans, if any."""
    found: datetime | None = await connection.fetchval(sql("scans_closed_before"))
    return found
