"""Waking a thread that waits, from a signal handler.

A handler runs in the middle of whatever the thread does, also inside the wait itself. A lock that both take, as that of
`threading.Event`, can be held by the very thread that the handler interrupts, which then waits for ever. A pipe has
none.
"""

from __future__ import annotations

import os
import select


class Wake:
    """`wait` returns early when `set` was called, be it before or meanwhile, by a handler or another thread."""

    def __init__(self) -> None:
        self._reading, self._writing = os.pipe()
        os.set_blocking(self._reading, False)
        os.set_blocking(self._writing, False)

    def set(self) -> None:
        """Wake the waiting thread."""
        try:
            os.write(self._writing, b".")
        except BlockingIOError:
            pass  # it is full: the waiting thread will wake

    def wait(self, seconds: float) -> None:
        """Sleep for so long, or until woken."""
        if select.select([self._reading], [], [], max(0.0, seconds))[0]:
            try:
                os.read(self._reading, 65536)
            except BlockingIOError:
                pass

    def close(self) -> None:
        os.close(self._reading)
        os.close(self._writing)
