"""Secrets that servers' headers and variables refer to, read where they are used: from the environment and from files.

A file is read again at most once a second, so that a changed one is seen without a restart.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from gateway.errors import UpstreamUnreachable
from gateway.model.references import PREFIX, Reference, filled, filled_value
from gateway.model.server import ServerSpec

_MAX_BYTES = 64 << 10
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


class References:
    """Reads what references lead to; `folder` is the one that files may be in."""

    def __init__(self, environment: Mapping[str, str], folder: Path) -> None:
        self._environment = environment
        self._folder = folder

    def resolved(self, spec: ServerSpec) -> ServerSpec:
        """The specification with its secrets. Raises UpstreamUnreachable, which says what is missing."""

        value_of = self._values(spec.name)
        return replace(spec, headers=filled(spec.headers, value_of), env=filled(spec.env, value_of))

    def argument(self, server: str, value: Any) -> Any:
        """What an argument of a server's tool refers to. Raises UpstreamUnreachable, which says what is missing."""
        return filled_value(value, self._values(server))

    def _values(self, server: str) -> Callable[[Reference], str]:
        def value_of(reference: Reference) -> str:
            value, why = self._variable(reference) if reference.kind == "env" else self._file(reference)
            if value is None:
                raise UpstreamUnreachable(server, f"Server {server!r} is not connected to: {why}.")
            return value

        return value_of

    def _variable(self, reference: Reference) -> tuple[str | None, str]:
        value = self._environment.get(reference.name) if reference.name.startswith(PREFIX) else None
        return _fit(value), f"the variable {reference.name}, which it refers to, is not set at the gateway, or no text"

    def _file(self, reference: Reference) -> tuple[str | None, str]:
        why = f"the file {reference.name}, which it refers to, can't be read, or holds no line of text"
        try:
            path = Path(os.path.realpath(reference.name))
            if not path.is_relative_to(os.path.realpath(self._folder)):
                return None, f"the file {reference.name}, which it refers to, leads out of {self._folder}"
            if not path.is_file():  # a pipe would hold the loop
                return None, why
            with path.open("rb") as file:
                data = file.read(_MAX_BYTES + 1)
            return _fit(data.decode().rstrip("\r\n") if len(data) <= _MAX_BYTES else None), why
        except (OSError, ValueError):
            return None, why


def _fit(value: str | None) -> str | None:
    """A value that can be a header's: one line, not empty."""
    return value if value and not _CONTROL.search(value) else None
