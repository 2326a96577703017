"""``nix-seed diff`` with diffoscope: the same sandbox as for outputs."""

from __future__ import annotations

from pathlib import Path

import pytest

from nix_seed.cli.image.diff import _lines
from nix_seed.formats.oci.reference import LayoutReference
from nix_seed.image.diff import ImageDiff, diff_images
from nix_seed.registry.open import Stores
from support.registries import needs
from support.trust import World


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World.fresh(tmp_path_factory.mktemp("diff") / "world")


def compared(world: World) -> tuple[ImageDiff, str]:
    """The seed and one whose compiler differs: what is found, and printed."""
    one, other = (LayoutReference(str(world.directory), tag) for tag in ("seed", "tampered"))
    found = diff_images(Stores(), one, other)
    assert [file.name for each in found.files for file in each.files] == ["bin/gcc"]
    return found, "\n".join(_lines(found))


def faked(root: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Have the diffoscope at hand do what *script* says."""
    program = root / "bin/diffoscope"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setattr("nix_seed.image.diff.diffoscope_at_hand", lambda: str(program))


def test_it_looks_into_files(world: World) -> None:
    needs("bwrap", "bubblewrap")
    needs("diffoscope", "diffoscope-minimal")
    found, printed = compared(world)
    assert [each.unshown for each in found.files] == [None]
    assert "  | --- first/nix/store/" in printed
    assert "not shown" not in printed


def test_it_is_confined(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needs("bwrap", "bubblewrap")
    secret = tmp_path / "secret"
    secret.write_text("the key")
    tries = f"cat {secret}; echo x > {secret}; for last; do echo x > $last/bin/gcc; done"
    faked(tmp_path, monkeypatch, f"({tries}) 2>&1\necho over\nexit 1")
    _, printed = compared(world)
    assert "the key" not in printed
    assert "Read-only" in printed
    assert "over" in printed
    assert secret.read_text() == "the key"


def test_where_nothing_confines_it_files_are_named_and_it_is_not_run(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    faked(tmp_path, monkeypatch, f"touch {tmp_path}/was-run")
    monkeypatch.setenv("PATH", str(tmp_path))
    found, printed = compared(world)
    assert "not shown by diffoscope: diffoscope is installed, and not run" in printed
    assert [each.trouble for each in found.files] == [None]
    assert not (tmp_path / "was-run").exists()
