"""`counterfoil bench --clicks` and `--scans` in their smallest form: the shape of their reports, and exact counts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

ENDS_WITHIN_S = 240
HOT = {"clicks": "hot_pixel", "scans": "hot_voucher"}


@pytest.fixture(scope="module")
def reports() -> Iterator[dict[str, dict[str, Any]]]:
    """The report of one tiny run of each on embedded parts, side by side: mostly they wait."""
    benches = {kind: start_bench(kind) for kind in HOT}
    try:
        yield {kind: report_of(bench) for kind, bench in benches.items()}
    finally:
        for bench in benches.values():
            bench.kill()
            bench.communicate()


def start_bench(kind: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "counterfoil", "bench", f"--{kind}", "1000", "--runs", "1", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={name: value for name, value in os.environ.items() if not name.startswith("COUNTERFOIL_")},
    )


def report_of(bench: subprocess.Popen[str]) -> dict[str, Any]:
    out, said = bench.communicate(timeout=ENDS_WITHIN_S)
    assert bench.returncode == 0, out + said
    assert "run 1 of 1" in said
    parsed: dict[str, Any] = json.loads(out)
    return parsed


@pytest.fixture(params=list(HOT))
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def report(reports: dict[str, dict[str, Any]], kind: str) -> dict[str, Any]:
    return reports[kind]


def test_every_count_of_the_ledger_was_exact(report: dict[str, Any]) -> None:
    assert report["exact"] is True
    assert report["differences"] == []


def test_each_way_of_a_ledger_has_its_runs_and_their_median(report: dict[str, Any], kind: str) -> None:
    assert (report[kind], report["runs"]) == (1_000, 1)
    for name in ("worker", "duplicates", HOT[kind], "copy"):
        assert len(report[name]["runs"]) == 1
        assert report[name]["per_second"] == pytest.approx(report[name]["runs"][0], abs=1)
        assert report[name]["per_second"] > 0


def test_the_ratio_of_a_ledger_is_that_to_bare_copy_into_the_same_table(
    report: dict[str, Any], kind: str
) -> None:
    hot = HOT[kind]
    rates = {name: report[name]["per_second"] for name in ("worker", "copy", "duplicates", hot)}
    ratios = report["ratios"]
    assert ratios["worker_to_copy"] == pytest.approx(rates["worker"] / rates["copy"], rel=0.01)
    assert ratios["duplicates_to_worker"] == pytest.approx(rates["duplicates"] / rates["worker"], rel=0.01)
    assert ratios[f"{hot}_to_worker"] == pytest.approx(rates[hot] / rates["worker"], rel=0.01)


def test_clicks_and_scans_are_measured_one_at_a_time() -> None:
    bench = subprocess.run(
        [sys.executable, "-m", "counterfoil", "bench", "--clicks", "1000", "--scans", "1000"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (bench.returncode, bench.stdout) == (2, "")
    assert "one at a time" in bench.stderr
