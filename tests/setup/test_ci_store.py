"""Whose ``/nix`` it is, what root does for a user, and how its failures come back."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from nix_seed.core.errors import CheckedFalse, CouldNotCheck
from nix_seed.core.processes import run_as_root
from nix_seed.setup.ci_host import make_store_for, store_state
from nix_seed.use import macos_store
from support.engines import need_root
from support.planted import plant_modules, planted_that_ran

USER = 12345


def as_user(monkeypatch: pytest.MonkeyPatch, owned: Sequence[Path]) -> None:
    """Have only *owned* writable: the tests are root, who may write everywhere."""
    allowed = {str(path) for path in owned}
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK or str(path) in allowed)


def test_a_machine_without_nix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert store_state(tmp_path) == "ours", "root may make it"
    as_user(monkeypatch, [])
    assert store_state(tmp_path) == "absent"
    (tmp_path / "nix").mkdir()
    assert store_state(tmp_path) == "absent", "a directory of root's, as macOS makes it"
    as_user(monkeypatch, [tmp_path / "nix"])
    assert store_state(tmp_path) == "ours"


def test_a_store_with_a_daemon_is_roots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, database = tmp_path / "nix/store", tmp_path / "nix/var/nix/db"
    store.mkdir(parents=True)
    database.mkdir(parents=True)
    as_user(monkeypatch, [])
    assert store_state(tmp_path) == "roots"
    # Anyone in the group nixbld may write to the store itself.
    as_user(monkeypatch, [store])
    assert store_state(tmp_path) == "roots"
    as_user(monkeypatch, [store, database])
    assert store_state(tmp_path) == "ours"


def test_root_gives_an_empty_store_to_the_user(tmp_path: Path) -> None:
    need_root()
    make_store_for(USER, tmp_path)
    assert (tmp_path / "nix").stat().st_uid == USER
    make_store_for(USER, tmp_path)
    assert stat.S_IMODE((tmp_path / "nix").stat().st_mode) == 0o755


def test_a_store_that_is_there_is_not_given_away(tmp_path: Path) -> None:
    need_root()
    (tmp_path / "nix/store").mkdir(parents=True)
    make_store_for(USER, tmp_path)
    assert (tmp_path / "nix").stat().st_uid == 0


def test_on_a_mac_the_volume_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    need_root()
    asked: list[Path] = []
    monkeypatch.setattr(macos_store, "ensure_store", asked.append)
    make_store_for(USER, tmp_path)
    assert asked == [tmp_path]


@pytest.fixture
def sudo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A sudo that writes down what it was asked, and does it; and a user who needs it."""
    log = tmp_path / "asked"
    fake = tmp_path / "bin/sudo"
    fake.parent.mkdir()
    script = f'#!/bin/sh\nprintf "%s\\n" "$@" >> "{log}"\nshift\nexec env -i "$@"\n'
    fake.write_text(script)
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{fake.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    return log


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give a directory away")
def test_a_user_asks_sudo(sudo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIX_CONFIG", "access-tokens = host=hush")
    root = tmp_path / "root"
    root.mkdir()
    assert run_as_root(["ci", "store", str(USER), "--root", str(root)], "stdin") == {}
    assert (root / "nix").stat().st_uid == USER
    asked = sudo.read_text()
    assert asked.startswith(f"-n\n{sys.executable}\n"), "it must never wait for a password"
    assert "hush" not in asked


def test_root_takes_no_module_from_the_checkout(
    sudo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert sudo.parent == tmp_path
    plant_modules(tmp_path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "root").mkdir()
    user = str(os.getuid())
    assert run_as_root(["ci", "store", user, "--root", str(tmp_path / "root")]) == {}
    assert planted_that_ran(tmp_path) == ""


def test_root_goes_through_the_users_proxy(
    sudo: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://me:hush@127.0.0.1:9")
    with pytest.raises(CouldNotCheck):
        run_as_root(["pull", "registry.example/a:b", "oci:/nowhere"])
    assert "check HTTPS_PROXY" in capfd.readouterr().err
    assert "hush" not in sudo.read_text()


def test_its_failures_are_ours(sudo: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(CouldNotCheck, match="nix-seed pull failed as root, with exit code 3") as it:
        run_as_root(["pull", "127.0.0.1:1/a:b", "oci:/nowhere"])
    assert it.value.hint == "what it said is in the log above"
    assert "127.0.0.1:1" in capfd.readouterr().err
    (sudo.parent / "bin/sudo").write_text("#!/bin/sh\nexit 1\n")
    with pytest.raises(CheckedFalse, match="exit code 1"):
        run_as_root(["hydrate", "x"])


def test_without_sudo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(CouldNotCheck, match="takes root, and there is no sudo") as it:
        run_as_root(["ci", "store", "1000"])
    assert "chown $USER /nix" in (it.value.hint or "")
