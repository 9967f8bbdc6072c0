"""Taking a port to listen on, and naming the process that has it already (on Linux; elsewhere nobody is named)."""

from __future__ import annotations

import errno
import os
import socket
from contextlib import suppress
from pathlib import Path

from gateway.errors import SettingsError

BACKLOG = 1024
"""Connections that may wait to be accepted; one more is dropped, and its client tries again after a second."""

_LISTEN = "0A"  # the state in /proc/net/tcp
_SHOWN = 120


def check_free(setting: str, host: str, port: int) -> None:
    """Refuse a port that something listens on; `setting` names where it comes from. Raises SettingsError."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise SettingsError(f"{setting}: {refused(host, port, error)}") from None


def listen(setting: str, host: str, port: int, backlog: int) -> socket.socket:
    """Return a listening socket that children may inherit. Raises SettingsError when the address is not to be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(backlog)
    except OSError as error:
        listener.close()
        raise SettingsError(f"{setting}: {refused(host, port, error)}") from None
    listener.set_inheritable(True)
    return listener


def refused(host: str, port: int, error: OSError) -> str:
    """Say why an address can't be listened on, and who has it where the system tells."""
    said = f"can't listen on {host}:{port}: {error.strerror}"
    if error.errno == errno.EADDRINUSE and (found := owner(port)) is not None:
        pid, command = found
        said += f" by process {pid} ({command})"
    return f"{said}."


def owner(port: int) -> tuple[int, str] | None:
    """The process id and the command line of the process that listens on a TCP port here; None if unseen."""
    sockets = {f"socket:[{inode}]" for inode in _listening(port)}
    if not sockets:
        return None
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # another user's, or gone meanwhile
            for descriptor in (folder / "fd").iterdir():
                if os.readlink(descriptor) in sockets:
                    command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
                    return int(folder.name), command[:_SHOWN]
    return None


def _listening(port: int) -> list[str]:
    """The inodes of the sockets that listen on a port."""
    found = []
    for table in ("tcp", "tcp6"):
        with suppress(OSError):
            for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == _LISTEN and int(fields[1].rpartition(":")[2], 16) == port:
                    found.append(fields[9])
    return found
