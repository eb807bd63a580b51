"""Events of vouchers → their ledgers; the database counts them, and finds out what meets what."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from itertools import islice
from typing import ClassVar, NamedTuple

from counterfoil.database.comparison import Comparison, Rows, rows_since, told_rows
from counterfoil.database.connection import Connection
from counterfoil.database.facts import PLAN_SLICE, Facts, Outcome, Plan, plan_standing
from counterfoil.database.ledger import Ledger
from counterfoil.database.locks import Lock
from counterfoil.database.turns import TURNS
from counterfoil.errors import PoisonRecord
from counterfoil.events import Claim, Impression, Redemption, Scan, VoucherCreated
from counterfoil.events.addresses import KeptAddresses
from counterfoil.settings import IpPolicy
from counterfoil.vouchers.rules import (
    ScanRow,
    add_scans,
    attempt_row,
    claim_row,
    impression_row,
    scans_before,
    voucher_row,
    vouchers_of,
)
from counterfoil.vouchers.store import (
    ATTEMPTS,
    CLAIMS,
    COMPARED_ATTEMPTS,
    COMPARED_CLAIMS,
    COMPARED_IMPRESSIONS,
    COMPARED_SCANS,
    COMPARED_VOUCHERS,
    IMPRESSIONS,
    SCANS,
    VOUCHERS,
    hold_vouchers,
    observe_claims,
    scans_closed_before,
)

OBSERVED = 1_000
"""Claims of a batch that are looked at for the metrics: of a backlog not each."""


class _VoucherFacts:
    """What the handlers have in common: no lock of a whole ledger, and rows of vouchers that are held instead."""

    locks: ClassVar[tuple[Lock, ...]] = ()
    holds: ClassVar[str] = "hold_vouchers"


class RecordVouchers(_VoucherFacts):
    """What voucher.created says of a voucher, with the content that was first."""

    def __init__(self) -> None:
        self.ledger = Ledger(VOUCHERS)

    async def plan(self, facts: Facts[VoucherCreated]) -> Plan[VoucherCreated]:
        """The rows of these vouchers."""
        return await plan_standing(facts, voucher_row)

    def held(self, plan: Plan[VoucherCreated]) -> Collection[str]:
        """The vouchers to hold."""
        return {row[0] for row in plan.rows}

    async def write(self, connection: Connection, plan: Plan[VoucherCreated]) -> Outcome:
        """Write vouchers; all are held first, or those that are known would be after the new ones, in another order."""
        await hold_vouchers(connection, self.held(plan))
        return await self.ledger.write_plan(connection, plan)

    async def comparisons(
        self, _: Connection, plan: Plan[VoucherCreated]
    ) -> Sequence[tuple[Comparison, Rows]]:
        """What is told of vouchers, to be compared with the ledger's."""
        return [(COMPARED_VOUCHERS, told_rows(plan, VOUCHERS.key_size))]


class RecordImpressions(_VoucherFacts):
    """An impression is one row, with the content that was first."""

    def __init__(self) -> None:
        self.ledger = Ledger(IMPRESSIONS)

    async def plan(self, facts: Facts[Impression]) -> Plan[Impression]:
        """The rows of these impressions."""
        return await plan_standing(facts, impression_row)

    def held(self, plan: Plan[Impression]) -> Collection[str]:
        """The vouchers to hold."""
        return vouchers_of((*plan.rows, *plan.others))

    async def write(self, connection: Connection, plan: Plan[Impression]) -> Outcome:
        """Write impressions; the vouchers first, since new ones are counted before those that give way."""
        await hold_vouchers(connection, self.held(plan))
        return await self.ledger.write_plan(connection, plan)

    async def comparisons(self, _: Connection, plan: Plan[Impression]) -> Sequence[tuple[Comparison, Rows]]:
        """The impressions, to be compared with the ledger's."""
        return [(COMPARED_IMPRESSIONS, told_rows(plan, IMPRESSIONS.key_size))]


class RecordClaims(_VoucherFacts):
    """A customer claims a voucher once, at the earliest time that is told."""

    def __init__(self) -> None:
        self.ledger = Ledger(CLAIMS)

    async def plan(self, facts: Facts[Claim]) -> Plan[Claim]:
        """The rows of these claims."""
        return await plan_standing(facts, claim_row)

    def held(self, plan: Plan[Claim]) -> Collection[str]:
        """The vouchers to hold."""
        return {row[1] for row in plan.rows}

    async def write(self, connection: Connection, plan: Plan[Claim]) -> Outcome:
        """Write claims; the vouchers first, since a redemption that holds one may write the same row of a wallet."""
        await hold_vouchers(connection, self.held(plan))
        outcome = await self.ledger.write_plan(connection, plan)
        some = [plan.facts.events[index] for index in islice(outcome.changed(), OBSERVED)]
        observed = await observe_claims(connection, [(claim.customer_id, claim.voucher_id) for claim in some])
        return replace(outcome, observed=observed)

    async def comparisons(self, _: Connection, plan: Plan[Claim]) -> Sequence[tuple[Comparison, Rows]]:
        """The claims, to be compared with the ledger's."""
        return [(COMPARED_CLAIMS, told_rows(plan, CLAIMS.key_size))]


class RecordRedemptions(_VoucherFacts):
    """An attempt to redeem is one row, with the content that was first, whether it succeeded or not."""

    def __init__(self) -> None:
        self.ledger = Ledger(ATTEMPTS)

    async def plan(self, facts: Facts[Redemption]) -> Plan[Redemption]:
        """The rows of these attempts."""
        return await plan_standing(facts, attempt_row)

    def held(self, plan: Plan[Redemption]) -> Collection[str]:
        """The vouchers to hold."""
        return vouchers_of((*plan.rows, *plan.others))

    async def write(self, connection: Connection, plan: Plan[Redemption]) -> Outcome:
        """Write attempts; the vouchers first, for what is refused names vouchers too."""
        await hold_vouchers(connection, self.held(plan))
        return await self.ledger.write_plan(connection, plan)

    async def comparisons(self, _: Connection, plan: Plan[Redemption]) -> Sequence[tuple[Comparison, Rows]]:
        """The attempts, to be compared with the ledger's."""
        return [(COMPARED_ATTEMPTS, told_rows(plan, ATTEMPTS.key_size))]


class Scans(NamedTuple):
    """The rows of some scans, sorted by key; `again` are those of keys that one stands for already."""

    facts: Facts[Scan]
    rows: Sequence[ScanRow]
    again: Sequence[ScanRow] = ()


class RecordScans(_VoucherFacts):
    """Every scan is one row, of several with one id and time the first that came."""

    def __init__(self, address_key: bytes, ip_policy: IpPolicy) -> None:
        self.ledger = Ledger(SCANS)
        self._keep = KeptAddresses(address_key, ip_policy).keep

    async def plan(self, facts: Facts[Scan]) -> Scans:
        """The rows of these scans."""
        rows: dict[object, ScanRow] = {}
        again: list[ScanRow] = []
        for start in range(0, len(facts.events), PLAN_SLICE):
            again += add_scans(rows, facts, start, start + PLAN_SLICE, self._keep)
            await TURNS.preparing()
        return Scans(facts, sorted(rows.values()), again)  # same lock order in every worker

    def held(self, plan: Scans) -> Collection[str]:
        """The vouchers to hold."""
        return vouchers_of(plan.rows)

    async def write(self, connection: Connection, plan: Scans) -> Outcome:
        """Write scans."""
        facts, rows, _ = plan
        await self._refuse_closed(connection, facts)
        known = await self.ledger.write(connection, rows)
        return Plan(facts, rows).outcome(known, SCANS.key_size)

    async def comparisons(self, connection: Connection, plan: Scans) -> Sequence[tuple[Comparison, Rows]]:
        """The scans, to be compared with the ledger's: each by itself, for the first that came stands."""
        since = await scans_closed_before(connection)
        return [(COMPARED_SCANS, rows_since((*plan.rows, *plan.again), 1, since))]

    @staticmethod
    async def _refuse_closed(connection: Connection, facts: Facts[Scan]) -> None:
        """Raise PoisonRecord naming the scans of months that are closed; the ledger would refuse the batch for them."""
        closed = await scans_closed_before(connection)
        if closed is not None and (late := scans_before(facts, closed)):
            raise PoisonRecord(f"what occurred before {closed:%Y-%m-%d} is closed", "before_retention", late)
