"""A layout's index is read once, and anew when it is another file: also within a clock's tick."""

from __future__ import annotations

import os
from pathlib import Path

from nix_seed.formats.oci.manifest import Index, MediaType
from nix_seed.registry.layout import Layout
from nix_seed.registry.layout_store import LayoutStore


def put(store: LayoutStore, tag: str, number: int) -> None:
    body = Index((), annotations={"number": str(number)}).dump()
    store.put_manifest(body, MediaType.INDEX, tag)


def number(store: LayoutStore, tag: str) -> str:
    fetched = store.get_manifest(tag)
    assert fetched is not None
    return Index.parse(fetched.body, tag).annotations["number"]


def test_another_writer_is_seen_at_once(tmp_path: Path) -> None:
    mine = LayoutStore(Layout.create(tmp_path / "images"))
    theirs = LayoutStore(Layout.open(tmp_path / "images"))
    for each in range(100):
        put((mine, theirs)[each % 2], "latest", 100 + each)
        assert number(mine, "latest") == number(theirs, "latest") == str(100 + each)


def test_the_same_file_is_read_once(tmp_path: Path) -> None:
    store = LayoutStore(Layout.create(tmp_path / "images"))
    put(store, "latest", 1)
    path = tmp_path / "images/index.json"
    os.utime(path, ns=(0, 0))
    layout = Layout.open(tmp_path / "images")
    assert layout.listing() is layout.listing()
    put(store, "latest", 2)
    assert number(LayoutStore(layout), "latest") == "2"
