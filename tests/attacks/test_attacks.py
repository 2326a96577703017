"""Every attack of the table, against the command itself."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import attacks.bundles
import attacks.claims
import attacks.histories
import attacks.indexes
import attacks.keyless
import attacks.logs
import attacks.outputs
import attacks.policies
import attacks.promoters
import attacks.records
import attacks.roots
import attacks.stores
import attacks.trees
import attacks.withheld  # noqa: F401  (each fills the table)
from attacks.cases import CASES, Case
from nix_seed.cli.main import main


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_attack(
    case: Case,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    world = case.make(tmp_path)
    case.prepare(world)
    monkeypatch.setattr(sys, "argv", ["nix-seed", *case.command(world)])
    with pytest.raises(SystemExit) as ended:
        main()
    printed = "".join(capsys.readouterr())
    assert case.reason in printed
    assert ended.value.code == case.code, printed
