"""Forgetting in tests: a run with what it needs, and every place where a name still stands."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import asyncpg

from counterfoil.database.forgotten import pseudonym_key, pseudonym_of
from counterfoil.forgetting import Erasure, forget_customer, forget_visitor
from support.voucher_model import Counts


def _nobody_hears(_what: str, _done: int, _due: int) -> None:
    pass


async def forget(db: asyncpg.Connection, person: str, **options: Any) -> Erasure:
    """Forget a customer."""
    defaults = {"user_topic": "user.created", "dry_run": False, "tell": _nobody_hears}
    return await forget_customer(db, person, **(defaults | options))


async def forget_whose_click(db: asyncpg.Connection, named: str, **options: Any) -> Erasure:
    """Forget a visitor."""
    defaults = {"click_topic": "click", "dry_run": False, "tell": _nobody_hears}
    return await forget_visitor(db, named, **(defaults | options))


async def name_of(db: asyncpg.Connection, person: str) -> str:
    """What a person is called once forgotten."""
    return pseudonym_of(await pseudonym_key(db), person)


async def where_named(db: asyncpg.Connection, word: str) -> list[str]:
    """The tables, views aside, of which any column of any row holds a word; bytes too, and JSON."""
    tables = await db.fetch(
        """SELECT c.oid::regclass::text AS name FROM pg_class AS c
           WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind = 'r' ORDER BY 1"""
    )
    found = """SELECT EXISTS (SELECT FROM {} AS t WHERE position($1 IN t::text) > 0
               OR position(encode(convert_to($1, 'UTF8'), 'hex') IN t::text) > 0)"""
    return [table["name"] for table in tables if await db.fetchval(found.format(table["name"]), word)]


def under_names(counts: Counts, names: dict[str, str]) -> Counts:
    """The same counts, with some people called otherwise."""
    return replace(
        counts,
        wallets={(names.get(c, c), voucher): row for (c, voucher), row in counts.wallets.items()},
        scanner_days={(v, names.get(u, u), day): at for (v, u, day), at in counts.scanner_days.items()},
    )
