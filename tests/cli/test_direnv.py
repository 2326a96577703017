"""direnv takes a project's development shell out of its seed: ``examples/direnv/nix_seed.sh``."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from support import built, warm
from support.distribution import nix_env
from support.programs import need

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for program in ("nix", "git", "bwrap", "direnv"):
        need(program)
    project = tmp_path / "project"
    shutil.copytree(built.project(), project, symlinks=True)
    return project


def direnv(project: Path, *command: str) -> subprocess.CompletedProcess[str]:
    home = project.parent / "home"
    library = home / ".config/direnv/lib"
    library.mkdir(parents=True, exist_ok=True)
    shutil.copy(ROOT / "examples/direnv/nix_seed.sh", library)
    env = nix_env() | {
        "HOME": str(home),
        "NIX_SEED_CACHE": str(built.workshop() / "cache"),
        "PATH": warm.path(project.parent / "bin"),
    }
    return subprocess.run(
        ["direnv", *command], cwd=project, env=env, capture_output=True, text=True, check=False
    )


def test_use_nix_seed(project: Path) -> None:
    (project / ".envrc").write_text(f"use nix_seed oci:{built.layout('seed')}\n")
    assert direnv(project, "allow", ".").returncode == 0
    shell = ("exec", ".", "sh", "-c", 'command -v cc && echo "shell of: $name"')
    first = direnv(project, *shell)
    assert first.returncode == 0, first.stderr
    assert first.stdout.startswith("/nix/store/"), first.stdout
    assert "shell of: " in first.stdout
    assert "taking the shell out of the seed" in first.stderr
    again = direnv(project, *shell)
    assert again.stdout == first.stdout
    assert "taking the shell" not in again.stderr
    # A changed flake has another shell.
    with (project / "flake.nix").open("a") as file:
        file.write("# changed\n")
    assert "taking the shell out of the seed" in direnv(project, *shell).stderr


def test_a_seed_that_is_not_there_loads_nothing(project: Path) -> None:
    (project / ".envrc").write_text("use nix_seed oci:nowhere\n")
    direnv(project, "allow", ".")
    done = direnv(project, "exec", ".", "true")
    assert done.returncode != 0
    assert "there is no image layout nowhere" in done.stderr
    assert not (project / ".direnv/seed.made-of").exists()
