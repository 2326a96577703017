"""``bin/nix-seed``: it finds a Python, sets itself up once, and says what lacks."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from support.runner import programs
from support.steps import ROOT

LAUNCHER = ROOT / "bin/nix-seed"
# How the machine reaches its package index is its own affair.
_INDEX = ("PIP_", "UV_", "SSL_", "REQUESTS_", "HTTP", "http", "NO_PROXY", "no_proxy")


def launch(place: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if name.startswith(_INDEX)}
    base = {"PATH": os.environ["PATH"], "HOME": str(place), "NIX_SEED_TOOLS": str(place / "tools")}
    return subprocess.run(
        [LAUNCHER, *arguments],
        env=kept | base | env,
        capture_output=True,
        text=True,
        check=False,
        cwd=place,
    )


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A place in which it has set itself up."""
    place = tmp_path_factory.mktemp("launcher")
    first = launch(place, "--version")
    if "could not be installed" in first.stderr:
        pytest.skip("needs a package index within reach")
    assert first.returncode == 0, first.stderr
    assert "setting up, once" in first.stderr
    assert first.stdout.startswith("nix-seed, version")
    return place


def test_it_sets_up_once(tools: Path) -> None:
    again = launch(tools, "--version")
    assert (again.returncode, again.stderr) == (0, "")
    [place] = (tools / "tools/nix-seed").iterdir()
    assert (place / "bin/python").exists()


def test_it_runs_every_step(tools: Path) -> None:
    for step in ("setup", "seed", "use", "promote"):
        shown = launch(tools, "ci", step, "--help")
        assert shown.returncode == 0, shown.stderr
    assert "SEED_TAGS" in launch(tools, "ci", "--help").stdout + "SEED_TAGS"


def test_it_can_sign_keyless(tools: Path) -> None:
    """What Sigstore needs is among what is installed."""
    [place] = (tools / "tools/nix-seed").iterdir()
    subprocess.run([place / "bin/python", "-c", "import sigstore.sign, zstandard"], check=True)


def test_exit_codes_pass_through(tools: Path) -> None:
    assert launch(tools, "inspect", "oci:absent").returncode == 2


def test_it_needs_a_python(tmp_path: Path) -> None:
    path = programs(tmp_path)
    (path / "python3").unlink()
    old = path / "python3"
    # What Ubuntu 22.04 has.
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    env = {"PATH": str(path), "RUNNER_TOOL_CACHE": str(tmp_path)}
    failed = launch(tmp_path, "--version", **env)
    assert failed.returncode == 2
    assert "nix-seed needs Python 3.11 or newer, and PATH has none" in failed.stderr
    assert "ubuntu-24.04" in failed.stderr


def test_it_finds_the_pythons_of_a_runner(tmp_path: Path) -> None:
    """They are there, and not on PATH."""
    import sys

    path = programs(tmp_path)
    (path / "python3").unlink()
    cached = tmp_path / "Python/3.12.1/x64/bin"
    cached.mkdir(parents=True)
    used = tmp_path / "used"
    (cached / "python3").write_text(
        f'#!/bin/sh\necho used > "{used}"\nexec "{sys.executable}" "$@"\n'
    )
    (cached / "python3").chmod(0o755)
    env = {"PATH": str(path), "RUNNER_TOOL_CACHE": str(tmp_path), "NIX_SEED_TOOLS": ""}
    # Without an index nothing can be installed; which Python was asked is seen all the same.
    env |= {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path)}
    failed = launch(tmp_path, "--version", **env)
    assert used.exists()
    assert failed.returncode == 3
    assert "name it: NIX_SEED_BIN=" in failed.stderr
    assert [each for each in (tmp_path / "nix-seed").iterdir() if each.is_dir()] == []


def test_one_that_is_installed_is_used(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.write_text('#!/bin/sh\necho "own: $*"\n')
    own.chmod(0o755)
    assert launch(tmp_path, "a", "b c", NIX_SEED_BIN=str(own)).stdout == "own: a b c\n"
