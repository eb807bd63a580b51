"""Notifications in tests: alerts that wait, and channels that remember what they were told."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

import asyncpg

from counterfoil.notifications.deliveries import NewNotification, Recorded, record_notifications
from counterfoil.notifications.delivery import Timing
from counterfoil.notifications.messages import Message

HOUR = timedelta(hours=1)

QUICK = Timing(
    spacing=timedelta(milliseconds=10),
    give_up_after=timedelta(days=1),
    lease=timedelta(seconds=30),
    gather=timedelta(milliseconds=10),
    poll=timedelta(milliseconds=50),
)


def a_notification(alert_id: str, *, age: timedelta = timedelta(0), sku: str = "A-1") -> NewNotification:
    raised_at = datetime.now(UTC) - age
    payload = {
        "alert_id": alert_id,
        "sku": sku,
        "name": "Widget",
        "stock": 1,
        "threshold": 5,
        "occurred_at": raised_at.isoformat(),
    }
    return NewNotification(alert_id, "low-stock", sku, json.dumps(payload), raised_at)


async def record(
    db: asyncpg.Connection, *alert_ids: str, channels: Sequence[str] = ("one",), age: timedelta = timedelta(0)
) -> list[Recorded]:
    """Let these alerts wait for these channels."""
    alerts = [a_notification(alert_id, age=age) for alert_id in alert_ids]
    return await record_notifications(db, alerts, channels, HOUR)


async def statuses(db: asyncpg.Connection, channel: str = "one") -> dict[str, str]:
    """Alert id → status."""
    rows = await db.fetch("SELECT alert_id, status FROM notifications WHERE channel = $1", channel)
    return {row["alert_id"]: row["status"] for row in rows}


async def all_are(db: asyncpg.Connection, status: str, channel: str = "one") -> bool:
    return set((await statuses(db, channel)).values()) == {status}


class RememberingChannel:
    """Takes every message, or does what is planned: raises an error, or waits for a signal or for ever.

    `messages` are those that it was sent, `taken` those that it has taken, by their alerts' ids.
    """

    def __init__(self, name: str = "one", *plan: BaseException | asyncio.Event) -> None:
        self.name = name
        self.description = name
        self.messages: list[tuple[str, ...]] = []
        self.taken: list[tuple[str, ...]] = []
        self.times: list[float] = []
        self.closed = False
        self.before_taking: Callable[[], None] = lambda: None
        self._plan = list(plan)

    @property
    def told(self) -> list[str]:
        """The ids of all alerts that it has taken, in order."""
        return [alert_id for ids in self.taken for alert_id in ids]

    async def send(self, message: Message) -> None:
        self.messages.append(message.alert_ids)
        self.times.append(asyncio.get_running_loop().time())
        step = self._plan.pop(0) if self._plan else None
        if isinstance(step, BaseException):
            raise step
        if step is not None:
            await step.wait()
        self.before_taking()
        self.taken.append(message.alert_ids)

    async def close(self) -> None:
        self.closed = True
