"""A replay by several processes: each is a replay of its share of the partitions, and tells the first how it goes."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import re
import signal
import sys
import threading
import time
from array import array
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, cast

from counterfoil.errors import CounterfoilError, DependencyUnreachable, HaltingFailure, InvalidSetting
from counterfoil.replaying.display import Display
from counterfoil.replaying.report import Report
from counterfoil.replaying.sources import Stretch
from counterfoil.replaying.windows import Share

if TYPE_CHECKING:
    from counterfoil.replaying.running import Logs, Request

ENDS_WITHIN_S = 1.5
"""How long a process that is asked to end may take."""

SAME_WORDS_S = 10.0
"""How long a line is not told again by another process, whatever its figures."""

ERRORS: Mapping[int, type[CounterfoilError]] = {2: InvalidSetting, 3: DependencyUnreachable}
"""Exit code of a process → what ends the whole replay."""


# One of several: it tells events on standard output, as JSON lists of a name and a value. On standard input it hears
# a line when all are done, and the end when whoever has asked for it is gone.


class PartDisplay(Display):
    """Shows nothing itself, and tells whoever has asked for this part; ends with them however they end."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._all_done = asyncio.Event()
        threading.Thread(target=self._listen, name="parent", daemon=True).start()

    def due(self, records: int) -> None:
        """So many records more are to be done."""
        super().due(records)
        _say("due", records)

    def did(self, records: int) -> None:
        """So many more are done."""
        self.done += records
        _say("did", records)

    def goes_on(self, replays: Sequence[int], since: datetime) -> None:
        """It goes on with one that was broken off."""
        _say("goes_on", [*replays, since])

    def tell(self, line: str) -> None:
        """A line that stays."""
        _say("tell", line)

    async def others_are_done(self) -> None:
        """Wait for the other parts: what is finished is not gone on with, and all of them are to be."""
        self._loop = asyncio.get_running_loop()
        _say("done", None)
        await self._all_done.wait()

    def report(self, report: Report) -> None:
        """What this part came to."""
        rows = [(*whose, base64.b64encode(numbers).decode()) for whose, numbers in report.identities.items()]
        _say("report", {**report.as_dict(), "identities": rows})

    def _listen(self) -> None:
        while os.read(sys.stdin.fileno(), 1):
            self._loop.call_soon_threadsafe(self._all_done.set)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(2 * ENDS_WITHIN_S)
        os._exit(128 + signal.SIGTERM)


def _say(event: str, value: object) -> None:
    with contextlib.suppress(BrokenPipeError):  # nobody hears it: we are about to end
        print(json.dumps([event, value], default=_plain, ensure_ascii=False), flush=True)


def _plain(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)


# The first process: it starts the others, shows what they do as one, and puts together what they came to.


class SharedReplay:
    """One check, or one replay that writes, by several processes; `report` is what all of them came to."""

    def __init__(self, request: Request, logs: Logs, display: Display) -> None:
        self._request = request
        self._logs = logs
        self._display = display
        self._beginning: set[int] = set()
        self._working: set[int] = set()
        self._parts: list[Part] = []
        self._reports: dict[int, dict[str, Any]] = {}
        self._resumed: list[tuple[int, datetime]] = []
        self._told: dict[str, tuple[int, float]] = {}
        self._began: float | None = None
        self.report = Report(request.mode, request.window.as_dict())

    async def run(self) -> None:
        """Let all of them read their shares, and end them all where one fails.

        Raises what a replay by one process raises.
        """
        try:
            shares = await self._shares()
            self._beginning = {share.number for share in shares}
            self._working = {*self._beginning}
            async with asyncio.TaskGroup() as parts:
                for index, share in enumerate(shares):
                    parts.create_task(self._follow(share, _rate(self._request.max_rate, index, len(shares))))
        except ExceptionGroup as errors:
            raise self._explained(errors.exceptions[0]) from None
        except DependencyUnreachable as error:
            raise self._explained(error) from error
        self._join()

    def how_it_was_left(self) -> str:
        """Where it was when it was broken off, and how to go on."""
        if self._began is None:
            return "nothing was written"
        if self._request.mode == "check":
            return f"stopped at {self._display.how_far}; nothing was written"
        return f"stopped at {self._display.how_far}; the same command goes on from there"

    def _explained(self, error: Exception) -> Exception:
        if isinstance(error, DependencyUnreachable):
            return DependencyUnreachable(f"{error}; {self.how_it_was_left()}")
        return error

    async def _shares(self) -> list[Share]:
        """Those in which there is anything to read; at least one."""
        (source,) = await self._logs.sources()
        try:
            stretches = await source.open()
        finally:
            self.report.notes += source.notes
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(source.close(), ENDS_WITHIN_S)
        if self._request.mode == "apply":  # each of them has an account
            self.report.take_topics({stretch.partition.topic for stretch in stretches})
        count = self._request.processes
        shares = [Share(number, count) for number in range(count)]
        return [share for share in shares if any(map(_has_any, share.of(stretches)))] or shares[:1]

    async def _follow(self, share: Share, rate: int | None) -> None:
        async with part(arguments(self._request, share, rate)) as one:
            self._parts.append(one)
            async for event in one.events():
                self._hear(share.number, event)
            if share.number not in self._reports:
                raise await one.fault()
            await one.ended()

    def _hear(self, number: int, event: Sequence[Any]) -> None:
        match event:
            case "due", records:
                self._began = self._began or time.monotonic()
                self._display.due(records)
            case "did", records:
                self._display.did(records)
                self._has_begun(number)
            case "goes_on", (replay_id, since):
                self._resumed.append((replay_id, datetime.fromisoformat(since)))
                self._has_begun(number)
            case "tell", line:
                self._tell_once(number, line)
            case "done", _:
                self._done(number)
            case "report", report:
                self._reports[number] = report
                self._done(number)

    def _has_begun(self, number: int) -> None:
        """One is under way; with the last of them it is known which are gone on with."""
        if self._beginning:
            self._beginning.discard(number)
            if not self._beginning and self._resumed:
                self._display.goes_on(
                    sorted(replay_id for replay_id, _ in self._resumed), min(at for _, at in self._resumed)
                )

    def _done(self, number: int) -> None:
        """One has nothing left to do; the last of them lets all of them finish."""
        self._has_begun(number)
        if self._working:
            self._working.discard(number)
            if not self._working:
                self.report.seconds = time.monotonic() - (self._began or time.monotonic())
                for one in self._parts:
                    one.let_finish()

    def _tell_once(self, number: int, line: str) -> None:
        """Tell it, unless another one has just said the same with other figures."""
        words = re.sub(r"\d+", "0", line)
        teller, at = self._told.get(words, (number, 0.0))
        if teller == number or time.monotonic() - at > SAME_WORDS_S:
            self._told[words] = number, time.monotonic()
            self._display.tell(line)

    def _join(self) -> None:
        for _, report in sorted(self._reports.items()):
            identities = [(topic, verdict, _numbers(text)) for topic, verdict, text in report["identities"]]
            self.report.take_part(report, identities)
        self.report.put_in_order(self._request.limit)


def _has_any(stretch: Stretch) -> bool:
    return stretch.first_offset < stretch.end_offset


def _rate(all_of_them: int | None, index: int, count: int) -> int | None:
    """The part of a rate that one of so many may have; together they are it."""
    if all_of_them is None:
        return None
    return all_of_them * (index + 1) // count - all_of_them * index // count


def _numbers(text: str) -> array[int]:
    return array("Q", base64.b64decode(text))


def arguments(request: Request, share: Share, max_rate: int | None) -> list[str]:
    """The words of the command that ask for a share of it."""
    window = request.window
    options = {
        "--share": f"{share.number}/{share.count}",
        "--mode": request.mode,
        "--limit": request.limit,
        "--max-rate": max_rate,
        "--from": window.since and window.since.isoformat(),
        "--to": window.until and window.until.isoformat(),
        "--from-offset": window.first_offset,
        "--to-offset": window.end_offset,
    }
    flags = {
        "--all": request.everything,
        "--overwrite": request.overwrite,
        "--with-alerts": request.with_alerts,
        "--restart": request.restart,
    }
    return [
        "replay",
        *(f"{name}={value}" for name, value in options.items() if value is not None),
        *(f"--partition={number}" for number in sorted(window.partitions or ())),
        *(name for name, given in flags.items() if given),
        "--",
        *request.topics,
    ]


class Part:
    """One of the processes."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._stdin = cast("asyncio.StreamWriter", process.stdin)
        self._stdout = cast("asyncio.StreamReader", process.stdout)
        self._stderr = cast("asyncio.StreamReader", process.stderr)

    async def events(self) -> AsyncIterator[list[Any]]:
        """What it tells, to its end."""
        async for line in self._stdout:
            yield json.loads(line)

    def let_finish(self) -> None:
        """Say that all of them are done."""
        if not self._stdin.is_closing():
            self._stdin.write(b"\n")

    async def fault(self) -> CounterfoilError:
        """Why it has ended without a report."""
        said = (await self._stderr.read()).decode(errors="replace").splitlines()
        code = await self._process.wait()
        if code in ERRORS or (code == 1 and len(said) == 1):
            return ERRORS.get(code, HaltingFailure)(said[-1].removeprefix("counterfoil: "))
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return HaltingFailure(f"a process of it has ended ({how}): {said[-1] if said else 'it said nothing'}")

    async def ended(self) -> None:
        """Wait until it has."""
        await self._process.wait()

    async def end(self) -> None:
        """Ask it to end, and end it where it does not."""
        for stop in (self._process.terminate, self._process.kill):
            with contextlib.suppress(ProcessLookupError, TimeoutError):
                stop()
                await asyncio.wait_for(self._process.wait(), ENDS_WITHIN_S)
                return


@contextlib.asynccontextmanager
async def part(words: Sequence[str]) -> AsyncIterator[Part]:
    """A `counterfoil` of our own settings and our own path; it has ended when this is left."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "counterfoil", *words),
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PYTHONSAFEPATH": "1"},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        limit=sys.maxsize // 4,  # a report is one line
        start_new_session=True,  # a terminal's Ctrl-C reaches only us
    )
    one = Part(process)
    try:
        yield one
    finally:
        if process.returncode is None:
            await one.end()
