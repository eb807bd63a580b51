"""What a record of `scan` is decoded to: what outsiders say in it never kills it by its content."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from counterfoil import events
from counterfoil.errors import InvalidEvent

RECORD_MS = 1_767_261_600_000
RECORD_TIME = datetime(2026, 1, 1, 10, tzinfo=UTC)
UUID = "0198a1b2-0000-7000-8000-0123456789ab"
DROPPED = '{"_dropped":"too_large"}'


def scan(document, headers=(), timestamp_ms=RECORD_MS):
    value = document if isinstance(document, bytes | None) else json.dumps(document).encode()
    return events.decode_scan(value, headers, timestamp_ms, events.Rules())


def refusal(document, *more) -> InvalidEvent:
    with pytest.raises(InvalidEvent) as caught:
        scan(document, *more)
    return caught.value


def normalised(document) -> list[str]:
    said: list[str] = []
    events.decode_scan(json.dumps(document).encode(), (), RECORD_MS, events.Rules(normalised=said.append))
    return said


USUAL = {
    "scan_id": UUID,
    "voucher_id": "v1",
    "user_id": "u1",
    "scan_type": "CUSTOMER",
    "scan_source": "CAMERA",
    "device_info": {"platform": "ios", "model": "iPhone15,2"},
    "location": {"lng": -4.89, "lat": 52.37},
    "ip_address": "203.0.113.77",
    "user_agent": "Mozilla/5.0 (iPhone)",
    "metadata": {},
    "timestamp": "2026-01-01T09:00:00.123Z",
}
SENT = datetime(2026, 1, 1, 9, 0, 0, 123_000, tzinfo=UTC)
OBJECTS = {
    "device_info": '{"model":"iPhone15,2","platform":"ios"}',
    "location": '{"lat":52.37,"lng":-4.89}',
    "metadata": "{}",
}


def test_the_usual_scan_is_kept_as_sent():
    assert scan(USUAL) == events.Scan(**{**USUAL, **OBJECTS, "timestamp": SENT})
    assert normalised(USUAL) == []


def test_camel_case_scan():
    camel = {
        "scanId": UUID.upper(),
        "voucherId": 7,
        "userId": "u1",
        "scanType": "business",
        "scanSource": "Share",
        "deviceInfo": {"a": 1},
        "location": None,
        "ipAddress": "203.0.113.77",
        "userAgent": "curl/8",
        "scannedAt": RECORD_MS - 1_000,
    }
    assert scan(camel) == events.Scan(
        scan_id=UUID,
        voucher_id="7",
        user_id="u1",
        scan_type="BUSINESS",
        scan_source="SHARE",
        device_info='{"a":1}',
        ip_address="203.0.113.77",
        user_agent="curl/8",
        timestamp=RECORD_TIME - timedelta(seconds=1),
    )


NEEDED = {"voucher_id": "v1", "scan_type": "CUSTOMER", "scan_source": "LINK"}
THIN = events.Scan(**NEEDED, timestamp=RECORD_TIME)
MISSING_TEXTS = dict.fromkeys(["user_id", "ip_address", "user_agent"], "")
MISSING_OBJECTS = dict.fromkeys(["device_info", "deviceInfo", "location", "metadata"])


@pytest.mark.parametrize(
    "document",
    [
        NEEDED,
        {**NEEDED, "voucher_id": " ", "voucherId": "v1", "scan_type": "", "scanType": " customer"},
        {**NEEDED, "scan_id": " ", "scanId": None, "id": "", "userId": " "},
        {**NEEDED, **MISSING_TEXTS, **MISSING_OBJECTS, "timestamp": None},
        {**NEEDED, "device_info": {}, "metadata": {}},
        {**NEEDED, "unknown": "\ud800", "name": 7, "type": {}, "data": []},
        {"name": "scan", "data": NEEDED},
        {"id": "msg_1", "eventName": "voucher.scanned", "data": NEEDED},
        {"specversion": "1.0", "id": "e1", "type": "scan", "data": NEEDED},
        {"specversion": "1.0", "id": "e1", "data": {"name": "scan", "data": NEEDED}},
    ],
)
def test_thin_scan_in_every_wrapping(document):
    assert scan(document) == THIN


def test_a_scan_may_call_its_id_just_id():
    assert scan({**NEEDED, "id": "s1"}).scan_id == "s1"
    assert scan({**NEEDED, "id": "evt", "scanId": "s1"}).scan_id == "s1"


@pytest.mark.parametrize("own", ["voucher_id", "voucherId", "scan_id", "scanId"])
def test_a_scan_that_names_its_own_ids_is_no_envelope(own):
    document = {**NEEDED, own: "v1", "name": "poster", "data": {"voucher_id": "other"}}
    assert scan(document).voucher_id == "v1"
    assert scan({**document, "unknown": "\ud800"}).voucher_id == "v1"


def test_who_scanned_does_not_make_an_envelope_a_scan():
    assert scan({"userId": "u1", "name": "scan", "data": NEEDED}) == THIN


@pytest.mark.parametrize(
    ("field", "value", "kept"),
    [
        ("scan_type", "customer", "CUSTOMER"),
        ("scan_type", " Business\n", "BUSINESS"),
        ("scan_source", "gallery", "GALLERY"),
        ("ip_address", "localhost", None),
        ("ip_address", "::ffff:203.0.113.7", "203.0.113.7"),
        ("user_agent", "a\x00b\nc\x7fd", "abcd"),
        ("user_agent", "x" * 1_025, "x" * 1_024),
        ("device_info", {"a": "\x00"}, '{"a":""}'),
        ("device_info", {"a": "\ud800"}, '{"a":"\ufffd"}'),
        ("device_info", {"a": "x" * 16_384}, DROPPED),
        ("location", {"a": ["x" * 16_384]}, DROPPED),
        ("metadata", {"x" * 16_384: None}, DROPPED),
        ("metadata", {"b\x00": 1, "a": 2}, '{"a":2,"b":1}'),
        ("user_id", 7, "7"),
    ],
)
def test_what_is_changed_is_said(field, value, kept):
    assert getattr(scan({**USUAL, field: value}), field) == kept
    assert normalised({**USUAL, field: value}) == [field]


@pytest.mark.parametrize("number", [b"1e400000", b"-1e-400000"])
def test_a_number_that_no_database_holds_does_not_kill_a_scan(number):
    document = json.dumps(NEEDED).encode()[:-1] + b',"metadata":{"a":%b}}' % number
    assert scan(document).metadata == f'{{"a":"{number.decode()}"}}'


def test_of_repeated_keys_the_last_wins():
    document = json.dumps(NEEDED).encode()[:-1] + b',"metadata":{"a":1,"a":2},"location":[],"location":{}}'
    assert scan(document) == events.Scan(**NEEDED, metadata='{"a":2}', location="{}", timestamp=RECORD_TIME)


def without(field: str) -> dict:
    return {name: value for name, value in USUAL.items() if name != field}


@pytest.mark.parametrize(
    ("document", "kind", "path"),
    [
        (None, "empty", ""),
        ({}, "missing_field", "voucher_id"),
        (without("voucher_id"), "missing_field", "voucher_id"),
        ({**without("voucher_id"), "id": "v1"}, "missing_field", "voucher_id"),
        (without("scan_type"), "missing_field", "scan_type"),
        (without("scan_source"), "missing_field", "scan_source"),
        ({**USUAL, "scan_type": " "}, "missing_field", "scan_type"),
        ({**USUAL, "scan_type": "MERCHANT"}, "invalid_field", "scan_type"),
        ({**USUAL, "scan_type": 1}, "invalid_field", "scan_type"),
        ({**USUAL, "scan_source": "NFC"}, "invalid_field", "scan_source"),
        ({**USUAL, "scan_source": None, "scanSource": []}, "invalid_field", "scanSource"),
        ({**USUAL, "voucher_id": "a\x00"}, "invalid_field", "voucher_id"),
        ({**USUAL, "scan_id": True}, "invalid_field", "scan_id"),
        ({**USUAL, "user_id": {}}, "invalid_field", "user_id"),
        ({**USUAL, "user_id": None, "userId": 1.5}, "invalid_field", "userId"),
        ({**USUAL, "device_info": "iPhone"}, "invalid_field", "device_info"),
        ({**USUAL, "device_info": None, "deviceInfo": []}, "invalid_field", "deviceInfo"),
        ({**USUAL, "location": "52.37,4.89"}, "invalid_field", "location"),
        ({**USUAL, "location": [52.37, 4.89]}, "invalid_field", "location"),
        ({**USUAL, "metadata": 0}, "invalid_field", "metadata"),
        ({**USUAL, "ip_address": 3_405_803_853}, "invalid_field", "ip_address"),
        ({**USUAL, "user_agent": []}, "invalid_field", "user_agent"),
        ({**USUAL, "timestamp": "2026-01-01"}, "invalid_field", "timestamp"),
        ({**USUAL, "timestamp": None, "scannedAt": "now"}, "invalid_field", "scannedAt"),
        ({"name": "claim", "data": NEEDED}, "wrong_event", "name"),
        ({"specversion": "1.0", "type": "click", "data": USUAL}, "wrong_event", "type"),
        (b'{"voucher_id":"v1","metadata":{"a":NaN}}', "not_json", ""),
        (b'{"voucher_id":"v1","metadata":' + b'{"a":' * 400 + b"1" + b"}" * 401, "not_json", ""),
    ],
)
def test_refused_with_kind_and_path(document, kind, path):
    error = refusal(document)
    assert (error.kind, error.field) == (kind, path)


@pytest.mark.parametrize("key", ["timestamp", "scanned_at", "scannedAt", "created_at", "createdAt"])
def test_times(key):
    assert scan({**NEEDED, key: RECORD_MS - 1_000}).timestamp == RECORD_TIME - timedelta(seconds=1)


def test_without_any_time_the_scan_is_refused():
    assert refusal(NEEDED, (), -1).kind == "missing_field"


def test_written_json_is_the_wire_format():
    sent = scan(USUAL)
    assert (sent.topic, sent.key, sent.identity) == ("scan", "v1", UUID)
    assert json.loads(sent.to_json()) == {**without("metadata"), "timestamp": "2026-01-01T09:00:00.123000Z"}
    assert json.loads(events.Scan(**NEEDED).to_json()) == NEEDED
    assert scan(sent.to_json()) == sent


@pytest.mark.parametrize("device", [{"b": 1.5, "a": ["é"]}, '{"b": 1.5, "a": ["\\u00e9"]}'])
def test_who_publishes_may_give_a_dict_or_its_json(device):
    sent = events.Scan(**NEEDED, device_info=device, location=device, metadata={}, timestamp=RECORD_TIME)
    kept = '{"a":["é"],"b":1.5}'
    assert scan(sent.to_json()) == events.Scan(
        **NEEDED, device_info=kept, location=kept, timestamp=RECORD_TIME
    )


@pytest.mark.parametrize("field", ["device_info", "location", "metadata"])
@pytest.mark.parametrize(
    "value",
    [
        *["", "{", "[]", "null", '{"a":NaN}', '{},"voucher_id":{}', "{}{}", "{}],[{}", '{"a":' * 401 + "1" + "}" * 401],
        *[[], 1, {"a": float("nan")}, {"a": {1, 2}}, {"a": "\ud800"}, {b"a": 1}, {"a": SENT}, "\ud800"],
    ],
)  # fmt: skip
def test_what_is_no_json_object_is_not_written(field, value):
    with pytest.raises(InvalidEvent) as caught:
        events.Scan(**NEEDED, **{field: value}).to_json()
    assert (caught.value.kind, caught.value.field) == ("invalid_field", field)
