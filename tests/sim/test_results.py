"""The results of the full simulation are what the policies promise, and the documents theirs."""

from __future__ import annotations

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from sim.episodes import Severity, expected
from sim.hindrance import Hindrance, every_hindrance, may_block
from sim.scene import Terms
from sim.strategies import STRATEGIES, Power

sys.path.insert(0, str(Path(__file__).parents[2]))
from bench.simulate import POLICIES, simulate
from bench.simulation_report import document, plot

DOCS = Path(__file__).parents[2] / "docs"
RESULTS: dict[str, Any] = json.loads((DOCS / "simulation.json").read_bytes())


@pytest.mark.parametrize("found", RESULTS["policies"], ids=lambda found: str(found["terms"]))
def test_the_full_run_found_what_the_policy_promises(found: dict[str, Any]) -> None:
    terms = Terms(**found["terms"])
    cells = {(c["builders"], c["logs"], c["promoters"], c["registry"]): c for c in found["powers"]}
    counts = (range(n + 1) for n in (terms.builders, terms.logs, terms.promoters))
    assert set(cells) == set(product(*counts, (False, True)))
    for key, cell in cells.items():
        severity = expected(terms, Power(*key))
        assert cell["severity"] == severity.name, key
        assert bool(cell["plans"]) == (severity is not Severity.NOTHING)
    for cell in found["away"]:
        there = (
            terms.builders - cell["builders"] >= terms.threshold
            and terms.logs - cell["logs"] >= terms.needed
            and terms.promoters - cell["promoters"] >= terms.wanted
        )
        assert cell["released"] == there, cell
    for cell in found["hindered"]:
        case = Hindrance(terms, cell["plan"], cell["promoters"], cell["logs"])
        assert (case.by, cell["released"]) == (cell["by"], not may_block(case)), cell
    assert len(found["hindered"]) == len(list(every_hindrance(terms)))
    assert found["returning"]["accepted"] == []
    assert found["returning"]["plays"] >= len(STRATEGIES)


@pytest.mark.timeout(300)
@pytest.mark.slow
def test_the_present_code_gives_what_was_written_down() -> None:
    """All of the smallest policy: keys differ from run to run, and what plans come to does not."""
    with ThreadPoolExecutor(1) as pool:
        played = simulate(POLICIES[-1], pool)
    assert json.loads(json.dumps(played)) == RESULTS["policies"][-1]


def test_document_and_plot_are_of_the_results() -> None:
    assert (DOCS / "simulation.md").read_text() == document(RESULTS)
    assert (DOCS / "simulation.svg").read_text() == plot(RESULTS)
