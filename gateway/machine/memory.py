"""How much memory this process holds."""

from __future__ import annotations

import os
import resource
import sys


def memory_of_process() -> int:
    """The resident set in bytes; where the system does not tell it, the largest that there was."""
    try:
        with open("/proc/self/statm", "rb") as told:
            return int(told.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError, ValueError):
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most if sys.platform == "darwin" else most * 1024
