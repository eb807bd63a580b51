"""Conversions → rows of conversions; the database decides which of them an order is attributed to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from counterfoil.conversions.rules import conversion_row
from counterfoil.conversions.store import COMPARED_CONVERSIONS, CONVERSIONS
from counterfoil.database.comparison import Comparison, Rows, told_rows
from counterfoil.database.connection import Connection
from counterfoil.database.facts import Facts, Outcome, Plan, plan_standing
from counterfoil.database.ledger import Ledger
from counterfoil.database.locks import ATTRIBUTIONS_SHARED, Lock
from counterfoil.events import Conversion


class RecordConversions:
    """Everybody's claim to an order is one row, the earliest that they made, whether it stands or not."""

    locks: ClassVar[tuple[Lock, ...]] = (ATTRIBUTIONS_SHARED,)

    def __init__(self) -> None:
        self.ledger = Ledger(CONVERSIONS)

    async def plan(self, facts: Facts[Conversion]) -> Plan[Conversion]:
        """The rows of these conversions."""
        return await plan_standing(facts, conversion_row)

    async def write(self, connection: Connection, plan: Plan[Conversion]) -> Outcome:
        """Write conversions."""
        return await self.ledger.write_plan(connection, plan)

    async def comparisons(self, _: Connection, plan: Plan[Conversion]) -> Sequence[tuple[Comparison, Rows]]:
        """The conversions, to be compared with the ledger's."""
        return [(COMPARED_CONVERSIONS, told_rows(plan, CONVERSIONS.key_size))]
