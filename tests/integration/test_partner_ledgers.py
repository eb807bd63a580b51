"""Users and links on a real database: who is whose partner, in whatever order it is told."""

from __future__ import annotations

import asyncio
import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from counterfoil.database.facts import Facts
from counterfoil.events import LinkCreated, UserCreated
from counterfoil.partners.handlers import RecordLinks, RecordUsers
from counterfoil.partners.rules import program_id
from support.builders import NOON, a_link_event, a_user_event, later
from support.postgres_ledgers import connections

CULTGAIA = program_id("cultgaia.com")
TABLES = {
    "shop_users": "id, name, email, default_partner_id, occurred_at",
    "partners": "id, name, email",
    "partner_users": "partner_id, user_id",
    "programs": "id, base_domain",
    "program_enrollments": "partner_id, program_id, status, origin",
    "links": "id, url, user_id, named_partner_id, partner_id, program_id, pixel_id, occurred_at",
}


async def record(db, *events) -> tuple[set[int], set[int]]:
    """Write events of one type as a batch; the indexes of the changed and of the unchanged ones."""
    handler = RecordUsers() if isinstance(events[0], UserCreated) else RecordLinks()
    facts = Facts(list(events), [1] * len(events), list(range(len(events))))
    async with db.transaction():
        outcome = await handler.write(db, await handler.plan(facts))
        return set(outcome.changed()), set(outcome.unchanged)


async def stored(db) -> dict[str, list[tuple]]:
    return {
        table: sorted((tuple(row) for row in await db.fetch(f"SELECT {columns} FROM {table}")), key=repr)
        for table, columns in TABLES.items()
    }


async def empty(db) -> None:
    async with db.transaction():
        await db.execute("SET LOCAL session_replication_role = replica")
        await db.execute("; ".join(f"DELETE FROM {table}" for table in TABLES))


async def test_a_user_becomes_a_partner(db):
    assert await record(db, a_user_event("u1", name="Ann", email="ann@example.com")) == ({0}, set())
    found = await stored(db)
    assert found["partners"] == [("pn_u1", "Ann", "ann@example.com")]
    assert found["partner_users"] == [("pn_u1", "u1")]
    assert found["shop_users"] == [("u1", "Ann", "ann@example.com", "pn_u1", NOON)]


async def test_a_link_makes_its_program_and_enrolls_its_users_partner(db):
    await record(db, a_user_event("u1"))
    assert await record(db, a_link_event(user_id="u1", pixel_id="px")) == ({0}, set())
    found = await stored(db)
    assert found["programs"] == [(CULTGAIA, "cultgaia.com")]
    assert found["program_enrollments"] == [("pn_u1", CULTGAIA, "approved", "link")]
    assert found["links"] == [
        ("l1", "https://cultgaia.com/products/bag", "u1", None, "pn_u1", CULTGAIA, "px", NOON)
    ]


async def test_a_link_of_an_unknown_user_waits_for_him(db):
    await record(db, a_link_event(user_id="u1"))
    assert (await stored(db))["links"][0][4] is None
    await record(db, a_user_event("u1"))
    found = await stored(db)
    assert found["links"][0][4] == "pn_u1"
    assert found["program_enrollments"] == [("pn_u1", CULTGAIA, "approved", "link")]


async def test_a_link_that_names_a_partner_is_his_and_he_is_made(db):
    await record(db, a_user_event("u1"))
    await record(db, a_link_event(user_id="u1", partner_id="p9"))
    found = await stored(db)
    assert ("p9", None, None) in found["partners"]
    assert found["links"][0][3:5] == ("p9", "p9")
    assert found["program_enrollments"] == [("p9", CULTGAIA, "approved", "link")]


async def test_of_two_contents_the_earlier_stands_then_the_smaller(db):
    await record(db, a_user_event("u1", name="B", timestamp=later(2)))
    assert await record(db, a_user_event("u1", name="C", timestamp=later(2))) == (set(), {0})
    assert await record(db, a_user_event("u1", name="A", timestamp=later(2))) == ({0}, set())
    assert await record(db, a_user_event("u1", name="Z", email="z@example.com", timestamp=later(1))) == (
        {0},
        set(),
    )
    assert await record(db, a_user_event("u1", timestamp=later(3))) == (set(), {0})
    found = await stored(db)
    assert found["partners"] == [("pn_u1", "Z", "z@example.com")]
    assert found["shop_users"][0][4] == later(1)


async def test_an_earlier_link_takes_the_later_ones_enrollment_away_and_keeps_its_program(db):
    await record(db, a_user_event("u1"), a_user_event("u2"))
    await record(db, a_link_event(url="https://later.com", user_id="u2", timestamp=later()))
    assert await record(db, a_link_event(user_id="u1")) == ({0}, set())
    found = await stored(db)
    assert found["links"][0][2:6] == ("u1", None, "pn_u1", CULTGAIA)
    assert found["program_enrollments"] == [("pn_u1", CULTGAIA, "approved", "link")]
    assert [domain for _, domain in found["programs"]] == ["cultgaia.com", "later.com"]


async def test_a_refused_link_leaves_its_program_and_partner_and_then_nothing(db):
    await record(db, a_link_event())
    refused = a_link_event(url="https://other.com", partner_id="p2", timestamp=later())
    assert await record(db, refused) == ({0}, set())
    assert await record(db, refused) == (set(), {0})
    assert await record(db, a_link_event("l2", url="https://other.com/x", timestamp=later())) == ({0}, set())
    found = await stored(db)
    assert [row[:2] for row in found["links"]] == [
        ("l1", "https://cultgaia.com/products/bag"),
        ("l2", "https://other.com/x"),
    ]
    assert ("p2", None, None) in found["partners"]


async def test_of_doubles_in_a_batch_one_is_applied(db):
    events = [
        a_link_event("l1"),
        a_link_event("l1"),
        a_link_event("l2"),
        a_link_event("l1", timestamp=later()),
    ]
    assert await record(db, *events) == ({0, 2}, {1, 3})
    assert await record(db, *events) == (set(), {0, 1, 2, 3})
    users = [a_user_event("u1", timestamp=later()), a_user_event("u1"), a_user_event("u2")]
    assert await record(db, *users) == ({1, 2}, {0})
    assert await record(db, *users) == (set(), {0, 1, 2})


async def test_what_only_a_refused_double_names_counts_as_its_own(db):
    events = [
        a_link_event("l1"),
        a_link_event("l1", url="https://x.com", timestamp=later()),
        a_link_event("l1", partner_id="p"),
    ]
    changed, unchanged = await record(db, *events)
    assert (changed, unchanged) == ({0, 1, 2}, set())
    assert await record(db, *events) == (set(), {0, 1, 2})


async def test_a_program_that_was_imported_keeps_its_id(db):
    await db.execute("INSERT INTO programs (id, base_domain) VALUES ('old-17', 'cultgaia.com')")
    await record(db, a_link_event(partner_id="p1"))
    found = await stored(db)
    assert found["links"][0][5] == "old-17"
    assert found["program_enrollments"] == [("p1", "old-17", "approved", "link")]
    assert await record(db, a_link_event(partner_id="p1")) == (set(), {0})


async def test_a_url_without_a_usable_host_is_a_link_of_no_program(db):
    await record(db, a_link_event(url="https://a b.com", partner_id="p1"))
    found = await stored(db)
    assert (found["links"][0][5], found["programs"], found["program_enrollments"]) == (None, [], [])


async def test_a_row_without_source_that_names_nothing_gives_way_to_a_later_event(db):
    await db.execute("INSERT INTO shop_users (id, occurred_at) VALUES ('u1', '2020-01-01Z')")
    await db.execute("INSERT INTO shop_users (id, name, occurred_at) VALUES ('u2', 'Old', '2020-01-01Z')")
    events = [a_user_event("u1", name="Ann"), a_user_event("u2", name="Bob")]
    assert await record(db, *events) == ({0}, {1})
    assert await record(db, *events) == (set(), {0, 1})
    found = await stored(db)
    assert found["partners"] == [("pn_u1", "Ann", None), ("pn_u2", "Old", None)]


async def test_a_user_with_a_partner_of_his_own_keeps_it(db):
    await db.execute("INSERT INTO partners (id, name) VALUES ('agency', 'Agency')")
    await db.execute("INSERT INTO partner_users (partner_id, user_id) VALUES ('agency', 'u1')")
    await record(db, a_link_event(user_id="u1"))
    await record(db, a_user_event("u1", name="Ann"))
    found = await stored(db)
    assert found["partners"] == [("agency", "Agency", None)]
    assert found["links"][0][4] == "agency"


moments = st.integers(0, 2).map(later)
users = st.builds(
    a_user_event,
    st.sampled_from(["u1", "u2"]),
    name=st.none() | st.sampled_from(["", "a", "B", "é"]),
    email=st.none() | st.sampled_from(["x@example.com", "Y@example.com"]),
    timestamp=moments,
)
links = st.builds(
    a_link_event,
    st.sampled_from(["l1", "l2", "l3"]),
    url=st.sampled_from(
        ["https://cultgaia.com", "https://www.CULTGAIA.com/x", "https://other.de", "https://a b"]
    ),
    user_id=st.none() | st.sampled_from(["u1", "u2", "u3"]),
    partner_id=st.none() | st.sampled_from(["p1", "pn_u1"]),
    pixel_id=st.none() | st.sampled_from(["x", "y"]),
    timestamp=moments,
)


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(events=st.lists(users | links, min_size=1, max_size=9), seeds=st.tuples(st.integers(), st.integers()))
async def test_any_order_and_any_batches_end_in_the_same_tables(db, events, seeds):
    results = []
    for seed in seeds:
        await empty(db)
        dice = random.Random(seed)
        sent = [*events, *dice.choices(events, k=dice.randrange(3))]
        dice.shuffle(sent)
        while sent:
            kind = type(sent[0])
            size = dice.randint(1, 3)
            batch = [event for event in sent if type(event) is kind][:size]
            changed, unchanged = await record(db, *batch)
            assert changed | unchanged == set(range(len(batch)))
            assert changed & unchanged == set()
            for event in batch:
                sent.remove(event)
        results.append(await stored(db))
    assert results[0] == results[1]
    for event in events:
        assert await record(db, event) == (set(), {0})


@pytest.mark.parametrize("round_", range(3))
async def test_many_workers_at_once_end_in_the_same_tables(db, database_url, round_):
    dice = random.Random(round_)
    events = [a_user_event(f"u{n}") for n in range(20)] + [
        a_link_event(f"l{n}", url=f"https://shop{n % 7}.com", user_id=f"u{n % 20}", timestamp=later(n % 3))
        for n in range(40)
    ]

    async def work(connection, sent):
        for kind in (UserCreated, LinkCreated) if dice.random() < 0.5 else (LinkCreated, UserCreated):
            await record(connection, *[event for event in sent if type(event) is kind])

    async with connections(database_url, 4) as workers:
        await asyncio.gather(*(work(worker, dice.sample(events, len(events))) for worker in workers))
    found = await stored(db)
    assert len(found["links"]) == 40
    assert all(row[4] == f"pn_{row[2]}" for row in found["links"])
    assert len(found["program_enrollments"]) == len({(row[4], row[5]) for row in found["links"]})
