"""How long the command takes to say anything: whole processes, from outside."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

__all__ = ["seconds"]

COMMAND = Path(sys.executable).parent / "nix-seed"


def seconds(*arguments: str, rounds: int = 15) -> float:
    """Return the median wall time of ``nix-seed`` with *arguments*, after one round to warm up."""
    taken = []
    for _ in range(rounds + 1):
        start = time.perf_counter()
        subprocess.run([COMMAND, *arguments], check=True, stdout=subprocess.DEVNULL)
        taken.append(time.perf_counter() - start)
    return statistics.median(taken[1:])
