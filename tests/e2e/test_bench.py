"""`counterfoil bench` in its smallest form: the shape of its report, exact counts, and nothing left behind."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import asyncpg
import psutil
import pytest

from support.servers import Server

ENDS_WITHIN_S = 240


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    """The report of one tiny run on embedded parts."""
    bench = start_bench()
    out, said = bench.communicate(timeout=ENDS_WITHIN_S)
    assert bench.returncode == 0, out + said
    assert "run 1 of 1" in said
    parsed: dict[str, Any] = json.loads(out)
    return parsed


def start_bench(**variables: str) -> subprocess.Popen[str]:
    """The bench of 1,000 orders in a session of its own."""
    given = {name: value for name, value in os.environ.items() if not name.startswith("COUNTERFOIL_")}
    return subprocess.Popen(
        [sys.executable, "-m", "counterfoil", "bench", "--orders", "1000", "--runs", "1", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=given | variables,
        start_new_session=True,
    )


def folders_of(children: list[psutil.Process]) -> set[Path]:
    """The folders of the bench that these servers belong to."""
    words = " ".join(word for child in children for word in child.cmdline())
    return {Path(name) for name in re.findall(r"\S*counterfoil-bench-\w+", words)}


def test_all_counts_were_exact(report: dict[str, Any]) -> None:
    assert report["exact"] is True
    assert report["differences"] == []


def test_the_report_says_what_it_ran_on(report: dict[str, Any]) -> None:
    assert "embedded" in report["kafka"]
    assert "PostgreSQL" in report["postgresql"]["server"]
    assert report["postgresql"]["settings"]["fsync"] == "on"
    assert report["postgresql"]["settings"]["synchronous_commit"] == "on"
    assert report["machine"]["cpus"] >= 1
    assert (report["orders"], report["peer_orders"], report["runs"]) == (1_000, 1_000, 1)


def test_every_contender_has_its_runs_and_their_median(report: dict[str, Any]) -> None:
    for name in ("worker", "duplicates", "hot_code", "replay", "replay_processes", "copy", "peer"):
        assert len(report[name]["runs"]) == 1
        assert report[name]["per_second"] == pytest.approx(report[name]["runs"][0], abs=1)
        assert report[name]["per_second"] > 0
    for name in ("worker", "duplicates", "hot_code"):
        assert 10 < report[name]["peak_mib"] < 1_000


def test_the_ratios_are_those_of_the_medians(report: dict[str, Any]) -> None:
    worker = report["worker"]["per_second"]
    ratios = report["ratios"]
    assert ratios["worker_to_copy"] == pytest.approx(worker / report["copy"]["per_second"], rel=0.01)
    assert ratios["worker_to_peer"] == pytest.approx(worker / report["peer"]["per_second"], rel=0.01)
    assert ratios["duplicates_to_worker"] == pytest.approx(
        report["duplicates"]["per_second"] / worker, rel=0.01
    )
    for name in ("replay", "replay_processes"):
        assert ratios[f"{name}_to_worker"] == pytest.approx(report[name]["per_second"] / worker, rel=0.01)
    assert ratios["hot_code_to_worker"] == pytest.approx(report["hot_code"]["per_second"] / worker, rel=0.01)


def test_the_same_orders_are_replayed_by_one_process_and_by_all_cores(report: dict[str, Any]) -> None:
    assert report["replay"]["processes"] == 1
    assert report["replay_processes"]["processes"] == min(max(2, report["machine"]["cpus"]), 4)


def test_latencies_are_in_order(report: dict[str, Any]) -> None:
    latency = report["latency"]
    assert latency["events"] == 500
    assert 0 < latency["p50_ms"] <= latency["p99_ms"] <= latency["max_ms"]


@pytest.mark.slow
async def test_a_given_database_is_left_as_it_was(postgres_server: Server, database_url: str) -> None:
    async def schemas() -> set[str]:
        connection = await asyncpg.connect(database_url)
        try:
            return {row[0] for row in await connection.fetch("SELECT nspname FROM pg_namespace")}
        finally:
            await connection.close()

    before = await schemas()
    bench = start_bench(COUNTERFOIL_DATABASE_URL=database_url)
    out, said = bench.communicate(timeout=ENDS_WITHIN_S)
    assert bench.returncode == 0, out + said
    assert "named by the settings" in json.loads(out)["postgresql"]["server"]
    assert await schemas() == before


@pytest.mark.parametrize(
    "moment",
    [
        "embedded",
        pytest.param("this worker", marks=pytest.mark.slow),
        pytest.param("replayed by 1", marks=pytest.mark.slow),
        pytest.param("duplicates", marks=pytest.mark.slow),
    ],
)
def test_ctrl_c_leaves_no_process_and_no_folder(moment: str) -> None:
    bench = start_bench()
    assert bench.stderr is not None
    lines = []
    for line in bench.stderr:
        lines.append(line)
        if moment in line:
            break
    children = psutil.Process(bench.pid).children(recursive=True)
    folders = folders_of(children)
    bench.send_signal(signal.SIGINT)
    out, said = bench.communicate(timeout=60)

    assert bench.returncode == 130, "".join(lines) + said
    assert out == ""
    assert "Traceback" not in said
    assert len(folders) == 1
    _, alive = psutil.wait_procs(children, timeout=5)
    assert alive == []
    assert not folders.pop().exists()
