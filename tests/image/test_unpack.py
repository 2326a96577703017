"""Images unpacked: what good ones become, and that bad ones leave nothing behind."""

from __future__ import annotations

import importlib
import io
import json
import multiprocessing.popen_fork  # noqa: F401  (before becoming someone who may not read it)
import os
import shutil
import stat
import tarfile
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import NoReturn

import pytest

from nix_seed.core.errors import CheckedFalse, CouldNotCheck, InputError
from nix_seed.formats.oci.reference import LayoutReference
from nix_seed.image.read.safe_root import remove
from nix_seed.image.read.unpack import Limits, clear_unpacked, unpack, unpacked
from nix_seed.registry.layout import Image, open_image
from support.layouts import directory, file, hard_link, special, symlink, tar, write_layout

Members = list[tuple[tarfile.TarInfo, bytes]]


def unpack_all(tmp_path: Path, *layers: Members | bytes, compression: str = "zstd") -> Path:
    tars = [layer if isinstance(layer, bytes) else tar(layer) for layer in layers]
    layout = write_layout(tmp_path / "image", tars, compression=compression)
    root = tmp_path / "out" / "root"
    unpack(open_image(LayoutReference(str(layout))), root)
    return root


def tree(root: Path) -> dict[str, object]:
    """Every path below *root* with its mode, and a file's content or a symlink's target."""
    found: dict[str, object] = {}
    for path in sorted(root.rglob("*")):
        status = path.lstat()
        mode = oct(stat.S_IMODE(status.st_mode))
        name = str(path.relative_to(root))
        if path.is_symlink():
            found[name] = os.readlink(path)
        else:
            found[name] = mode if path.is_dir() else (mode, path.read_bytes())
    return found


@pytest.mark.parametrize("compression", ["zstd", "gzip", "none"])
def test_layers_become_one_tree(tmp_path: Path, compression: str) -> None:
    long = "n" * 255
    root = unpack_all(
        tmp_path,
        [
            directory("nix"),
            directory("nix/store"),
            directory("nix/store/a"),
            file("nix/store/a/run", b"#!", 0o555),
            file("nix/store/a/empty"),
        ],
        [
            directory("nix"),
            directory("nix/store"),
            symlink("nix/store/b", "/absolute/nowhere"),
            file(f"nix/store/{long}", b"x" * 3_000_000),
            file("nix/store/zeilen\numbruch", b"1"),
        ],
        [directory("tmp", 0o1777), file("nix/store/implicit/parent/ä", b"2")],
        compression=compression,
    )
    assert tree(root) == {
        "nix": "0o555",
        "nix/store": "0o555",
        "nix/store/a": "0o555",
        "nix/store/a/empty": ("0o444", b""),
        "nix/store/a/run": ("0o555", b"#!"),
        "nix/store/b": "/absolute/nowhere",
        "nix/store/implicit": "0o755",
        "nix/store/implicit/parent": "0o755",
        "nix/store/implicit/parent/ä": ("0o444", b"2"),
        f"nix/store/{long}": ("0o444", b"x" * 3_000_000),
        "nix/store/zeilen\numbruch": ("0o444", b"1"),
        "tmp": "0o1777",
    }
    assert {path.lstat().st_mtime for path in (root / "nix").rglob("*")} == {1}


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", encoding="latin-1", format=tarfile.GNU_FORMAT) as t:
        t.addfile(tarfile.TarInfo("caf\xe9" + "e" * 120))
    root = unpack_all(tmp_path, buffer.getvalue())
    assert os.listdir(os.fsencode(root)) == [b"caf\xe9" + b"e" * 120]


def test_a_later_layer_replaces_and_removes(tmp_path: Path) -> None:
    root = unpack_all(
        tmp_path,
        [
            directory("d"),
            file("d/kept"),
            file("d/gone"),
            file("f", b"old"),
            directory("was-dir"),
            file("was-dir/x"),
            directory("opaque"),
            file("opaque/old"),
            file("to-link", b"same"),
        ],
        [
            file("d/.wh.gone"),
            file("f", b"new"),
            symlink("was-dir", "f"),
            directory("opaque"),
            file("opaque/.wh..wh..opq"),
            file("opaque/new"),
            hard_link("linked", "to-link"),
            hard_link("f2", "f"),
            file("d/.wh.never-there"),
        ],
    )
    assert tree(root) == {
        "d": "0o555",
        "d/kept": ("0o444", b""),
        "f": ("0o444", b"new"),
        "f2": ("0o444", b"new"),
        "linked": ("0o444", b"same"),
        "opaque": "0o555",
        "opaque/new": ("0o444", b""),
        "to-link": ("0o444", b"same"),
        "was-dir": "f",
    }
    assert (root / "linked").samefile(root / "to-link")


OUTSIDE = "outside-the-root"
HOSTILE: dict[str, tuple[list[Members], str]] = {
    "climbs": ([[file(f"../../{OUTSIDE}", b"!")]], "climbs out with .."),
    "climbs inside": ([[file(f"a/../../../{OUTSIDE}")]], "climbs out with .."),
    "absolute": ([[file("/etc/nix-seed-was-here")]], "is an absolute name"),
    "through a symlink": (
        [[symlink("s", "../../.."), file(f"s/{OUTSIDE}")]],
        "'s' is used as a directory, and is a symlink or a file in the same layer",
    ),
    "through a lower layer's symlink": (
        [[symlink("s", "../../..")], [file(f"s/{OUTSIDE}")]],
        "'s' is used as a directory, and is a symlink or a file in a lower layer",
    ),
    "over a symlink": ([[symlink("s", f"../../{OUTSIDE}"), file("s", b"!")]], "'s' is there twice"),
    "hard link outside": ([[hard_link("h", "../../image/index.json")]], "climbs out with .."),
    "hard link through a symlink": (
        [[symlink("s", "../../image"), hard_link("h", "s/index.json")]],
        "'h' is a hard link to 's/index.json', which is no file of the image",
    ),
    "hard link through a lower symlink": (
        [[symlink("s", "../../image")], [hard_link("h", "s/index.json")]],
        "'h' is a hard link to 's/index.json', which is no file of the image",
    ),
    "whiteout through a symlink": (
        [[symlink("s", "../../image")], [file("s/.wh.index.json"), file("s/x")]],
        "'s' is used as a directory",
    ),
    "whiteout of its parent": ([[file(".wh...")]], "names no file"),
    "character device": ([[special("null", tarfile.CHRTYPE)]], "'null' is a character device"),
    "block device": ([[special("sda", tarfile.BLKTYPE)]], "'sda' is a block device"),
    "pipe": ([[special("p", tarfile.FIFOTYPE)]], "'p' is a named pipe"),
    "setuid": ([[file("su", b"", 0o4755)]], "'su' is set-user-ID or set-group-ID"),
    "setgid": ([[directory("mail", 0o2775)]], "'mail' is set-user-ID or set-group-ID"),
    "long name": ([[file("n" * 256)]], "is longer than a file name can be"),
    "root replaced": ([[symlink("./", "/etc")]], "replaces its root by something else"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_layers_are_refused_and_leave_nothing(tmp_path: Path, case: str) -> None:
    layers, message = HOSTILE[case]
    with pytest.raises(CheckedFalse) as caught:
        unpack_all(tmp_path, *layers)
    assert message in caught.value.message
    assert sorted(os.listdir(tmp_path)) == ["image", "out"]
    assert os.listdir(tmp_path / "out") == []
    assert json.loads((tmp_path / "image/index.json").read_bytes())["schemaVersion"] == 2
    assert not Path("/etc/nix-seed-was-here").exists()


def test_a_whiteout_through_a_symlink_removes_nothing(tmp_path: Path) -> None:
    root = unpack_all(tmp_path, [symlink("s", "../../image")], [file("s/.wh.index.json")])
    assert (tmp_path / "image/index.json").exists()
    assert os.readlink(root / "s") == "../../image"


def test_every_truncation_of_a_tar_is_refused(tmp_path: Path) -> None:
    whole = tar([directory("d"), file("d/f", b"x" * 700), symlink("d/l", "f")])[: 6 * 512]
    for cut in range(1, len(whole), 173):
        (tmp_path / str(cut)).mkdir()
        with pytest.raises(CheckedFalse, match="ends "):
            unpack_all(tmp_path / str(cut), whole[:cut])


def test_a_flipped_header_bit_is_refused(tmp_path: Path) -> None:
    whole = bytearray(tar([file("f", b"x")]))
    whole[3] ^= 1
    with pytest.raises(CheckedFalse, match="a header with a wrong checksum at byte 0"):
        unpack_all(tmp_path, bytes(whole))


def layout_with_flipped_blob(tmp_path: Path, compression: str) -> LayoutReference:
    data = tar([file("f", os.urandom(100_000))])
    layout = write_layout(tmp_path / "image", [data], compression=compression)
    largest = max((layout / "blobs/sha256").iterdir(), key=lambda path: path.stat().st_size)
    blob = bytearray(largest.read_bytes())
    blob[len(blob) // 2] ^= 1
    largest.write_bytes(bytes(blob))
    return LayoutReference(str(layout))


@pytest.mark.parametrize("compression", ["zstd", "gzip", "none"])
def test_a_damaged_blob_is_refused(tmp_path: Path, compression: str) -> None:
    reference = layout_with_flipped_blob(tmp_path, compression)
    message = "does not have the digest|not intact"
    with pytest.raises(CheckedFalse, match=message):
        unpack(open_image(reference), tmp_path / "out")
    assert os.listdir(tmp_path) == ["image"]


def test_a_wrong_diff_id_is_refused(tmp_path: Path) -> None:
    good, other = tar([file("f", b"1")]), tar([file("f", b"2")])
    layout = write_layout(tmp_path / "image", [good])
    # The same manifest, but with the other tar's blob in the place the first layer's diffID names.
    swapped = write_layout(tmp_path / "other", [other])
    manifest, blobs = _manifest(layout), layout / "blobs/sha256"
    manifest["layers"] = _manifest(swapped)["layers"]
    for blob in (swapped / "blobs/sha256").iterdir():
        blob.rename(blobs / blob.name)
    _replace_manifest(layout, manifest)
    with pytest.raises(CheckedFalse, match=r"layer 1 of 1: diffID is sha256:.*, not sha256:"):
        unpack(open_image(LayoutReference(str(layout))), tmp_path / "out")


def _manifest(layout: Path) -> dict[str, list[object]]:
    index = json.loads((layout / "index.json").read_bytes())
    name = index["manifests"][0]["digest"].removeprefix("sha256:")
    found: dict[str, list[object]] = json.loads((layout / "blobs/sha256" / name).read_bytes())
    return found


def _replace_manifest(layout: Path, manifest: dict[str, list[object]]) -> None:
    import hashlib

    data = json.dumps(manifest).encode()
    name = hashlib.sha256(data).hexdigest()
    (layout / "blobs/sha256" / name).write_bytes(data)
    index = json.loads((layout / "index.json").read_bytes())
    index["manifests"][0] |= {"digest": f"sha256:{name}", "size": len(data)}
    (layout / "index.json").write_text(json.dumps(index))


def test_a_layer_without_end_is_stopped(tmp_path: Path) -> None:
    data = tar([file("bomb", bytes(50_000_000))])
    layout = write_layout(tmp_path / "image", [data])
    image = open_image(LayoutReference(str(layout)))
    with pytest.raises(CheckedFalse, match="decompresses to more than the limit"):
        unpack(image, tmp_path / "out", Limits(total=10_000_000))
    with pytest.raises(CheckedFalse, match="has more than 0 entries"):
        unpack(image, tmp_path / "out", Limits(entries=0))
    assert os.listdir(tmp_path) == ["image"]


def test_a_disk_too_small_says_nothing_about_the_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = write_layout(tmp_path / "image", [tar([file("large", bytes(50_000_000))])])
    image = open_image(LayoutReference(str(layout)))
    found = os.statvfs(tmp_path)
    small = SimpleNamespace(f_bavail=10_000, f_frsize=1000, f_files=found.f_files)
    monkeypatch.setattr(os, "statvfs", lambda _: small)
    with pytest.raises(CouldNotCheck, match=r"needs more space than the 10\.0 MB free at /"):
        unpack(image, tmp_path / "out")
    assert os.listdir(tmp_path) == ["image"]


def test_a_missing_blob_could_not_be_checked(tmp_path: Path) -> None:
    layout = write_layout(tmp_path / "image", [tar([file("f", b"x" * 10_000)])])
    image = open_image(LayoutReference(str(layout)))
    image.blob_path(image.layers[0][0].digest).unlink()
    with pytest.raises(CouldNotCheck, match=r"reading .*blobs/sha256/.* failed: No such file"):
        unpack(image, tmp_path / "out")


def test_what_is_not_a_layout_says_so(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="it has no file oci-layout") as caught:
        open_image(LayoutReference(str(tmp_path)))
    assert caught.value.hint == "name a directory that `nix-seed build -o DIR` made"


def test_an_unknown_tag_lists_what_is_there(tmp_path: Path) -> None:
    layout = write_layout(tmp_path / "image", [])
    with pytest.raises(InputError, match=r"oci:.*:nope names no images") as caught:
        open_image(LayoutReference(str(layout), "nope"))
    assert "The layout holds: sha256:" in str(caught.value.hint)


def test_the_cache_unpacks_once_for_many(tmp_path: Path) -> None:
    layout = write_layout(tmp_path / "image", [tar([file("f", b"x")])])
    image, cache = open_image(LayoutReference(str(layout))), tmp_path / "cache"
    (cache / f".partial-sha256-{image.digest.hex}/left/over").mkdir(parents=True)
    with ThreadPoolExecutor(4) as pool:
        roots = set(pool.map(lambda _: unpacked(image, cache), range(8)))
    assert roots == {cache / f"sha256-{image.digest.hex}"}
    assert (roots.pop() / "f").read_bytes() == b"x"
    assert not list(cache.glob(".partial*"))


def unpack_as_nobody(image: Image, root: Path) -> NoReturn:
    """End this process, a child of the tests, whatever happens: it must not go on testing."""
    try:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
        unpack(image, root)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become someone else")
def test_someone_without_privileges_gets_the_same_tree(tmp_path: Path) -> None:
    layers = [
        [
            directory("nix"),
            directory("nix/store"),
            directory("nix/store/a"),
            file("nix/store/a/x"),
            directory("old"),
            directory("old/deep"),
            file("old/deep/f"),
        ],
        [
            directory("nix"),
            directory("nix/store"),
            directory("nix/store/b"),
            file("nix/store/b/x"),
            file(".wh.old"),
            hard_link("nix/store/b/y", "nix/store/a/x"),
            file("nix/store/.wh.c"),
        ],
    ]
    mine = unpack_all(tmp_path, *layers)
    # Someone without privileges may not be able to read root's Python.
    for name in ("concurrent.futures.process", "multiprocessing.popen_fork"):
        importlib.import_module(name)
    for path in [tmp_path, *tmp_path.parents][:4]:
        path.chmod(path.stat().st_mode | 0o055)
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    os.chown(theirs, 65534, 65534)
    image = open_image(LayoutReference(str(tmp_path / "image")))
    # Nobody may not read where this user's Python has it.
    import concurrent.futures.process  # noqa: F401

    child = os.fork()
    if child == 0:
        unpack_as_nobody(image, theirs / "root")
    assert os.waitpid(child, 0)[1] == 0
    assert tree(theirs / "root") == tree(mine)
    assert (theirs / "root/nix/store").stat().st_mtime == 1


def test_any_number_of_workers_makes_the_same_tree(tmp_path: Path) -> None:
    layers = [[directory("d"), *(file(f"d/{n}-{i}", b"x") for i in range(50))] for n in range(9)]
    layout = write_layout(tmp_path / "image", [tar(layer) for layer in layers])
    image = open_image(LayoutReference(str(layout)))
    trees = []
    for workers in (1, 3, 20):
        unpack(image, tmp_path / str(workers), Limits(workers=workers))
        trees.append(tree(tmp_path / str(workers)))
    assert len(trees[0]) == 451
    assert trees[0] == trees[1] == trees[2]


def test_one_bad_layer_of_many_leaves_nothing(tmp_path: Path) -> None:
    layers: list[Members] = [[file(f"good-{n}", b"x" * 100_000)] for n in range(5)]
    with pytest.raises(CheckedFalse, match=r"layer 6 of 6: '\.\./x' climbs out"):
        unpack_all(tmp_path, *layers, [file("../x")])
    assert os.listdir(tmp_path / "out") == []


def deep(levels: int) -> Members:
    """Directories in one another, as deep as a path can be long."""
    return [directory("/".join(["d"] * number)) for number in range(1, levels + 1)]


def test_the_deepest_path_is_unpacked_merged_and_removed(tmp_path: Path) -> None:
    members = deep(2047)
    layout = write_layout(tmp_path / "image", [tar(members), tar([*members, file("f", b"x")])])
    image, cache = open_image(LayoutReference(str(layout))), tmp_path / "cache"
    root = unpacked(image, cache)
    assert os.path.isdir(root / "/".join(["d"] * 1000))
    assert clear_unpacked(cache, time.time() + 1) == (root.name,)
    assert not list(cache.glob("sha256-*"))


def test_removing_takes_no_more_files_than_it_must(tmp_path: Path) -> None:
    for name in ("x/.0-0/a/b", "x/a/.0-0/b", "x/a/c/d/e"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "x/a/c/f").write_text("kept nowhere")
    (tmp_path / "x/a/c/l").symlink_to(tmp_path)
    fd = os.open(tmp_path, os.O_RDONLY)
    remove(b"x", fd)
    remove(b"x", fd)
    os.close(fd)
    assert os.listdir(tmp_path) == []


OTHERS = ["link to the root", "link to the cache", "open", "open to a group", "another's"]
OTHERS += ["a parent open", "a parent open to a group", "another's parent"]


@pytest.mark.parametrize("planted", OTHERS)
def test_a_cache_that_others_may_have_written_is_refused(tmp_path: Path, planted: str) -> None:
    layout = write_layout(tmp_path / "image", [tar([file("f", b"x")])])
    image, cache = open_image(LayoutReference(str(layout))), tmp_path / "above/cache"
    cache.parent.mkdir()
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    root = cache / f"sha256-{image.digest.hex}"
    if planted == "link to the cache":
        cache.symlink_to(theirs)
    else:
        cache.mkdir()
    if planted == "link to the root":
        root.symlink_to(theirs)
    elif planted.startswith(("open", "a parent open")):
        opened = cache.parent if "parent" in planted else cache
        opened.chmod(0o770 if planted.endswith("group") else 0o777)
        if planted.endswith("group"):
            if os.geteuid() != 0:
                pytest.skip("only root can give a directory to any group")
            os.chown(opened, -1, 65534)
    else:
        if os.geteuid() != 0:
            pytest.skip("only root can make what belongs to another")
        place = root if planted == "another's" else cache.parent
        place.mkdir(exist_ok=True)
        os.chown(place, 65534, 65534)
    with pytest.raises(CouldNotCheck, match="where unpacked images are kept or on the way there, "):
        unpacked(image, cache)


def test_what_was_not_unpacked_here_is_unpacked_again(tmp_path: Path) -> None:
    """A CI service restores a cache that another job filled: as ours, and with anything in it."""
    layout = write_layout(tmp_path / "image", [tar([file("f", b"x")])])
    image, cache = open_image(LayoutReference(str(layout))), tmp_path / "cache"
    root = unpacked(image, cache)
    before = root.stat().st_ino
    assert unpacked(image, cache).stat().st_ino == before, "once is enough"
    shutil.copytree(cache, tmp_path / "saved")
    (tmp_path / "saved" / root.name / "f").chmod(0o644)
    (tmp_path / "saved" / root.name / "f").write_text("a backdoor")
    clear_unpacked(cache, time.time() + 1)
    shutil.copytree(tmp_path / "saved", cache, dirs_exist_ok=True)
    assert (unpacked(image, cache) / "f").read_bytes() == b"x"


def test_an_image_cannot_open_its_root_to_others(tmp_path: Path) -> None:
    layout = write_layout(tmp_path / "image", [tar([directory(".", 0o777), file("f", b"x")])])
    image, cache = open_image(LayoutReference(str(layout))), tmp_path / "cache"
    assert unpacked(image, cache).stat().st_mode & 0o022 == 0
    assert (unpacked(image, cache) / "f").read_bytes() == b"x"


def test_two_names_of_one_image_are_one_image(tmp_path: Path) -> None:
    layout = write_layout(tmp_path / "image", [tar([file("f", b"x")])])
    index = json.loads((layout / "index.json").read_bytes())
    one = index["manifests"][0]
    index["manifests"] = [
        one | {"annotations": {"org.opencontainers.image.ref.name": tag}} for tag in ("a", "b")
    ]
    (layout / "index.json").write_text(json.dumps(index))
    assert str(open_image(LayoutReference(str(layout))).digest) == one["digest"]
