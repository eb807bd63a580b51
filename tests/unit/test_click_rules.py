"""What a click comes to: visitor, address, bot, id; and which of a batch's clicks stand."""

from __future__ import annotations

import re
from dataclasses import dataclass

import pytest
from crawlerdetect import CrawlerDetect
from crawlerdetect.providers import crawlers
from hypothesis import given
from hypothesis import strategies as st

from counterfoil.clicks.handlers import RecordClicks
from counterfoil.clicks.rules import UNKNOWN_VISITOR, KnownBots, Visitors, derived_click_id
from counterfoil.database.facts import Facts
from counterfoil.events.addresses import KeptAddresses
from counterfoil.settings import IpPolicy
from support.builders import a_click_event, later

KEY = b"a key of the deployment"
GOOGLEBOT = "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"
SAFARI = (
    "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) "
    "Version/17.5 Mobile/15E148 Safari/604.1"
)

addresses = st.ip_addresses().map(str)
agents = st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=40)
visitors = st.tuples(st.none() | addresses, st.none() | agents)


def read(policy=IpPolicy.TRUNCATE, key=KEY) -> Visitors:
    return Visitors(key, policy)


READ = read()


def told(who):
    """An empty text tells no more than none."""
    return [text or None for text in who]


# Visitors


@given(one=visitors, other=visitors)
def test_a_visitor_is_who_shares_address_and_user_agent(one, other):
    assert READ.visitor(*one) == read().visitor(*one)
    assert (READ.visitor(*one) == READ.visitor(*other)) == (told(one) == told(other))


@given(who=visitors)
def test_only_a_visitor_of_whom_nothing_is_known_is_zero(who):
    assert (READ.visitor(*who) == UNKNOWN_VISITOR) == (not any(who))
    assert -(2**63) <= READ.visitor(*who) < 2**63


@given(who=visitors.filter(any))
def test_another_key_gives_other_visitors(who):
    assert READ.visitor(*who) != read(key=b"another").visitor(*who)


@pytest.mark.parametrize("key", [b"k", b"k" * 1_000])
def test_a_key_may_have_any_length(key):
    assert read(key=key).visitor("192.0.2.1", None) != UNKNOWN_VISITOR


# Addresses


@given(address=addresses, policy=st.sampled_from(IpPolicy))
def test_of_a_clicks_address_is_kept_what_the_policy_says(address, policy):
    assert read(policy).kept(address) == KeptAddresses(KEY, policy)(address)


@pytest.mark.parametrize("policy", IpPolicy)
async def test_the_visitor_is_that_of_the_whole_address_whatever_is_kept_of_it(policy):
    clicks = [a_click_event(click_id=str(n), ip_address=f"192.0.2.{n}", user_agent=SAFARI) for n in range(3)]
    rows = await rows_of(clicks, policy)
    assert [row.visitor for row in rows] == [READ.visitor(f"192.0.2.{n}", SAFARI) for n in range(3)]
    assert len({row.ip_address for row in rows}) == (3 if policy in (IpPolicy.FULL, IpPolicy.HASH) else 1)


async def test_an_address_that_is_not_known_stays_unknown():
    for policy in IpPolicy:
        (row,) = await rows_of([a_click_event(user_agent=SAFARI, click_id="1")], policy)
        assert row.ip_address is None


# Bots

SAMPLES = [
    GOOGLEBOT,
    SAFARI,
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120.0.0.0 Safari/537.36",
    "Mozilla/5.0 (Linux; Android 14; SM-S918B) AppleWebKit/537.36 Chrome/124 Mobile Safari/537.36",
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10.15; rv:125.0) Gecko/20100101 Firefox/125.0",
    "facebookexternalhit/1.1 (+http://www.facebook.com/externalhit_uatext.php)",
    "curl/8.5.0",
    "python-requests/2.31",
    "my-own_crawler",
    "Mozilla/5.0 HeadlessChrome/119",
    "CUBOT NOTE 20",
    "",
    "   ",
]


@pytest.mark.parametrize("user_agent", SAMPLES)
def test_bots_are_those_of_the_library(user_agent):
    assert (user_agent in KnownBots()) == CrawlerDetect().is_crawler(user_agent)


@given(parts=st.lists(st.sampled_from([*SAMPLES, "bot", "-", "_9", "Linux", " spider"]), max_size=3))
def test_bots_are_those_of_the_library_in_any_composition(parts):
    user_agent = " ".join(parts)
    left = READ.bots._exclusions.sub("", user_agent)
    if len(left) <= KnownBots.SEARCHED:
        assert (user_agent in READ.bots) == CrawlerDetect().is_crawler(user_agent)


def test_without_user_agent_nobody_is_a_bot():
    assert None not in KnownBots()


def test_no_pattern_begins_with_a_repetition_which_would_take_quadratic_time():
    """crawlerdetect's own takes 94 ms for 1,024 letters that any visitor may send."""
    begins = re.compile(r"\(?(\[[^\]]*\]|\\?.)[*+]")
    assert any(begins.match(pattern) for pattern in crawlers.data)
    bots = KnownBots()
    assert not [part for part in bots._crawlers.pattern.split("|") if begins.match(part)]
    assert "x" * 2_000 + " bot" not in bots


def test_a_user_agent_is_learnt_once_and_their_memory_is_bounded(monkeypatch):
    monkeypatch.setattr(KnownBots, "REMEMBERED", 5)
    bots = KnownBots()
    assert [bots.learn(GOOGLEBOT) for _ in range(3)] == [True, False, False]
    assert GOOGLEBOT in bots
    for n in range(50):
        bots.learn(f"agent {n}")
        assert len(bots._known) <= 5
    assert GOOGLEBOT in bots


# Clicks


@dataclass(frozen=True)
class Row:
    click_id: str
    occurred_at: object
    pixel_id: str
    link_id: str | None
    ip_address: str | None
    user_agent: str | None
    referrer: str | None
    landing_page: str | None
    visitor: int
    is_bot: bool
    source_id: int
    source_offset: int


def facts_of(clicks) -> Facts:
    return Facts(list(clicks), [1] * len(clicks), list(range(len(clicks))), origin=lambda i: f"log/{i}")


async def rows_of(clicks, policy=IpPolicy.TRUNCATE) -> list[Row]:
    return [Row(*row) for row in (await RecordClicks(KEY, policy).plan(facts_of(clicks))).rows]


clicks = st.lists(
    st.builds(
        a_click_event,
        st.sampled_from(["px-1", "px-2"]),
        click_id=st.none() | st.sampled_from(["a", "b", "c"]),
        timestamp=st.integers(0, 2).map(later),
        referrer=st.none() | st.sampled_from(["x", "y"]),
    ),
    max_size=8,
)


@given(given_clicks=clicks)
async def test_of_clicks_with_one_id_and_time_the_first_stands(given_clicks):
    first: dict[tuple, int] = {}
    for index, click in enumerate(given_clicks):
        first.setdefault((click.click_id or derived_click_id(f"log/{index}"), click.timestamp), index)
    rows = await rows_of(given_clicks)
    assert [(row.click_id, row.occurred_at) for row in rows] == sorted(first)
    for row in rows:
        click = given_clicks[first[row.click_id, row.occurred_at]]
        assert row.source_offset == first[row.click_id, row.occurred_at]
        assert (row.pixel_id, row.referrer) == (click.pixel_id, click.referrer)


def test_a_missing_id_is_derived_from_the_record_and_is_the_same_in_a_replay():
    ids = [derived_click_id(f"cluster/click/0/{offset}/1772366400000") for offset in range(100)]
    assert len(set(ids)) == 100
    assert ids[0] == derived_click_id("cluster/click/0/0/1772366400000")
    assert all(re.fullmatch(r"[0-9a-f]{32}", click_id) for click_id in ids)


async def test_what_a_click_says_is_kept():
    click = a_click_event(
        "px-1",
        click_id="c1",
        link_id="l1",
        ip_address="2001:db8:1:2::3",
        user_agent=GOOGLEBOT,
        referrer="https://a.example/",
        landing_page="https://b.example/",
        timestamp=later(5),
    )
    (row,) = await rows_of([click])
    assert row == Row(
        "c1",
        later(5),
        "px-1",
        "l1",
        "2001:db8:1::",
        GOOGLEBOT,
        "https://a.example/",
        "https://b.example/",
        READ.visitor("2001:db8:1:2::3", GOOGLEBOT),
        True,
        1,
        0,
    )
