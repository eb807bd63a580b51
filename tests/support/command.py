"""`counterfoil` commands as processes: exit code and output."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import NamedTuple

from counterfoil.embedded.process import KEPT_VARIABLES
from support.worker import python_path


class Ended(NamedTuple):
    """How a command ended, and what it said."""

    code: int
    out: str
    err: str


async def counterfoil(*arguments: str, within: float = 60, **settings: object) -> Ended:
    """Run a command with these settings (lower case, without prefix) and no others."""
    environment = {name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ}
    environment |= {f"COUNTERFOIL_{name.upper()}": str(value) for name, value in settings.items()}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "counterfoil", *arguments),
        cwd="/",
        env=environment | {"PYTHONPATH": python_path()},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), within)
    assert process.returncode is not None
    return Ended(process.returncode, out.decode(), err.decode())
