"""Whose visit a public endpoint is told of: of its sender, and of late; the platform may speak for others."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TypeVar

import msgspec

from counterfoil.api.clients import Client
from counterfoil.api.problems import invalid_field
from counterfoil.events import Click, Scan, rules

LONGEST_DELAY = timedelta(days=1)
"""How late a page may report a visit: a browser that was closed sends it when it is opened again."""

CLOCK_SKEW = timedelta(minutes=5)
"""How far a visitor's clock may go ahead of ours."""

Visit = TypeVar("Visit", Click, Scan)


def with_visitor(visit: Visit, client: Client) -> Visit:
    """The visit with whoever sends it as its visitor, unless that is the platform and it names another."""
    if client.is_platform and (visit.ip_address or visit.user_agent):
        return visit
    return msgspec.structs.replace(
        visit,
        ip_address=rules.ip_address(client.address, "ip_address", _nobody),
        user_agent=rules.free_text(client.user_agent, "user_agent", _nobody),
    )


def refuse_other_days(visit: Click | Scan, client: Client) -> None:
    """Raise 422 for a visit of long ago or to come: who needs no token must not write into other days than today's."""
    now = datetime.now(UTC)
    if not client.is_platform and not now - LONGEST_DELAY <= visit.timestamp <= now + CLOCK_SKEW:
        raise invalid_field(
            "timestamp",
            "must be of the last 24 hours; only the platform may tell of what was before or is to come",
        )


def _nobody(_field: str) -> None:
    """What is normalised is counted when the record is read."""
