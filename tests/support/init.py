"""Repositories to run ``nix-seed init`` in, and what it wrote."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from nix_seed.release.load import load_policy
from nix_seed.trust.rules.policy import Policy
from support import warm
from support.distribution import nix_env
from support.programs import need

FLAKE = """{
  outputs = { self }: {
    packages.x86_64-linux.default = derivation {
      name = "a"; system = "x86_64-linux"; builder = "/bin/sh";
    };
  };
}
"""


def git(repository: Path, *arguments: str) -> str:
    command = ["git", "-C", str(repository), "-c", "user.name=t", "-c", "user.email=t@example"]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def make(path: Path, text: str, origin: str | None = "git@github.com:me/thing.git") -> Path:
    need("git")
    path.mkdir()
    git(path, "init", "-q", "-b", "trunk")
    if origin is not None:
        git(path, "remote", "add", "origin", origin)
    (path / "flake.nix").write_text(text)
    git(path, "add", ".")
    git(path, "commit", "-qm", "first")
    return path


def init(
    repository: Path, *arguments: str, env: dict[str, str] | None = None, stdin: str = ""
) -> subprocess.CompletedProcess[str]:
    where = () if any(each.startswith("/") for each in arguments) else (str(repository),)
    return warm.run(["init", *arguments, *where], env or nix_env(), text=stdin)


def done(repository: Path, *arguments: str) -> dict[str, Any]:
    result = init(repository, *arguments, "--json")
    assert result.returncode == 0, result.stderr
    value: dict[str, Any] = json.loads(result.stdout)
    return value


def policy(repository: Path) -> Policy:
    from datetime import UTC, datetime

    return load_policy(repository / "trust.toml", datetime.now(UTC)).policy
