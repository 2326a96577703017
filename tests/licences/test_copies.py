"""Files of withheld paths are found in others by their bytes, licences' texts aside."""

from __future__ import annotations

from pathlib import Path

import pytest

from nix_seed.formats.nix.store_path import StorePath
from nix_seed.licences.licences import LEAST, find_copies

TEXT = b"Permission is granted to nobody in particular.\n" * 20
BINARY = bytes(range(256)) * 4
SCRIPT = b"#!/bin/sh\n" + TEXT


def path(name: str) -> StorePath:
    return StorePath(f"{'0' * 32}-{name}")


def put(root: Path, name: str, file: str, content: bytes) -> StorePath:
    to = root / "nix/store" / path(name).base_name / file
    to.parent.mkdir(parents=True, exist_ok=True)
    to.write_bytes(content)
    return path(name)


def copied(root: Path, file: str, content: bytes) -> bool:
    """Put *file* into a withheld path and another; tell whether the copy is found."""
    withheld, other = put(root, "vendor", file, content), put(root, "free", file, content)
    found = find_copies(root, [withheld], [other], lambda *_: False)
    assert all((copy.path, copy.of, copy.file) == (other, withheld, file) for copy in found)
    return bool(found)


@pytest.mark.parametrize(
    "name",
    [
        *("LICENSE", "licence", "UNLICENSE", "LICENSE.txt", "LICENSE-MIT", "LICENSE_1_0.txt"),
        *("LICENSE-2.0.html", "COPYING", "COPYING3.LIB", "COPYING.LESSER", "COPYING.GPLv2"),
        *("NOTICE.md", "copyright", "AUTHORS", "AUTHORS.rst", "LICENSES.txt"),
    ],
)
def test_licence_texts_are_no_evidence(tmp_path: Path, name: str) -> None:
    assert not copied(tmp_path, name, TEXT)


@pytest.mark.parametrize("name", ["LICENSE", "NOTICE.JAR", "COPYING.LIB"])
@pytest.mark.parametrize("content", [BINARY, SCRIPT])
def test_what_is_only_called_so_is_compared(tmp_path: Path, name: str, content: bytes) -> None:
    assert copied(tmp_path, name, content)


@pytest.mark.parametrize(
    "name",
    [
        *("licensed", "licenser", "notice.jar", "license.py", "license.key", "authors.db"),
        *("license-manager.so", "copyright.c", "noticeboard", "my-LICENSE", "license.txt.py"),
    ],
)
@pytest.mark.parametrize("content", [TEXT, BINARY])
def test_a_name_that_only_begins_so_is_compared(tmp_path: Path, name: str, content: bytes) -> None:
    assert copied(tmp_path, name, content)


def test_short_files_are_not_compared(tmp_path: Path) -> None:
    assert not copied(tmp_path, "blob", BINARY[: LEAST - 1])
    assert copied(tmp_path, "blob", BINARY[:LEAST])


def test_a_hostile_name_takes_no_time(tmp_path: Path) -> None:
    assert copied(tmp_path, "LICENSE" + "-0.0" * 60 + "!", TEXT)


def test_only_what_was_found_is_asked_after(tmp_path: Path) -> None:
    withheld = put(tmp_path, "vendor", "a", BINARY)
    put(tmp_path, "vendor", "b", SCRIPT)
    other, origin = put(tmp_path, "other", "x", b"x" * 1024), put(tmp_path, "origin", "a", BINARY)
    mixed = put(tmp_path, "mixed", "renamed", SCRIPT)
    asked = []

    def holds(path: StorePath, of: StorePath) -> bool:
        asked.append((path, of))
        return path == origin

    found = find_copies(tmp_path, [withheld], [other, origin, mixed], holds)
    assert asked == [(origin, withheld), (mixed, withheld)]
    assert [(copy.path, copy.original) for copy in found] == [(mixed, "b")]
