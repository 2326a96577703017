"""diffoscope, which looks into files of many kinds: where there is one, it compares two paths."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

__all__ = ["compare", "find_diffoscope"]

_MOST_OUTPUT = 1 << 20  # characters of its report


def find_diffoscope() -> str | None:
    """Return where the program is."""
    return shutil.which("diffoscope")


def compare(program: str, one: Path, other: Path) -> str:
    """Return the report of *program* on *one* and *other*, cut off where it gets too long."""
    done = subprocess.run(
        [program, "--text", "-", str(one), str(other)],
        capture_output=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    return done.stdout.decode("utf-8", "replace")[:_MOST_OUTPUT]
