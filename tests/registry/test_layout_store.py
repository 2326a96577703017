"""An image layout on disk as a store: interrupted, damaged, shared."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from nix_seed.core.digests import Digest
from nix_seed.core.errors import CheckedFalse, CouldNotCheck, InputError
from nix_seed.formats.intoto.bundle import BUNDLE_V03
from nix_seed.formats.oci.manifest import Descriptor, Index, Manifest, MediaType, fallback_tag
from nix_seed.registry.client import Repository
from nix_seed.registry.layout import Layout
from nix_seed.registry.layout_store import LayoutStore
from nix_seed.registry.store import Held, ImageStore, index_members, is_bundle, read_referrer
from nix_seed.trust.attestations import attach_bundle
from support.attestations import push_image
from support.seed_images import seed_image

DATA = bytes(range(256)) * 4000
BLOB = Descriptor(MediaType.LAYER, Digest.of(DATA), len(DATA))


@pytest.fixture
def store(tmp_path: Path) -> LayoutStore:
    return LayoutStore(Layout.create(tmp_path / "layout"))


def files(tmp_path: Path) -> set[str]:
    return {path.name for path in (tmp_path / "layout/blobs/sha256").iterdir()}


def rest(held: Held, data: bytes = DATA, cut: int | None = None) -> Iterator[bytes]:
    """What a registry would give after *held*: verified at its end."""
    yield data[held.size : cut]
    if cut is not None:
        raise CouldNotCheck("cut")
    state = held.state.copy()
    state.update(data[held.size :])
    if state.hexdigest() != BLOB.digest.hex:
        raise CheckedFalse("other bytes")


def test_both_stores_are_one_kind() -> None:
    stores: list[type[ImageStore]] = [LayoutStore, Repository]
    assert len(stores) == 2  # mypy holds the statement above


def test_a_blob_shows_only_when_it_is_whole(store: LayoutStore, tmp_path: Path) -> None:
    with pytest.raises(CouldNotCheck, match="cut"):
        store.take_blob(BLOB, lambda held: rest(held, cut=1000))
    assert not store.has_blob(BLOB.digest)
    assert files(tmp_path) == {f".{BLOB.digest.hex}.partial"}
    asked = []

    def going_on(held: Held) -> Iterator[bytes]:
        asked.append(held.size)
        return rest(held)

    assert store.take_blob(BLOB, going_on)
    assert asked == [1000]
    assert files(tmp_path) == {BLOB.digest.hex}
    assert b"".join(store.open_blob(BLOB)) == DATA
    assert not store.take_blob(BLOB, going_on)
    assert files(tmp_path) == {BLOB.digest.hex}


@pytest.mark.parametrize("left", [b"rubbish", DATA + b"too long"])
def test_what_an_earlier_try_left_may_be_wrong(
    store: LayoutStore, tmp_path: Path, left: bytes
) -> None:
    directory = tmp_path / "layout/blobs/sha256"
    directory.mkdir(parents=True)
    (directory / f".{BLOB.digest.hex}.partial").write_bytes(left)
    assert store.take_blob(BLOB, rest)
    assert (directory / BLOB.digest.hex).read_bytes() == DATA


def test_nothing_is_kept_of_what_proved_wrong(store: LayoutStore, tmp_path: Path) -> None:
    with pytest.raises(CheckedFalse, match="other bytes"):
        store.take_blob(BLOB, lambda held: rest(held, b"wrong"))
    assert files(tmp_path) == set()


def test_two_writers_of_one_blob_take_turns(store: LayoutStore, tmp_path: Path) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def slow(held: Held) -> Iterator[bytes]:
        begun.set()
        go_on.wait(5)
        return rest(held)

    first = threading.Thread(target=store.take_blob, args=(BLOB, slow))
    first.start()
    begun.wait(5)
    moved: list[bool] = []
    second = threading.Thread(target=lambda: moved.append(store.take_blob(BLOB, rest)))
    second.start()
    go_on.set()
    first.join()
    second.join()
    assert moved == [False]
    assert files(tmp_path) == {BLOB.digest.hex}


def test_a_damaged_blob_is_checked_and_false(store: LayoutStore, tmp_path: Path) -> None:
    store.take_blob(BLOB, rest)
    path = tmp_path / "layout/blobs/sha256" / BLOB.digest.hex
    path.write_bytes(DATA[:-1] + b"!")
    with pytest.raises(CheckedFalse, match="does not have the digest or the size"):
        list(store.open_blob(BLOB))


def test_ranges(store: LayoutStore, tmp_path: Path) -> None:
    store.take_blob(BLOB, rest)
    assert store.read_range_unverified(BLOB, 1000, 256) == DATA[1000:1256]
    os.truncate(tmp_path / "layout/blobs/sha256" / BLOB.digest.hex, 100)
    with pytest.raises(CheckedFalse, match=f"is shorter than the {len(DATA)} bytes"):
        store.read_range_unverified(BLOB, 50, 100)


def test_manifests_and_tags(store: LayoutStore) -> None:
    config = Descriptor(MediaType.CONFIG, Digest.of(b"{}"), 2)
    body = Manifest(config, (BLOB,)).dump()
    with pytest.raises(InputError, match="holds no images; say which"):
        store.only_image()
    child = store.put_manifest(body, MediaType.MANIFEST)
    assert store.get_manifest("v1") is None
    fetched = store.get_manifest(child.digest)
    assert fetched is not None
    assert (fetched.descriptor, fetched.body) == (child, body)
    index = Index((child,)).dump()
    stored = store.put_manifest(index, MediaType.INDEX, "v1")
    assert store.only_image().digest == stored.digest
    store.put_manifest(body, MediaType.MANIFEST, "v1")
    again = store.get_manifest("v1")
    assert again is not None
    assert again.descriptor.digest == child.digest, "the tag moved"
    store.put_manifest(index, MediaType.INDEX, "v2")
    assert store.list_tags() == ("v1", "v2")
    with pytest.raises(InputError, match="holds 2 images; say which") as caught:
        store.only_image()
    assert "it has v1, v2" in (caught.value.hint or "")
    with pytest.raises(InputError, match="this manifest is sha256:"):
        store.put_manifest(body, MediaType.MANIFEST, stored.digest)


def test_a_planted_link_for_an_unfinished_blob_is_not_written_through(
    store: LayoutStore, tmp_path: Path
) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    folder = tmp_path / "layout/blobs/sha256"
    folder.mkdir(parents=True)
    (folder / f".{BLOB.digest.hex}.partial").symlink_to(victim)
    with pytest.raises(CouldNotCheck, match=r"\.partial is a link, a pipe or a device"):
        store.take_blob(BLOB, rest)
    assert victim.read_bytes() == b"precious"


def test_a_planted_link_for_the_folder_of_blobs_is_not_followed(
    store: LayoutStore, tmp_path: Path
) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "layout/blobs").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CouldNotCheck, match="blobs is a link"):
        store.take_blob(BLOB, rest)
    with pytest.raises(CouldNotCheck, match="blobs is a link"):
        store.put_manifest(Index(()).dump(), MediaType.INDEX, "tag")
    assert list((tmp_path / "elsewhere").iterdir()) == []


@pytest.mark.parametrize("name", ["oci-layout", "index.json"])
def test_pipes_and_devices_for_documents_neither_hang_nor_fill_memory(
    store: LayoutStore, tmp_path: Path, name: str
) -> None:
    path = tmp_path / "layout" / name
    for planted in ("pipe", "device"):
        path.unlink(missing_ok=True)
        os.mkfifo(path) if planted == "pipe" else path.symlink_to("/dev/zero")
        with pytest.raises((CouldNotCheck, InputError), match=name):
            LayoutStore(Layout.open(tmp_path / "layout")).list_tags()


def test_a_pipe_for_a_blob_does_not_hang(store: LayoutStore, tmp_path: Path) -> None:
    folder = tmp_path / "layout/blobs/sha256"
    folder.mkdir(parents=True)
    os.mkfifo(folder / BLOB.digest.hex)
    for attempt in (
        lambda: list(store.open_blob(BLOB)),
        lambda: store.read_range_unverified(BLOB, 0, 1),
        lambda: store.get_manifest(BLOB.digest),
    ):
        with pytest.raises(CouldNotCheck, match="must be a plain file"):
            attempt()
    assert not store.has_blob(BLOB.digest)


def test_two_tags_of_one_digest_are_one_image(tmp_path: Path) -> None:
    """The demo's own layout is so: its seed has the tag of its input key, and another."""
    image, _ = (seed_image(tmp_path, tag) for tag in ("v1", "v2"))
    store = LayoutStore(Layout.open(tmp_path))
    assert store.only_image().digest == image.digest
    seed_image(tmp_path, "v3", system="aarch64-linux")
    with pytest.raises(InputError, match="holds 2 images; say which"):
        store.only_image()


@pytest.mark.parametrize("tagged", [True, False])
def test_what_is_listed_and_is_no_manifest_hides_no_other(tmp_path: Path, tagged: bool) -> None:
    """Nor is it the user's mistake."""
    store = LayoutStore(Layout.create(tmp_path / "layout"))
    subject = push_image(store)
    good = attach_bundle(store, subject, b"a bundle", "https://x.example/v1")
    broken = Descriptor.of(MediaType.MANIFEST, b'{"schemaVersion":true}')
    store.take_blob(broken, lambda _: iter([b'{"schemaVersion":true}']))
    if tagged:
        tag = fallback_tag(subject.digest)
        listed = index_members(store.get_manifest(tag), tag)
        store.put_manifest(Index((*listed, broken)).dump(), MediaType.INDEX, tag)
    else:
        path = tmp_path / "layout/index.json"
        value = json.loads(path.read_bytes())
        value["manifests"].append(broken.to_json())
        path.write_text(json.dumps(value))
    found = store.referrers(subject.digest, BUNDLE_V03)
    assert [each.digest for each in found] == [good.digest]
    with pytest.raises(CheckedFalse, match="schemaVersion"):
        read_referrer(store, broken, subject.digest, is_bundle)
