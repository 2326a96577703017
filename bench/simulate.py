"""``python bench/simulate.py``: every adversary against every policy, over the real code.

    python bench/simulate.py [--jobs N] [--output DIR]

Plays each plan of ``tests/sim/strategies.py`` with every combination of builders, logs, promoters
and registry under control, against four policies; then honest releases with every combination of
them away, and with those in the way who lie (``tests/sim/liars.py``). Writes
``docs/simulation.json``, and the page and the plot that are made from it.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / part) for part in (".", "tests")]

from bench.simulation_report import document, plot  # noqa: E402
from sim.episodes import (  # noqa: E402
    Episode,
    Result,
    Severity,
    every_power,
    expected,
    judge,
    releases_without,
    returning,
)
from sim.hindrance import Hindrance, every_hindrance, may_block, releases_despite  # noqa: E402
from sim.scene import Terms  # noqa: E402
from sim.strategies import STRATEGIES, Power, used_by  # noqa: E402

__all__ = ["POLICIES", "main", "simulate"]

POLICIES = (
    Terms(builders=3, threshold=2, logs=3, needed=2, promoters=3, wanted=2),
    Terms(builders=5, threshold=3, logs=2, needed=1, promoters=2, wanted=1),
    Terms(builders=4, threshold=3, logs=3, needed=3, promoters=2, wanted=2),
    Terms(builders=2, threshold=2, logs=1, needed=1, promoters=1, wanted=1),
)


def simulate(terms: Terms, pool: Executor) -> dict[str, Any]:
    """Play everything against one policy."""
    start = time.perf_counter()
    print(f"{terms}:", flush=True)
    episodes = sorted(set(_episodes(terms)), key=str)
    results = dict(zip(episodes, pool.map(judge, episodes, chunksize=8), strict=True))
    powers = [_power(terms, power, results) for power in every_power(terms)]
    counts = (range(n + 1) for n in (terms.builders, terms.logs, terms.promoters))
    downs = list(product(*counts))
    away = pool.map(releases_without, [terms] * len(downs), downs, chunksize=4)
    everything = Power(terms.builders, terms.logs, terms.promoters, registry=True)
    plays = [Episode(terms, everything, name, True) for name in STRATEGIES]
    back = list(pool.map(returning, plays))
    hindrances = list(every_hindrance(terms))
    despite = list(pool.map(releases_despite, hindrances))
    questions = sum(result.asked for result in results.values())
    seconds = time.perf_counter() - start
    print(f"  {len(episodes)} releases, {questions} questions, {seconds:.0f} s", flush=True)
    return {
        "terms": asdict(terms),
        "releases": len(episodes) + len(downs) + len(plays) + len(hindrances),
        "questions": questions,
        "combinations": len(powers) * len(STRATEGIES),
        "powers": powers,
        "away": [
            {"builders": b, "logs": lg, "promoters": p, "released": done}
            for (b, lg, p), done in zip(downs, away, strict=True)
        ],
        "hindered": [_hindered(case, done) for case, done in zip(hindrances, despite, strict=True)],
        "returning": {
            "plays": len(plays),
            "accepted": [e.strategy for e, yes in zip(plays, back, strict=True) if yes],
        },
    }


def _episodes(terms: Terms) -> Iterator[Episode]:
    for power, name, spoken in product(every_power(terms), STRATEGIES, (False, True)):
        yield Episode(terms, used_by(name, power), name, spoken)


def _power(terms: Terms, power: Power, results: dict[Episode, Result]) -> dict[str, Any]:
    """Return the worst that *power* came to, and by which plans."""
    worst: dict[str, Severity] = {}
    for name, spoken in product(STRATEGIES, (False, True)):
        found = results[Episode(terms, used_by(name, power), name, spoken)].severity
        worst[name] = max(found, worst.get(name, Severity.NOTHING))
    severity = max(worst.values())
    reached = severity is not Severity.NOTHING
    plans = [name for name, each in worst.items() if reached and each is severity]
    return asdict(power) | {"severity": severity.name, "plans": plans}


def _hindered(case: Hindrance, released: bool) -> dict[str, Any]:
    return {
        "by": case.by,
        "plan": case.plan,
        "promoters": case.promoters,
        "logs": case.logs,
        "released": released,
    }


def main() -> None:
    """Simulate, and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes [all cores]")
    parser.add_argument("--output", type=Path, default=ROOT / "docs", help="[docs]")
    arguments = parser.parse_args()
    with ProcessPoolExecutor(arguments.jobs) as pool:
        results: dict[str, Any] = {"policies": [simulate(terms, pool) for terms in POLICIES]}
    arguments.output.mkdir(parents=True, exist_ok=True)
    text = json.dumps(results, indent=1) + "\n"
    (arguments.output / "simulation.json").write_text(text)
    (arguments.output / "simulation.md").write_text(document(results))
    (arguments.output / "simulation.svg").write_text(plot(results))
    policies = results["policies"]
    broken = [each for found in policies for each in found["powers"] if _broken(found, each)]
    if broken:
        sys.exit(f"{len(broken)} combinations are not as the policy promises: {broken[0]}")
    blocked = [each for found in policies for each in found["hindered"] if _blocked(found, each)]
    if blocked:
        sys.exit(f"{len(blocked)} hindrances do not end as the policy promises: {blocked[0]}")


def _broken(found: dict[str, Any], power: dict[str, Any]) -> bool:
    names = ("builders", "logs", "promoters", "registry")
    promised = expected(Terms(**found["terms"]), Power(*(power[name] for name in names)))
    return bool(power["severity"] != promised.name)


def _blocked(found: dict[str, Any], case: dict[str, Any]) -> bool:
    terms = Terms(**found["terms"])
    promised = not may_block(Hindrance(terms, case["plan"], case["promoters"], case["logs"]))
    return bool(case["released"] is not promised)


if __name__ == "__main__":
    main()
