"""docs/threat-model.md names attacks that exist, and the corpus is as large as documents say."""

from __future__ import annotations

import re
from pathlib import Path

import attacks.test_attacks  # noqa: F401  (fills the table)
from attacks.cases import CASES

DOCS = Path(__file__).resolve().parents[2] / "docs"
NAME = re.compile(r"`([a-z0-9]+(?:-[a-z0-9]+)*)`")
# Not attacks: commands, keys and files of one word.
WORDS = {"verified", "distinct", "dissent", "audit", "roots", "verify", "nix-seed", "code"}


def test_every_attack_that_is_named_exists() -> None:
    named = set(NAME.findall((DOCS / "threat-model.md").read_text())) - (WORDS - set(CASES))
    assert named <= set(CASES), named - set(CASES)
    assert len(named) > 40


def test_the_corpus_is_as_large_as_is_said() -> None:
    count = sum(
        CASES[name].prepare.__module__.split(".")[-1]
        in ("trees", "records", "roots", "indexes", "withheld", "promoters", "audits")
        for name in CASES
    )
    said = re.search(r"hold some (\d+) named attacks", (DOCS / "formats-promotion.md").read_text())
    assert said is not None
    assert abs(count - int(said.group(1))) <= 10
