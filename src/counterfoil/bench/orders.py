"""The orders of a bench."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

SEED = 2026
CODES = 500
HOT_CODE = "PARTNER-HOT"
APART = timedelta(milliseconds=20)

_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


class Order(NamedTuple):
    """A plain order with one code."""

    order_id: str
    code: str
    placed_at: datetime

    @property
    def key(self) -> str:
        """The key of its record."""
        return self.order_id

    @property
    def value(self) -> bytes:
        """Its JSON, 170 bytes or so."""
        fields = {
            "order_id": self.order_id,
            "timestamp": self.placed_at.isoformat(),
            "currency": "EUR",
            "total": "129.90",
            "customer_id": f"cus_{self.order_id[6:]}",
            "codes": [self.code],
        }
        return json.dumps(fields, separators=(",", ":")).encode()


def sample_orders(count: int, *, seed: int = SEED) -> list[Order]:
    """Orders of the last hours, 20 ms apart, their ids in the order of time (ULIDs); 500 codes, evenly."""
    dice = random.Random(seed)  # noqa: S311 - sample data
    first = datetime.now(UTC).replace(microsecond=0) - count * APART - timedelta(minutes=1)
    times = (first + number * APART for number in range(count))
    return [Order(_ulid(dice, at), f"PARTNER-{dice.randrange(CODES):04}", at) for at in times]


def with_one_code(orders: Sequence[Order]) -> list[Order]:
    """The same orders, all with the same code."""
    return [order._replace(code=HOT_CODE) for order in orders]


def _ulid(dice: random.Random, at: datetime) -> str:
    bits = (int(at.timestamp() * 1000) << 80) | dice.getrandbits(80)
    return "order_" + "".join(_CROCKFORD[(bits >> shift) & 31] for shift in range(125, -1, -5))
