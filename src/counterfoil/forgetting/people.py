"""Forgets a customer: first that it is so, which every writer heeds from then on, then row by row what is stored."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import NamedTuple

import asyncpg

from counterfoil.database import locks
from counterfoil.database.connection import Connection
from counterfoil.database.forgotten import pseudonym_key, pseudonym_of
from counterfoil.database.queries import sql
from counterfoil.events.erased import place_only
from counterfoil.events.rules import BLANKS
from counterfoil.forgetting.erasure import CHUNK, Erasure, Tell, in_transaction, rows_of
from counterfoil.forgetting.naming import Naming
from counterfoil.forgetting.parked import count_parked, erase_parked


class _Scan(NamedTuple):
    scan_id: str
    occurred_at: datetime
    voucher_id: str
    location: str | None
    device: str | None
    address: str | None


async def forget_customer(
    connection: Connection, person: str, *, user_topic: str, dry_run: bool, tell: Tell
) -> Erasure:
    """Replace a customer's id by a pseudonym wherever it stands, and empty what else is told of the person.

    Running it again goes on with what another run has left; two at once do no harm. Users are told of on `user_topic`.
    """
    key = await pseudonym_key(connection)
    name = pseudonym_of(key, person)
    erasure = Erasure("customer", dry_run, instead=name)
    erasure.was_forgotten = await connection.fetchval(sql("is_forgotten"), name)
    erasure.keeps_account = await connection.fetchval(sql("is_partner"), person)
    naming = Naming.of_person(person, user_topic)
    if dry_run:
        erasure.erased = await _count(connection, person)
        erasure.erased["dead_letters"] = await count_parked(connection, naming, tell)
        return erasure
    await _mark(connection, name)
    await _Forgetting(connection, key, person, erasure, tell).run()
    await erase_parked(connection, naming, erasure, tell)
    return erasure


async def _count(connection: Connection, person: str) -> Counter[str]:
    addresses = await _addresses(connection, person)
    found: Counter[str] = Counter()
    for statement, known in (("count_of_person", (addresses,)), ("count_traces_of_person", ())):
        row = await connection.fetchrow(sql(statement), person, *known)
        assert row is not None  # noqa: S101 - counts are a row
        found.update(dict(row))
    return found


async def _addresses(connection: Connection, person: str) -> list[str]:
    """What orders call the person: their text is kept as it came."""
    rows = await connection.fetch(sql("addresses_of_person"), person, BLANKS)
    return [row["address"] for row in rows]


async def _mark(connection: Connection, name: str) -> None:
    """From the commit on all write of the person under the pseudonym: whoever began before has ended by then."""

    async def work() -> None:
        await locks.hold(connection, [locks.FORGOTTEN_EXCLUSIVE])
        await connection.execute(sql("mark_forgotten"), name)

    await in_transaction(connection, work)


class _Forgetting:
    """One run over what is stored of a person who is marked."""

    def __init__(self, connection: Connection, key: bytes, person: str, erasure: Erasure, tell: Tell) -> None:
        self._connection = connection
        self._key = key
        self._person = person
        self._name = pseudonym_of(key, person)
        self._erasure = erasure
        self._tell = tell

    async def run(self) -> None:
        """Erase all that there is, in transactions."""
        await self._vouchers()
        addresses = await _addresses(self._connection, self._person)  # nobody adds one any more
        await in_transaction(self._connection, lambda: self._others(addresses))

    async def _vouchers(self) -> None:
        """Voucher by voucher: in no snapshot the person is another on the next day, or in the wallet."""
        found = await self._connection.fetch(sql("vouchers_of_person"), self._person)
        scans: dict[str, list[_Scan]] = {}
        for row in await self._connection.fetch(sql("scans_of_person"), self._person):
            scans.setdefault(row["voucher_id"], []).append(_Scan(*row))
        done, due = 0, len(found)
        for vouchers in _chunks(found):
            told = [scan for voucher in vouchers for scan in scans.get(voucher, ())]
            erased = await in_transaction(self._connection, lambda v=vouchers, s=told: self._some(v, s))  # type: ignore[misc]
            self._erasure.erased.update(erased)
            done += len(vouchers)
            self._tell("vouchers", done, due)

    async def _some(self, vouchers: Sequence[str], scans: Sequence[_Scan]) -> Counter[str]:
        erased: Counter[str] = Counter()
        if scans:
            await self._connection.execute(sql("hold_watch"))
        await self._connection.execute(sql("hold_vouchers"), vouchers)
        erased["voucher_scanner_days"] = await self._scanner_days(vouchers)
        if scans:
            erased["voucher_scans"] = await self._scans(scans)
            erased.update(await self._traces(scans))
        whose = (vouchers, self._person, self._name)
        erased["redemption_attempts"] = await rows_of(self._connection, "erase_redemptions", *whose)
        await self._connection.execute(sql("join_wallets"), *whose)
        erased["customer_vouchers"] = await rows_of(self._connection, "drop_joined_wallets", *whose)
        erased["customer_vouchers"] += await rows_of(self._connection, "erase_wallet", *whose)
        erased["refused_voucher_facts"] = await self._connection.fetchval(
            sql("erase_refused_voucher_facts"), *whose
        )
        return erased

    async def _scanner_days(self, vouchers: Sequence[str]) -> int:
        taken = await self._connection.fetch(sql("take_scanner_days"), vouchers, self._person)
        if taken:
            columns = [list(column) for column in zip(*taken, strict=True)]
            await self._connection.execute(sql("put_scanner_days"), *columns, self._name)
        return len(taken)

    async def _scans(self, scans: Sequence[_Scan]) -> int:
        """After the days: of vouchers whose days have the pseudonym all scans get it here."""
        await self._connection.execute(sql("note_moved_days"), "on")
        erased = await rows_of(
            self._connection,
            "erase_scans",
            [scan.scan_id for scan in scans],
            [scan.occurred_at for scan in scans],
            [place_only(scan.location) for scan in scans],
            self._person,
            self._name,
        )
        await self._connection.execute(sql("note_moved_days"), "")
        return erased

    async def _traces(self, scans: Iterable[_Scan]) -> Counter[str]:
        """Devices and whole addresses in alerts: in the transaction that erases the scans which tell whose they are."""
        traces = {("device", scan.device) for scan in scans} | {("address", scan.address) for scan in scans}
        known = sorted((kind, subject) for kind, subject in traces if subject)
        if not known:
            return Counter()
        kinds, subjects = map(list, zip(*known, strict=True))
        instead = [pseudonym_of(self._key, f"{kind}:{subject}") for kind, subject in known]
        return Counter(
            alerts=await rows_of(self._connection, "erase_alerts", kinds, subjects, instead),
            notifications=await rows_of(self._connection, "erase_notifications", kinds, subjects, instead),
            outbox=await rows_of(self._connection, "erase_outbox", kinds, subjects, instead),
            alert_cooldowns=await rows_of(self._connection, "erase_cooldowns_of", kinds, subjects),
            scan_rates=await rows_of(self._connection, "erase_rates_of", kinds, subjects),
        )

    async def _others(self, addresses: Sequence[str]) -> None:
        erased = self._erasure.erased
        both = (self._person, self._name)
        await locks.hold(self._connection, [locks.ORDERS_SHARED, locks.ATTRIBUTIONS_EXCLUSIVE])
        partners = await rows_of(self._connection, "erase_partner", self._person)
        told = (addresses, self._name)
        erased |= Counter(
            promo_code_uses=await rows_of(self._connection, "erase_promo_uses", *told),
            refused_facts=await self._connection.fetchval(sql("erase_refused_facts"), *told),
            shop_users=await rows_of(self._connection, "erase_user", self._person),
            partners=partners,
            verifications=await rows_of(self._connection, "erase_verifications", *both),
        )


def _chunks(found: Sequence[asyncpg.Record]) -> Iterator[list[str]]:
    """Vouchers, so many that their rows are a transaction's; whole ones."""
    vouchers: list[str] = []
    rows = 0
    for row in found:
        if vouchers and rows + row["rows"] > CHUNK:
            yield vouchers
            vouchers, rows = [], 0
        vouchers.append(row["voucher_id"])
        rows += row["rows"]
    if vouchers:
        yield vouchers
