"""Planning synthetic closures, and how long the command takes to say anything."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from bench import startup
from bench.context import Context, timed
from bench.table import Section, Verdict

__all__ = ["rows"]

_ROOT = Path(__file__).resolve().parents[1]
_PROGRAM = """
import sys, time
from pathlib import Path
sys.path[:0] = [{root!r}, {root!r} + "/tests"]
from bench.partition import partition, problem, synthetic
given = problem(synthetic({count}))
start = time.perf_counter()
partition(*given)
took = time.perf_counter() - start
print(took, Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
"""
_HELP, _PLAN = "nix-seed --help", "plan {:,} paths"


def rows(context: Context) -> Section:
    """Plan closures of 5,000 and 50,000 paths, each in a process of its own."""
    table: list[tuple[str, ...]] = []
    verdicts: list[Verdict] = []
    for count in (200,) if context.quick else (5_000, 50_000):
        seconds, peak = min(_plan(count) for _ in range(context.rounds))
        context.say(f"  {count} paths: {seconds:.2f} s, {peak:.0f} MB")
        name = _PLAN.format(count)
        table.append((name, f"{seconds:.2f}", f"{peak:.0f}"))
        if count == 5_000:
            wanted = "1 s, 300 MB"
            met = seconds < 1 and peak < 300
            verdicts.append(Verdict(name, "–", f"{seconds:.2f} s, {peak:.0f} MB", wanted, met))
    took = startup.seconds("--help", rounds=3 if context.quick else 15)
    bare = _bare()
    table.append((_HELP, f"{took:.3f}", ""))
    table.append(("python -c pass, for comparison", f"{bare:.3f}", ""))
    if not context.quick:
        measured = f"{took * 1000:.0f} ms"
        why = f"Python itself takes {bare * 1000:.0f} ms of it."
        verdicts.append(Verdict(_HELP, "–", measured, "150 ms", took < 0.150, why))
    return Section(
        title="Planning, and start-up",
        intro="The partition of a synthetic closure into 64 layers, without reading it from Nix; "
        "memory is the most that a process had resident that made the closure and planned it. "
        "Start-up is the median of whole processes.",
        columns=("work", "s", "MB"),
        rows=tuple(table),
        verdicts=tuple(verdicts),
    )


def _plan(count: int) -> tuple[float, float]:
    program = _PROGRAM.format(root=str(_ROOT), count=count)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    seconds, peak = done.stdout.split()
    return float(seconds), int(peak) * 1024 / 1e6


def _bare() -> float:
    run = [sys.executable, "-c", "pass"]
    return min(timed(lambda: subprocess.run(run, check=True)).seconds for _ in range(5))
