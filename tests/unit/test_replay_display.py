"""What a replay shows: how far it is, its table, and its last line."""

from __future__ import annotations

import os
import sys

import pytest

from counterfoil.database.comparison import Difference
from counterfoil.ingest.records import milliseconds_of
from counterfoil.replaying import display as displays
from counterfoil.replaying.checking import Findings
from counterfoil.replaying.display import Display, show, summary
from counterfoil.replaying.kafka_log import _begins_at
from counterfoil.replaying.report import COUNTS, MORE_COUNTS, Report
from counterfoil.replaying.sources import Stretch
from support.builders import CANCELED, NOON, PLACED, a_record


def a_report(mode: str = "check", **counts: int) -> Report:
    report = Report(mode, {}, seconds=2.0)
    report._add("order.placed", {"read": 1_000, **counts})
    return report


@pytest.mark.parametrize(
    ("report", "line"),
    [
        (a_report(already_there=1_000), "checked 1,000 records in 2.0 s (500/s): everything is there"),
        (
            a_report(missing=3),
            "checked 1,000 records in 2.0 s (500/s): 3 missing; --mode apply puts that right",
        ),
        (
            a_report(missing=3, differs=1, not_parked=2),
            "checked 1,000 records in 2.0 s (500/s): 3 missing, 1 differ, 2 not parked; "
            "--mode apply --overwrite puts that right",
        ),
        (
            a_report("apply", applied=990, already_there=9, malformed=1, overwritten=4, released=2),
            "read 1,000 records in 2.0 s (500/s): 990 applied, 9 there already, 1 malformed, 4 rows put right, "
            "2 dead letters resolved",
        ),
        (Report("check", {}), "there is no record in this window"),
    ],
)
def test_the_last_line_says_what_was_found_and_what_mends_it(report, line):
    assert summary(report) == line


@pytest.mark.parametrize(
    ("counts", "found"),
    [
        ({}, False),
        ({"malformed": 5}, False),
        ({"missing": 1}, True),
        ({"differs": 1}, True),
        ({"not_parked": 1}, True),
    ],
)
def test_malformed_records_alone_are_as_they_should_be(counts, found):
    assert a_report(**counts).found is found


def test_the_bar_of_a_topic_shows_the_smallest_share(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    show(a_report(already_there=999, missing=1))
    bar = next(line for line in capsys.readouterr().out.splitlines() if "█" in line)
    assert bar.count("█") == displays.BAR_WIDTH
    counts = {name: 0 for name, _ in displays.PICTURE} | {"applied": 999, "missing": 1}
    assert displays._picture(counts).spans[-1].style == "red"


def test_no_number_and_no_name_is_cut_off_however_narrow_the_screen_is(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    counts = dict.fromkeys((*COUNTS, *MORE_COUNTS), 12_345_678)
    show(a_report(**counts))
    shown = capsys.readouterr().out
    assert "…" not in shown
    assert shown.count("12,345,678") > len(displays.COLUMNS)
    assert "order.placed" in shown


def test_a_reader_that_has_had_enough_is_no_failure(monkeypatch):
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as broken:
        monkeypatch.setattr(sys, "stdout", broken)
        show(a_report(already_there=1))


def test_of_each_list_only_so_many_rows_are_kept_and_each_row_is_counted_once():
    findings = Findings(limit=2)
    for order_id in ("a", "b", "c", "a"):
        row = Difference("order_totals", (order_id,), "missing", None, {"total": 1}, 1, 0)
        findings.note(row, {"topic": "order.placed", "partition": 0, "offset": 0})
    report = Report("check", {})
    report.take_findings(findings)
    assert report.totals["missing"] == 3
    assert [row["key"] for row in report.missing] == [["a"], ["b"]]
    assert report.missing[0]["columns"] == ["total"]


def test_how_far_it_is_counts_every_offset_once(monkeypatch, capsys):
    monkeypatch.setattr(displays, "LINE_EVERY_S", 0)
    with Display("replay") as display:
        stretches = [Stretch("c", PLACED, 0, 60), Stretch("c", CANCELED, 10, 50)]
        display.begin(stretches, {PLACED: 20})
        assert (display.done, display.total) == (0, 80)
        display.moved({PLACED: 40, CANCELED: 30})
        display.moved({PLACED: 40})
        assert display.done == 40
    assert capsys.readouterr().err.startswith("replay: 40 of 80 (50%), ")


@pytest.mark.parametrize(
    ("minutes", "offset", "proved"),
    [
        ([9, 10, 11], 101, True),
        ([9, 9, 11], 101, False),  # the broker's word is too early
        ([10, 10, 11], 101, False),  # too late
        ([9], 101, True),  # nothing comes after it
        ([], 101, True),
        ([10], 100, True),  # the log's first
    ],
)
def test_a_brokers_word_on_where_a_time_begins_is_proved_by_the_records_around_it(minutes, offset, proved):
    since = milliseconds_of(NOON) + 10
    records = [
        a_record(100 + n, timestamp=milliseconds_of(NOON) + minute) for n, minute in enumerate(minutes)
    ]
    assert _begins_at(records, offset, since) is proved
