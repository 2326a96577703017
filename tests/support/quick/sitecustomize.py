"""Spares the tests waiting: ``fsync`` returns at once, another attempt hardly waits.

Python imports this module at its start where the tests put its directory on ``PYTHONPATH``
(``support.quick.environment``), so programs that tests start are spared it too.
"""

from __future__ import annotations

import os
import sys
import time
from typing import Any

_sleep = time.sleep
# Where a request is sent once more; tests/house/test_spared.py sees that it does sleep.
PATIENT = ("nix_seed.registry.errors",)


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


time.sleep = _nap
