"""`counterfoil bench --clicks` in its smallest form: the shape of its report, and exact counts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

ENDS_WITHIN_S = 240


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    """The report of one tiny run on embedded parts."""
    bench = subprocess.run(
        [sys.executable, "-m", "counterfoil", "bench", "--clicks", "1000", "--runs", "1", "--json"],
        capture_output=True,
        text=True,
        timeout=ENDS_WITHIN_S,
        env={name: value for name, value in os.environ.items() if not name.startswith("COUNTERFOIL_")},
        check=False,
    )
    assert bench.returncode == 0, bench.stdout + bench.stderr
    assert "run 1 of 1" in bench.stderr
    parsed: dict[str, Any] = json.loads(bench.stdout)
    return parsed


def test_every_day_of_every_pixel_was_counted_exactly(report: dict[str, Any]) -> None:
    assert report["exact"] is True
    assert report["differences"] == []


def test_each_way_of_clicks_has_its_runs_and_their_median(report: dict[str, Any]) -> None:
    assert (report["clicks"], report["runs"]) == (1_000, 1)
    for name in ("worker", "duplicates", "hot_pixel", "copy"):
        assert len(report[name]["runs"]) == 1
        assert report[name]["per_second"] == pytest.approx(report[name]["runs"][0], abs=1)
        assert report[name]["per_second"] > 0


def test_the_ratio_of_clicks_is_that_to_bare_copy_into_the_same_table(report: dict[str, Any]) -> None:
    rates = {name: report[name]["per_second"] for name in ("worker", "copy", "duplicates", "hot_pixel")}
    ratios = report["ratios"]
    assert ratios["worker_to_copy"] == pytest.approx(rates["worker"] / rates["copy"], rel=0.01)
    assert ratios["duplicates_to_worker"] == pytest.approx(rates["duplicates"] / rates["worker"], rel=0.01)
    assert ratios["hot_pixel_to_worker"] == pytest.approx(rates["hot_pixel"] / rates["worker"], rel=0.01)
