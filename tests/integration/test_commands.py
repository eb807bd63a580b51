"""The commands that read and mend a database: exit codes and the shape of their JSON."""

from __future__ import annotations

import json
import os

import pytest
from typer.testing import CliRunner

from counterfoil.cli import app
from counterfoil.database.migrate import available
from counterfoil.routing import COUNTERS
from counterfoil.settings import PREFIX
from support.builders import an_order
from support.postgres_ledgers import coupon_counts

from counterfoil.ingest import dead_letters  # isort: skip
from counterfoil.ingest.records import Malformed  # isort: skip
from support.builders import a_record  # isort: skip


@pytest.fixture
def run(monkeypatch, tmp_path, database_url):
    """Run `counterfoil …` on this test's database: exit code and standard output."""
    for name in os.environ:
        if name.upper().startswith(PREFIX) or name.upper().endswith("DATABASE_URL"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(f"{PREFIX}DATABASE_URL", database_url)

    async def run(*arguments):
        import asyncio

        result = await asyncio.to_thread(CliRunner().invoke, app, list(arguments))
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result.exit_code, result.stdout

    return run


async def as_json(run, *arguments):
    code, output = await run(*arguments, "--json")
    return code, json.loads(output)


async def parked(db, value: bytes, offset: int) -> int:
    await dead_letters.park(
        db, "cluster-1", [Malformed(a_record(offset, value, key=b"k"), "not_json", "must be JSON")]
    )
    return await db.fetchval("SELECT max(id) FROM dead_letters")


async def test_verify_is_0_without_drift_and_1_with_it_and_0_once_it_is_mended(run, db):
    await db.execute("INSERT INTO affiliate_coupon_usages (order_id, code) VALUES ('1', 'A')")
    checked = dict.fromkeys((counter.table for counter in COUNTERS), 0) | {"affiliate_coupons": 1}

    async def verified(*options):
        """The code, and what is found; how long it took, and when, is another test's."""
        code, found = await as_json(run, "verify", *options)
        assert found["checked"] == checked
        return code, found["drift"], found["repaired"], found["clean"]

    assert await verified() == (0, [], 0, True)
    await db.execute("UPDATE affiliate_coupons SET times_used = 5")
    drift = [
        {"table": "affiliate_coupons", "key": "A", "counter": "times_used", "stored": "5", "counted": "1"}
    ]
    assert await verified() == (1, drift, 0, False)
    assert (await run("verify"))[0] == 1
    assert await verified("--repair") == (0, drift, 1, True)
    assert await coupon_counts(db) == {"A": (1, 1)}
    code, said = await run("verify")
    assert code == 0
    assert said.splitlines()[-1].startswith("checked 1 of affiliate_coupons in ")
    assert said.endswith(": no drift\n")


async def test_migrate_says_what_it_applied_and_what_is_applied(run, db):
    assert await as_json(run, "migrate") == (0, {"applied": [], "baseline": False})
    assert await run("migrate") == (0, "nothing is due\n")
    code, states = await as_json(run, "migrate", "--status")
    assert code == 0
    assert [state["migration"] for state in states] == [m.name for m in available()]
    last = available()[-1].name
    await db.execute("DELETE FROM counterfoil_migrations WHERE name = $1", last)
    code, states = await as_json(run, "migrate", "--status")
    assert (code, states[-1]) == (1, {"migration": last, "applied_at": None})


async def test_dead_letters_are_listed_shown_and_retried(run, db):
    good = await parked(db, an_order("1", codes=["A"]).to_json(), 1)
    bad = await parked(db, b"\xff{", 2)
    code, listed = await as_json(run, "dead-letters", "list")
    assert (code, [row["id"] for row in listed]) == (0, [bad, good])
    assert {"topic", "partition", "offset", "key", "bytes", "error_kind", "error", "first_seen_at"} <= listed[
        0
    ].keys()
    code, shown = await as_json(run, "dead-letters", "show", str(bad))
    assert (code, shown["value"], shown["value_hex"], shown["key"]) == (0, "\\xff{", "ff 7b", "k")
    assert shown["now"].startswith("refused: ")
    assert (await as_json(run, "dead-letters", "show", str(good)))[1]["now"] == "accepted"
    code, retried = await as_json(run, "dead-letters", "retry", "--all")
    assert (code, [(r["id"], r["outcome"]) for r in retried]) == (1, [(good, "applied"), (bad, "refused")])
    assert await coupon_counts(db) == {"A": (1, 1)}
    assert (await as_json(run, "dead-letters", "retry", str(good)))[1][0]["outcome"] == "gone"
    assert len((await as_json(run, "dead-letters", "list", "--all"))[1]) == 2
    assert len((await as_json(run, "dead-letters", "list"))[1]) == 1
    assert (await run("dead-letters", "show", "424242"))[0] == 1
    assert (await run("dead-letters", "list"))[0] == 0


async def test_a_scan_tells_of_what_is_low_once_and_lists_it_each_time(run, db):
    assert await run("stock", "scan") == (0, "0 low, 0 alerts raised\n")
    await db.execute(
        "INSERT INTO inventory_products (sku, name, stock, threshold) "
        "VALUES ('A', 'Anvil [/red]', 3, 10), ('B', 'B', 0, 5), ('C', 'C', 10, 10)"
    )
    low = [
        {"sku": "B", "name": "B", "stock": 0, "threshold": 5},
        {"sku": "A", "name": "Anvil [/red]", "stock": 3, "threshold": 10},
    ]
    assert await as_json(run, "stock", "scan") == (0, {"low": 2, "raised": 2, "products": low})
    assert await as_json(run, "stock", "scan") == (0, {"low": 2, "raised": 0, "products": low})
    code, said = await run("stock", "scan")
    assert (code, said.splitlines()[0].rstrip()) == (0, "Low stock (2)")
    assert "Anvil [/red]" in said
    assert said.endswith("2 low, 0 alerts raised\n")
    assert await db.fetchval("SELECT count(*) FROM alerts") == 2


async def test_a_scan_keeps_to_the_policy_that_is_set(run, db, monkeypatch):
    monkeypatch.setenv(f"{PREFIX}ALERT_POLICY", "episode")
    await db.execute("INSERT INTO inventory_products (sku, name, stock) VALUES ('A', 'A', 3)")
    assert (await as_json(run, "stock", "scan"))[1]["raised"] == 1
    assert await db.fetchval("SELECT told_stock FROM low_stock_episodes") == 3


async def test_a_sku_is_explained_or_exit_code_1(run, db):
    await db.execute("INSERT INTO inventory_products (sku, name, stock) VALUES ('A/1', 'A', 30)")
    code, found = await as_json(run, "explain", "sku", "A/1", "--limit", "5")
    assert (code, found["kind"], found["id"], found["stored"]["stock"]) == (0, "sku", "A/1", 30)
    assert [row["event_type"] for row in found["changes"]] == ["opening"]
    code, said = await run("explain", "sku", "A/1")
    assert code == 0
    assert "Stock 30: nobody has counted it, +30 by 1 delta." in said
    assert await run("explain", "sku", "B") == (1, "")


async def test_verify_counts_products_and_mends_them(run, db):
    await db.execute("INSERT INTO inventory_products (sku, name, stock) VALUES ('A', 'A', 30)")
    await db.execute("UPDATE inventory_products SET stock = 31")
    drift = [{"table": "inventory_products", "key": "A", "counter": "stock", "stored": "31", "counted": "30"}]
    code, found = await as_json(run, "verify")
    assert (code, found["checked"]["inventory_products"], found["drift"]) == (1, 1, drift)
    assert "1 of inventory_products" in (await run("verify", "--repair"))[1]
    assert (await as_json(run, "verify"))[0] == 0
    assert await db.fetchval("SELECT stock FROM inventory_products") == 30


async def test_a_database_without_our_tables_is_wrong_use(run, db):
    await db.execute("DROP TABLE dead_letters")
    result = CliRunner()
    import asyncio

    outcome = await asyncio.to_thread(result.invoke, app, ["dead-letters", "list"])
    assert "run `counterfoil migrate` first" in str(outcome.exception)
