"""Files are whole or not there; what is no file is not replaced by one."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from nix_seed.core.errors import CouldNotCheck, InputError
from nix_seed.core.files import (
    cache_directory,
    home,
    write_atomically,
    write_new,
    write_output,
)
from nix_seed.registry.open import Stores


def test_a_file_is_replaced_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file"
    for text in (b"one", b"two"):
        write_atomically(path, text)
        assert path.read_bytes() == text
    assert [each.name for each in path.parent.iterdir()] == ["file"]


def test_a_pipe_is_written_to_and_stays(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()))
    reader.start()
    write_output(pipe, b"text")
    reader.join(30)
    assert read == [b"text"]
    assert pipe.is_fifo()


def test_a_link_stays(tmp_path: Path) -> None:
    link, file = tmp_path / "link", tmp_path / "elsewhere" / "file"
    link.symlink_to(file)
    for text in (b"one", b"two"):
        write_output(link, text)
        assert link.is_symlink()
        assert file.read_bytes() == text


def test_in_a_directory_of_our_own_a_link_is_replaced(tmp_path: Path) -> None:
    link, file = tmp_path / "link", tmp_path / "file"
    file.write_bytes(b"precious")
    link.symlink_to(file)
    write_atomically(link, b"text")
    assert not link.is_symlink()
    assert file.read_bytes() == b"precious"


def test_what_is_new_gets_its_directories_and_replaces_nothing(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "of" / "alice"
    write_new(path, b"one", 0o600)
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(InputError, match="exists already"):
        write_new(path, b"two")
    assert path.read_bytes() == b"one"


def test_a_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CouldNotCheck, match=f"^writing {tmp_path} failed: Is a directory"):
        write_output(tmp_path, b"text")


def test_a_user_without_a_home_is_told_what_to_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One whom only a number names, in a container, where nothing says ``HOME``."""

    def nobody(number: int) -> None:
        raise KeyError(number)

    monkeypatch.setattr("pwd.getpwuid", nobody)
    for name in ("HOME", "XDG_CACHE_HOME", "NIX_SEED_CACHE"):
        monkeypatch.delenv(name, raising=False)
    assert home() is None
    assert Stores().credentials.find("registry.example", "o/r") is None
    with pytest.raises(InputError, match="no home directory, and NIX_SEED_CACHE names no other"):
        cache_directory()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_directory() == tmp_path / "nix-seed"
