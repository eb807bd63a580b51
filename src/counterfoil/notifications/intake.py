"""Alerts as they come from Kafka → rows of `notifications`, one for each channel."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import ClassVar, NamedTuple

from counterfoil.database.connection import Connection
from counterfoil.database.facts import PLAN_SLICE, Facts, Outcome
from counterfoil.database.locks import Lock
from counterfoil.database.turns import TURNS
from counterfoil.errors import InvalidEvent
from counterfoil.events import AlertEvent
from counterfoil.notifications.deliveries import NewNotification, record_notifications


class Intake(NamedTuple):
    """The alerts of a batch, each once, sorted by id; `places` is the index of the first event of each."""

    facts: Facts[AlertEvent]
    alerts: Sequence[NewNotification]
    places: dict[str, int]


class RecordNotifications:
    """Each alert is to be told once on each channel, unless it is older than `max_age` when it comes.

    `channels` answers their names, and is asked when there are alerts to be told.
    """

    locks: ClassVar[tuple[Lock, ...]] = ()

    def __init__(self, channels: Callable[[], Sequence[str]], max_age: timedelta) -> None:
        self._channels = channels
        self._max_age = max_age

    async def plan(self, facts: Facts[AlertEvent]) -> Intake:
        """What these alerts are, in rows; raises InvalidEvent where there is no channel to tell them on."""
        if not self._channels():
            raise InvalidEvent("no_channel", "", "no channel is configured on which it could be told")
        places: dict[str, int] = {}
        alerts: list[NewNotification] = []
        for start in range(0, len(facts.events), PLAN_SLICE):
            for index, event in enumerate(facts.events[start : start + PLAN_SLICE], start):
                if places.setdefault(event.alert_id, index) == index:
                    alerts.append(_notification(event))
            await TURNS.preparing()
        return Intake(facts, sorted(alerts), places)  # same lock order in every worker

    async def write(self, connection: Connection, plan: Intake) -> Outcome:
        """Write rows for what is not known yet."""
        if not plan.alerts:
            return Outcome()
        rows = await record_notifications(connection, plan.alerts, self._channels(), self._max_age)
        changed = {plan.places[row.alert_id] for row in rows}
        expired = Counter(row.channel for row in rows if row.status == "expired")
        return Outcome(
            unchanged=set(range(len(plan.facts.events))) - changed,
            changed=lambda: changed,
            counted={("notifications", (channel, "expired")): count for channel, count in expired.items()},
        )


def _notification(event: AlertEvent) -> NewNotification:
    return NewNotification(
        alert_id=event.alert_id,
        topic=event.topic,
        subject=event.key,
        payload=event.to_json().decode(),
        raised_at=event.occurred_at,
    )
