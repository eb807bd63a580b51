"""Every topic has its event type, whose events name themselves."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from counterfoil import events
from counterfoil.events.envelope import TOPICS
from counterfoil.publishing.publisher import event_headers
from counterfoil.settings import DEFAULT_TOPICS
from support.builders import (
    NOON,
    a_cancellation,
    a_claim_event,
    a_click_event,
    a_conversion_event,
    a_link_event,
    a_redemption_event,
    a_refund_event,
    a_scan_event,
    a_user_event,
    a_voucher_event,
    an_impression_event,
    an_order,
    later,
    milliseconds_of,
)

EXAMPLES = [
    an_order("o1", currency="USD"),
    a_cancellation("o1"),
    a_refund_event("o1"),
    a_click_event("px-1"),
    a_conversion_event("o1"),
    a_user_event("u1"),
    a_link_event("l1"),
    a_voucher_event("v1"),
    an_impression_event("v1"),
    a_scan_event("v1"),
    a_claim_event("v1"),
    a_redemption_event("v1"),
    events.StockChange(sku="BAG-1", new_stock=9, timestamp=NOON),
]


def test_every_known_topic_has_its_event_type():
    assert tuple(events.EVENT_TYPES) == DEFAULT_TOPICS == tuple(event.topic for event in EXAMPLES)
    assert set(DEFAULT_TOPICS) <= TOPICS


@pytest.mark.parametrize("event", EXAMPLES, ids=lambda event: event.topic)
def test_what_is_written_is_read_back(event):
    kind = events.EVENT_TYPES[event.topic]
    assert type(event) is kind.event
    read = kind.decode(event.to_json(), (), milliseconds_of(later(60)), events.Rules())
    assert (read, read.key) == (event, event.key)


EVENTS_PAGE = Path(__file__).resolve().parents[3] / "docs" / "events.md"


@pytest.mark.parametrize("topic", DEFAULT_TOPICS)
def test_the_example_in_the_documentation_is_an_event(topic):
    page = EVENTS_PAGE.read_text(encoding="utf-8")
    example = re.search(rf"^## {re.escape(topic)}\n\n```json\n(.+?)```", page, re.MULTILINE | re.DOTALL)[1]
    said: list[str] = []
    events.EVENT_TYPES[topic].decode(example.encode(), (), -1, events.Rules(normalised=said.append))
    money = {"total", "amount", "revenue", "base_reward", "bonus_amount", "unit_price"}
    assert set(said) <= money  # as strings: exactly


def id_of(event) -> str:
    return dict(event_headers(event))["ce_id"].decode()


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (an_order("o1"), "order.placed:o1"),
        (a_refund_event("o1", "r1"), "order.refunded:o1:r1"),
        (a_click_event("px-1", click_id="c1"), "click:c1"),
        (a_conversion_event("o1", pixel_id="p", link_id="l"), "conversion:o1:pixel:p"),
        (a_conversion_event("o1", link_id="l"), "conversion:o1:link:l"),
        (a_user_event("é"), "user.created:é"),
        (a_voucher_event("v1"), "voucher.created:v1"),
        (an_impression_event("v1", impression_id="i1"), "impression:i1"),
        (a_scan_event("v1", scan_id="s1"), "scan:s1"),
        (a_claim_event("v1", "c1"), "claim:v1:c1"),
        (a_redemption_event("v1", attempt_id="a1"), "redemption:a1"),
        (events.StockChange(sku="BAG-1", event_id="e1"), "stock-change:e1"),
    ],
)
def test_one_fact_has_one_id_however_often_it_is_published(event, expected):
    assert id_of(event) == id_of(event) == expected


def test_facts_that_differ_never_share_an_id():
    refunds = [a_refund_event("o1", "r1"), a_refund_event("o1", "r2")]
    clicks = [a_click_event("px-1"), a_click_event("px-1"), a_click_event("px-1", click_id="c1")]
    conversions = [a_conversion_event("o1", pixel_id="x"), a_conversion_event("o1", link_id="x")]
    scans = [a_scan_event("v1"), a_scan_event("v1"), a_scan_event("v1", scan_id="c1")]
    impressions = [an_impression_event("v1"), an_impression_event("v1")]
    attempts = [a_redemption_event("v1"), a_redemption_event("v1")]
    claims = [a_claim_event("v1", "c1"), a_claim_event("v1", "c2"), a_claim_event("v2", "c1")]
    changes = [events.StockChange(sku="BAG-1", new_stock=9), events.StockChange(sku="BAG-1", new_stock=9)]
    facts = [*refunds, *clicks, *conversions, *scans, *impressions, *attempts, *claims, *changes]
    ids = [id_of(event) for event in facts]
    assert len(set(ids)) == len(ids)
