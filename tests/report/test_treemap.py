from __future__ import annotations

import itertools

import pytest
from hypothesis import example, given, strategies as st

from nix_seed.core.digests import NarHash
from nix_seed.formats.nix.store_path import PathInfo, StorePath
from nix_seed.image.rules.partition.plan import Group
from nix_seed.report.rules.treemap import Box, Look, map_layers, squarify

SIZES = st.lists(st.integers(1, 10**9), min_size=1, max_size=60)


def overlap(one: Box, other: Box) -> float:
    wide = min(one.x + one.width, other.x + other.width) - max(one.x, other.x)
    high = min(one.y + one.height, other.y + other.height) - max(one.y, other.y)
    return max(wide, 0) * max(high, 0)


def contains(outer: Box, inner: Box, slack: float = 1e-5) -> bool:
    return (
        inner.x >= outer.x - slack
        and inner.y >= outer.y - slack
        and inner.x + inner.width <= outer.x + outer.width + slack
        and inner.y + inner.height <= outer.y + outer.height + slack
    )


@given(SIZES)
@example([1, 129464177])  # a box rounded to 2e-6 beyond its own
def test_areas_are_sizes_and_fill_the_box(sizes: list[int]) -> None:
    sizes = sorted(sizes, reverse=True)
    box = Box(10, 20, 300, 200)
    tiles = squarify(sizes, box)
    assert len(tiles) == len(sizes)
    for size, tile in zip(sizes, tiles, strict=True):
        assert tile.area == pytest.approx(box.area * size / sum(sizes), rel=1e-6, abs=1e-6)
        assert contains(box, tile)
    for one, other in itertools.combinations(tiles, 2):
        assert overlap(one, other) < 1e-3


def test_the_example_of_its_inventors() -> None:
    tiles = squarify([6, 6, 4, 3, 2, 2, 1], Box(0, 0, 6, 4))
    assert [(round(t.width, 2), round(t.height, 2)) for t in tiles] == [
        (3.0, 2.0),
        (3.0, 2.0),
        (1.71, 2.33),
        (1.29, 2.33),
        (1.2, 1.67),
        (1.2, 1.67),
        (0.6, 1.67),
    ]


def test_equal_tiles_are_nearly_square() -> None:
    tiles = squarify([1] * 100, Box(0, 0, 100, 100))
    assert all(max(t.width / t.height, t.height / t.width) < 1.3 for t in tiles)


def test_nothing_needs_no_room() -> None:
    assert squarify([], Box(0, 0, 1, 1)) == []
    assert squarify([0, 0], Box(0, 0, 1, 1)) == [Box(0, 0, 0, 0)] * 2
    assert squarify([5], Box(0, 0, 0, 4)) == [Box(0, 0, 0, 0)]


def world(sizes: dict[str, list[list[int]]]) -> tuple[list[Group], dict[StorePath, PathInfo]]:
    """Tiers of layers of paths of these sizes."""
    groups, closure = [], {}
    numbers = itertools.count()
    for tier, layers in sizes.items():
        for layer in layers:
            paths = []
            for size in layer:
                path = StorePath(f"{next(numbers):032d}-p")
                closure[path] = PathInfo(path, NarHash("0" * 64), size, ())
                paths.append(path)
            groups.append(Group(tier, tuple(paths)))
    return groups, closure


LOOK = Look(width=1000, height=500, smallest=100)


def test_tiers_hold_layers_hold_paths() -> None:
    groups, closure = world({"base": [[50, 30], [20]], "tools": [[300, 100], [200]], "none": [[0]]})
    tiers = map_layers(groups, closure, LOOK)
    assert [(t.tier, t.size, t.headed) for t in tiers] == [
        ("tools", 600, True),
        ("base", 100, True),
    ]
    assert [[layer.number for layer in t.layers] for t in tiers] == [[2, 3], [0, 1]]
    whole = Box(0, 0, 1000, 500)
    for tier in tiers:
        assert contains(whole, tier.box)
        assert contains(tier.box, tier.inner)
        for layer in tier.layers:
            assert contains(tier.inner, layer.box)
            assert layer.size == sum(tile.size for tile in layer.paths)
            assert all(contains(layer.box, tile.box) for tile in layer.paths)
    assert {tile.path for t in tiers for each in t.layers for tile in each.paths} == {
        path for path, info in closure.items() if info.nar_size
    }


def test_what_is_too_small_to_see_is_one_tile() -> None:
    groups, closure = world({"base": [[10**9, *range(1, 1001)]]})
    [tier] = map_layers(groups, closure, LOOK)
    [layer] = tier.layers
    assert [(tile.path is None, tile.count, tile.size) for tile in layer.paths] == [
        (False, 1, 10**9),
        (True, 1000, 500_500),
    ]
    groups, closure = world({"base": [[10**9, 7]]})
    [tier] = map_layers(groups, closure, LOOK)
    assert [tile.path for tile in tier.layers[0].paths] == list(groups[0].paths)


def test_a_tier_without_room_has_no_heading() -> None:
    groups, closure = world({"large": [[10**6]], "small": [[300]]})
    large, small = map_layers(groups, closure, LOOK)
    assert large.headed
    assert not small.headed


def test_fifty_thousand_paths_make_few_tiles() -> None:
    groups, closure = world({"t": [[(n * 7919) % 10**6 for n in range(50_000)]]})
    tiles = [p for t in map_layers(groups, closure, LOOK) for each in t.layers for p in each.paths]
    assert sum(tile.count for tile in tiles) == 50_000
    assert len(tiles) <= LOOK.width * LOOK.height / LOOK.smallest
