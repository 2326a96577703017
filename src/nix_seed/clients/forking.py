"""Whether this process may fork workers that go on running Python."""

from __future__ import annotations

import os
import threading

__all__ = ["may_fork"]


def may_fork() -> bool:
    """Tell whether the process has but one thread: a fork of any other may wait for ever.

    Threads that a library started without Python's knowledge count as well, where the system tells.
    """
    try:
        threads = len(os.listdir("/proc/self/task"))
    except OSError:
        threads = threading.active_count()
    return threads == 1
