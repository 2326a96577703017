"""What evaluations leave in the store does not pile up there."""

from __future__ import annotations

import fcntl
import subprocess
from pathlib import Path
from uuid import uuid4

import pytest

from nix_seed.flake import leftovers
from nix_seed.flake.evaluate import evaluate_flake
from nix_seed.flake.leftovers import leaving_few
from nix_seed.flake.nix import Nix
from nix_seed.flake.rules.choice import FlakeChoice
from nix_seed.formats.nix.store_path import StorePath
from support.distribution import nix_env
from support.seeds import edit, write_project

# One tree is altered for its text, one for the file that is asked for, and each has a source.
OUTPUTS = """packages.${system}.default = pkgs.runCommand "app" { src = ./src; whole = self; }
  (if builtins.pathExists ./maybe then "" else "true");"""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NIX_SEED_CACHE", str(tmp_path / "cache"))
    for name in ("NIX_CONFIG", "NIX_USER_CONF_FILES"):
        monkeypatch.setenv(name, nix_env()[name])
    return tmp_path / "cache"


def test_altered_trees_are_deleted_in_the_end(
    distribution: Path, tmp_path: Path, cache: Path
) -> None:
    project = write_project(tmp_path / "project", distribution, OUTPUTS, {"src/a": "one\n"})
    listed: set[StorePath] = set()
    many = []
    for number in range(6):
        edit(project, "src/a", "one", f"one {number}")
        evaluate_flake(Nix(), str(project), FlakeChoice(system="x86_64-linux"))
        text = (cache / "altered-trees").read_text()
        listed |= set(map(StorePath.parse, text.split()))
        many.append(len(text.split()))
    assert min(many[1:]) < max(many) < 12, many
    gone = Nix().invalid_paths(listed)
    assert len(gone) >= max(many), (many, gone)
    # The flake's own trees stay: Nix put them there.
    own = evaluate_flake(Nix(), str(project), FlakeChoice(system="x86_64-linux")).flake.source
    assert not Nix().invalid_paths([own])


def test_nothing_is_deleted_while_another_evaluates_or_what_is_in_use(
    tmp_path: Path, cache: Path
) -> None:
    paths = []
    for number in range(12):
        (tmp_path / f"tree{number}").write_text(f"{tmp_path} {number}\n")
        added = ["nix-store", "--add", str(tmp_path / f"tree{number}")]
        done = subprocess.run(added, check=True, capture_output=True, text=True)
        paths.append(StorePath.parse(done.stdout.strip()))
    with leaving_few(Nix()) as left:
        left |= set(paths[:11])
    assert not Nix().invalid_paths(paths)
    with open(cache / "altered-trees", "rb") as another:
        fcntl.flock(another, fcntl.LOCK_SH)
        with leaving_few(Nix()) as left:
            left |= set(paths)
    assert not Nix().invalid_paths(paths)
    root = tmp_path / "root"
    Nix().add_root(root, paths[0])
    with leaving_few(Nix()) as left:
        left |= set(paths[:1])
    assert paths[0] not in Nix().invalid_paths(paths)
    assert (cache / "altered-trees").read_bytes() == b""
    root.unlink()
    Nix().delete(set(paths) - Nix().invalid_paths(paths))
    assert Nix().invalid_paths(paths) == set(paths)


def test_a_garbage_collection_at_work_is_not_waited_for(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leftovers, "_LONGEST", 0.3)
    monkeypatch.setattr(leftovers, "_MANY", 1)
    (tmp_path / "tree").write_text(f"{uuid4()}\n")
    added = ["nix-store", "--add", str(tmp_path / "tree")]
    done = subprocess.run(added, check=True, capture_output=True, text=True)
    path = StorePath.parse(done.stdout.strip())
    with open("/nix/var/nix/gc.lock", "ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with leaving_few(Nix()) as left:
            left.add(path)
        assert not Nix().invalid_paths([path])
    monkeypatch.setattr(leftovers, "_LONGEST", 60)
    with leaving_few(Nix()) as left:
        left.add(path)
    assert Nix().invalid_paths([path]) == {path}


def test_a_list_that_cannot_be_kept_fails_nothing(tmp_path: Path, cache: Path) -> None:
    cache.mkdir()
    (cache / "altered-trees").symlink_to(tmp_path / "elsewhere")
    with leaving_few(Nix()) as left:
        left.add(StorePath("0" * 32 + "-tree"))
    assert not (tmp_path / "elsewhere").exists()
