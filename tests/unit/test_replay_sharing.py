"""What several processes of a replay say is one report, and one person's reading."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from counterfoil.replaying.display import Display
from counterfoil.replaying.report import COUNTS, MORE_COUNTS, Report
from counterfoil.replaying.running import Logs, Request
from counterfoil.replaying.sharing import SharedReplay, arguments
from counterfoil.replaying.windows import Share, Window, time_of
from counterfoil.settings import Settings


def test_each_partition_is_in_one_share() -> None:
    partitions = [("order.canceled", 0), ("order.canceled", 1), ("order.placed", 0), ("order.placed", 1)]
    shares = [Share(number, 3).of(partitions) for number in range(3)]
    assert sorted(partition for share in shares for partition in share) == partitions
    assert [len(share) for share in shares] == [2, 1, 1]
    assert Share().of(partitions) == partitions


def test_a_row_that_two_tell_of_is_counted_and_listed_once() -> None:
    report = Report("check", {})
    report.take_part(*a_part("order.placed", 0, rows=(1, 2)))
    report.take_part(*a_part("order.canceled", 1, rows=(2, 3)))
    report.put_in_order(limit=20)
    assert report.totals["missing"] == 3
    assert [row["key"] for row in report.missing] == [[2], [3], [1]]
    assert [topic["topic"] for topic in report.topics] == ["order.canceled", "order.placed"]
    assert report.kinds == [
        {"topic": "order.canceled", "kind": "invalid", "records": 4},
        {"topic": "order.placed", "kind": "invalid", "records": 4},
    ]
    assert report.notes == ["click is not in Kafka: nothing of it is read"]


def test_no_more_rows_are_listed_than_asked_for() -> None:
    report = Report("check", {})
    report.take_part(*a_part("order.placed", 1, rows=range(5)))
    report.take_part(*a_part("order.placed", 0, rows=range(5, 10)))
    report.put_in_order(limit=3)
    assert report.totals["missing"] == 10
    assert [row["key"] for row in report.missing] == [[5], [6], [7]]


def test_a_share_is_asked_for_with_everything_but_the_rate_and_the_processes() -> None:
    window = Window(time_of("--from", "2026-03-01"), None, frozenset({2, 0}))
    request = Request(("order.placed",), window, mode="apply", overwrite=True, restart=True, processes=2)
    assert arguments(request, Share(1, 2), 30) == [
        "replay", "--share=1/2", "--mode=apply", "--limit=20", "--max-rate=30", "--from=2026-03-01T00:00:00+00:00",
        "--partition=0", "--partition=2", "--overwrite", "--restart", "--", "order.placed",
    ]  # fmt: skip
    with_alerts = Request((), Window(first_offset=0), everything=True, with_alerts=True)
    assert arguments(with_alerts, Share(0, 2), None) == [
        "replay", "--share=0/2", "--mode=check", "--limit=20", "--from-offset=0", "--all", "--with-alerts", "--",
    ]  # fmt: skip


def test_what_all_of_them_tell_is_told_once(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    with Display("replay") as display:
        request = Request((), Window(), everything=True, processes=2)
        replay = SharedReplay(request, Logs(settings, request, display.tell), display)
        replay._hear(0, ["tell", "PostgreSQL: away; trying again in 0.3 s"])
        replay._hear(1, ["tell", "PostgreSQL: away; trying again in 0.7 s"])
        replay._hear(0, ["tell", "PostgreSQL: away; trying again in 1.3 s"])
    assert capsys.readouterr().err.splitlines() == [
        "replay: PostgreSQL: away; trying again in 0.3 s",
        "replay: PostgreSQL: away; trying again in 1.3 s",
    ]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(_env_file=None, data_dir=tmp_path)


def a_part(topic: str, partition: int, *, rows: Any) -> tuple[dict[str, Any], list[tuple[str, str, Any]]]:
    """What a process tells that misses these rows, malformed records and notes with them."""
    part = Report("check", {}, notes=["click is not in Kafka: nothing of it is read"])
    counts = dict.fromkeys((*COUNTS, *MORE_COUNTS), 0) | {"missing": len(rows)}
    part.topics = [{"topic": topic, **counts}]
    part.kinds = [{"topic": topic, "kind": "invalid", "records": count} for count in (3, 1)]
    part.missing = [
        {"topic": topic, "partition": partition, "offset": row, "table": "clicks", "key": [row]}
        for row in rows
    ]
    return part.as_dict(), [(topic, "missing", rows)]
