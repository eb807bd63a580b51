"""Windows: which records are in them, and which texts are times."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from counterfoil.errors import InvalidSetting
from counterfoil.ingest.records import milliseconds_of
from counterfoil.replaying.windows import Window, time_of
from support.builders import NOON, a_record

RECORDS = [a_record(n, timestamp=milliseconds_of(NOON) + m) for n, m in enumerate((5, 0, 10, -1, 7))]


@pytest.mark.parametrize(
    ("window", "offsets"),
    [
        (Window(), [0, 1, 2, 3, 4]),
        (Window(since=NOON), [0, 1, 2, 4]),
        (Window(until=NOON), [3]),
        (Window(since=NOON + timedelta(milliseconds=5), until=NOON + timedelta(milliseconds=10)), [0, 4]),
        (Window(since=NOON + timedelta(microseconds=1)), [0, 2, 4]),
        (Window(until=NOON + timedelta(microseconds=1)), [1, 3]),
        (Window(first_offset=2), [2, 3, 4]),
        (Window(first_offset=1, end_offset=3), [1, 2]),
        (Window(partitions=frozenset({7})), [0, 1, 2, 3, 4]),
    ],
)
def test_a_window_holds_the_records_from_its_beginning_on_and_before_its_end(window, offsets):
    assert [record.offset for record in window.select(RECORDS)] == offsets


def test_a_record_without_a_time_is_older_than_any():
    records = [a_record(timestamp=-1), a_record(timestamp=2**62)]
    assert list(Window(until=NOON).select(records)) == records[:1]
    assert list(Window(since=NOON).select(records)) == records[1:]


def test_only_its_partitions_are_in_a_window():
    assert [number for number in range(4) if Window(partitions=frozenset({1, 3})).has(number)] == [1, 3]
    assert Window().has(9)


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("2026-03-01", datetime(2026, 3, 1, tzinfo=UTC)),
        ("2026-03-01T12:00:00Z", NOON),
        ("2026-03-01T13:00:00+01:00", NOON),
        ("2026-03-01T12:00:00.250Z", NOON + timedelta(milliseconds=250)),
    ],
)
def test_a_time_is_a_day_or_has_a_zone(text, time):
    assert time_of("--from", text) == time


@pytest.mark.parametrize(
    "text",
    [
        "",
        "yesterday",
        "2026-03-01T12:00:00",
        "2026-13-01",
        "1772366400",
        "0001-01-01T00:00:00+05:00",
        "9999-12-31T23:59:59-05:00",
    ],
)
def test_what_is_no_time_is_refused_in_one_line_that_names_the_option(text):
    with pytest.raises(
        InvalidSetting, match=r"--from: takes a time with its zone, such as .*; not '"
    ) as error:
        time_of("--from", text)
    assert "\n" not in str(error.value)
