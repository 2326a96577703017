"""Verification of a release, offline: the figures of ``bench/verify.py``, as rows."""

from __future__ import annotations

from bench import verify
from bench.context import Context
from bench.table import Section, Verdict

__all__ = ["rows"]

_QUICK, _WHOLE = (10, 40), (1_000, 10_000)


def rows(context: Context) -> Section:
    """Measure the command from outside, and how its work grows with the attestations."""
    found = verify.run(_QUICK if context.quick else _WHOLE)
    for name, value, unit, _ in found:
        context.say(f"  {name}: {value:.2f} {unit}")
    return Section(
        title="Verification",
        intro="The whole command, start-up included; then reading and judging alone, in one "
        "process, for as many attestations as a busy project may collect.",
        columns=("work", "measured", "at most"),
        rows=tuple(
            (name, f"{value:.2f} {unit}", "" if most is None else f"{most:g} {unit}")
            for name, value, unit, most in found
        ),
        verdicts=()
        if context.quick
        else tuple(
            Verdict(name, "–", f"{value:.2f} {unit}", f"{most:g} {unit}", value <= most)
            for name, value, unit, most in found
            if most is not None
        ),
    )
