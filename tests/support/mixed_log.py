"""A shop's log of every topic, as long as one likes: facts that meet, doubles, contradictions and malformed records."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from support.factories import Message

Document = dict[str, Any]

DAY_MS = 86_400_000
SPAN_DAYS = 40
"""The facts lie in so many days before the log's end, so in two or three partitions of each ledger."""

DOUBLED = 0.05
CONTRADICTED = 0.01
MALFORMED = 0.01
WITHOUT_ID = 0.02

BROWSERS = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0 Safari/537.36",
    "Mozilla/5.0 (X11; Linux x86_64; rv:144.0) Gecko/20100101 Firefox/144.0",
    "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
)
DOMAINS = ("one.example.com", "two.example.org", "three.co.uk", "four.example.net")
CURRENCIES = ("USD", "EUR", "JPY")
BAD_VALUES = (
    b"",
    b"\xff\xfe",
    b"[1]",
    b'{"a": NaN}',
    b"not json",
    b'{"order_id": "", "pixel_id": "", "sku": ""}',
)

OWN_IDS = {"click": "click_id", "scan": "scan_id", "redemption": "attempt_id", "stock-change": "event_id"}
"""The fields that may be missing: then the record itself is the identity."""


class Fact(NamedTuple):
    """A record to publish: to a topic, by its default name."""

    topic: str
    message: Message


def mixed_log(count: int, *, seed: int = 2026, end_ms: int, prefix: str = "") -> Iterator[Fact]:
    """So many records whose times end at `end_ms`, the same for the same seed; ids begin with the prefix."""
    shop = _Shop(count, seed, end_ms, prefix)
    made = 0
    while made < count:
        for fact in shop.some(made):
            yield fact
            made += 1
            if made == count:
                return


class _Shop:
    def __init__(self, count: int, seed: int, end_ms: int, prefix: str) -> None:
        self._dice = random.Random(seed)
        self._count = count
        self._start = end_ms - SPAN_DAYS * DAY_MS
        self._prefix = prefix
        self._orders = max(count // 4, 5)
        self._few = max(min(count // 200, 2_000), 5)
        self._kept: list[tuple[str, Document]] = []
        self._kinds: dict[str, tuple[int, Callable[[int], Document]]] = {
            "order.placed": (22, self._placed),
            "order.canceled": (2, self._canceled),
            "order.refunded": (4, self._refunded),
            "click": (22, self._click),
            "conversion": (10, self._conversion),
            "user.created": (1, self._user),
            "link.created": (1, self._link),
            "voucher.created": (1, self._voucher),
            "impression": (6, self._impression),
            "scan": (14, self._scan),
            "claim": (4, self._claim),
            "redemption": (3, self._redemption),
            "stock-change": (10, self._stock_change),
        }
        self._topics = list(self._kinds)
        self._weights = [weight for weight, _ in self._kinds.values()]

    def some(self, number: int) -> Iterator[Fact]:
        """The next fact, and what comes with it."""
        dice = self._dice
        topic = dice.choices(self._topics, self._weights)[0]
        if dice.random() < MALFORMED:
            yield Fact(topic, Message(dice.choice(BAD_VALUES), key=b"malformed"))
            return
        at = self._start + int(SPAN_DAYS * DAY_MS * number / self._count) - int(dice.expovariate(1 / 60_000))
        document = {"timestamp": at, **self._kinds[topic][1](number)}
        if topic in OWN_IDS and dice.random() < WITHOUT_ID:
            del document[OWN_IDS[topic]]
        yield _fact(topic, document)
        if dice.random() < DOUBLED and self._kept:  # of something long ago as well as of just now
            yield _fact(*dice.choice(self._kept))
        if dice.random() < CONTRADICTED:
            other = self._contradiction(topic, document)
            if other is not None:
                yield _fact(topic, other)
        if len(self._kept) < 5_000:
            self._kept.append((topic, document))
        else:
            self._kept[dice.randrange(5_000)] = (topic, document)

    def _contradiction(self, topic: str, document: Document) -> Document | None:
        """The same fact with another content; not of clicks and scans, where whichever came first stands."""
        if topic in {"click", "scan"} or OWN_IDS.get(topic, topic) not in {topic, *document}:
            return None
        if topic == "stock-change":  # its time is part of its identity
            return {**document, "metadata": {"again": self._dice.randrange(3)}}
        return {**document, "timestamp": document["timestamp"] + self._dice.choice((-1_000, 0, 5_000))}

    def _id(self, kind: str, among: int) -> str:
        return f"{self._prefix}{kind}{self._dice.randrange(among)}"

    def _money(self) -> str:
        return f"{self._dice.randrange(1, 40_000) / 100:.2f}"

    def _placed(self, number: int) -> Document:
        dice = self._dice
        document: Document = {
            "order_id": f"{self._prefix}o{number % self._orders}",
            "total": self._money(),
            "currency": dice.choice(CURRENCIES),
            "codes": [f"CODE{dice.randrange(300)}" for _ in range(dice.choice((0, 1, 1, 1, 2)))],
        }
        if dice.random() < 0.1:
            document["promotions"] = [{"code": f"PROMO{dice.randrange(20)}", "bonus_amount": self._money()}]
        return document

    def _canceled(self, _: int) -> Document:
        return {"order_id": self._id("o", self._orders), "reason": "changed my mind"}

    def _refunded(self, number: int) -> Document:
        return {"order_id": self._id("o", self._orders), "refund_id": f"r{number}", "amount": self._money()}

    def _click(self, number: int) -> Document:
        dice = self._dice
        return {
            "click_id": f"{self._prefix}c{number}",
            "pixel_id": f"px{dice.randrange(50)}",
            "ip_address": f"203.0.{dice.randrange(256)}.{dice.randrange(256)}",
            "user_agent": dice.choice(BROWSERS),
        }

    def _conversion(self, _: int) -> Document:
        dice = self._dice
        whose = {"pixel_id": f"px{dice.randrange(50)}"} if dice.random() < 0.7 else {}
        if not whose or dice.random() < 0.2:
            whose["link_id"] = self._id("l", self._few)
        document = {"order_id": self._id("o", self._orders), "revenue": self._money(), **whose}
        return {**document, "currency": dice.choice(CURRENCIES)}

    def _user(self, _: int) -> Document:
        user = self._id("u", self._few)
        return {"user_id": user, "name": f"User {user}", "email": f"{user}@shop.example"}

    def _link(self, number: int) -> Document:
        dice = self._dice
        document = {"link_id": self._id("l", self._few), "url": f"https://{dice.choice(DOMAINS)}/p/{number}"}
        if dice.random() < 0.7:
            document["user_id"] = self._id("u", self._few)
        if dice.random() < 0.5:
            document["pixel_id"] = f"px{dice.randrange(50)}"
        return document

    def _voucher(self, _: int) -> Document:
        return {
            "voucher_id": self._id("v", self._few),
            "business_id": f"b{self._dice.randrange(9)}",
            "title": "Ten off",
        }

    def _impression(self, number: int) -> Document:
        return {"impression_id": f"{self._prefix}i{number}", "voucher_id": self._id("v", self._few)}

    def _scan(self, number: int) -> Document:
        dice = self._dice
        document: Document = {
            "scan_id": f"{self._prefix}s{number}",
            "voucher_id": self._id("v", self._few),
            "scan_type": dice.choice(("CUSTOMER", "BUSINESS")),
            "scan_source": dice.choice(("CAMERA", "GALLERY", "LINK", "SHARE")),
            "location": {"city": dice.choice(("Berlin", "Wien", "Zürich"))},
        }
        if dice.random() < 0.8:
            document["user_id"] = self._id("cu", self._few)
        return document

    def _claim(self, _: int) -> Document:
        return {"voucher_id": self._id("v", self._few), "customer_id": self._id("cu", self._few)}

    def _redemption(self, number: int) -> Document:
        dice = self._dice
        document: Document = {
            "attempt_id": f"{self._prefix}a{number}",
            "voucher_id": self._id("v", self._few),
            "business_id": f"b{dice.randrange(9)}",
            "customer_id": self._id("cu", self._few),
            "successful": dice.random() < 0.8,
        }
        return document if document["successful"] else {**document, "failure_reason": "expired"}

    def _stock_change(self, number: int) -> Document:
        dice = self._dice
        document: Document = {"event_id": f"{self._prefix}e{number}", "sku": self._id("SKU-", self._few)}
        if dice.random() < 0.2:
            return {**document, "event_type": "restock", "new_stock": dice.randrange(500)}
        return {**document, "event_type": "sale", "quantity_delta": -dice.randrange(1, 4)}


KEYS = {
    "click": "pixel_id",
    "user.created": "user_id",
    "link.created": "link_id",
    "stock-change": "sku",
    **dict.fromkeys(("voucher.created", "impression", "scan", "claim", "redemption"), "voucher_id"),
}


def _fact(topic: str, document: Document) -> Fact:
    key = str(document[KEYS.get(topic, "order_id")])
    return Fact(topic, Message(json.dumps(document, separators=(",", ":")).encode(), key=key.encode()))
