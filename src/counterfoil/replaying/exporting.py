"""The command `export`: records of Kafka into a file that `replay --file` reads."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from counterfoil.errors import InvalidSetting
from counterfoil.replaying.display import Display, warn
from counterfoil.replaying.exported import LinesFile, line_of
from counterfoil.replaying.kafka_log import KafkaLog
from counterfoil.replaying.running import check_window, close, interruptible, topics_of
from counterfoil.replaying.windows import Window
from counterfoil.settings import Settings


def run_export(
    settings: Settings,
    topics: Sequence[str],
    window: Window,
    output: Path | None,
    print_json: Callable[[object], None] | None,
) -> int:
    """Write records as JSON lines to a file, or to standard output; 0 when done, 130 after Ctrl-C.

    The summary goes to `print_json` where that is given, else to standard error. Raises InvalidSetting or
    DependencyUnreachable.
    """
    check_window(window, len(topics))
    if print_json is not None and output is None:
        raise InvalidSetting("--json: goes with --output, as the records themselves go to standard output")
    try:
        with Display("export") as display:
            export = Export(settings, topics_of(settings, topics), window, display)
            code = interruptible(export.run(output))
    except BrokenPipeError:  # a reader that has had enough is no failure
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        raise InvalidSetting(f"{output or 'standard output'}: {error.strerror}") from None
    if code is not None:
        warn(
            f"stopped at {display.how_far}; "
            + ("no file was written" if output else "what is out is whole lines")
        )
        return code
    if print_json is not None:
        print_json(export.summary | {"output": str(output)})
    else:
        for note in export.notes:
            warn(f"note: {note}")
        read = sum(export.written.values())
        print(f"{read:,} records exported in {export.seconds:.1f} s", file=sys.stderr)
    return 0


class Export:
    """Some records on their way into a file; `written` counts them by topic."""

    def __init__(self, settings: Settings, topics: Sequence[str], window: Window, display: Display) -> None:
        self._log = KafkaLog(settings, topics, window, tell=display.tell)
        self._window = window
        self._display = display
        self.written: Counter[str] = Counter(dict.fromkeys(topics, 0))
        self.seconds = 0.0

    @property
    def notes(self) -> list[str]:
        """What a person should know of it."""
        return self._log.notes

    @property
    def summary(self) -> dict[str, Any]:
        """As `--json` prints it."""
        return {
            "window": self._window.as_dict(),
            "topics": [{"topic": topic, "records": count} for topic, count in self.written.items()],
            "records": sum(self.written.values()),
            "notes": self.notes,
            "seconds": round(self.seconds, 3),
        }

    async def run(self, output: Path | None) -> None:
        """Write them all. Raises InvalidSetting or DependencyUnreachable; then there is no file."""
        started = time.monotonic()
        with _lines_of(output) as file:
            try:
                await self._write(file)
            finally:
                await close(self._log)
        self.seconds = time.monotonic() - started

    async def _write(self, file: IO[bytes]) -> None:
        stretches = await self._log.open()
        self._display.begin(stretches, {})
        clusters = {stretch.partition: stretch.cluster_id for stretch in stretches}
        async for read in self._log.read({stretch.partition: stretch.end_offset for stretch in stretches}):
            if read.records:
                cluster_id = clusters[read.partition]
                file.write(b"".join(line_of(cluster_id, record) + b"\n" for record in read.records))
                self.written[read.partition.topic] += len(read.records)
            self._display.moved({read.partition: read.next_offset})


@contextlib.contextmanager
def _lines_of(output: Path | None) -> Iterator[IO[bytes]]:
    if output is None:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    with LinesFile(output) as file:
        yield file
