"""Forgetting a visitor: what the clicks of one address and browser tell is gone, and they are one visitor's still."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from counterfoil.clicks.handlers import RecordClicks
from counterfoil.database.comparison import overwrite
from counterfoil.database.counters import find_drift
from counterfoil.database.facts import Facts
from counterfoil.errors import InvalidSetting
from counterfoil.forgetting import visitors
from counterfoil.ingest import dead_letters
from counterfoil.ingest.records import Malformed
from counterfoil.routing import COUNTERS
from counterfoil.settings import IpPolicy
from support.builders import a_click_event, a_record
from support.forgetting import forget_whose_click, where_named
from support.meetings import meet
from support.postgres_ledgers import connections

NOW = datetime.now(UTC).replace(microsecond=0)
THIS_MONTH = NOW.replace(day=1, hour=0, minute=0, second=0)
DAYS = [THIS_MONTH - timedelta(days=40), THIS_MONTH - timedelta(days=2), THIS_MONTH]
HERS = {"ip_address": "192.0.2.7", "user_agent": "Her Browser"}
HIS = {"ip_address": "192.0.2.8", "user_agent": "His Browser"}
CLICKS = [
    *(
        a_click_event(pixel, click_id=f"hers-{pixel}-{day}-{n}", timestamp=at, referrer="https://her.example", **HERS)
        for day, at in enumerate(DAYS)
        for pixel in ("px-1", "px-2")
        for n in range(2)
    ),
    *(a_click_event(click_id=f"his-{day}", timestamp=at, **HIS) for day, at in enumerate(DAYS)),
    a_click_event(click_id="nobody's", timestamp=THIS_MONTH),
]  # fmt: skip


async def write(db: asyncpg.Connection, *clicks) -> None:
    handler = RecordClicks(b"key", IpPolicy.FULL)
    facts = Facts([*clicks], [1] * len(clicks), list(range(len(clicks))), origin=lambda i: f"log/{i}")
    async with db.transaction():
        await handler.write(db, await handler.plan(facts))


@pytest.fixture
async def clicked(db):
    await write(db, *CLICKS)
    return db


async def daily(db) -> dict:
    rows = await db.fetch("SELECT pixel_id, day, clicks, unique_clicks, bot_clicks FROM affiliate_daily")
    return {(row["pixel_id"], row["day"]): tuple(row)[2:] for row in rows}


async def number(db, click_id: str) -> int:
    return await db.fetchval("SELECT visitor FROM aff_clicks WHERE click_id = $1", click_id)


@pytest.mark.parametrize("named", ["a click", "the number"])
async def test_what_the_clicks_tell_is_gone_and_every_count_is_the_same(clicked, named):
    before, others = await daily(clicked), await number(clicked, "his-0")
    hers = await number(clicked, "hers-px-1-0-0")
    erasure = await forget_whose_click(clicked, "hers-px-2-1-1" if named == "a click" else str(hers))
    assert erasure.as_dict()["erased"] == {"aff_clicks": 12}
    for word in ("192.0.2.7", "Her Browser", "her.example", str(hers)):
        assert await where_named(clicked, word) == [], word
    new = {await number(clicked, f"hers-px-1-{day}-0") for day in range(3)}
    assert new == {int(erasure.instead)}
    assert await number(clicked, "his-0") == others not in new
    assert await daily(clicked) == before
    assert await find_drift(clicked, COUNTERS) == []


async def test_a_dry_run_counts_the_same_and_writes_nothing(clicked):
    erasure = await forget_whose_click(clicked, "hers-px-1-0-0", dry_run=True)
    assert erasure.as_dict()["erased"] == {"aff_clicks": 12}
    assert await where_named(clicked, "Her Browser") != []
    assert await clicked.fetchval("SELECT count(*) FROM forgotten_visitors") == 0


async def test_a_second_run_finds_nothing(clicked):
    await forget_whose_click(clicked, "hers-px-1-0-0")
    new = await number(clicked, "hers-px-1-0-0")
    again = await forget_whose_click(clicked, "hers-px-1-2-0")
    assert (again.was_forgotten, again.as_dict()["erased"]) == (True, {})
    assert await number(clicked, "hers-px-1-0-0") == new
    assert await clicked.fetchval("SELECT digest FROM forgotten_visitors") is None


async def test_clicks_that_are_told_again_change_nothing(clicked):
    await forget_whose_click(clicked, "hers-px-1-0-0")
    rows = await clicked.fetch("SELECT * FROM aff_clicks ORDER BY click_id")
    await write(clicked, *CLICKS)
    assert await clicked.fetch("SELECT * FROM aff_clicks ORDER BY click_id") == rows
    assert await find_drift(clicked, COUNTERS) == []


@pytest.mark.parametrize("again", ["hers-px-1-0-0", "hers-px-1-1-0", "hers-px-2-2-1"])
async def test_a_run_that_is_killed_is_gone_on_with_by_any_of_the_clicks(clicked, monkeypatch, again):
    """Also by one whose day is done already, and which has the new number."""
    monkeypatch.setattr(visitors, "CHUNK", 1)
    before = await daily(clicked)

    def killed(what: str, done: int, _due: int) -> None:
        if what == "clicks" and done == 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        await forget_whose_click(clicked, "hers-px-1-0-0", tell=killed)
    assert await clicked.fetchval("SELECT count(*) FROM aff_clicks WHERE user_agent = 'Her Browser'") == 4
    assert await daily(clicked) == before
    await forget_whose_click(clicked, again)
    assert await where_named(clicked, "Her Browser") == []
    assert len({await number(clicked, f"hers-px-1-{day}-0") for day in range(3)}) == 1
    assert await daily(clicked) == before
    assert await clicked.fetchval("SELECT digest FROM forgotten_visitors") is None


async def test_a_click_whose_id_is_a_number_is_looked_for_in_its_fields_only(db):
    await write(db, *(a_click_event(click_id=str(n), timestamp=THIS_MONTH, **HERS) for n in (7, 17)))
    hers = [b'{"click_id": 7, ', b'{"clickId":"17"}', b'{"id": 7, "ip": "192.0.2.7"', b"click_id=17&x=1"]
    others = [b'{"click_id": 170}', b'{"pixel_id": 7, "n": 17}', b'{"pixelId": "7"', b"7;17"]
    for offset, value in enumerate(hers + others):
        record = a_record(offset, value, topic="click")
        await dead_letters.park(db, "cluster-1", [Malformed(record, "invalid_field", "because")])
    assert (await forget_whose_click(db, "7")).erased["dead_letters"] == len(hers)
    left = await db.fetch("SELECT value FROM dead_letters WHERE value IS NOT NULL ORDER BY id")
    assert [row["value"] for row in left] == others


async def test_parked_records_of_the_clicks_are_erased(clicked):
    values = {
        "click": [{"click_id": "hers-px-1-0-0"}, {"clickId": "hers-px-2-2-1"}, {"click_id": "his-0"}],
        "conversion": [{"click_id": "hers-px-1-0-0"}],
    }
    for topic, documents in values.items():
        for offset, document in enumerate(documents):
            record = a_record(offset, json.dumps(document).encode(), topic=topic)
            await dead_letters.park(clicked, "cluster-1", [Malformed(record, "invalid_field", "because")])
    found = await forget_whose_click(clicked, "hers-px-1-0-0", dry_run=True)
    erasure = await forget_whose_click(clicked, "hers-px-1-0-0")
    assert erasure.erased["dead_letters"] == found.erased["dead_letters"] == 2
    left = await clicked.fetch("SELECT topic FROM dead_letters WHERE value IS NOT NULL ORDER BY id")
    assert [row["topic"] for row in left] == ["click", "conversion"]


@pytest.mark.parametrize("named", ["nobody's", "0"])
async def test_nobody_in_particular_is_refused(clicked, named):
    with pytest.raises(InvalidSetting, match="neither address nor user agent"):
        await forget_whose_click(clicked, named)


@pytest.mark.parametrize("named", ["unknown", "123", "-9223372036854775809"])
async def test_who_is_not_known_is_no_error(clicked, named):
    assert (await forget_whose_click(clicked, named)).as_dict()["erased"] == {}


async def test_months_that_are_closed_stay_counted(clicked):
    before = await daily(clicked)
    await clicked.execute(f"SELECT close_click_partitions('{THIS_MONTH.date()}')")
    await forget_whose_click(clicked, "hers-px-1-2-0")
    assert await daily(clicked) == before
    assert await find_drift(clicked, COUNTERS) == []


async def test_months_that_are_forgotten_are_closed(clicked):
    before = await daily(clicked)
    await forget_whose_click(clicked, "hers-px-1-2-0")
    await clicked.execute(f"SELECT close_click_partitions('{THIS_MONTH.date()}')")
    assert await daily(clicked) == before
    assert await find_drift(clicked, COUNTERS) == []


async def test_two_at_once_give_one_number(clicked, database_url):
    hers, before = await number(clicked, "hers-px-1-0-0"), await daily(clicked)
    async with connections(database_url, 2) as (one, other):

        async def forget(connection: asyncpg.Connection) -> None:
            await forget_whose_click(connection, str(hers))

        assert await meet(clicked, one, other, forget, forget)
    assert len({await number(clicked, f"hers-px-1-{day}-0") for day in range(3)}) == 1
    assert await daily(clicked) == before
    assert await find_drift(clicked, COUNTERS) == []


async def test_a_replay_that_puts_rows_right_does_not_bring_them_back(clicked):
    await forget_whose_click(clicked, "hers-px-1-0-0")
    rows = await clicked.fetch("SELECT * FROM aff_clicks ORDER BY click_id")
    handler = RecordClicks(b"key", IpPolicy.FULL)
    hers = CLICKS[:12]
    facts = Facts([*hers], [1] * len(hers), list(range(len(hers))), origin=lambda i: f"log/{i}")
    async with clicked.transaction():
        for comparison, wanted in await handler.comparisons(clicked, await handler.plan(facts)):
            await overwrite(clicked, comparison, wanted)
    assert await clicked.fetch("SELECT * FROM aff_clicks ORDER BY click_id") == rows
    assert await find_drift(clicked, COUNTERS) == []
