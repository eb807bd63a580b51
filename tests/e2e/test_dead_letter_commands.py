"""`dead-letters` and `verify` as people type them: what is shown, what is done, and what comes of Ctrl-C."""

from __future__ import annotations

import asyncio
import getpass
import json
import os
import signal
import sys

import asyncpg
import pytest

from counterfoil.embedded.process import KEPT_VARIABLES
from support.builders import an_order
from support.command import counterfoil
from support.console import park
from support.postgres_ledgers import connections
from support.waiting import eventually
from support.worker import python_path

LETTERS = "dead-letters"


async def orders(db: asyncpg.Connection, count: int) -> None:
    """Parked orders that are good now."""
    rows = [("order.placed", n, an_order(str(n), codes=["A"]).to_json()) for n in range(count)]
    await db.executemany(
        'INSERT INTO dead_letters (cluster_id, topic, "partition", "offset", value, record_timestamp, error_kind, '
        "error) VALUES ('c', $1, 0, $2, $3, '2026-03-01T12:00:00Z', 'too_large', 'must be smaller')",
        rows,
    )


async def open_ones(db: asyncpg.Connection) -> int:
    return int(await db.fetchval("SELECT count(*) FROM dead_letters WHERE resolved_at IS NULL"))


async def test_a_long_key_is_cut_in_the_list_and_whole_in_the_letter(
    db: asyncpg.Connection, database_url: str
) -> None:
    letter = await park(db, b"{", key=b"k" * 1_000_000)
    [listed] = json.loads((await counterfoil(LETTERS, "list", "--json", database_url=database_url)).out)
    assert (len(listed["key"]), listed["key_bytes"], listed["key_is_cut"]) == (257, 1_000_000, True)
    shown = await counterfoil(LETTERS, "show", str(letter), "--json", database_url=database_url)
    assert len(json.loads(shown.out)["key"]) == 1_000_000


async def test_the_list_is_filtered_by_topic_reason_and_time(
    db: asyncpg.Connection, database_url: str
) -> None:
    ids = [await park(db, b"{", offset=n, topic=t, kind=k) for n, (t, k) in enumerate(["ax", "bx", "ay"])]
    for n, letter in enumerate(ids):
        await db.execute(
            "UPDATE dead_letters SET first_seen_at = '2026-03-01T12:00Z'::timestamptz + $1 * interval '1 h' "
            "WHERE id = $2",
            n,
            letter,
        )

    async def listed(*filters: str) -> list[int]:
        told = await counterfoil(LETTERS, "list", "--json", *filters, database_url=database_url)
        return [row["id"] for row in json.loads(told.out)]

    assert await listed("--topic", "a") == [ids[2], ids[0]]
    assert await listed("--topic", "a", "--reason", "x") == [ids[0]]
    assert await listed("--since", "2026-03-01T13:00:00Z", "--until", "2026-03-01T15:00:00+01:00") == [ids[1]]
    assert await listed("--until", "2026-03-01") == []


@pytest.mark.parametrize(
    "asked", [("--since", "0001-01-01T00:00:00+14:00"), ("--topic", "\udcff")], ids=["a time", "a topic"]
)
async def test_what_no_database_can_be_asked_for_is_wrong_use(
    database_url: str, asked: tuple[str, str]
) -> None:
    ended = await counterfoil("dead-letters", "list", *asked, database_url=database_url)
    assert (ended.code, len(ended.err.splitlines())) == (2, 1)


async def test_a_letter_is_shown_to_be_read(db: asyncpg.Connection, database_url: str) -> None:
    value = b'{"order_id": "1", "total": "-1"}'
    letter = await park(db, value, kind="invalid_field", error="total: must not be negative")
    shown = await counterfoil(LETTERS, "show", str(letter), database_url=database_url)
    assert shown.code == 0
    lines = shown.out.splitlines()
    assert lines[0] == f"Dead letter {letter}"
    for line in (
        "  Reason      invalid_field",
        "  Field       total",
        "  Error       total: must not be negative",
        "  State       open",
        f"    {value.decode()}",
        '    00000000  7b 22 6f 72 64 65 72 5f  69 64 22 3a 20 22 31 22  |{"order_id": "1"|',
    ):
        assert line in lines
    assert "refused: invalid_field" in shown.out
    assert (await counterfoil(LETTERS, "show", "4242", database_url=database_url)).code == 1


async def test_many_are_retried_with_a_summary_and_judged_before(
    db: asyncpg.Connection, database_url: str
) -> None:
    await orders(db, 1_000)
    await park(db, b"{", offset=1_000)
    looked = await counterfoil(LETTERS, "retry", "--all", "--dry-run", database_url=database_url)
    assert (looked.code, looked.out.splitlines()[-1]) == (
        1,
        "1,001 in all: 1,000 right by the rules now, 1 still wrong",
    )
    assert await open_ones(db) == 1_001
    done = await counterfoil(LETTERS, "retry", "--all", database_url=database_url)
    assert (done.code, done.out.splitlines()[-1]) == (1, "1,001 in all: 1,000 applied, 1 still wrong")
    assert await db.fetchval("SELECT times_used FROM affiliate_coupons") == 1_000
    assert await open_ones(db) == 1
    nothing = await counterfoil(LETTERS, "retry", "--topic", "click", database_url=database_url)
    assert (nothing.code, nothing.out.strip()) == (0, "none")


async def test_two_commands_at_once_retry_each_record_once(db: asyncpg.Connection, database_url: str) -> None:
    await orders(db, 2_000)
    ended = await asyncio.gather(
        *(counterfoil(LETTERS, "retry", "--all", "--json", database_url=database_url) for _ in range(2))
    )
    assert [one.code for one in ended] == [0, 0]
    applied = [row["id"] for one in ended for row in json.loads(one.out) if row["outcome"] == "applied"]
    assert len(applied) == len(set(applied)) == 2_000
    assert await db.fetchval("SELECT times_used FROM affiliate_coupons") == 2_000


async def test_ctrl_c_leaves_whole_batches_and_says_what_was_done(
    db: asyncpg.Connection, database_url: str
) -> None:
    await orders(db, 450)
    environment = {name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ}
    environment |= {"COUNTERFOIL_DATABASE_URL": database_url, "PYTHONPATH": python_path()}
    async with connections(database_url, 1) as (holder,):
        held = holder.transaction()
        await held.start()
        await holder.execute('SELECT FROM dead_letters WHERE "offset" = 420 FOR UPDATE')  # of the third batch
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "counterfoil", LETTERS, "retry", "--all"),
            cwd="/",
            env=environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        await eventually(lambda: open_ones_below(db, 51))
        await eventually(lambda: db.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"))
        process.send_signal(signal.SIGINT)
        out, err = await asyncio.wait_for(process.communicate(), 20)
        await held.rollback()
    assert process.returncode == 130
    assert out.decode().splitlines()[-1] == "400 in all: 400 applied"
    assert err.decode() == "counterfoil: stopped; the rest is as it was\n"
    assert await db.fetchval("SELECT times_used FROM affiliate_coupons") == 400
    assert await open_ones(db) == 50
    assert (await counterfoil(LETTERS, "retry", "--all", database_url=database_url)).code == 0
    assert await db.fetchval("SELECT times_used FROM affiliate_coupons") == 450


async def open_ones_below(db: asyncpg.Connection, bound: int) -> bool:
    return await open_ones(db) < bound


async def test_letters_are_dropped_with_a_reason_and_without_one_nothing_is(
    db: asyncpg.Connection, database_url: str
) -> None:
    first, second, third, other = [
        await park(db, b"{", offset=n, kind="not_json" if n < 3 else "empty") for n in range(4)
    ]
    for wrong in ([str(first)], ["--all"], [str(first), "--because", "  "], ["--because", "x"]):
        assert (await counterfoil(LETTERS, "drop", *wrong, database_url=database_url)).code == 2
    dry = await counterfoil(
        LETTERS, "drop", "--all", "--because", "x", "--dry-run", database_url=database_url
    )
    assert (dry.code, dry.out.strip()) == (0, "4 would be dropped")
    assert await open_ones(db) == 4
    named = await counterfoil(LETTERS, "drop", str(first), "--because", "a test", database_url=database_url)
    assert (named.code, named.out.strip()) == (0, f"1 dropped: {first}")
    also = await counterfoil(
        LETTERS, "drop", str(second), "--reason", "too", "--json", database_url=database_url
    )
    assert json.loads(also.out)["dropped"] == [second]
    kind = await counterfoil(
        LETTERS,
        "drop",
        "--reason",
        "not_json",
        "--because",
        "all of them",
        "--json",
        database_url=database_url,
    )
    assert json.loads(kind.out)["dropped"] == [third]
    again = await counterfoil(
        LETTERS, "drop", str(first), str(other), "--because", "x", database_url=database_url
    )
    assert (again.code, f"{first}: resolved already" in again.err) == (1, True)
    rows = await db.fetch("SELECT resolved_by, resolved_because, value FROM dead_letters ORDER BY id")
    assert [row["resolved_because"] for row in rows] == ["a test", "too", "all of them", "x"]
    assert {(row["resolved_by"], row["value"]) for row in rows} == {(getpass.getuser(), b"{")}


async def test_a_database_that_goes_away_ends_a_retry_with_one_line() -> None:
    ended = await counterfoil(LETTERS, "retry", "--all", database_url="postgres://nobody@127.0.0.1:9/nothing")
    assert (ended.code, len(ended.err.splitlines())) == (3, 1)


# verify


async def test_verify_says_when_and_how_long_and_of_each_table_how_many(
    db: asyncpg.Connection, database_url: str
) -> None:
    await db.execute("INSERT INTO affiliate_coupon_usages (order_id, code) VALUES ('1', 'A')")
    report = json.loads((await counterfoil("verify", "--json", database_url=database_url)).out)
    assert report["checked"]["affiliate_coupons"] == 1
    assert (report["drifted"]["affiliate_coupons"], report["drift"], report["clean"]) == (0, [], True)
    assert report["seconds"] > 0
    assert report["snapshot_at"].endswith("+00:00")
    told = await counterfoil("verify", database_url=database_url)
    assert "affiliate_coupons" in told.out
    assert told.out.splitlines()[-1].endswith("no drift")


async def test_repair_prints_what_it_mended_and_the_metric_falls_at_once(
    db: asyncpg.Connection, database_url: str
) -> None:
    await db.execute("INSERT INTO affiliate_coupon_usages (order_id, code) VALUES ('1', 'A')")
    await db.execute("UPDATE affiliate_coupons SET times_used = 7")
    found = await counterfoil("verify", database_url=database_url)
    assert (found.code, "Drift" in found.out, "Repaired" in found.out) == (1, True, False)
    mended = await counterfoil("verify", "--repair", database_url=database_url)
    assert (mended.code, "Repaired" in mended.out, "1 rows repaired" in mended.out) == (0, True, True)
    assert await db.fetchval("SELECT drifted FROM verifications") == 0
    again = json.loads((await counterfoil("verify", "--repair", "--json", database_url=database_url)).out)
    assert (again["repaired"], again["repairs"], again["left"]) == (0, [], [])


async def test_what_was_mended_otherwise_is_no_drift_any_more_once_repair_has_looked(
    db: asyncpg.Connection, database_url: str
) -> None:
    await db.execute(
        "INSERT INTO verifications (started_at, seconds, checked, drifted) VALUES (now() - interval '1 h', 1, '{}', 7)"
    )
    assert (await counterfoil("verify", "--repair", database_url=database_url)).code == 0
    assert await db.fetchval("SELECT drifted FROM verifications ORDER BY started_at DESC LIMIT 1") == 0


async def test_what_no_recount_can_mend_is_left_and_said(db: asyncpg.Connection, database_url: str) -> None:
    await db.execute("INSERT INTO partners (id) VALUES ('p')")
    await db.execute("INSERT INTO payouts (partner_id, amount, currency) VALUES ('p', 5, 'USD')")
    report = await counterfoil("verify", "--repair", "--json", database_url=database_url)
    found = json.loads(report.out)
    assert (report.code, [d["table"] for d in found["left"]], found["repairs"]) == (1, ["payouts"], [])
