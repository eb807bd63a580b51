"""Which fetched records are taken: in order, each once, and no gap believed that only one fetch has shown."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from counterfoil.ingest.partitions import Anchor
from counterfoil.ingest.placement import place
from support.builders import a_record, a_state


def fetched(*offsets, **fields):
    return [a_record(offset, **fields) for offset in offsets]


def offsets(placement):
    return [record.offset for record in placement.records]


def test_before_the_first_seek_nothing_is_taken():
    placement = place(a_state(5, sought=None), fetched(5, 6))
    assert (offsets(placement), placement.seek_to) == ([], 5)


def test_records_that_follow_are_taken_whole():
    records = fetched(5, 6, 7)
    placement = place(a_state(5), records)
    assert (list(placement.records), placement.seek_to, placement.gaps) == (records, None, ())


def test_records_below_the_wanted_offset_are_dropped():
    assert offsets(place(a_state(5, sought=3), fetched(3, 4, 5, 6))) == [5, 6]
    assert place(a_state(5, sought=3), fetched(3, 4)).records == ()


def test_a_gap_is_sought_once_more_and_then_believed():
    state = a_state(5)
    first = place(state, fetched(5, 6, 9, 10))
    assert (offsets(first), first.seek_to, first.gaps) == ([5, 6], 7, ())
    state.expected = state.sought = 7
    second = place(state, fetched(9, 10))
    assert (offsets(second), second.seek_to, second.gaps) == ([9, 10], None, ((7, 9),))


def test_a_gap_at_the_start_is_sought_from_its_start():
    placement = place(a_state(5), fetched(8))
    assert (offsets(placement), placement.seek_to) == ([], 5)


def test_another_gap_at_the_same_place_is_not_the_same_gap():
    state = a_state(5)
    place(state, fetched(8))
    placement = place(state, fetched(9))
    assert (offsets(placement), placement.seek_to) == ([], 5)


def test_a_gap_behind_a_new_one_waits_until_it_was_seen_twice_itself():
    state = a_state(0)
    assert offsets(place(state, fetched(2))) == []
    placement = place(state, fetched(2, 5))
    assert (offsets(placement), placement.gaps, placement.seek_to) == ([2], ((0, 2),), 3)


def test_several_gaps_seen_together_are_proven_together():
    state = a_state(0)
    place(state, fetched(2, 5, 9))
    placement = place(state, fetched(2, 5, 9))
    assert (offsets(placement), placement.gaps) == ([2, 5, 9], ((0, 2), (3, 5), (6, 9)))


def test_a_log_that_answers_before_what_was_asked_for_is_another_one():
    assert place(a_state(5), fetched(0, 1)).replaced == "asked for offset 5, it ends before that"


def test_the_same_offset_with_another_timestamp_is_another_log():
    state = a_state(5, sought=4, anchor=Anchor(4, 1_000))
    assert place(state, fetched(4, 5, timestamp=2_000)).replaced == "the record at offset 4 is another one"
    state = a_state(5, sought=4, anchor=Anchor(4, 1_000))
    assert offsets(place(state, fetched(4, 5, timestamp=1_000))) == [5]
    assert state.anchor is None


def test_an_anchor_that_was_compacted_away_says_nothing():
    state = a_state(5, sought=4, anchor=Anchor(4, 1_000))
    assert offsets(place(state, fetched(5, timestamp=2_000))) == [5]


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_whatever_a_consumer_does_every_record_is_taken_once_and_in_order(data):
    """Seeks get lost, and the consumer jumps ahead or back, but never lands out of place twice alike."""
    log = data.draw(st.lists(st.integers(0, 40), min_size=1, max_size=25, unique=True).map(sorted), "log")
    state = a_state(0)
    shown: dict[tuple[int, int], int] = {}
    taken: list[int] = []
    consumer_at, jumped_to = 0, set()
    for _ in range(200):
        if state.expected > log[-1]:
            break
        mischief = (
            data.draw(st.sampled_from(["", "", "", "ahead", "back"]), "mischief")
            if len(jumped_to) < 8
            else ""
        )
        if mischief == "ahead":
            ahead = [o for o in log if o > consumer_at and o not in jumped_to]
            if ahead:
                consumer_at = data.draw(st.sampled_from(ahead), "ahead to")
                jumped_to.add(consumer_at)
        elif mischief == "back":
            consumer_at = min(consumer_at, state.sought)
            jumped_to.add(-len(jumped_to))
        left = [o for o in log if o >= consumer_at]
        if not left:
            consumer_at = state.sought = state.expected  # an empty fetch; the watch seeks in the end
            continue
        run = left[: data.draw(st.integers(1, 8), "fetched")]
        consumer_at = run[-1] + 1
        for gap in gaps_of(state.expected, run):
            shown[gap] = shown.get(gap, 0) + 1
        placement = place(state, fetched(*run))
        assert placement.replaced is None
        assert all(shown[gap] >= 2 for gap in placement.gaps)
        taken += offsets(placement)
        if placement.records:
            state.expected = placement.records[-1].offset + 1
        if placement.seek_to is not None:
            assert placement.seek_to == state.expected
            state.sought = state.expected
            lost = len(jumped_to) < 8 and following(log, consumer_at) not in jumped_to
            if lost and data.draw(st.booleans(), "the seek is lost"):
                jumped_to.add(following(log, consumer_at))
            else:
                consumer_at = state.expected
    assert taken == log[: len(taken)]
    assert taken == log


def following(log, offset):
    """Where a consumer that goes on from this offset shows its next record."""
    return next((o for o in log if o >= offset), -1)


def gaps_of(expected, run):
    """The gaps that one fetch shows to a reader of this offset."""
    at = expected
    for offset in (o for o in run if o >= expected):
        if offset > at:
            yield (at, offset)
        at = offset + 1
