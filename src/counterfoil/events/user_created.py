"""The wire contract of `user.created`: the shop has a new user, who may share links."""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar

import msgspec

from counterfoil.events import rules as rule
from counterfoil.events.envelope import EnvelopeFields, Headers, Id, Opener, Time
from counterfoil.events.rules import Rules
from counterfoil.events.writing import json_bytes, time_text


class UserCreated(msgspec.Struct, kw_only=True, frozen=True, gc=False):
    """A user of the shop; a decoded one always has its timestamp, in UTC."""

    topic: ClassVar[str] = "user.created"

    user_id: str
    name: str | None = None
    email: str | None = None
    timestamp: datetime = None  # type: ignore[assignment]  # absent only before Kafka has given it one

    @property
    def key(self) -> str:
        """The key of the Kafka record."""
        return self.user_id

    @property
    def identity(self) -> str:
        """What names this fact among those of its topic."""
        return self.user_id

    def to_json(self) -> bytes:
        """The value of the Kafka record; raises InvalidEvent for what cannot be written exactly."""
        return json_bytes(
            {
                "user_id": self.user_id,
                "name": self.name,
                "email": self.email,
                "timestamp": time_text(self.timestamp, "timestamp"),
            }
        )


class _Wire(EnvelopeFields, gc=False):
    """Its `name` is the user's own: an envelope is opened before it is read."""

    user_id: Id = None
    user_id_camel: Id = msgspec.field(name="userId", default=None)
    id: Id = None
    email: str | None = None
    timestamp: Time = None
    created_at: Time = None
    created_at_camel: Time = msgspec.field(name="createdAt", default=None)


_opener = Opener(UserCreated.topic, _Wire, own_ids=("user_id", "userId"))


def decode_user_created(
    value: bytes | None, headers: Headers, timestamp_ms: int, rules: Rules
) -> UserCreated:
    """The event in a record, checked and normalised; raises InvalidEvent with the first rule it breaks.

    `timestamp_ms` is the record's own timestamp in epoch milliseconds, negative when it has none.
    """
    changed: list[str] = []
    normalised = changed.append
    wire, sent_at, _ = _opener.open(value, headers, rules.max_event_bytes, normalised)
    users = (("user_id", wire.user_id), ("userId", wire.user_id_camel), ("id", wire.id))
    times = (
        ("timestamp", wire.timestamp),
        ("created_at", wire.created_at),
        ("createdAt", wire.created_at_camel),
    )
    user = UserCreated(
        user_id=rule.required(rule.first_identity(users, "user_id", normalised), "user_id"),
        name=rule.free_text(wire.name, "name", normalised),
        email=rule.free_text(wire.email, "email", normalised),
        timestamp=rule.occurred_at(times, sent_at, timestamp_ms, normalised),
    )
    for field in changed:
        rules.normalised(field)
    return user
