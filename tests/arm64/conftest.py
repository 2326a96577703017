"""One project of two systems, both real, and its seeds; built once for all tests of this place."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from support import quick
from support.distribution import commit, distribution_for, nix
from support.emulation import need_emulation
from support.seeds import build

HERE, THERE = "x86_64-linux", "aarch64-linux"
# Tests of this directory build for both.
SETTINGS = {"extra-platforms": THERE, "max-jobs": "2"}

FLAKE = """{
  inputs.nixpkgs.url = "path:DISTRIBUTION";
  outputs = { self, nixpkgs }: {
    packages = builtins.mapAttrs (system: pkgs: {
      default = pkgs.runCommand "words" { src = ./words; } ''
        mkdir -p $out/bin
        echo "#!${pkgs.bash}/bin/bash" > $out/bin/words
        echo "echo $(cat $src) $(uname -m)" >> $out/bin/words
        chmod +x $out/bin/words
      '';
    }) { inherit (nixpkgs.legacyPackages) x86_64-linux aarch64-linux; };
  };
}
"""


@pytest.fixture(scope="module", autouse=True)
def _emulated() -> None:
    need_emulation()


@pytest.fixture(scope="module", autouse=True)
def _settings(_emulated: None) -> Any:
    """Let Nix build for the other system too, in these tests alone: others see that it does not."""
    from support import distribution

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(distribution, "NIX_SETTINGS", distribution.NIX_SETTINGS | SETTINGS)
        yield


@pytest.fixture(scope="module")
def both(_settings: None) -> Path:
    """The package set, of both systems."""
    return distribution_for(HERE, THERE)


@pytest.fixture(scope="module")
def project(both: Path) -> Path:
    """A flake of one small script. It is shared: change only a clone."""

    def make(path: Path) -> None:
        path.mkdir()
        (path / "flake.nix").write_text(FLAKE.replace("DISTRIBUTION", str(both)))
        (path / "words").write_text("first words\n")
        subprocess.run(["git", "init", "-q", "-b", "main", str(path)], check=True)
        subprocess.run(["git", "-C", str(path), "add", "-A"], check=True)
        nix("flake", "lock", cwd=path)
        commit(path, "Start")

    return quick.once("arm64-project", make)


@pytest.fixture(scope="module")
def layouts(project: Path) -> Mapping[str, Path]:
    """The layout of each system's seed."""

    def make(path: Path) -> None:
        for system in (HERE, THERE):
            how = ["--system", system, "-o", str(path / system), "--no-prove"]
            build(project, *how, cache=quick.root() / "cache")

    where = quick.once("arm64-seeds", make)
    return {system: where / system for system in (HERE, THERE)}


@pytest.fixture
def changed(project: Path, tmp_path: Path) -> Path:
    """The project after a commit that its seeds know nothing of."""
    clone = tmp_path / "project"
    subprocess.run(["git", "clone", "-q", str(project), str(clone)], check=True)
    (clone / "words").write_text("other words\n")
    commit(clone, "Change the words")
    return clone
