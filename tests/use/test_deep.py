"""The deepest path that a layer can hold is unpacked, hydrated, checked again, run and removed."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import zstandard

from nix_seed.core.digests import NarHash
from nix_seed.core.files import files_below
from nix_seed.formats.nix.store_path import PathInfo, StorePath
from nix_seed.image.read.safe_root import scratch_directory
from nix_seed.image.rules.frames import Compressor
from support import nars as nar
from support.distribution import nix_env
from support.hydration import put_seed, spec_of

PATH = StorePath("0" * 31 + "a-deep")
LEVELS = (4096 - len(str(PATH))) // 2 - 1
FEW = 256  # files that may be open at once


def nar_of(levels: int) -> bytes:
    """The NAR of an empty directory, *levels* directories deep."""
    into = b"".join([nar.DIRECTORY + nar.entry_head(b"d")] * levels)
    return nar.MAGIC + into + nar.DIRECTORY + nar.CLOSE + (nar.CLOSE + nar.CLOSE) * levels


@pytest.fixture(scope="module")
def seed(tmp_path_factory: pytest.TempPathFactory) -> str:
    text = nar_of(LEVELS)
    info = PathInfo(PATH, NarHash(hashlib.sha256(text).hexdigest()), len(text), ())
    spec = spec_of([[info]], Compressor.at_hand("zstd"))
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        top = ["nix", "nix/store", str(PATH)[1:]]
        for name in [*top, *(top[2] + "/d" * number for number in range(1, LEVELS + 1))]:
            member = tarfile.TarInfo(name)
            member.type, member.mode, member.mtime = tarfile.DIRTYPE, 0o555, 1
            archive.addfile(member)
    blob = (spec.compressor.media_type, zstandard.compress(buffer.getvalue()))
    return put_seed(tmp_path_factory.mktemp("deep") / "image", spec, [blob])


def nix_seed(*arguments: str) -> str:
    """Run the command with few files allowed."""
    limited = ["sh", "-c", f'ulimit -n {FEW}; exec "$@"', "sh", sys.executable, "-m", "nix_seed"]
    done = subprocess.run(
        [*limited, *arguments], env=nix_env(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    """A directory that the product itself removes: Python cannot, so deep is it."""
    with scratch_directory("root-", tmp_path) as directory:
        yield directory


def test_the_deepest_path_is_hydrated_and_checked_again(seed: str, root: Path) -> None:
    arguments = ("hydrate", seed, "--root", str(root), "--system", "x86_64-linux", "--json")
    assert '"reused":0' in nix_seed(*arguments).replace(" ", "")
    assert os.path.isdir(root / str(PATH)[1:] / "/".join(["d"] * (LEVELS // 2)))
    (root / "nix/var/nix/db/db.sqlite").unlink()
    assert '"reused":1' in nix_seed(*arguments).replace(" ", "")


def test_files_at_any_depth_are_seen_and_removed(tmp_path: Path) -> None:
    with scratch_directory("deep-", tmp_path) as directory:
        here = os.open(directory, os.O_RDONLY)
        for _ in range(1500):
            os.mkdir("d", dir_fd=here)
            below = os.open("d", os.O_RDONLY, dir_fd=here)
            os.close(here)
            here = below
        os.close(os.open("file", os.O_WRONLY | os.O_CREAT, dir_fd=here))
        os.symlink("/", "link", dir_fd=here)
        os.close(here)
        (found,) = files_below(directory)
        assert found.count("/d") >= 1500
        assert found.endswith("/file")
        assert len(list(files_below(directory, links=True))) == 2
    assert list(tmp_path.iterdir()) == []
