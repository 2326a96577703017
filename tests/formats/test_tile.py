from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, strategies as st

from nix_seed.core.errors import CheckedFalse, InputError
from nix_seed.formats.tlog.merkle import (
    WIDTH,
    Tile,
    TreeNode,
    build_consistency_proof,
    build_inclusion_proof,
    build_root,
    build_tiles,
    decode_entries,
    encode_entries,
    leaf_hash,
    new_tiles,
    read_from_leaves,
    read_from_tiles,
    tiles_of,
)

LEVELS = 8


def tiles_at(size: int) -> list[Tile]:
    return [tile for level in range(LEVELS) for tile in tiles_of(size, level)]


@pytest.mark.parametrize(
    ("tile", "path"),
    [
        (Tile(0, 0), "tile/0/000"),
        (Tile(0, 1234067), "tile/0/x001/x234/067"),
        (Tile(2, 999, 17), "tile/2/999.p/17"),
        (Tile(1, 1000, 1), "tile/1/x001/000.p/1"),
        (Tile(Tile.ENTRIES, 12, 255), "tile/entries/012.p/255"),
        (Tile(Tile.ENTRIES, 1234067), "tile/entries/x001/x234/067"),
    ],
)
def test_paths(tile: Tile, path: str) -> None:
    assert tile.path == path
    assert Tile.parse(path) == tile


@pytest.mark.parametrize(
    "path",
    [
        "",
        "tile",
        "tile/0",
        "tile/0/0",
        "tile/0/00",
        "tile/0/0000",
        "tile/00/000",
        "tile/0/001/000",
        "tile/0/x001/0",
        "tile/0/x001",
        "tile/8/000",
        "tile/64/000",
        "tile/0/000.p/0",
        "tile/0/000.p/256",
        "tile/0/000.p/01",
        "tile/0/000.p/",
        "tile/0/000.p",
        "tile/0/x000/000",
        "tile/-1/000",
        "tile/0/000/",
        "/tile/0/000",
        "tile/0/000\n",
        "tile/data/000",
        "tile/0/../../private",
        "tile/0/x" + "999/x" * 40 + "000",
        "tile/0/٠٠٠",
        "tile/+0/000",
        "TILE/0/000",
    ],
)
def test_no_other_path_is_one(path: str) -> None:
    with pytest.raises(InputError, match=r"is not the path of a tile|there is no tile"):
        Tile.parse(path)


@given(st.builds(Tile, st.integers(-1, LEVELS - 1), st.integers(0, 2**40), st.integers(1, WIDTH)))
def test_paths_go_round(tile: Tile) -> None:
    assert Tile.parse(tile.path) == tile


def test_the_example_of_the_specification() -> None:
    """ "A tree of size 70,000": 273 full tiles and one of 112; one full and one of 17; one of 1."""
    level0 = list(tiles_of(70_000))
    assert len(level0) == 274
    assert level0[-1] == Tile(0, 273, 112)
    assert list(tiles_of(70_000, 1)) == [Tile(1, 0), Tile(1, 1, 17)]
    assert list(tiles_of(70_000, 2)) == [Tile(2, 0, 1)]
    assert tiles_at(256) == [Tile(0, 0), Tile(1, 0, 1)]
    assert tiles_at(0) == []


@pytest.mark.parametrize("size", [1, 2, 255, 256, 257, 511, 512, 1000, 65536 + 300])
def test_trees_read_from_tiles_are_the_trees(size: int) -> None:
    direct = read_from_leaves([leaf_hash(b"%d" % i) for i in range(size)])
    tiles = tiles_at(size)
    stored = dict(zip(tiles, build_tiles(tiles, direct), strict=True))
    asked: list[Tile] = []

    def read_tiles(wanted: Sequence[Tile]) -> list[bytes]:
        asked.extend(wanted)
        return [stored[tile] for tile in wanted]

    read = read_from_tiles(size, read_tiles)
    assert build_root(size, read) == build_root(size, direct)
    for index in {0, size // 2, size - 1}:
        expected = build_inclusion_proof(index, size, direct)
        assert build_inclusion_proof(index, size, read) == expected
    for old in {1, size // 3, size - 1}:
        expected = build_consistency_proof(old, size, direct)
        assert build_consistency_proof(old, size, read) == expected
    assert len(asked) == len(set(asked)), "a tile was read twice"


@given(st.integers(0, 70_000), st.integers(0, 70_000))
def test_new_tiles_are_those_that_were_not_there(one: int, other: int) -> None:
    old, new = sorted((one, other))
    assert set(new_tiles(old, new)) == set(tiles_at(new)) - set(tiles_at(old))


def test_a_tile_has_its_length() -> None:
    read = read_from_tiles(3, lambda _: [b"x" * 64])
    with pytest.raises(CheckedFalse, match=r"tile/0/000.p/3 has 64 bytes; 3 hashes have 96"):
        read([TreeNode(0, 0)])


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=WIDTH))
def test_bundles_go_round(entries: list[bytes]) -> None:
    tile = Tile(Tile.ENTRIES, 0, len(entries))
    assert decode_entries(tile, encode_entries(entries)) == tuple(entries)


def test_bundles_are_read_exactly() -> None:
    tile = Tile(Tile.ENTRIES, 0, 2)
    data = encode_entries([b"one", b"two"])
    for cut in (data[:-1], data + b"\0", data + b"\0\5abc"):
        with pytest.raises(CheckedFalse, match="ends in the middle of an entry"):
            decode_entries(tile, cut)
    with pytest.raises(CheckedFalse, match="holds 3 entries, not 2"):
        decode_entries(tile, data + b"\0\0")
    with pytest.raises(CheckedFalse, match="holds 1 entries, not 2"):
        decode_entries(tile, data[:5])
    with pytest.raises(CheckedFalse, match="holds 0 entries, not 2"):
        decode_entries(tile, b"")
    assert encode_entries([b"x" * 65535])[:2] == b"\xff\xff"
    with pytest.raises(InputError, match="an entry of 65536 bytes is too long"):
        encode_entries([b"x" * 65536])
