"""The wire contract of `order.refunded`: a part of an order's money goes back, or all of it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from decimal import Decimal
from typing import Any, ClassVar

import msgspec

from counterfoil.events import rules as rule
from counterfoil.events.envelope import EnvelopeFields, Headers, Id, Money, Opener, Time
from counterfoil.events.rules import Candidates, Normalised, Rules
from counterfoil.events.writing import json_bytes, money_text, time_text


class OrderRefunded(msgspec.Struct, kw_only=True, frozen=True, gc=False):
    """A refund of an order, which may have several; a decoded one always has its timestamp, in UTC.

    Without a currency of its own it is in the order's.
    """

    topic: ClassVar[str] = "order.refunded"

    order_id: str
    refund_id: str
    amount: Decimal
    currency: str | None = None
    timestamp: datetime = None  # type: ignore[assignment]  # absent only before Kafka has given it one

    @property
    def key(self) -> str:
        """The key of the Kafka record."""
        return self.order_id

    @property
    def identity(self) -> str:
        """What names this fact among those of its topic."""
        return f"{self.order_id}:{self.refund_id}"

    def to_json(self) -> bytes:
        """The value of the Kafka record; raises InvalidEvent for what cannot be written exactly."""
        return json_bytes(
            {
                "order_id": self.order_id,
                "refund_id": self.refund_id,
                "amount": money_text(self.amount, "amount"),
                "currency": self.currency,
                "timestamp": time_text(self.timestamp, "timestamp"),
            }
        )


class _RawAmount(msgspec.Struct, gc=False):
    """Medusa's exact form beside an amount."""

    lenient: ClassVar[bool] = True
    value: Money = None


class _Wire(EnvelopeFields, gc=False):
    order_id: Id = None
    order_id_camel: Id = msgspec.field(name="orderId", default=None)
    refund_id: Id = None
    refund_id_camel: Id = msgspec.field(name="refundId", default=None)
    id: Id = None
    amount: Money = None
    raw_amount: _RawAmount | None = None
    raw_amount_camel: _RawAmount | None = msgspec.field(name="rawAmount", default=None)
    transactions: Any = None  # looked at only where there is no amount: elsewhere it is an unknown field
    currency: str | None = None
    currency_code: str | None = None
    currency_code_camel: str | None = msgspec.field(name="currencyCode", default=None)
    timestamp: Time = None
    refunded_at: Time = None
    refunded_at_camel: Time = msgspec.field(name="refundedAt", default=None)
    created_at: Time = None
    created_at_camel: Time = msgspec.field(name="createdAt", default=None)


_opener = Opener(OrderRefunded.topic, _Wire, own_ids=("order_id", "orderId", "refund_id", "refundId"))


def decode_order_refunded(
    value: bytes | None, headers: Headers, timestamp_ms: int, rules: Rules
) -> OrderRefunded:
    """The event in a record, checked and normalised; raises InvalidEvent with the first rule it breaks.

    `timestamp_ms` is the record's own timestamp in epoch milliseconds, negative when it has none.
    """
    changed: list[str] = []
    normalised = changed.append
    wire, sent_at, _ = _opener.open(value, headers, rules.max_event_bytes, normalised)
    orders = (("order_id", wire.order_id), ("orderId", wire.order_id_camel))  # `id` is the refund's own
    refunds = (("refund_id", wire.refund_id), ("refundId", wire.refund_id_camel), ("id", wire.id))
    order_id = rule.required(rule.first_identity(orders, "order_id", normalised), "order_id")
    refund_id = rule.required(rule.first_identity(refunds, "refund_id", normalised), "refund_id")
    amount, currency = _amount(wire, normalised), _currency(wire, normalised)
    if amount is None:
        amount, currency = _of_transactions(wire.transactions, currency, normalised)
    refund = OrderRefunded(
        order_id=order_id,
        refund_id=refund_id,
        amount=amount,
        currency=currency,
        timestamp=_time(wire, sent_at, timestamp_ms, normalised),
    )
    for field in changed:
        rules.normalised(field)
    return refund


def _currency(wire: _Wire, normalised: Normalised) -> str | None:
    currencies = (
        ("currency", wire.currency),
        ("currency_code", wire.currency_code),
        ("currencyCode", wire.currency_code_camel),
    )
    return rule.first_currency(currencies, "currency", normalised)


def _amount(wire: _Wire, normalised: Normalised) -> Decimal | None:
    """The refund's own amount, from its exact form where one comes along."""
    if wire.raw_amount is not None and wire.raw_amount.value is not None:
        return rule.money(wire.raw_amount.value, "amount", normalised, "raw_amount.value")
    if wire.raw_amount_camel is not None and wire.raw_amount_camel.value is not None:
        return rule.money(wire.raw_amount_camel.value, "amount", normalised, "rawAmount.value")
    return rule.money(wire.amount, "amount", normalised)


def _of_transactions(
    transactions: object, currency: str | None, normalised: Normalised
) -> tuple[Decimal, str | None]:
    """The money that went back, as Shopify tells it; a refund without any, such as a restock, is of 0.

    One whose money has not gone yet is refused: of two contents the smaller stands, and nothing would be subtracted.
    """
    if transactions is None:
        raise rule.missing("amount")
    if not isinstance(transactions, list):
        raise rule.invalid("transactions", "must be an array")
    amounts: list[Decimal] = []
    refunds = list(_refunds(transactions))
    if refunds and not any(_has(refund, "status", "success", path) for path, refund in refunds):
        raise rule.invalid("transactions", "must hold one that succeeded, or none that refunds")
    for path, transaction in refunds:
        if _has(transaction, "status", "pending", path, unsaid=False):
            raise rule.invalid(f"{path}.status", "must not be pending")
        if not _has(transaction, "status", "success", path):
            continue
        amount = rule.money(transaction.get("amount"), "amount", normalised, f"{path}.amount")
        amounts.append(rule.required(amount, f"{path}.amount"))
        named = rule.first_currency(_currencies_of(transaction, path), "currency", normalised)
        if currency is not None and named not in {None, currency}:
            raise rule.invalid(f"{path}.currency", "must be the same in the whole refund")
        currency = currency or named
    return rule.total(amounts, "amount"), currency


def _refunds(transactions: list[object]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The transactions that were to give money back, each with its path."""
    for index, transaction in enumerate(transactions):
        path = f"transactions[{index}]"
        if transaction is None:
            continue
        if not isinstance(transaction, dict):
            raise rule.invalid(path, "must be an object")
        if _has(transaction, "kind", "refund", path):
            yield path, transaction


def _has(transaction: dict[str, Any], key: str, wanted: str, path: str, *, unsaid: bool = True) -> bool:
    """Whether the transaction says so; one that says nothing is a refund, and has succeeded."""
    said = transaction.get(key)
    if said is None:
        return unsaid
    if not isinstance(said, str):
        raise rule.invalid(f"{path}.{key}", "must be a string")
    return said.strip().lower() == wanted


def _currencies_of(transaction: dict[str, Any], path: str) -> Candidates:
    return [(f"{path}.{key}", transaction.get(key)) for key in ("currency", "currency_code", "currencyCode")]


def _time(wire: _Wire, sent_at: object, timestamp_ms: int, normalised: Normalised) -> datetime:
    times = (
        ("timestamp", wire.timestamp),
        ("refunded_at", wire.refunded_at),
        ("refundedAt", wire.refunded_at_camel),
        ("created_at", wire.created_at),
        ("createdAt", wire.created_at_camel),
    )
    return rule.occurred_at(times, sent_at, timestamp_ms, normalised)
