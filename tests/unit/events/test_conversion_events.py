"""What a record of `conversion` is decoded to: whose order it was and what it brought are strict."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from counterfoil import events
from counterfoil.errors import InvalidEvent

RECORD_MS = 1_767_261_600_000
RECORD_TIME = datetime(2026, 1, 1, 10, tzinfo=UTC)


def conversion(document, headers=(), timestamp_ms=RECORD_MS, **rules):
    value = document if isinstance(document, bytes | None) else json.dumps(document).encode()
    return events.decode_conversion(value, headers, timestamp_ms, events.Rules(**rules))


def refusal(document, *more) -> InvalidEvent:
    with pytest.raises(InvalidEvent) as caught:
        conversion(document, *more)
    return caught.value


USUAL = {
    "order_id": "1001",
    "pixel_id": "px_1",
    "link_id": "l1",
    "revenue": "49.90",
    "commission": "4.99",
    "currency": "EUR",
    "click_id": "c1",
    "timestamp": "2026-01-01T09:00:00Z",
}


def test_plain_conversion():
    assert conversion(USUAL) == events.Conversion(
        order_id="1001",
        pixel_id="px_1",
        link_id="l1",
        revenue=Decimal("49.90"),
        commission=Decimal("4.99"),
        currency="EUR",
        click_id="c1",
        timestamp=datetime(2026, 1, 1, 9, tzinfo=UTC),
    )


def test_camel_case_conversion():
    camel = {
        "orderId": 1001,
        "pixelId": "px_1",
        "linkId": "l1",
        "revenue": 49.9,
        "currencyCode": "eur",
        "clickId": "c1",
        "convertedAt": RECORD_MS - 1_000,
    }
    assert conversion(camel) == events.Conversion(
        order_id="1001",
        pixel_id="px_1",
        link_id="l1",
        revenue=Decimal("49.9"),
        currency="EUR",
        click_id="c1",
        timestamp=RECORD_TIME - timedelta(seconds=1),
    )


THIN = events.Conversion(
    order_id="o1", link_id="l1", revenue=Decimal(0), currency="USD", timestamp=RECORD_TIME
)


@pytest.mark.parametrize(
    "document",
    [
        {"order_id": "o1", "link_id": "l1", "revenue": 0},
        {"order_id": "o1", "link_id": "l1", "revenue": "0.00", "pixel_id": "", "pixelId": None},
        {"order_id": "o1", "linkId": "l1", "revenue": 0, "commission": None, "currency": None},
        {"id": "conv_1", "order_id": "o1", "link_id": "l1", "revenue": 0, "click_id": " "},
        {"order_id": "o1", "link_id": "l1", "revenue": 0, "name": 7, "data": [], "unknown": "\ud800"},
        {"order_id": "o1", "link_id": "l1", "revenue": 0, "name": "click", "data": {"order_id": "o2"}},
        {"name": "conversion", "data": {"order_id": "o1", "link_id": "l1", "revenue": 0}},
        {"id": "m1", "event_name": "sale", "data": {"order_id": "o1", "link_id": "l1", "revenue": 0}},
        {"specversion": "1.0", "type": "conversion", "data": {"orderId": "o1", "linkId": "l1", "revenue": 0}},
    ],
)
def test_thin_conversion_in_every_wrapping(document):
    assert conversion(document) == THIN


def test_a_missing_currency_is_the_deployments():
    assert conversion({**USUAL, "currency": None}, default_currency="CHF").currency == "CHF"
    assert conversion({**USUAL, "currency": None, "currency_code": "SEK"}).currency == "SEK"


def test_a_commission_of_nothing_is_a_commission():
    assert conversion({**USUAL, "commission": 0}).commission == 0
    assert conversion({**USUAL, "commission": None}).commission is None


@pytest.mark.parametrize(
    ("document", "kind", "path"),
    [
        (b"", "empty", ""),
        ({}, "missing_field", "order_id"),
        ({**USUAL, "order_id": " "}, "missing_field", "order_id"),
        ({"id": "1001", "pixel_id": "px_1", "revenue": 1}, "missing_field", "order_id"),
        ({**USUAL, "pixel_id": "", "link_id": None}, "missing_field", "pixel_id"),
        ({**USUAL, "revenue": None}, "missing_field", "revenue"),
        ({**USUAL, "order_id": 1.5}, "invalid_field", "order_id"),
        ({**USUAL, "pixel_id": []}, "invalid_field", "pixel_id"),
        ({**USUAL, "link_id": "a\x00"}, "invalid_field", "link_id"),
        ({**USUAL, "revenue": -1}, "invalid_field", "revenue"),
        ({**USUAL, "revenue": ""}, "invalid_field", "revenue"),
        ({**USUAL, "revenue": "49,90"}, "invalid_field", "revenue"),
        ({**USUAL, "revenue": True}, "invalid_field", "revenue"),
        ({**USUAL, "revenue": 10**14}, "invalid_field", "revenue"),
        ({**USUAL, "commission": "10%"}, "invalid_field", "commission"),
        ({**USUAL, "commission": -0.5}, "invalid_field", "commission"),
        ({**USUAL, "currency": "EURO"}, "invalid_field", "currency"),
        ({**USUAL, "currency": None, "currencyCode": 978}, "invalid_field", "currencyCode"),
        ({**USUAL, "click_id": {}}, "invalid_field", "click_id"),
        ({**USUAL, "timestamp": "1999-12-31T23:59:59Z"}, "invalid_field", "timestamp"),
        ({"name": "click", "data": {"order_id": "o1"}}, "wrong_event", "name"),
    ],
)
def test_refused_with_kind_and_path(document, kind, path):
    error = refusal(document)
    assert (error.kind, error.field) == (kind, path)


def test_a_conversion_for_nobody_says_what_it_lacks():
    assert str(refusal({"order_id": "o1", "revenue": 1})) == "pixel_id: is required, or link_id"


@pytest.mark.parametrize("key", ["timestamp", "converted_at", "convertedAt", "created_at", "createdAt"])
def test_times(key):
    document = {"order_id": "o1", "pixel_id": "p", "revenue": 1, key: RECORD_MS - 1_000}
    assert conversion(document).timestamp == RECORD_TIME - timedelta(seconds=1)


def test_normalised_fields_are_reported_by_their_names():
    said: list[str] = []
    document = b'{"orderId":1,"linkId":2,"revenue":"1.0000005","currencyCode":"eur","clickId":3}'
    events.decode_conversion(document, (), RECORD_MS, events.Rules(normalised=said.append))
    assert set(said) == {"order_id", "link_id", "revenue", "currency", "click_id", "timestamp"}


def test_written_json_is_the_wire_format():
    sent = conversion(USUAL)
    assert (sent.topic, sent.key, sent.identity) == ("conversion", "1001", "1001:pixel:px_1")
    assert json.loads(sent.to_json()) == USUAL
    assert conversion(sent.to_json()) == sent
    bare = events.Conversion(order_id="o1", link_id="l1", revenue=Decimal("1E+2"))
    assert json.loads(bare.to_json()) == {"order_id": "o1", "link_id": "l1", "revenue": "100"}
    assert bare.identity == "o1:link:l1"


@pytest.mark.parametrize(("field", "value"), [("revenue", 1.5), ("commission", Decimal("NaN"))])
def test_what_cannot_be_written_exactly_is_refused(field, value):
    with pytest.raises(InvalidEvent):
        events.Conversion(
            **{"order_id": "o1", "pixel_id": "p", "revenue": Decimal(1), field: value}
        ).to_json()
