"""``nix-seed diff`` with diffoscope: the same sandbox as for outputs."""

from __future__ import annotations

import io
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import zstandard

from nix_seed.cli.image.diff import _lines
from nix_seed.core.errors import CheckedFalse
from nix_seed.formats.oci.manifest import MediaType
from nix_seed.formats.oci.reference import LayoutReference
from nix_seed.image.assemble import StoreFiles
from nix_seed.image.diff import ImageDiff, diff_images
from nix_seed.image.read.check import SeenPath
from nix_seed.image.rules.layer import write_layer
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


def seen(world: World) -> SeenPath:
    """A store path of a layer that has all of the image."""
    spec, sink = world.image.spec, io.BytesIO()
    infos = tuple(spec.paths[path] for path in sorted(spec.paths))
    done = write_layer(infos, spec.compressor, StoreFiles(world.root / "good"), sink)
    layer = world.store.push_stream(lambda: [sink.getvalue()], done.descriptor.media_type)
    return SeenPath(world.store, layer, infos[0], infos)


def test_of_a_layer_only_the_path_is_unpacked(world: World, tmp_path: Path) -> None:
    path = seen(world)
    path.unpack(tmp_path)
    assert [each.name for each in (tmp_path / "nix/store").iterdir()] == [path.info.path.base_name]


def test_a_path_has_no_more_than_its_spec_says(world: World, tmp_path: Path) -> None:
    path = seen(world)
    large = replace(path, info=replace(path.info, nar_size=1))
    for deed in (large.files, lambda: large.unpack(tmp_path)):
        with pytest.raises(CheckedFalse, match="has more than the 1 bytes of its NAR"):
            deed()


def test_a_layer_decompresses_to_no_more_than_its_paths_need(world: World, tmp_path: Path) -> None:
    path = seen(world)
    small = tuple(replace(info, nar_size=100) for info in path.beside)
    bomb = zstandard.compress(bytes(64 << 20))
    layer = world.store.push_stream(lambda: [bomb], MediaType.LAYER_ZSTD)
    swollen = replace(path, layer=layer, beside=small)
    for deed in (swollen.files, lambda: swollen.unpack(tmp_path)):
        with pytest.raises(CheckedFalse):
            deed()
    assert list(tmp_path.iterdir()) == []


def test_a_disk_without_room_is_named(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nix_seed.image.diff.diffoscope_at_hand", lambda: "diffoscope")
    full = shutil.disk_usage("/")._replace(free=100)
    monkeypatch.setattr(shutil, "disk_usage", lambda place: full)
    _, printed = compared(world)
    assert "100 bytes free: point TMPDIR at a larger disk" in printed
