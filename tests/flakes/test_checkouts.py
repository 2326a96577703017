"""What Nix and Git say as they move on, and what becomes of it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from nix_seed.core.errors import CouldNotCheck, InputError
from nix_seed.flake.checkout import read_checkout, read_repository
from nix_seed.flake.nix import Nix
from support.seeds import nix_seed, write_project

OUTPUTS = 'packages.${system}.default = pkgs.runCommand "app" { src = ./src; } "";'

# Nix itself, but for what it says of a flake.
MOVED_ON = """#!{python}
import json, subprocess, sys
done = subprocess.run(["{nix}", *sys.argv[1:]], capture_output=True)
sys.stderr.buffer.write(done.stderr)
out = done.stdout
if "metadata" in sys.argv and done.returncode == 0:
    value = json.loads(out)
    {change}
    out = json.dumps(value).encode()
sys.stdout.buffer.write(out)
sys.exit(done.returncode)
"""
NEVER_MADE = "/nix/store/00000000000000000000000000000000-source"


@pytest.fixture(scope="module")
def project(distribution: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("moved") / "project"
    return write_project(where, distribution, OUTPUTS, {"src/a": "a\n"})


@pytest.mark.parametrize(
    "change",
    [
        'del value["path"]',
        f'value["path"] = "{NEVER_MADE}"',
        'del value["path"]; value["locked"].pop("narHash", None)',
    ],
)
@pytest.mark.parametrize("dirty", [False, True])
def test_metadata_as_nix_moves_on(change: str, dirty: bool, project: Path, tmp_path: Path) -> None:
    checkout = shutil.copytree(project, tmp_path / "checkout", symlinks=True)
    if dirty:
        (checkout / "src/a").write_text("changed\n")
    bin_dir = tmp_path / "bin"
    bin_dir.mkdir()
    real = shutil.which("nix")
    script = bin_dir / "nix"
    script.write_text(MOVED_ON.format(python=sys.executable, nix=real, change=change))
    script.chmod(0o755)
    for name in ("nix-store", "nix-hash"):
        (bin_dir / name).symlink_to(shutil.which(name) or name)
    told, moved = Nix().metadata(str(checkout)), Nix(bin_dir=bin_dir).metadata(str(checkout))
    assert moved == told


def git(directory: Path, *arguments: str) -> None:
    identity = ("-c", "user.name=Test", "-c", "user.email=test@localhost")
    subprocess.run(["git", "-C", str(directory), *identity, *arguments], check=True)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    where = tmp_path / "mine"
    where.mkdir()
    (where / "file").write_text("text\n")
    git(where, "init", "-q")
    git(where, "add", "file")
    git(where, "commit", "-qm", "Start")
    return where


@pytest.mark.skipif(os.geteuid() != 0, reason="only on a machine where files can be given away")
def test_a_checkout_of_another_user_is_named_as_such(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    monkeypatch.delenv("SUDO_UID", raising=False)
    for path in (checkout, checkout / ".git"):
        os.chown(path, 65534, 65534)
    for read in (read_checkout, read_repository):
        with pytest.raises(CouldNotCheck, match="belongs to another user") as caught:
            read(checkout)
        assert f"safe.directory {checkout}" in (caught.value.hint or "")
        assert "dubious ownership" in (caught.value.detail or "")


def test_a_broken_repository_is_not_one_without_a_commit(checkout: Path) -> None:
    (checkout / ".git/config").write_text("[core\n")
    with pytest.raises(CouldNotCheck, match="Git cannot read the repository") as caught:
        read_checkout(checkout)
    assert "bad config" in (caught.value.detail or "")


def test_a_repository_without_a_commit_is_called_so(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    with pytest.raises(InputError, match="is no Git checkout with a commit"):
        read_checkout(tmp_path)


def test_a_directory_is_no_entry_of_the_registry(project: Path, tmp_path: Path) -> None:
    (tmp_path / "some").mkdir()
    shutil.copytree(project, tmp_path / "some/dir", symlinks=True)
    ran = nix_seed("plan", "some/dir", "--why", "app", cache=tmp_path / "cache", cwd=tmp_path)
    assert ran.code == 0, ran.err
    assert "comes out otherwise" in ran.out
