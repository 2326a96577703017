"""``make project``: an example project as a Git repository of its own."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

from debian_flake.distribution import is_distribution
from debian_flake.errors import Failure
from debian_flake.store import Store

EXAMPLES = Path(__file__).resolve().parent.parent.parent
_INPUT = re.compile(r'nixpkgs\.url = "[^"]*"')


def projects() -> list[str]:
    """Return the names of the example projects that build on the distribution."""
    return sorted(f.parent.name for f in EXAMPLES.glob("*/flake.nix") if f.parent.name != "nixpkgs")


def make_project(name: str, directory: Path, distribution: Path, store: Store) -> Path:
    """Copy the example, point it at the distribution, lock it and commit it."""
    if name not in projects():
        raise Failure(f"no example project {name!r}", f"there are: {', '.join(projects())}")
    if not is_distribution(distribution):
        raise Failure(f"{distribution} is no distribution", "make one: ./make distribution DIR")
    if directory.exists():
        raise Failure(f"{directory} exists already", "name a directory that does not exist yet")
    shutil.copytree(EXAMPLES / name, directory)
    point_at(directory, distribution)
    _git(directory, "init", "-q", "-b", "main")
    _git(directory, "add", "-A")
    store.run("nix", "flake", "lock", cwd=directory)
    _git(directory, "add", "-A")
    _git(directory, "commit", "-q", "-m", f"Start {name}")
    return directory


def point_at(directory: Path, distribution: Path) -> None:
    """Make the project's flake take its packages from this distribution."""
    flake = directory / "flake.nix"
    url = f'nixpkgs.url = "path:{distribution.resolve()}"'
    text, count = _INPUT.subn(lambda _: url, flake.read_text())
    if count != 1:
        raise Failure(f"{flake} has no input named nixpkgs")
    flake.write_text(text)


def _git(directory: Path, *arguments: str) -> None:
    # The user's own settings (signing, hooks, templates) do not belong in a demonstration.
    identity = ["-c", "user.name=Example", "-c", "user.email=example@localhost",
                "-c", "commit.gpgsign=false", "-c", "core.hooksPath=/dev/null"]  # fmt: skip
    if shutil.which("git") is None:
        raise Failure("git not found", "install it: apt-get install git")
    command = ["git", *identity, *arguments]
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Failure(f"git {arguments[0]} failed in {directory}:\n{done.stderr.strip()}")
