"""What a record of `click` is decoded to: what outsiders say in it never kills it, whose click it is may."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from counterfoil import events
from counterfoil.errors import InvalidEvent

RECORD_MS = 1_767_261_600_000
RECORD_TIME = datetime(2026, 1, 1, 10, tzinfo=UTC)
UUID = "0198a1b2-0000-7000-8000-0123456789ab"


def click(document, headers=(), timestamp_ms=RECORD_MS):
    value = document if isinstance(document, bytes | None) else json.dumps(document).encode()
    return events.decode_click(value, headers, timestamp_ms, events.Rules())


def refusal(document, *more) -> InvalidEvent:
    with pytest.raises(InvalidEvent) as caught:
        click(document, *more)
    return caught.value


def normalised(document) -> list[str]:
    said: list[str] = []
    events.decode_click(json.dumps(document).encode(), (), RECORD_MS, events.Rules(normalised=said.append))
    return said


USUAL = {
    "click_id": UUID,
    "pixel_id": "5f0c7a52-6f0a-4a55-9b60-0123456789ab",
    "ip_address": "203.0.113.77",
    "user_agent": "Mozilla/5.0 (X11; Linux x86_64)",
    "referrer": "https://social.example/post?id=1",
    "landing_page": "https://shop.example/p?utm_source=x",
    "link_id": "link_1",
    "timestamp": "2026-01-01T09:00:00.123Z",
}
SENT = datetime(2026, 1, 1, 9, 0, 0, 123_000, tzinfo=UTC)


def test_the_usual_click_is_kept_as_sent():
    assert click(USUAL) == events.Click(**{**USUAL, "timestamp": SENT})
    assert normalised(USUAL) == []


def test_camel_case_click():
    camel = {
        "clickId": UUID.upper(),
        "pixelId": 7,
        "ipAddress": "203.0.113.77",
        "userAgent": "curl/8",
        "landingPage": "/p",
        "linkId": "l1",
        "clickedAt": RECORD_MS - 1_000,
    }
    assert click(camel) == events.Click(
        click_id=UUID,
        pixel_id="7",
        ip_address="203.0.113.77",
        user_agent="curl/8",
        landing_page="/p",
        link_id="l1",
        timestamp=RECORD_TIME - timedelta(seconds=1),
    )


THIN = events.Click(pixel_id="px_1", timestamp=RECORD_TIME)


@pytest.mark.parametrize(
    "document",
    [
        {"pixel_id": "px_1"},
        {"pixel_id": "", "pixelId": "px_1"},
        {"pixel_id": "px_1", "click_id": " ", "link_id": None, "linkId": "", "id": ""},
        {"pixel_id": "px_1", "ip_address": None, "user_agent": None, "referrer": None, "timestamp": None},
        {"pixel_id": "px_1", "ip_address": "", "user_agent": "", "referrer": "", "landing_page": ""},
        {"pixel_id": "px_1", "unknown": "\ud800", "name": 7, "type": {}, "data": []},
        {"name": "click", "data": {"pixel_id": "px_1"}},
        {"id": "msg_1", "eventName": "page.clicked", "data": {"pixelId": "px_1"}},
        {"specversion": "1.0", "id": "e1", "type": "click", "data": {"pixel_id": "px_1"}},
        {"specversion": "1.0", "id": "e1", "data": {"name": "click", "data": {"pixel_id": "px_1"}}},
    ],
)
def test_thin_click_in_every_wrapping(document):
    assert click(document) == THIN


def test_a_click_may_call_its_id_just_id():
    assert click({"id": "c1", "pixel_id": "px_1"}).click_id == "c1"
    assert click({"id": "evt", "clickId": "c1", "pixel_id": "px_1"}).click_id == "c1"


@pytest.mark.parametrize("own", ["pixel_id", "pixelId", "click_id", "clickId", "link_id", "linkId"])
def test_a_click_that_names_its_own_ids_is_no_envelope(own):
    document = {"pixel_id": "px_1", own: "px_1", "name": "banner", "data": {"pixel_id": "other"}}
    assert click(document).pixel_id == "px_1"
    assert click({**document, "unknown": "\ud800"}).pixel_id == "px_1"
    assert refusal({"id": "e1", "name": "banner", "data": {"unknown": 1}}).field == "pixel_id"


@pytest.mark.parametrize(
    ("field", "value", "kept"),
    [
        ("ip_address", "localhost", None),
        ("ip_address", "203.0.113.256", None),
        ("ip_address", "203.0.113.7, 10.0.0.1", None),
        ("ip_address", "\ud800", None),
        ("ip_address", "2001:DB8::0:1", "2001:db8::1"),
        ("ip_address", "::ffff:203.0.113.7", "203.0.113.7"),
        ("ip_address", "fe80::1%eth0", "fe80::1"),
        ("user_agent", "a\x00b\nc\x7fd", "abcd"),
        ("user_agent", "\ud83d\ude00 \ud800", "\U0001f600 \ufffd"),
        ("user_agent", "x" * 1_025, "x" * 1_024),
        ("user_agent", "<script>\x1b[31m", "<script>[31m"),
        ("referrer", "x" * 2_049, "x" * 2_048),
        ("referrer", "a\tb", "ab"),
        ("landing_page", "x" * 2_049, "x" * 2_048),
        ("landing_page", "\x85", None),
    ],
)
def test_what_outsiders_say_is_changed_and_never_kills(field, value, kept):
    assert getattr(click({**USUAL, field: value}), field) == kept
    assert normalised({**USUAL, field: value}) == [field]


@pytest.mark.parametrize("field", ["user_agent", "referrer", "landing_page"])
def test_text_is_kept_up_to_its_last_character(field):
    longest = "é" * (1_024 if field == "user_agent" else 2_048)
    for text in (longest, "a" * len(longest), 'quoted "so" \\ and so', "東京"):
        assert getattr(click({**USUAL, field: text}), field) == text
        assert normalised({**USUAL, field: text}) == []


def test_a_control_character_is_removed_however_it_is_written():
    for written in (b"\x7f", b"\\u007f", b"\\u0000", b"\\n", b"\xc2\x85", b"\\u0085"):
        document = b'{"pixel_id":"px_1","user_agent":"a' + written + b'b"}'
        assert click(document).user_agent == "ab"
    assert click(b'{"pixel_id":"px_1","user_agent":"a\\/b"}').user_agent == "a/b"


@pytest.mark.parametrize(
    ("document", "kind", "path"),
    [
        (None, "empty", ""),
        ({}, "missing_field", "pixel_id"),
        ({"id": "c1"}, "missing_field", "pixel_id"),
        ({"click_id": "c1", "link_id": "l1"}, "missing_field", "pixel_id"),
        ({"pixel_id": " ", "pixelId": None}, "missing_field", "pixel_id"),
        ({"pixel_id": 1.5}, "invalid_field", "pixel_id"),
        ({"pixelId": "x" * 256}, "invalid_field", "pixelId"),
        ({"pixel_id": "a\x00"}, "invalid_field", "pixel_id"),
        ({**USUAL, "click_id": True}, "invalid_field", "click_id"),
        ({**USUAL, "click_id": None, "clickId": []}, "invalid_field", "clickId"),
        ({**USUAL, "link_id": {}}, "invalid_field", "link_id"),
        ({**USUAL, "ip_address": 3_405_803_853}, "invalid_field", "ip_address"),
        ({**USUAL, "ip_address": None, "ipAddress": []}, "invalid_field", "ipAddress"),
        ({**USUAL, "user_agent": 5}, "invalid_field", "user_agent"),
        ({**USUAL, "user_agent": None, "userAgent": {}}, "invalid_field", "userAgent"),
        ({**USUAL, "referrer": False}, "invalid_field", "referrer"),
        ({**USUAL, "landing_page": ["/"]}, "invalid_field", "landing_page"),
        ({**USUAL, "timestamp": "2026-01-01"}, "invalid_field", "timestamp"),
        ({**USUAL, "timestamp": 1_767_261_600}, "invalid_field", "timestamp"),
        ({**USUAL, "timestamp": "2026-01-02T10:00:01Z"}, "invalid_field", "timestamp"),
        ({**USUAL, "timestamp": None, "createdAt": "now"}, "invalid_field", "createdAt"),
        ({"name": "conversion", "data": {"pixel_id": "px_1"}}, "wrong_event", "name"),
        ({"specversion": "1.0", "type": "scan", "data": USUAL}, "wrong_event", "type"),
    ],
)
def test_refused_with_kind_and_path(document, kind, path):
    error = refusal(document)
    assert (error.kind, error.field) == (kind, path)


@pytest.mark.parametrize("key", ["timestamp", "clicked_at", "clickedAt", "created_at", "createdAt"])
def test_times(key):
    assert click({"pixel_id": "px_1", key: RECORD_MS - 1_000}).timestamp == RECORD_TIME - timedelta(seconds=1)


def test_without_any_time_the_click_is_refused():
    assert refusal({"pixel_id": "px_1"}, (), -1).kind == "missing_field"


def test_normalised_fields_are_reported_by_their_names():
    assert normalised({"pixelId": 7, "id": 8, "linkId": " l1", "ipAddress": "x", "userAgent": "\x00"}) == [
        "user_agent",
        "pixel_id",
        "click_id",
        "ip_address",
        "link_id",
        "timestamp",
    ]


def test_written_json_is_the_wire_format():
    sent = events.Click(**{**USUAL, "timestamp": SENT})
    assert (sent.topic, sent.key, sent.identity) == ("click", USUAL["pixel_id"], UUID)
    assert json.loads(sent.to_json()) == {**USUAL, "timestamp": "2026-01-01T09:00:00.123000Z"}
    assert json.loads(events.Click(pixel_id="px_1").to_json()) == {"pixel_id": "px_1"}
    assert click(sent.to_json()) == sent
