"""What ``plan --why`` says of the project's own and of what it is built from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from support.runner import git
from support.seeds import nix_seed, write_project

OUTPUTS = """
      packages.${system} = rec {
        lib = pkgs.runCommand "lib" { src = ./src; tool = pkgs.zlib; } "";
        default = pkgs.runCommand "app" { inherit lib; } "";
        docs = pkgs.runCommand "docs" { tools = [ pkgs.gdb ]; } "";
      };
      devShells.${system}.default = pkgs.mkShell { packages = [ pkgs.zstd ]; };
"""


@pytest.fixture(scope="module")
def project(distribution: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("why") / "project"
    return write_project(where, distribution, OUTPUTS, {"src/a": "a\n"})


@pytest.mark.parametrize(
    ("target", "tier", "said", "chain"),
    [
        ("zlib-joined", "packages", "comes out the same", ["packages.lib", "lib"]),
        ("packages.default", None, "so does lib, which it is built from", ["packages.default"]),
        ("lib", None, "comes out otherwise", ["packages.lib"]),
        ("docs", None, "a file of the flake defines it", ["packages.docs"]),
        ("devShells.default", None, "a shell is made anew", ["devShells.default"]),
        ("gdb-wrapped", "packages", "comes out the same", ["packages.docs", "docs"]),
        ("grep", "toolchain", "every seed has it", []),
        # Outputs of all kinds want it: it is told once, of the tier in which it lies.
        ("bash", "base", "comes out the same", ["devShells.default", "nix-shell"]),
        ("nixpkgs", "inputs", "evaluation reads", []),
        ("patchelf-bootstrap", None, "what the seed holds is built from it", None),
    ],
)
def test_why(
    target: str,
    tier: str | None,
    said: str,
    chain: list[str] | None,
    project: Path,
    tmp_path: Path,
) -> None:
    ran = nix_seed("plan", project, "--why", target, "--json", cache=tmp_path)
    assert ran.code == 0, ran.err
    (reason,) = json.loads(ran.out)["why"]
    assert (reason["tier"], reason["chain"]) == (tier, chain or reason["chain"])
    assert said in reason["reason"]
    shown = nix_seed("plan", project, "--why", reason["path"], cache=tmp_path)
    assert reason["reason"] in shown.out


def test_what_a_file_chooses_is_told(distribution: Path, tmp_path: Path) -> None:
    outputs = """
      packages.${system}.default = pkgs.runCommand "app" { src = ./src; tool =
        { "1.2" = pkgs.zlib; "1.3" = pkgs.zstd; }.${builtins.readFile ./SERIES}; } "";
    """
    files = {"SERIES": "1.2", "src/a": "a\n"}
    project = write_project(tmp_path / "project", distribution, outputs, files)
    ran = nix_seed("plan", project, "--why", "zlib-joined", "--json", cache=tmp_path / "cache")
    assert ran.code == 0, ran.err
    (reason,) = json.loads(ran.out)["why"]
    assert reason["tier"] == "packages"
    assert "a file of the project chooses it" in reason["reason"]


def test_what_is_nowhere_is_told_from_what_is(project: Path, tmp_path: Path) -> None:
    ran = nix_seed("plan", project, "--why", "emacs", cache=tmp_path)
    assert ran.code == 2
    assert "emacs is nothing that the image or the flake's outputs are built from" in ran.err


def test_a_plan_says_where_no_experiment_decided(distribution: Path, tmp_path: Path) -> None:
    outputs = """
      packages.${system}.default = if builtins.readFile ./fixed.sh == "as it is\\n"
        then pkgs.runCommand "app" { src = ./src; z = pkgs.zlib; } "" else abort "altered";
    """
    files = {"fixed.sh": "as it is\n", "src/a": "a\n"}
    project = write_project(tmp_path / "project", distribution, outputs, files)
    ran = nix_seed("plan", project, "--why", "app", cache=tmp_path)
    assert (
        "notice: the flake does not evaluate with all of its files altered (error: eval" in ran.err
    )
    assert "of packages.default the project's own is what is built from copies" in ran.err
    assert "it is built from the project's files" in ran.out


DOWNLOAD = """
      packages.${system}.default = pkgs.runCommand "app" { modules = derivation {
        name = "modules-@name@";
        inherit system;
        builder = "${pkgs.bash}/bin/bash";
        args = [ "-c" "echo fetched > $out" ];
        outputHashMode = "flat";
        outputHashAlgo = "sha256";
        outputHash = builtins.hashString "sha256" "fetched\\n";
      }; } "";
"""


def test_a_download_that_each_commit_names_anew_is_said(distribution: Path, tmp_path: Path) -> None:
    outputs = DOWNLOAD.replace("@name@", "${self.rev}")
    project = write_project(tmp_path / "project", distribution, outputs)
    name = f"modules-{git(project, 'rev-parse', 'HEAD')}"
    ran = nix_seed("plan", project, "--why", name, "--json", cache=tmp_path / "cache")
    assert ran.code == 0, ran.err
    (reason,) = json.loads(ran.out)["why"]
    assert reason["tier"] is None
    assert "its name holds the commit" in reason["reason"]
    assert "fetched by a hash, under a name that holds the commit" in ran.err


def test_a_download_that_a_version_names_is_said(distribution: Path, tmp_path: Path) -> None:
    outputs = DOWNLOAD.replace(
        "@name@", '${builtins.head (builtins.split "\\n" (builtins.readFile ./VERSION))}'
    )
    project = write_project(tmp_path / "project", distribution, outputs, {"VERSION": "1.2\n"})
    ran = nix_seed("plan", project, cache=tmp_path / "cache")
    assert ran.code == 0, ran.err
    assert "notice: modules-1.2: fetched by a hash, under a name that holds a version" in ran.err
    steady = DOWNLOAD.replace("@name@", "1.2")
    project = write_project(tmp_path / "steady", distribution, steady, {"VERSION": "1.2\n"})
    assert "notice" not in nix_seed("plan", project, cache=tmp_path / "cache").err
