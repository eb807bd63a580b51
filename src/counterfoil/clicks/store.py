"""The ledger of clicks, and the days that the database counts from it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from struct import Struct
from typing import Any

from counterfoil.clicks.rules import ClickRow
from counterfoil.database.binary_copy import timestamptz
from counterfoil.database.comparison import Comparison
from counterfoil.database.connection import Connection
from counterfoil.database.counters import Counter
from counterfoil.database.joined import joined_ids, joined_numbers, joined_texts, joined_times
from counterfoil.database.ledger import LedgerTable
from counterfoil.database.partitions import PartitionedLedger
from counterfoil.database.queries import sql
from counterfoil.settings import Settings

COLUMNS = (
    "click_id",
    "occurred_at",
    "pixel_id",
    "link_id",
    "ip_address",
    "user_agent",
    "referrer",
    "landing_page",
    "visitor",
    "is_bot",
    "source_id",
    "source_offset",
)

_start = Struct(">hi").pack
_time_and_length = Struct(">iqi").pack
_length = Struct(">i").pack
_end = Struct(">iqi?iiiq").pack
_NULL = _length(-1)


def encode_clicks(rows: Sequence[ClickRow]) -> bytes:
    """Rows of aff_clicks in PostgreSQL's binary COPY format, each value after its length in bytes."""
    parts: list[bytes] = []
    count = len(COLUMNS)
    for (
        click_id,
        at,
        pixel_id,
        link,
        address,
        agent,
        referrer,
        page,
        visitor,
        is_bot,
        source_id,
        offset,
    ) in rows:
        click, pixel = click_id.encode(), pixel_id.encode()
        parts += (_start(count, len(click)), click, _time_and_length(8, timestamptz(at), len(pixel)), pixel)
        for text in (link, address, agent, referrer, page):
            if text is None:
                parts.append(_NULL)
            else:
                encoded = text.encode()
                parts += (_length(len(encoded)), encoded)
        parts.append(_end(8, visitor, 1, is_bot, 4, source_id, 8, offset))
    return b"".join(parts)


def join_clicks(columns: Sequence[Sequence[Any]]) -> Sequence[str]:
    """Ids and times, each column as one text."""
    click_ids, times = columns
    return joined_ids(click_ids), joined_times(times)


CLICKS = LedgerTable(
    table="aff_clicks",
    columns=COLUMNS,
    key_size=2,
    deciding=2,
    insert="insert_clicks",
    find_new="find_new_clicks",
    replace=None,
    encode=encode_clicks,
    join=join_clicks,
)

COMPARED_CLICKS = Comparison(
    CLICKS.table,
    CLICKS.columns,
    CLICKS.key_size,
    find="find_different_clicks",
    overwrite="overwrite_clicks",
    joins=(joined_ids, joined_times, joined_ids, *[joined_texts] * 5, *[joined_numbers] * 4),
)

CLICK_PARTITIONS = PartitionedLedger(make="make_click_partitions", close="close_click_partitions")

CLICK_COUNTS = Counter(
    table="affiliate_daily (clicks)",
    drift="drift_of_daily_clicks",
    lock="lock_daily_clicks",
    recount="recount_daily_clicks",
    size="count_daily_clicks",
)


async def load_visitor_key(connection: Connection, settings: Settings) -> bytes:
    """The key that visitors are hashed with: the settings', or else the one that was made with the database."""
    if settings.visitor_hash_key is not None:
        return settings.visitor_hash_key.get_secret_value().encode("utf-8", "surrogateescape")
    return bytes(await connection.fetchval(sql("visitor_hash_key")))


async def closed_before(connection: Connection) -> datetime | None:
    """The time up to which retention has closed the ledger, if any."""
    found: datetime | None = await connection.fetchval(sql("clicks_closed_before"))
    return found
