"""One hypercorn worker: a child of `supervise.py` that serves on a socket it was handed.

Ends on SIGTERM, or when the pipe from its parent closes: a supervisor killed with -9 leaves no worker behind.
"""

from __future__ import annotations

import asyncio
import faulthandler
import gc
import logging
import os
import resource
import signal
import sys
from typing import Any

import uvloop
from hypercorn.asyncio import serve
from hypercorn.config import Config
from hypercorn.utils import LifespanFailureError

from gateway.edge.app import Application
from gateway.errors import SettingsError
from gateway.machine.ports import BACKLOG
from gateway.observability import logs
from gateway.run.http1 import install
from gateway.settings import Settings
from gateway.tasks import end as end_tasks

_ACCEPTORS = 8  # times that the socket is listened on: uvloop accepts one connection per turn of its loop from each
_CLEAN_UP_SECONDS = 10
_START_SECONDS = 3600.0  # a migration of a large database is part of the start; everything else there has its own limit
_LOOK_SECONDS = 0.2
_BEAT_SECONDS = 1.0
_SPARE_DESCRIPTORS = 128  # for the stores, and as many for servers at least
_THRESHOLDS = 10_000, 20, 50  # objects made beyond those let go of; collections of the youngest, and of the middle ones


def configure(settings: Settings, descriptor: int) -> Config:
    """Hypercorn's configuration for a worker."""
    config = Config()
    config.bind = [f"fd://{each}" for each in (descriptor, *(os.dup(descriptor) for _ in range(_ACCEPTORS - 1)))]
    config.backlog = BACKLOG  # each worker sets it anew on the socket that they share
    config.startup_timeout = _START_SECONDS
    config.graceful_timeout = settings.drain_seconds
    config.shutdown_timeout = _CLEAN_UP_SECONDS
    config.keep_alive_timeout = 75  # above nginx's 60: nginx never sends on a connection that we are closing
    config.keep_alive_max_requests = 1_000_000
    config.include_server_header = False
    config.loglevel = "WARNING"
    config.h11_max_incomplete_size = settings.max_head
    return config


def _connections(settings: Settings) -> int:
    """Connections that this worker takes: what the settings say, and no more than it may have descriptors for."""
    _, descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)
    if descriptors == resource.RLIM_INFINITY:
        return settings.max_connections
    resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, descriptors))
    return max(_SPARE_DESCRIPTORS, min(settings.max_connections, descriptors - 2 * _SPARE_DESCRIPTORS))


async def run(settings: Settings, descriptor: int, parent: int, name: str, beats: int) -> None:
    """Serve until told to end, or until the parent is gone."""
    app = Application(settings, worker=name)
    ending = asyncio.Event()
    loop = asyncio.get_running_loop()

    def end() -> None:
        app.draining.set()  # streams get a clean end before hypercorn begins to wait
        ending.set()

    def leave() -> None:
        app.leaving = True

    loop.add_signal_handler(signal.SIGTERM, end)
    loop.add_signal_handler(signal.SIGUSR1, leave)  # SIGTERM comes soon: load balancers are to look elsewhere
    loop.add_signal_handler(signal.SIGINT, lambda: None)  # ^C reaches the whole group; the parent tells us in order
    loop.add_reader(parent, end)
    install(settings.http1, _connections(settings))
    application: Any = app
    work = [asyncio.create_task(_spare_the_collector(app)), asyncio.create_task(_beat(beats))]
    try:
        await serve(application, configure(settings, descriptor), shutdown_trigger=ending.wait, mode="asgi")
    finally:
        await end_tasks(work)


async def _beat(pipe: int) -> None:
    """Show the supervisor that the loop runs."""
    while True:
        try:
            os.write(pipe, b".")
        except OSError:
            pass  # nobody reads: the supervisor is stopped, or gone
        await asyncio.sleep(_BEAT_SECONDS)


async def _spare_the_collector(app: Application) -> None:
    """Once the gateway is open, keep the garbage collector from what it made by then, which stays.

    A full collection of it takes 50 ms, in which no call goes on, and at a few thousand calls a second one came every
    few seconds. What calls leave behind is collected as before, less often: most of it has no circles.
    """
    while app.gateway is None:  # noqa: ASYNC110  # the server opens it, and tells nobody
        await asyncio.sleep(_LOOK_SECONDS)
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_THRESHOLDS)


def main() -> int:
    """`python -m gateway.run.worker SOCKET PIPE NAME BEATS`; settings come from the environment."""
    descriptor, parent, name, beats = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
    faulthandler.register(signal.SIGUSR2)  # the supervisor wants to know where we hang
    try:
        settings = Settings.from_environment(os.environ)
        logs.configure(settings.log_format, settings.log_level, replica=settings.replica_name, worker=name)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(run(settings, descriptor, parent, name, beats))
    except (SettingsError, LifespanFailureError) as error:
        logging.getLogger("gateway").error("%s", error)
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main())
