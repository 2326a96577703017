"""A full disk, through the command line: a documented exit code, and nothing half written."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from nix_seed.formats.nix.store_path import StorePath
from nix_seed.formats.oci.reference import LayoutReference
from nix_seed.outputs.kept import find_kept
from nix_seed.registry.open import Stores
from support import engines
from support.output_world import NUMBERS, Twenty, changed, twenty


def resize(disk: Path, size: str) -> None:
    """Give the tmpfs at *disk* another size."""
    subprocess.run(["mount", "-o", f"remount,size={size}", str(disk)], check=True)


@pytest.fixture(scope="module")
def world() -> Twenty:
    return twenty()


def outputs(world: Twenty) -> list[StorePath]:
    """What there is to push."""
    from support.distribution import nix

    found = nix("path-info", *(f"{world.project}#p{number}" for number in NUMBERS))
    return [StorePath.parse(path) for path in found.split()]


def check_whole(where: Path, paths: list[StorePath]) -> int:
    """See that whatever is listed of *paths* is there, whole; return how many are listed."""
    store, count = Stores().open(LayoutReference(str(where))), 0
    for path in paths:
        listed = find_kept(store, path.hash_part)
        assert listed.troubles == ()
        for kept in listed.kept:
            assert store.has_blob(kept.nar.digest)
            assert all(store.has_blob(bundle.digest) for bundle in kept.bundles)
            count += 1
    return count


@pytest.mark.parametrize("size", ["48k", "108k", "176k", "256k"])
def test_a_push_with_no_room_left(size: str, full_disk: Path, world: Twenty) -> None:
    """For NARs, for what is signed, for manifests, for lists."""
    resize(full_disk, size)
    where, paths = full_disk / "kept", outputs(world)
    done = world.push(f"oci:{where}")
    assert done.code == 3, done.err
    assert "No space left" in done.err
    assert "the disk is full: make room there" in done.err
    if (where / "oci-layout").exists():
        assert check_whole(where, paths) == 0, "a layout's lists change together, or not at all"
    resize(full_disk, "16m")
    again = world.push(f"oci:{where}")
    assert again.code == 0, again.err
    assert check_whole(where, paths) == len(paths)
    assert [*where.rglob(".*")] == []


def test_a_run_that_finds_no_room_to_keep(full_disk: Path, world: Twenty, tmp_path: Path) -> None:
    engines.need("bwrap", "bubblewrap")
    project = changed(world.project, tmp_path / "project", "p7")
    resize(full_disk, "24k")
    where: list[str | Path] = [
        "--no-verify",
        "--policy",
        world.policy,
        "--flake",
        project,
        "--key",
        world.key,
    ]
    where += ["--store", tmp_path / "host", "--image", world.seed, "--engine", "bwrap"]
    what = ["nix", "build", ".#p7"]
    done = world.run("run", *where, "--keep", f"oci:{full_disk / 'kept'}", "--", *what)
    assert done.code == 3, done.err
    assert "No space left" in done.err
    resize(full_disk, "16m")
    done = world.run("run", *where, "--keep", f"oci:{full_disk / 'kept'}", "--", *what)
    assert done.code == 0, done.err


def test_a_cache_that_has_no_room_for_its_key(full_disk: Path, world: Twenty) -> None:
    resize(full_disk, "16m")
    target = f"oci:{full_disk / 'kept'}"
    assert world.push(target).code == 0
    state = full_disk / "state"
    state.mkdir()
    resize(full_disk, "1m")
    fill = ["dd", "if=/dev/zero", f"of={full_disk / 'more'}", "bs=4k"]
    assert (
        "No space left" in subprocess.run(fill, check=False, capture_output=True, text=True).stderr
    )
    done = world.run("outputs", "serve", target, "--policy", world.policy, "--state", state)
    assert done.code == 3, done.err
    assert "No space left" in done.err
    assert [*state.iterdir()] == []
