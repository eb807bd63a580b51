"""Sample traffic from a seed, and what it must come to, counted beside it from the orders themselves.

The tally knows nothing of decoders, ledgers or SQL: it is the shop's own book, to compare ours with.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

PLACED = "order.placed"
CANCELED = "order.canceled"

COUPONS = (
    "SPRING",
    "ÉTÉ-2026",
    "TECHBLOG10",
    "FREESHIP",
    "WELCOME5",
    "PODCAST",
    "ANNA-20",
    "LATE",
    "vip",
    "VIP",
)
PROMOS = ("REFER-A-FRIEND", "DOUBLE-POINTS", "BIRTHDAY")

DOUBLES_SHARE = 0.05
MALFORMED_SHARE = 0.02
CANCELED_SHARE = 0.04

FIRST_ORDER_AT = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)

Headers = list[tuple[str, bytes]]


@dataclass(frozen=True)
class Order:
    """An order of the shop; `promos` maps a promo code to its base reward and bonus."""

    order_id: str
    placed_at: datetime
    codes: tuple[str, ...]
    promos: dict[str, tuple[Decimal, Decimal]]
    total: Decimal
    canceled: bool

    @property
    def counted_codes(self) -> set[str]:
        """Every code is a coupon usage, a promotion's too."""
        return {*self.codes, *self.promos}


@dataclass(frozen=True)
class Sample:
    """A record to publish; `malformed` names the reason that it must be parked for."""

    topic: str
    key: str
    value: bytes
    headers: Headers = field(default_factory=list)
    doubled: bool = False
    malformed: str | None = None


@dataclass(frozen=True)
class Traffic:
    """The shop's orders, and the records that tell of them in the order of publishing."""

    orders: list[Order]
    samples: list[Sample]


def traffic(seed: int, count: int) -> Traffic:
    """`count` orders and what is published of them: the same for the same seed."""
    dice = random.Random(seed)  # noqa: S311 - sample data
    orders = [_order(dice, number) for number in range(count)]
    timed: list[tuple[float, Sample]] = []
    for number, order in enumerate(orders):
        first = _placed(dice, order)
        timed.append((number, first))
        if dice.random() < DOUBLES_SHARE and order.counted_codes:
            timed.append((_soon(dice, number), _doubled(_placed(dice, order))))
        if order.canceled:
            # one in three overtakes its order
            when = _soon(dice, number) if dice.random() < 0.67 else number - dice.random() * 50
            timed.append((when, _canceled(order)))
            if dice.random() < DOUBLES_SHARE:
                timed.append((_soon(dice, when), _doubled(_canceled(order))))
    malformed = max(len(MALFORMED), round(count * MALFORMED_SHARE))
    timed += [(dice.random() * count, _malformed(number)) for number in range(malformed)]
    timed.sort(key=lambda pair: pair[0])
    return Traffic(orders, [sample for _, sample in timed])


def _soon(dice: random.Random, number: float) -> float:
    return number + dice.random() * 200


def _order(dice: random.Random, number: int) -> Order:
    codes = dice.sample(COUPONS, k=dice.choices((0, 1, 2, 3), weights=(15, 60, 20, 5))[0])
    promos = {}
    if dice.random() < 0.15:
        bonus = Decimal(dice.randrange(0, 500)) / 100
        promos[dice.choice(PROMOS)] = (Decimal(dice.randrange(1, 20)), bonus)
    return Order(
        order_id=f"demo_{number:06}",
        placed_at=FIRST_ORDER_AT + timedelta(seconds=7 * number),
        codes=tuple(codes),
        promos=promos,
        total=Decimal(dice.randrange(500, 50_000)) / 100,
        canceled=dice.random() < CANCELED_SHARE,
    )


# One order, five ways to say it


def _placed(dice: random.Random, order: Order) -> Sample:
    value, headers = dice.choice(SHAPES)(order)
    return Sample(PLACED, order.order_id, _json(value), headers)


def _plain(order: Order) -> tuple[dict[str, Any], Headers]:
    return {
        "order_id": order.order_id,
        "timestamp": order.placed_at.isoformat(),
        "currency": "EUR",
        "total": str(order.total),
        "codes": list(order.codes),
        "promotions": [
            {"code": code, "base_reward": str(base), "bonus_amount": str(bonus)}
            for code, (base, bonus) in order.promos.items()
        ],
        "shop_id": "shop_01",
    }, []


def _camel_case(order: Order) -> tuple[dict[str, Any], Headers]:
    return {
        "orderId": order.order_id,
        "placedAt": int(order.placed_at.timestamp() * 1000),
        "currencyCode": "eur",
        "discountCodes": [{"code": code} for code in order.codes],
        "promotions": [
            {"code": code, "baseReward": str(base), "bonusAmount": str(bonus)}
            for code, (base, bonus) in order.promos.items()
        ],
        "shopId": "shop_01",
    }, []


def _expanded(order: Order) -> tuple[dict[str, Any], Headers]:
    """As Medusa expands it: a code stands once for each line, and again among the promotions."""
    lines = [{"title": f"line {n}", "adjustments": [{"code": c} for c in order.codes]} for n in range(2)]
    return {
        "id": order.order_id,
        "created_at": order.placed_at.isoformat(),
        "currency_code": "eur",
        "total": float(order.total),
        "items": [*lines, {"title": "no discount", "adjustments": [{"code": None, "amount": 1}]}],
        "promotions": [{"code": code} for code in order.codes],
        "cart": {
            "promotions": [
                {"code": code, "base_reward": str(base), "bonus_amount": str(bonus)}
                for code, (base, bonus) in order.promos.items()
            ]
        },
        "shop_id": "shop_01",
    }, []


def _bus_envelope(order: Order) -> tuple[dict[str, Any], Headers]:
    return {"name": PLACED, "data": _expanded(order)[0]}, []


def _cloud_event(order: Order) -> tuple[dict[str, Any], Headers]:
    return {
        "specversion": "1.0",
        "id": f"{PLACED}:{order.order_id}",
        "source": "/demo",
        "type": PLACED,
        "time": order.placed_at.isoformat(),
        "data": _plain(order)[0],
    }, []


def _binary_cloud_event(order: Order) -> tuple[dict[str, Any], Headers]:
    return _camel_case(order)[0], [
        ("ce_specversion", b"1.0"),
        ("ce_type", PLACED.encode()),
        ("ce_id", f"{PLACED}:{order.order_id}".encode()),
        ("ce_source", b"/demo"),
    ]


SHAPES: tuple[Callable[[Order], tuple[dict[str, Any], Headers]], ...] = (
    _plain,
    _camel_case,
    _expanded,
    _bus_envelope,
    _cloud_event,
    _binary_cloud_event,
)


def _canceled(order: Order) -> Sample:
    canceled_at = order.placed_at + timedelta(hours=1)
    value = {"order_id": order.order_id, "timestamp": canceled_at.isoformat(), "reason": "changed my mind"}
    return Sample(CANCELED, order.order_id, _json(value))


def _doubled(sample: Sample) -> Sample:
    return Sample(sample.topic, sample.key, sample.value, sample.headers, doubled=True)


# Records that break a rule, with the reason that each must be parked for

MALFORMED: tuple[tuple[str, bytes, str], ...] = (
    (PLACED, b"", "empty"),
    (PLACED, b'{"order_id": "bad', "not_json"),
    (PLACED, b'{"order_id": "bad", "total": NaN}', "not_json"),
    (PLACED, b'{"order_id": "bad\xff"}', "not_utf8"),
    (PLACED, b'["bad"]', "not_object"),
    (PLACED, b'{"codes": ["SPRING"]}', "missing_field"),
    (PLACED, b'{"order_id": "  ", "codes": ["SPRING"]}', "missing_field"),
    (PLACED, b'{"order_id": "bad", "codes": ["SPRING", 7]}', "invalid_field"),
    (PLACED, b'{"order_id": "bad", "codes": ["SPR\\u0007ING"]}', "invalid_field"),
    (PLACED, b'{"order_id": "bad", "total": "12,50"}', "invalid_field"),
    (PLACED, b'{"order_id": "bad", "total": -1}', "invalid_field"),
    (PLACED, b'{"order_id": "bad", "timestamp": "2026-01-05"}', "invalid_field"),
    (PLACED, b'{"order_id": "bad", "timestamp": "1767600000"}', "invalid_field"),
    (PLACED, b'{"order_id": "bad", "currency": "EURO"}', "invalid_field"),
    (PLACED, b'{"name": "order.canceled", "data": {"id": "bad"}}', "wrong_event"),
    (CANCELED, b'{"reason": "no id"}', "missing_field"),
    (CANCELED, b"null", "not_object"),
)


def _malformed(number: int) -> Sample:
    topic, value, reason = MALFORMED[number % len(MALFORMED)]
    return Sample(topic, f"bad-{number}", value, malformed=reason)


def _json(value: dict[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()
