"""README's story with a registry, run as it is written, from its first line to its last.

The registry is one on this machine instead of ghcr.io, and the project is the demo's. Beyond that
two things are added: this machine's own ``/nix`` is not filled, and one engine is enough.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import built, warm
from support.distribution import make_project, nix, nix_env
from support.programs import need
from support.readme import REGISTRY, ROOT, SOURCE, blocks, commands
from support.registries import docker_registry
from support.runner import git

ADDED = {
    f"nix-seed hydrate {REGISTRY}": " --root ../machine",
    f"nix-seed doctor {REGISTRY}": " --engine bwrap",
}


def story() -> Iterator[str]:
    """The commands of README's blocks for registries, in order."""
    for command in commands("sh registry"):
        yield command + next((more for start, more in ADDED.items() if start in command), "")


def one_system(project: Path) -> Path:
    """A project for this machine's system alone: there is nobody else here to build the others."""
    text = (project / "flake.nix").read_text()
    (project / "flake.nix").write_text(re.sub(r'"(aarch64-\w+|x86_64-darwin)"', "", text))
    git(project, "-c", "user.name=T", "-c", "user.email=t@localhost", "commit", "-qam", "One")
    git(project, "remote", "add", "origin", SOURCE)
    return project


def test_the_story_with_a_registry(distribution: Path, tmp_path: Path) -> None:
    need("bwrap")
    project = one_system(make_project("hello", tmp_path / "hello", distribution))
    (tmp_path / "auth.json").write_text("{}")
    env = nix_env() | {
        "PATH": warm.path(tmp_path / "bin"),
        "HOME": str(tmp_path),
        "DOCKER_CONFIG": str(tmp_path),
        "REGISTRY_AUTH_FILE": str(tmp_path / "auth.json"),
        "NIX_SEED_CACHE": str(built.layers(tmp_path / "cache")),
        "NIX_SEED_STATE": str(tmp_path / "state"),
    }
    said: dict[str, str] = {}
    with docker_registry(tmp_path / "registry", password=False) as registry:
        for command in story():
            line = command.replace(REGISTRY, registry.host)
            done = subprocess.run(
                ["bash", "-euc", line],
                cwd=project,
                env=env,
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
            said[command] = done.stdout
    told = {name: text for command, text in said.items() for name in [command.split()[1]]}
    assert set(told) >= {"init", "exists", "publish", "promote", "audit", "roots", "licences"}
    assert "verdict: VERIFIED" in told["verify"]
    assert "verdict: VERIFIED" in told["audit"]
    assert json.loads(told["sbom"])["bomFormat"] == "CycloneDX"
    assert (project / "report.html").stat().st_size > 10_000
    [pinned] = json.loads((project / "seed.lock").read_text())["systems"]
    assert pinned == "x86_64-linux"
    subprocess.run(["chmod", "-R", "u+w", tmp_path / "machine"], check=True)
    shutil.rmtree(tmp_path / "machine")


FLAKE = """\
{
  inputs.nixpkgs.url = "path:DISTRIBUTION";
  inputs.nix-seed.url = "path:NIX_SEED";
  inputs.nix-seed.inputs.nixpkgs.follows = "nixpkgs";
  outputs =
    { self, nixpkgs, nix-seed }:
    let
      system = "x86_64-linux";
      pkgs = nixpkgs.legacyPackages.${system};
      ours = {
        default = pkgs.gnused;
        docs = throw "not to be looked at";
      };
      added = {
SNIPPET
      };
    in
    {
      packages.${system} = ours // added.packages.${system};
    };
}
"""


def test_the_lines_for_a_flake_make_a_seed(distribution: Path, tmp_path: Path) -> None:
    """As they stand there: with a program more in the toolchain, and without what is excluded."""
    own = tmp_path / "nix-seed"
    own.mkdir()
    for name in ("flake.nix", "pyproject.toml"):
        shutil.copy(ROOT / name, own)
    shutil.copytree(ROOT / "src/nix_seed/flake/expressions", own / "src/nix_seed/flake/expressions")
    [snippet] = blocks("nix")

    def evaluate(name: str, snippet: str) -> str:
        """Return the outline of the seed: what it is to hold."""
        flake = tmp_path / name
        flake.mkdir()
        text = FLAKE.replace("DISTRIBUTION", str(distribution)).replace("NIX_SEED", str(own))
        (flake / "flake.nix").write_text(text.replace("SNIPPET", snippet))
        path = nix("eval", "--raw", f"path:{flake}#packages.x86_64-linux.seed.drvPath")
        shown: str = json.loads(nix("show-derivation", path))[path]["env"]["outline"]
        return shown

    line = "contents.toolchain = [ pkgs.gdb ];"
    assert "-gdb-" in evaluate("as-written", snippet)
    assert "-gdb-" not in evaluate("without", snippet.replace(line, ""))
    with pytest.raises(AssertionError, match="not to be looked at"):
        evaluate("unexcluded", re.sub(r"\n *exclude = .*", "", snippet))
