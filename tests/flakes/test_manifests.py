"""Builders that compile dependencies from manifests alone, as crane does: said, and baked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from nix_seed.flake.evaluate import evaluate_flake
from nix_seed.flake.nix import Nix
from nix_seed.flake.rules.choice import FlakeChoice
from nix_seed.flake.rules.recipe import input_key
from support.distribution import nix_env
from support.seeds import Ran, build, edit, names, nix_seed, product_flake, write_project

# crane's mkDummySrc: the lock file filtered from the source, a manifest that is written anew.
OUTPUTS = """
      packages.${system} =
        let
          manifest = builtins.fromTOML (builtins.readFile ./Cargo.toml);
          cleaned = builtins.path {
            path = ./.;
            name = "cleaned-mkDummySrc";
            filter = path: type: baseNameOf path == "Cargo.lock";
          };
          dummy = pkgs.runCommand "dummy-src" {
            inherit cleaned;
            toml = builtins.toJSON manifest.package;
          } "mkdir $out; cp $cleaned/Cargo.lock $out; echo \\"$toml\\" > $out/Cargo.toml";
          deps = pkgs.runCommand "app-deps-${manifest.package.version}" {
            src = dummy;
            tools = [ pkgs.zlib ];
          } "cat $src/* > $out";
        in
        {
          default = pkgs.runCommand "app" { inherit deps; src = ./src; } "cat $deps $src/* > $out";
          @seed@
        };
"""
BAKED = "seed = seeds.mkSeed { inherit self system; contents.packages = [ deps ]; };"
FILES = {
    "Cargo.lock": "version = 4\n",
    "Cargo.toml": '[package]\nname = "app"\nversion = "0.1.0"\n',
    "src/main.rs": "fn main() {}\n",
}

Make = Callable[[str], Path]


@pytest.fixture(autouse=True)
def _settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NIX_CONFIG", "NIX_USER_CONF_FILES"):
        monkeypatch.setenv(name, nix_env()[name])


@pytest.fixture
def make(distribution: Path, tmp_path: Path) -> Make:
    def make(seed: str) -> Path:
        product = product_flake(tmp_path / "product")
        outputs = OUTPUTS.replace("@seed@", seed)
        return write_project(tmp_path / "project", distribution, outputs, FILES, product=product)

    return make


def key(project: Path) -> str:
    recipe = evaluate_flake(Nix(), str(project), FlakeChoice(system="x86_64-linux")).recipe
    return input_key(recipe, {"name": "zstd"}, 64)


def notices(ran: Ran) -> list[str]:
    assert ran.code == 0, ran.err
    return [line for line in ran.err.splitlines() if "manifests alone" in line]


def test_what_manifests_alone_make_is_named(make: Make, tmp_path: Path) -> None:
    (said,) = notices(nix_seed("plan", make(""), cache=tmp_path / "cache"))
    assert said.startswith("notice: app-deps-0.1.0: built from the project's manifests alone")
    assert "mkSeed { contents.packages = [ … ]; }" in said


PATCHED = """
      packages.${system}.default = derivation {
        name = "app";
        inherit system;
        builder = "${pkgs.bash}/bin/bash";
        src = ./src;
        # What a project does to a dependency with overrideAttrs, by a file of its own.
        dep = derivation {
          name = "dep-1.2";
          inherit system;
          builder = "${pkgs.bash}/bin/bash";
          patches = [ ./nix/fix.patch ];
          args = [ "-c" "echo > $out" ];
        };
        args = [ "-c" "echo > $out" ];
      };
"""


def test_a_dependency_that_the_project_patches_is_named(distribution: Path, tmp_path: Path) -> None:
    """A commit that changes the patch leaves the key alone: so each new machine builds it."""
    files = FILES | {"nix/fix.patch": "--- a/x\n+++ b/x\n"}
    project = write_project(tmp_path / "patched", distribution, PATCHED, files)
    (said,) = notices(nix_seed("plan", project, cache=tmp_path / "cache"))
    assert said.startswith("notice: dep-1.2: built from the project's manifests alone, or its")
    first = key(project)
    edit(project, "nix/fix.patch", "a/x", "a/y")
    assert key(project) == first


def test_named_in_contents_it_is_baked(make: Make, tmp_path: Path) -> None:
    project, cache = make(BAKED), tmp_path / "cache"
    assert notices(nix_seed("plan", project, cache=cache)) == []
    made = build(project, "--prove", "-o", tmp_path / "seed", cache=cache)
    assert made["proof"]["complete"] is True
    assert "app-deps-0.1.0" in names(made)
    first = key(project)
    edit(project, "src/main.rs", "{}", "{ }")
    assert key(project) == first
    edit(project, "Cargo.lock", "4", "5")
    assert key(project) != first
