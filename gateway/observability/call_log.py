"""One line per call, and its figures: who called what, where it went, how long it took. No argument, header or key.

A call leaves an entry and goes on. The entries become figures and lines a tenth of a second later, many at once: a line
by Python's logging takes 35 us, here 2, and the system is asked to write once. So a line comes a little late, with its
own time; a worker that is killed loses a tenth of a second of them. Who embeds the gateway and has handlers of its own
gets records of the logger `gateway.calls`, call by call.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection
from typing import Any, Protocol

from gateway.observability.logs import FIELDS, LineHandler, only_handler
from gateway.observability.metrics import Metrics

_TOGETHER_SECONDS = 0.1
_LEAST, _MOST = 5, 200  # lines that are formatted before the loop goes on with its work
_TURNS = 20  # in which all of them are: in a turn of a busy loop more than a few calls come to their end
_NAME = 128  # characters of a name
_WHAT = slice(1, 6)  # of an entry: what many have in common
_MAX_WRITTEN = 2_000
_MAX_WAITING = 20_000  # entries; more are dropped, and counted, while nobody reads standard error

calls = logging.getLogger("gateway.calls")
log = logging.getLogger("gateway.call_log")


class Reached:
    """What one call has come to so far; written where it is forwarded, read when it is logged.

    Without a constructor: one is made for each call, of which few write more than four of these.
    """

    named: str | None = None
    """The server that the tool's name leads to; None until it is found."""
    tool: str | None = None
    """That server's own name of the tool."""
    server: str | None = None
    """The server that the request was sent to."""
    seconds: float | None = None
    """How long the server took."""
    asked: str | None = None
    """The tool that the caller named, where another tool was called to call it."""
    arguments: Any = None
    """That tool's arguments."""


class _Named(Protocol):
    @property
    def name(self) -> str: ...


class _Asked(Protocol):
    @property
    def method(self) -> str: ...


class Logged(Protocol):
    """What the log needs of a call."""

    @property
    def principal(self) -> _Named: ...
    @property
    def request(self) -> _Asked: ...
    @property
    def server(self) -> str | None: ...
    @property
    def request_id(self) -> str: ...
    @property
    def reached(self) -> Reached: ...


class CallLog:
    """Writes lines and figures; `methods` are the names that figures are labelled with."""

    def __init__(self, metrics: Metrics, methods: Collection[str], which: str = "all") -> None:
        """`which` calls have a line: `all`, those with `errors`, or `none`."""
        self._metrics = metrics
        self._names = {name.replace(".", "/"): name for name in methods} | {name: name for name in methods}
        self._only_errors = which == "errors"
        self._is_on = which != "none"
        self._handler = only_handler(calls)
        self._waiting: list[tuple[Any, ...]] = []
        self._written: dict[tuple[Any, ...], str] = {}
        """What is the same in many lines: who called what, and how it went."""
        self._dropped = 0

    def write(self, call: Logged, at: float, named: str | None, outcome: str, seconds: float, size: int) -> None:
        """Count one call that ended `at` a time and log its line.

        `named` is the tool, prompt or resource that it names, `size` the answer's in bytes.
        """
        reached = call.reached
        method = self._names.get(call.request.method, "unknown")  # a caller can send anything
        upstream, server = reached.seconds, reached.server
        self._metrics.called(method, outcome, seconds, server, reached.tool, upstream)
        if not self._is_on or (self._only_errors and outcome == "ok") or not calls.isEnabledFor(logging.INFO):
            return
        entry = (
            at,
            call.principal.name,
            method,
            server or call.server,
            None if named is None else named[:_NAME],  # cut now: an entry may wait, and a name may be large
            outcome,
            seconds,
            upstream,
            size,
            call.request_id,
        )
        if self._handler is None:
            calls.info("call", extra={FIELDS: _fields(entry)})
        elif len(self._waiting) < _MAX_WAITING:
            self._waiting.append(entry)
        else:
            self._dropped += 1

    async def run(self) -> None:
        """Write what is waiting, again and again, until cancelled; then write the rest."""
        try:
            while True:
                await asyncio.sleep(_TOGETHER_SECONDS)
                self._metrics.settle()
                await self._flush()
        finally:
            self._metrics.settle()
            if self._handler is not None:
                self._handler.write([self._line(self._handler, entry) for entry in self._waiting])
                self._waiting = []

    async def _flush(self) -> None:
        if self._handler is None or not self._waiting:
            return
        lines: list[str] = []
        try:
            left = len(self._waiting)
            at_once = min(max(_LEAST, left // _TURNS), _MOST)
            for _ in range(0, left, at_once):
                lines += [self._line(self._handler, entry) for entry in self._waiting[:at_once]]
                del self._waiting[:at_once]
                await asyncio.sleep(0)
        except asyncio.CancelledError:  # at the end: what is formatted goes out before what is not
            self._handler.write(lines)
            raise
        await asyncio.to_thread(self._handler.write, lines)  # whoever reads standard error may be slow
        if self._dropped:
            log.warning("%d lines of calls were dropped, since nobody reads them fast enough", self._dropped)
            self._dropped = 0

    def _line(self, handler: LineHandler, entry: tuple[Any, ...]) -> str:
        what = entry[_WHAT]
        written = self._written.get(what)
        if written is None:
            if len(self._written) >= _MAX_WRITTEN:
                self._written.clear()
            written = self._written[what] = handler.part(_what(what))
        return handler.line_of(entry[0], "INFO", calls.name, "call", written, handler.part(_how_long(entry)))


def _fields(entry: tuple[Any, ...]) -> dict[str, Any]:
    return _what(entry[_WHAT]) | _how_long(entry)


def _what(parts: tuple[Any, ...]) -> dict[str, Any]:
    principal, method, server, named, outcome = parts
    return {"principal": principal, "method": method, "server": server, "name": named, "outcome": outcome}


def _how_long(entry: tuple[Any, ...]) -> dict[str, Any]:
    seconds, upstream, size, request_id = entry[_WHAT.stop :]
    return {
        "ms": int((seconds - (upstream or 0)) * 1e5 + 0.5) / 100,  # `round` takes as long as the rest
        "upstream_ms": None if upstream is None else int(upstream * 1e5 + 0.5) / 100,
        "bytes": size,
        "request_id": request_id,
    }
