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
    *("click", "cryptography", "cyclonedx-python-lib", "hatch-fancy-pypi-readme"),
    *("hatchling", "jinja2"),
    *("license-expression", "msgspec", "rfc8785"),
    *("scikit-build-core", "sigstore", "tomlkit", "urllib3", "zstandard"),
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
    , pythonRelaxDeps ? [ ], pythonRemoveDeps ? [ ], pythonImportsCheck ? [ ]
    , dontUseCmakeConfigure ? false, meta ? { } }:
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


def required() -> set[str]:
    """The names that pyproject.toml requires."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return {re.split(r"[^\w-]", line)[0] for line in project["dependencies"]}


@pytest.mark.parametrize("system", SYSTEMS)
def test_it_has_all_that_the_command_needs(system: str, tmp_path: Path) -> None:
    nixpkgs = stand_in(tmp_path / "nixpkgs", "11.5.0")
    path = instantiate(nixpkgs, f"packages.{system}.default.drvPath")
    assert dependencies_of(path) == required()
    program = instantiate(nixpkgs, f"apps.{system}.default.program")
    assert re.fullmatch(r"/nix/store/[a-z0-9]{32}-nix-seed-[\d.]+/bin/nix-seed", program)


@pytest.mark.parametrize("version", ["3.1.1", "12.0.0"])
def test_another_cyclonedx_is_left_out(version: str, tmp_path: Path) -> None:
    """It would write other bytes."""
    nixpkgs = stand_in(tmp_path / "nixpkgs", version)
    path = instantiate(nixpkgs, "packages.x86_64-linux.default.drvPath")
    assert dependencies_of(path) == required() - {"cyclonedx-python-lib"}


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


def test_the_template_is_the_documented_example(tmp_path: Path) -> None:
    path = instantiate(stand_in(tmp_path / "nixpkgs", "11.5.0"), "templates.default.path")
    assert (Path(path) / "flake.nix").read_text() == (
        ROOT / "examples/nixpkgs/flake.nix"
    ).read_text()


def test_the_module_for_flake_parts_hands_on_what_it_is_given() -> None:
    """Tried on flake-parts itself, with nixpkgs' library; here its two functions stand for both."""
    module = ROOT / "src/nix_seed/flake/expressions/flake-module.nix"
    made = nix(
        *("eval", "--impure", "--json", "--expr"),
        f"""
        let
          lib = {{ mkOption = x: x; types = {{ lazyAttrsOf = x: x; raw = null; }}; }};
          module = import {module} {{ mkSeed = arguments: arguments; }} {{
            inherit lib;
            self = "the flake";
            flake-parts-lib.mkPerSystemOption = make: make;
          }};
          made = module.options.perSystem {{ config.seed.exclude = [ "checks" ]; system = "s"; }};
        in
        made.config.packages.seed
        """,
    )
    assert json.loads(made) == {"self": "the flake", "system": "s", "exclude": ["checks"]}


def test_the_overlay_adds_the_command(tmp_path: Path) -> None:
    nixpkgs = stand_in(tmp_path / "nixpkgs", "11.5.0")
    apply = '(o: (o { stdenv.hostPlatform.system = "x86_64-linux"; } { }).nix-seed.name)'
    options = ("--raw", "--no-write-lock-file", "--override-input", "nixpkgs", f"path:{nixpkgs}")
    name = nix("eval", *options, f"git+file://{ROOT}#overlays.default", "--apply", apply)
    assert re.fullmatch(r"nix-seed-[\d.]+", name)
