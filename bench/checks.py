"""Verification of a release, offline: what ``bench/verify.py`` measures, as rows."""

from __future__ import annotations

import importlib
import importlib.util

from bench.context import Context
from bench.table import Section, Verdict

__all__ = ["rows"]

_WORK = "verify, 3 builders × 4 systems, offline"


def rows(context: Context) -> Section:
    """Ask ``bench.verify``, which measures the command from outside."""
    if importlib.util.find_spec("bench.verify") is None:
        verdict = Verdict(_WORK, "–", "there is no bench/verify.py yet", "0.5 s", None)
        return Section("Verification", "Not measured.", ("work", "s"), (), (verdict,))
    context.say("  asking bench/verify.py")
    found: Section = importlib.import_module("bench.verify").rows(context)
    return found
