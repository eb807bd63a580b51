"""Events as a shop would publish them: a test states only what matters to it."""

from __future__ import annotations

import itertools
import json
import time
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from counterfoil.ingest.records import Headers

_numbers = itertools.count(1)
_run = uuid.uuid4().hex[:6]


@dataclass(frozen=True)
class Message:
    """A Kafka record to be sent: with a key its partition follows from it, unless one is given."""

    value: bytes | None
    key: bytes | None = None
    headers: Headers = field(default=())
    partition: int | None = None
    timestamp_ms: int | None = None


def order_ids(count: int) -> list[str]:
    """Ids that no other test has."""
    return [new_id("order") for _ in range(count)]


def new_id(kind: str) -> str:
    """An id that no other test has."""
    return f"{kind}-{_run}-{next(_numbers):06}"


def an_order(
    *,
    order_id: str | None = None,
    codes: Sequence[object] = ("SPRING",),
    partition: int | None = None,
    **fields: Any,
) -> Message:
    """An `order.placed` with these codes."""
    order_id = order_ids(1)[0] if order_id is None else order_id
    return a_message(
        {"order_id": order_id, "codes": list(codes), **fields}, key=order_id, partition=partition
    )


def orders(
    ids: Iterable[str], *, codes: Sequence[str] = ("SPRING",), partition: int | None = None
) -> list[Message]:
    """An order for each id, all with the same codes."""
    return [an_order(order_id=order_id, codes=codes, partition=partition) for order_id in ids]


def a_cancellation(order_id: str, **fields: Any) -> Message:
    """An `order.canceled` of this order."""
    return a_message({"order_id": order_id, **fields}, key=order_id)


def a_refund(
    order_id: str, *, refund_id: str | None = None, amount: object = "1.00", **fields: Any
) -> Message:
    """An `order.refunded` of this order."""
    refund_id = new_id("refund") if refund_id is None else refund_id
    return a_message({"order_id": order_id, "refund_id": refund_id, "amount": amount, **fields}, key=order_id)


def a_click(pixel_id: str = "px-1", *, click_id: str | None = None, **fields: Any) -> Message:
    """A `click` on this pixel."""
    click_id = new_id("click") if click_id is None else click_id
    return a_message({"click_id": click_id, "pixel_id": pixel_id, **fields}, key=pixel_id)


def a_conversion(
    order_id: str | None = None, *, revenue: object = "10.00", currency: str = "USD", **fields: Any
) -> Message:
    """A `conversion` of this order for a pixel, unless the fields name a link."""
    order_id = order_ids(1)[0] if order_id is None else order_id
    whose = {} if {"pixel_id", "link_id"} & set(fields) else {"pixel_id": "px-1"}
    return a_message(
        {"order_id": order_id, "revenue": revenue, "currency": currency, **whose, **fields}, key=order_id
    )


def a_user(user_id: str | None = None, **fields: Any) -> Message:
    """A `user.created`."""
    user_id = new_id("user") if user_id is None else user_id
    return a_message({"user_id": user_id, **fields}, key=user_id)


def a_link(
    link_id: str | None = None, *, url: object = "https://cultgaia.com/products/bag", **fields: Any
) -> Message:
    """A `link.created` to this page."""
    link_id = new_id("link") if link_id is None else link_id
    return a_message({"link_id": link_id, "url": url, **fields}, key=link_id)


def a_voucher(voucher_id: str | None = None, **fields: Any) -> Message:
    """A `voucher.created`."""
    voucher_id = new_id("voucher") if voucher_id is None else voucher_id
    return a_message({"voucher_id": voucher_id, **fields}, key=voucher_id)


def an_impression(voucher_id: str = "v1", *, impression_id: str | None = None, **fields: Any) -> Message:
    """An `impression` of this voucher."""
    impression_id = new_id("impression") if impression_id is None else impression_id
    return a_message({"impression_id": impression_id, "voucher_id": voucher_id, **fields}, key=voucher_id)


def a_scan(voucher_id: str = "v1", *, scan_id: str | None = None, **fields: Any) -> Message:
    """A `scan` of this voucher, by a customer's camera unless the fields say otherwise."""
    usual = {"scan_type": "CUSTOMER", "scan_source": "CAMERA"}
    scan_id = new_id("scan") if scan_id is None else scan_id
    return a_message({"scan_id": scan_id, "voucher_id": voucher_id, **usual, **fields}, key=voucher_id)


def a_claim(voucher_id: str = "v1", customer_id: str = "c1", **fields: Any) -> Message:
    """A `claim` of this customer."""
    return a_message({"voucher_id": voucher_id, "customer_id": customer_id, **fields}, key=voucher_id)


def a_redemption(
    voucher_id: str = "v1",
    customer_id: str | None = "c1",
    *,
    successful: object = True,
    attempt_id: str | None = None,
    **fields: Any,
) -> Message:
    """A `redemption` that worked, unless it says otherwise."""
    attempt = {"attempt_id": new_id("attempt") if attempt_id is None else attempt_id, "business_id": "b1"}
    whose = {"voucher_id": voucher_id, "customer_id": customer_id, "successful": successful}
    return a_message({**attempt, **whose, **fields}, key=voucher_id)


def a_malformed_order(*, partition: int | None = None) -> Message:
    """An `order.placed` without the one field that it needs."""
    return a_message({"codes": ["SPRING"]}, partition=partition)


def a_message(payload: object, *, key: str | None = None, partition: int | None = None) -> Message:
    """Anything as JSON, sent now."""
    return Message(
        json.dumps(payload).encode(),
        None if key is None else key.encode(),
        partition=partition,
        timestamp_ms=int(time.time() * 1000),
    )
