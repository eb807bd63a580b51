"""Clicks → rows of aff_clicks; the database counts clicks, visitors and bots a day."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, NamedTuple

from counterfoil.clicks.rules import ClickRow, Visitors, add_clicks, clicks_before
from counterfoil.clicks.store import CLICKS, COMPARED_CLICKS, closed_before
from counterfoil.database.comparison import Comparison, Rows, rows_since
from counterfoil.database.connection import Connection
from counterfoil.database.facts import PLAN_SLICE, Facts, Outcome
from counterfoil.database.ledger import Ledger
from counterfoil.database.locks import Lock
from counterfoil.database.turns import TURNS
from counterfoil.errors import PoisonRecord
from counterfoil.events import Click
from counterfoil.settings import IpPolicy

USER_AGENTS_AT_ONCE = 3
"""New user agents looked up before the loop may turn: 0.6 ms, and at most 9."""


class Clicks(NamedTuple):
    """The rows of some clicks, sorted by key; `again` are those of keys that one stands for already."""

    facts: Facts[Click]
    rows: Sequence[ClickRow]
    again: Sequence[ClickRow] = ()


class RecordClicks:
    """Every click is one row, of several with one id and time the first that came."""

    locks: ClassVar[tuple[Lock, ...]] = ()

    def __init__(self, visitor_key: bytes, ip_policy: IpPolicy) -> None:
        self.ledger = Ledger(CLICKS)
        self._visitors = Visitors(visitor_key, ip_policy)

    async def plan(self, facts: Facts[Click]) -> Clicks:
        """The rows of these clicks."""
        rows: dict[object, ClickRow] = {}
        again: list[ClickRow] = []
        for start in range(0, len(facts.events), PLAN_SLICE):
            stop = start + PLAN_SLICE
            await self._learn({click.user_agent for click in facts.events[start:stop]})
            again += add_clicks(rows, facts, start, stop, self._visitors)
            await TURNS.preparing()
        return Clicks(facts, sorted(rows.values()), again)  # same lock order in every worker

    async def _learn(self, user_agents: set[str | None]) -> None:
        learnt = 0
        for user_agent in user_agents:
            learnt += self._visitors.bots.learn(user_agent)
            if learnt >= USER_AGENTS_AT_ONCE:
                learnt = 0
                await TURNS.preparing()

    async def write(self, connection: Connection, plan: Clicks) -> Outcome:
        """Write clicks."""
        facts, rows, _ = plan
        await self._refuse_closed(connection, facts)
        known = await self.ledger.write(connection, rows)
        everything = set(range(len(facts.events)))
        if not known and len(rows) == len(everything):
            return Outcome(changed=lambda: everything)
        if len(known) == len(rows):  # a replay
            return Outcome(unchanged=everything)
        written = {row[-2:] for row in rows if row[:2] not in known}
        sources = zip(facts.source_ids, facts.offsets, strict=True)
        changed = {index for index, source in enumerate(sources) if source in written}
        return Outcome(unchanged=everything - changed, changed=lambda: changed)

    async def comparisons(self, connection: Connection, plan: Clicks) -> Sequence[tuple[Comparison, Rows]]:
        """The clicks, to be compared with the ledger's: each by itself, for the first that came stands."""
        since = await closed_before(connection)
        return [(COMPARED_CLICKS, rows_since((*plan.rows, *plan.again), 1, since))]

    @staticmethod
    async def _refuse_closed(connection: Connection, facts: Facts[Click]) -> None:
        """Raise PoisonRecord naming the clicks of months that are closed; the ledger would refuse the batch for them.

        It would not say which they are, and where an old log is read again they are many.
        """
        closed = await closed_before(connection)
        if closed is not None and (late := clicks_before(facts, closed)):
            raise PoisonRecord(f"what occurred before {closed:%Y-%m-%d} is closed", "before_retention", late)
