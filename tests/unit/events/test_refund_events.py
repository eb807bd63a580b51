"""What a record of `order.refunded` is decoded to, for each platform's shape of it."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from counterfoil import events
from counterfoil.errors import InvalidEvent
from support import samples

RECORD_MS = 1_767_261_600_000
RECORD_TIME = datetime(2026, 1, 1, 10, tzinfo=UTC)


def refund(document, headers=(), timestamp_ms=RECORD_MS):
    value = document if isinstance(document, bytes | None) else json.dumps(document).encode()
    return events.decode_order_refunded(value, headers, timestamp_ms, events.Rules())


def refusal(document, *more) -> InvalidEvent:
    with pytest.raises(InvalidEvent) as caught:
        refund(document, *more)
    return caught.value


USUAL = {
    "order_id": "1001",
    "refund_id": "r1",
    "amount": "12.50",
    "currency": "EUR",
    "timestamp": "2026-01-01T09:00:00Z",
}
SENT = datetime(2026, 1, 1, 9, tzinfo=UTC)


def test_plain_refund():
    assert refund(USUAL) == events.OrderRefunded(
        order_id="1001", refund_id="r1", amount=Decimal("12.50"), currency="EUR", timestamp=SENT
    )


def test_camel_case_refund():
    camel = {
        "orderId": 1001,
        "refundId": 7,
        "amount": 12.5,
        "currencyCode": "eur",
        "refundedAt": RECORD_MS - 1_000,
    }
    assert refund(camel) == events.OrderRefunded(
        order_id="1001",
        refund_id="7",
        amount=Decimal("12.5"),
        currency="EUR",
        timestamp=RECORD_TIME - timedelta(seconds=1),
    )


def test_shopify_refund():
    assert refund(samples.shopify_refund(6200407294252)) == events.OrderRefunded(
        order_id="6200407294252",
        refund_id="509562969",
        amount=Decimal("87.05"),
        currency="USD",
        timestamp=datetime(2025, 11, 8, 15, tzinfo=UTC),
    )


def test_medusa_refund():
    assert refund(samples.medusa_refund("order_01")) == events.OrderRefunded(
        order_id="order_01",
        refund_id="ref_01",
        amount=Decimal("44.49"),
        currency="EUR",
        timestamp=datetime(2025, 11, 20, 10, tzinfo=UTC),
    )


def test_the_exact_form_of_an_amount_is_preferred():
    assert refund({**USUAL, "amount": 12.499999999, "raw_amount": {"value": "12.5"}}).amount == Decimal(
        "12.5"
    )
    assert refund({**USUAL, "amount": None, "rawAmount": {"value": 3}}).amount == 3
    assert refund({**USUAL, "raw_amount": {"value": None}}).amount == Decimal("12.50")
    assert refund({**USUAL, "raw_amount": "12"}).amount == Decimal("12.50")


THIN = events.OrderRefunded(order_id="o1", refund_id="r1", amount=Decimal(0), timestamp=RECORD_TIME)


@pytest.mark.parametrize(
    "document",
    [
        {"order_id": "o1", "refund_id": "r1", "amount": 0},
        {"order_id": "o1", "id": "r1", "amount": 0, "currency": None, "timestamp": None},
        {"orderId": "o1", "refund_id": "", "refundId": None, "id": "r1", "amount": "0.00"},
        {"order_id": "o1", "id": "r1", "transactions": []},
        {"order_id": "o1", "id": "r1", "amount": None, "transactions": [None]},
        {"order_id": "o1", "id": "r1", "amount": 0, "transactions": [{"amount": 5, "currency": "EUR"}]},
        {"order_id": "o1", "id": "r1", "amount": 0, "transactions": "none", "unknown": "\ud800"},
        {"order_id": "o1", "id": "r1", "amount": 0, "name": "x", "data": {"order_id": "o2"}},
        {"name": "order.refunded", "data": {"order_id": "o1", "id": "r1", "amount": 0}},
        {"id": "e1", "name": "payment.refunded", "data": {"order_id": "o1", "id": "r1", "amount": 0}},
        {"specversion": "1.0", "id": "e", "data": {"order_id": "o1", "id": "r1", "amount": 0}},
    ],
)
def test_thin_refund_in_every_wrapping(document):
    assert refund(document) == THIN


def transactions(*entries, **fields):
    return {"order_id": "o1", "id": "r1", "transactions": list(entries), **fields}


@pytest.mark.parametrize(
    ("document", "amount", "currency"),
    [
        (transactions({"amount": "5.50"}), "5.50", None),
        (transactions({"amount": "5.50"}, {"amount": 4.5, "currency": "usd"}), "10", "USD"),
        (transactions({"amount": 1, "currency": "USD"}, {"amount": 2, "currency_code": "USD"}), "3", "USD"),
        (transactions({"amount": 1, "currencyCode": "EUR"}, currency="EUR"), "1", "EUR"),
        (transactions({"amount": 1}, currency="EUR"), "1", "EUR"),
        (transactions({"amount": 1, "kind": "REFUND", "status": " Success"}), "1", None),
        (transactions({"amount": 1, "kind": None, "status": None}), "1", None),
        (transactions({"amount": 1, "kind": "void"}, {"amount": 2, "kind": "refund"}), "2", None),
        (transactions({"amount": "x", "kind": "void", "currency": "CHF"}, {"amount": 2}), "2", None),
        (transactions({"amount": 1, "status": "failure"}, {"amount": 2, "status": "success"}), "2", None),
        (transactions({"amount": "0.1"}, {"amount": 0.2}), "0.3", None),
    ],
)
def test_what_went_back_is_the_sum_of_the_transactions(document, amount, currency):
    found = refund(document)
    assert (found.amount, found.currency) == (Decimal(amount), currency)
    with_odd_text = refund({**document, "note": "\ud800"})
    assert (with_odd_text.amount, with_odd_text.currency) == (Decimal(amount), currency)


@pytest.mark.parametrize(
    ("document", "kind", "path"),
    [
        (b"", "empty", ""),
        ({}, "missing_field", "order_id"),
        ({"id": "o1", "refund_id": "r1", "amount": 1}, "missing_field", "order_id"),
        ({**USUAL, "refund_id": ""}, "missing_field", "refund_id"),
        ({**USUAL, "amount": None}, "missing_field", "amount"),
        ({**USUAL, "amount": None, "transactions": None}, "missing_field", "amount"),
        ({**USUAL, "order_id": []}, "invalid_field", "order_id"),
        ({**USUAL, "refund_id": 1.5}, "invalid_field", "refund_id"),
        ({**USUAL, "refund_id": None, "id": True}, "invalid_field", "id"),
        ({**USUAL, "amount": -1}, "invalid_field", "amount"),
        ({**USUAL, "amount": "1e2"}, "invalid_field", "amount"),
        ({**USUAL, "raw_amount": {"value": "x"}}, "invalid_field", "raw_amount.value"),
        ({**USUAL, "currency": "€"}, "invalid_field", "currency"),
        ({**USUAL, "timestamp": "yesterday"}, "invalid_field", "timestamp"),
        (transactions(transactions={}), "invalid_field", "transactions"),
        (transactions({"amount": 1}, "x"), "invalid_field", "transactions[1]"),
        (transactions({"amount": 1, "status": "pending"}), "invalid_field", "transactions"),
        (transactions({"amount": 1, "status": "failure"}), "invalid_field", "transactions"),
        (
            transactions({"amount": 1}, {"amount": 1, "status": "pending"}),
            "invalid_field",
            "transactions[1].status",
        ),
        (transactions({}), "missing_field", "transactions[0].amount"),
        (transactions({"amount": -1}), "invalid_field", "transactions[0].amount"),
        (transactions({"amount": 1, "kind": 7}), "invalid_field", "transactions[0].kind"),
        (transactions({"amount": 1, "status": []}), "invalid_field", "transactions[0].status"),
        (transactions({"amount": 1, "currency": 5}), "invalid_field", "transactions[0].currency"),
        (
            transactions({"amount": 1, "currency": "USD"}, {"amount": 1, "currency": "EUR"}),
            "invalid_field",
            "transactions[1].currency",
        ),
        (
            transactions({"amount": 1, "currency": "USD"}, currency="EUR"),
            "invalid_field",
            "transactions[0].currency",
        ),
        (transactions({"amount": 10**14 - 1}, {"amount": 1}), "invalid_field", "amount"),
        ({"name": "order.canceled", "data": USUAL}, "wrong_event", "name"),
    ],
)
def test_refused_with_kind_and_path(document, kind, path):
    error = refusal(document)
    assert (error.kind, error.field) == (kind, path)


@pytest.mark.parametrize("key", ["timestamp", "refunded_at", "refundedAt", "created_at", "createdAt"])
def test_times(key):
    document = {"order_id": "o1", "refund_id": "r1", "amount": 1, key: RECORD_MS - 1_000}
    assert refund(document).timestamp == RECORD_TIME - timedelta(seconds=1)


def test_normalised_fields_are_reported_by_their_names():
    said: list[str] = []
    document = json.dumps(samples.shopify_refund(7)).encode()
    events.decode_order_refunded(document, (), RECORD_MS, events.Rules(normalised=said.append))
    assert said == ["order_id", "refund_id", "amount"]


def test_written_json_is_the_wire_format():
    sent = refund(USUAL)
    assert (sent.topic, sent.key, sent.identity) == ("order.refunded", "1001", "1001:r1")
    assert json.loads(sent.to_json()) == USUAL
    assert refund(sent.to_json()) == sent
    assert refund(THIN.to_json()) == THIN
