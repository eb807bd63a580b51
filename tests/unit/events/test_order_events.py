"""What a record of `order.placed` or `order.canceled` is decoded to, for each platform's shape of it."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal

import pytest

from counterfoil import events
from counterfoil.errors import InvalidEvent

RECORD_MS = 1_767_261_600_000
RECORD_TIME = datetime(2026, 1, 1, 10, tzinfo=UTC)


def placed(document, headers=(), timestamp_ms=RECORD_MS, **rules):
    value = document if isinstance(document, bytes | None) else json.dumps(document).encode()
    return events.decode_order_placed(value, headers, timestamp_ms, events.Rules(**rules))


def canceled(document, headers=(), timestamp_ms=RECORD_MS):
    value = document if isinstance(document, bytes | None) else json.dumps(document).encode()
    return events.decode_order_canceled(value, headers, timestamp_ms, events.Rules())


def refusal(document, *more, decode=placed, **rules) -> InvalidEvent:
    with pytest.raises(InvalidEvent) as caught:
        decode(document, *more, **rules)
    return caught.value


MEDUSA = {
    "id": "order_01JAXW0000000000000000A1",
    "customer_id": "cus_01",
    "email": "buyer@example.com",
    "currency_code": "eur",
    "items": [
        {
            "id": "ordli_01",
            "unit_price": 49.99,
            "raw_unit_price": {"value": "49.99", "precision": 20},
            "adjustments": [
                {"code": "TECHBLOG10", "amount": 9.998, "created_at": "2025-11-06T20:00:00.000Z"},
                {"code": None, "amount": 1},
                {"amount": 1},
            ],
        },
        None,
        {"id": "ordli_02", "adjustments": None},
    ],
    "shipping_methods": [{"name": "Standard", "adjustments": [{"code": "FREESHIP", "amount": 5}]}],
    "promotions": [{"code": "TECHBLOG10", "limit": None}, {"code": "FREESHIP"}],
    "promotion": {"code": "TECHBLOG10"},
    "cart": {"id": "cart_01", "promotions": [{"code": "TECHBLOG10"}, {"code": "CARTONLY"}]},
    "summary": {"current_order_total": 88.98},
    "total": 88.98199999999999,
    "raw_total": {"value": "88.982", "precision": 20},
    "metadata": None,
    "created_at": "2025-11-06T20:00:00.000Z",
    "updated_at": "2025-11-06T20:00:01.000Z",
}

SHOPIFY = {
    "id": 6200407294252,
    "name": "#1071",
    "currency": "USD",
    "cancelled_at": None,
    "created_at": "2025-01-23T23:10:15-05:00",
    "email": "buyer@example.com",
    "discount_codes": [{"code": "TECHBLOG10", "amount": "19.90", "type": "percentage"}],
    "discount_applications": [{"type": "discount_code", "code": "TECHBLOG10"}, {"title": "Autumn"}],
    "line_items": [{"id": 15518907892012, "price": "199.00", "discount_allocations": [{"amount": "19.90"}]}],
    "total_price": "184.10",
    "customer": {"id": 97773681707702, "email": "buyer@example.com"},
    "refunds": [],
}


def test_plain_order():
    assert placed(
        {
            "order_id": "ord_1",
            "timestamp": "2026-01-01T09:00:00.123Z",
            "currency": "USD",
            "total": "19.90",
            "customer_id": "cus_1",
            "shop_id": 7,
            "customer_address": "1 Main St",
            "codes": ["SPRING"],
        }
    ) == events.OrderPlaced(
        order_id="ord_1",
        timestamp=datetime(2026, 1, 1, 9, 0, 0, 123_000, tzinfo=UTC),
        currency="USD",
        total=Decimal("19.90"),
        customer_id="cus_1",
        shop_id="7",
        customer_address="1 Main St",
        codes=["SPRING"],
    )


def test_expanded_medusa_order():
    assert placed(MEDUSA) == events.OrderPlaced(
        order_id="order_01JAXW0000000000000000A1",
        timestamp=datetime(2025, 11, 6, 20, tzinfo=UTC),
        currency="EUR",
        total=Decimal("88.982"),
        customer_id="cus_01",
        email="buyer@example.com",
        codes=["TECHBLOG10", "FREESHIP", "CARTONLY"],
    )


def test_shopify_order():
    assert placed(SHOPIFY) == events.OrderPlaced(
        order_id="6200407294252",
        timestamp=datetime(2025, 1, 24, 4, 10, 15, tzinfo=UTC),
        currency="USD",
        total=Decimal("184.10"),
        customer_id="97773681707702",
        email="buyer@example.com",
        codes=["TECHBLOG10"],
    )


def test_shopify_guest_has_no_customer():
    assert placed({**SHOPIFY, "customer": None}).customer_id is None


def test_camel_case_order():
    assert placed(
        {
            "orderId": "o1",
            "placedAt": RECORD_MS - 5,
            "currencyCode": "EUR",
            "rawTotal": {"value": 3},
            "customerId": "c1",
            "shopId": "s1",
            "customerAddress": "here",
            "shippingMethods": [{"adjustments": [{"code": "A"}]}],
            "discountCodes": [{"code": "B"}],
            "promotions": [{"code": "C", "baseReward": 1, "bonusAmount": "0.5"}],
        }
    ) == events.OrderPlaced(
        order_id="o1",
        timestamp=RECORD_TIME - timedelta(milliseconds=5),
        currency="EUR",
        total=Decimal(3),
        customer_id="c1",
        shop_id="s1",
        customer_address="here",
        codes=["C", "A", "B"],
        promotions=[events.Promotion("C", Decimal(1), Decimal("0.5"))],
    )


THIN = events.OrderPlaced(order_id="o1", timestamp=RECORD_TIME, currency="USD")


@pytest.mark.parametrize(
    "document",
    [
        {"id": "o1"},
        {"order_id": "", "orderId": None, "id": "o1"},
        {"order_id": "o1", "id": "evt_1", "timestamp": None, "currency": None, "total": None, "codes": None},
        {"order_id": "o1", "codes": [None, "", " "], "promotions": [None], "cart": {}, "promotion": None},
        {"order_id": "o1", "items": [], "shipping_methods": None, "discount_codes": [{}], "email": ""},
        {"order_id": "o1", "customer": "Ada", "raw_total": "5", "name": 7, "data": [], "type": {}, "time": 1},
        {"name": "order.placed", "metadata": {"eventGroupId": "01J"}, "data": {"id": "o1"}},
        {"eventName": "order.placed", "data": {"id": "o1"}},
        {"event_name": "cart.completed", "data": {"id": "o1"}},
        {"specversion": "1.0", "id": "e1", "source": "/s", "type": "order.placed", "data": {"id": "o1"}},
        {"specversion": 1.0, "id": "e1", "type": "com.shop.order", "data": {"id": "o1"}},
        {"specversion": "1.0", "id": "e1", "data": {"name": "order.placed", "data": {"id": "o1"}}},
        {"specversion": "1.0", "id": "e1", "data_base64": base64.b64encode(b'{"id": "o1"}').decode()},
        {"id": "o1", "unknown": "\ud800", "data": "no object"},
        b'{"id":"o1","name":"\\ud800","unknown":{"\\udfff":1e400,"x":' + b"9" * 5_000 + b"}}",
    ],
)
def test_thin_order_in_every_wrapping(document):
    assert placed(document) == THIN


def test_cloud_event_time_stands_in_for_a_missing_timestamp():
    cloud_event = {"specversion": "1.0", "id": "e1", "time": "2025-11-06T20:00:00.000Z", "data": {"id": "o1"}}
    sent = datetime(2025, 11, 6, 20, tzinfo=UTC)
    assert placed(cloud_event).timestamp == sent
    assert placed({**cloud_event, "data": {"id": "o1", "codes": ["\ud83d\ude00"]}}).timestamp == sent
    assert placed({**cloud_event, "data": {"id": "o1", "created_at": RECORD_MS}}).timestamp == RECORD_TIME
    assert placed({**cloud_event, "time": "yesterday"}).timestamp == RECORD_TIME
    assert placed({**cloud_event, "time": 5}).timestamp == RECORD_TIME
    assert placed({**cloud_event, "time": "2026-02-01T00:00:00Z"}).timestamp == RECORD_TIME
    assert placed({"id": "o1", "time": "2025-11-06T20:00:00.000Z"}).timestamp == RECORD_TIME
    bus = {"name": "order.placed", "time": "2025-11-06T20:00:00.000Z", "data": {"id": "o1"}}
    assert placed(bus).timestamp == RECORD_TIME


def test_cloud_event_headers_of_a_binary_event():
    headers = [
        ("ce_specversion", b"1.0"),
        ("ce_type", b"order.placed"),
        ("ce_time", b"2025-11-06T20:00:00.000Z"),
    ]
    assert placed({"id": "o1"}, headers).timestamp == datetime(2025, 11, 6, 20, tzinfo=UTC)
    assert placed({"id": "o1", "timestamp": RECORD_MS}, headers).timestamp == RECORD_TIME


@pytest.mark.parametrize(
    "headers",
    [
        [("ce_time", b"\xff"), ("ce_type", b"\xff\xfe")],
        [("ce_time", None), ("ce_type", None), ("", b"")],
        [("ce_time", b"soon"), ("traceparent", b"\xff")],
        [("ce_type", b"com.shop.order")],
    ],
)
def test_headers_never_cost_an_event(headers):
    assert placed({"id": "o1"}, headers) == THIN


@pytest.mark.parametrize(
    ("document", "headers"),
    [
        ({"name": "order.canceled", "data": {"id": "o1"}}, []),
        ({"eventName": "order.refunded", "data": {"id": "o1"}}, []),
        ({"specversion": "1.0", "type": "order.canceled", "data": {"id": "o1"}}, []),
        ({"specversion": "1.0", "data": {"name": "click", "data": {"id": "o1"}}}, []),
        ({"name": "order.canceled", "data": {"id": "o1", "note": "\ud800"}}, []),
        ({"id": "o1"}, [("ce_type", b"order.canceled")]),
    ],
)
def test_an_event_of_another_topic_is_refused(document, headers):
    assert refusal(document, headers).kind == "wrong_event"


def test_the_name_of_an_object_that_is_no_envelope_means_nothing():
    assert placed({"id": "o1", "name": "order.canceled"}) == THIN
    assert canceled({"id": "o1", "type": "order.placed"}).order_id == "o1"


@pytest.mark.parametrize(
    ("value", "kind", "path"),
    [
        (None, "empty", ""),
        (b"", "empty", ""),
        (b"\xef\xbb\xbf", "empty", ""),
        (b" ", "not_json", ""),
        (b"\xff", "not_utf8", ""),
        (b'{"id":"o1","x":"\xff"}', "not_utf8", ""),
        (b'\xef\xbb\xbf\xef\xbb\xbf{"id":"o1"}', "not_json", ""),
        (b"{", "not_json", ""),
        (b'{"id":"o1",}', "not_json", ""),
        (b'{"id":"o1"} x', "not_json", ""),
        (b'{"id":"o1","x":NaN}', "not_json", ""),
        (b'{"id":"o1","total":NaN}', "not_json", ""),
        (b'{"id":"o1","x":-Infinity}', "not_json", ""),
        (b'{"id":"o1","x":"\\ud800","y":NaN}', "not_json", ""),
        (b'{"id":"o1","x":01}', "not_json", ""),
        (b'{"id":"o1","x":"a\nb"}', "not_json", ""),
        (b"{'id':'o1'}", "not_json", ""),
        (b'{"id":"o1","x":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "not_json", ""),
        (b'{"id":"o1","x":' + b"[" * 400 + b"]" * 400 + b"}", "not_json", ""),
        (b'{"a":' * 100_000, "not_json", ""),
        (b"[]", "not_object", ""),
        (b'"o1"', "not_object", ""),
        (b"1", "not_object", ""),
        (b"null", "not_object", ""),
        (b"1e400", "not_object", ""),
        (b"{}", "missing_field", "order_id"),
        (b'{"order_id":" ","orderId":"","id":null}', "missing_field", "order_id"),
        (b'{"name":"order.placed","data":{}}', "missing_field", "order_id"),
        (b'{"specversion":"1.0","id":"e1"}', "missing_field", "data"),
        (b'{"specversion":"1.0","id":"e1","data":null}', "missing_field", "data"),
        (b'{"specversion":"1.0","id":"e1","data":"o1"}', "not_object", "data"),
        (b'{"specversion":"1.0","id":"e1","data_base64":"W10="}', "not_object", "data_base64"),
        (b'{"specversion":"1.0","id":"e1","data_base64":"*"}', "invalid_field", "data_base64"),
        (b'{"specversion":"1.0","id":"e1","data_base64":"/w=="}', "invalid_field", "data_base64"),
        (b'{"specversion":"1.0","id":"e1","data_base64":"\\ud800"}', "invalid_field", "data_base64"),
        (b'{"order_id":true}', "invalid_field", "order_id"),
        (b'{"orderId":1.0}', "invalid_field", "orderId"),
        (b'{"id":{"x":1}}', "invalid_field", "id"),
        (b'{"id":1e2}', "invalid_field", "id"),
        (b'{"id":9223372036854775808}', "invalid_field", "id"),
        (b'{"id":' + b"9" * 5_000 + b"}", "invalid_field", "id"),
        (b'{"id":"\\ud800"}', "invalid_field", "id"),
        (b'{"id":"o\\u0000"}', "invalid_field", "id"),
        (b'{"id":"o1","timestamp":true}', "invalid_field", "timestamp"),
        (b'{"id":"o1","timestamp":1767261600000.0}', "invalid_field", "timestamp"),
        (b'{"id":"o1","created_at":"2026-01-01"}', "invalid_field", "created_at"),
        (b'{"id":"o1","total":true}', "invalid_field", "total"),
        (b'{"id":"o1","total":"1e3"}', "invalid_field", "total"),
        (b'{"id":"o1","total":1E131072}', "invalid_field", "total"),
        (b'{"id":"o1","total":[1]}', "invalid_field", "total"),
        (b'{"id":"o1","total_price":"x"}', "invalid_field", "total_price"),
        (b'{"id":"o1","total":1,"raw_total":{"value":"x"}}', "invalid_field", "raw_total.value"),
        (b'{"id":"o1","total":' + b"9" * 5_000 + b"}", "invalid_field", "total"),
        (b'{"id":"o1","currency":"EURO"}', "invalid_field", "currency"),
        (b'{"id":"o1","currency_code":978}', "invalid_field", "currency_code"),
        (b'{"id":"o1","customer_id":[]}', "invalid_field", "customer_id"),
        (b'{"id":"o1","customer":{"id":[]}}', "invalid_field", "customer.id"),
        (b'{"id":"o1","email":5}', "invalid_field", "email"),
        (b'{"id":"o1","customer_address":{"street":"x"}}', "invalid_field", "customer_address"),
        (b'{"id":"o1","codes":"SPRING"}', "invalid_field", "codes"),
        (b'{"id":"o1","codes":["a",5]}', "invalid_field", "codes[1]"),
        (b'{"id":"o1","codes":["a",{}]}', "invalid_field", "codes[1]"),
        (b'{"id":"o1","codes":["a","b\\u0000"]}', "invalid_field", "codes[1]"),
        (b'{"id":"o1","codes":["a","\\udfff"]}', "invalid_field", "codes[1]"),
        (b'{"id":"o1","promotions":{}}', "invalid_field", "promotions"),
        (b'{"id":"o1","promotions":["A"]}', "invalid_field", "promotions[0]"),
        (b'{"id":"o1","promotions":[null,{"code":[]}]}', "invalid_field", "promotions[1].code"),
        (
            b'{"id":"o1","promotions":[{"code":"A","base_reward":-1}]}',
            "invalid_field",
            "promotions[0].base_reward",
        ),
        (b'{"id":"o1","promotions":[{"bonusAmount":"x"}]}', "invalid_field", "promotions[0].bonusAmount"),
        (b'{"id":"o1","promotion":[]}', "invalid_field", "promotion"),
        (b'{"id":"o1","promotion":{"code":7}}', "invalid_field", "promotion.code"),
        (b'{"id":"o1","promotion":{"code":"\\u0001"}}', "invalid_field", "promotion.code"),
        (b'{"id":"o1","cart":[]}', "invalid_field", "cart"),
        (b'{"id":"o1","cart":{"promotions":{}}}', "invalid_field", "cart.promotions"),
        (b'{"id":"o1","items":"x"}', "invalid_field", "items"),
        (b'{"id":"o1","items":[[]]}', "invalid_field", "items[0]"),
        (b'{"id":"o1","items":[{"adjustments":{}}]}', "invalid_field", "items[0].adjustments"),
        (
            b'{"id":"o1","items":[{},{"adjustments":[null,{"code":1}]}]}',
            "invalid_field",
            "items[1].adjustments[1].code",
        ),
        (
            b'{"id":"o1","shippingMethods":[{"adjustments":[{"code":"\\u0000"}]}]}',
            "invalid_field",
            "shippingMethods[0].adjustments[0].code",
        ),
        (b'{"id":"o1","discount_codes":[{"code":"a\\u0085b"}]}', "invalid_field", "discount_codes[0].code"),
    ],
)
def test_refused_with_kind_and_path(value, kind, path):
    error = refusal(value)
    assert (error.kind, error.field) == (kind, path)


def test_depth_below_the_limit_and_brackets_in_strings_are_fine():
    assert placed(b'{"id":"o1","x":' + b"[" * 399 + b"]" * 399 + b"}") == THIN
    assert placed(b'{"id":"o1","x":"' + b'[{\\"' * 1_000 + b'"}') == THIN
    assert placed(b'{"id":"o1","x":[' + b"[]," * 1_000 + b"{}]}") == THIN


def test_an_unclosed_string_of_many_quotes_is_refused_soon():
    hostile = b'{"x":[' + b"[]," * 500 + b'"' + b'\\"' * 400_000
    assert refusal(hostile).kind == "not_json"


def test_size_limit_counts_bytes():
    assert placed(b'{"id":"o1"}', max_event_bytes=11) == THIN
    assert refusal(b'{"id":"o1"} ', max_event_bytes=11).kind == "too_large"


def test_repeated_keys_the_last_wins():
    assert placed(b'{"id":[1],"id":"\\u006f1","codes":7,"codes":["A"]}').codes == ["A"]


def test_escaped_keys_are_keys():
    assert placed(b'{"order\\u005fid":"o1"}') == THIN


def test_without_any_time_the_event_is_refused():
    assert refusal({"id": "o1"}, (), -1).kind == "missing_field"
    assert placed({"id": "o1", "timestamp": RECORD_MS}, (), -1).timestamp == RECORD_TIME


def test_first_time_given_wins():
    order = {"id": "o1", "timestamp": None, "created_at": RECORD_MS + 3, "placed_at": RECORD_MS + 2}
    assert placed(order).timestamp == RECORD_TIME + timedelta(milliseconds=2)
    assert placed({**order, "timestamp": RECORD_MS + 1}).timestamp == RECORD_TIME + timedelta(milliseconds=1)


def test_code_case_and_default_currency_are_settings():
    order = placed({"id": "o1", "codes": ["a", "A"]}, code_case=events.CodeCase.UPPER, default_currency="EUR")
    assert (order.codes, order.currency) == (["A"], "EUR")


def test_only_promotions_with_a_reward_are_promotions():
    order = placed(
        {
            "id": "o1",
            "promotions": [
                {"code": "A", "base_reward": None},
                {"code": "B", "base_reward": 0},
                {"code": " B ", "base_reward": 5},
                {"code": None, "base_reward": 5},
                {"code": "C", "bonus_amount": 2.5},
            ],
        }
    )
    assert order.codes == ["A", "B", "C"]
    assert order.promotions == [
        events.Promotion("B", base_reward=Decimal(0)),
        events.Promotion("C", bonus_amount=Decimal("2.5")),
    ]


FIRST = b'"promotions":[{"code":"A","base_reward":1}]'
SECOND = b'"promotion":{"code":"A","base_reward":2}'
THIRD = b'"cart":{"promotions":[{"code":"A","base_reward":3}]}'


@pytest.mark.parametrize(
    ("containers", "reward"),
    [
        ([FIRST, SECOND, THIRD], 1),
        ([SECOND, FIRST, THIRD], 2),
        ([THIRD, SECOND], 3),
        ([THIRD, b'"x":"\\ud800"', FIRST], 3),
        ([FIRST, b'"x":"\\ud800"', THIRD], 1),
    ],
)
def test_first_reward_of_a_code_in_document_order(containers, reward):
    document = b'{"id":"o1",' + b",".join(containers) + b"}"
    assert placed(document).promotions == [events.Promotion("A", base_reward=Decimal(reward))]
    wrapped = b'{"name":"order.placed","data":' + document + b"}"
    assert placed(wrapped).promotions == [events.Promotion("A", base_reward=Decimal(reward))]


def test_normalised_fields_are_reported_for_kept_events_only():
    said: list[str] = []
    rules = events.Rules(normalised=said.append)
    good = b'\xef\xbb\xbf{"orderId":7,"timestamp":1767261600000,"currency":"usd","total":"1","codes":[" a"]}'
    events.decode_order_placed(good, (), RECORD_MS, rules)
    assert said == ["byte_order_mark", "order_id", "timestamp", "codes", "currency", "total"]
    said.clear()
    rewarded = b'{"id":"o1","timestamp":"2026-01-01T09:00:00Z","promotion":{"code":" a","base_reward":1}}'
    events.decode_order_placed(rewarded, (), RECORD_MS, rules)
    assert said == ["codes"]
    said.clear()
    with pytest.raises(InvalidEvent):
        events.decode_order_placed(b'{"id":7,"total":"-1"}', (), RECORD_MS, rules)
    assert said == []


def test_messages_never_echo_the_value():
    for field in ("order_id", "timestamp", "currency", "total", "email", "codes"):
        value = ["<!channel>\x1b[31m"] if field in {"order_id", "email", "total"} else "<!channel>\x1b[31m"
        message = str(refusal({"id": "o1", field: value}))
        assert message.startswith(f"{field}: must ")
        assert "channel" not in message
    assert "\x1b" not in str(refusal(b'{"id":"o1","x":"\x1b[31m"}'))


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        ({"order_id": "o1"}, None),
        ({"orderId": "o1", "reason": "customer"}, "customer"),
        ({"id": "o1", "cancel_reason": "fraud\x00"}, "fraud"),
        ({"id": "o1", "cancelReason": "x" * 2_000}, "x" * 1_024),
        ({"id": "o1", "reason": None, "cancel_reason": "\ud800"}, "\ufffd"),
        ({"name": "order.canceled", "data": {"id": "o1", "created_at": 5}}, None),
    ],
)
def test_canceled_orders(document, reason):
    assert canceled(document) == events.OrderCanceled(order_id="o1", timestamp=RECORD_TIME, reason=reason)


@pytest.mark.parametrize("key", ["timestamp", "canceled_at", "canceledAt", "cancelled_at", "cancelledAt"])
def test_canceled_times(key):
    sent = RECORD_TIME - timedelta(seconds=1)
    document = {"id": "o1", "created_at": RECORD_MS - 9, "updated_at": RECORD_MS - 8, key: RECORD_MS - 1_000}
    assert canceled(document).timestamp == sent
    assert (
        canceled({"id": "o1", "created_at": RECORD_MS - 9, "updated_at": RECORD_MS - 8}).timestamp
        == RECORD_TIME
    )


def test_canceled_refusals():
    assert refusal({}, decode=canceled).field == "order_id"
    assert refusal({"id": "o1", "reason": 5}, decode=canceled).field == "reason"
    assert refusal({"name": "order.placed", "data": {"id": "o1"}}, decode=canceled).kind == "wrong_event"


def test_written_json_is_the_wire_format():
    order = events.OrderPlaced(
        order_id="o1",
        timestamp=datetime(2026, 1, 1, 12, tzinfo=timezone(timedelta(hours=2))),
        codes=["SPRING"],
        currency="EUR",
        total=Decimal("1E+2"),
        promotions=[events.Promotion(code="X", base_reward=Decimal(1), bonus_amount=Decimal("0.5"))],
    )
    assert (order.topic, order.key) == ("order.placed", "o1")
    assert json.loads(order.to_json()) == {
        "order_id": "o1",
        "timestamp": "2026-01-01T10:00:00Z",
        "codes": ["SPRING"],
        "currency": "EUR",
        "total": "100",
        "promotions": [{"code": "X", "base_reward": "1", "bonus_amount": "0.5"}],
    }
    assert json.loads(events.OrderCanceled(order_id="o1").to_json()) == {"order_id": "o1"}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("timestamp", datetime(2026, 1, 1)),  # noqa: DTZ001 - the zone is what is missing
        ("timestamp", "2026-01-01T10:00:00Z"),
        ("total", 12.5),
        ("total", True),
        ("total", Decimal("NaN")),
        ("total", Decimal("1E131072")),
        ("email", "\ud800"),
        ("email", object()),
    ],
)
def test_what_cannot_be_written_exactly_is_refused(field, value):
    with pytest.raises(InvalidEvent):
        events.OrderPlaced(order_id="o1", **{field: value}).to_json()


def test_an_order_that_names_itself_is_no_envelope_whatever_else_it_has():
    value = b'{"order_id": "nm1", "name": "#1001", "data": {"foo": 1}, "codes": ["NM"]}'
    order = events.decode_order_placed(value, (), RECORD_MS, events.Rules())
    assert (order.order_id, order.codes) == ("nm1", ["NM"])
