"""Standard output as a page that is read from its top."""

from __future__ import annotations

import os
import sys

from rich.console import Console


class Page(Console):
    """A reader that has had enough (`| head`) is no failure, and no finding."""

    def on_broken_pipe(self) -> None:
        """Say nothing more."""
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
