"""Factories: a test states only what matters to it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from counterfoil.events import (
    Claim,
    Click,
    Conversion,
    Event,
    Impression,
    LinkCreated,
    OrderCanceled,
    OrderPlaced,
    OrderRefunded,
    Promotion,
    Redemption,
    Scan,
    UserCreated,
    VoucherCreated,
)
from counterfoil.ingest.batches import Chunk
from counterfoil.ingest.partitions import Partition, PartitionState
from counterfoil.ingest.records import Malformed, StoredRecord, milliseconds_of

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
"""When things happen unless a test says otherwise."""

PLACED = Partition("order.placed", 0)
CANCELED = Partition("order.canceled", 0)


def later(seconds: float = 1) -> datetime:
    """Noon and some seconds."""
    return NOON + timedelta(seconds=seconds)


def a_promotion(code: str = "SPRING", *, base: object = None, bonus: object = 5) -> Promotion:
    """A promotion entry that carries a reward."""
    return Promotion(code, _decimal(base), _decimal(bonus))


def an_order(order_id: str = "1001", *, codes: Sequence[str] = (), **fields: object) -> OrderPlaced:
    """A decoded order: its codes hold those of its promotions."""
    promotions = fields.pop("promotions", [])
    distinct = dict.fromkeys([*codes, *(p.code for p in promotions)])  # type: ignore[attr-defined]
    return OrderPlaced(
        order_id=order_id, codes=list(distinct), promotions=promotions, **({"timestamp": NOON} | fields)
    )


def a_cancellation(order_id: str = "1001", **fields: object) -> OrderCanceled:
    """A decoded cancellation."""
    return OrderCanceled(order_id=order_id, **({"timestamp": NOON} | fields))


def a_refund_event(
    order_id: str = "1001", refund_id: str = "r1", *, amount: object = 1, **fields: object
) -> OrderRefunded:
    """A decoded refund."""
    return OrderRefunded(
        order_id=order_id, refund_id=refund_id, amount=Decimal(str(amount)), **({"timestamp": NOON} | fields)
    )


def a_click_event(pixel_id: str = "px-1", **fields: object) -> Click:
    """A decoded click, without an id of its own unless one is given."""
    return Click(pixel_id=pixel_id, **({"timestamp": NOON} | fields))


def a_conversion_event(
    order_id: str = "1001", *, revenue: object = 10, commission: object = None, **fields: object
) -> Conversion:
    """A decoded conversion for a pixel, unless the fields name a link."""
    whose = {} if {"pixel_id", "link_id"} & set(fields) else {"pixel_id": "px-1"}
    return Conversion(
        order_id=order_id,
        revenue=Decimal(str(revenue)),
        commission=_decimal(commission),
        **({"timestamp": NOON, "currency": "USD"} | whose | fields),
    )


def a_user_event(user_id: str = "u1", **fields: object) -> UserCreated:
    """A decoded user."""
    return UserCreated(user_id=user_id, **({"timestamp": NOON} | fields))


def a_link_event(
    link_id: str = "l1", *, url: str = "https://cultgaia.com/products/bag", **fields: object
) -> LinkCreated:
    """A decoded link."""
    return LinkCreated(link_id=link_id, url=url, **({"timestamp": NOON} | fields))


def a_voucher_event(voucher_id: str = "v1", **fields: object) -> VoucherCreated:
    """A decoded voucher."""
    return VoucherCreated(voucher_id=voucher_id, **({"timestamp": NOON} | fields))


def an_impression_event(voucher_id: str = "v1", **fields: object) -> Impression:
    """A decoded impression, without an id of its own unless one is given."""
    return Impression(voucher_id=voucher_id, **({"timestamp": NOON} | fields))


def a_scan_event(voucher_id: str = "v1", **fields: object) -> Scan:
    """A decoded scan by a customer's camera, without an id of its own unless one is given."""
    usual = {"scan_type": "CUSTOMER", "scan_source": "CAMERA", "timestamp": NOON}
    return Scan(voucher_id=voucher_id, **(usual | fields))


def a_claim_event(voucher_id: str = "v1", customer_id: str = "c1", **fields: object) -> Claim:
    """A decoded claim."""
    return Claim(voucher_id=voucher_id, customer_id=customer_id, **({"timestamp": NOON} | fields))


def a_redemption_event(
    voucher_id: str = "v1", customer_id: str | None = "c1", **fields: object
) -> Redemption:
    """A decoded attempt that worked, without an id of its own unless one is given."""
    usual = {"business_id": "b1", "successful": True, "timestamp": NOON}
    return Redemption(voucher_id=voucher_id, customer_id=customer_id, **(usual | fields))


def a_record(offset: int = 0, value: bytes | None = b"{}", **fields: object) -> StoredRecord:
    """A Kafka record on partition 0 of `order.placed`."""
    given = {"topic": PLACED.topic, "partition": 0, "timestamp": milliseconds_of(NOON), "key": None}
    return StoredRecord(offset=offset, value=value, **(given | fields))


def records_of(
    *events: Event | bytes | None, partition: Partition = PLACED, first: int = 0
) -> list[StoredRecord]:
    """Events, or bytes as they are, as consecutive records of one partition."""
    return [
        a_record(
            first + index,
            event if event is None or isinstance(event, bytes) else event.to_json(),
            topic=partition.topic,
            partition=partition.partition,
        )
        for index, event in enumerate(events)
    ]


def a_state(expected: int = 0, *, partition: Partition = PLACED, **fields: object) -> PartitionState:
    """A held partition whose reading began where it is expected to go on."""
    return PartitionState(partition, 1, expected, expected, **({"sought": expected} | fields))


def a_chunk(
    offsets: Sequence[int],
    *,
    malformed: Sequence[int] = (),
    first: int | None = None,
    partition: Partition = PLACED,
) -> Chunk:
    """A chunk of records at these offsets, some of them malformed; each event is its offset as text."""
    records = [a_record(o, topic=partition.topic, partition=partition.partition) for o in offsets]
    good = [o for o in offsets if o not in malformed]
    return Chunk(
        a_state(partition=partition),
        offsets[0] if first is None else first,
        offsets[-1] + 1,
        list(records),
        [f"event {o}" for o in good],
        good,
        [Malformed(r, "test", "because") for r in records if r.offset in malformed],
    )


def _decimal(value: object) -> Decimal | None:
    return None if value is None else Decimal(str(value))
