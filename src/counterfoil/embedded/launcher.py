"""Become a server that does not outlive its parent: run as a script by `process.py`, imported by nobody.

Arguments: the parent's pid, the signal its death sends (0: none), `uid:gid` to become or `-`, a command.
Standard library only: it runs without site-packages, so that it starts quickly and wherever Python does.
"""

import ctypes
import os
import sys

PR_SET_PDEATHSIG = 1


def main(parent: int, death_signal: int, account: str, command: list[str]) -> None:
    """Drop rights, tie our life to the parent's, and turn into `command`."""
    os.umask(0o077)
    if account != "-":
        _become(*(int(part) for part in account.split(":")))
    if death_signal:
        _die_with_parent(parent, death_signal)
    os.execv(command[0], command)  # noqa: S606 - this is what the script is for


def _become(uid: int, gid: int) -> None:
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)


def _die_with_parent(parent: int, death_signal: int) -> None:
    # After the change of user, which clears it; exec keeps it.
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, death_signal, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent:  # it died before the signal was set
        raise SystemExit("the parent is gone")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4:])
