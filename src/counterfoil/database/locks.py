"""The advisory locks of the ledgers, where facts meet that may be written in two open transactions at once.

Triggers take them for every statement on a ledger. A transaction that writes several ledgers takes all it will need
before the first of them: the strongest way, in one order, or two of them would wait for each other.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from counterfoil.database.connection import Connection
from counterfoil.database.queries import sql


class Lock(NamedTuple):
    """A lock of the ledgers: the frequent side of a meeting shares it, the rare side has it alone."""

    number: int
    exclusive: bool


ORDERS_SHARED = Lock(1, exclusive=False)
ORDERS_EXCLUSIVE = Lock(1, exclusive=True)
ATTRIBUTIONS_SHARED = Lock(2, exclusive=False)
ATTRIBUTIONS_EXCLUSIVE = Lock(2, exclusive=True)
FORGOTTEN_EXCLUSIVE = Lock(5, exclusive=True)
"""Of whoever forgets a person; `database.forgotten` shares it. Taken before the others, or alone."""


def strongest(locks: Iterable[Lock]) -> list[Lock]:
    """One lock for each number, exclusive where any is, in the order of taking."""
    found: dict[int, bool] = {}
    for lock in locks:
        found[lock.number] = found.get(lock.number, False) or lock.exclusive
    return [Lock(number, exclusive) for number, exclusive in sorted(found.items())]


async def hold(connection: Connection, locks: Iterable[Lock]) -> None:
    """Take the locks until the caller's transaction ends."""
    for lock in strongest(locks):
        await connection.execute(sql("hold_exclusive" if lock.exclusive else "hold_shared"), lock.number)
