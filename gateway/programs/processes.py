"""Programs that speak MCP over their pipes: started, watched, ended, restarted with back-off.

A session is a child of its own, as if the client had run the program itself. Sessions that declare nothing (discovery,
REST) share one child, so that looking at what a server offers starts no program each time.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
import os
import re
import signal
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing, suppress
from dataclasses import dataclass, field, replace

from gateway.errors import GatewayError
from gateway.machine import privileges
from gateway.observability.logs import printable
from gateway.protocol import exchange
from gateway.protocol.messages import Batch, Failure, Message, Notification, Reply, Request, decode_answer, encode
from gateway.tasks import end
from gateway.upstream.multiplexer import ChannelClosed, Multiplexer

_HANDSHAKE_SECONDS = 30.0
_END_SECONDS = 2.0
_ENDING_SECONDS = 0.5
_STEADY_SECONDS = 10.0
_FIRST_PAUSE, _MAX_PAUSE = 0.5, 30.0
_LINES_PER_SECOND = 20  # of a child's stderr, or of its garbage, that are logged
_LINE = 4096  # bytes of such a line that are shown
_KEPT_LINES = 40  # of a child's stderr, from which its last words are chosen
_TELLING_LINES = 3
_MAX_WORDS = 600
_NPM = re.compile(r"npm (error|ERR!) *")  # before each line of npm's, whatever it says
_NOISE = re.compile(r"(code|404|errno|syscall|path)?$|npm (notice|warn)|A complete log of this run")
_ERROR = re.compile(r"(?i:error|fatal|not found|cannot|can't|denied|refused|no such)|\bE[A-Z][A-Z0-9]+\b|\bE\d{3}\b")
_JUDGED = 300  # characters of a line that decide whether it says something
_SHARED_IDLE_SECONDS = 300.0
_REAP_SECONDS = 5.0
_INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "USER", "LOGNAME", "SHELL", "TMPDIR", "NODE_OPTIONS")

log = logging.getLogger("gateway.stdio")


@dataclass(frozen=True)
class Program:
    """What to run: never parsed by a shell, never with the gateway's own environment."""

    name: str
    command: str
    args: list[str] = field(default_factory=list)
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: str | None = None


class Unknown(Exception):
    """No such session, or no such program."""


class Busy(Exception):
    """No child can be started now; `retry_after` says in how many seconds that may be otherwise."""

    def __init__(self, why: str, retry_after: int | None = None) -> None:
        super().__init__(why)
        self.retry_after = retry_after


class _Lines:
    """Writes lines to the log, not more of them than a log can bear; keeps the last ones."""

    def __init__(self, program: str, what: str, level: int = logging.INFO) -> None:
        self._program = program
        self._what = what
        self.level = level
        self._second = 0
        self._count = 0
        self._kept: deque[str] = deque(maxlen=_KEPT_LINES)

    def words(self) -> str:
        """Which of the last lines say something: those that name an error, and the very last."""
        judged = [(line, _NPM.sub("", line[:_JUDGED], count=1)) for line in self._kept]
        judged = [(line, text) for line, text in judged if not _NOISE.match(text)]
        lines = [line for line, _ in judged]
        telling = [line for line, text in judged if _ERROR.search(text)]
        if len(telling) > _TELLING_LINES:  # the first says what, the last ones say why
            telling = [telling[0], *telling[-_TELLING_LINES + 1 :]]
        return " | ".join(dict.fromkeys([*telling, *lines[-1:]]))[:_MAX_WORDS]

    def line(self, line: bytes) -> None:
        text = printable(line.rstrip().decode(errors="replace")[:_LINE])
        if text:
            self._kept.append(text)
        second = int(time.monotonic())
        if second != self._second:
            if self._count > _LINES_PER_SECOND:
                left_out = self._count - _LINES_PER_SECOND
                log.warning("%s: %d more lines on %s were left out", self._program, left_out, self._what)
            self._second, self._count = second, 0
        self._count += 1
        if text and self._count <= _LINES_PER_SECOND:
            log.log(self.level, "%s %s: %s", self._program, self._what, text)


class Child:
    """One running program."""

    def __init__(
        self, program: Program, process: asyncio.subprocess.Process, limit: int, level: int, *, shared: bool
    ) -> None:
        self._program = program
        self._process = process
        self._limit = limit
        self._writing = asyncio.Lock()
        self.duplex = Multiplexer(self._write, shared=shared)
        self.errors = _Lines(program.name, "stderr", level)
        self._garbage = _Lines(program.name, "stdout, which is no MCP", level)
        self.started = time.monotonic()
        self._ended = asyncio.create_task(process.wait())
        self._tasks = [asyncio.create_task(self._read()), asyncio.create_task(self._read_errors()), self._ended]

    @classmethod
    async def start(cls, program: Program, limit: int, *, shared: bool, level: int = logging.INFO) -> Child:
        """Run a program; what it writes is logged at `level`. Raises Busy with the reason why it can't be run."""
        environment = {name: os.environ[name] for name in _INHERITED if name in os.environ} | dict(program.env)
        try:
            process = await asyncio.create_subprocess_exec(
                program.command,
                *program.args,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env=environment,
                cwd=program.cwd,
                start_new_session=True,
                preexec_fn=_before_exec(),
                limit=limit,
            )
        except (OSError, ValueError) as error:
            raise Busy(f"{program.command[:200]!r} can't be run: {_why(program, error)}") from None
        log.log(level, "%s runs as pid %d", program.name, process.pid)
        return cls(program, process, limit, level, shared=shared)

    @property
    def pid(self) -> int:
        return self._process.pid

    async def ending(self) -> str | None:
        """Say how it ended, if it ends by itself in a moment."""
        return f"it ended ({_ending(await self._ended)})" if await self._gone_within(_ENDING_SECONDS) else None

    def log_at(self, level: int) -> None:
        """From here on write its words to the log at another level."""
        self.errors.level = self._garbage.level = level

    def words(self) -> str:
        """What it said that may tell why it does not work."""
        if words := self.errors.words():
            return words
        return f"it wrote what is no MCP: {said}" if (said := self._garbage.words()) else ""

    async def _write(self, message: Message) -> None:
        stdin = self._process.stdin
        assert stdin is not None, "it was started with a pipe"  # noqa: S101
        try:
            async with self._writing:
                stdin.write(encode(message) + b"\n")
                await stdin.drain()
        except (OSError, RuntimeError):
            raise ChannelClosed(f"{self._program.name} closed its input") from None

    async def _read(self) -> None:
        stdout = self._process.stdout
        assert stdout is not None, "it was started with a pipe"  # noqa: S101
        reason = "it closed its output"
        try:
            while line := await stdout.readline():
                self._take(line)
        except ValueError:
            reason = f"it sent a line of more than {self._limit} bytes"
            self._kill(signal.SIGKILL)
        if not await self._gone_within(_END_SECONDS):
            self._kill(signal.SIGKILL)  # without its output it is of no use
        code = await asyncio.shield(self._ended)
        self.duplex.close(f"{self._program.name} ended ({_ending(code)}); {reason}")

    def _take(self, line: bytes) -> None:
        if not line.strip():
            return
        try:
            message = decode_answer(line)
        except GatewayError:
            self._garbage.line(line)
            return
        for each in message.entries if isinstance(message, Batch) else (message,):
            if not isinstance(each, GatewayError):
                self.duplex.feed(each, len(line))

    async def _read_errors(self) -> None:
        stderr = self._process.stderr
        assert stderr is not None, "it was started with a pipe"  # noqa: S101
        while True:
            try:
                line = await stderr.readline()
            except ValueError:
                line = b"(a line too long)"  # the reader dropped it
            if not line:
                return
            self.errors.line(line)

    async def end(self) -> None:
        """Close its input, wait a little, then ask and at last force it to end, with all that it started."""
        stdin = self._process.stdin
        if stdin is not None:
            stdin.close()
        for number in (None, signal.SIGTERM, signal.SIGKILL):
            if number is not None:
                self._kill(number)
            if await self._gone_within(_END_SECONDS):
                break
        self._kill(signal.SIGKILL)  # what it left behind in its group
        await end(self._tasks)
        self._process._transport.close()  # type: ignore[attr-defined]  # a paused pipe would stay open
        self.duplex.close("it was ended")

    async def _gone_within(self, seconds: float) -> bool:
        """Wait for its end, but not for long; a wait that is cancelled would be an error in the loop's log."""
        done, _ = await asyncio.wait({self._ended}, timeout=seconds)
        return bool(done)

    def _kill(self, number: int) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)


class Session:
    """One session with a program: over a child of its own, or over the shared one under ids of our own."""

    _numbers = itertools.count(1)

    def __init__(self, id: str, key: str, child: Child, *, shared: bool) -> None:
        self.id = id
        self.key = key
        self.child = child
        self.shared = shared
        self.used = time.monotonic()
        self.busy = 0
        self._sent: dict[object, int] = {}

    async def request(self, request: Request) -> AsyncGenerator[Message, None]:
        """Carry a request; yield what belongs to it, its answer last. Raises ChannelClosed."""
        sent = self._numbered(request) if self.shared else request
        self.busy += 1
        try:
            async with aclosing(self.child.duplex.request(sent)) as messages:
                async for message in messages:
                    yield self._named(message, request) if self.shared else message
        finally:
            self.busy -= 1
            self.used = time.monotonic()
            self._sent.pop(request.id, None)

    async def post(self, message: Notification | Reply | Failure) -> None:
        """Send what needs no answer; a shared child was initialized once, for all callers."""
        self.used = time.monotonic()
        if self.shared and isinstance(message, Notification):
            if message.method != "notifications/cancelled":
                return
            number = self._sent.get(message.params.get("requestId"))
            if number is None:
                return
            message = replace(message, params={**message.params, "requestId": number})
        with suppress(ChannelClosed):
            await self.child.duplex.post(message)
            self.child.duplex.cancelled(message)

    async def listen(self) -> AsyncGenerator[Message, None]:
        """What the child sends by itself; of a shared one it is dropped."""
        if self.shared:
            raise Unknown
        self.busy += 1
        try:
            async with aclosing(self.child.duplex.listen()) as messages:
                async for message in messages:
                    yield message
        finally:
            self.busy -= 1
            self.used = time.monotonic()

    def _numbered(self, request: Request) -> Request:
        number = self._sent[request.id] = next(self._numbers)
        meta = request.params.get("_meta")
        params = request.params
        if isinstance(meta, Mapping) and "progressToken" in meta:
            params = {**params, "_meta": {**meta, "progressToken": number}}
        return Request(number, request.method, params)

    def _named(self, message: Message, request: Request) -> Message:
        match message:
            case Reply() | Failure():
                return message.under(request.id)
            case Notification("notifications/progress", params):
                token = request.params["_meta"]["progressToken"]
                return replace(message, params={**params, "progressToken": token})
        return message


class _Failures:
    """How often a program ended soon after its start, and when it may be started again."""

    def __init__(self) -> None:
        self.count = 0
        self.due = 0.0
        self.why = ""

    def ended(self, why: str) -> None:
        self.count += 1
        self.due = time.monotonic() + min(_FIRST_PAUSE * 2**self.count, _MAX_PAUSE)
        self.why = why


class Bridged:
    """The programs that are known, and the sessions with them."""

    def __init__(self, max_children: int, limit: int, idle_seconds: float) -> None:
        self._max_children = max_children
        self._limit = limit
        self._idle_seconds = idle_seconds
        self._programs: dict[str, Program] = {}
        self._sessions: dict[str, Session] = {}
        self._shared: dict[str, tuple[Child, Reply]] = {}
        self._sharing: dict[str, asyncio.Lock] = {}
        self._described: dict[str, float] = {}
        self._failures: dict[str, _Failures] = {}
        self._starting = 0

    def describe(self, key: str, program: Program) -> None:
        """Say what a key stands for."""
        self._programs[key] = program
        self._described[key] = time.monotonic()

    def keys(self) -> set[str]:
        """The keys of which something is remembered."""
        return set().union(self._programs, self._described, self._sharing, self._failures, self._shared)

    def session(self, id: str | None) -> Session:
        """A session whose child lives. Raises Unknown."""
        session = self._sessions.get(id or "")
        if session is None or session.child.duplex.closed is not None:
            raise Unknown
        return session

    async def open(self, key: str, request: Request, *, shared: bool) -> tuple[Session | None, Reply | Failure]:
        """Begin a session: the child's own answer to `initialize`. Raises Unknown or Busy."""
        if shared:
            async with self._sharing.setdefault(key, asyncio.Lock()):
                child, first = await self._shared_child(key, request)
            session = self._keep(key, child, shared=True)
            return session, first.under(request.id)
        child, answer = await self._started(key, request, shared=False)
        if isinstance(answer, Failure):
            await child.end()
            return None, answer
        return self._keep(key, child, shared=False), answer

    async def _shared_child(self, key: str, request: Request) -> tuple[Child, Reply]:
        known = self._shared.get(key)
        if known is not None and known[0].duplex.closed is None:
            return known
        if known is not None:
            del self._shared[key]
            await known[0].end()
        child, answer = await self._started(key, request, shared=True)
        if isinstance(answer, Failure):
            await child.end()
            raise Busy(f"it refused initialize: {answer.message}")
        await child.duplex.post(exchange.INITIALIZED)
        self._shared[key] = child, answer
        return child, answer

    def _keep(self, key: str, child: Child, *, shared: bool) -> Session:
        session = Session(os.urandom(12).hex(), key, child, shared=shared)
        self._sessions[session.id] = session
        return session

    async def _started(self, key: str, request: Request, *, shared: bool) -> tuple[Child, Reply | Failure]:
        """Start a child and shake hands with it. Raises Unknown or Busy."""
        if (program := self._programs.get(key)) is None:
            raise Unknown
        failures = self._failures.setdefault(key, _Failures())
        if (wait := failures.due - time.monotonic()) > 0:
            raise Busy(failures.why, retry_after=math.ceil(wait))
        if self.children() >= self._max_children:
            raise Busy(f"{self._max_children} programs run already (GATEWAY_MAX_CHILDREN)")
        self._starting += 1
        try:
            return await self._shaken(program, request, failures, shared=shared)
        finally:
            self._starting -= 1

    async def _shaken(
        self, program: Program, request: Request, failures: _Failures, *, shared: bool
    ) -> tuple[Child, Reply | Failure]:
        child = None
        try:
            level = logging.DEBUG if failures.count else logging.INFO  # its words are in the log already
            child = await Child.start(program, self._limit, shared=shared, level=level)
            async with asyncio.timeout(_HANDSHAKE_SECONDS), aclosing(child.duplex.request(request)) as messages:
                async for message in messages:
                    if isinstance(message, Reply | Failure):
                        failures.count = 0
                        child.log_at(logging.INFO)
                        return child, message
            raise ChannelClosed("it said nothing")
        except Busy as error:
            failures.ended(str(error))
            raise
        except BaseException as error:
            why = str(error) or f"it did not shake hands within {_HANDSHAKE_SECONDS:g} s"
            if child is not None:
                if isinstance(error, ChannelClosed):  # whichever of its pipes was found closed first
                    why = await child.ending() or why
                await asyncio.shield(child.end())
                words = child.words()
                failures.ended(f"{why}: {words}" if words else why)
            if isinstance(error, ChannelClosed | TimeoutError):
                raise Busy(failures.why) from None
            raise

    def children(self) -> int:
        """How many programs run, or are being started."""
        own = sum(not each.shared for each in self._sessions.values())
        return own + len(self._shared) + self._starting

    async def close_session(self, id: str | None) -> None:
        """End a session, and its child if that is its own."""
        session = self._sessions.pop(id or "", None)
        if session is not None and not session.shared:
            await session.child.end()

    async def reap(self) -> None:
        """End what is idle or dead, until cancelled."""
        while True:
            await asyncio.sleep(_REAP_SECONDS)
            now = time.monotonic()
            for id, session in list(self._sessions.items()):
                if id not in self._sessions:
                    continue  # it was closed while we closed another
                dead = session.child.duplex.closed is not None
                if dead or (not session.busy and now - session.used > self._idle_seconds):
                    if dead and now - session.child.started < _STEADY_SECONDS:
                        self._failures.setdefault(session.key, _Failures()).ended(str(session.child.duplex.closed))
                    await self.close_session(id)
            for key, (child, _) in list(self._shared.items()):
                if now - self._last_use(key, child) > _SHARED_IDLE_SECONDS:
                    del self._shared[key]
                    await child.end()
            self._forget(now)

    def _last_use(self, key: str, child: Child) -> float:
        """When a shared child was last asked for, or used by one of its sessions."""
        sessions = [each for each in self._sessions.values() if each.child is child]
        if any(each.busy for each in sessions):
            return time.monotonic()
        return max([self._described.get(key, 0.0), *(each.used for each in sessions)])

    def _forget(self, now: float) -> None:
        """Forget programs that neither run nor were asked for lately: opening a session describes them again."""
        running = {each.key for each in self._sessions.values()} | set(self._shared)
        for key, described in list(self._described.items()):
            failures = self._failures.get(key)
            waits = failures is not None and failures.due > now
            lock = self._sharing.get(key)
            if key in running or waits or (lock is not None and lock.locked()):
                continue
            if now - described > _SHARED_IDLE_SECONDS:
                for kept in (self._programs, self._described, self._sharing, self._failures):
                    kept.pop(key, None)

    async def close(self) -> None:
        """End everything, side by side."""
        children = [each.child for each in self._sessions.values() if not each.shared]
        children += [child for child, _ in self._shared.values()]
        await asyncio.gather(*(child.end() for child in children), return_exceptions=True)


def _before_exec() -> Callable[[], None]:
    """What a program does before it runs: it ends with the bridge, also a killed one; it inherits its pipes only.

    uvloop leaves second copies of the pipes open, which would hide that a program closed one.
    """
    end_with_us = privileges.before_exec(signal.SIGTERM)

    def prepare() -> None:
        end_with_us()
        for descriptor in map(int, os.listdir("/proc/self/fd")):
            if descriptor > 2:
                with suppress(OSError):  # the one that lists them is closed by now
                    os.set_inheritable(descriptor, False)

    return prepare


def _why(program: Program, error: Exception) -> str:
    """Why a program can't be run: the system says the same of its folder and of itself."""
    if program.cwd is not None and not os.path.isdir(program.cwd):
        return f"its cwd {program.cwd[:200]!r} is no directory"
    return error.strerror if isinstance(error, OSError) and error.strerror else str(error)


def _ending(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"
