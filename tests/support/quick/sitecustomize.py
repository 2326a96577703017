"""Spares the tests waiting: ``fsync`` returns at once, another attempt hardly waits.

Python imports this module at its start where the tests put its directory on ``PYTHONPATH``
(``support.quick.environment``), so programs that tests start are spared it too.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from typing import Any

_sleep, _wait = time.sleep, threading.Event.wait
# Where a request is sent once more; tests/house/test_spared.py sees that it does sleep.
PATIENT = ("nix_seed.registry.errors",)
# Where a network that failed is let rest, for seconds.
RESTING = ("nix_seed.use.mount.frames",)


def _at_once(handle: Any) -> None:
    """Stand for ``fsync`` and ``fdatasync``: the file is open, and that is all."""
    os.fstat(handle if isinstance(handle, int) else handle.fileno())


for _name in ("fsync", "fdatasync"):
    if hasattr(os, _name):
        setattr(os, _name, _at_once)


def _nap(seconds: Any, /) -> None:
    """Stand for ``sleep``: short before a request is sent once more, itself anywhere else."""
    patient = sys._getframe(1).f_globals.get("__name__") in PATIENT
    _sleep(seconds / 50 if patient else seconds)


def _rest(event: threading.Event, timeout: float | None = None) -> bool:
    """Stand for ``Event.wait``: short where a network rests, itself anywhere else."""
    rests = timeout is not None and timeout > 1
    rests = rests and sys._getframe(1).f_globals.get("__name__") in RESTING
    return _wait(event, timeout / 50 if rests and timeout else timeout)


time.sleep = _nap
threading.Event.wait = _rest  # type: ignore[method-assign, assignment]
