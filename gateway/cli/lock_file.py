"""A lock file: the digests of all tools of some servers, for version control. Written, read, and compared.

`{"format": "mcp-gateway tool lock", "version": 1, "servers": {SERVER: {TOOL: {PART: "sha256:…"}}}}`, a line per digest,
in the order of names, so that two branches merge. A part is one of a tool's definition (RFC 8785, SHA-256).
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FORMAT, VERSION = "mcp-gateway tool lock", 1
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")

Tools = Mapping[str, Mapping[str, str]]
"""The digests of one server, by tool and part."""


class Unreadable(Exception):
    """The file can't be taken; the text says why, and what to do."""


@dataclass(frozen=True, slots=True)
class Drift:
    """One way in which what is offered differs from the file; `tool` is None for a whole server."""

    server: str
    tool: str | None
    what: str
    """`changed`, `new` or `gone`."""
    parts: tuple[str, ...] = ()


def read(file: Path) -> dict[str, Tools]:
    """The servers of a lock file. Raises Unreadable."""
    try:
        text = file.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise Unreadable(f"There is no file {file}; `lock write {file}` makes it.") from None
    except UnicodeDecodeError:
        raise Unreadable(f"{file} is not UTF-8, so it is no lock file.") from None
    except OSError as error:
        raise Unreadable(f"{file} can't be read: {error.strerror}.") from None
    try:
        value = json.loads(text, object_pairs_hook=_once)
    except _Twice as twice:
        raise Unreadable(f"{file} has {twice.args[0]!r} twice in one place. {_anew(file)}") from None
    except (ValueError, RecursionError) as error:
        at = f" (line {error.lineno})" if isinstance(error, json.JSONDecodeError) else ""
        raise Unreadable(
            f"{file} is not whole JSON{at}: it was cut off, or not merged to its end. {_anew(file)}"
        ) from None
    if not isinstance(value, dict) or value.get("format") != FORMAT:
        raise Unreadable(f"{file} is no lock file; `lock write` makes one.")
    version = value.get("version")
    if isinstance(version, bool) or version != VERSION:
        shown = json.dumps(version)[:20]
        raise Unreadable(
            f"{file} is of version {shown}, and this mcp-gateway knows version {VERSION}: use the one that wrote it, "
            "or write it anew."
        )
    servers: Any = value.get("servers")
    for place in _wrong(servers):
        raise Unreadable(f"{file}: {place}. {_anew(file)}")
    return dict(servers)


def write(file: Path, servers: Mapping[str, Tools]) -> None:
    """Put a lock file in the place of another, as a whole or not at all. Raises Unreadable."""
    value = {"format": FORMAT, "version": VERSION, "servers": servers}
    text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    place = file.resolve()  # what a link leads to
    whole = Path(f"{place}.{os.getpid()}.new")
    try:
        if place.is_dir():
            raise IsADirectoryError(0, "it is a folder")
        whole.write_text(text, encoding="utf-8")
        if place.exists():
            whole.chmod(place.stat().st_mode & 0o777)
        whole.replace(place)
    except OSError as error:
        whole.unlink(missing_ok=True)
        raise Unreadable(f"{file} can't be written: {error.strerror}.") from None


def compare(locked: Mapping[str, Tools], offered: Mapping[str, Tools]) -> list[Drift]:
    """How what is offered differs from what is locked."""
    return [drift for name in sorted({*locked, *offered}) for drift in _of_server(name, locked, offered)]


def _of_server(name: str, locked: Mapping[str, Tools], offered: Mapping[str, Tools]) -> Iterator[Drift]:
    before, now = locked.get(name), offered.get(name)
    if before is None or now is None:
        yield Drift(name, None, "new" if before is None else "gone")
        return
    for tool in sorted({*before, *now}):
        old, new = before.get(tool), now.get(tool)
        if old is None or new is None:
            yield Drift(name, tool, "new" if old is None else "gone")
        elif parts := tuple(part for part in sorted({*old, *new}) if old.get(part) != new.get(part)):
            yield Drift(name, tool, "changed", parts)


class _Twice(Exception):
    """A name that stands twice in one object."""


def _once(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise _Twice(name[:100])
        found[name] = value
    return found


def _wrong(servers: Any) -> Iterator[str]:
    """The first place that has another shape than it should."""
    if not isinstance(servers, dict):
        yield "'servers' is no object"
        return
    for server, tools in servers.items():
        if not isinstance(tools, dict):
            yield f"server {server[:100]!r} is no object of tools"
            return
        for tool, parts in tools.items():
            digests = parts.values() if isinstance(parts, dict) else (None,)
            if not all(isinstance(each, str) and _DIGEST.fullmatch(each) for each in digests):
                yield f"tool {tool[:100]!r} of server {server[:100]!r} has something else than digests"
                return


def _anew(file: Path) -> str:
    return f"Take it from version control, or write it anew: `lock write {file} --force`."
