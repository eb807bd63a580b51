"""What records of `user.created` and `link.created` are decoded to."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from counterfoil import events
from counterfoil.errors import InvalidEvent

RECORD_MS = 1_767_261_600_000
RECORD_TIME = datetime(2026, 1, 1, 10, tzinfo=UTC)
PAGE = "https://cultgaia.com/products/bag?ref=x"


def user(document, headers=(), timestamp_ms=RECORD_MS):
    value = document if isinstance(document, bytes | None) else json.dumps(document).encode()
    return events.decode_user_created(value, headers, timestamp_ms, events.Rules())


def link(document, headers=(), timestamp_ms=RECORD_MS):
    value = document if isinstance(document, bytes | None) else json.dumps(document).encode()
    return events.decode_link_created(value, headers, timestamp_ms, events.Rules())


def refusal(decode, document, *more) -> InvalidEvent:
    with pytest.raises(InvalidEvent) as caught:
        decode(document, *more)
    return caught.value


ANN = events.UserCreated(user_id="u1", name="Ann", timestamp=RECORD_TIME)


@pytest.mark.parametrize(
    "document",
    [
        {"user_id": "u1", "name": "Ann"},
        {"userId": "u1", "name": "Ann", "email": None},
        {"id": "u1", "name": "Ann", "email": ""},
        {"user_id": " ", "id": "u1", "name": "A\x00nn"},
        {"id": "u1", "name": "Ann", "data": None},
        {"id": "u1", "name": "Ann", "data": "no object"},
        {"user_id": "u1", "name": "Ann", "data": {"plan": "pro"}},
        {"userId": "u1", "name": "Ann", "data": {"user_id": "u2"}, "unknown": "\ud800"},
        {"name": "user.created", "data": {"id": "u1", "name": "Ann"}},
        {"name": "customer.created", "data": {"user_id": "u1", "name": "Ann"}},
        {"id": "e1", "eventName": "user.created", "data": {"userId": "u1", "name": "Ann"}},
        {"specversion": "1.0", "type": "user.created", "data": {"id": "u1", "name": "Ann"}},
        {"specversion": "1.0", "data": {"name": "user.created", "data": {"id": "u1", "name": "Ann"}}},
    ],
)
def test_a_users_name_is_no_envelope(document):
    assert user(document) == ANN


def test_a_user_may_be_called_like_an_event():
    assert user({"user_id": "u1", "name": "order.placed"}).name == "order.placed"
    assert user({"user_id": "u1", "name": "order.placed", "data": {}}).name == "order.placed"
    assert refusal(user, {"name": "order.placed", "data": {"id": "u1"}}).kind == "wrong_event"


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (None, None),
        ("", None),
        ("\x00", None),
        ("Zoë 東京", "Zoë 東京"),
        ("x" * 1_025, "x" * 1_024),
        ("\ud800", "\ufffd"),
    ],
)
def test_names_are_free_text(given, kept):
    assert user({"id": "u1", "name": given, "email": given}) == events.UserCreated(
        user_id="u1", name=kept, email=kept, timestamp=RECORD_TIME
    )


@pytest.mark.parametrize(
    ("document", "kind", "path"),
    [
        (b"", "empty", ""),
        ({"name": "Ann"}, "missing_field", "user_id"),
        ({"user_id": "", "userId": None, "id": " "}, "missing_field", "user_id"),
        ({"user_id": []}, "invalid_field", "user_id"),
        ({"user_id": "u1", "name": 7}, "invalid_field", "name"),
        ({"id": "u1", "name": {"first": "Ann"}}, "invalid_field", "name"),
        ({"user_id": "u1", "email": False}, "invalid_field", "email"),
        ({"user_id": "u1", "created_at": "soon"}, "invalid_field", "created_at"),
    ],
)
def test_users_refused_with_kind_and_path(document, kind, path):
    error = refusal(user, document)
    assert (error.kind, error.field) == (kind, path)


@pytest.mark.parametrize("decode", [user, link])
@pytest.mark.parametrize("key", ["timestamp", "created_at", "createdAt"])
def test_times(decode, key):
    document = {"id": "1", "url": PAGE, key: RECORD_MS - 1_000}
    assert decode(document).timestamp == RECORD_TIME - timedelta(seconds=1)


def test_plain_link():
    plain = {
        "link_id": "l1",
        "url": PAGE,
        "user_id": "u1",
        "partner_id": "pn_1",
        "pixel_id": "px_1",
        "timestamp": "2026-01-01T10:00:00Z",
    }
    assert link(plain) == events.LinkCreated(**{**plain, "timestamp": RECORD_TIME})


BARE = events.LinkCreated(link_id="l1", url=PAGE, user_id="7", timestamp=RECORD_TIME)


@pytest.mark.parametrize(
    "document",
    [
        {"linkId": "l1", "url": PAGE, "userId": 7},
        {
            "id": "l1",
            "url": f" {PAGE}\n",
            "user_id": "7",
            "partner_id": "",
            "partnerId": " ",
            "pixel_id": None,
        },
        {
            "link_id": "l1",
            "url": PAGE,
            "user_id": "7",
            "name": "summer",
            "data": {"url": "https://x.example"},
        },
        {"id": "l1", "url": PAGE, "user_id": "7", "name": "summer", "unknown": "\ud800"},
        {"name": "link.created", "data": {"id": "l1", "url": PAGE, "user_id": "7"}},
        {"specversion": "1.0", "id": "e1", "data": {"id": "l1", "url": PAGE, "user_id": "7"}},
    ],
)
def test_links_in_every_wrapping(document):
    assert link(document) == BARE


def test_camel_case_link():
    camel = {"linkId": "l1", "url": PAGE, "partnerId": "pn_1", "pixelId": "px_1"}
    assert link(camel) == events.LinkCreated(
        link_id="l1", url=PAGE, partner_id="pn_1", pixel_id="px_1", timestamp=RECORD_TIME
    )


@pytest.mark.parametrize(
    ("document", "kind", "path"),
    [
        ({"url": PAGE}, "missing_field", "link_id"),
        ({"link_id": "l1"}, "missing_field", "url"),
        ({"link_id": "l1", "url": " "}, "missing_field", "url"),
        ({"link_id": "l1", "url": 7}, "invalid_field", "url"),
        ({"link_id": "l1", "url": "/products/bag"}, "invalid_field", "url"),
        ({"link_id": "l1", "url": "javascript:alert(1)"}, "invalid_field", "url"),
        ({"link_id": {}, "url": PAGE}, "invalid_field", "link_id"),
        ({"link_id": "l1", "url": PAGE, "user_id": 1.5}, "invalid_field", "user_id"),
        ({"link_id": "l1", "url": PAGE, "partner_id": []}, "invalid_field", "partner_id"),
        ({"link_id": "l1", "url": PAGE, "pixelId": "\x00"}, "invalid_field", "pixelId"),
        ({"name": "user.created", "data": {"id": "l1", "url": PAGE}}, "wrong_event", "name"),
    ],
)
def test_links_refused_with_kind_and_path(document, kind, path):
    error = refusal(link, document)
    assert (error.kind, error.field) == (kind, path)


def test_written_json_is_the_wire_format():
    assert (ANN.topic, ANN.key, ANN.identity) == ("user.created", "u1", "u1")
    assert (BARE.topic, BARE.key, BARE.identity) == ("link.created", "l1", "l1")
    assert json.loads(ANN.to_json()) == {"user_id": "u1", "name": "Ann", "timestamp": "2026-01-01T10:00:00Z"}
    assert json.loads(events.LinkCreated(link_id="l1", url=PAGE).to_json()) == {"link_id": "l1", "url": PAGE}
    assert user(ANN.to_json()) == ANN
    assert link(BARE.to_json()) == BARE
