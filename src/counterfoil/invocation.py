"""How a person calls us from where they stand: for the commands that we suggest."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path


def command() -> str:
    """`counterfoil`, or the path to it from the current folder, as it was called."""
    called = Path(sys.argv[0])
    if called.name != "counterfoil":  # python -m counterfoil
        return "counterfoil"
    with contextlib.suppress(ValueError):
        return str(called.absolute().relative_to(Path.cwd()))
    return str(called)
