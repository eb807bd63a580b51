"""Dead letters over HTTP: dropped with a reason, retried some at a time, filtered by time, and their pages."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator

import asyncpg
import pytest

from counterfoil.ingest import dead_letter_routes
from support.builders import an_order
from support.console import Served, park, serving

LETTERS = "/api/dead-letters"
PAGE = "/ops/dead-letters"


@pytest.fixture
async def served(pool: asyncpg.Pool) -> AsyncIterator[Served]:
    """With a token."""
    async with serving(pool) as started:
        yield started


@pytest.fixture
async def opened(pool: asyncpg.Pool) -> AsyncIterator[Served]:
    """Without a token: open to this machine."""
    async with serving(pool, token=None) as started:
        yield started


async def parked(db, *values: bytes, **given) -> list[int]:
    return [await park(db, value, offset=n, **given) for n, value in enumerate(values)]


def order(number: int) -> bytes:
    return an_order(str(number), codes=["A"]).to_json()


# Dropping


async def test_a_dropped_letter_says_why_and_stays(opened: Served, db) -> None:
    [letter] = await parked(db, b"{")
    reply = await opened.client.post(f"{LETTERS}/{letter}/drop", {"reason": "  a test\nof ours "})
    assert (reply.status, reply.json) == (
        200,
        {"id": letter, "outcome": "dropped", "reason": "a test\nof ours"},
    )
    kept = (await opened.client.get(f"{LETTERS}/{letter}")).json
    assert (kept["resolution"], kept["resolvedBy"], kept["resolvedBecause"], kept["value"]) == (
        "dropped",
        "admin-api",
        "a test\nof ours",
        "{",
    )
    for again in ("drop", "retry"):
        assert (await opened.client.post(f"{LETTERS}/{letter}/{again}", {"reason": "x"})).status == 409
    assert (await opened.client.get(LETTERS)).json == []


@pytest.mark.parametrize(
    "body",
    [{}, {"reason": ""}, {"reason": " \t"}, {"reason": None}, {"reason": "a\x00b"}, {"why": "x"}, "[]", "{"],
)
async def test_a_letter_is_not_dropped_without_a_reason(opened: Served, db, body) -> None:
    [letter] = await parked(db, b"{")
    reply = await opened.client.post(f"{LETTERS}/{letter}/drop", body)
    assert reply.status in {400, 422}
    assert await db.fetchval("SELECT resolved_at FROM dead_letters") is None


@pytest.mark.parametrize("letter", ["4242", "0", "99999999999999999999"])
async def test_a_letter_that_is_not_there_is_not_found(opened: Served, letter: str) -> None:
    assert (await opened.client.post(f"{LETTERS}/{letter}/drop", {"reason": "x"})).status == 404


# Retrying some


async def test_all_that_match_are_retried_and_told_of(opened: Served, db) -> None:
    good, bad, double = await parked(db, order(1), b"{", order(1), kind="too_large")
    other = await park(db, order(2), offset=3, kind="not_json")
    reply = await opened.client.post(f"{LETTERS}/retry", {"kind": "too_large"})
    assert reply.status == 200
    assert [(one["id"], one["outcome"]) for one in reply.json["refusals"]] == [(bad, "refused")]
    counts = {
        name: reply.json[name]
        for name in ("retried", "applied", "duplicate", "refused", "gone", "left", "last")
    }
    assert counts == {
        "retried": 3,
        "applied": 1,
        "duplicate": 1,
        "refused": 1,
        "gone": 0,
        "left": 0,
        "last": double,
    }
    assert good < double
    rows = dict(await db.fetch("SELECT id, retried_at IS NULL FROM dead_letters"))
    assert [letter for letter, is_untouched in rows.items() if is_untouched] == [other]


async def test_of_many_so_many_are_retried_and_the_rest_is_told(opened: Served, db) -> None:
    ids = await parked(db, *(b"{" for _ in range(5)))
    first = (await opened.client.post(f"{LETTERS}/retry", {"limit": 2})).json
    assert (first["retried"], first["left"], first["last"]) == (2, 3, ids[1])
    second = (await opened.client.post(f"{LETTERS}/retry", {"limit": 2, "after": first["last"]})).json
    third = (await opened.client.post(f"{LETTERS}/retry", {"limit": 2, "after": second["last"]})).json
    assert (second["left"], third["retried"], third["left"]) == (1, 1, 0)
    assert await db.fetchval("SELECT count(*) FROM dead_letters WHERE retried_at IS NULL") == 0


async def test_a_request_ends_in_time_and_says_what_is_left(opened: Served, db, monkeypatch) -> None:
    monkeypatch.setattr(dead_letter_routes, "AT_ONCE", 2)
    monkeypatch.setattr(dead_letter_routes, "RETRIED_WITHIN_S", -1.0)
    await parked(db, *(order(n) for n in range(5)))
    reply = (await opened.client.post(f"{LETTERS}/retry", {})).json
    assert (reply["retried"], reply["left"]) == (2, 3)


async def test_nothing_that_matches_is_nothing_retried(opened: Served) -> None:
    reply = (await opened.client.ask("POST", f"{LETTERS}/retry", None, {})).json
    assert (reply["retried"], reply["left"], reply["refusals"]) == (0, 0, [])


@pytest.mark.parametrize(
    "body",
    [
        {"limit": 0},
        {"limit": 1_001},
        {"after": -1},
        {"since": "2026-03-01"},
        {"since": "2026-03-01T12:00:00"},
        {"topics": "a"},
        {"kind": 1},
    ],
)
async def test_a_wrong_order_is_refused_and_retries_nothing(opened: Served, db, body) -> None:
    await parked(db, b"{")
    assert (await opened.client.post(f"{LETTERS}/retry", body)).status == 422
    assert await db.fetchval("SELECT retried_at FROM dead_letters") is None


async def test_letters_are_filtered_by_time_on_both_sides(opened: Served, db) -> None:
    ids = await parked(db, b"1", b"2", b"3")
    for n, letter in enumerate(ids):
        await db.execute(
            "UPDATE dead_letters SET first_seen_at = '2026-03-01Z'::timestamptz + $1 * interval '1 day' WHERE id = $2",
            n,
            letter,
        )
    found = await opened.client.get(f"{LETTERS}?since=2026-03-02T00:00:00Z&until=2026-03-03T00:00:00Z")
    assert [letter["id"] for letter in found.json] == [ids[1]]
    body = {"since": "2026-03-02T00:00:00Z", "until": "2026-03-02T01:00:00+01:00"}
    assert (await opened.client.post(f"{LETTERS}/retry", body)).json["retried"] == 0


# Who may


async def test_only_who_is_let_in_drops_and_retries(served: Served, db) -> None:
    [letter] = await parked(db, b"{")
    cookie = await served.session()
    for path in (f"{LETTERS}/{letter}/drop", f"{LETTERS}/retry"):
        assert (await served.client.post(path, {"reason": "x"})).status == 401
        assert (await served.client.post(path, {"reason": "x"}, cookie=cookie)).status == 403
    assert await db.fetchval("SELECT retried_at IS NULL AND resolved_at IS NULL FROM dead_letters")
    token = await served.csrf_token(cookie)
    ours = {"cookie": cookie, "x_csrf_token": token, "sec_fetch_site": "same-origin"}
    assert (await served.client.post(f"{LETTERS}/{letter}/drop", {"reason": "x"}, **ours)).status == 200
    assert (await served.client.post(f"{LETTERS}/retry", {}, **ours)).status == 200


# Pages


@pytest.mark.parametrize("path", [PAGE, f"{PAGE}/1"])
async def test_a_page_without_a_session_leads_to_the_login(served: Served, path: str) -> None:
    reply = await served.client.get(path)
    assert (reply.status, reply.headers["location"]) == (303, "/ops/login")


async def test_nothing_of_a_record_breaks_out_of_its_pages(opened: Served, db) -> None:
    evil = "<script>alert(1)</script>\"'>{{7*7}}\u202e"
    letter = await park(db, evil.encode(), topic=evil, kind=evil, error=evil, key=evil.encode())
    await db.execute("UPDATE dead_letters SET headers = $1", json.dumps([[evil, evil]]))
    await db.execute(
        "UPDATE dead_letters SET resolved_at = now(), resolution = 'dropped', resolved_by = $1, resolved_because = $1",
        evil,
    )
    for path in (
        f"{PAGE}?resolved=true&topic=%3Cscript%3Ealert(1)",
        f"{PAGE}?resolved=true",
        f"{PAGE}/{letter}",
    ):
        page = (await opened.client.get(path)).body.decode()
        assert "<script>alert" not in page, path
        assert "\u202e" not in re.sub(r'value="[^"]*"', "", page), path  # a filter must name it as it is
        assert "49" not in page.split("7*7")[0][-5:], path


async def test_a_letter_that_is_no_text_and_large_has_a_page(opened: Served, db) -> None:
    letter = await park(db, b"\xff\x00" * 400_000, key=None)
    page = (await opened.client.get(f"{PAGE}/{letter}")).body.decode()
    assert "800,000 bytes" in page
    assert "refused: not_utf8" in page
    assert len(page) < 100_000
    empty = await park(db, None, offset=1, key=b"\xff")
    assert "refused: empty" in (await opened.client.get(f"{PAGE}/{empty}")).body.decode()


@pytest.mark.parametrize(
    ("query", "status", "told"),
    [
        ("since=yesterday", 422, "since must be a time"),
        ("since=9999-12-31T23:59:59-23:59", 422, "since must be in the years"),
        ("kind=nothing+of+this", 200, "None that match."),
        ("since=2026-03-01T12:00", 200, "None that match."),
    ],
)
async def test_a_filter_says_what_is_wrong_with_it(
    opened: Served, query: str, status: int, told: str
) -> None:
    reply = await opened.client.get(f"{PAGE}?{query}")
    assert reply.status == status
    assert told in reply.body.decode()


async def test_the_list_goes_on_where_it_ends(opened: Served, db) -> None:
    ids = await parked(db, *(b"%d" % n for n in range(52)))
    first = (await opened.client.get(PAGE)).body.decode()
    assert f'id="letter-{ids[-1]}"' in first
    assert f'id="letter-{ids[1]}"' not in first
    assert 'href="/ops/dead-letters?offset=50" rel="next"' in first
    second = (await opened.client.get(f"{PAGE}?offset=50")).body.decode()
    assert f'id="letter-{ids[1]}"' in second
    assert 'href="/ops/dead-letters" rel="prev"' in second


async def test_a_page_of_no_letter_and_of_no_database_say_so(opened: Served, db) -> None:
    reply = await opened.client.get(f"{PAGE}/4242")
    assert (reply.status, "There is no such dead letter: 4242." in reply.body.decode()) == (404, True)
    async with serving(None, token=None) as away:
        for path in (PAGE, f"{PAGE}/1"):
            assert (await away.client.get(path)).status == 503
