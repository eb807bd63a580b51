"""Properties of decoding: no input escapes the rules, both lanes agree, and what is written reads back."""

from __future__ import annotations

import ipaddress
import json
import re
from contextlib import suppress
from datetime import UTC, datetime
from urllib.parse import urlsplit

import msgspec
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from counterfoil import events
from counterfoil.errors import InvalidEvent
from counterfoil.events import (
    claim,
    click,
    conversion,
    envelope,
    impression,
    link_created,
    low_stock,
    order_canceled,
    order_placed,
    order_refunded,
    redemption,
    rules,
    scan,
    stock_change,
    user_created,
    voucher_alert,
    voucher_created,
)
from counterfoil.settings import CodeCase
from support.json_objects import objects, written

RECORD_MS = 1_767_261_600_000

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8)
    | st.sampled_from(
        ["", " ", "A", " a", "\ud800", "\x00", "19.90", "1e3", "eur", "2026-01-01T10:00:00.123Z"]
    )
    | st.sampled_from(["order.placed", "order.canceled", "1.0", RECORD_MS, 1.5, "2025-06-01T10:00:00+02:00"])
)
LITERALS = ["1.50", "-0", "-0.0", "1E2", "1e-7", "0.1000000000000000055", "123456789012345678901234", "1e400"]
scalars |= st.sampled_from([f"@{literal}" for literal in LITERALS])  # numbers that json.dumps never writes

codes = st.sampled_from(["A", "a", " A ", "B", "", None, "\u00e9", "e\u0301"])
rewards = st.none() | st.integers(0, 5) | st.sampled_from(["0.5", 1.25, "x"])
promotions = st.fixed_dictionaries({"code": codes}, optional={"base_reward": rewards, "bonusAmount": rewards})
adjusted = st.fixed_dictionaries({}, optional={"adjustments": st.lists(st.none() | promotions, max_size=3)})

ids = st.sampled_from(["o1", 7, " o2 ", None, "", "ord-3"])
times = st.sampled_from(["2026-01-01T09:00:00.123Z", "2025-06-01T10:00:00+02:00", RECORD_MS, None])
currencies = st.sampled_from(["USD", "eur", None])
amounts = st.sampled_from(["19.90", 5, None, "@1.50", "@-0.0", "@1E2", "@1e-7", "@0.1000000000000000055"])
SHAPES = {
    "codes": st.lists(codes, max_size=4),
    "promotions": st.lists(st.none() | promotions, max_size=4),
    "promotion": promotions,
    "cart": st.fixed_dictionaries({}, optional={"promotions": st.lists(promotions, max_size=3)}),
    "items": st.lists(adjusted, max_size=3),
    "shippingMethods": st.lists(adjusted, max_size=3),
    "discount_codes": st.lists(promotions, max_size=3),
    "raw_total": st.fixed_dictionaries({}, optional={"value": amounts}),
    "customer": st.fixed_dictionaries({}, optional={"id": ids}),
}
ENVELOPE = dict.fromkeys(["name", "eventName", "type", "time"], scalars)
ORDERS = {
    **SHAPES,
    **dict.fromkeys(["order_id", "orderId", "id", "customer_id", "customerId", "shop_id", "shopId"], ids),
    **dict.fromkeys(["timestamp", "placed_at", "createdAt", "canceled_at", "cancelledAt"], times),
    **dict.fromkeys(["currency", "currency_code", "currencyCode"], currencies),
    **dict.fromkeys(["total", "total_price", "totalPrice"], amounts),
    **dict.fromkeys(
        ["email", "customerAddress", "reason", "cancelReason", "unknown"], st.none() | st.text(max_size=5)
    ),
    **ENVELOPE,
}

texts = st.none() | st.text(max_size=5) | st.sampled_from(["a\x7f", "x" * 1_025, "x" * 2_049, "a\\b", '"'])
addresses = st.sampled_from(
    ["203.0.113.7", " 1.2.3.4", "1.2.3.256", "2001:DB8::1", "::ffff:1.2.3.4", "fe80::1%eth0", "", "x", None]
)
urls = st.sampled_from(
    [
        "https://cultgaia.com/x",
        "cultgaia.com:80",
        "//cultgaia.com",
        "HTTP://É.example",
        " x.io ",
        "/x",
        "x:y",
        None,
    ]
)
transactions = st.lists(
    st.none()
    | st.fixed_dictionaries(
        {"amount": st.sampled_from(["19.90", 5, "@1.50", "@0.1000000000000000055"]) | amounts},
        optional={
            "kind": st.sampled_from(["refund", "REFUND", "void", None]),
            "status": st.sampled_from(["success", "pending", None]),
            "currency": currencies,
            "currencyCode": currencies,
        },
    ),
    max_size=3,
)

CLICKS = {
    **dict.fromkeys(["click_id", "clickId", "id", "pixel_id", "pixelId", "link_id", "linkId"], ids),
    **dict.fromkeys(["timestamp", "clicked_at", "clickedAt", "created_at", "createdAt"], times),
    **dict.fromkeys(["ip_address", "ipAddress"], addresses),
    **dict.fromkeys(["user_agent", "userAgent", "referrer", "landing_page", "landingPage", "unknown"], texts),
    **ENVELOPE,
}
CONVERSIONS = {
    **dict.fromkeys(["order_id", "orderId", "id", "pixel_id", "pixelId", "link_id", "linkId"], ids),
    **dict.fromkeys(["click_id", "clickId"], ids),
    **dict.fromkeys(["timestamp", "converted_at", "convertedAt", "created_at", "createdAt"], times),
    **dict.fromkeys(["revenue", "commission"], amounts),
    **dict.fromkeys(["currency", "currency_code", "currencyCode"], currencies),
    **ENVELOPE,
}
REFUNDS = {
    **dict.fromkeys(["order_id", "orderId", "refund_id", "refundId", "id"], ids),
    **dict.fromkeys(["timestamp", "refunded_at", "refundedAt", "created_at", "createdAt"], times),
    **dict.fromkeys(["currency", "currency_code", "currencyCode"], currencies),
    **dict.fromkeys(["raw_amount", "rawAmount"], st.fixed_dictionaries({}, optional={"value": amounts})),
    "amount": amounts,
    "transactions": transactions,
    **ENVELOPE,
}
USERS = {
    **dict.fromkeys(["user_id", "userId", "id"], ids),
    **dict.fromkeys(["timestamp", "created_at", "createdAt"], times),
    **ENVELOPE,
    **dict.fromkeys(["name", "email", "unknown"], texts),
}
LINKS = {
    **dict.fromkeys(["link_id", "linkId", "id", "user_id", "userId", "partner_id", "partnerId"], ids),
    **dict.fromkeys(["pixel_id", "pixelId"], ids),
    **dict.fromkeys(["timestamp", "created_at", "createdAt"], times),
    "url": urls,
    **ENVELOPE,
}
VOUCHERS = {
    **dict.fromkeys(["voucher_id", "voucherId", "id", "business_id", "businessId"], ids),
    **dict.fromkeys(["timestamp", "created_at", "createdAt"], times),
    **dict.fromkeys(["expires_at", "expiresAt"], times | st.just("9999-12-31T23:59:59Z")),
    "title": texts,
    **ENVELOPE,
}
IMPRESSIONS = {
    **dict.fromkeys(["impression_id", "impressionId", "id", "voucher_id", "voucherId"], ids),
    **dict.fromkeys(["timestamp", "created_at", "createdAt"], times),
    **ENVELOPE,
}
details = st.none() | objects
SCANS = {
    **dict.fromkeys(["scan_id", "scanId", "id", "voucher_id", "voucherId", "user_id", "userId"], ids),
    **dict.fromkeys(["scan_type", "scanType"], st.sampled_from(["CUSTOMER", " business", "", None])),
    **dict.fromkeys(["scan_source", "scanSource"], st.sampled_from(["LINK", "camera\n", "", None])),
    **dict.fromkeys(["device_info", "deviceInfo", "location", "metadata"], details),
    **dict.fromkeys(["ip_address", "ipAddress"], addresses),
    **dict.fromkeys(["user_agent", "userAgent", "unknown"], texts),
    **dict.fromkeys(["timestamp", "scanned_at", "scannedAt", "created_at", "createdAt"], times),
    **ENVELOPE,
}
CLAIMS = {
    **dict.fromkeys(["voucher_id", "voucherId", "customer_id", "customerId", "id"], ids),
    **dict.fromkeys(["timestamp", "claimed_at", "claimedAt", "created_at", "createdAt"], times),
    "metadata": details,
    **ENVELOPE,
}
REDEMPTIONS = {
    **dict.fromkeys(["attempt_id", "attemptId", "id", "voucher_id", "voucherId"], ids),
    **dict.fromkeys(["business_id", "businessId", "customer_id", "customerId"], ids),
    "successful": st.booleans(),
    **dict.fromkeys(["failure_reason", "failureReason"], texts),
    **dict.fromkeys(["device_info", "deviceInfo", "location", "metadata"], details),
    **dict.fromkeys(["timestamp", "attempted_at", "attemptedAt", "redeemed_at", "redeemedAt"], times),
    **dict.fromkeys(["created_at", "createdAt"], times),
    **ENVELOPE,
}
pieces = st.sampled_from([5, -3, 0, None, "@5.0", "@-0", "@1e3", "@1e10", 2**31 - 1, "@2147483648"])
STOCK_CHANGES = {
    **dict.fromkeys(["event_id", "eventId", "id", "sku"], ids),
    **dict.fromkeys(["event_type", "eventType"], st.sampled_from(["sale", " Restock", "", None, "a-b"])),
    **dict.fromkeys(["old_stock", "oldStock", "new_stock", "newStock", "threshold"], pieces),
    **dict.fromkeys(["quantity_delta", "quantityDelta"], pieces),
    **dict.fromkeys(["unit_price", "unitPrice"], amounts),
    "metadata": details,
    **dict.fromkeys(["timestamp", "occurred_at", "occurredAt", "created_at", "createdAt"], times),
    **ENVELOPE,
    **dict.fromkeys(["name", "supplier", "unknown"], texts),
}
LOW_STOCKS = {
    **dict.fromkeys(["alert_id", "alertId", "sku"], ids),
    **dict.fromkeys(["stock", "threshold", "previous_stock", "previousStock"], pieces),
    "kind": st.sampled_from(["low", " Recovered", None, "high"]),
    **dict.fromkeys(["occurred_at", "occurredAt"], times),
    **ENVELOPE,
    "name": texts,
}
VOUCHER_ALERTS = {
    **dict.fromkeys(["alert_id", "alertId", "voucher_id", "voucherId"], ids),
    "kind": st.sampled_from(["scan-rate", " Low-Conversion", None, "high"]),
    **dict.fromkeys(["value", "limit"], pieces | amounts),
    **dict.fromkeys(["window", "scans", "claims"], pieces),
    "subject": st.none() | st.dictionaries(st.sampled_from(["device", "address", "x"]), texts, max_size=2),
    **dict.fromkeys(["occurred_at", "occurredAt"], times),
    **ENVELOPE,
}
NEEDED = {
    "id": st.sampled_from(["o1", 7, " o1 "]),
    "order_id": st.just("o2"),
    "pixel_id": st.just("px-1"),
    "revenue": st.sampled_from(["19.90", "@1.50", 5]),
    "amount": st.sampled_from([None, "19.90", "@1.50"]),
    "transactions": transactions,
    "url": st.sampled_from(["https://cultgaia.com", " x.io/ ", "//É.example"]),
    "voucher_id": st.just("v1"),
    "customer_id": st.just("c1"),
    "business_id": st.just("b1"),
    "scan_type": st.sampled_from(["CUSTOMER", "Business"]),
    "scan_source": st.sampled_from(["LINK", " SHARE"]),
    "successful": st.booleans(),
    "sku": st.just("s1"),
    "new_stock": st.sampled_from([7, "@7.0", None]),
    "quantity_delta": st.sampled_from([-2, 0, "@-2.0"]),
    "alert_id": st.just("a1"),
    "kind": st.sampled_from(["low", "scan-rate"]),
    "stock": st.sampled_from([3, "@3.0"]),
    "threshold": st.sampled_from([10, "@10.0"]),
    "value": st.sampled_from([412, "@0.0042"]),
    "limit": st.sampled_from([221, "@0.01"]),
    "window": st.just(300),
}
"""What most of the documents have, so that most of them are events."""

odd_values = (
    scalars | st.lists(scalars, max_size=2) | st.dictionaries(st.text(max_size=3), scalars, max_size=2)
)


@st.composite
def documents(draw, usual):
    """An event with fields of all kinds, mostly of the right shape, now and then in an envelope."""
    keys = draw(st.lists(st.sampled_from(sorted(usual)), unique=True, max_size=9))
    document = {key: draw(odd_values if draw(st.integers(0, 11)) == 0 else usual[key]) for key in keys}
    needed = {key: draw(NEEDED[key]) for key in NEEDED if key in usual}
    match draw(st.sampled_from(["give", "fill", "fill", "leave"])):
        case "give":
            document = document | needed
        case "fill":
            document = needed | document
    if draw(st.integers(0, 4)) == 0:
        return {
            draw(st.sampled_from(["name", "specversion", "x"])): draw(scalars),
            "data": document,
            "time": "x",
            **draw(st.dictionaries(st.sampled_from(sorted(usual)), ids, max_size=1)),
        }
    return document


headers = st.lists(
    st.tuples(st.sampled_from(["ce_time", "ce_type", "x"]), st.none() | st.binary(max_size=4)), max_size=2
)

LANES = [
    (events.decode_order_placed, order_placed._opener, documents(ORDERS)),
    (events.decode_order_canceled, order_canceled._opener, documents(ORDERS)),
    (events.decode_order_refunded, order_refunded._opener, documents(REFUNDS)),
    (events.decode_click, click._opener, documents(CLICKS)),
    (events.decode_conversion, conversion._opener, documents(CONVERSIONS)),
    (events.decode_user_created, user_created._opener, documents(USERS)),
    (events.decode_link_created, link_created._opener, documents(LINKS)),
    (events.decode_voucher_created, voucher_created._opener, documents(VOUCHERS)),
    (events.decode_impression, impression._opener, documents(IMPRESSIONS)),
    (events.decode_scan, scan._opener, documents(SCANS)),
    (events.decode_claim, claim._opener, documents(CLAIMS)),
    (events.decode_redemption, redemption._opener, documents(REDEMPTIONS)),
    (events.decode_stock_change, stock_change._opener, documents(STOCK_CHANGES)),
    (events.decode_low_stock, low_stock._opener, documents(LOW_STOCKS)),
    (events.decode_voucher_alert, voucher_alert._opener, documents(VOUCHER_ALERTS)),
]
in_every_lane = pytest.mark.parametrize(
    ("decode", "opener", "usual"), LANES, ids=[decode.__name__ for decode, *_ in LANES]
)


def outcome(decode, value, **setting):
    """The event with its normalised fields, or what it was refused for."""
    changed: list[str] = []
    try:
        return decode(value, (), RECORD_MS, events.Rules(normalised=changed.append, **setting)), changed
    except InvalidEvent as error:
        return error.kind, error.field, error.rule


@in_every_lane
@settings(max_examples=400, deadline=None)
@given(data=st.data(), code_case=st.sampled_from(CodeCase))
def test_both_lanes_give_the_same_answer(decode, opener, usual, data, code_case):
    value = written(data.draw(usual))
    fast = outcome(decode, value, code_case=code_case)
    with pytest.MonkeyPatch.context() as patch:

        def refuse(_text):
            raise RecursionError  # what sends a document to the careful lane

        patch.setattr(opener, "_decode", refuse)
        careful = outcome(decode, value, code_case=code_case)
    assert fast == careful


@in_every_lane
@settings(max_examples=400, deadline=None)
@given(data=st.data(), code_case=st.sampled_from(CodeCase))
def test_a_decoded_event_reads_back_the_same(decode, opener, usual, data, code_case):
    try:
        event = decode(written(data.draw(usual)), (), RECORD_MS, events.Rules(code_case=code_case))
    except InvalidEvent:
        assume(False)
    again = decode(event.to_json(), (), RECORD_MS, events.Rules(code_case=code_case))
    assert again == event
    assert type(again) is type(event)
    happened = again.occurred_at if isinstance(again, events.AlertEvent) else again.timestamp
    assert happened.tzinfo is UTC


@in_every_lane
@settings(max_examples=300, deadline=None)
@given(value=st.none() | st.binary(max_size=64), sent=headers, timestamp_ms=st.integers(-(2**63), 2**63 - 1))
@example(value=b'{"id":"o1"}', sent=[], timestamp_ms=2**63 - 1)
@example(value=b'{"id":"o1","timestamp":"2026-01-01T10:00:00.123Z"}', sent=[], timestamp_ms=2**63 - 1)
def test_no_bytes_raise_anything_else(decode, opener, usual, value, sent, timestamp_ms):
    with suppress(InvalidEvent):
        decode(value, sent, timestamp_ms, events.Rules())


@in_every_lane
@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_no_damaged_document_raises_anything_else(decode, opener, usual, data):
    value = bytearray(
        json.dumps(data.draw(usual), ensure_ascii=data.draw(st.booleans())).encode(errors="replace")
    )
    for _ in range(data.draw(st.integers(1, 3))):
        value[data.draw(st.integers(0, len(value) - 1))] = data.draw(st.integers(0, 255))
    with suppress(InvalidEvent):
        decode(bytes(value), (), RECORD_MS, events.Rules())


@settings(max_examples=200, deadline=None)
@given(found=st.lists(codes, max_size=6), data=st.data())
def test_codes_are_one_set_wherever_and_however_often_they_stand(found, data):
    def decoded(listed):
        document = {
            "id": "o1",
            "codes": listed[:2],
            "discount_codes": [{"code": code} for code in listed[2:]],
        }
        return events.decode_order_placed(json.dumps(document).encode(), (), RECORD_MS, events.Rules()).codes

    once = decoded(found)
    assert len(set(once)) == len(once)
    shuffled = data.draw(st.permutations(found + found))
    assert sorted(decoded(shuffled)) == sorted(once)


@settings(max_examples=500, deadline=None)
@given(
    text=st.text(max_size=12) | st.text(alphabet="ſßŉΐ\u0345\u0301\u0308ᾳΑι ", max_size=8),
    case=st.sampled_from(CodeCase),
)
def test_a_normalised_code_is_not_changed_again(text, case):
    try:
        once = rules.code(text, "f", case, lambda _field: None)
    except InvalidEvent:
        assume(False)
    changed: list[str] = []
    assert rules.code(once, "f", case, changed.append) == once
    assert changed == []


RFC_3339 = re.compile(
    r"\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])[Tt ]([01]\d|2[0-3]):[0-5]\d:([0-5]\d|60)(\.\d+)?"
    r"([Zz]|[+-]([01]\d|2[0-3]):[0-5]\d)",
    re.ASCII,
)


@settings(max_examples=1_000, deadline=None)
@given(data=st.data())
def test_no_time_is_kept_that_is_not_rfc_3339(data):
    text = list(
        data.draw(
            st.sampled_from(
                ["2025-06-11T20:31:42.123Z", "2025-06-11T20:31:42Z", "2025-06-11T20:31:42.1+05:30"]
            )
        )
    )
    for _ in range(data.draw(st.integers(0, 3))):
        place = data.draw(st.integers(0, len(text) - 1))
        text[place] = data.draw(st.sampled_from("0123456789-:.,TtZzW+ _٣") | st.characters())
    value = "".join(text)
    try:
        moment = rules.event_time(value, "f", -1, lambda _field: None)
    except InvalidEvent:
        return
    assert RFC_3339.fullmatch(value)
    assert moment.tzinfo is UTC
    assert moment >= datetime(2000, 1, 1, tzinfo=UTC)


def test_the_careful_lane_reads_every_field_that_the_fast_lane_reads():
    for _, opener, _ in LANES:
        known = set(opener.wire.__struct_encode_fields__)
        assert set(envelope.EnvelopeFields.__struct_encode_fields__) <= known


@in_every_lane
def test_both_lanes_know_the_same_ids_of_its_own(decode, opener, usual):
    by_attribute = {field.name: field.encode_name for field in msgspec.structs.fields(opener.wire)}
    assert [by_attribute[attribute] for attribute in opener._own_attributes] != []
    assert {by_attribute[attribute] for attribute in opener._own_attributes} == set(opener._own_keys)
    assert "id" not in opener._own_keys


SPELLINGS = ["{}", " {}", "{}%eth0", "::ffff:{}", "{}\n"]


@settings(max_examples=500, deadline=None)
@given(address=st.ip_addresses(), spelling=st.sampled_from(SPELLINGS), exploded=st.booleans())
def test_an_address_is_the_same_however_it_is_spelled(address, spelling, exploded):
    text = spelling.format(address.exploded.upper() if exploded else address)
    expected = getattr(address, "ipv4_mapped", None) or address
    found = rules.ip_address(text, "f", lambda _field: None)
    assert found == (None if "ffff:" in spelling and address.version == 6 else str(expected))


@settings(max_examples=500, deadline=None)
@given(text=st.text(max_size=12) | st.text(alphabet="0123456789abcdefF:.% ", max_size=20))
def test_a_kept_address_is_canonical(text):
    found = rules.ip_address(text, "f", lambda _field: None)
    changed: list[str] = []
    assert found is None or found == str(ipaddress.ip_address(found))
    assert rules.ip_address(found, "f", changed.append) == found
    assert changed == []


@settings(max_examples=1_000, deadline=None)
@given(
    text=st.text(max_size=16)
    | st.text(alphabet="htps:/.@[]?#\\a1% ", max_size=24)
    | st.builds(
        "{}{}{}".format,
        st.sampled_from(["https://", "//", "", "HTTP://"]),
        st.text(max_size=8),
        st.just(".com/x"),
    )
)
def test_a_kept_url_has_a_host_and_is_not_changed_again(text):
    try:
        once = rules.url(text, "f", lambda _field: None)
    except InvalidEvent:
        return
    changed: list[str] = []
    assert rules.url(once, "f", changed.append) == once
    assert changed == []
    assert once is None or urlsplit(once).scheme in {"http", "https"}
    assert once is None or urlsplit(once).hostname
