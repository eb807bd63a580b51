"""`counterfoil demo` as a newcomer runs it: exact at the end, and nothing left of it however it ends."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

ENDS_WITHIN_S = 120


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder for the demo's own; not `tmp_path`, which PostgreSQL's user can't enter when we are root."""
    with tempfile.TemporaryDirectory(prefix="counterfoil-test-") as name:
        folder = Path(name)
        folder.chmod(0o711)
        yield folder


def start_demo(place: Path, **variables: str) -> subprocess.Popen[str]:
    """The demo in short form, in a session of its own so that only it hears of our signals."""
    environment = (
        os.environ | {"COUNTERFOIL_DEMO_ORDERS": "400", "TMPDIR": str(place), "COLUMNS": "100"} | variables
    )
    return subprocess.Popen(
        [sys.executable, "-m", "counterfoil", "demo"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
        start_new_session=True,
    )


def output_until(demo: subprocess.Popen[str], pattern: str) -> str:
    """What the demo prints up to a line that matches."""
    assert demo.stdout is not None
    lines = []
    for line in demo.stdout:
        lines.append(line)
        if re.search(pattern, line):
            return "".join(lines)
    raise AssertionError(f"no line matches {pattern!r}:\n{''.join(lines)}")


def children_of(demo: subprocess.Popen[str]) -> list[psutil.Process]:
    return psutil.Process(demo.pid).children(recursive=True)


def assert_nothing_is_left(place: Path, children: list[psutil.Process]) -> None:
    _, alive = psutil.wait_procs(children, timeout=5)
    assert alive == []
    assert list(place.iterdir()) == []


def test_every_count_is_exact_though_the_worker_is_killed(place: Path) -> None:
    demo = start_demo(place)
    before = output_until(demo, "worker is killed")
    children = children_of(demo)
    after, _ = demo.communicate(timeout=ENDS_WITHIN_S)

    assert demo.returncode == 0, before + after
    assert "exact" in after
    assert "DIFFERENCE" not in after
    assert re.search(r"drift +│ +0 ", after)
    assert "counterfoil run --embedded" in after
    assert_nothing_is_left(place, children)


def test_the_seed_is_printed_and_settles_the_traffic(place: Path) -> None:
    from counterfoil.demo.traffic import traffic

    demo = start_demo(place, COUNTERFOIL_DEMO_SEED="7")
    said = output_until(demo, "seed 7")
    demo.send_signal(signal.SIGINT)
    demo.communicate(timeout=ENDS_WITHIN_S)

    assert f"{len(traffic(7, 400).samples)} records" in said
    assert traffic(7, 400) == traffic(7, 400)
    assert traffic(7, 400) != traffic(8, 400)


@pytest.mark.parametrize(
    "moment", ["seed", "broker are up", "accounted for 0", "worker is killed", "worker is back"]
)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_no_process_and_no_folder(place: Path, moment: str, number: signal.Signals) -> None:
    demo = start_demo(place)
    output_until(demo, moment)
    children = children_of(demo)
    demo.send_signal(number)
    said, _ = demo.communicate(timeout=ENDS_WITHIN_S)

    assert demo.returncode == 128 + number, said
    assert "Traceback" not in said
    assert_nothing_is_left(place, children)


def test_an_impatient_second_ctrl_c_leaves_nothing_either(place: Path) -> None:
    demo = start_demo(place)
    output_until(demo, "accounted for")
    children = children_of(demo)
    for _ in range(5):
        demo.send_signal(signal.SIGINT)
        time.sleep(0.02)
    said, _ = demo.communicate(timeout=ENDS_WITHIN_S)

    assert demo.returncode == 130, said
    assert_nothing_is_left(place, children)


def test_a_wrong_count_is_named() -> None:
    from counterfoil.demo.counts import Counts, differences

    sent = Counts(times_used_by_coupon={"SPRING": 2, "LATE": 1}, coupon_usages={("1", "LATE"): "counted"})
    found = Counts(times_used_by_coupon={"SPRING": 3, "LATE": 1}, coupon_usages={("1", "LATE"): "reversed"})

    assert differences(sent, sent) == []
    assert differences(sent, found) == [
        "times used by coupon: SPRING: sent 2, found 3",
        "coupon usages: 1/LATE: sent counted, found reversed",
    ]


def test_the_sample_orders_can_all_be_published() -> None:
    samples = Path(__file__).parents[2] / "docs" / "samples"
    for topic, file in (("order.placed", "orders.jsonl"), ("order.canceled", "cancellations.jsonl")):
        command = [sys.executable, "-m", "counterfoil", "publish", topic, str(samples / file), "--dry-run"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
