"""The wire contract of `order.placed`: an order, the codes applied to it, and what its promotions reward."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, ClassVar, cast

import msgspec

from counterfoil.errors import InvalidEvent
from counterfoil.events import document
from counterfoil.events import rules as rule
from counterfoil.events.envelope import EnvelopeFields, Headers, Id, Money, Opener, Source, Time
from counterfoil.events.rules import Normalised, Rules
from counterfoil.events.writing import json_bytes, money_text, time_text
from counterfoil.settings import CodeCase


class Promotion(msgspec.Struct, frozen=True, gc=False):
    """A code that carries a reward, in reward units without currency."""

    code: str
    base_reward: Decimal | None = None
    bonus_amount: Decimal | None = None


class OrderPlaced(msgspec.Struct, kw_only=True, frozen=True, gc=False):
    """An order that was placed.

    A decoded one always has its timestamp, in UTC, and a currency; its codes are distinct and hold those of
    its promotions, of which there is at most one for each code.
    """

    topic: ClassVar[str] = "order.placed"

    order_id: str
    timestamp: datetime = None  # type: ignore[assignment]  # absent only before Kafka has given it one
    codes: list[str] = []
    promotions: list[Promotion] = []
    currency: str | None = None
    total: Decimal | None = None
    customer_id: str | None = None
    email: str | None = None
    shop_id: str | None = None
    customer_address: str | None = None

    @property
    def key(self) -> str:
        """The key of the Kafka record."""
        return self.order_id

    @property
    def identity(self) -> str:
        """What names this fact among those of its topic."""
        return self.order_id

    def to_json(self) -> bytes:
        """The value of the Kafka record; raises InvalidEvent for what cannot be written exactly."""
        return json_bytes(
            {
                "order_id": self.order_id,
                "timestamp": time_text(self.timestamp, "timestamp"),
                "codes": self.codes,
                "promotions": [
                    _promotion_json(promotion, f"promotions[{index}]")
                    for index, promotion in enumerate(self.promotions)
                ],
                "currency": self.currency,
                "total": money_text(self.total, "total"),
                "customer_id": self.customer_id,
                "email": self.email,
                "shop_id": self.shop_id,
                "customer_address": self.customer_address,
            }
        )


def _promotion_json(promotion: Promotion, path: str) -> dict[str, str]:
    base = money_text(promotion.base_reward, f"{path}.base_reward")
    bonus = money_text(promotion.bonus_amount, f"{path}.bonus_amount")
    return {
        "code": promotion.code,
        **({} if base is None else {"base_reward": base}),
        **({} if bonus is None else {"bonus_amount": bonus}),
    }


class _Coded(msgspec.Struct, gc=False):
    code: str | None = None


class _PromotionEntry(msgspec.Struct, gc=False):
    code: str | None = None
    base_reward: Money = None
    base_reward_camel: Money = msgspec.field(name="baseReward", default=None)
    bonus_amount: Money = None
    bonus_amount_camel: Money = msgspec.field(name="bonusAmount", default=None)

    def carries_reward(self) -> bool:
        """Whether there is any of the four."""
        return not (
            self.base_reward is None
            and self.bonus_amount is None
            and self.base_reward_camel is None
            and self.bonus_amount_camel is None
        )

    def rewards(self, path: str, normalised: Normalised) -> tuple[Decimal | None, Decimal | None]:
        """The base reward and the bonus amount."""
        base = rule.money(self.base_reward, "base_reward", normalised, f"{path}.base_reward")
        if base is None:
            base = rule.money(self.base_reward_camel, "base_reward", normalised, f"{path}.baseReward")
        bonus = rule.money(self.bonus_amount, "bonus_amount", normalised, f"{path}.bonus_amount")
        if bonus is None:
            bonus = rule.money(self.bonus_amount_camel, "bonus_amount", normalised, f"{path}.bonusAmount")
        return base, bonus


class _Adjusted(msgspec.Struct, gc=False):
    adjustments: list[_Coded | None] | None = None


class _Cart(msgspec.Struct, gc=False):
    promotions: list[_PromotionEntry | None] | None = None


class _Customer(msgspec.Struct, gc=False):
    lenient: ClassVar[bool] = True  # not in the contract: another shape is an unknown field
    id: Id = None


class _RawAmount(msgspec.Struct, gc=False):
    """Medusa's exact form beside an amount."""

    lenient: ClassVar[bool] = True
    value: Money = None


class _Wire(EnvelopeFields, gc=False):
    # the usual fields first, in the usual order: the decoder looks for a key from the last one on
    order_id: Id = None
    id: Id = None
    timestamp: Time = None
    currency: str | None = None
    total: Money = None
    customer_id: Id = None
    codes: list[str | None] | None = None
    email: str | None = None
    currency_code: str | None = None
    items: list[_Adjusted | None] | None = None
    shipping_methods: list[_Adjusted | None] | None = None
    promotions: list[_PromotionEntry | None] | None = None
    promotion: _PromotionEntry | None = None
    cart: _Cart | None = None
    raw_total: _RawAmount | None = None
    created_at: Time = None
    placed_at: Time = None
    shop_id: Id = None
    customer_address: str | None = None
    discount_codes: list[_Coded | None] | None = None
    total_price: Money = None
    customer: _Customer | None = None
    order_id_camel: Id = msgspec.field(name="orderId", default=None)
    placed_at_camel: Time = msgspec.field(name="placedAt", default=None)
    created_at_camel: Time = msgspec.field(name="createdAt", default=None)
    currency_code_camel: str | None = msgspec.field(name="currencyCode", default=None)
    raw_total_camel: _RawAmount | None = msgspec.field(name="rawTotal", default=None)
    total_price_camel: Money = msgspec.field(name="totalPrice", default=None)
    customer_id_camel: Id = msgspec.field(name="customerId", default=None)
    shop_id_camel: Id = msgspec.field(name="shopId", default=None)
    customer_address_camel: str | None = msgspec.field(name="customerAddress", default=None)
    shipping_methods_camel: list[_Adjusted | None] | None = msgspec.field(
        name="shippingMethods", default=None
    )
    discount_codes_camel: list[_Coded | None] | None = msgspec.field(name="discountCodes", default=None)


_opener = Opener(OrderPlaced.topic, _Wire, own_ids=("order_id", "orderId"))


def decode_order_placed(
    value: bytes | None, headers: Headers, timestamp_ms: int, rules: Rules
) -> OrderPlaced:
    """The event in a record, checked and normalised; raises InvalidEvent with the first rule it breaks.

    `timestamp_ms` is the record's own timestamp in epoch milliseconds, negative when it has none.
    """
    changed: list[str] = []
    normalised = changed.append
    wire, sent_at, source = _opener.open(value, headers, rules.max_event_bytes, normalised)
    # Only the usual fields are read here; the others are rare, and asking for each of them has a price.
    event = OrderPlaced(
        order_id=rule.identity(wire.order_id, "order_id", normalised) or _other_order_id(wire, normalised),
        timestamp=(
            _other_time(wire, sent_at, timestamp_ms, normalised)
            if wire.timestamp is None
            else rule.event_time(wire.timestamp, "timestamp", timestamp_ms, normalised)
        ),
        codes=_codes(wire, rules.code_case, normalised),
        promotions=(
            []
            if wire.promotions is None and wire.promotion is None and wire.cart is None
            else _promotions(wire, rules.code_case, normalised, source)
        ),
        currency=(
            _other_currency(wire, normalised) or rules.default_currency
            if wire.currency is None
            else rule.currency(wire.currency, "currency", normalised)
        ),
        total=(
            _other_total(wire, normalised)
            if wire.total is None or wire.raw_total is not None or wire.raw_total_camel is not None
            else rule.money(wire.total, "total", normalised)
        ),
        customer_id=rule.identity(wire.customer_id, "customer_id", normalised)
        or _other_customer_id(wire, normalised),
        email=None if wire.email is None else rule.free_text(wire.email, "email", normalised),
        shop_id=(
            None
            if wire.shop_id is None and wire.shop_id_camel is None
            else rule.first_identity(
                (("shop_id", wire.shop_id), ("shopId", wire.shop_id_camel)), "shop_id", normalised
            )
        ),
        customer_address=(
            None
            if wire.customer_address is None and wire.customer_address_camel is None
            else _customer_address(wire, normalised)
        ),
    )
    for field in changed:
        rules.normalised(field)
    return event


def _other_order_id(wire: _Wire, normalised: Normalised) -> str:
    others = (("orderId", wire.order_id_camel), ("id", wire.id))
    order_id = rule.first_identity(others, "order_id", normalised)
    if order_id is None:
        raise rule.missing("order_id")
    return order_id


def _other_time(wire: _Wire, sent_at: object, timestamp_ms: int, normalised: Normalised) -> datetime:
    others = (
        ("placed_at", wire.placed_at),
        ("placedAt", wire.placed_at_camel),
        ("created_at", wire.created_at),
        ("createdAt", wire.created_at_camel),
    )
    return rule.occurred_at(others, sent_at, timestamp_ms, normalised)


def _other_currency(wire: _Wire, normalised: Normalised) -> str | None:
    if wire.currency_code is not None:
        return rule.currency(wire.currency_code, "currency", normalised, "currency_code")
    return rule.currency(wire.currency_code_camel, "currency", normalised, "currencyCode")


def _other_total(wire: _Wire, normalised: Normalised) -> Decimal | None:
    """The order's total, from the exact form of the amount where one comes along."""
    if wire.raw_total is not None and wire.raw_total.value is not None:
        return rule.money(wire.raw_total.value, "total", normalised, "raw_total.value")
    if wire.raw_total_camel is not None and wire.raw_total_camel.value is not None:
        return rule.money(wire.raw_total_camel.value, "total", normalised, "rawTotal.value")
    if wire.total is not None:
        return rule.money(wire.total, "total", normalised)
    if wire.total_price is not None:
        return rule.money(wire.total_price, "total", normalised, "total_price")
    return rule.money(wire.total_price_camel, "total", normalised, "totalPrice")


def _other_customer_id(wire: _Wire, normalised: Normalised) -> str | None:
    customer_id = rule.identity(wire.customer_id_camel, "customer_id", normalised, "customerId")
    if customer_id is None and wire.customer is not None:
        customer_id = rule.identity(wire.customer.id, "customer_id", normalised, "customer.id")
    return customer_id


def _customer_address(wire: _Wire, normalised: Normalised) -> str | None:
    if wire.customer_address is not None:
        return rule.free_text(wire.customer_address, "customer_address", normalised)
    return rule.free_text(wire.customer_address_camel, "customer_address", normalised, "customerAddress")


def _codes(wire: _Wire, code_case: CodeCase, normalised: Normalised) -> list[str]:
    found = wire.codes or []
    if not (
        wire.promotions is None
        and wire.items is None
        and wire.promotion is None
        and wire.cart is None
        and wire.shipping_methods is None
        and wire.shipping_methods_camel is None
        and wire.discount_codes is None
        and wire.discount_codes_camel is None
    ):
        found = [*found]
        for _, entries in _coded_entries(wire):
            for entry in entries:
                if entry is not None:
                    found.append(entry.code)
    if not found:
        return []
    try:
        return rule.codes(found, "codes", code_case, normalised)
    except InvalidEvent:
        _say_where(wire, code_case, normalised)
        raise


def _say_where(wire: _Wire, code_case: CodeCase, normalised: Normalised) -> None:
    """Raise the refusal of the first bad code with its path, which is dear to build for the good ones."""
    for index, code in enumerate(wire.codes or ()):
        rule.code(code, "codes", code_case, normalised, f"codes[{index}]")
    for path, entries in _coded_entries(wire):
        for index, entry in enumerate(entries):
            place = path if path == "promotion" else f"{path}[{index}]"
            rule.code(entry and entry.code, "codes", code_case, normalised, f"{place}.code")


Coded = Sequence[_Coded | _PromotionEntry | None]


def _coded_entries(wire: _Wire) -> list[tuple[str, Coded]]:
    """Every container of objects with a code, with its path."""
    found: list[tuple[str, Coded]] = []
    if wire.promotions:
        found.append(("promotions", wire.promotions))
    if wire.promotion is not None:
        found.append(("promotion", (wire.promotion,)))
    if wire.cart is not None and wire.cart.promotions:
        found.append(("cart.promotions", wire.cart.promotions))
    if wire.items:
        _add_adjustments("items", wire.items, found)
    if wire.shipping_methods:
        _add_adjustments("shipping_methods", wire.shipping_methods, found)
    if wire.shipping_methods_camel:
        _add_adjustments("shippingMethods", wire.shipping_methods_camel, found)
    if wire.discount_codes:
        found.append(("discount_codes", wire.discount_codes))
    if wire.discount_codes_camel:
        found.append(("discountCodes", wire.discount_codes_camel))
    return found


def _add_adjustments(path: str, lines: Sequence[_Adjusted | None], found: list[tuple[str, Coded]]) -> None:
    for index, line in enumerate(lines):
        if line is not None and line.adjustments:
            found.append((f"{path}[{index}].adjustments", line.adjustments))


def _promotions(wire: _Wire, code_case: CodeCase, normalised: Normalised, source: Source) -> list[Promotion]:
    """The first promotion of each code that carries a reward, in the order of the document."""
    found: list[tuple[str, Promotion]] = []
    if wire.promotions:
        _add_rewarded("promotions", wire.promotions, code_case, normalised, found)
    if wire.promotion is not None:
        _add_rewarded("promotion", (wire.promotion,), code_case, normalised, found)
    if wire.cart is not None and wire.cart.promotions:
        _add_rewarded("cart.promotions", wire.cart.promotions, code_case, normalised, found)
    if not found:
        return []
    first: dict[str, tuple[str, Promotion]] = {}
    for container, promotion in found:
        if first.setdefault(promotion.code, (container, promotion))[0] != container:
            return _in_document_order(found, source)
    return [promotion for _, promotion in first.values()]


def _in_document_order(found: list[tuple[str, Promotion]], source: Source) -> list[Promotion]:
    """Two containers reward one code: which key comes first decides, and only here is it looked up."""
    tree = source if isinstance(source, dict) else cast("dict[str, Any]", document.parse(bytes(source)))
    places = {key: place for place, key in enumerate(tree)}
    first: dict[str, Promotion] = {}
    for _, promotion in sorted(found, key=lambda entry: places[entry[0].partition(".")[0]]):
        first.setdefault(promotion.code, promotion)
    return list(first.values())


def _add_rewarded(
    container: str,
    entries: Sequence[_PromotionEntry | None],
    code_case: CodeCase,
    normalised: Normalised,
    found: list[tuple[str, Promotion]],
) -> None:
    for index, entry in enumerate(entries):
        if entry is None or not entry.carries_reward():
            continue
        place = container if container == "promotion" else f"{container}[{index}]"
        base, bonus = entry.rewards(place, normalised)
        code = rule.code(entry.code, "codes", code_case, _counted_already)
        if code is not None:
            found.append((container, Promotion(code, base, bonus)))


def _counted_already(_field: str) -> None:
    """The union of the codes has reported what was normalised in them."""
