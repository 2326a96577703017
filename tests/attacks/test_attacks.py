"""Every attack of the table, against the command itself."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import attacks.bundles
import attacks.claims
import attacks.histories
import attacks.keyless
import attacks.logs
import attacks.policies
import attacks.stores  # noqa: F401  (each fills the table)
from attacks.cases import CASES, Case
from nix_seed.cli.main import main
from support.trust import World


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_attack(
    case: Case,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    world = World(tmp_path)
    case.prepare(world)
    command = ["verify", world.reference, "--policy", str(world.write_policy()), *world.arguments]
    monkeypatch.setattr(sys, "argv", ["nix-seed", *command])
    with pytest.raises(SystemExit) as ended:
        main()
    printed = "".join(capsys.readouterr())
    assert case.reason in printed
    assert ended.value.code == case.code, printed
