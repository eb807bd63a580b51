"""Records → events or malformed, in slices; the breaker cuts a chunk where it trips."""

from __future__ import annotations

import asyncio

import pytest

from counterfoil.errors import InvalidEvent
from counterfoil.events import CodeCase, Rules, decode_order_placed
from counterfoil.ingest.breaker import WINDOW, Breaker
from counterfoil.ingest.decoding import DECODE_BYTES, DECODE_SLICE, Decoder
from counterfoil.ingest.routes import Route
from counterfoil.telemetry.metrics import Metrics
from support.builders import PLACED, a_record, a_state, an_order, records_of


def a_decoder(decode=decode_order_placed, *, limit=0.5, metrics=None, **rules) -> Decoder:
    return Decoder(
        Route("order.placed", PLACED.topic, decode, []), Rules(**rules), Breaker(limit), metrics or Metrics()
    )


async def test_every_record_is_an_event_or_malformed():
    records = records_of(an_order("1"), b"not json", an_order("2"), None, b"[]", first=5)
    chunk = await a_decoder().decode(a_state(5), records)
    assert [event.order_id for event in chunk.events] == ["1", "2"]
    assert chunk.offsets == [5, 7]
    assert [m.record.offset for m in chunk.malformed] == [6, 8, 9]
    assert (chunk.records, chunk.first_offset, chunk.next_offset, chunk.skipped) == (records, 5, 10, 0)


async def test_a_chunk_begins_where_the_partition_stood():
    chunk = await a_decoder().decode(a_state(3), records_of(an_order(), first=5))
    assert (chunk.first_offset, chunk.next_offset, chunk.skipped) == (3, 6, 2)


async def test_a_malformed_record_says_its_kind_and_reason():
    def refuse(*_):
        raise InvalidEvent("some_kind", "items[0].code", "must be a string")

    def stumble(*_):
        raise RecursionError("x" * 10_000)

    for decode, kind, reason in [
        (refuse, "some_kind", "items[0].code: must be a string"),
        (stumble, "undecodable", "RecursionError"),
    ]:
        [malformed] = (await a_decoder(decode).decode(a_state(), [a_record()])).malformed
        assert (malformed.kind, malformed.reason) == (kind, reason)


async def test_the_size_is_that_of_the_values():
    chunk = await a_decoder().decode(
        a_state(), [a_record(0, b"12345"), a_record(1, None), a_record(2, b"123")]
    )
    assert chunk.size == 8


async def test_the_loop_turns_between_slices():
    turns = 0

    async def count_turns():
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count_turns())
    await a_decoder().decode(a_state(), records_of(*[an_order()] * (4 * DECODE_SLICE)))
    counting.cancel()
    assert turns >= 3


@pytest.mark.parametrize(
    ("sizes", "slices"),
    [
        ([DECODE_BYTES + 1, DECODE_BYTES + 1, 7], [1, 1, 1]),
        ([DECODE_BYTES, 1, 1], [1, 2]),
        ([10] * (DECODE_SLICE + 2), [DECODE_SLICE, 2]),
    ],
)
async def test_a_slice_holds_so_many_bytes_or_a_single_record(monkeypatch, sizes, slices):
    decoder, found = a_decoder(), []
    decode_slice = decoder._decode_slice

    def seen(chunk, records):
        found.append(len(records))
        return decode_slice(chunk, records)

    monkeypatch.setattr(decoder, "_decode_slice", seen)
    records = [a_record(n, b"x" * size) for n, size in enumerate(sizes)]
    assert len((await decoder.decode(a_state(), records)).malformed) == len(sizes)
    assert found == slices


@pytest.mark.parametrize("extra", [0, 1, DECODE_SLICE - 1])
async def test_slices_lose_nothing_and_double_nothing(extra):
    count = 2 * DECODE_SLICE + extra
    records = [a_record(n, b"not json" if n % 7 == 0 else an_order(str(n)).to_json()) for n in range(count)]
    chunk = await a_decoder().decode(a_state(), records)
    assert sorted([*chunk.offsets, *(m.record.offset for m in chunk.malformed)]) == list(range(count))
    assert chunk.records == records


async def test_a_tripping_breaker_cuts_the_chunk_before_the_record_that_trips_it():
    decoder = a_decoder()
    good = records_of(*[an_order()] * (WINDOW // 2))
    bad = [a_record(n, b"not json") for n in range(WINDOW // 2, WINDOW + 5)]
    chunk = await decoder.decode(a_state(), [*good, *bad])
    assert decoder.breaker.tripped
    assert (chunk.next_offset, len(chunk.malformed)) == (WINDOW - 1, WINDOW // 2 - 1)
    assert len(chunk.records) == WINDOW - 1


async def test_what_is_normalised_is_counted_by_field():
    metrics = Metrics()
    value = b'{"order_id": 7, "timestamp": null, "codes": [" a "]}'
    decoder = a_decoder(metrics=metrics, code_case=CodeCase.UPPER)
    chunk = await decoder.decode(a_state(), [a_record(0, value), a_record(1, value)])
    assert chunk.events[0].codes == ["A"]
    for field in ("order_id", "codes"):
        assert metrics.value("normalised_total", {"topic": PLACED.topic, "field": field}) == 2
