from __future__ import annotations

from pathlib import Path

import pytest

from nix_seed.core.errors import CouldNotCheck
from nix_seed.flake.own_source import OwnSource
from nix_seed.formats.nix.store_path import StorePath
from support.specs import store_path

PROJECT = {
    "flake.nix": b"{ }",
    "src/main.c": b"int main;",
    "src/util.c": b"int util;",
    "src/empty.c": b"",
    "other.c": b"int othe2;",
}


def put(root: Path, name: str, files: dict[str, bytes]) -> StorePath:
    path = store_path(name)
    top = root / str(path).lstrip("/")
    top.mkdir(parents=True)
    for file, data in files.items():
        (top / file).parent.mkdir(parents=True, exist_ok=True)
        (top / file).write_bytes(data)
    return path


@pytest.fixture
def own(tmp_path: Path) -> OwnSource:
    return OwnSource(put(tmp_path, "source", PROJECT), tmp_path)


def test_the_source_is_itself(own: OwnSource) -> None:
    assert own(store_path("source"))


@pytest.mark.parametrize(
    ("files", "answer"),
    [
        (PROJECT, True),
        ({"main.c": b"int main;"}, True),  # ./src, filtered
        ({"renamed.c": b"int util;", "deep/er/x": b"{ }"}, True),
        ({"main.c": b"int main;", "empty": b""}, True),
        ({"main.c": b"int main;", "theirs.c": b"more"}, False),
        ({"main.c": b"int mair;"}, False),  # of the same size
        ({"main.c": b"int main;\n"}, False),
        ({"empty": b""}, False),  # nothing that could tell whose it is
        ({}, False),
    ],
)
def test_a_copy_holds_nothing_but_the_projects_files(
    own: OwnSource, tmp_path: Path, files: dict[str, bytes], answer: bool
) -> None:
    path = put(tmp_path, "copy", files)
    assert own(path) is answer
    assert own(path) is answer  # remembered


@pytest.mark.parametrize(("data", "answer"), [(b"int main;", True), (b"x", False), (b"", False)])
def test_a_single_file_is_a_source_too(
    own: OwnSource, tmp_path: Path, data: bytes, answer: bool
) -> None:
    path = store_path("main.c")
    (tmp_path / str(path).lstrip("/")).write_bytes(data)
    assert own(path) is answer


def test_links_are_not_followed(own: OwnSource, tmp_path: Path) -> None:
    path = put(tmp_path, "links", {"main.c": b"int main;"})
    top = tmp_path / str(path).lstrip("/")
    (tmp_path / "outside").write_bytes(b"theirs")
    (top / "dangling").symlink_to("/nowhere")
    (top / "file").symlink_to(tmp_path / "outside")
    (top / "directory").symlink_to(tmp_path)
    assert own(path)
    link = store_path("link")
    (tmp_path / str(link).lstrip("/")).symlink_to(top / "main.c")
    assert not own(link)


def test_a_source_that_has_gone_is_no_answer(own: OwnSource) -> None:
    with pytest.raises(CouldNotCheck, match=r"cannot read the source .*-gone: No such file"):
        own(store_path("gone"))
