"""What a record of `stock-change` is decoded to: numbers exactly, and a delta that agrees with the stocks."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from counterfoil import events
from counterfoil.errors import InvalidEvent

RECORD_MS = 1_767_261_600_000
RECORD_TIME = datetime(2026, 1, 1, 10, tzinfo=UTC)
UUID = "0198a1b2-0000-7000-8000-0123456789ab"
LEAST, MOST = -(2**31), 2**31 - 1


def change(document, headers=(), timestamp_ms=RECORD_MS):
    value = document if isinstance(document, bytes | None) else json.dumps(document).encode()
    return events.decode_stock_change(value, headers, timestamp_ms, events.Rules())


def refusal(document, *more) -> InvalidEvent:
    with pytest.raises(InvalidEvent) as caught:
        change(document, *more)
    return caught.value


def normalised(document) -> list[str]:
    said: list[str] = []
    value = document if isinstance(document, bytes) else json.dumps(document).encode()
    events.decode_stock_change(value, (), RECORD_MS, events.Rules(normalised=said.append))
    return said


USUAL = {
    "event_id": UUID,
    "sku": "BAG-1",
    "event_type": "sale",
    "old_stock": 12,
    "new_stock": 9,
    "quantity_delta": -3,
    "metadata": {"warehouse": "AMS", "bb": 1.5, "a": []},
    "name": "Canvas bag",
    "threshold": 10,
    "unit_price": 24.5,
    "supplier": "Loom & Co",
    "timestamp": "2026-01-01T09:00:00.123Z",
}
SENT = datetime(2026, 1, 1, 9, 0, 0, 123_000, tzinfo=UTC)
EXPECTED = events.StockChange(
    event_id=UUID,
    sku="BAG-1",
    event_type="sale",
    old_stock=12,
    new_stock=9,
    quantity_delta=-3,
    metadata='{"a": [], "bb": 1.5, "warehouse": "AMS"}',
    name="Canvas bag",
    threshold=10,
    unit_price=Decimal("24.5"),
    supplier="Loom & Co",
    timestamp=SENT,
)
COUNTED = {"sku": "BAG-1", "event_type": "change", "new_stock": 9}
MOVED = {"sku": "BAG-1", "event_type": "change", "quantity_delta": -3}
THIN = events.StockChange(sku="BAG-1", new_stock=9, timestamp=RECORD_TIME)


def without(document: dict, *fields: str) -> dict:
    return {name: value for name, value in document.items() if name not in fields}


def test_the_usual_change_is_kept_as_sent():
    assert change(USUAL) == EXPECTED
    assert normalised(USUAL) == []


def test_camel_case_change():
    camel = {
        "eventId": UUID.upper(),
        "sku": 7,
        "eventType": "Restock",
        "oldStock": 1,
        "newStock": 5,
        "quantityDelta": 4,
        "unitPrice": "1.5",
        "occurredAt": RECORD_MS - 1_000,
    }
    assert change(camel) == events.StockChange(
        event_id=UUID,
        sku="7",
        event_type="restock",
        old_stock=1,
        new_stock=5,
        quantity_delta=4,
        unit_price=Decimal("1.5"),
        timestamp=RECORD_TIME - timedelta(seconds=1),
    )


@pytest.mark.parametrize(
    "document",
    [
        COUNTED,
        without(COUNTED, "event_type"),
        {**COUNTED, "event_type": None, "eventType": " "},
        {**COUNTED, "event_type": "", "eventType": " Change\n"},
        {**COUNTED, "event_id": " ", "eventId": None, "id": ""},
        {
            **COUNTED,
            **dict.fromkeys(["old_stock", "oldStock", "quantity_delta", "quantityDelta", "newStock"]),
        },
        {**without(COUNTED, "new_stock"), "new_stock": None, "newStock": 9},
        {**COUNTED, "metadata": None, "name": "", "threshold": None, "unit_price": None, "supplier": "\0"},
        {**COUNTED, "unknown": "\ud800", "type": {}, "data": []},
        {"name": "stock-change", "data": COUNTED},
        {"id": "msg_1", "eventName": "inventory.changed", "data": COUNTED},
        {"event_id": "msg_1", "name": "inventory.changed", "data": COUNTED},
        {"specversion": "1.0", "id": "e1", "type": "stock-change", "data": COUNTED},
        {"specversion": "1.0", "id": "e1", "data": {"event_name": "stock-change", "data": COUNTED}},
    ],
)
def test_thin_change_in_every_wrapping(document):
    assert change(document) == THIN


def test_a_change_may_call_its_id_just_id():
    assert change({**COUNTED, "id": "e1"}).event_id == "e1"
    assert change({**COUNTED, "id": "msg", "eventId": "e1"}).event_id == "e1"


def test_the_name_of_a_product_is_no_envelope():
    for name in ("Canvas bag", "stock-change", "click"):
        document = {**COUNTED, "name": name, "data": {"sku": "other", "new_stock": 1}}
        assert (change(document).sku, change(document).name) == ("BAG-1", name)
        assert change({**document, "unknown": "\ud800"}) == change(document)


# Stock


@pytest.mark.parametrize(
    ("stocks", "kept", "said"),
    [
        ({"new_stock": 9}, (None, 9, None), []),
        ({"quantity_delta": -3}, (None, None, -3), []),
        ({"quantity_delta": 0}, (None, None, 0), []),
        ({"new_stock": 0, "old_stock": 0}, (0, 0, 0), []),
        ({"old_stock": 12, "new_stock": 9}, (12, 9, -3), []),
        ({"old_stock": 12, "new_stock": 9, "quantity_delta": -3}, (12, 9, -3), []),
        ({"old_stock": 12, "new_stock": 9, "quantity_delta": 3}, (12, 9, -3), ["quantity_delta"]),
        ({"old_stock": 9, "new_stock": 9, "quantity_delta": 1}, (9, 9, 0), ["quantity_delta"]),
        ({"old_stock": 12, "quantity_delta": -3}, (12, None, -3), []),
        ({"new_stock": 9, "quantity_delta": -3}, (None, 9, -3), []),
        ({"old_stock": LEAST, "new_stock": MOST}, (LEAST, MOST, 2**32 - 1), []),
        ({"old_stock": MOST, "new_stock": LEAST, "quantity_delta": 0}, (MOST, LEAST, 1 - 2**32), ["quantity_delta"]),
    ],
)  # fmt: skip
def test_a_delta_agrees_with_the_stocks(stocks, kept, said):
    document = {"sku": "BAG-1", "event_type": "change", "timestamp": "2026-01-01T09:00:00Z", **stocks}
    found = change(document)
    assert (found.old_stock, found.new_stock, found.quantity_delta) == kept
    assert normalised(document) == said
    assert change(found.to_json()) == found


FIELDS = ["old_stock", "new_stock", "quantity_delta", "oldStock", "newStock", "quantityDelta", "threshold"]


def with_literal(field: str, literal: str) -> bytes:
    needed = {"sku": "s", "event_type": "change", "timestamp": "2026-01-01T09:00:00Z", "quantityDelta": 1}
    needed = without(needed, field) | ({"new_stock": 1} if field == "quantityDelta" else {})
    return json.dumps(needed).encode()[:-1] + f',"{field}":{literal}}}'.encode()


@pytest.mark.parametrize(
    ("literal", "kept"),
    [
        ("5.0", 5),
        ("5e0", 5),
        ("0.5E+1", 5),
        ("500e-2", 5),
        ("1e3", 1_000),
        ("2147483647.000", MOST),
        ("-0.0", 0),
        ("0e99999999999999999999", 0),
        ("-0e-99999999999999999999", 0),
        ("5." + "0" * 10_000, 5),
    ],
)
def test_a_whole_number_may_be_written_as_a_fraction(literal, kept):
    for field, attribute in (("new_stock", "new_stock"), ("threshold", "threshold")):
        assert getattr(change(with_literal(field, literal)), attribute) == kept
        assert normalised(with_literal(field, literal)) == [field]


@pytest.mark.parametrize("literal", ["-0", "7", str(MOST)])
def test_a_plain_integer_is_kept_as_sent(literal):
    assert change(with_literal("new_stock", literal)).new_stock == int(literal)
    assert normalised(with_literal("new_stock", literal)) == []


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize(
    "literal",
    [
        *("5.5", "1e-1", "5." + "0" * 5_000 + "1", str(MOST + 1), str(LEAST - 1), "2147483647.5", "1e10"),
        *("18446744073709551616", "9" * 700, "1e400000", "-1e-400000", "1e99999999999999999999"),
        *('"5"', '"5.0"', '""', '" "', "true", "false", "[]", "{}", "[5]"),
    ],
)
def test_stock_is_a_whole_number_in_int4(field, literal):
    error = refusal(with_literal(field, literal))
    assert (error.kind, error.field) == ("invalid_field", field)


@pytest.mark.parametrize("field", FIELDS[:-1])
def test_stock_may_be_negative_to_the_least_int4(field):
    assert change(with_literal(field, str(LEAST)))


@pytest.mark.parametrize("literal", ["-1", "-1.0", str(LEAST)])
def test_a_threshold_is_never_negative(literal):
    error = refusal(with_literal("threshold", literal))
    assert (error.kind, error.field) == ("invalid_field", "threshold")


# The other fields


@pytest.mark.parametrize(
    ("field", "value", "kept"),
    [
        ("event_type", " RESTOCK\n", "restock"),
        ("event_type", None, "change"),
        ("event_type", "\u3000", "change"),
        ("event_id", 7, "7"),
        ("sku", " BAG-1\u2003", "BAG-1"),
        ("sku", "e\u0301", "é"),
        ("name", "a\r\nb\x00", "ab"),
        ("name", "x" * 256, "x" * 255),
        ("supplier", "\ud800", "\ufffd"),
        ("supplier", "x" * 256, "x" * 255),
        ("unit_price", "24.50", Decimal("24.50")),
        ("unit_price", 0.00000049, Decimal(0)),
        ("metadata", {"a": "\x00\ud800"}, '{"a": "\ufffd"}'),
        ("metadata", {"a": "x" * 16_384}, '{"_dropped": "too_large"}'),
    ],
)
def test_what_is_changed_is_said(field, value, kept):
    assert getattr(change({**USUAL, field: value}), field) == kept
    assert normalised({**USUAL, field: value}) == [field]


@pytest.mark.parametrize("event_type", ["a", "low_stock", "a" * 50, "x9_", "recount_2026"])
def test_any_small_word_is_a_type(event_type):
    assert change({**USUAL, "event_type": event_type}).event_type == event_type


@pytest.mark.parametrize("text", ["<!channel>", "a\u2028b", "<b>", "é" * 255])
def test_a_name_is_kept_as_it_is_whatever_it_would_do_elsewhere(text):
    assert change({**USUAL, "name": text}).name == text
    assert normalised({**USUAL, "name": text}) == []


def test_metadata_that_differ_only_in_how_they_are_written_are_one_content():
    texts = [b'{"b":1.50,"aa":"\\u00e9"}', '{ "aa" : "é", "b" : 15e-1 }'.encode()]
    head = b'{"sku":"BAG-1","new_stock":9,"metadata":'
    assert {change(head + text + b"}").metadata for text in texts} == {'{"b": 1.5, "aa": "é"}'}


@pytest.mark.parametrize(
    ("document", "kind", "path"),
    [
        (None, "empty", ""),
        ({}, "missing_field", "sku"),
        ({**COUNTED, "sku": " "}, "missing_field", "sku"),
        ({**without(COUNTED, "sku"), "id": "BAG-1"}, "missing_field", "sku"),
        ({"sku": "BAG-1"}, "missing_field", "new_stock"),
        ({"sku": "BAG-1", "old_stock": 3}, "missing_field", "new_stock"),
        ({"sku": "BAG-1", "new_stock": None, "quantity_delta": None}, "missing_field", "new_stock"),
        ({**USUAL, "sku": "a\u2028b"}, "invalid_field", "sku"),
        ({**USUAL, "sku": "x" * 256}, "invalid_field", "sku"),
        ({**USUAL, "sku": True}, "invalid_field", "sku"),
        ({**USUAL, "event_id": 1.5}, "invalid_field", "event_id"),
        ({**USUAL, "event_id": None, "id": []}, "invalid_field", "id"),
        ({**USUAL, "event_type": 1}, "invalid_field", "event_type"),
        ({**USUAL, "event_type": "_sale"}, "invalid_field", "event_type"),
        ({**USUAL, "event_type": "9sale"}, "invalid_field", "event_type"),
        ({**USUAL, "event_type": "stock-take"}, "invalid_field", "event_type"),
        ({**USUAL, "event_type": "sold out"}, "invalid_field", "event_type"),
        ({**USUAL, "event_type": "a" * 51}, "invalid_field", "event_type"),
        ({**USUAL, "event_type": "\u212aey"}, "invalid_field", "event_type"),
        ({**USUAL, "event_type": "sale\x00"}, "invalid_field", "event_type"),
        ({**USUAL, "event_type": None, "eventType": "é"}, "invalid_field", "eventType"),
        ({**USUAL, "metadata": []}, "invalid_field", "metadata"),
        ({**USUAL, "metadata": "{}"}, "invalid_field", "metadata"),
        ({**USUAL, "name": 7}, "invalid_field", "name"),
        ({**USUAL, "supplier": {}}, "invalid_field", "supplier"),
        ({**USUAL, "unit_price": -1}, "invalid_field", "unit_price"),
        ({**USUAL, "unit_price": "1e2"}, "invalid_field", "unit_price"),
        ({**USUAL, "unit_price": None, "unitPrice": True}, "invalid_field", "unitPrice"),
        ({**USUAL, "timestamp": "2026-01-01"}, "invalid_field", "timestamp"),
        ({**USUAL, "timestamp": "2026-01-02T10:00:00.001Z"}, "invalid_field", "timestamp"),
        ({**USUAL, "timestamp": None, "occurredAt": "now"}, "invalid_field", "occurredAt"),
        ({"name": "low-stock", "data": COUNTED}, "wrong_event", "name"),
        ({"specversion": "1.0", "type": "click", "data": USUAL}, "wrong_event", "type"),
    ],
)
def test_refused_with_kind_and_path(document, kind, path):
    error = refusal(document)
    assert (error.kind, error.field) == (kind, path)


def test_times():
    keys = ["timestamp", "occurred_at", "occurredAt", "created_at", "createdAt"]
    for first, second in zip(keys, [*keys[1:], "unknown"], strict=True):  # the first name beats the others
        given = {first: RECORD_MS - 1_000, second: RECORD_MS - 2_000}
        assert change(COUNTED | given).timestamp == RECORD_TIME - timedelta(seconds=1)
    assert refusal(COUNTED, (), -1).kind == "missing_field"


# Writing


def test_written_json_is_the_wire_format():
    assert (EXPECTED.topic, EXPECTED.key, EXPECTED.identity) == ("stock-change", "BAG-1", UUID)
    assert json.loads(EXPECTED.to_json()) == {
        **without(USUAL, "quantity_delta"),  # it follows from the stocks
        "unit_price": "24.5",
        "timestamp": "2026-01-01T09:00:00.123000Z",
    }
    assert json.loads(events.StockChange(sku="BAG-1", new_stock=9).to_json()) == COUNTED
    assert json.loads(events.StockChange(sku="BAG-1", quantity_delta=-3).to_json()) == MOVED
    assert events.StockChange(sku="BAG-1", new_stock=9).identity is None


def test_a_zero_is_written():
    nothing = {"sku": "BAG-1", "event_type": "change", "new_stock": 0, "quantity_delta": 0, "threshold": 0}
    assert json.loads(events.StockChange(**nothing).to_json()) == nothing


def test_who_publishes_may_give_a_dict():
    sent = events.StockChange(**COUNTED, metadata={"b": 1.5, "a": ["é"]}, timestamp=RECORD_TIME)
    assert change(sent.to_json()).metadata == '{"a": ["é"], "b": 1.5}'
    with pytest.raises(InvalidEvent):
        events.StockChange(**COUNTED, metadata=[]).to_json()


numbers = st.integers(LEAST, MOST)


@settings(max_examples=300, deadline=None)
@given(
    stocks=st.tuples(st.none() | numbers, numbers, st.none())
    | st.tuples(st.none() | numbers, st.none(), numbers)
    | st.tuples(st.none(), numbers, numbers),
    event_type=st.from_regex(r"[a-z][a-z0-9_]{0,49}", fullmatch=True),
    threshold=st.none() | st.integers(0, MOST),
    unit_price=st.none() | st.decimals(0, 10**13, places=6),
    text=st.none() | st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=255),
    moment=st.datetimes(datetime(2000, 1, 1), datetime(2026, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001
)
def test_what_is_published_is_read_back(stocks, event_type, threshold, unit_price, text, moment):
    old, new, delta = stocks
    sent = events.StockChange(
        sku="BAG-1",
        event_type=event_type,
        old_stock=old,
        new_stock=new,
        quantity_delta=new - old if old is not None and new is not None else delta,
        name=text,
        threshold=threshold,
        unit_price=unit_price,
        supplier=text,
        timestamp=moment,
    )
    read = change(sent.to_json())
    assert read == sent
    assert normalised(sent.to_json()) == ([] if unit_price is None else ["unit_price"])  # a string: exactly
    assert change(read.to_json()) == read


@settings(max_examples=300, deadline=None)
@given(number=numbers, zeros=st.integers(0, 30), exponent=st.integers(-15, 15), upper=st.booleans())
def test_a_number_is_the_same_however_it_is_written(number, zeros, exponent, upper):
    digits = Decimal(number).scaleb(-exponent)
    literal = f"{digits:f}" + ("" if "." in f"{digits:f}" else ".") + "0" * (zeros + 1)
    literal += f"{'E' if upper else 'e'}{exponent}"
    assert change(with_literal("new_stock", literal)).new_stock == number


@settings(max_examples=300, deadline=None)
@given(old=st.none() | numbers, new=st.none() | numbers, delta=st.none() | numbers)
def test_a_delta_never_contradicts_the_stocks(old, new, delta):
    document = {"sku": "s", "old_stock": old, "new_stock": new, "quantityDelta": delta}
    if new is None and delta is None:
        assert refusal(document).kind == "missing_field"
        return
    found = change(document)
    if old is not None and new is not None:
        assert found.quantity_delta == new - old
        assert ("quantity_delta" in normalised(document)) == (delta not in {None, new - old})
    else:
        assert (found.old_stock, found.new_stock, found.quantity_delta) == (old, new, delta)
