"""`counterfoil run` as a real process, to be killed, paused and asked."""

from __future__ import annotations

import asyncio
import http.client
import os
import signal
import sys
from pathlib import Path

from counterfoil.embedded.ports import free_port
from counterfoil.embedded.process import ServerProcess
from support.waiting import eventually

LOG_TAIL = 6_000


class Worker:
    """One worker; `settings` are setting names in lower case without prefix, as in `consumer_group="a"`.

    `only` names its roles, all of them where it is None. It sees no other setting of this environment, and no `.env`.
    It does not outlive the test run.
    """

    def __init__(
        self,
        *,
        database_url: str,
        kafka_bootstrap_servers: str,
        log_file: Path,
        only: str | None = None,
        **settings: object,
    ) -> None:
        self._roles = [] if only is None else ["--only", only]
        self.log_file = log_file
        self.port = free_port()
        given = {
            "database_url": database_url,
            "kafka_bootstrap_servers": kafka_bootstrap_servers,
            "http_port": self.port,
            "log_format": "json",
            "log_level": "INFO",
            **settings,
        }
        self._environment = {f"COUNTERFOIL_{name.upper()}": str(value) for name, value in given.items()}
        self._process: ServerProcess | None = None

    async def start(self, *, ready_within: float | None = 60.0) -> None:
        """Run it, and wait until `/readyz` answers 200; with None, don't wait."""
        self._process = ServerProcess(
            [sys.executable, "-m", "counterfoil", "run", *self._roles],
            log=self.log_file,
            death_signal=signal.SIGKILL,
            environment={**self._environment, "PYTHONPATH": python_path()},
        )
        if ready_within is not None:
            await self.ready(ready_within)

    async def ready(self, deadline: float = 60.0) -> None:
        """Wait until `/readyz` answers 200; AssertionError with its log when it ends or takes longer."""
        try:
            await eventually(self._is_ready_or_gone, deadline=deadline, every=0.05)
        except AssertionError as error:
            raise AssertionError(f"the worker is not ready: {error}\n{self.log_tail()}") from None
        if self.exit_code is not None:
            raise AssertionError(f"the worker ended with exit code {self.exit_code}:\n{self.log_tail()}")

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._running().pid

    @property
    def exit_code(self) -> int | None:
        """How it ended (negative: by that signal), or None while it runs."""
        return self._running().exit_code

    def kill(self) -> None:
        """End it as a crash would, with SIGKILL; harmless when it has ended."""
        if self._process is not None:
            self._process.stop()

    async def terminate(self, deadline: float = 30.0) -> int:
        """Ask it to end with SIGTERM; its exit code, or AssertionError when it takes longer."""
        self.ask_to_end()
        return await self.ended(deadline)

    def ask_to_end(self) -> None:
        """Send it SIGTERM, and don't wait."""
        os.kill(self.pid, signal.SIGTERM)

    async def ended(self, deadline: float = 30.0) -> int:
        """Wait for its end; its exit code."""
        code = await asyncio.to_thread(self._running().wait, deadline)
        if code is None:
            raise AssertionError(f"the worker still runs after {deadline:g} s:\n{self.log_tail()}")
        return code

    def pause(self) -> None:
        """Let it hang (SIGSTOP): its connections stay open, it does nothing."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on after `pause`."""
        os.kill(self.pid, signal.SIGCONT)

    async def get(self, path: str, *, token: str | None = None, within: float = 5.0) -> tuple[int, str]:
        """Status and body of a GET; an OSError while it doesn't listen."""
        return await asyncio.to_thread(self._get, path, token, within)

    def log_tail(self) -> str:
        """The end of its log."""
        return self.log_file.read_text(encoding="utf-8", errors="replace")[-LOG_TAIL:]

    def _running(self) -> ServerProcess:
        assert self._process is not None, "the worker was not started"
        return self._process

    async def _is_ready_or_gone(self) -> bool:
        if self.exit_code is not None:
            return True
        try:
            status, _ = await self.get("/readyz", within=2.0)
        except (OSError, http.client.HTTPException):
            return False
        return status == 200

    def _get(self, path: str, token: str | None, timeout: float) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            connection.request("GET", path, headers={"Authorization": f"Bearer {token}"} if token else {})
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()


def python_path() -> str:
    """Ours, made absolute: the worker runs in another folder, where it finds no `.env`."""
    given = os.environ.get("PYTHONPATH", "")
    return os.pathsep.join(str(Path(part).absolute()) for part in given.split(os.pathsep) if part)
