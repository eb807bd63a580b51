"""A page whose reader has had enough."""

from __future__ import annotations

import subprocess
import sys

PRINTS = """
from counterfoil.telemetry.page import Page
page = Page()
for _ in range(300): page.print('a line', '.' * 500)
"""


def test_a_reader_that_leaves_early_is_no_failure() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", PRINTS], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline().startswith("a line")
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == ""
    assert process.wait(30) == 0
    process.stderr.close()
