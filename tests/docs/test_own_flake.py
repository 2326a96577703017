"""The project's own ``flake.nix``, instantiated with a stand-in for nixpkgs: same names, no builds.

The names are those of nixpkgs' package set: one that is not there fails as it would with nixpkgs,
and so does an argument that its functions are not given here.
"""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from support.distribution import nix, require_nix

ROOT = Path(__file__).resolve().parents[2]
SYSTEMS = ("x86_64-linux", "aarch64-linux", "x86_64-darwin", "aarch64-darwin")
# pkgs/development/python-modules has a folder of each of these names, and none called deflate.
PYTHON = (
    *("click", "cryptography", "cyclonedx-python-lib", "hatchling", "jinja2"),
    *("license-expression", "msgspec", "rfc8785", "rich"),
    *("scikit-build-core", "sigstore", "urllib3", "zstandard"),
)
_FLAKE = """\
{
  outputs = _: {
    legacyPackages = builtins.listToAttrs (
      map (system: { name = system; value = import ./packages.nix system; }) [ SYSTEMS ]
    );
  };
}
"""
_PACKAGES = """\
system:
let
  make = name: more: derivation ({ inherit name system; builder = "/bin/sh"; } // more);
  package = name: { inherit name; value = make name { } // { version = "CYCLONEDX"; }; };
  build =
    { pname, version, pyproject, src, build-system, dependencies ? [ ], nativeBuildInputs ? [ ]
    , pythonRelaxDeps ? [ ], pythonImportsCheck ? [ ], dontUseCmakeConfigure ? false, meta ? { } }:
    assert pyproject;
    make "${pname}-${version}" {
      inherit src dependencies nativeBuildInputs pythonRelaxDeps;
      buildSystem = build-system;
    };
in
{
  cmake = make "cmake" { };
  ninja = make "ninja" { };
  fetchPypi = { pname, version, hash }: make "${pname}-${version}.tar.gz" { outputHash = hash; };
  lib = {
    licenses.mit = { };
    optional = condition: value: if condition then [ value ] else [ ];
    versionAtLeast = one: other: builtins.compareVersions one other >= 0;
    versionOlder = one: other: builtins.compareVersions one other < 0;
  };
  python3Packages = builtins.listToAttrs (map package [ PYTHON ]) // {
    buildPythonPackage = build;
    buildPythonApplication = build;
  };
}
"""


def stand_in(place: Path, cyclonedx: str) -> Path:
    def words(names: tuple[str, ...]) -> str:
        return " ".join(f'"{name}"' for name in names)

    place.mkdir()
    (place / "flake.nix").write_text(_FLAKE.replace("SYSTEMS", words(SYSTEMS)))
    text = _PACKAGES.replace("PYTHON", words(PYTHON)).replace("CYCLONEDX", cyclonedx)
    (place / "packages.nix").write_text(text)
    return place


def instantiate(nixpkgs: Path, attribute: str) -> Any:
    require_nix()
    # What an earlier run left in Nix's cache of evaluations is no part of what is asked.
    options = ("--json", "--no-eval-cache", "--no-write-lock-file")
    override = ("--override-input", "nixpkgs", f"path:{nixpkgs}")
    return json.loads(nix("eval", *options, *override, f"git+file://{ROOT}#{attribute}"))


def dependencies_of(path: str) -> set[str]:
    """The names of what the derivation *path* is to have at run time."""
    shown = json.loads(nix("show-derivation", path))[path]
    paths = shown["env"]["dependencies"].split()
    names = (re.sub(r"^/nix/store/[a-z0-9]{32}-", "", each) for each in paths)
    return {re.sub(r"-\d.*$", "", name) for name in names}


def required(*extras: str) -> set[str]:
    """The names that pyproject.toml requires, with *extras*."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = list(project["dependencies"])
    for extra in extras:
        lines += project["optional-dependencies"][extra]
    return {re.split(r"[^\w-]", line)[0] for line in lines}


@pytest.mark.parametrize("system", SYSTEMS)
def test_it_has_all_that_the_command_needs(system: str, tmp_path: Path) -> None:
    nixpkgs = stand_in(tmp_path / "nixpkgs", "11.5.0")
    path = instantiate(nixpkgs, f"packages.{system}.default.drvPath")
    assert dependencies_of(path) == required("sigstore", "sbom")
    program = instantiate(nixpkgs, f"apps.{system}.default.program")
    assert re.fullmatch(r"/nix/store/[a-z0-9]{32}-nix-seed-[\d.]+/bin/nix-seed", program)


@pytest.mark.parametrize("version", ["3.1.1", "12.0.0"])
def test_another_cyclonedx_is_left_out(version: str, tmp_path: Path) -> None:
    """It would write other bytes."""
    nixpkgs = stand_in(tmp_path / "nixpkgs", version)
    path = instantiate(nixpkgs, "packages.x86_64-linux.default.drvPath")
    assert dependencies_of(path) == required("sigstore")


def test_its_deflate_is_the_locked_one(tmp_path: Path) -> None:
    locked = tomllib.loads((ROOT / "uv.lock").read_text())["package"]
    [deflate] = [each for each in locked if each["name"] == "deflate"]
    text = (ROOT / "flake.nix").read_text()
    assert f'version = "{deflate["version"]}";' in text
    [stated] = re.findall(r'hash = "(sha256-.+)";', text)
    sri = nix(
        "hash", "to-sri", "--type", "sha256", deflate["sdist"]["hash"].removeprefix("sha256:")
    )
    assert stated == sri
