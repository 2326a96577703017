"""``verify --deep`` makes the table of contents anew: lazy and eager users see the same files."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nix_seed.core.errors import CheckedFalse
from nix_seed.formats.oci.manifest import Manifest, MediaType
from nix_seed.image.read.check import deep_check
from nix_seed.image.read.spec import read_seed
from nix_seed.image.rules import spec
from nix_seed.image.rules.contents import dump_contents
from nix_seed.registry.layout import Layout
from nix_seed.registry.layout_store import LayoutStore
from nix_seed.registry.store import Fetched
from nix_seed.use.mount.seed import mounted_layers
from support import trust
from support.nars import Directory, NarFile, Symlink, Tree
from support.trees import AWKWARD

TREES: dict[str, Tree] = {
    "awkward": AWKWARD,
    "file": NarFile(b"a file"),
    "more": Directory({b"a": NarFile(b"one"), b"b": NarFile(b"two"), b"l": Symlink(b"a")}),
}


def made(store: LayoutStore, directory: Path) -> Fetched:
    trust.make_image(store, directory, "seed", TREES)
    found = store.get_manifest("seed")
    assert found is not None
    return found


def test_a_table_of_other_files_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = LayoutStore(Layout.create(tmp_path / "right"))
    image = made(store, tmp_path)
    assert deep_check(store, image, "right").problems == ()
    seed = read_seed("right", image, store)
    names = {name for layer in mounted_layers(seed) for name in layer.contents.names}
    assert {b"a", b"b", b"l"} <= names

    # The maker of the image lists another file than the layer holds, of the same size.
    def lying(layers: list[bytes]) -> bytes:
        return dump_contents(layers).replace(b"a\0b\0l", b"a\0c\0l")

    monkeypatch.setattr(spec, "dump_contents", lying)
    store = LayoutStore(Layout.create(tmp_path / "wrong"))
    wrong = made(store, tmp_path / "other")
    monkeypatch.undo()
    assert mounted_layers(read_seed("wrong", wrong, store))
    problems = deep_check(store, wrong, "wrong").problems
    layers = len(Manifest.parse(wrong.body, "x").layers)
    assert [problem.split(":")[0] for problem in problems] == [f"layer {layers}"]
    assert "table of contents" in problems[0]


@pytest.mark.parametrize("change", [{"size": 1}, {"media_type": MediaType.LAYER_GZIP}])
def test_a_table_of_other_layers_is_not_mounted(tmp_path: Path, change: dict[str, Any]) -> None:
    """Its frames would be asked for at places where the layer has others, or has none."""
    store = LayoutStore(Layout.create(tmp_path / "right"))
    seed = read_seed("right", made(store, tmp_path), store)
    first, *rest = seed.manifest.layers
    layers = (replace(first, **change), *rest)
    other = replace(seed, manifest=replace(seed.manifest, layers=layers))
    with pytest.raises(CheckedFalse, match="has other frames than layer 1"):
        mounted_layers(other)
