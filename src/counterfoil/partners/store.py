"""Programs and partners as rows that are made where they are missing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from counterfoil.database.connection import Connection
from counterfoil.database.queries import sql


async def ensure_programs(
    connection: Connection, domains: Mapping[str, str]
) -> tuple[set[str], dict[str, str]]:
    """Make the programs that are missing, given as id → base domain; the caller holds the attributions' lock.

    Answers the ids that were made, and id → the one that it has here, for those imported under another.
    """
    ids = {domain: program for program, domain in domains.items()}
    wanted = sorted(ids)
    made = await connection.fetch(sql("insert_programs"), [ids[domain] for domain in wanted], wanted)
    there = await connection.fetch(sql("find_programs"), wanted)
    other = {ids[row["base_domain"]]: row["id"] for row in there if row["id"] != ids[row["base_domain"]]}
    return {ids[row["base_domain"]] for row in made}, other


async def ensure_partners(connection: Connection, ids: Iterable[str]) -> set[str]:
    """Make the partners that are missing, without a name; answers those that were made."""
    wanted = sorted(set(ids))
    return (
        {row["id"] for row in await connection.fetch(sql("insert_partner_stubs"), wanted)}
        if wanted
        else set()
    )
