"""Recounts that the schedule has made: kept with what they found, for the pages and the metrics."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

from counterfoil.database.connection import Connection
from counterfoil.database.counters import Verification
from counterfoil.database.queries import sql
from counterfoil.telemetry.metrics import Metrics

KEPT_OF_A_TABLE = 100
"""Wrong numbers of one table that a recount of the schedule remembers: who sees as many asks `verify`."""

KEPT_IN_ALL = 500

KEPT_FOR = timedelta(days=90)


@dataclass(frozen=True, slots=True)
class KeptVerification:
    """A recount as it was kept; `drift` are the first wrong numbers, `drifted_in` says how many by table."""

    started_at: datetime
    finished_at: datetime
    seconds: float
    checked: Mapping[str, int]
    drifted: int
    drifted_in: Mapping[str, int]
    drift: Sequence[Mapping[str, Any]]


async def keep(connection: Connection, found: Verification) -> None:
    """Keep what was found, and let go of what is older than 90 days."""
    await connection.execute(
        sql("keep_verification"),
        found.snapshot_at,
        found.seconds,
        json.dumps({table: checked.rows for table, checked in found.tables.items()}),
        found.drifted,
        json.dumps({table: checked.drifted for table, checked in found.tables.items() if checked.drifted}),
        json.dumps([asdict(drift) for drift in found.drift[:KEPT_IN_ALL]]),
    )
    await connection.execute(sql("forget_verifications"), KEPT_FOR)


async def last(connection: Connection) -> KeptVerification | None:
    """The latest recount, None before the first."""
    row = await connection.fetchrow(sql("last_verification"))
    if row is None:
        return None
    read = {name: json.loads(row[name]) for name in ("checked", "drifted_in", "drift")}
    return KeptVerification(**(dict(row) | read))


async def sample_verification(connection: Connection, metrics: Metrics) -> None:
    """What the latest recount has found, by table; a table that it found nothing wrong in shows 0."""
    found = await last(connection)
    if found is None:
        return
    metrics.verified_timestamp_seconds.set(found.started_at.timestamp())
    for table in found.checked:
        metrics.counter_drift.labels(table).set(found.drifted_in.get(table, 0))
