"""What the console is handed, so that its pages can explain: it stands below this room, and knows it by a protocol."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import cast

import asyncpg

from counterfoil.api.requests import connection_of
from counterfoil.database.connection import Connection
from counterfoil.events import Rules
from counterfoil.explaining import AT_KINDS, KINDS, explain
from counterfoil.explaining.cells import Section
from counterfoil.explaining.lists import list_to_explain
from counterfoil.explaining.rows import Span
from counterfoil.explaining.view import sections
from counterfoil.settings import Settings


class PageExplainer:
    """Explains on connections of a pool, by the rules of the settings."""

    kinds: Sequence[str] = tuple(KINDS)
    kinds_at: Sequence[str] = tuple(kind for kind in KINDS if kind in AT_KINDS)

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    async def explain(  # noqa: PLR0913 - one argument a choice
        self, pool: asyncpg.Pool, kind: str, key: str, *, limit: int, days: int, at: datetime | None
    ) -> Sequence[Section] | None:
        """What is shown of one thing; None where nothing is known of it."""
        rules, span = Rules.of(self._settings), Span(limit, days, at)
        async with connection_of(pool) as connection:
            report = await explain(cast("Connection", connection), kind, key, rules, span)
        return None if report is None else list(sections(report))

    async def listed(self, pool: asyncpg.Pool, kind: str, *, limit: int) -> Sequence[Section]:
        """The things of one kind that a sum on the overview is made of."""
        async with connection_of(pool) as connection:
            return await list_to_explain(cast("Connection", connection), kind, limit)
