"""What the demo shows: one live line on a terminal, plain lines when piped."""

from __future__ import annotations

import time
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn
from rich.table import Table
from rich.text import Text

PLAIN_LINE_EVERY_S = 1.0


class Display:
    """Steps with their time since the start, and how far the counting is."""

    def __init__(self) -> None:
        self.console = Console(highlight=False, soft_wrap=True)
        self._started = time.monotonic()
        self._last_line = 0.0
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            TextColumn("{task.fields[said]}"),
            console=self.console,
            transient=True,
            disable=not self.console.is_terminal,
        )
        self._task = self._progress.add_task("starting", total=None, said="")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.end_progress()

    def end_progress(self) -> None:
        """Take the live line away."""
        self._progress.stop()

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._started

    def step(self, text: str, *, style: str = "") -> None:
        """A line that stays."""
        self.console.print(Text(f"{self.elapsed:5.1f} s  {text}", style))

    def counting(self, sent: int, counted: int, planned: int) -> None:
        """How many records are published and how many are accounted for."""
        said = f"sent {sent:,} · accounted for {counted:,} of {planned:,}"
        self._progress.update(self._task, description="counting", completed=counted, total=planned, said=said)
        if not self.console.is_terminal and time.monotonic() - self._last_line >= PLAIN_LINE_EVERY_S:
            self._last_line = time.monotonic()
            self.step(said)

    def table(self, title: str, rows: list[tuple[str, object, str]]) -> None:
        """Rows of name, number and what it means."""
        table = Table(title=title, title_justify="left", show_header=False, title_style="bold")
        table.add_column()
        table.add_column(justify="right")
        table.add_column()
        for name, number, meaning in rows:
            table.add_row(name, f"{number:,}" if isinstance(number, int) else str(number), meaning)
        self.console.print(table)

    def plain(self, text: str) -> None:
        """Text as it is."""
        self.console.print(text, markup=False)
