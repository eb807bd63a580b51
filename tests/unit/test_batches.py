"""Batches and chunks: split anywhere, they still say the same of every offset."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from counterfoil.errors import PoisonRecord
from counterfoil.ingest.batches import Batch
from counterfoil.ingest.partitions import Partition
from support.builders import PLACED, a_chunk

OTHER = Partition(PLACED.topic, 1)


@st.composite
def chunks(draw, partition=PLACED, first=None):
    offsets = sorted(draw(st.sets(st.integers(5, 60), min_size=1, max_size=20)))
    malformed = [o for o in offsets if draw(st.booleans())]
    return a_chunk(offsets, malformed=malformed, first=draw(st.integers(0, offsets[0])), partition=partition)


def said(chunk):
    """What a chunk says of its offsets, whole."""
    return (
        [record.offset for record in chunk.records],
        list(zip(chunk.offsets, chunk.events, strict=True)),
        [m.record.offset for m in chunk.malformed],
    )


def joined(*parts):
    return tuple([one for part in lists for one in part] for lists in zip(*map(said, parts), strict=True))


@given(chunk=chunks(), data=st.data())
def test_a_split_chunk_says_what_the_whole_said(chunk, data):
    at = data.draw(st.integers(1, len(chunk.records)))
    first, rest = chunk.split(at)
    assert joined(first, rest) == said(chunk)
    assert len(first.records) == at
    assert (first.first_offset, rest.next_offset) == (chunk.first_offset, chunk.next_offset)
    assert first.next_offset == rest.first_offset
    assert first.skipped + rest.skipped == chunk.skipped
    assert min(first.skipped, rest.skipped) >= 0
    assert all(offset < first.next_offset for offset in first.offsets)


@given(chunk=chunks())
def test_a_parked_chunk_has_every_record_malformed_and_the_same_account(chunk):
    parked = chunk.parked("database", "because")
    assert [m.record for m in parked.malformed] == chunk.records
    assert {(m.kind, m.reason) for m in parked.malformed} == {("database", "because")}
    assert (parked.events, parked.offsets) == ([], [])
    assert (parked.first_offset, parked.next_offset, parked.skipped) == (
        chunk.first_offset,
        chunk.next_offset,
        chunk.skipped,
    )


@given(chunk=chunks(), data=st.data())
def test_refusing_makes_the_named_events_malformed_and_keeps_the_rest(chunk, data):
    named = {(chunk.state.source_id, o) for o in chunk.offsets if data.draw(st.booleans())}
    refusal = PoisonRecord("because", "a_kind", frozenset(named | {(99, 5)}))
    rest = Batch([chunk]).refusing(refusal)
    if not named:
        assert rest is None
        return
    (left,) = rest.chunks
    assert left.records == chunk.records
    assert {o for o in chunk.offsets if o not in left.offsets} == {offset for _, offset in named}
    assert left.events == [f"event {offset}" for offset in left.offsets]
    refused = [m for m in left.malformed if (m.kind, m.reason) == ("a_kind", "because")]
    assert [m.record.offset for m in refused] == sorted(offset for _, offset in named)
    assert len(left.malformed) == len(chunk.malformed) + len(named)


@given(parts=st.lists(st.one_of(chunks(), chunks(OTHER)), min_size=1, max_size=5))
def test_the_halves_of_a_batch_amount_to_it(parts):
    batch = Batch(parts)
    if len(batch) < 2:
        return
    first, rest = batch.halves()
    assert len(first) == len(batch) // 2
    assert len(first) + len(rest) == len(batch)
    for partition in (PLACED, OTHER):
        halves = [c for half in (first, rest) for c in half.chunks if c.partition == partition]
        whole = [c for c in parts if c.partition == partition]
        if whole:
            assert joined(*halves) == joined(*whole)
            assert sum(c.skipped for c in halves) == sum(c.skipped for c in whole)


@given(parts=st.lists(chunks(), min_size=1, max_size=4))
def test_halving_again_and_again_ends_with_single_records(parts):
    def singles(batch):
        return [batch] if len(batch) == 1 else [s for half in batch.halves() for s in singles(half)]

    found = singles(Batch(parts))
    assert [len(single) for single in found] == [1] * len(Batch(parts))
    assert [s.chunks[0].records[0].offset for s in found] == [r.offset for c in parts for r in c.records]


def test_partitions_are_sorted_and_their_chunks_stay_in_order():
    one, two, three = a_chunk([1, 2], partition=OTHER), a_chunk([7]), a_chunk([3], partition=OTHER)
    assert list(Batch([one, two, three]).by_partition().items()) == [(PLACED, [two]), (OTHER, [one, three])]


def test_a_batch_without_a_partition_keeps_the_others():
    one, two = a_chunk([1], partition=OTHER), a_chunk([7])
    assert Batch([one, two]).without([OTHER]).chunks == [two]


@pytest.mark.parametrize(
    ("first", "begin", "lost"),
    [(0, 4, (0, 4)), (0, 3, (0, 3)), (0, 20, (0, 4)), (4, 20, None), (0, 0, None)],
    ids=["up to the first record", "and a gap behind it", "it has moved on since", "nothing", "a gap only"],
)
def test_what_lies_before_the_logs_beginning_and_the_first_record_was_lost(first, begin, lost):
    chunk = a_chunk([4, 5], first=first)
    chunk.state.log_begin = begin
    assert chunk.lost == lost
