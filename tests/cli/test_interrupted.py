"""What interrupts a build or spoils its cache: full disks, kills, altered blobs."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support import refusals
from support.engines import need, need_root
from support.refusals import check_layout, flip, refused, start, truncate, wait_for_a_layer
from support.seeds import (
    build,
    nix_seed,
)


@pytest.fixture(scope="module")
def project(distribution: Path) -> Path:
    return refusals.project()


@pytest.fixture(scope="module")
def image(project: Path) -> dict[str, Any]:
    return refusals.image()


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "image"


# The disk


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 3 MB, of which the image needs more."""
    need_root()
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = [need("mount"), "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("needs the right to mount a small tmpfs")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_full_disk_at_the_destination(
    project: Path, image: dict[str, Any], small_disk: Path, cache: Path
) -> None:
    output = small_disk / "image"
    ran = nix_seed("build", project, "--kind", "run", "-o", output, cache=cache)
    refused(ran, 3, "No space left on device", "hint: the disk is full", str(output))
    assert not (output / "index.json").exists()
    check_layout(output)
    archive = small_disk / "image.tar"
    shutil.rmtree(output)
    for form in ("oci-archive", "docker-archive"):
        arguments = ["--kind", "run", "-o", str(archive), "--format", form]
        ran = nix_seed("build", project, *arguments, cache=cache)
        refused(ran, 3, "No space left on device", "hint: the disk is full", output=archive)
    assert not list(small_disk.iterdir())


def test_a_full_disk_under_the_cache(
    project: Path, image: dict[str, Any], small_disk: Path, output: Path
) -> None:
    cache = small_disk / "cache"
    ran = nix_seed("build", project, "--kind", "run", "-o", output, cache=cache)
    refused(ran, 3, "No space left on device", "hint: the disk is full", output=output)
    assert not list(cache.rglob("*.tmp"))
    subprocess.run(["mount", "-o", "remount,size=100m", str(small_disk)], check=True)
    again = build(project, "--kind", "run", "-o", output, cache=cache)
    assert again["digest"] == image["digest"]
    check_layout(output)


# Interrupted runs

SLOW = ("--kind", "run", "--level", "17", "--threads", "1")


@pytest.fixture(scope="module")
def slow_digest(project: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    digest = build(project, *SLOW, cache=tmp_path_factory.mktemp("cache"))["digest"]
    assert isinstance(digest, str)
    return digest


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_interrupted_run_leaves_no_half_image_and_the_next_goes_on(
    number: signal.Signals, project: Path, slow_digest: str, cache: Path, output: Path
) -> None:
    process = start(project, *SLOW, "-o", str(output), cache=cache)
    wait_for_a_layer(process, cache)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert out == ""
    assert not (output / "index.json").exists()
    if number == signal.SIGINT:
        assert process.returncode == 130
        assert "interrupted; finished layers are kept" in err
        assert not list(cache.rglob("*.tmp"))
    else:
        assert process.returncode == -number
    again = build(project, *SLOW, "-o", output, cache=cache)
    reused = [layer["reused"] for layer in again["layers"]]
    assert any(reused)
    assert not all(reused)
    assert again["digest"] == slow_digest
    check_layout(output)


def test_ctrl_c_ends_a_push_to_a_registry_that_says_nothing(
    image: dict[str, Any], output: Path, project: Path, cache: Path
) -> None:
    build(project, "--kind", "run", "-o", output, cache=cache)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        target = f"127.0.0.1:{silent.getsockname()[1]}/owner/seed:x"
        command = [sys.executable, "-m", "nix_seed", "push", f"oci:{output}", target]
        with subprocess.Popen(
            [*command, "--plain-http"], stderr=subprocess.PIPE, text=True
        ) as pushing:
            silent.accept()
            pushing.send_signal(signal.SIGINT)
            _, said = pushing.communicate(timeout=25)  # less than it waits for one answer
    assert pushing.returncode == 130
    assert said.endswith("Ctrl-C again ends it at once\ninterrupted\n")


@pytest.mark.parametrize("ignored", [False, True])
def test_ctrl_c_while_the_command_loads_prints_no_traceback(*, ignored: bool) -> None:
    """Behind nohup it is ignored, and stays so."""
    code = f"""
import os, signal, sys
if {ignored}:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
before = signal.getsignal(signal.SIGINT)
class Impatient:
    def find_spec(self, name, path, target=None):
        if name == "nix_seed.cli.main":
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Impatient())
sys.argv = ["nix-seed", "--version"]
from nix_seed.cli.start import main
try:
    main()
finally:
    assert signal.getsignal(signal.SIGINT) == before
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert (done.returncode, done.stdout[:8]) == ((0, "nix-seed") if ignored else (-2, ""))


# A damaged cache


def spoil_record(cache: Path) -> None:
    largest(cache / "layers").write_text('{"descriptor": {}}')


def truncate_record(cache: Path) -> None:
    truncate(largest(cache / "layers"))


def empty_record(cache: Path) -> None:
    largest(cache / "layers").write_bytes(b"")


def flip_blob(cache: Path) -> None:
    flip(largest(cache / "blobs"))


def truncate_blob(cache: Path) -> None:
    truncate(largest(cache / "blobs"))


def remove_blob(cache: Path) -> None:
    largest(cache / "blobs").unlink()


def largest(directory: Path) -> Path:
    return max(directory.iterdir(), key=lambda file: file.stat().st_size)


@pytest.mark.parametrize(
    "harm", [spoil_record, truncate_record, empty_record, flip_blob, truncate_blob, remove_blob]
)
def test_a_corrupted_cache_is_noticed_and_made_whole(
    harm: Callable[[Path], None], project: Path, image: dict[str, Any], cache: Path, output: Path
) -> None:
    first = build(project, "--kind", "run", "-o", output, cache=cache)
    harm(cache)
    again = build(project, "--kind", "run", "-o", output, cache=cache)
    assert [layer["reused"] for layer in again["layers"]].count(False) == 1
    assert again["digest"] == first["digest"] == image["digest"]
    # The layout shares its blobs with the cache: what was harmed there is whole again here.
    check_layout(output)
    third = build(project, "--kind", "run", "-o", output, cache=cache)
    assert all(layer["reused"] for layer in third["layers"])
