"""Raising alerts: once a cooldown, however many see the cause at once; and the outbox, which is told and measured."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import timedelta

import asyncpg
import pytest

from counterfoil.database.migrate import migrate
from counterfoil.notifications import outbox
from counterfoil.notifications.alerts import Alert, forget_cooldowns, raise_alerts
from support.alerts import NOON, TOPIC, an_alert
from support.waiting import eventually

COOLDOWN = timedelta(minutes=5)


async def raised(db: asyncpg.Connection, *alerts: Alert, cooldown: timedelta = COOLDOWN) -> list[str]:
    return await raise_alerts(db, TOPIC, alerts, cooldown)


async def told(db: asyncpg.Connection) -> list[tuple[str, str]]:
    """(kind, cause) of every alert, of those that stand in the outbox as well."""
    rows = await db.fetch(
        """SELECT a.kind, a.cause FROM alerts AS a
           JOIN outbox AS o ON o.value = a.payload AND o.key = a.subject AND a.payload ->> 'alert_id' = a.alert_id
           ORDER BY o.id"""
    )
    assert await db.fetchval("SELECT count(*) FROM alerts") == len(rows)
    return [tuple(row) for row in rows]


async def time_passes(db: asyncpg.Connection, seconds: float) -> None:
    """As if what was told had been told that much earlier."""
    await db.execute("UPDATE alert_cooldowns SET raised_at = raised_at - make_interval(secs => $1)", seconds)


@pytest.fixture
async def connections(database_url: str) -> AsyncIterator[list[asyncpg.Connection]]:
    """Eight, as of eight workers."""
    async with AsyncExitStack() as stack:
        opened = [await asyncpg.connect(database_url) for _ in range(8)]
        for connection in opened:
            stack.push_async_callback(connection.close)
        yield opened


async def test_an_alert_is_a_row_of_history_and_a_row_of_the_outbox_under_one_id(shared_db) -> None:
    (alert_id,) = await raised(shared_db, an_alert("v-1", value=7))
    alert = await shared_db.fetchrow("SELECT * FROM alerts")
    row = await shared_db.fetchrow("SELECT * FROM outbox")
    payload = {"alert_id": alert_id, "occurred_at": NOON, "value": 7}
    assert (alert["alert_id"], alert["kind"], alert["subject"], alert["cause"]) == (
        alert_id,
        "scan-rate",
        "v-1",
        "v-1",
    )
    assert json.loads(alert["payload"]) == json.loads(row["value"]) == payload
    assert (row["topic"], row["key"]) == (TOPIC, "v-1")
    assert json.loads(row["headers"]) == {
        "content-type": "application/json",
        "ce_specversion": "1.0",
        "ce_id": f"voucher-alert:{alert_id}",
        "ce_source": "/counterfoil/alerts",
        "ce_type": "voucher-alert",
        "ce_time": NOON,
    }


async def test_a_cause_is_told_again_only_after_its_cooldown(shared_db) -> None:
    assert len(await raised(shared_db, an_alert())) == 1
    assert await raised(shared_db, an_alert()) == []
    await time_passes(shared_db, 299)
    assert await raised(shared_db, an_alert()) == []
    await time_passes(shared_db, 1)
    assert len(await raised(shared_db, an_alert())) == 1
    assert await raised(shared_db, an_alert()) == []  # the cooldown began anew
    assert len(await raised(shared_db, an_alert(), cooldown=timedelta(0))) == 1
    assert len(await told(shared_db)) == 3


async def test_other_causes_and_other_kinds_have_cooldowns_of_their_own(shared_db) -> None:
    causes = [
        an_alert(cause="device:b"),
        an_alert(cause="device:a"),
        an_alert(cause="device:b"),
        an_alert("v-2"),
    ]
    assert len(await raised(shared_db, *causes)) == 3
    assert len(await raised(shared_db, an_alert(cause="device:a", kind="failed-redemptions"))) == 1
    assert await told(shared_db) == [  # in the order given, each cause once
        ("scan-rate", "device:b"),
        ("scan-rate", "device:a"),
        ("scan-rate", "v-2"),
        ("failed-redemptions", "device:a"),
    ]


async def test_nothing_to_raise_is_no_question(shared_db) -> None:
    assert await raised(shared_db) == []


async def test_eight_workers_at_once_tell_a_cause_once(connections, db) -> None:
    async def see(worker: asyncpg.Connection) -> int:
        found = 0
        for _ in range(5):
            causes = [an_alert(f"v-{number}") for number in range(20)]
            async with worker.transaction():
                found += len(await raised(worker, *causes[:: 1 if worker is connections[0] else -1]))
        return found

    assert sum(await asyncio.gather(*map(see, connections))) == 20
    assert sorted(await told(db)) == sorted(("scan-rate", f"v-{number}") for number in range(20))


async def test_a_cause_whose_transaction_fails_is_told_by_the_one_that_waited(connections, db) -> None:
    first, second, *_ = connections
    transaction = first.transaction()
    await transaction.start()
    assert len(await raised(first, an_alert())) == 1
    waiting = asyncio.create_task(raised(second, an_alert()))
    await eventually(lambda: db.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"))
    await transaction.rollback()
    assert len(await waiting) == 1
    assert await told(db) == [("scan-rate", "v-1")]


async def test_a_trigger_raises_an_alert_in_the_transaction_that_it_belongs_to(db) -> None:
    await db.execute(
        """CREATE TABLE shelf (sku text PRIMARY KEY, stock integer);
        CREATE FUNCTION look_at_shelf() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
          PERFORM raise_alerts('low-stock', 'low-stock', array_agg(sku), array_agg(sku || ' at ' || stock),
                               array_agg(jsonb_build_object('sku', sku, 'stock', stock)), interval '5 minutes')
          FROM changed WHERE stock < 10;
          RETURN NULL;
        END $$;
        CREATE TRIGGER look AFTER UPDATE ON shelf REFERENCING NEW TABLE AS changed
        FOR EACH STATEMENT EXECUTE FUNCTION look_at_shelf();
        INSERT INTO shelf VALUES ('a', 20), ('b', 20), ('c', 20);"""
    )
    await db.execute("UPDATE shelf SET stock = 4 WHERE sku <> 'c'")
    await db.execute("UPDATE shelf SET stock = 4")
    await db.execute("UPDATE shelf SET stock = 3 WHERE sku = 'a'")
    await db.execute("UPDATE shelf SET stock = 30")
    assert sorted(cause for _, cause in await told(db)) == ["a at 3", "a at 4", "b at 4", "c at 4"]


async def test_cooldowns_are_forgotten_once_none_can_still_run(shared_db) -> None:
    await raised(shared_db, an_alert("v-1"))
    await time_passes(shared_db, 7_200)
    await raised(shared_db, an_alert("v-2"))
    await forget_cooldowns(shared_db, timedelta(hours=1))
    assert await shared_db.fetchval("SELECT array_agg(cause) FROM alert_cooldowns") == ["v-2"]


# The outbox


async def test_new_rows_are_announced_when_they_are_committed_and_nothing_else_is(connections) -> None:
    listener, writer, *_ = connections
    heard: asyncio.Queue[str] = asyncio.Queue()
    await listener.add_listener(
        await outbox.find_channel(listener), lambda *given: heard.put_nowait(given[2])
    )
    async with writer.transaction():
        await raised(writer, an_alert())
        await listener.fetchval("SELECT 1")
        assert heard.empty()
    assert await asyncio.wait_for(heard.get(), 10)
    await raised(writer, an_alert())  # within the cooldown: no row
    await listener.fetchval("SELECT 1")
    assert heard.empty()


async def test_each_schema_has_a_channel_of_its_own(database_url, db) -> None:
    await migrate(database_url, "x" * 63)
    other = await asyncpg.connect(database_url, server_settings={"search_path": "x" * 63})
    try:
        channels = [await outbox.find_channel(connection) for connection in (db, other)]
        assert channels[0] != channels[1]
        assert len(await raised(other, an_alert())) == 1
        assert await told(db) == []
    finally:
        await other.close()


async def test_one_relay_at_a_time_holds_the_outbox_until_its_transaction_ends(connections) -> None:
    first, second, *_ = connections
    async with first.transaction():
        assert await outbox.hold_outbox(first)
        async with second.transaction():
            assert not await outbox.hold_outbox(second)
    async with second.transaction():
        assert await outbox.hold_outbox(second)


async def test_the_next_rows_are_the_oldest_of_each_topic_that_is_known(shared_db) -> None:
    for topic, keys in (("a", "xyz"), ("unknown", "p"), ("b", "q")):
        for key in keys:
            await shared_db.execute(
                'INSERT INTO outbox (topic, key, value, headers) VALUES ($1, $2, \'{"n": 1}\', \'{"h": "é"}\')',
                topic,
                key,
            )
    rows = await outbox.next_rows(shared_db, ("a", "b"), 2)
    assert [(row.topic, row.key) for row in rows] == [("a", "x"), ("a", "y"), ("b", "q")]
    assert (rows[0].value, rows[0].headers) == (b'{"n": 1}', [("h", "é".encode())])
    await outbox.delete_rows(shared_db, [row.id for row in rows])
    assert [row.key for row in await outbox.next_rows(shared_db, ("a", "b"), 2)] == ["z"]


async def test_the_outbox_is_measured_by_its_rows_and_the_age_of_the_oldest(shared_db) -> None:
    assert await outbox.measure(shared_db) == (0, 0.0)
    await raised(shared_db, an_alert("v-1"), an_alert("v-2"))
    await shared_db.execute("UPDATE outbox SET created_at = now() - interval '1 hour' WHERE key = 'v-1'")
    backlog = await outbox.measure(shared_db)
    assert backlog.rows == 2
    assert 3_600 <= backlog.oldest_s < 3_700
