"""Outputs of every kind that a seed can be for."""

from __future__ import annotations

from pathlib import Path

import pytest

from nix_seed.core.errors import NixFailed
from nix_seed.flake.evaluate import Evaluation, declared_systems, evaluate_flake
from nix_seed.flake.nix import Nix
from nix_seed.flake.rules.choice import FlakeChoice
from nix_seed.use.rules.subset import Selection, needed_outputs
from support.distribution import nix_env
from support.seeds import product_flake, write_project

OUTPUTS = """
      packages.${system} =
        let
          seed = include: seeds.mkSeed { inherit self system include; };
        in
        {
          default = make "app" pkgs.zlib;
          all = seeds.mkSeed { inherit self system; };
          server = seed [ "nixosConfigurations.server" ];
          configurations =
            seed [ "nixosConfigurations" "darwinConfigurations" "homeConfigurations" ];
          legacy = seed [ "legacyPackages.tool" "checks" ];
          whole = seed [ "legacyPackages" ];
          jobs = seed [ "hydraJobs" ];
          job = seed [ "hydraJobs.one" "formatter" ];
        };
      formatter.${system} = pkgs.gdb;
      legacyPackages.${system} = { tool = make "tool" pkgs.zstd; other = throw "not this"; };
      hydraJobs.one.${system} = make "one" pkgs.zlib;
      hydraJobs.${system}.two = make "two" pkgs.gdb;
      nixosConfigurations = {
        server.config.system.build.toplevel = make "server" pkgs.zlib;
        laptop.config.system.build.toplevel = make "laptop" pkgs.gdb;
      };
      darwinConfigurations.mac.system = make "mac" pkgs.zstd;
      homeConfigurations.me.activationPackage = make "me" pkgs.patchelf;
"""
MAKE = 'make = name: tool: pkgs.runCommand name { inherit tool; src = ./src; } "";\n    in'


@pytest.fixture(scope="module")
def project(distribution: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("kinds")
    product = product_flake(root / "nix-seed")
    made = write_project(root / "project", distribution, "", {"src/a": "a\n"}, product=product)
    flake = (made / "flake.nix").read_text().replace("in\n    {\n", f"{MAKE}\n    {{\n{OUTPUTS}")
    (made / "flake.nix").write_text(flake)
    return made


def evaluated(project: Path, attr: str, monkeypatch: pytest.MonkeyPatch) -> Evaluation:
    for name in ("NIX_CONFIG", "NIX_USER_CONF_FILES"):
        monkeypatch.setenv(name, nix_env()[name])
    return evaluate_flake(Nix(), str(project), FlakeChoice(attr=attr, system="x86_64-linux"))


@pytest.mark.parametrize(
    ("attr", "outputs", "needs"),
    [
        ("all", {"packages.default", "formatter.default"}, {"zlib", "gdb"}),
        ("server", {"nixosConfigurations.server"}, {"zlib"}),
        (
            "configurations",
            {
                "nixosConfigurations.server",
                "nixosConfigurations.laptop",
                "darwinConfigurations.mac",
                "homeConfigurations.me",
            },
            {"zlib", "gdb", "zstd", "patchelf"},
        ),
        ("legacy", {"legacyPackages.tool"}, {"zstd"}),
        ("jobs", {"hydraJobs.one", "hydraJobs.two"}, {"zlib", "gdb"}),
        ("job", {"hydraJobs.one", "formatter.default"}, {"zlib", "gdb"}),
    ],
)
def test_kinds(
    attr: str,
    outputs: set[str],
    needs: set[str],
    project: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = evaluated(project, attr, monkeypatch)
    assert {entry.output for entry in found.recipe.outline.project.all} == outputs
    assert found.recipe.walked == ()
    tiers = {"packages", "apps", "checks", "devShells"}
    wanted = {
        path.package.split("-")[0]
        for tier in found.recipe.tiers
        if tier.name in tiers
        for path in tier.outputs
    }
    assert needs <= wanted <= needs | {"bash", "busybox"}
    # Each can be asked for alone.
    for output in outputs:
        assert needed_outputs(found.ownership, [Selection.parse(output, "x86_64-linux")])


def test_a_whole_package_set_is_refused(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NixFailed) as caught:
        evaluated(project, "whole", monkeypatch)
    assert "include must name single outputs of legacyPackages" in (caught.value.detail or "")


def test_a_package_called_seed_says_nothing_of_systems(distribution: Path, tmp_path: Path) -> None:
    outputs = "packages.${system}.seed = pkgs.zlib; packages.aarch64-linux.default = pkgs.zlib;"
    project = write_project(tmp_path / "project", distribution, outputs)
    assert declared_systems(Nix(), str(project)) == ("aarch64-linux", "x86_64-linux")
