"""Servers as our children: a session of their own, a log file, and no life after ours."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeVar

from counterfoil.errors import DependencyUnreachable

T = TypeVar("T")

LAUNCHER = Path(__file__).with_name("launcher.py")

ON_LINUX: bool = sys.platform == "linux"
"""Where the kernel ends our children with us; elsewhere a shell does it, which waits on a pipe from us."""

KEPT_VARIABLES = ("PATH", "TMPDIR", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")
"""A server gets no other variable of ours: no secret, no PGDATA, no locale that it does not know."""


@dataclass(frozen=True)
class Account:
    """The user that a server runs as."""

    uid: int
    gid: int


class ServerProcess:
    """A running child; ended by `stop`, and by our own death however it comes."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        log: Path,
        death_signal: signal.Signals,
        account: Account | None = None,
        environment: dict[str, str] | None = None,
    ) -> None:
        launched = _launched(command, death_signal, account)
        with os.fdopen(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab") as output:
            self._popen = _from_lasting_thread(lambda: _popen(launched, output, environment or {}))
        self._watchdog = None if ON_LINUX else _watchdog(self._popen.pid, death_signal)
        self._log = log

    @property
    def pid(self) -> int:
        """The server's process id."""
        return self._popen.pid

    @property
    def exit_code(self) -> int | None:
        """How it ended (negative: by that signal); None while it runs."""
        return self._popen.poll()

    def wait(self, timeout: float) -> int | None:
        """Its exit code, or None when it still runs after `timeout` seconds."""
        try:
            return self._popen.wait(timeout)
        except subprocess.TimeoutExpired:
            return None

    def stop(self, *steps: tuple[signal.Signals, float]) -> None:
        """Send each signal in turn and give it that many seconds; SIGKILL is the last step, always."""
        try:
            for how, seconds in (*steps, (signal.SIGKILL, 10.0)):
                if self.exit_code is not None:
                    return
                self._popen.send_signal(how)
                self.wait(seconds)
        finally:
            self._end_watchdog()

    def _end_watchdog(self) -> None:
        if self._watchdog is not None:
            self._watchdog.kill()
            self._watchdog.communicate()
            self._watchdog = None


def run_to_end(
    command: Sequence[str], *, account: Account | None = None, stdin: str = "", timeout: float = 120
) -> str:
    """What a short command printed; raises DependencyUnreachable with its last line when it fails."""
    launched = _launched(command, signal.SIGKILL, account)
    done = _from_lasting_thread(
        lambda: subprocess.run(
            launched,
            input=stdin,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=timeout,
            check=False,
            cwd="/",
            env=_environment({}),
            start_new_session=True,
        )
    )
    if done.returncode != 0:
        raise DependencyUnreachable(f"{Path(command[0]).name} failed: {last_lines(done.stdout)}")
    return done.stdout


def lives(pid: int) -> bool:
    """Whether there is such a process, and it has not ended (one that nobody has waited for yet has)."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return not ON_LINUX or not _is_zombie(pid)


def _is_zombie(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return True  # gone since we asked
    return stat.rpartition(")")[2].split()[0] == "Z"


def last_lines(text: str, count: int = 5) -> str:
    """The last lines that say something, in one line."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return " | ".join(lines[-count:]) or "it said nothing"


def _launched(command: Sequence[str], death_signal: signal.Signals, account: Account | None) -> list[str]:
    user = f"{account.uid}:{account.gid}" if account else "-"
    sent = str(int(death_signal) if ON_LINUX else 0)
    return [sys.executable, "-I", "-S", str(LAUNCHER), str(os.getpid()), sent, user, *command]


def _popen(launched: list[str], output: IO[bytes], environment: dict[str, str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        launched,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        cwd="/",
        env=_environment(environment),
        start_new_session=True,  # a terminal's Ctrl-C reaches only us
    )


def _environment(more: dict[str, str]) -> dict[str, str]:
    kept = {name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ}
    return {**kept, "LC_ALL": "C", "TZ": "UTC", **more}


def _watchdog(pid: int, death_signal: signal.Signals) -> subprocess.Popen[bytes]:
    script = 'read -r _; kill -s "$0" "$1"'
    return subprocess.Popen(
        ["/bin/sh", "-c", script, death_signal.name.removeprefix("SIG"), str(pid)],
        stdin=subprocess.PIPE,  # its end of file is our end
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
        start_new_session=True,
    )


# The kernel takes the end of the *thread* that started a child for the parent's end. Children start from one
# thread that lives as long as the process, so that a server may be started from any thread.
_requests: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]]] = queue.SimpleQueue()
_thread_start = threading.Lock()
_thread_of: int | None = None


def _from_lasting_thread(make: Callable[[], T]) -> T:
    global _thread_of  # noqa: PLW0603 - one thread a process, made on first use and again after a fork
    with _thread_start:
        if _thread_of != os.getpid():
            threading.Thread(target=_serve_requests, name="embedded-children", daemon=True).start()
            _thread_of = os.getpid()
    answer: Future[T] = Future()
    _requests.put((make, answer))
    return answer.result()


def _serve_requests() -> None:
    while True:
        make, answer = _requests.get()
        try:
            answer.set_result(make())
        except BaseException as error:  # noqa: BLE001 - it is raised where the child was asked for
            answer.set_exception(error)
