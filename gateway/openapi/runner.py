"""Runs the compiler as a process of its own, bounded in time, memory and number.

A document comes from anybody, and reading five megabytes of YAML holds an interpreter for seconds: neither may touch
the worker's loop. What was compiled last is kept, since a registration is followed by the look at the same document.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import sys
import time
from collections import OrderedDict
from pathlib import Path

import orjson

from gateway.model.api_document import MAX_BYTES
from gateway.openapi.job import BadDocument, Compiled, Job
from gateway.version import VERSION

_SECONDS = 15
_AT_ONCE = 1  # of a worker
_KEPT = 2
_REFUSED_KEPT = 64
_REFUSED_SECONDS = 300.0  # it may have been the machine's fault
_PASSED_ON = ("PATH", "LANG", "VIRTUAL_ENV")  # of the environment: no secrets


class CompilerRunner:
    """The compiler's processes of this worker."""

    def __init__(self) -> None:
        self._turns = asyncio.Semaphore(_AT_ONCE)
        self._latest: OrderedDict[str, Compiled] = OrderedDict()
        self._refused: OrderedDict[str, tuple[str, float]] = OrderedDict()
        """Why a document was refused, and until when that is believed: a bad one is not read again at each look."""

    async def compile(self, data: bytes, job: Job) -> Compiled:
        """Compile a document. Raises BadDocument."""
        if len(data) > MAX_BYTES:
            raise BadDocument(f"The document has {len(data) / (1 << 20):.1f} MiB; at most {MAX_BYTES >> 20} are read.")
        key = key_of(data, job)
        async with self._turns:
            reason, until = self._refused.get(key, ("", 0.0))
            if until > time.monotonic():
                raise BadDocument(reason)
            found = self._latest.get(key)
            if found is None:
                try:
                    found = await _compiled(data, job)
                except BadDocument as error:
                    self._refused[key] = str(error), time.monotonic() + _REFUSED_SECONDS
                    self._refused.move_to_end(key)
                    while len(self._refused) > _REFUSED_KEPT:
                        self._refused.popitem(last=False)
                    raise
            self._latest[key] = found
            self._latest.move_to_end(key)
            while len(self._latest) > _KEPT:
                self._latest.popitem(last=False)
        return found


def key_of(data: bytes, job: Job) -> str:
    """The same for what gives the same tools."""
    return hashlib.sha256(orjson.dumps([VERSION, job.to_json()]) + b"\n" + data).hexdigest()


async def _compiled(data: bytes, job: Job) -> Compiled:
    root = str(Path(__file__).parents[2])
    try:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "gateway.openapi.compiler"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env={"PYTHONPATH": root} | {name: os.environ[name] for name in _PASSED_ON if name in os.environ},
        )
    except OSError as error:
        raise BadDocument(f"The gateway can't start the process that reads documents ({error.strerror}).") from None
    try:
        async with asyncio.timeout(_SECONDS):
            answer, _ = await process.communicate(orjson.dumps(job.to_json()) + b"\n" + data)
    except TimeoutError:
        raise BadDocument(f"The document was not read within {_SECONDS} s.") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0:
        raise BadDocument("The document takes too much time or memory to be read.")
    found = orjson.loads(answer)
    if "error" in found:
        raise BadDocument(found["error"])
    return Compiled(**found)
