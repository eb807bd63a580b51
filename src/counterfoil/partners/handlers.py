"""Users and links → their ledgers; the database finds out which partner is whose."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import ClassVar, NamedTuple

from counterfoil.database import locks
from counterfoil.database.comparison import Comparison, Rows, rows_told_by
from counterfoil.database.connection import Connection
from counterfoil.database.facts import PLAN_SLICE, Facts, Outcome, Plan
from counterfoil.database.locks import ATTRIBUTIONS_EXCLUSIVE, Lock
from counterfoil.database.queries import sql
from counterfoil.database.turns import TURNS
from counterfoil.events import LinkCreated, UserCreated
from counterfoil.partners.rules import LinkRow, add_links, program_of, read_suffixes, users
from counterfoil.partners.store import (
    COMPARED_LINKS,
    COMPARED_PARTNERS,
    COMPARED_PROGRAMS,
    COMPARED_USERS,
    ensure_partners,
    ensure_programs,
    find_programs,
    ids_that_differ,
)


class RecordUsers:
    """A user is one row, with the content that was first; whoever is one has a partner."""

    locks: ClassVar[tuple[Lock, ...]] = (ATTRIBUTIONS_EXCLUSIVE,)

    async def plan(self, facts: Facts[UserCreated]) -> Plan[UserCreated]:
        """The rows of these users."""
        return Plan(facts, users(facts))

    async def write(self, connection: Connection, plan: Plan[UserCreated]) -> Outcome:
        """Write users."""
        known = await _write(connection, "insert_shop_users", "move_shop_users_earlier", plan.rows)
        return plan.outcome(known, 1)

    async def comparisons(self, _: Connection, plan: Plan[UserCreated]) -> Sequence[tuple[Comparison, Rows]]:
        """The users, to be compared with the ledger's."""
        told = rows_told_by(plan.facts, plan.rows, 1, lambda event: [(event.user_id,)])
        return [(COMPARED_USERS, told)]


class Links(NamedTuple):
    """The rows of some links, and of each event the program's id; `domains` has the base domain of every program."""

    facts: Facts[LinkCreated]
    rows: Sequence[LinkRow]
    programs: Sequence[str | None]
    domains: dict[str, str]


class RecordLinks:
    """A link is one row, with the content that was first, and so are the program and the partner that it names.

    These two are made for an event that is refused as well: what is there is a function of the set of events.
    """

    locks: ClassVar[tuple[Lock, ...]] = (ATTRIBUTIONS_EXCLUSIVE,)

    def __init__(self) -> None:
        read_suffixes()

    async def plan(self, facts: Facts[LinkCreated]) -> Links:
        """The rows of these links, and their programs."""
        rows: dict[str, LinkRow] = {}
        programs: list[str | None] = []
        domains: dict[str, str] = {}
        for start in range(0, len(facts.events), PLAN_SLICE):
            found = [program_of(event.url) for event in facts.events[start : start + PLAN_SLICE]]
            domains.update(program for program in found if program)
            programs += [program and program[0] for program in found]
            add_links(rows, facts, programs[start:], start)
            await TURNS.preparing()
        ordered = [rows[link_id] for link_id in sorted(rows)]  # same lock order in every worker
        return Links(facts, ordered, programs, domains)

    async def write(self, connection: Connection, links: Links) -> Outcome:
        """Write programs and partners that are missing, then links."""
        events = links.facts.events
        await locks.hold(connection, self.locks)  # before the programs, which its holder may wait for
        made, other_ids = await ensure_programs(connection, links.domains)
        stubs = await ensure_partners(connection, (e.partner_id for e in events if e.partner_id is not None))
        rows = [_with_program(row, other_ids) for row in links.rows] if other_ids else links.rows
        known = await _write(connection, "insert_links", "move_links_earlier", rows)
        outcome = Plan(links.facts, rows).outcome(known, 1)
        changed = outcome.changed()
        changed |= _first_of_each(made, links.programs, changed)
        changed |= _first_of_each(stubs, [event.partner_id for event in events], changed)
        return Outcome(unchanged=outcome.unchanged - changed, changed=lambda: changed)

    async def comparisons(self, connection: Connection, links: Links) -> Sequence[tuple[Comparison, Rows]]:
        """The links, to be compared with the ledger's, and the programs and partners that they name."""
        ids = {domain: program for program, domain in links.domains.items()}
        other_ids = ids_that_differ(ids, await find_programs(connection, ids))
        rows = [_with_program(row, other_ids) for row in links.rows]
        programs = _sources_of(links.facts, links.programs)
        partners = _sources_of(links.facts, [event.partner_id for event in links.facts.events])
        return [
            (COMPARED_LINKS, rows_told_by(links.facts, rows, 1, lambda event: [(event.link_id,)])),
            (COMPARED_PROGRAMS, [(links.domains[name], name, *source) for name, source in programs.items()]),
            (COMPARED_PARTNERS, [(name, *source) for name, source in partners.items()]),
        ]


def _sources_of(facts: Facts[LinkCreated], named: Sequence[str | None]) -> dict[str, tuple[int, int]]:
    """What some events name → the record of the first that does."""
    found: dict[str, tuple[int, int]] = {}
    for name, *source in zip(named, facts.source_ids, facts.offsets, strict=True):
        if name is not None:
            found.setdefault(name, (source[0], source[1]))
    return found


def _with_program(row: LinkRow, other_ids: dict[str, str]) -> LinkRow:
    program = row.program_id
    return row if program is None else row._replace(program_id=other_ids.get(program, program))


def _first_of_each(made: set[str], named: Sequence[str | None], changed: Collection[int]) -> set[int]:
    """For everything made that no changed event names, the index of the first event that does."""
    left = made - {named[index] for index in changed}
    return {named.index(name) for name in left}


async def _write(
    connection: Connection, insert: str, move: str, rows: Sequence[tuple[object, ...]]
) -> set[tuple[object, ...]]:
    """Write rows, sorted by id; answer the keys of those that changed nothing."""
    written = await _keys(connection, insert, rows)
    if len(written) < len(rows):
        written |= await _keys(connection, move, [row for row in rows if row[:1] not in written])
    return {row[:1] for row in rows} - written


async def _keys(
    connection: Connection, statement: str, rows: Sequence[tuple[object, ...]]
) -> set[tuple[object, ...]]:
    columns = [list(column) for column in zip(*rows, strict=True)]
    return {tuple(row) for row in await connection.fetch(sql(statement), *columns)}
