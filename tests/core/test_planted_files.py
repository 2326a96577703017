"""Files that someone put where ours belong: links, pipes and devices are refused, not followed."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from nix_seed.core.errors import CouldNotCheck
from nix_seed.core.files import open_lock, open_regular, read_regular

WRITE = os.O_WRONLY | os.O_CREAT | os.O_TRUNC


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    path = tmp_path / "victim"
    path.write_bytes(b"precious")
    return path


@pytest.mark.parametrize("plant", [os.symlink, os.link], ids=["symlink", "hard-link"])
def test_a_planted_link_is_not_written_to(
    plant: Callable[[Path, Path], None], victim: Path, tmp_path: Path
) -> None:
    plant(victim, tmp_path / "name")
    for flags in (WRITE, os.O_RDWR | os.O_CREAT):
        with pytest.raises(CouldNotCheck, match="must be a plain file"):
            open_regular(tmp_path / "name", flags)
    with pytest.raises(CouldNotCheck, match="must be a plain file"):
        open_lock(tmp_path / "name")
    assert victim.read_bytes() == b"precious"


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for flags in (os.O_RDONLY, os.O_RDWR, WRITE):
        with pytest.raises(CouldNotCheck, match="must be a plain file"):
            open_regular(tmp_path / "pipe", flags)


def test_a_device_and_a_link_are_not_read(victim: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(victim)
    for path in (Path("/dev/zero"), tmp_path / "link", tmp_path):
        with pytest.raises(CouldNotCheck, match="must be a plain file"):
            read_regular(path, 10)


def test_reading_ends_at_the_limit(victim: Path) -> None:
    assert read_regular(victim, 8) == b"precious"
    with pytest.raises(CouldNotCheck, match="larger than any document"):
        read_regular(victim, 7)


def test_a_lock_file_keeps_what_is_in_it(victim: Path) -> None:
    open_lock(victim).close()
    assert victim.read_bytes() == b"precious"
