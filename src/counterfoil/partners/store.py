"""Programs and partners as rows that are made where they are missing; how users and links are compared."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from counterfoil.database.comparison import Comparison
from counterfoil.database.connection import Connection
from counterfoil.database.locks import ATTRIBUTIONS_EXCLUSIVE
from counterfoil.database.queries import sql

COMPARED_USERS = Comparison(
    "shop_users",
    ("id", "name", "email", "occurred_at", "source_id", "source_offset"),
    1,
    find="find_different_users",
    overwrite="overwrite_users",
    locks=(ATTRIBUTIONS_EXCLUSIVE,),
)

COMPARED_LINKS = Comparison(
    "links",
    (
        "id",
        "url",
        "user_id",
        "named_partner_id",
        "program_id",
        "pixel_id",
        "occurred_at",
        "source_id",
        "source_offset",
    ),
    1,
    find="find_different_links",
    overwrite="overwrite_links",
    locks=(ATTRIBUTIONS_EXCLUSIVE,),
)

COMPARED_PROGRAMS = Comparison(
    "programs",
    ("base_domain", "id", "source_id", "source_offset"),
    1,
    find="find_missing_programs",
    overwrite=None,
)

COMPARED_PARTNERS = Comparison(
    "partners", ("id", "source_id", "source_offset"), 1, find="find_missing_partners", overwrite=None
)


async def ensure_programs(
    connection: Connection, domains: Mapping[str, str]
) -> tuple[set[str], dict[str, str]]:
    """Make the programs that are missing, given as id → base domain; the caller holds the attributions' lock.

    Answers the ids that were made, and id → the one that it has here, for those imported under another.
    """
    ids = {domain: program for program, domain in domains.items()}
    wanted = sorted(ids)
    made = await connection.fetch(sql("insert_programs"), [ids[domain] for domain in wanted], wanted)
    there = await find_programs(connection, wanted)
    return {ids[row["base_domain"]] for row in made}, ids_that_differ(ids, there)


async def find_programs(connection: Connection, domains: Iterable[str]) -> dict[str, str]:
    """Base domain → id, of the programs that there are."""
    rows = await connection.fetch(sql("find_programs"), list(domains))
    return {row["base_domain"]: row["id"] for row in rows}


def ids_that_differ(ids: Mapping[str, str], there: Mapping[str, str]) -> dict[str, str]:
    """Our id of a program → its id here, where that is another; both are given by base domain."""
    return {ids[domain]: here for domain, here in there.items() if here != ids[domain]}


async def ensure_partners(connection: Connection, ids: Iterable[str]) -> set[str]:
    """Make the partners that are missing, without a name; answers those that were made."""
    wanted = sorted(set(ids))
    return (
        {row["id"] for row in await connection.fetch(sql("insert_partner_stubs"), wanted)}
        if wanted
        else set()
    )
