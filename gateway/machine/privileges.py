"""What happens in a child process between fork and exec: it ends with its parent, and it gives up root.

Postgres refuses to run as root, so it runs as nobody, who must still reach a data directory and binaries below a
closed home (0700, as root's is). Two capabilities make that possible, in this order:

1. ``SECBIT_NO_SETUID_FIXUP`` is set, so that neither ``setuid`` nor ``access(2)`` clears the capabilities of a user
   who is not root. Without it ``initdb`` finds no ``postgres`` beside itself: it asks ``access(2)``.
2. The child becomes nobody and keeps ``CAP_DAC_OVERRIDE`` alone, ambient, so that exec hands it on.
3. The parent-death signal is set last: a change of user clears it.

Linux only, by ctypes; elsewhere the child becomes nobody without capabilities. The program `setpriv` does the same but
is not everywhere. Source: capabilities(7), prctl(2).
"""

from __future__ import annotations

import ctypes
import os
import signal
import stat
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

NOBODY = 65534

_PR_SET_PDEATHSIG = 1
_PR_SET_KEEPCAPS = 8
_PR_GET_SECUREBITS, _PR_SET_SECUREBITS = 27, 28
_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE = 47, 2
_NO_SETUID_FIXUP = 1 << 2
_CHOWN, _DAC_OVERRIDE, _SETGID, _SETUID, _SETPCAP = 0, 1, 6, 7, 8
_CAPABILITY_VERSION_3 = 0x20080522


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Sets(ctypes.Structure):
    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


def before_exec(dies_with_parent: signal.Signals | None = None, *, as_nobody: bool = False) -> Callable[[], None]:
    """Return the `preexec_fn` of a child: the signal it gets when its parent dies, and whether it gives up root.

    What fails in the child reaches the caller as `subprocess.SubprocessError`.
    """
    libc = _libc()

    def prepare() -> None:
        if as_nobody:
            _become_nobody(libc)
        if libc is not None and dies_with_parent is not None:
            libc.prctl(_PR_SET_PDEATHSIG, int(dies_with_parent), 0, 0, 0)

    return prepare


def obstacle(paths: Iterable[Path]) -> str | None:
    """Say why this process, being root, can't have nobody work in `paths`; None if it can."""
    held = _capabilities()
    if held is None:
        return None
    wanted = [_CHOWN, _SETGID, _SETUID]
    if any(_is_closed(path) for path in paths):
        wanted += [_DAC_OVERRIDE, _SETPCAP]
    if all(held >> number & 1 for number in wanted):
        return None
    return "this root may not become another user (it lacks capabilities)"


def _become_nobody(libc: Any) -> None:
    if libc is not None:
        bits = libc.prctl(_PR_GET_SECUREBITS, 0, 0, 0, 0)
        libc.prctl(_PR_SET_SECUREBITS, bits | _NO_SETUID_FIXUP, 0, 0, 0)  # refused without CAP_SETPCAP: see `obstacle`
        libc.prctl(_PR_SET_KEEPCAPS, 1, 0, 0, 0)
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY) if hasattr(os, "setresgid") else os.setgid(NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY) if hasattr(os, "setresuid") else os.setuid(NOBODY)
    if libc is not None:
        one = 1 << _DAC_OVERRIDE
        sets = (_Sets * 2)(_Sets(one, one, one), _Sets(0, 0, 0))
        if libc.capset(ctypes.byref(_Header(_CAPABILITY_VERSION_3, 0)), ctypes.byref(sets)) == 0:
            libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, _DAC_OVERRIDE, 0, 0)


def _libc() -> Any:
    """The C library of a Linux, else None; loaded before the fork, since a child must not."""
    return ctypes.CDLL(None) if sys.platform == "linux" else None


def _capabilities() -> int | None:
    """The effective capabilities of this process as a bit set; None where the system has none."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1], 16) for line in lines if line.startswith("CapEff:")), None)


def _is_closed(path: Path) -> bool:
    """Whether a folder above `path` lets only its owner and group in."""
    return any(not above.stat().st_mode & stat.S_IXOTH for above in path.absolute().parents if above.exists())
