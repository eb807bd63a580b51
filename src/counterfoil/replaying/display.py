"""What a replay shows: a bar with rate and time left, or a line every 10 s, and a table at the end."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Self

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.measure import Measurement
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from counterfoil.ingest.partitions import Partition
from counterfoil.replaying.report import COUNTS, MORE_COUNTS, Report
from counterfoil.replaying.sources import Stretch
from counterfoil.telemetry.logging import printable
from counterfoil.telemetry.page import Page

LINE_EVERY_S = 10.0
BAR_WIDTH = 20

PICTURE = (
    ("applied", "green"),
    ("already_there", "bright_black"),
    ("unread", "blue"),
    ("differs", "yellow"),
    ("missing", "red"),
    ("malformed", "magenta"),
)
"""What the bar of a topic is made of, and in which colour: the share of each among its records."""

COLUMNS = {
    "already_there": "there",
    "not_parked": "not parked",
    "unread": "not read",
    "overwritten": "put right",
}


class Display:
    """Tells on standard error how far it is, and at the end on standard output what came of it."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._console = Console(stderr=True, highlight=False, soft_wrap=True)
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            _Count(),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )
        self._task = self._bar.add_task(name, total=None)
        self._at: dict[tuple[str, Partition], int] = {}
        self._cluster = ""
        self._began = self._last_line = time.monotonic()
        self.done = 0
        self.total = 0

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def begin(self, stretches: Iterable[Stretch], at: Mapping[Partition, int]) -> None:
        """So much is to be done; it stands here."""
        records = 0
        for stretch in stretches:
            self._cluster = stretch.cluster_id
            start = at.get(stretch.partition, stretch.first_offset)
            self._at[stretch.cluster_id, stretch.partition] = start
            records += max(0, stretch.end_offset - start)
        self.due(records)

    def moved(self, offsets: Mapping[Partition, int]) -> None:
        """Some partitions of the cluster of which was last begun stand here now."""
        records = 0
        for partition, offset in offsets.items():
            place = self._cluster, partition
            records += max(0, offset - self._at.get(place, offset))
            self._at[place] = max(offset, self._at.get(place, offset))
        self.did(records)

    def due(self, records: int) -> None:
        """So many records more are to be done."""
        if not self.total:
            self._began = time.monotonic()
        self.total += records
        self._bar.update(self._task, total=self.total)

    def did(self, records: int) -> None:
        """So many more are done."""
        self.done += records
        self._bar.update(self._task, completed=self.done)
        now = time.monotonic()
        if not self._console.is_terminal and now - self._last_line >= LINE_EVERY_S:
            self._last_line = now
            self.tell(self.how_far)

    @property
    def how_far(self) -> str:
        """Records of all, their rate, and the time left."""
        seconds = max(time.monotonic() - self._began, 1e-6)
        rate = self.done / seconds
        left = f", {_duration((self.total - self.done) / rate)} left" if rate > 1 else ""
        share = f" ({self.done / self.total:.0%})" if self.total else ""
        return f"{self.done:,} of {self.total:,}{share}, {rate:,.0f}/s{left}"

    def goes_on(self, replays: Sequence[int], since: datetime) -> None:
        """It goes on with one that was broken off, or with one of each process."""
        several = f"replays {', '.join(map(str, replays))}" if len(replays) > 1 else f"replay {replays[0]}"
        self.tell(
            f"goes on with {several} of {since:%Y-%m-%d %H:%M:%S}Z, {self.total:,} to go; --restart begins anew"
        )

    async def others_are_done(self) -> None:
        """Wait for those that do a part of the same replay; alone there are none."""

    def tell(self, line: str) -> None:
        """A line that stays."""
        self._console.print(Text(f"{self._name}: {printable(line)}"))


class _Count(ProgressColumn):
    """Records of all, and how many in a second."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed or 0
        total = "?" if task.total is None else f"{int(task.total):,}"
        return Text(f"{int(task.completed):,} of {total} · {speed:,.0f}/s ·")


def show(report: Report) -> None:
    """Print a report: a table of topics, with a picture of each, and what was found."""
    console = Page(highlight=False)
    names = [*COUNTS, *(name for name in MORE_COUNTS if report.totals[name] and name in COLUMNS)]
    if report.mode == "apply":
        names = [name for name in names if name not in ("missing", "differs")]
    else:
        names.remove("applied")
    _print_whole(console, _topics(report, names))
    _print_rows(console, "Missing", report.totals["missing"], [_row(row) for row in report.missing])
    _print_rows(
        console, "Differs", report.totals["differs"], [_row(row) | _contents(row) for row in report.differs]
    )
    if report.kinds:
        total = sum(kind["records"] for kind in report.kinds)
        _print_rows(console, "Malformed, by kind", total, report.kinds, of_all=False)
    lost = [_row(row) | {"kind": row["kind"]} for row in report.malformed if not row["parked"]]
    _print_rows(console, "Malformed and not parked", report.totals["not_parked"], lost)
    for note in report.notes:
        console.print(Text(f"note: {printable(note)}"), soft_wrap=True)
    console.print(Text(summary(report)), soft_wrap=True)


def _print_whole(console: Console, table: Table) -> None:
    """Print a table at the width that its numbers need: one that is cut off is another one."""
    topics = table.columns[0]
    topics.max_width = BAR_WIDTH  # names may be folded
    needed = Measurement.get(console, console.options.update(width=10_000), table).minimum
    topics.max_width = None
    Page(highlight=False, width=max(console.width, needed)).print(table)


def summary(report: Report) -> str:
    """The last line."""
    totals = report.totals
    if not totals["read"]:
        return "there is no record in this window"
    rate = f"in {_duration(report.seconds)} ({report.rate:,.0f}/s)"
    if report.mode == "apply":
        put_right = f", {totals['overwritten']:,} rows put right" if totals["overwritten"] else ""
        released = f", {totals['released']:,} dead letters resolved" if totals["released"] else ""
        return (
            f"read {totals['read']:,} records {rate}: {totals['applied']:,} applied, "
            f"{totals['already_there']:,} there already, {totals['malformed']:,} malformed{put_right}{released}"
        )
    found = ", ".join(
        f"{totals[name]:,} {words}"
        for name, words in (("missing", "missing"), ("differs", "differ"), ("not_parked", "not parked"))
        if totals[name]
    )
    mended = {"missing": "--mode apply", "not_parked": "--mode apply", "differs": "--mode apply --overwrite"}
    how = next((option for name, option in reversed(mended.items()) if totals[name]), "")
    verdict = f"{found}; {how} puts that right" if found else "everything is there"
    return f"checked {totals['read']:,} records {rate}: {verdict}"


def _topics(report: Report, names: Sequence[str]) -> Table:
    several = len(report.topics) > 1
    title = f"Replay ({report.mode})"
    table = Table(
        title=title,
        title_justify="left",
        title_style="bold",
        box=SIMPLE_HEAD,
        show_footer=several,
        pad_edge=False,
        padding=(0, 0, 0, 1),
    )
    table.add_column("topic", "all", overflow="fold", min_width=BAR_WIDTH)
    for name in names:
        words = COLUMNS.get(name, name).replace(" ", "\n")
        table.add_column(words, f"{report.totals[name]:,}", justify="right", no_wrap=True, vertical="bottom")
    for topic in report.topics:
        shown = Text(printable(topic["topic"])).append("\n").append_text(_picture(topic))
        table.add_row(shown, *(_number(topic[name]) for name in names))
    return table


def _picture(topic: Mapping[str, Any]) -> Text:
    """A bar of the shares; what there is any of has a place in it, be it ever so small."""
    text = Text()
    parts = [(style, topic[name]) for name, style in PICTURE if topic[name]]
    whole = sum(count for _, count in parts)
    room = BAR_WIDTH - len(parts)
    left = room
    for style, count in parts:
        marks = min(left, round(room * count / whole))
        left -= marks
        text.append("█" * (1 + marks), style)
    return text


def _number(count: int) -> Text:
    return Text(f"{count:,}", "" if count else "dim")


def _row(row: Mapping[str, Any]) -> dict[str, Any]:
    record = f"{row['topic']}/{row['partition']}@{row['offset']}"
    if "table" not in row:
        return {"record": record}
    return {"table": row["table"], "key": " · ".join(_text(part) for part in row["key"]), "record": record}


def _contents(row: Mapping[str, Any]) -> dict[str, Any]:
    stored, wanted = row["stored"] or {}, row["wanted"]
    lines = [f"{name}: {_text(stored.get(name))} → {_text(wanted.get(name))}" for name in row["columns"]]
    return {"stored → as the record says": "\n".join(lines)}


def _print_rows(
    console: Console, title: str, count: int, rows: Sequence[Mapping[str, Any]], *, of_all: bool = True
) -> None:
    if not rows:
        return
    shown = f"{len(rows):,} of {count:,}" if of_all and len(rows) < count else f"{count:,}"
    table = Table(title=f"{title} ({shown})", title_justify="left")
    for name in rows[0]:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*(Text(_lines(value)) for value in row.values()))
    console.print(table)


def _lines(value: object) -> str:
    return "\n".join(printable(line) for line in _text(value).split("\n"))


def _text(value: object) -> str:
    if value is None:
        return "none"
    return value.isoformat() if isinstance(value, datetime) else str(value)


def _duration(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 60 else str(timedelta(seconds=round(seconds)))


def warn(line: str) -> None:
    """One line on standard error."""
    print(f"counterfoil: {printable(line)}", file=sys.stderr)
