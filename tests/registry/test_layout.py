from __future__ import annotations

import hashlib
import json
import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from nix_seed.core.digests import Digest
from nix_seed.core.errors import CheckedFalse, CouldNotCheck, InputError
from nix_seed.formats.oci.manifest import Descriptor
from nix_seed.image.rules.frames import Compressor
from nix_seed.registry.layout import REF_NAME, ImageFiles, Layout
from support.images import check_image, image
from support.nars import NarFile
from support.programs import need, run
from support.trees import AWKWARD

ZSTD, GZIP = Compressor.at_hand("zstd"), Compressor.at_hand("gzip")


@pytest.fixture
def one(tmp_path: Path) -> ImageFiles:
    return image(tmp_path / "one", {"awkward": AWKWARD, "file": NarFile(b"1")}, ZSTD)


@pytest.fixture
def other(tmp_path: Path) -> ImageFiles:
    return image(tmp_path / "other", {"awkward": AWKWARD, "file": NarFile(b"2")}, ZSTD)


def snapshot(directory: Path) -> dict[str, bytes]:
    files = (path for path in directory.rglob("*") if path.is_file())
    return {str(path.relative_to(directory)): path.read_bytes() for path in files}


def test_an_image_is_found_checked_and_read_again(tmp_path: Path, one: ImageFiles) -> None:
    layout = Layout.create(tmp_path / "layout")
    described = layout.add(one, "seed")
    again = Layout.open(tmp_path / "layout")
    assert again.listing().named["seed"] == again.listing().named[described.digest] == described
    assert check_image(again, described) == one.manifest
    assert again.read_blob(one.manifest.config) == one.config
    names = set(snapshot(tmp_path / "layout"))
    blobs = [described, one.manifest.config, *one.manifest.layers]
    assert names == {"oci-layout", "index.json"} | {
        f"blobs/sha256/{blob.digest.hex}" for blob in blobs
    }


def test_blobs_are_linked_not_copied(tmp_path: Path, one: ImageFiles) -> None:
    layout = Layout.create(tmp_path / "layout")
    layout.add(one)
    for layer, source in one.layers():
        assert layout.blob_path(layer.digest).samefile(source)


def test_blobs_are_copied_between_file_systems(one: ImageFiles) -> None:
    memory = Path("/dev/shm")
    if not memory.is_dir() or memory.stat().st_dev == next(iter(one.blobs.values())).stat().st_dev:
        pytest.skip("needs a second file system: /dev/shm")
    directory = memory / f"layout-{os.getpid()}"
    try:
        layout = Layout.create(directory)
        check_image(layout, layout.add(one))
    finally:
        subprocess.run(["rm", "-rf", str(directory)], check=True)


def test_several_images_share_a_layout_and_a_tag_moves(
    tmp_path: Path, one: ImageFiles, other: ImageFiles
) -> None:
    layout = Layout.create(tmp_path / "layout")
    first, second = layout.add(one, "a"), layout.add(other, "b")
    assert (layout.listing().named["a"], layout.listing().named["b"]) == (first, second)
    assert len(layout.index().manifests) == 2
    moved = layout.add(other, "a")
    assert layout.listing().named["a"] == moved
    assert moved.digest == second.digest
    assert [m.annotations[REF_NAME] for m in layout.index().manifests] == ["a", "b"]


def test_the_layout_is_a_function_of_its_images(
    tmp_path: Path, one: ImageFiles, other: ImageFiles
) -> None:
    forth, back = Layout.create(tmp_path / "forth"), Layout.create(tmp_path / "back")
    forth.add(one, "a")
    forth.add(other, "b")
    back.add(other, "b")
    back.add(one, "a")
    back.add(one, "a")
    assert snapshot(tmp_path / "forth") == snapshot(tmp_path / "back")


def test_what_is_something_else_is_left_alone(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "thesis.txt").write_text("years of work")
    before = snapshot(tmp_path)
    with pytest.raises(InputError, match="is not empty and not an OCI image layout"):
        Layout.create(home)
    with pytest.raises(InputError, match="is a file; an image layout is a directory"):
        Layout.create(home / "thesis.txt")
    with pytest.raises(InputError, match="it has no file oci-layout"):
        Layout.open(home)
    (home / "oci-layout").write_text('{"imageLayoutVersion":"2.0.0"}')
    with pytest.raises(InputError, match=r"imageLayoutVersion is '2\.0\.0', and only 1\.0\.0"):
        Layout.create(home)
    (home / "oci-layout").unlink()
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("victim", ["manifest", "config", "layer"])
@pytest.mark.parametrize("damage", ["flip", "cut", "extend"])
def test_damage_is_noticed(tmp_path: Path, one: ImageFiles, victim: str, damage: str) -> None:
    layout = Layout.create(tmp_path / "layout")
    described = layout.add(one)
    blob = {"manifest": described, "config": one.manifest.config, "layer": one.manifest.layers[0]}
    path = layout.blob_path(blob[victim].digest)
    data = path.read_bytes()
    path.unlink()
    changed = {"flip": bytes([data[0] ^ 1]) + data[1:], "cut": data[:-1], "extend": data + b"\0"}
    path.write_bytes(changed[damage])
    with pytest.raises(CheckedFalse, match="does not have the digest or the size") as caught:
        check_image(layout, described)
    assert str(path) in caught.value.message


def test_an_absent_blob_is_another_matter(tmp_path: Path, one: ImageFiles) -> None:
    layout = Layout.create(tmp_path / "layout")
    described = layout.add(one)
    layout.blob_path(one.manifest.layers[0].digest).unlink()
    with pytest.raises(CouldNotCheck, match="No such file or directory"):
        check_image(layout, described)


def test_adding_again_mends(tmp_path: Path, one: ImageFiles) -> None:
    layout = Layout.create(tmp_path / "layout")
    described = layout.add(one)
    for blob in (described, one.manifest.config, one.manifest.layers[0]):
        path = layout.blob_path(blob.digest)
        path.unlink()
        path.write_bytes(b"damaged")
    (tmp_path / "layout/blobs/sha256/.half.tmp").touch()
    assert layout.add(one) == described
    check_image(layout, described)
    assert not list((tmp_path / "layout").rglob("*.tmp"))


def test_a_failure_leaves_the_index_as_it_was(tmp_path: Path, one: ImageFiles) -> None:
    layout = Layout.create(tmp_path / "layout")
    missing = replace(one, blobs=dict.fromkeys(one.blobs, tmp_path / "gone"))
    with pytest.raises(CouldNotCheck, match="gone"):
        layout.add(missing, "seed")
    assert not (tmp_path / "layout/index.json").exists()
    wrong = replace(one, config=b"{}")
    with pytest.raises(InputError, match="has another digest or size"):
        layout.add(wrong, "seed")
    assert layout.index().manifests == ()


def test_writers_at_the_same_time_lose_nothing(tmp_path: Path, one: ImageFiles) -> None:
    def add(number: int) -> Descriptor:
        return Layout.create(tmp_path / "layout").add(one, f"tag-{number}")

    with ThreadPoolExecutor(8) as threads:
        described = set(map(str, threads.map(add, range(24))))
    assert len(described) == 24
    assert len(Layout.open(tmp_path / "layout").index().manifests) == 24


def test_a_document_of_absurd_size_is_not_read(tmp_path: Path, one: ImageFiles) -> None:
    layout = Layout.create(tmp_path / "layout")
    layout.add(one)
    with pytest.raises(CheckedFalse, match="no document has"):
        layout.read_blob(Descriptor("x", Digest.of(b""), 1 << 40))
    os.truncate(tmp_path / "layout/index.json", 1 << 30)
    with pytest.raises(CouldNotCheck, match="larger than any document"):
        layout.index()


def test_skopeo_reads_and_copies_it(tmp_path: Path, one: ImageFiles) -> None:
    layout = Layout.create(tmp_path / "layout")
    described = layout.add(one, "seed")
    told = json.loads(run(need("skopeo"), "inspect", f"oci:{layout.directory}:seed"))
    assert told["Digest"] == str(described.digest)
    assert told["Layers"] == [str(layer.digest) for layer in one.manifest.layers]
    assert told["Architecture"] == "amd64"
    run("skopeo", "copy", f"oci:{layout.directory}:seed", f"oci:{tmp_path}/copy:seed")
    copied = Layout.open(tmp_path / "copy").listing().named["seed"]
    assert copied.digest == described.digest
    check_image(Layout.open(tmp_path / "copy"), copied)


def test_umoci_unpacks_gzip_to_the_very_store(tmp_path: Path) -> None:
    need("umoci")
    gzipped = image(tmp_path / "one", {"awkward": AWKWARD, "file": NarFile(b"1")}, GZIP)
    layout = Layout.create(tmp_path / "layout")
    layout.add(gzipped, "seed")
    run("umoci", "raw", "unpack", "--image", f"{layout.directory}:seed", tmp_path / "rootfs")
    for path in (tmp_path / "one/root/nix/store").iterdir():
        unpacked = tmp_path / "rootfs/nix/store" / path.name
        dumps = [run(need("nix-store"), "--dump", found) for found in (path, unpacked)]
        assert hashlib.sha256(dumps[0]).digest() == hashlib.sha256(dumps[1]).digest()
