"""`backfill partners`: what was imported without a partner gets the one that is meant."""

from __future__ import annotations

import asyncio
import json
import os
import uuid
from decimal import Decimal

import asyncpg
import pytest
from typer.testing import CliRunner

from counterfoil.cli import app
from counterfoil.database.counters import find_drift
from counterfoil.database.facts import Facts
from counterfoil.partners import backfill
from counterfoil.partners.backfill import backfill_partners
from counterfoil.partners.handlers import RecordUsers
from counterfoil.partners.rules import program_id
from counterfoil.routing import COUNTERS
from counterfoil.settings import PREFIX
from support.builders import NOON, a_user_event, later

CULTGAIA = program_id("cultgaia.com")
FORBIDDEN = ("shop_users.default_partner_id", "links.partner_id", "links.user_id", "commissions.partner_id")
NOTHING = dict.fromkeys(backfill.Changes.__slots__, 0)


async def fill(db, *, dry_run: bool = False) -> backfill.Report:
    return await backfill_partners(db, dry_run=dry_run, tell=lambda *_: None)


async def changed(db) -> dict[str, int]:
    """What a backfill does, the zeros left out; what it says before is what it does."""
    said = (await fill(db, dry_run=True)).as_dict()["changed"]
    done = (await fill(db)).as_dict()["changed"]
    assert said == done
    assert (await fill(db)).as_dict()["changed"] == NOTHING
    return {what: rows for what, rows in done.items() if rows}


async def past_triggers(db, *statements: str) -> None:
    """Write as a restored dump does: no trigger speaks, and blanks are not forbidden."""
    async with db.transaction():
        await db.execute("SET LOCAL session_replication_role = replica")
        for statement in statements:
            await db.execute(statement)


async def without_constraints(db) -> None:
    for place in (*FORBIDDEN, "links.program_id", "commissions.program_id", "commissions.link_id"):
        table, column = place.split(".")
        await db.execute(f"ALTER TABLE {table} DROP CONSTRAINT {column}_not_blank")


async def partners_of(db, table: str, key: str = "id") -> dict[str, str | None]:
    return dict(await db.fetch(f"SELECT {key}, partner_id FROM {table}"))


async def everything(db) -> list[list[tuple]]:
    tables = (
        "shop_users",
        "partners",
        "partner_users",
        "programs",
        "program_enrollments",
        "links",
        "commissions",
    )
    return [sorted(map(repr, await db.fetch(f"SELECT * FROM {table}"))) for table in tables]


@pytest.fixture
def run(monkeypatch, tmp_path, database_url):
    """Run `counterfoil backfill partners …`: exit code and standard output."""
    for name in os.environ:
        if name.upper().startswith(PREFIX) or name.upper().endswith("DATABASE_URL"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(f"{PREFIX}DATABASE_URL", database_url)

    async def run(*arguments):
        result = await asyncio.to_thread(CliRunner().invoke, app, ["backfill", "partners", *arguments])
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result.exit_code, result.stdout

    return run


async def test_users_without_a_default_partner_get_one(db):
    await past_triggers(
        db,
        "INSERT INTO shop_users (id, name, email) VALUES ('u1', 'Ann', 'ann@example.com'), ('u2', NULL, NULL)",
        "INSERT INTO partner_users (partner_id, user_id) VALUES ('agency', 'u2')",
        "INSERT INTO shop_users (id, default_partner_id) VALUES ('u3', 'gone')",
    )
    assert await changed(db) == {"users": 3}
    rows = await db.fetch("SELECT id, default_partner_id FROM shop_users")
    assert dict(rows) == {"u1": "pn_u1", "u2": "agency", "u3": "gone"}
    names = await db.fetch("SELECT id, name FROM partners")
    assert dict(names) == {"pn_u1": "Ann", "agency": None, "gone": None}


async def test_links_get_their_users_partner_and_their_urls_program(db):
    await db.execute("INSERT INTO shop_users (id) VALUES ('u1')")
    await past_triggers(
        db,
        """INSERT INTO links (id, url, user_id, named_partner_id, partner_id) VALUES
           ('l1', 'https://www.CULTGAIA.com/x', 'u1', NULL, NULL),
           ('l2', 'https://cultgaia.com', NULL, 'p2', NULL),
           ('l3', 'https://a b.com', NULL, NULL, 'p3'),
           ('l4', 'https://other.com', NULL, NULL, NULL)""",
    )
    assert await changed(db) == {"links": 2, "partners_of_links": 2, "programs_of_links": 3}
    assert await partners_of(db, "links") == {"l1": "pn_u1", "l2": "p2", "l3": "p3", "l4": None}
    enrolled = await db.fetch("SELECT partner_id, program_id FROM program_enrollments ORDER BY 1")
    assert [tuple(row) for row in enrolled] == [("p2", CULTGAIA), ("pn_u1", CULTGAIA)]
    assert {"p2", "p3"} <= {row["id"] for row in await db.fetch("SELECT id FROM partners")}


async def test_a_user_who_only_has_links_is_made_and_a_later_event_names_him(db):
    await db.execute(
        "INSERT INTO links (id, url, user_id, occurred_at) VALUES ('l1', 'https://x.com', 'u1', $1), "
        "('l2', 'https://x.com', 'u1', $2)",
        later(),
        NOON,
    )
    assert await changed(db) == {"users_made": 1, "links": 2, "programs_of_links": 2}
    assert await partners_of(db, "links") == {"l1": "pn_u1", "l2": "pn_u1"}
    assert await db.fetchval("SELECT occurred_at FROM shop_users") == NOON
    handler = RecordUsers()
    facts = Facts([a_user_event("u1", name="Ann", timestamp=later(9))], [1], [0])
    outcome = await handler.write(db, await handler.plan(facts))
    assert outcome.unchanged == set()
    assert await db.fetchval("SELECT name FROM partners") == "Ann"


async def test_commissions_get_the_partner_of_their_link_or_pixel(db):
    await db.execute("INSERT INTO shop_users (id) VALUES ('u1')")
    await db.execute(
        """INSERT INTO links (id, url, user_id, pixel_id, occurred_at) VALUES
           ('l1', 'https://x.com', 'u1', NULL, now()), ('l2', 'https://x.com', 'u2', NULL, now()),
           ('l3', 'https://x.com', NULL, 'px', now()), ('l4', 'https://x.com', 'u1', 'px', now() - interval '1 day')"""
    )
    await db.execute(
        """INSERT INTO commissions (order_id, link_id, beneficiary, partner_id, status, amount, earnings, currency)
           SELECT *, 10, 1, 'EUR' FROM (VALUES
             ('1', 'l1', NULL, NULL, 'paid'), ('2', 'l2', NULL, NULL, 'pending'),
             ('3', NULL, 'pixel:px', NULL, 'pending'), ('4', 'unknown', NULL, NULL, 'pending'),
             ('5', NULL, NULL, NULL, 'pending'), ('6', 'l1', NULL, 'pn_u1', 'pending')
           ) AS imported"""
    )
    assert await changed(db) == {"users_made": 1, "links": 1, "commissions": 3, "programs_of_links": 4}
    expected = {"1": "pn_u1", "2": "pn_u2", "3": "pn_u1", "4": None, "5": None, "6": "pn_u1"}
    assert await partners_of(db, "commissions", "order_id") == expected
    left = (await fill(db)).left
    assert (left.commissions_null, left.commissions_resolvable, left.commissions_invalid) == (2, 0, 0)
    assert await find_drift(db, COUNTERS) == []


async def test_blanks_are_mended_and_forbidden_from_then_on(db):
    await without_constraints(db)
    await past_triggers(
        db,
        "INSERT INTO shop_users (id, default_partner_id) VALUES ('u1', '')",
        "INSERT INTO links (id, url, user_id, partner_id) VALUES ('l1', 'https://x.com', 'u1', '')",
        "INSERT INTO links (id, url, user_id, partner_id) VALUES ('l2', 'https://x.com', '', '')",
    )
    for order_id, link in (("1", "l1"), ("2", "l1"), ("3", "")):
        await db.execute(
            "INSERT INTO commissions (order_id, link_id, partner_id, amount, earnings, currency) "
            "VALUES ($1, $2, '', 10, 1, 'EUR')",
            order_id,
            link,
        )
    found = await fill(db, dry_run=True)
    assert (found.left.commissions_blank, found.left.commissions_resolvable, found.changed.blanks) == (
        3,
        2,
        6,
    )
    assert len(found.constraints.to_run) == 7
    report = await fill(db)
    assert (report.left.commissions_blank, report.left.commissions_null, report.is_clean) == (0, 1, True)
    assert await partners_of(db, "commissions", "order_id") == {"1": "pn_u1", "2": "pn_u1", "3": None}
    assert await partners_of(db, "links") == {"l1": "pn_u1", "l2": None}
    assert set(FORBIDDEN) <= {name.removesuffix("_not_blank") for name in report.constraints.added}
    assert report.constraints.to_run == []
    assert await db.fetchval(
        "SELECT bool_and(convalidated) FROM pg_constraint WHERE conname LIKE '%_not_blank'"
    )
    with pytest.raises(asyncpg.CheckViolationError):
        await db.execute("UPDATE commissions SET partner_id = ''")
    assert (await fill(db)).constraints == backfill.Constraints()


async def test_a_constraint_that_was_never_checked_is(db):
    await db.execute("ALTER TABLE commissions DROP CONSTRAINT partner_id_not_blank")
    await db.execute(
        "ALTER TABLE commissions ADD CONSTRAINT partner_id_not_blank CHECK (partner_id <> '') NOT VALID"
    )
    assert (await fill(db)).constraints.added == ["commissions.partner_id_not_blank"]
    assert (await fill(db)).constraints.added == []


async def test_a_blank_partner_of_a_settled_order_posts_nothing_anew(db):
    await db.execute("INSERT INTO default_rates (percent) VALUES (10)")
    await db.execute(
        "INSERT INTO conversions (order_id, beneficiary, link_id, revenue, currency) "
        "VALUES ('1', 'link:l1', 'l1', 50, 'EUR')"
    )
    await db.execute("ALTER TABLE commissions DROP CONSTRAINT partner_id_not_blank")
    await db.execute("UPDATE commissions SET partner_id = ''")
    await past_triggers(
        db, "INSERT INTO links (id, url, user_id, program_id) VALUES ('l1', 'https://x.com', 'u1', 'g')"
    )
    await fill(db)
    rows = await db.fetch("SELECT partner_id, earnings, status FROM commissions")
    assert [tuple(row) for row in rows] == [("pn_u1", Decimal(5), "pending")]
    assert await find_drift(db, COUNTERS) == []


async def test_the_rows_of_an_order_that_moved_still_add_up_under_each_partner(db):
    await db.execute("INSERT INTO default_rates (percent) VALUES (10)")
    for link, when in (("l1", later()), ("l2", NOON)):
        await db.execute(
            "INSERT INTO conversions (order_id, beneficiary, link_id, revenue, currency, occurred_at) "
            "VALUES ('1', 'link:' || $1::text, $1, 50, 'EUR', $2)",
            link,
            when,
        )
    await db.execute("INSERT INTO links (id, url, user_id) VALUES ('l1', 'https://x.com', 'u1')")
    await db.execute("INSERT INTO links (id, url, user_id) VALUES ('l2', 'https://y.com', 'u2')")
    await fill(db)
    rows = await db.fetch("SELECT partner_id, sum(earnings) AS sum FROM commissions GROUP BY 1")
    assert dict(rows) == {"pn_u1": 0, "pn_u2": 5}
    assert await find_drift(db, COUNTERS) == []


async def test_a_dry_run_writes_nothing(db):
    await without_constraints(db)
    await past_triggers(
        db,
        "INSERT INTO shop_users (id) VALUES ('u1')",
        "INSERT INTO links (id, url, user_id, partner_id) VALUES ('l1', 'https://x.com', 'u2', '')",
        "INSERT INTO commissions (order_id, beneficiary, cause, link_id, partner_id, amount, earnings, currency) "
        "VALUES ('1', 'link:l1', 'x', 'l1', '', 10, 1, 'EUR')",
    )
    before = await everything(db)
    report = await fill(db, dry_run=True)
    assert await everything(db) == before
    assert report.changed.commissions == 1
    assert report.constraints.added == []


async def test_many_rows_are_done_in_chunks(db, monkeypatch):
    monkeypatch.setattr(backfill, "CHUNK", 7)
    await past_triggers(
        db,
        "INSERT INTO shop_users (id) SELECT 'u' || g FROM generate_series(1, 40) AS g",
        "INSERT INTO links (id, url, user_id) "
        "SELECT 'l' || g, 'https://x' || g % 5 || '.com', 'u' || g FROM generate_series(1, 60) AS g",
    )
    await db.execute(
        "INSERT INTO commissions (order_id, link_id, amount, earnings, currency) "
        "SELECT 'o' || g % 50, 'l' || g, 10, 1, 'EUR' FROM generate_series(1, 150) AS g"
    )
    told: list[tuple[str, int, int]] = []
    report = await backfill_partners(db, dry_run=False, tell=lambda *said: told.append(said))
    assert report.changed == backfill.Changes(
        users=40, users_made=20, links=60, programs_of_links=60, commissions=60
    )
    assert ("commissions", 60, 60) in told
    assert len([said for said in told if said[0] == "users"]) == 7
    assert (report.left.users_without_default_partner, report.left.links_without_partner) == (0, 0)
    assert await find_drift(db, COUNTERS) == []


async def test_it_is_safe_beside_live_traffic(db, database_url):
    await past_triggers(
        db,
        "INSERT INTO shop_users (id) SELECT 'u' || g FROM generate_series(1, 300) AS g",
        "INSERT INTO links (id, url, user_id) "
        "SELECT 'l' || g, 'https://x.com', 'u' || g % 400 FROM generate_series(1, 900) AS g",
    )
    await db.execute(
        "INSERT INTO conversions (order_id, beneficiary, link_id, revenue, currency) "
        "SELECT 'o' || g, 'link:l' || g % 950, 'l' || g % 950, 10, 'EUR' FROM generate_series(1, 500) AS g"
    )
    done = asyncio.Event()

    async def live(kind: int) -> int:
        connection = await asyncpg.connect(database_url)
        count = 0
        while not done.is_set():
            count += 1
            n = str(count * 7 % 1_000)
            if kind:
                facts = Facts([a_user_event(f"u{n}", name="Live")], [1], [count])
                handler = RecordUsers()
                async with connection.transaction():
                    await handler.write(connection, await handler.plan(facts))
            else:
                await connection.execute(
                    "INSERT INTO order_refunds (order_id, refund_id, amount) VALUES ('o' || $1::text, $2, 1)",
                    n,
                    str(count),
                )
        await connection.close()
        return count

    working = [asyncio.create_task(live(kind)) for kind in (0, 1)]
    other = await asyncpg.connect(database_url)
    reports = await asyncio.gather(fill(db), fill(other))
    done.set()
    assert min(await asyncio.gather(*working)) > 0
    await other.close()
    assert all(report.is_clean for report in reports)
    assert (await fill(db)).left.commissions_resolvable == 0
    assert await find_drift(db, COUNTERS) == []


async def test_the_command_says_what_it_did_and_what_is_left(run, db):
    await past_triggers(db, "INSERT INTO shop_users (id) VALUES ('u1')")
    code, output = await run("--dry-run", "--json")
    assert (code, json.loads(output)["changed"]["users"], json.loads(output)["dry_run"]) == (0, 1, True)
    code, output = await run("--json")
    assert code == 0
    assert json.loads(output) == {
        "dry_run": False,
        "changed": NOTHING | {"users": 1},
        "constraints": {"added": [], "to_run": []},
        "left": dict.fromkeys(backfill.Gaps.__slots__, 0),
        "clean": True,
    }
    code, output = await run()
    assert code == 0
    assert "commissions invalid" in output


async def test_an_invalid_partner_is_found_and_left_to_a_person(run, db):
    await db.execute(
        "INSERT INTO commissions (order_id, partner_id, amount, earnings, currency) VALUES ('1', 'ghost', 10, 1, 'EUR')"
    )
    code, output = await run("--json")
    assert (code, json.loads(output)["left"]["commissions_invalid"]) == (1, 1)
    assert (await run("--dry-run"))[0] == 1
    await db.execute("INSERT INTO partners (id) VALUES ('ghost')")
    assert (await run())[0] == 0


async def test_a_role_that_does_not_own_the_tables_is_told_the_lines_to_run(db):
    await db.execute("ALTER TABLE commissions DROP CONSTRAINT partner_id_not_blank")
    await db.execute("ALTER TABLE links DROP CONSTRAINT partner_id_not_blank")
    await db.execute(
        "ALTER TABLE links ADD CONSTRAINT partner_id_not_blank CHECK (partner_id <> '') NOT VALID"
    )
    role = f"reader_{uuid.uuid4().hex[:8]}"
    await db.execute(
        f"CREATE ROLE {role}; GRANT ALL ON ALL TABLES IN SCHEMA public TO {role}; SET ROLE {role}"
    )
    try:
        report = await fill(db)
    finally:
        await db.execute(f"RESET ROLE; DROP OWNED BY {role}; DROP ROLE {role}")
    assert report.constraints.added == []
    lines = report.constraints.to_run
    assert lines == [
        "ALTER TABLE public.commissions ADD CONSTRAINT partner_id_not_blank CHECK (partner_id <> '') NOT VALID",
        "ALTER TABLE public.links VALIDATE CONSTRAINT partner_id_not_blank",
    ]
    for line in lines:
        await db.execute(line)
    assert (await fill(db)).constraints.to_run == []
