"""The rows of `notifications`: what each channel is still to be told, who is sending it, and what became of it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

import asyncpg
import msgspec

from counterfoil.database.connection import Connection
from counterfoil.database.queries import sql
from counterfoil.notifications.messages import ToldAlert


class NewNotification(NamedTuple):
    """An alert as it was taken in; `topic` is the default name, `payload` JSON."""

    alert_id: str
    topic: str
    subject: str
    payload: str
    raised_at: datetime


class Recorded(NamedTuple):
    """A row that was made: `pending`, or `expired`."""

    alert_id: str
    channel: str
    status: str


@dataclass(frozen=True, slots=True)
class Claimed:
    """An alert that is ours to send; `attempts` tells our claim of it from a later one."""

    alert: ToldAlert
    attempts: int
    raised_at: datetime


class PutBack(NamedTuple):
    """What was not sent: `pending` again, or `failed`."""

    alert_id: str
    status: str


class GivenUp(NamedTuple):
    """A notification that has waited for too long."""

    alert_id: str
    channel: str
    error: str


async def record_notifications(
    connection: Connection, alerts: Sequence[NewNotification], channels: Sequence[str], max_age: timedelta
) -> list[Recorded]:
    """Make a row for each alert and channel that has none; the caller owns the transaction."""
    columns = [list(column) for column in zip(*alerts, strict=True)]
    rows = await connection.fetch(sql("record_notifications"), *columns, list(channels), max_age)
    return [Recorded(*row) for row in rows]


async def seconds_to_next_message(connection: Connection, channel: str, gather: timedelta) -> float | None:
    """How long until a message is due, 0 or less where one is; None where nothing waits."""
    seconds = await connection.fetchval(sql("seconds_to_next_message"), channel, gather)
    return None if seconds is None else float(seconds)


async def take_turn(connection: Connection, channel: str, within: timedelta) -> bool:
    """Whether it is the caller who speaks next; nobody else does for so long."""
    return await connection.fetchval(sql("take_turn"), channel, within) is not None


async def claim_notifications(
    connection: Connection, channel: str, lease: timedelta, limit: int
) -> list[Claimed]:
    """What is due on a channel, now the caller's for as long as the lease, in the order of raising."""
    rows = await connection.fetch(sql("claim_notifications"), channel, lease, limit)
    return sorted(map(_claimed, rows), key=lambda claimed: (claimed.raised_at, claimed.alert.alert_id))


async def keep_claims(
    connection: Connection, channel: str, claims: Collection[Claimed], lease: timedelta
) -> set[str]:
    """Hold on to what was claimed, for another lease; the ids of what is still the caller's."""
    attempts = [claimed.attempts for claimed in claims]
    rows = await connection.fetch(sql("keep_claims"), channel, _ids(claims), attempts, lease)
    return {row["alert_id"] for row in rows}


async def mark_sent(connection: Connection, channel: str, claims: Collection[Claimed]) -> list[float]:
    """The channel has these; the seconds from raised to sent of those that were not known to be sent."""
    rows = await connection.fetch(sql("mark_sent"), channel, _ids(claims))
    return [float(row["seconds"]) for row in rows]


async def note_told(connection: Connection, claims: Collection[Claimed], channel: str) -> None:
    """Write into the log of low stock that its alerts were told."""
    await connection.execute(sql("note_told"), _ids(claims), channel)


async def put_back(  # noqa: PLR0913
    connection: Connection,
    channel: str,
    claims: Collection[Claimed],
    *,
    error: str,
    next_in: timedelta,
    give_up_after: timedelta,
) -> list[PutBack]:
    """Let what was not sent wait again, or fail where it has waited for so long; only what is still the caller's."""
    attempts = [claimed.attempts for claimed in claims]
    rows = await connection.fetch(
        sql("put_back"), channel, _ids(claims), attempts, error, next_in, give_up_after
    )
    return [PutBack(*row) for row in rows]


async def rest_channel(connection: Connection, channel: str, rest: timedelta) -> None:
    """The channel's next message goes out after this time."""
    await connection.execute(sql("rest_channel"), channel, rest)


async def hold_channel(connection: Connection, channel: str, hold: timedelta) -> None:
    """Leave the channel alone for so long, whoever has something for it."""
    await connection.execute(sql("hold_channel"), channel, hold)


async def give_up_notifications(
    connection: Connection, give_up_after: timedelta, configured: Sequence[str], limit: int
) -> list[GivenUp]:
    """Fail what has waited for so long, on channels that are configured here or not."""
    rows = await connection.fetch(sql("give_up_notifications"), give_up_after, list(configured), limit)
    return [GivenUp(*row) for row in rows]


async def count_pending_notifications(connection: Connection) -> dict[str, int]:
    """How many notifications wait or are being sent, by channel."""
    rows = await connection.fetch(sql("count_pending_notifications"))
    return {row["channel"]: row["waiting"] for row in rows}


def _ids(claims: Collection[Claimed]) -> list[str]:
    return [claimed.alert.alert_id for claimed in claims]


def _claimed(row: asyncpg.Record) -> Claimed:
    alert = ToldAlert(row["alert_id"], row["topic"], row["subject"], _payload(row["payload"]))
    return Claimed(alert, row["attempts"], row["raised_at"])


def _payload(text: str) -> dict[str, object]:
    """What the alert says; nothing where PostgreSQL keeps a number that nobody can read, so that others are told."""
    try:
        return msgspec.json.decode(text, type=dict[str, object])
    except msgspec.DecodeError:
        return {}
