"""Tutorials and how-tos: the commands of each are one session, run in a fresh home.

nixpkgs is the demo's package set, ``ghcr.io`` a registry on this machine. A page
that goes on from another is run after it, in the same session.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from support import warm
from support.distribution import nix_env
from support.guides import NIXPKGS, blocks, check_shown, script_of
from support.programs import need
from support.registries import docker_registry

ROOT = Path(__file__).resolve().parents[2]
SESSIONS = {
    "tutorials": (
        "tutorials/first-seed.md",
        "tutorials/three-builders.md",
        "howto/builder.md",
        "howto/audit-a-project.md",
        "howto/air-gapped.md",
        "howto/move.md",
    ),
}
PAGES = [page for session in SESSIONS.values() for page in session]


def session_env(home: Path, path: str) -> dict[str, str]:
    """A user's environment with nothing in its home."""
    home.mkdir(exist_ok=True)
    (home / "auth.json").write_text("{}")
    gone = {"NIX_SEED_CACHE", "NIX_SEED_STATE", "PYTHONPATH", "CI"}
    kept = {name: value for name, value in nix_env().items() if name not in gone}
    names = ("GIT_AUTHOR_NAME", "GIT_COMMITTER_NAME", "GIT_AUTHOR_EMAIL", "GIT_COMMITTER_EMAIL")
    return (
        kept
        | dict.fromkeys(names, "you@forge.example")
        | {
            "HOME": str(home),
            "PATH": path,
            "DOCKER_CONFIG": str(home),
            "REGISTRY_AUTH_FILE": str(home / "auth.json"),
        }
    )


def walk(page: str, place: Path, env: dict[str, str], swaps: dict[str, str]) -> str:
    """Run a page's commands in *place*, and see that it printed what the page shows."""
    done = subprocess.run(
        ["bash", "-euxc", script_of(page, swaps)],
        cwd=place,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{page}\n{done.stdout}{done.stderr}"
    check_shown(page, done.stdout)
    return done.stdout


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    subprocess.run(["chmod", "-R", "u+w", tmp_path], check=False)
    shutil.rmtree(tmp_path, ignore_errors=True)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("session", SESSIONS)
def test_the_commands_work(session: str, distribution: Path, place: Path) -> None:
    for program in ("nix", "git", "bwrap"):
        need(program)
    env = session_env(place / "home", warm.path(place / "warm"))
    with (
        docker_registry(place / "registry", password=False) as registry,
        docker_registry(place / "internal-registry", password=False) as internal,
    ):
        swaps = {
            NIXPKGS: f"path:{distribution}",
            "ghcr.io": registry.host,
            "registry.internal": internal.host,
        }
        for page in SESSIONS[session]:
            walk(page, place, env, swaps)


# What `nix run` has of nixpkgs here: a builder that installs the flake's own source, for this
# environment's Python and packages; all else of the package is nixpkgs' to build.
_STAND_IN = """{
  inputs.distribution.url = "path:%s";
  outputs = { self, distribution }: {
    legacyPackages.x86_64-linux =
      let
        pkgs = distribution.legacyPackages.x86_64-linux;
        install = { pname, version, src, ... }: pkgs.runCommand "${pname}-${version}" { } ''
          mkdir -p $out/bin
          echo '#!%s' >$out/bin/nix-seed
          echo 'import sys; sys.path[:0] = ["${src}/src", "%s"]' >>$out/bin/nix-seed
          echo 'from nix_seed.cli.main import main; main()' >>$out/bin/nix-seed
          chmod +x $out/bin/nix-seed
        '';
        any = name: { inherit name; value = { version = "0"; }; };
      in
      {
        fetchPypi = _: null;
        cmake = null;
        ninja = null;
        lib = {
          licenses.mit = { };
          optional = condition: value: if condition then [ value ] else [ ];
          versionAtLeast = one: other: builtins.compareVersions one other >= 0;
          versionOlder = one: other: builtins.compareVersions one other < 0;
        };
        python3Packages = builtins.listToAttrs (map any [ %s ]) // {
          buildPythonApplication = install;
          buildPythonPackage = install;
        };
      };
  };
}
"""


@pytest.mark.timeout(900)
def test_nix_run_walks_through_the_first_tutorial(distribution: Path, place: Path) -> None:
    """As committed: a file that Git does not track would be missed."""
    for program in ("nix", "git", "bwrap"):
        need(program)
    origin = place / "origin"
    subprocess.run(["git", "clone", "-q", ROOT, origin], check=True)
    site = Path(msgspec.__file__).parents[1]
    lacking = re.findall(r"^ +([\w-]+)$", (origin / "flake.nix").read_text(), re.MULTILINE)
    names = " ".join(
        f'"{name}"' for name in (*lacking, "scikit-build-core", "cyclonedx-python-lib")
    )
    (place / "nixpkgs").mkdir()
    text = _STAND_IN % (distribution, sys.executable, site, names)
    (place / "nixpkgs/flake.nix").write_text(text)
    (place / "bin").mkdir()
    command = place / "bin/nix-seed"
    with_it = f"--override-input nixpkgs path:{place}/nixpkgs --no-write-lock-file"
    command.write_text(f'#!/bin/sh\nexec nix run {with_it} git+file://{origin} -- "$@"\n')
    command.chmod(0o755)
    env = session_env(place / "home", f"{place / 'bin'}{os.pathsep}{os.environ['PATH']}")
    swaps = {NIXPKGS: f"path:{distribution}"}
    walk("tutorials/first-seed.md", place, env, swaps)
    built = list(Path("/nix/store").glob("*-nix-seed-[0-9]*/bin/nix-seed"))
    assert built, "nix run built it"


def test_every_page_with_commands_is_in_a_session() -> None:
    found = [*(ROOT / "docs/tutorials").glob("*.md"), *(ROOT / "docs/howto").glob("*.md")]
    pages = {str(path.relative_to(ROOT / "docs")) for path in found}
    assert {page for page in pages if blocks(page)} == set(PAGES)
