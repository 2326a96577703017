"""From images to stores: what arrives, what Nix says of it, and what is refused."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import multiprocessing
import os
import random
import shutil
import subprocess
import tarfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from nix_seed.cli.use.hydrate import command
from nix_seed.core.errors import CheckedFalse, InputError
from nix_seed.formats.oci.manifest import MediaType
from nix_seed.formats.oci.reference import LayoutReference, Reference, parse_reference
from nix_seed.image.push import push
from nix_seed.image.rules.frames import FRAME_SIZE, Compressor
from nix_seed.image.rules.spec import Spec
from nix_seed.registry.open import Stores
from nix_seed.use.hydrate import Hydrated, hydrate
from nix_seed.use.hydrate_layer import Target, workers
from support.hydration import Blob, layers_of, make_seed, names_in, put_seed, query, spec_of, verify
from support.layouts import PACKERS, directory, file, hard_link, special, symlink, tar
from support.nars import Directory, NarFile, Symlink, Tree
from support.programs import need
from support.registries import docker_registry
from support.trees import AWKWARD, put

RANDOM = random.Random(4)
# More than two frames, the last not full; and one of exactly two.
LARGE = Directory({b"large": NarFile(RANDOM.randbytes(2 * FRAME_SIZE + 12345))})
EXACT = NarFile(RANDOM.randbytes(2 * FRAME_SIZE - 512))
GROUPS: list[dict[str, Tree]] = [
    {"awkward": AWKWARD, "file": NarFile(b"just a file"), "link": Symlink(b"/nix/store")},
    {"large": LARGE, "program": NarFile(b"#!/bin/sh\n", executable=True), "empty": Directory({})},
    {
        "small": Directory({b"s": NarFile(b"s")}),
        **{f"p{n}": NarFile(RANDOM.randbytes(9000)) for n in range(9)},
    },
]


@pytest.fixture(scope="module", params=["zstd", "gzip"])
def seed(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Spec]:
    return make_seed(tmp_path_factory.mktemp(request.param), GROUPS, request.param)


def into(root: Path, reference: str, **how: object) -> Hydrated:
    options = {"system": "x86_64-linux"} | how
    return hydrate(Stores(), parse_reference(reference), root, **options)  # type: ignore[arg-type]


def test_an_empty_root_becomes_a_valid_store(tmp_path: Path, seed: tuple[str, Spec]) -> None:
    need("nix-store")
    reference, spec = seed
    done = into(tmp_path, reference)
    assert set(done.added) == set(spec.paths)
    assert (done.skipped, done.reused) == ((), 0)
    assert done.nar_hash == str(spec.nar_hash)
    verify(tmp_path)
    assert names_in(tmp_path) == {path.base_name for path in spec.paths}
    for info in spec.paths.values():
        assert query(tmp_path, "--hash", str(info.path)) == [info.nar_hash.nix32]
        assert query(tmp_path, "--references", str(info.path)) == [str(p) for p in info.references]
    for path in spec.paths:
        top = tmp_path / str(path)[1:]
        for place in [top, *(top.rglob("*") if top.is_dir() and not top.is_symlink() else ())]:
            status = os.lstat(place)
            assert status.st_mtime == 1
            assert status.st_mode & 0o7777 in (0o555, 0o444, 0o777)


def test_again_nothing_is_fetched_but_the_last_layer(
    tmp_path: Path, seed: tuple[str, Spec]
) -> None:
    reference, spec = seed
    first = into(tmp_path, reference)
    again = into(tmp_path, reference)
    assert again.added == ()
    assert set(again.skipped) == set(spec.paths)
    assert again.fetched < 20_000 < first.fetched


def test_a_path_that_is_missing_is_added_to_nixs_own_database(
    tmp_path: Path, seed: tuple[str, Spec]
) -> None:
    need("nix-store")
    reference, spec = seed
    into(tmp_path, reference)
    top = [path for path in spec.paths if path.name == "p8"]
    command = ["nix-store", "--store", str(tmp_path), "--delete", *map(str, top)]
    env = os.environ | {"NIX_CONFIG": "build-users-group ="}
    subprocess.run(command, check=True, capture_output=True, env=env)
    assert list(into(tmp_path, reference).added) == top
    verify(tmp_path)


def test_what_a_killed_run_left_is_used_where_it_is_right(
    tmp_path: Path, seed: tuple[str, Spec]
) -> None:
    reference, spec = seed
    into(tmp_path, reference)
    shutil.rmtree(tmp_path / "nix/var")
    wrong = next(path for path in spec.paths if path.name == "program")
    right = next(path for path in spec.paths if path.name == "large")
    place = tmp_path / str(wrong)[1:]
    place.unlink()
    place.write_text("something else")
    (tmp_path / "nix/store/.seed-unfinished").mkdir()
    before = (tmp_path / str(right)[1:]).stat().st_ino
    done = into(tmp_path, reference)
    assert done.reused == len(spec.paths) - 1
    assert (tmp_path / str(right)[1:]).stat().st_ino == before
    assert place.read_bytes() == b"#!/bin/sh\n"
    assert ".seed-unfinished" not in names_in(tmp_path)
    verify(tmp_path)


def test_parts_of_layers_are_fetched_by_range(tmp_path: Path) -> None:
    reference, spec = make_seed(tmp_path / "made", GROUPS)
    root = tmp_path / "store"
    into(root, reference)
    left = [path for path in spec.paths if path.name not in ("large", "file")]
    shutil.rmtree(root / "nix/var")
    for name in ("large", "file"):
        path = next(path for path in spec.paths if path.name == name)
        if name == "file":
            (root / str(path)[1:]).unlink()
    done = into(root, reference)
    assert done.reused == len(left) + 1
    assert done.fetched < 40_000  # the last layer and one frame, not the layer around it
    verify(root)


def test_a_path_of_whole_frames_hides_no_other(tmp_path: Path) -> None:
    """Where the seek table cannot tell paths apart, the layer is read whole."""
    groups: list[dict[str, Tree]] = [{"exact": EXACT, "b": NarFile(b"b"), "c": NarFile(b"c" * 99)}]
    reference, spec = make_seed(tmp_path / "made", groups)
    root = tmp_path / "store"
    into(root, reference)
    shutil.rmtree(root / "nix/var")
    gone = next(path for path in spec.paths if path.name == "c")
    (root / str(gone)[1:]).unlink()
    done = into(root, reference)
    assert done.reused == 2
    assert done.fetched > FRAME_SIZE
    verify(root)


def test_from_a_registry(tmp_path: Path) -> None:
    reference, spec = make_seed(tmp_path / "made", GROUPS)
    with docker_registry(tmp_path / "registry", password=False) as running:
        stores = Stores()
        target = Reference(running.host, "demo/seed", "v1")
        push(stores, _layout(reference), target)
        done = into(tmp_path / "store", str(target))
        assert set(done.added) == set(spec.paths)
        verify(tmp_path / "store")
        path = next(path for path in spec.paths if path.name == "p3")
        shutil.rmtree(tmp_path / "store/nix/var")
        (tmp_path / "store" / str(path)[1:]).unlink()
        assert into(tmp_path / "store", str(target)).fetched < 60_000
        verify(tmp_path / "store")


def test_names_that_differ_in_case_get_nixs_suffix(tmp_path: Path) -> None:
    tree = Directory(
        {
            b"README": NarFile(b"1"),
            b"ReadMe": NarFile(b"2"),
            b"readme": Directory({b"a": NarFile(b"3"), b"A": Symlink(b"a")}),
            b"other": NarFile(b"4"),
        }
    )
    reference, spec = make_seed(tmp_path / "made", [{"cases": tree}])
    root = tmp_path / "store"
    into(root, reference, case_hack=True)
    (path,) = (root / str(path)[1:] for path in spec.paths)
    hack = "~nix~case~hack~"
    assert sorted(os.listdir(path)) == ["README", f"ReadMe{hack}1", "other", f"readme{hack}2"]
    assert sorted(os.listdir(path / f"readme{hack}2")) == ["A", f"a{hack}1"]
    verify(root, use_case_hack="true")
    shutil.rmtree(root / "nix/var")
    assert into(root, reference, case_hack=True).reused == 1


def _layout(reference: str) -> LayoutReference:
    found = parse_reference(reference)
    assert isinstance(found, LayoutReference)
    return found


def spoilt(tmp_path: Path, spoil: Callable[[Spec, list[Blob]], tuple[Spec, list[Blob]]]) -> str:
    infos = [[put(tmp_path / "root", "a", Directory({b"x": NarFile(b"x" * 5000)}))]]
    infos += [[put(tmp_path / "root", "b", NarFile(b"b"))]]
    spec = spec_of(infos, Compressor.at_hand())
    return put_seed(tmp_path / "image", *spoil(spec, layers_of(spec, tmp_path / "root")))


def with_layer(
    blob: Callable[[str], bytes], kind: str = "zstd"
) -> Callable[..., tuple[Spec, list[Blob]]]:
    """Replace the first layer by what *blob* makes of the name of its path."""

    def spoil(spec: Spec, blobs: list[Blob]) -> tuple[Spec, list[Blob]]:
        media_type, pack = PACKERS[kind]
        data = pack(blob(f"nix/store/{spec.layers[0].paths[0].base_name}"))
        return spec, [(media_type, data), *blobs[1:]]

    return spoil


def of(*members: Callable[[str], tuple[tarfile.TarInfo, bytes]]) -> Callable[[str], bytes]:
    return lambda path: tar([directory("nix"), directory("nix/store"), *(m(path) for m in members)])


PLAIN = [directory, lambda p: file(f"{p}/x", b"x" * 5000)]
OTHER = "nix/store/00000000000000000000000000000000-other"
HOSTILE: dict[str, tuple[Callable[[str], bytes], str]] = {
    "other bytes": (of(PLAIN[0], lambda p: file(f"{p}/x", b"y" * 5000)), "has the NAR hash"),
    "executable": (of(PLAIN[0], lambda p: file(f"{p}/x", b"x" * 5000, 0o555)), "has the NAR hash"),
    "extra file": (of(*PLAIN, lambda p: file(f"{p}/y", b"y")), "has the NAR hash"),
    "nothing": (of(), "lacks"),
    "another path": (of(*PLAIN, lambda p: file(OTHER, b"o")), "which its spec does not list"),
    "outside of the store": (of(*PLAIN, lambda p: file("etc/passwd", b"o")), "no store path"),
    "climbing": (of(*PLAIN, lambda p: file(f"{p}/../../../../etc/x", b"")), "climbs out with .."),
    "absolute": (of(lambda p: file(f"/{p}", b"")), "is an absolute name"),
    "through a symlink": (
        of(PLAIN[0], lambda p: symlink(f"{p}/l", "/etc"), lambda p: file(f"{p}/l/x", b"")),
        "outside of the order of a NAR",
    ),
    "the path a symlink": (
        of(lambda p: symlink(p, "/etc"), lambda p: file(f"{p}/x", b"")),
        "outside of the order of a NAR",
    ),
    "device": (of(PLAIN[0], lambda p: special(f"{p}/d", tarfile.CHRTYPE)), "character device"),
    "set-user-ID": (of(PLAIN[0], lambda p: file(f"{p}/x", b"x", 0o4555)), "set-user-ID"),
    "hard link": (of(*PLAIN, lambda p: hard_link(f"{p}/z", f"{p}/x")), "has a hard link"),
    "too large": (of(PLAIN[0], lambda p: file(f"{p}/x", b"x" * 9999)), "larger than all of it"),
    "twice": (of(*PLAIN, lambda p: file(OTHER[:10] + p[10:], b"")), "is there twice"),
    "cut": (lambda p: of(*PLAIN)(p)[:2500], "ends in the middle of a file"),
    "endless": (lambda p: of(*PLAIN)(p)[:-1024] + bytes(4 << 20), "decompresses to more than"),
}


def accepted(name: str) -> bool:
    """Whether all of the path came, and right, before what is wrong with the layer."""
    return name in ("another path", "outside of the store", "endless")


@pytest.mark.parametrize("kind", ["zstd", "gzip", "none"])
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_layers_are_refused_and_leave_nothing(tmp_path: Path, name: str, kind: str) -> None:
    blob, message = HOSTILE[name]
    reference = spoilt(tmp_path, with_layer(blob, kind))
    (tmp_path / "store").mkdir()
    with pytest.raises(CheckedFalse) as caught:
        into(tmp_path / "store", reference)
    assert message in caught.value.message
    left = names_in(tmp_path / "store")
    # The other layer's path may be in place, verified; but nothing is registered.
    assert all(each.endswith("-b") for each in left if not accepted(name)), left
    assert not any(each.startswith(".seed-") for each in left)
    assert not (tmp_path / "store/nix/var/nix/db/db.sqlite").exists()
    assert sorted(os.listdir(tmp_path / "store")) == ["nix"]


def test_an_error_leaves_no_worker_that_may_still_write(tmp_path: Path) -> None:
    info = put(tmp_path, "absent", NarFile(b""))
    (tmp_path / str(info.path).lstrip("/")).unlink()
    source = Stores().open(parse_reference(spoilt(tmp_path, lambda spec, blobs: (spec, blobs))))
    store = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    started: list[int] = []
    # With a thread that an earlier test left, and that has yet to end, it forks no workers.
    until = time.monotonic() + 30
    while threading.active_count() > 1 and time.monotonic() < until:
        time.sleep(0.05)
    with contextlib.suppress(KeyError), workers(source, Target(store, False, 0), 8) as pool:
        assert not pool.intact([info])
        started += [each.pid for each in multiprocessing.active_children() if each.pid]
        raise KeyError
    os.close(store)
    assert started
    assert not [each for each in started if Path(f"/proc/{each}").exists()]


@pytest.mark.parametrize("at", [5, 400, -3])
def test_a_flipped_bit_is_noticed(tmp_path: Path, at: int) -> None:
    reference = spoilt(tmp_path, lambda spec, blobs: (spec, blobs))
    blobs = tmp_path / "image/blobs/sha256"
    largest = max(blobs.iterdir(), key=lambda path: path.stat().st_size)
    data = bytearray(largest.read_bytes())
    data[at] ^= 1
    largest.write_bytes(data)
    with pytest.raises(CheckedFalse):
        into(tmp_path / "store", reference)
    assert not (tmp_path / "store/nix/var/nix/db/db.sqlite").exists()


def test_a_layer_that_others_compressed_is_read(tmp_path: Path) -> None:
    """One frame of unknown size, as other tools write zstd."""

    def whole(spec: Spec, blobs: list[Blob]) -> tuple[Spec, list[Blob]]:
        reader = zstandard.ZstdDecompressor().stream_reader(
            io.BytesIO(blobs[0][1]), read_across_frames=True
        )
        writer = zstandard.ZstdCompressor().compressobj()
        again = writer.compress(reader.read()) + writer.flush()
        return spec, [(MediaType.LAYER_ZSTD, again), *blobs[1:]]

    into(tmp_path / "store", spoilt(tmp_path, whole))
    verify(tmp_path / "store")


def test_another_spec_than_the_manifest_states(tmp_path: Path) -> None:
    reference = spoilt(tmp_path, lambda spec, blobs: (spec, blobs))
    layout = tmp_path / "image"
    index = json.loads((layout / "index.json").read_text())
    blob = layout / "blobs/sha256" / index["manifests"][0]["digest"][7:]
    text = blob.read_text()
    stated = json.loads(text)["annotations"]["io.nix-seed.nar-hash"]
    text = text.replace(stated, "sha256-" + "A" * 43 + "=")
    digest = hashlib.sha256(text.encode()).hexdigest()
    (blob.parent / digest).write_text(text)
    index["manifests"][0] |= {"digest": f"sha256:{digest}", "size": len(text)}
    (layout / "index.json").write_text(json.dumps(index))
    with pytest.raises(CheckedFalse, match="the manifest states narHash sha256-AAAA"):
        into(tmp_path / "store", reference)


def test_an_image_that_is_no_seed(tmp_path: Path) -> None:
    from support.layouts import write_layout

    write_layout(tmp_path / "image", [tar([file("x", b"x")])])
    with pytest.raises(InputError, match=r"is not a seed: its last layer holds no etc/nix-seed"):
        into(tmp_path / "store", f"oci:{tmp_path / 'image'}")


def test_the_command_says_what_it_did(tmp_path: Path, seed: tuple[str, Spec]) -> None:
    from click.testing import CliRunner

    reference, spec = seed
    arguments = [reference, "--root", str(tmp_path), "--json", "--system", "x86_64-linux"]
    said = json.loads(CliRunner().invoke(command, arguments, catch_exceptions=False).stdout)
    assert said["added"] == sorted(map(str, spec.paths))
    assert said["narHash"] == str(spec.nar_hash)
    assert said["seconds"]["total"] > 0
    again = CliRunner().invoke(command, arguments[:3] + arguments[4:], catch_exceptions=False)
    assert f"{tmp_path}/nix/store has 0 new paths of sha256:" in again.stdout
    assert f"{len(spec.paths)} paths there before" in again.stdout
