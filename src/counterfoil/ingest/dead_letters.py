"""Parked records: kept with their bytes, listed, shown, and sent down the road again."""

from __future__ import annotations

from collections.abc import Sequence

from counterfoil.database.connection import Connection
from counterfoil.database.queries import sql
from counterfoil.ingest.records import Malformed, headers_to_json, timestamp_of

ERROR_LENGTH = 2_000


async def park(connection: Connection, cluster_id: str, malformed: Sequence[Malformed]) -> None:
    """Keep malformed records; the caller owns the transaction."""
    await connection.execute(
        sql("park_records"),
        cluster_id,
        [m.record.topic for m in malformed],
        [m.record.partition for m in malformed],
        [m.record.offset for m in malformed],
        [m.record.key for m in malformed],
        [m.record.value for m in malformed],
        [headers_to_json(m.record.headers) for m in malformed],
        [timestamp_of(m.record.timestamp) for m in malformed],
        [m.kind for m in malformed],
        [m.reason[:ERROR_LENGTH] for m in malformed],
    )
