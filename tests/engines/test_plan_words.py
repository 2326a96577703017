"""The plan's words, from the Nix of this system and from a much newer one."""

from __future__ import annotations

from pathlib import Path

import pytest

from nix_seed.flake.nix import Nix
from nix_seed.formats.nix.store_path import StorePath
from nix_seed.use.rules.completeness import OfflinePlan, parse_plan
from support import engines

EXPRESSION = """
let make = name: input: derivation {
  inherit name input; system = builtins.currentSystem; builder = "/bin/sh"; };
in make "second" (make "first" "")
"""


@pytest.fixture(params=["of this system", "newer"])
def bin_dir(request: pytest.FixtureRequest) -> Path:
    if request.param == "newer":
        return engines.trixie_nix()
    return Path(engines.need("nix-store", "nix-bin")).parent


@pytest.mark.parametrize("wanted", [1, 2])
def test_a_real_plan_is_read(bin_dir: Path, tmp_path: Path, wanted: int) -> None:
    nix = Nix(store=tmp_path / "store", bin_dir=bin_dir)
    expression = EXPRESSION if wanted == 2 else EXPRESSION.replace('(make "first" "")', '""')
    second = nix.run("nix-instantiate", ["-E", expression], "instantiating").strip()
    words = plan_words(bin_dir, tmp_path / "store", second)
    plan = parse_plan(words)
    assert plan.build[-1] == StorePath.parse(second)
    assert sorted(path.name for path in plan.build) == ["first.drv", "second.drv"][-wanted:]
    assert plan == OfflinePlan(build=plan.build)


def plan_words(bin_dir: Path, store: Path, derivation: str) -> str:
    import subprocess

    command = [str(bin_dir / "nix-store"), "--store", str(store), "--option", "substituters", ""]
    command += ["--option", "build-users-group", "", "--realise", "--dry-run", derivation]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stderr
