"""Partners for users, links and commissions that were imported, or written while a constraint was missing.

Under live traffic, in transactions of a thousand rows, and as often as one likes: what is known already is left alone.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar

import asyncpg
from tenacity import retry, retry_if_exception_type, stop_after_attempt, wait_random

from counterfoil.database import locks
from counterfoil.database.connection import Connection
from counterfoil.database.queries import sql
from counterfoil.partners.rules import program_of
from counterfoil.partners.store import ensure_partners, ensure_programs

CHUNK = 1_000

LOCK_TIMEOUT = "5s"
"""How long a constraint waits for its table: behind it everybody else waits."""

T = TypeVar("T")

Tell = Callable[[str, int, int], None]
"""Hears of progress: what is being done, how many rows are, and how many there were to do."""


@dataclass(slots=True)
class Changes:
    """Rows that got what they lacked, or, in a dry run, would get it."""

    blanks: int = 0
    users: int = 0
    users_made: int = 0
    links: int = 0
    programs_of_links: int = 0
    partners_of_links: int = 0
    commissions: int = 0


@dataclass(frozen=True, slots=True)
class Gaps:
    """What is without its partner; `commissions_resolvable` are those whose link has one all the same."""

    users_without_default_partner: int
    links_without_partner: int
    links_of_unknown_users: int
    commissions_null: int
    commissions_blank: int
    commissions_invalid: int
    commissions_resolvable: int


@dataclass(frozen=True, slots=True)
class Constraints:
    """Those that were added or checked, and the lines that are left for who owns the tables."""

    added: list[str] = field(default_factory=list)
    to_run: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Report:
    """What was done, and what is left."""

    dry_run: bool
    changed: Changes
    constraints: Constraints
    left: Gaps

    @property
    def is_clean(self) -> bool:
        """False where commissions are left whose partner is invalid, or could have been found."""
        left = self.left
        return not left.commissions_invalid and (self.dry_run or not left.commissions_resolvable)

    def as_dict(self) -> dict[str, Any]:
        """Plain values to print."""
        return {**asdict(self), "clean": self.is_clean}


async def backfill_partners(connection: Connection, *, dry_run: bool, tell: Tell) -> Report:
    """Do it, or, in a dry run, count what there is to do and write nothing."""
    due = await _due(connection)
    if dry_run:
        lines = [row["line"] for row in await _missing_constraints(connection)]
        return Report(True, due, Constraints(to_run=lines), await _gaps(connection, due.commissions))
    work = _Backfill(connection, due, tell)
    await work.run()
    constraints = await work.forbid_blanks()
    left = await _due(connection, with_programs=False)
    return Report(False, work.changed, constraints, await _gaps(connection, left.commissions))


class _Backfill:
    """One run; its steps build on each other: a blank is in the way, a user has links, a link has commissions."""

    def __init__(self, connection: Connection, due: Changes, tell: Tell) -> None:
        self.changed = Changes()
        self._connection = connection
        self._due = due
        self._tell = tell

    async def run(self) -> None:
        """Every step, in order."""
        await self.clear_blanks()
        await self._each("users", "users_without_partner", self._touch_users)
        await self._each("users_made", "unknown_users_of_links", self._make_users)
        await self._each("links", "links_waiting", self._touch_links)
        await self._each("partners_of_links", "missing_partners_of_links", self._make_partners)
        await self._each("programs_of_links", "links_without_program", self._find_programs)
        await self._each("commissions", "orders_without_partner", self._find_partners)

    async def clear_blanks(self) -> None:
        """Make `''` null, in commissions first: what is settled by the other changes must not meet it there."""
        await self._each("blanks", "orders_with_blank_commissions", self._clear_commissions)
        for statement in ("clear_blanks_of_users", "clear_blanks_of_links"):
            while cleared := await self._held(statement, CHUNK):
                self._count("blanks", cleared)

    async def forbid_blanks(self) -> Constraints:
        """See to it that there are constraints against blanks, valid ones; who may not add them is told the lines."""
        found = Constraints()
        for row in await _missing_constraints(self._connection):
            if not row["is_there"] and not await self._may(row["line"]):
                found.to_run.append(row["line"])
        await self.clear_blanks()  # those that came before the constraints did
        for row in await _missing_constraints(self._connection):
            if row["is_there"]:
                done = await self._may(row["line"])
                (found.added if done else found.to_run).append(row["constraint"] if done else row["line"])
        return found

    # Steps: each takes a page of rows and answers how many got what they lacked

    async def _clear_commissions(self, page: Sequence[asyncpg.Record]) -> int:
        return await self._alone("clear_blanks_of_commissions", [row["order_id"] for row in page])

    async def _touch_users(self, page: Sequence[asyncpg.Record]) -> int:
        ids = [row["id"] for row in page]
        waiting, touched = await self._held_all(("count_links_waiting", ids), ("touch_users", ids))
        self._count("links", waiting)
        return touched

    async def _make_users(self, page: Sequence[asyncpg.Record]) -> int:
        ids, times = [row["user_id"] for row in page], [row["occurred_at"] for row in page]
        waiting, made = await self._held_all(
            ("count_links_waiting", ids), ("insert_unknown_users", ids, times)
        )
        self._count("links", waiting)
        return made

    async def _touch_links(self, page: Sequence[asyncpg.Record]) -> int:
        return await self._held("touch_links", [row["id"] for row in page])

    async def _make_partners(self, page: Sequence[asyncpg.Record]) -> int:
        return len(await ensure_partners(self._connection, [row["partner_id"] for row in page]))

    async def _find_programs(self, page: Sequence[asyncpg.Record]) -> int:
        found = [(row["id"], row["url"], program) for row in page if (program := program_of(row["url"]))]
        if not found:
            return 0

        async def work() -> int:
            await locks.hold(self._connection, [locks.ATTRIBUTIONS_EXCLUSIVE])
            _, other_ids = await ensure_programs(self._connection, dict(program for _, _, program in found))
            links, urls, programs = zip(*found, strict=True)
            ids = [other_ids.get(program, program) for program, _ in programs]
            return int(await self._connection.fetchval(sql("set_programs_of_links"), links, urls, ids))

        return await _again(self._connection, work)

    async def _find_partners(self, page: Sequence[asyncpg.Record]) -> int:
        return await self._alone("find_partners_of_commissions", [row["order_id"] for row in page])

    # How they are run

    async def _each(
        self, what: str, statement: str, step: Callable[[Sequence[asyncpg.Record]], Awaitable[int]]
    ) -> None:
        self._count(what, 0)
        async for page in _pages(self._connection, statement):
            self._count(what, await step(page))

    async def _alone(self, statement: str, *arguments: object) -> int:
        async def work() -> int:
            return int(await self._connection.fetchval(sql(statement), *arguments))

        return await _again(self._connection, work)

    async def _held(self, statement: str, *arguments: object) -> int:
        (answer,) = await self._held_all((statement, *arguments))
        return answer

    async def _held_all(self, *statements: tuple[Any, ...]) -> list[int]:
        """The answers of statements in one transaction that nobody else's links and users meet."""

        async def work() -> list[int]:
            await locks.hold(self._connection, [locks.ATTRIBUTIONS_EXCLUSIVE])
            return [
                int(await self._connection.fetchval(sql(name), *arguments)) for name, *arguments in statements
            ]

        return await _again(self._connection, work)

    async def _may(self, line: str) -> bool:
        """Run a line of DDL; False where the role may not, or the table was not to be had in time."""
        try:
            async with self._connection.transaction():
                await self._connection.execute(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'")
                await self._connection.execute(line)
        except (asyncpg.InsufficientPrivilegeError, asyncpg.LockNotAvailableError):
            return False
        return True

    def _count(self, what: str, rows: int) -> None:
        done = getattr(self.changed, what) + rows
        setattr(self.changed, what, done)
        self._tell(what, done, getattr(self._due, what))


async def _due(connection: Connection, *, with_programs: bool = True) -> Changes:
    counts = await connection.fetch(sql("count_backfill"))
    due = Changes(**counts[0])
    if with_programs:
        async for page in _pages(connection, "links_without_program"):
            due.programs_of_links += len([row for row in page if program_of(row["url"])])
    return due


async def _gaps(connection: Connection, resolvable: int) -> Gaps:
    counts = await connection.fetch(sql("count_partner_gaps"))
    return Gaps(**counts[0], commissions_resolvable=resolvable)


async def _missing_constraints(connection: Connection) -> list[asyncpg.Record]:
    return await connection.fetch(sql("missing_constraints_of_partners"))


async def _pages(connection: Connection, statement: str) -> AsyncIterator[Sequence[asyncpg.Record]]:
    """The rows of a statement by their first column, a page at a time, each read when the one before is done."""
    after = ""
    while page := await connection.fetch(sql(statement), after, CHUNK):
        yield page
        after = page[-1][0]


@retry(
    retry=retry_if_exception_type((asyncpg.DeadlockDetectedError, asyncpg.SerializationError)),
    stop=stop_after_attempt(5),
    wait=wait_random(0, 0.5),
    reraise=True,
)
async def _again(connection: Connection, work: Callable[[], Awaitable[T]]) -> T:
    """Work in a transaction of its own, again where live traffic was in the way."""
    async with connection.transaction():
        return await work()
