"""What records of `voucher.created`, `impression`, `claim` and `redemption` are decoded to."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from counterfoil import events
from counterfoil.errors import InvalidEvent

RECORD_MS = 1_767_261_600_000
RECORD_TIME = datetime(2026, 1, 1, 10, tzinfo=UTC)
SENT = datetime(2026, 1, 1, 9, tzinfo=UTC)
SENT_TEXT = "2026-01-01T09:00:00Z"


def decoded(topic, document, headers=(), timestamp_ms=RECORD_MS, normalised=lambda _field: None):
    value = document if isinstance(document, bytes | None) else json.dumps(document).encode()
    rules = events.Rules(normalised=normalised)
    return events.EVENT_TYPES[topic].decode(value, headers, timestamp_ms, rules)


def refusal(topic, document, *more) -> InvalidEvent:
    with pytest.raises(InvalidEvent) as caught:
        decoded(topic, document, *more)
    return caught.value


def normalised(topic, document) -> list[str]:
    said: list[str] = []
    decoded(topic, document, normalised=said.append)
    return said


USUAL = {
    "voucher.created": {
        "voucher_id": "v1",
        "business_id": "b1",
        "title": "Ten percent off",
        "expires_at": "2031-06-30T22:00:00Z",
        "timestamp": SENT_TEXT,
    },
    "impression": {"impression_id": "i1", "voucher_id": "v1", "timestamp": SENT_TEXT},
    "claim": {
        "voucher_id": "v1",
        "customer_id": "c1",
        "metadata": {"channel": "app", "bb": 1.5, "a": []},
        "timestamp": SENT_TEXT,
    },
    "redemption": {
        "attempt_id": "a1",
        "voucher_id": "v1",
        "business_id": "b1",
        "customer_id": "c1",
        "successful": False,
        "failure_reason": "voucher expired",
        "device_info": {"terminal": "t-1", "os": "x"},
        "location": {"lng": -4.89, "lat": 52.37},
        "metadata": {},
        "timestamp": SENT_TEXT,
    },
}
EXPECTED = {
    "voucher.created": events.VoucherCreated(
        voucher_id="v1",
        business_id="b1",
        title="Ten percent off",
        expires_at=datetime(2031, 6, 30, 22, tzinfo=UTC),
        timestamp=SENT,
    ),
    "impression": events.Impression(impression_id="i1", voucher_id="v1", timestamp=SENT),
    "claim": events.Claim(
        voucher_id="v1",
        customer_id="c1",
        metadata='{"a": [], "bb": 1.5, "channel": "app"}',
        timestamp=SENT,
    ),
    "redemption": events.Redemption(
        attempt_id="a1",
        voucher_id="v1",
        business_id="b1",
        customer_id="c1",
        successful=False,
        failure_reason="voucher expired",
        device_info='{"os": "x", "terminal": "t-1"}',
        location='{"lat": 52.37, "lng": -4.89}',
        timestamp=SENT,
    ),
}
OWN_IDS = {
    "voucher.created": ["voucher_id"],
    "impression": ["impression_id", "voucher_id"],
    "claim": ["voucher_id"],
    "redemption": ["attempt_id", "voucher_id"],
}
of_each_topic = pytest.mark.parametrize("topic", list(USUAL))


def in_camel_case(document):
    """The names of the event, not those within its objects."""
    return {
        "".join(part if n == 0 else part.title() for n, part in enumerate(name.split("_"))): value
        for name, value in document.items()
    }


@of_each_topic
def test_the_usual_event_is_kept_as_sent(topic):
    assert decoded(topic, USUAL[topic]) == EXPECTED[topic]
    assert normalised(topic, USUAL[topic]) == []


@of_each_topic
def test_every_name_may_be_in_camel_case(topic):
    assert decoded(topic, in_camel_case(USUAL[topic])) == EXPECTED[topic]


@of_each_topic
def test_an_event_in_every_wrapping(topic):
    document = USUAL[topic]
    for wrapped in (
        {"name": topic, "data": document},
        {"id": "msg_1", "eventName": "something.else", "data": in_camel_case(document)},
        {"specversion": "1.0", "id": "e1", "type": topic, "data": document},
        {"specversion": "1.0", "data": {"event_name": topic, "data": document}},
        {**document, "unknown": "\ud800", "name": 7, "type": {}, "data": []},
    ):
        assert decoded(topic, wrapped) == EXPECTED[topic]
    assert refusal(topic, {"name": "scan", "data": document}).kind == "wrong_event"


@of_each_topic
def test_an_event_that_names_its_own_ids_is_no_envelope(topic):
    for own in OWN_IDS[topic]:
        document = {**USUAL[topic], "name": "poster", "data": {own: "other"}}
        assert decoded(topic, document) == EXPECTED[topic]
        assert decoded(topic, {**document, "unknown": "\ud800"}) == EXPECTED[topic]


@pytest.mark.parametrize(
    ("topic", "keys"),
    [
        ("voucher.created", ["timestamp", "created_at", "createdAt"]),
        ("impression", ["timestamp", "created_at", "createdAt"]),
        ("claim", ["timestamp", "claimed_at", "claimedAt", "created_at", "createdAt"]),
        ("redemption", ["timestamp", "attempted_at", "attemptedAt", "redeemed_at", "redeemedAt", "created_at"]),
    ],
)  # fmt: skip
def test_times(topic, keys):
    document = {name: value for name, value in USUAL[topic].items() if name != "timestamp"}
    for first, second in zip(keys, [*keys[1:], "unknown"], strict=True):  # the first name beats the others
        given = {first: RECORD_MS - 1_000, second: RECORD_MS - 2_000}
        assert decoded(topic, document | given).timestamp == RECORD_TIME - timedelta(seconds=1)
    assert decoded(topic, document).timestamp == RECORD_TIME
    assert refusal(topic, document, (), -1).kind == "missing_field"


@pytest.mark.parametrize(
    ("topic", "field", "expected"),
    [
        ("voucher.created", "voucher_id", "7"),
        ("impression", "impression_id", "7"),
        ("redemption", "attempt_id", "7"),
    ],
)
def test_an_event_may_call_its_id_just_id(topic, field, expected):
    document = {name: value for name, value in USUAL[topic].items() if name != field}
    assert getattr(decoded(topic, {**document, "id": 7}), field) == expected
    assert getattr(decoded(topic, {**document, "id": "evt", field: "7"}), field) == expected


@pytest.mark.parametrize(
    ("topic", "document", "expected"),
    [
        ("voucher.created", {"id": "v1", "title": "", "expires_at": None}, events.VoucherCreated(voucher_id="v1")),
        ("impression", {"voucherId": "v1", "id": " "}, events.Impression(voucher_id="v1")),
        (
            "claim",
            {"voucherId": "v1", "customerId": "c1", "metadata": None},
            events.Claim(voucher_id="v1", customer_id="c1"),
        ),
        (
            "redemption",
            {"voucher_id": "v1", "business_id": "b1", "successful": True, "customer_id": "", "failure_reason": "\0"},
            events.Redemption(voucher_id="v1", business_id="b1", successful=True),
        ),
    ],
)  # fmt: skip
def test_what_is_missing_is_none_or_empty(topic, document, expected):
    assert decoded(topic, {**document, "timestamp": RECORD_MS}) == type(expected)(
        **{name: getattr(expected, name) for name in expected.__struct_fields__} | {"timestamp": RECORD_TIME}
    )


@pytest.mark.parametrize(
    ("topic", "field", "value", "kept"),
    [
        ("voucher.created", "title", "a\x00b", "ab"),
        ("voucher.created", "title", "x" * 1_025, "x" * 1_024),
        ("voucher.created", "expires_at", 1_893_456_000_000, datetime(2030, 1, 1, tzinfo=UTC)),
        ("voucher.created", "business_id", 7, "7"),
        ("impression", "voucher_id", " v1 ", "v1"),
        ("claim", "metadata", {"a": "\x00\ud800"}, '{"a": "\ufffd"}'),
        ("claim", "metadata", {"a": "x" * 16_384}, '{"_dropped": "too_large"}'),
        ("redemption", "failure_reason", "no\nsuch \ud800", "nosuch \ufffd"),
        ("redemption", "failure_reason", "x" * 1_025, "x" * 1_024),
        ("redemption", "device_info", {"\x00": 1}, '{"": 1}'),
        ("redemption", "location", {"a": ["x" * 16_384]}, '{"_dropped": "too_large"}'),
        ("redemption", "customer_id", "é\u3000", "é"),
    ],
)
def test_what_is_changed_is_said(topic, field, value, kept):
    assert getattr(decoded(topic, {**USUAL[topic], field: value}), field) == kept
    assert normalised(topic, {**USUAL[topic], field: value}) == [field]


def test_a_time_of_expiry_need_not_have_come_and_may_have_passed():
    for text in ("2000-01-01T00:00:00Z", "2099-01-01T00:00:00+02:00", "9999-12-31T23:59:59Z"):
        voucher = decoded("voucher.created", {**USUAL["voucher.created"], "expires_at": text})
        assert voucher.expires_at == datetime.fromisoformat(text)


@pytest.mark.parametrize(
    ("topic", "change", "kind", "path"),
    [
        ("voucher.created", {"voucher_id": " "}, "missing_field", "voucher_id"),
        ("voucher.created", {"business_id": []}, "invalid_field", "business_id"),
        ("voucher.created", {"title": 7}, "invalid_field", "title"),
        ("voucher.created", {"expires_at": "2031-06-30"}, "invalid_field", "expires_at"),
        ("voucher.created", {"expires_at": ""}, "invalid_field", "expires_at"),
        ("voucher.created", {"expires_at": None, "expiresAt": 1_893_456_000}, "invalid_field", "expiresAt"),
        ("voucher.created", {"expires_at": "1999-12-31T23:59:59Z"}, "invalid_field", "expires_at"),
        ("voucher.created", {"timestamp": "2031-06-30T22:00:00Z"}, "invalid_field", "timestamp"),
        ("impression", {"voucher_id": None, "id": "v1"}, "missing_field", "voucher_id"),
        ("impression", {"impression_id": 1.5}, "invalid_field", "impression_id"),
        ("impression", {"voucher_id": "", "voucherId": "\x00"}, "invalid_field", "voucherId"),
        ("claim", {"voucher_id": None, "id": "v1"}, "missing_field", "voucher_id"),
        ("claim", {"customer_id": ""}, "missing_field", "customer_id"),
        ("claim", {"customer_id": "x" * 256}, "invalid_field", "customer_id"),
        ("claim", {"metadata": "{}"}, "invalid_field", "metadata"),
        ("claim", {"metadata": []}, "invalid_field", "metadata"),
        ("redemption", {"voucher_id": None}, "missing_field", "voucher_id"),
        ("redemption", {"business_id": " "}, "missing_field", "business_id"),
        ("redemption", {"successful": None}, "missing_field", "successful"),
        ("redemption", {"successful": "true"}, "invalid_field", "successful"),
        ("redemption", {"successful": 1}, "invalid_field", "successful"),
        ("redemption", {"successful": {}}, "invalid_field", "successful"),
        ("redemption", {"failure_reason": False}, "invalid_field", "failure_reason"),
        ("redemption", {"failure_reason": None, "failureReason": []}, "invalid_field", "failureReason"),
        ("redemption", {"device_info": None, "deviceInfo": "x"}, "invalid_field", "deviceInfo"),
        ("redemption", {"location": "here"}, "invalid_field", "location"),
        ("redemption", {"metadata": True}, "invalid_field", "metadata"),
        ("redemption", {"timestamp": "soon"}, "invalid_field", "timestamp"),
    ],
)
def test_refused_with_kind_and_path(topic, change, kind, path):
    error = refusal(topic, {**USUAL[topic], **change})
    assert (error.kind, error.field) == (kind, path)


@of_each_topic
def test_written_json_is_the_wire_format(topic):
    event, document = EXPECTED[topic], {**USUAL[topic], "timestamp": SENT_TEXT}
    if document.get("metadata") == {}:
        del document["metadata"]
    assert json.loads(event.to_json()) == document
    assert decoded(topic, event.to_json()) == event
    assert (event.topic, event.key) == (topic, "v1")


@pytest.mark.parametrize(
    ("topic", "identity"),
    [("voucher.created", "v1"), ("impression", "i1"), ("claim", "v1:c1"), ("redemption", "a1")],
)
def test_an_event_names_its_fact(topic, identity):
    assert EXPECTED[topic].identity == identity


def test_metadata_that_differ_only_in_how_they_are_written_are_one_content():
    texts = [b'{"b":1.50,"aa":"\\u00e9"}', '{ "aa" : "é", "b" : 15e-1 }'.encode()]
    head = b'{"voucher_id":"v1","customer_id":"c1","metadata":'
    assert {decoded("claim", head + text + b"}").metadata for text in texts} == {'{"b": 1.5, "aa": "é"}'}
