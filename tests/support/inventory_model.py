"""The contract of inventory in plain Python: what a set of stock changes comes to, and what is told of low stock.

Brute force: nothing is added up on the way, every stock is counted from the rows.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from hashlib import sha256
from typing import Any, NamedTuple

import asyncpg

from counterfoil.events import StockChange
from counterfoil.ingest.partitions import Partition
from counterfoil.ingest.records import Record
from support.builders import NOON
from support.postgres_road import CLUSTER
from support.voucher_model import jsonb_text

INVENTORY = (
    "inventory_events",
    "inventory_products",
    "refused_stock_changes",
    "low_stock_episodes",
    "ledger_closings",
    "ledger_bounds",
    "alerts",
    "alert_cooldowns",
    "outbox",
    "job_turns",
)
"""Every table that inventory writes."""

DEFAULT_THRESHOLD = 10
RESTOCKS = {"restock", "restocked", "replenishment"}

Key = tuple[datetime, str]
"""When and under which id: what there is one change of, and their order."""


class Change(NamedTuple):
    """What is told of a stock change; None where it tells nothing."""

    sku: str
    event_type: str = "change"
    old_stock: int | None = None
    new_stock: int | None = None
    quantity_delta: int | None = None
    metadata: str = "{}"
    name: str | None = None
    threshold: int | None = None
    unit_price: Decimal | None = None
    supplier: str | None = None

    @property
    def rank(self) -> tuple[Any, ...]:
        """Of two under one identity the smaller stands; what is missing is less than anything."""
        told = (
            self.new_stock, self.quantity_delta, self.sku, self.event_type, self.old_stock, self.metadata,
            self.name, self.threshold, self.unit_price, self.supplier,
        )  # fmt: skip
        return tuple((value is not None, value) for value in told)

    @property
    def moves(self) -> bool:
        """Whether it moves stock."""
        return self.event_type != "low_stock"

    @property
    def is_restock(self) -> bool:
        more = self.event_type == "change" and (self.quantity_delta or 0) > 0
        return self.moves and (self.event_type in RESTOCKS or more)


class Product(NamedTuple):
    """What is counted of a product, and what was last told of it."""

    stock: int = 0
    last_restocked: datetime | None = None
    counted_from: Key | None = None
    name: str = ""
    threshold: int = DEFAULT_THRESHOLD
    unit_price: Decimal | None = None
    supplier: str | None = None


@dataclass
class Changes:
    """The rows that stock changes leave, without what says when or from where they were written."""

    rows: dict[Key, Change] = field(default_factory=dict)
    refused: set[tuple[Key, Change]] = field(default_factory=set)
    skus: set[str] = field(default_factory=set)
    """Every SKU that any of them names, refused or not."""


# What stock changes come to


def changes_of(logs: Mapping[Partition, Sequence[Record]]) -> Changes:
    """What these logs tell, in any order; a record that is not JSON tells nothing."""
    told: dict[Key, list[Change]] = defaultdict(list)
    for partition, records in logs.items():
        for record in records:
            try:
                document = json.loads(record.value or b"")
            except ValueError:
                continue
            if partition.topic == "stock-change":
                told[_key(document, record)].append(_change(document))
    rows = {key: min(contents, key=_rank) for key, contents in told.items()}
    return Changes(
        rows,
        {(key, change) for key in told for change in told[key] if change != rows[key]},
        {change.sku for contents in told.values() for change in contents},
    )


def _rank(change: Change) -> tuple[Any, ...]:
    return change.rank


def _key(document: dict[str, Any], record: Record) -> Key:
    given = document.get("timestamp")
    time = datetime.fromisoformat(given) if given else datetime.fromtimestamp(record.timestamp / 1000, UTC)
    origin = f"{CLUSTER}/{record.topic}/{record.partition}/{record.offset}/{record.timestamp}"
    return time.astimezone(UTC), document.get("event_id") or sha256(origin.encode()).hexdigest()[:32]


def _change(document: dict[str, Any]) -> Change:
    old, new = document.get("old_stock"), document.get("new_stock")
    price = document.get("unit_price")
    return Change(
        document["sku"],
        document.get("event_type", "change").strip().lower(),
        old,
        new,
        document.get("quantity_delta") if old is None or new is None else new - old,
        jsonb_text(document.get("metadata") or {}),
        document.get("name"),
        document.get("threshold"),
        None if price is None else Decimal(str(price)),
        document.get("supplier"),
    )


def products_of(changes: Changes) -> dict[str, Product]:
    """SKU → the product that these changes come to."""
    return {sku: product_of(sku, changes.rows) for sku in changes.skus}


def product_of(sku: str, rows: Mapping[Key, Change]) -> Product:
    """The latest absolute and the deltas after it; of each detail the latest telling."""
    own = sorted((key, change) for key, change in rows.items() if change.sku == sku)
    moves = [(key, change) for key, change in own if change.moves]
    absolutes = [(key, change.new_stock) for key, change in moves if change.new_stock is not None]
    start, stock = absolutes[-1] if absolutes else (None, 0)
    return Product(
        stock + sum(
            change.quantity_delta or 0
            for key, change in moves
            if change.new_stock is None and (start is None or key > start)
        ),
        max((key[0] for key, change in moves if change.is_restock), default=None),
        start,
        _latest((change.name for _, change in own), sku),
        _latest((change.threshold for _, change in own), DEFAULT_THRESHOLD),
        _latest((change.unit_price for _, change in own), None),
        _latest((change.supplier for _, change in own), None),
    )  # fmt: skip


def _latest(told: Iterable[Any], otherwise: Any) -> Any:
    return next((value for value in reversed([*told]) if value is not None), otherwise)


# What is told of low stock


@dataclass
class Teller:
    """Decides whether a product is told of when somebody looks at it, under either policy; times in seconds."""

    policy: str
    cooldown: float
    told_at: dict[tuple[str, object], float] = field(default_factory=dict)
    """(SKU, the level or 'recovered') → when that was last told."""
    episodes: dict[str, int] = field(default_factory=dict)
    """SKU → the stock that was last told of while it is low."""

    def look(self, sku: str, stock: int, threshold: int, now: float) -> str | None:
        """`low` or `recovered`, where that is to be told now; it is told then."""
        kind = self._due(sku, stock, threshold)
        if kind is None:
            return None
        cause = (sku, stock if kind == "low" else kind)
        if now - self.told_at.get(cause, float("-inf")) < self.cooldown:
            return None
        self.told_at[cause] = now
        if self.policy == "episode" and kind == "low":
            self.episodes[sku] = stock
        self.episodes = {s: n for s, n in self.episodes.items() if kind == "low" or s != sku}
        return kind

    def _due(self, sku: str, stock: int, threshold: int) -> str | None:
        is_low, told = stock < threshold, self.episodes.get(sku)
        if self.policy == "level":
            return "low" if is_low else None
        if not is_low:
            return None if told is None else "recovered"
        if told is None or (told > 0 and (stock <= 0 or 2 * stock <= told)):
            return "low"
        return None


# The tables as they are

LOG = "event_type = 'low_stock' AND EXISTS (SELECT FROM alerts AS a WHERE a.alert_id = event_id)"
"""Which rows of the ledger are the log of alerts, and nobody's stock changes."""


async def stored_changes(db: asyncpg.Connection) -> Changes:
    """The rows of the ledger but for the log of alerts, what was refused, and the SKUs of all products."""
    rows = await db.fetch(f"SELECT * FROM inventory_events WHERE NOT ({LOG})")
    refused = await db.fetch(
        "SELECT r.* FROM refused_stock_changes, jsonb_populate_record(NULL::inventory_events, content) AS r"
    )
    return Changes(
        dict(map(_stored, rows)),
        {*map(_stored, refused)},
        {row["sku"] for row in await db.fetch("SELECT sku FROM inventory_products")},
    )


def _stored(row: asyncpg.Record) -> tuple[Key, Change]:
    return (row["occurred_at"], row["event_id"]), Change(**{name: row[name] for name in Change._fields})


async def stored_products(db: asyncpg.Connection) -> dict[str, Product]:
    """SKU → the product, as the table says."""
    return {
        row["sku"]: Product(
            row["stock"], row["last_restocked"],
            (row["since"], row["counted_from_event"]) if row["since"] else None,
            row["name"], row["threshold"], row["unit_price"], row["supplier"],
        )
        for row in await db.fetch(
            "SELECT *, nullif(counted_from, '-infinity') AS since FROM inventory_products"
        )
    }  # fmt: skip


async def exact(db: asyncpg.Connection, after: str = "", *, details: bool = True) -> bool:
    """Whether every product is what the rows of the ledger come to, as we count them here."""
    changes, stored = await stored_changes(db), await stored_products(db)
    counted = {sku: product_of(sku, changes.rows) for sku in stored}
    if not details:
        stored, counted = ({s: p[:3] for s, p in products.items()} for products in (stored, counted))
    assert stored == counted, after
    assert {change.sku for change in changes.rows.values() if change.moves} <= stored.keys(), after
    return True


# Events as a test tells them


def a_stock_event(sku: str = "s1", **fields: object) -> StockChange:
    """A decoded change by one piece, without an id of its own unless one is given."""
    told = {"timestamp": NOON} | fields
    if not {"new_stock", "quantity_delta"} & set(fields):
        told["quantity_delta"] = 1
    return StockChange(sku=sku, **told)
