"""The listening socket and the workers of one replica.

Hypercorn's own supervisor stops every worker when one dies and ends open streams hard, so this one binds the socket
once, starts the workers as children, replaces those that die, and drains on SIGTERM: the socket closes first.

Each worker's loop writes to a pipe once a second. One that does not for GATEWAY_HANG_SECONDS hangs: it is told to write
where it stands to the log (SIGUSR2), and killed, and so replaced.
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prometheus_client.multiprocess import mark_process_dead

from gateway.machine.ports import BACKLOG, listen
from gateway.machine.wake import Wake
from gateway.observability.metrics import SHARED_FOLDER
from gateway.settings import Settings

_BRIDGE = 0  # the number of the child that runs stdio servers
_STEADY_SECONDS = 5.0
_LEAVE = signal.SIGUSR1  # a worker that gets it says on /readyz that it drains, and serves on
_HANDLER_SECONDS = 2.0  # after which a worker has its signal handlers
_MAX_PAUSE_SECONDS = 5.0
_STACKS = signal.SIGUSR2  # a worker that gets it writes the stacks of its threads to the log
_STACKS_SECONDS = 1.0
_FIRST_BEAT_SECONDS = 60.0
_STOPPED_SECONDS = 5.0  # between two looks: then we were stopped ourselves, and the workers may have been
_GRACE_SECONDS = 15.0  # above drain_seconds: for hypercorn's lifespan and our goodbyes upstream

log = logging.getLogger("gateway.supervise")


@dataclass
class _Worker:
    number: int
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    failures: int = 0
    due: float = field(default=0.0)
    beats: int = -1
    """The end of the pipe that its loop writes to."""
    heard: float = 0.0
    """When it wrote last."""


class Supervisor:
    """Runs N workers on one socket until `stop` is called; use `run` from the main thread."""

    def __init__(self, settings: Settings, environment: Mapping[str, str]) -> None:
        self._settings = settings
        self._environment = dict(environment)
        self._workers = [_Worker(number) for number in range(1, settings.workers + 1)]
        self._wake = Wake()
        self._signals = 0
        self._looked = time.monotonic()
        self._listener: socket.socket | None = None

    def bind(self) -> None:
        """Take the address. Raises SettingsError when it is not to be had."""
        self._listener = listen("GATEWAY_HOST, GATEWAY_PORT", self._settings.host, self._settings.port, BACKLOG)

    def run(self) -> int:
        """Start the workers on the address that was bound, watch them, drain them."""
        listener = self._listener
        if listener is None:
            raise RuntimeError("bind() comes first")
        figures = tempfile.mkdtemp(prefix="mcp-gateway-figures-")
        self._environment[SHARED_FOLDER] = figures
        if self._settings.allow_stdio and self._settings.bridge is None:
            sockets = tempfile.mkdtemp(prefix="mcp-gateway-bridge-")  # 0700: only its user reaches the socket
            self._environment["GATEWAY_BRIDGE"] = f"{sockets}/socket"
            self._workers.insert(0, _Worker(_BRIDGE))
        alive, parent = os.pipe()  # the children hold one end: they see it close when we die
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        signal.signal(signal.SIGCHLD, lambda *_: self._wake.set())
        try:
            while not self._signals:
                self._replace_dead(listener.fileno(), alive)
                self._end_hung()
                self._sleep(self._pause())
            self._leave(listener.fileno(), alive)
        finally:
            listener.close()
            self._drain()
            os.close(alive)
            os.close(parent)
            shutil.rmtree(figures, ignore_errors=True)
            if self._workers[0].number == _BRIDGE:
                shutil.rmtree(Path(self._environment["GATEWAY_BRIDGE"]).parent, ignore_errors=True)
        return 0

    def _on_signal(self, number: int, _: object) -> None:
        self._signals += 1
        self._wake.set()

    def _leave(self, descriptor: int, alive: int) -> None:
        """Serve on for GATEWAY_DRAIN_DELAY, not ready any more; a second signal cuts it short."""
        if not self._settings.drain_delay:
            return
        deadline = time.monotonic() + self._settings.drain_delay
        log.info("not ready any more; the socket closes in %g s", self._settings.drain_delay)
        told: set[int] = set()
        while self._signals < 2 and (left := deadline - time.monotonic()) > 0:
            self._replace_dead(descriptor, alive)
            steady = time.monotonic() - _HANDLER_SECONDS  # before it has a handler the signal would end it
            for worker in self._workers:
                process = worker.process
                if process is None or worker.number == _BRIDGE or process.pid in told or worker.started > steady:
                    continue
                process.send_signal(_LEAVE)
                told.add(process.pid)
            self._sleep(min(left, 0.2))

    def _sleep(self, seconds: float) -> None:
        self._wake.wait(seconds)

    def _pause(self) -> float:
        waiting = [each.due - time.monotonic() for each in self._workers if each.process is None]
        return max(0.0, min([1.0, *waiting]))

    def _replace_dead(self, descriptor: int, alive: int) -> None:
        now = time.monotonic()
        for worker in self._workers:
            if worker.process is not None and (code := worker.process.poll()) is not None:
                mark_process_dead(worker.process.pid, self._environment[SHARED_FOLDER])  # type: ignore[no-untyped-call]  # the library leaves it bare
                worker.process = None
                _close(worker)
                steady = now - worker.started > _STEADY_SECONDS
                worker.failures = 0 if steady else worker.failures + 1
                pause = 0.0 if steady else min(0.2 * 2**worker.failures, _MAX_PAUSE_SECONDS)
                worker.due = now + pause
                name = "the bridge" if worker.number == _BRIDGE else f"worker {worker.number}"
                log.warning("%s ended (%s), next start in %.1f s", name, _ending(code), pause)
            if worker.process is None and worker.due <= now:
                self._start(worker, descriptor, alive)
                worker.started, worker.heard = now, now + _FIRST_BEAT_SECONDS

    def _end_hung(self) -> None:
        """Have workers whose loop hangs say where they stand, and kill them."""
        now, looked = time.monotonic(), self._looked
        self._looked = now
        hung = []
        for worker in self._workers:
            if worker.process is None or worker.beats < 0:
                continue
            if _has_written(worker.beats) or now - looked > _STOPPED_SECONDS:
                worker.heard = now
            elif now - worker.heard > self._settings.hang_seconds > 0:
                log.error(
                    "worker %d hangs for %.0f s and is replaced; it stands at:", worker.number, now - worker.heard
                )
                worker.process.send_signal(_STACKS)
                hung.append(worker.process)
        if hung:
            time.sleep(_STACKS_SECONDS)
            for process in hung:
                process.kill()

    def _start(self, worker: _Worker, descriptor: int, alive: int) -> None:
        how: dict[str, Any] = {"env": self._environment, "stdin": subprocess.DEVNULL}
        if worker.number == _BRIDGE:
            path = self._environment["GATEWAY_BRIDGE"]
            Path(path).unlink(missing_ok=True)
            command = [sys.executable, "-m", "gateway.programs.app", path, str(alive)]
            worker.process = subprocess.Popen(command, pass_fds=(alive,), **how)  # noqa: S603
            return
        worker.beats, beats = os.pipe()
        for end in (worker.beats, beats):
            os.set_blocking(end, False)
        try:
            numbers = [str(each) for each in (descriptor, alive, worker.number, beats)]
            command = [sys.executable, "-m", "gateway.run.worker", *numbers]
            worker.process = subprocess.Popen(command, pass_fds=(descriptor, alive, beats), **how)  # noqa: S603
        finally:
            os.close(beats)

    def _drain(self) -> None:
        """End the workers, and only then the bridge: their calls may be under way in its programs."""
        workers = [each for each in self._workers if each.number != _BRIDGE]
        self._end(workers, self._settings.drain_seconds + _GRACE_SECONDS)
        self._end([each for each in self._workers if each.number == _BRIDGE], _GRACE_SECONDS)

    def _end(self, workers: list[_Worker], seconds: float) -> None:
        running = [worker.process for worker in workers if worker.process is not None]
        for process in running:
            process.terminate()
        deadline = time.monotonic() + seconds
        for process in running:
            try:
                process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                log.warning("process %d did not end in time and is killed", process.pid)
                process.kill()
                process.wait()


def _has_written(pipe: int) -> bool:
    try:
        return bool(os.read(pipe, 4096))
    except BlockingIOError:
        return False


def _close(worker: _Worker) -> None:
    if worker.beats >= 0:
        os.close(worker.beats)
    worker.beats = -1


def _ending(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"
