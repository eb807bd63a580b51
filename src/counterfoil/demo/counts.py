"""What the shop's book says and what the database says, in the same shape, and where they differ."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, fields
from decimal import Decimal

import asyncpg

from counterfoil.database.counters import find_drift
from counterfoil.demo.traffic import Order, Sample
from counterfoil.publishing import Published
from counterfoil.routing import COUNTERS

MOST_NAMED = 20
"""Differences of one kind that are named; more are only counted."""

OUTCOMES = ("applied", "duplicates", "dead", "skipped")

Place = tuple[str, int, int]
"""(topic, partition, offset)"""


@dataclass
class Counts:
    """Everything that must agree."""

    times_used_by_coupon: dict[str, int] = field(default_factory=dict)
    coupon_usages: dict[tuple[str, str], str] = field(default_factory=dict)
    promo_codes: dict[str, tuple[int, Decimal]] = field(default_factory=dict)
    promo_uses: dict[tuple[str, str], tuple[Decimal, str]] = field(default_factory=dict)
    cancellations: dict[str, bool] = field(default_factory=dict)
    dead_letters: dict[Place, tuple[str, bytes]] = field(default_factory=dict)
    positions: dict[tuple[str, int], int] = field(default_factory=dict)
    accounts: dict[str, dict[str, int]] = field(default_factory=dict)
    drift: dict[str, str] = field(default_factory=dict)

    @property
    def records(self) -> int:
        """Records that the accounts cover."""
        return sum(sum(account.values()) for account in self.accounts.values())

    def total(self, outcome: str) -> int:
        """Records with one outcome: applied, duplicates, dead or skipped."""
        return sum(account[outcome] for account in self.accounts.values())


def tally(orders: Iterable[Order], published: Iterable[tuple[Sample, Published]]) -> Counts:
    """What must be counted when each order counts once, whatever was published twice."""
    book = Counts()
    for order in orders:
        _book_order(book, order)
    for sample, place in published:
        _book_record(book, sample, place)
    return book


def _book_order(book: Counts, order: Order) -> None:
    state = "reversed" if order.canceled else "counted"
    if order.canceled:
        book.cancellations[order.order_id] = True
    for code in order.counted_codes:
        book.coupon_usages[order.order_id, code] = state
        book.times_used_by_coupon[code] = book.times_used_by_coupon.get(code, 0) + (not order.canceled)
    for code, (_, bonus) in order.promos.items():
        book.promo_uses[order.order_id, code] = (bonus, state)
        uses, issued = book.promo_codes.get(code, (0, Decimal(0)))
        book.promo_codes[code] = (uses, issued) if order.canceled else (uses + 1, issued + bonus)


def _book_record(book: Counts, sample: Sample, place: Published) -> None:
    account = book.accounts.setdefault(place.topic, dict.fromkeys(OUTCOMES, 0))
    if sample.malformed is not None:
        book.dead_letters[place] = (sample.malformed, sample.value)
        account["dead"] += 1
    else:
        account["duplicates" if sample.doubled else "applied"] += 1
    partition = (place.topic, place.partition)
    book.positions[partition] = max(book.positions.get(partition, 0), place.offset + 1)


async def counted(connection: asyncpg.Connection) -> Counts:
    """What the database says."""

    async def rows(statement: str) -> list[asyncpg.Record]:
        return list(await connection.fetch(statement))

    reversed_ = "CASE WHEN reversed_at IS NULL THEN 'counted' ELSE 'reversed' END"
    return Counts(
        times_used_by_coupon={
            row["code"]: row["times_used"]
            for row in await rows("SELECT code, times_used FROM affiliate_coupons")
        },
        coupon_usages={
            (order_id, code): state
            for order_id, code, state in await rows(
                f"SELECT order_id, code, {reversed_} FROM affiliate_coupon_usages"  # noqa: S608
            )
        },
        promo_codes={
            code: (uses, bonus)
            for code, uses, bonus in await rows(
                "SELECT code, times_used, total_bonus_issued FROM promo_codes"
            )
        },
        promo_uses={
            (order_id, code): (bonus, state)
            for order_id, code, bonus, state in await rows(
                f"SELECT order_id, code, bonus_amount, {reversed_} "  # noqa: S608
                "FROM promo_code_uses JOIN promo_codes ON promo_codes.id = promo_code_id"
            )
        },
        cancellations={
            row["order_id"]: True for row in await rows("SELECT order_id FROM order_cancellations")
        },
        dead_letters={
            (topic, partition, offset): (kind, value or b"")
            for topic, partition, offset, kind, value in await rows(
                'SELECT topic, "partition", "offset", error_kind, value FROM dead_letters'
            )
        },
        positions={
            (topic, partition): end
            for topic, partition, end in await rows(
                'SELECT topic, "partition", next_offset FROM stream_positions '
                "WHERE next_offset > first_offset"
            )
        },
        accounts={
            row["topic"]: {name: int(row[name]) for name in OUTCOMES}
            for row in await rows(
                "SELECT topic, sum(applied) AS applied, sum(duplicates) AS duplicates, sum(dead) AS dead, "
                "sum(skipped) AS skipped FROM stream_positions "
                "GROUP BY topic HAVING sum(next_offset - first_offset) > 0"
            )
        },
        drift={
            f"{d.table} {d.key} {d.counter}": f"stored {d.stored}, recounted {d.counted}"
            for d in await find_drift(connection, COUNTERS)
        },
    )


def differences(sent: Counts, found: Counts) -> list[str]:
    """Each difference in one line; empty when all is exact."""
    lines: list[str] = []
    for part in fields(Counts):
        name = part.name.replace("_", " ")
        unequal = list(_unequal(getattr(sent, part.name), getattr(found, part.name)))
        lines += [f"{name}: {line}" for line in unequal[:MOST_NAMED]]
        if len(unequal) > MOST_NAMED:
            lines.append(f"{name}: and {len(unequal) - MOST_NAMED} more")
    return lines


def _unequal(sent: dict[object, object], found: dict[object, object]) -> Iterator[str]:
    for key in sorted({*sent, *found}, key=str):
        if sent.get(key) != found.get(key):
            named = "/".join(map(str, key)) if isinstance(key, tuple) else str(key)
            yield f"{named}: sent {sent.get(key, 'none')}, found {found.get(key, 'none')}"
