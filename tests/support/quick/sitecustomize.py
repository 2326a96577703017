"""Spares the tests the wait for the disk: ``fsync`` returns at once.

Python imports this module at its start where the tests put its directory on ``PYTHONPATH``
(``support.quick.environment``), so programs that tests start are spared it too.
"""

from __future__ import annotations

import os
from typing import Any


def _at_once(handle: Any) -> None:
    """Stand for ``fsync`` and ``fdatasync``: the file is open, and that is all."""
    os.fstat(handle if isinstance(handle, int) else handle.fileno())


for _name in ("fsync", "fdatasync"):
    if hasattr(os, _name):
        setattr(os, _name, _at_once)
