"""Raising alerts: each cause once within its cooldown, by the database's clock, however many workers see it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

import msgspec

from counterfoil.database.connection import Connection
from counterfoil.database.queries import sql


@dataclass(frozen=True, slots=True)
class Alert:
    """Something to be told of a voucher or SKU, its `subject`; the same `cause` is not told again within the cooldown.

    `payload` is what goes out beside the alert's id: JSON's own types.
    """

    kind: str
    subject: str
    cause: str
    payload: Mapping[str, object]


async def raise_alerts(
    connection: Connection, topic: str, alerts: Sequence[Alert], cooldown: timedelta
) -> list[str]:
    """Raise alerts of one kind, in this order, to a topic by its default name; the ids of those that were.

    The caller owns the transaction; a trigger calls the function of the same name.
    """
    if not alerts:
        return []
    (kind,) = {alert.kind for alert in alerts}
    rows = await connection.fetch(
        sql("raise_alerts"),
        topic,
        kind,
        [alert.subject for alert in alerts],
        [alert.cause for alert in alerts],
        [msgspec.json.encode(alert.payload).decode() for alert in alerts],
        cooldown,
    )
    return [row["alert_id"] for row in rows]


async def forget_cooldowns(connection: Connection, longest: timedelta) -> None:
    """Forget what was told so long ago that no cooldown still runs."""
    await connection.execute(sql("forget_cooldowns"), longest)
