"""All of a seed unpacked from a registry on loopback, against other ways to the same store.

The race itself is ``bench/hydrate.py``; here its result becomes rows. What counts is processor
time: a link decides how long it takes, and a machine that unpacks does nothing else meanwhile.
"""

from __future__ import annotations

import subprocess

from bench import hydrate as race
from bench.context import Context, layout_of
from bench.table import Section, Verdict

__all__ = ["rows"]

_NIX = "nix copy, zstd"
_MOST = 1.3


def rows(context: Context) -> Section:
    """Race for the demo's seed; in a quick run for a run image."""
    subject = context.small
    image = layout_of(context, subject)
    work = context.directory("unpack")
    try:
        result = race.bench(image, work, rounds=1 if context.quick else 2)
    finally:
        subprocess.run(["chmod", "-R", "u+w", str(work)], check=False, capture_output=True)
    own = result.rows[0]
    for row in result.rows:
        context.say(f"  {row.name}: {row.seconds:.2f} s, {row.processor:.2f} CPU")
    return Section(
        title="All of a seed, unpacked",
        intro=(race.__doc__ or "").split("By hand")[0].split("\n\n", 1)[1].strip(),
        columns=("contender", "s", "× ours", "CPU, s", "× ours"),
        rows=tuple(
            (
                row.name,
                f"{row.seconds:.2f}",
                f"{row.ratio:.1f}",
                f"{row.processor:.2f}",
                f"{row.processor / own.processor:.2f}",
            )
            for row in result.rows
        ),
        verdicts=() if context.quick else _verdicts(result),
        notes=(f"{subject.about}.", "What a daemon does, Docker's, is not in its CPU."),
    )


def _verdicts(result: race.Result) -> tuple[Verdict, ...]:
    own = result.rows[0]
    return tuple(
        Verdict(
            f"unpacking all of a seed, {result.nar_size / 1e6:,.0f} MB",
            row.name,
            f"{own.processor / row.processor:.2f} × its CPU",
            f"{_MOST:g} ×",
            own.processor <= _MOST * row.processor,
            f"ours takes {own.processor:.2f} CPU seconds, {row.name} {row.processor:.2f}.",
        )
        for row in result.rows
        if row.name == _NIX
    )
