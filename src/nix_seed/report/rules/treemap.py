"""Where tiers, layers and store paths lie on a map whose areas are their sizes.

Squarified treemaps (Bruls, Huizing, van Wijk, 2000): rows are filled along the shorter side for as
long as that makes their tiles squarer. Coordinates are in pixels of the map at its intended size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from nix_seed.core.values import dataclass
from nix_seed.formats.nix.store_path import PathInfo, StorePath
from nix_seed.image.rules.partition.plan import Group


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle; ``x`` and ``y`` are its upper left corner."""

    x: float
    y: float
    width: float
    height: float

    @property
    def area(self) -> float:
        """In square pixels."""
        return self.width * self.height

    def inside(self, by: float, top: float | None = None) -> Box:
        """Return what is left within a margin of *by*, and of *top* above; it may be empty."""
        above = by if top is None else top
        width = max(self.width - 2 * by, 0.0)
        return Box(self.x + by, self.y + above, width, max(self.height - by - above, 0.0))


@dataclass(frozen=True, slots=True)
class Look:
    """How a map is drawn: its size, gaps, the height of a tier's heading, its smallest tile.

    *smallest* is an area: what would be smaller is drawn together with its like.
    """

    width: float
    height: float
    tier_gap: float = 3
    layer_gap: float = 1
    heading: float = 22
    smallest: float = 24


@dataclass(frozen=True, slots=True)
class PathTile:
    """One store path, or (*path* None) the *count* smallest of a layer together."""

    box: Box
    path: StorePath | None
    count: int
    size: int


@dataclass(frozen=True, slots=True)
class LayerTile:
    """One layer, by its *number* from 0, and what it holds; *size* in bytes."""

    box: Box
    number: int
    size: int
    paths: tuple[PathTile, ...]


@dataclass(frozen=True, slots=True)
class TierTile:
    """One tier; *inner* is what its layers share, below the heading if there is room for one."""

    box: Box
    inner: Box
    tier: str
    size: int
    layers: tuple[LayerTile, ...]

    @property
    def headed(self) -> bool:
        """Whether there is room for a heading."""
        return self.inner.y - self.box.y > self.inner.x - self.box.x


def map_layers(
    layers: Sequence[Group], closure: Mapping[StorePath, PathInfo], look: Look
) -> tuple[TierTile, ...]:
    """Lay out *layers*, the largest tier first; what has no size has no tile."""
    sizes = [sum(closure[path].nar_size for path in group.paths) for group in layers]
    members: dict[str, list[int]] = {}
    for number, group in enumerate(layers):
        if sizes[number] > 0:
            members.setdefault(group.tier, []).append(number)
    totals = {tier: sum(sizes[number] for number in numbers) for tier, numbers in members.items()}
    tiers = sorted(members, key=lambda tier: (-totals[tier], tier))
    boxes = squarify([totals[tier] for tier in tiers], Box(0, 0, look.width, look.height))
    found = []
    for tier, box in zip(tiers, boxes, strict=True):
        inner = _inner(box, look)
        numbers = sorted(members[tier], key=lambda number: (-sizes[number], number))
        places = squarify([sizes[number] for number in numbers], inner)
        tiles = tuple(
            LayerTile(
                place,
                number,
                sizes[number],
                _paths(layers[number], closure, sizes[number], place, look),
            )
            for number, place in zip(numbers, places, strict=True)
        )
        found.append(TierTile(box, inner, tier, totals[tier], tiles))
    return tuple(found)


def _inner(box: Box, look: Look) -> Box:
    roomy = box.width >= 4 * look.heading and box.height >= 2 * look.heading
    return box.inside(look.tier_gap / 2, look.heading if roomy else None)


def _paths(
    group: Group, closure: Mapping[StorePath, PathInfo], size: int, place: Box, look: Look
) -> tuple[PathTile, ...]:
    """Lay out one layer's paths; those too small to be seen become one tile."""
    box = place.inside(look.layer_gap / 2)
    sized = sorted(((closure[path].nar_size, path) for path in group.paths), key=_largest)
    seen = [(each, path, 1) for each, path in sized if each * box.area >= look.smallest * size]
    small = [each for each, _ in sized[len(seen) :]]
    entries: list[tuple[int, StorePath | None, int]] = [*seen]
    if len(small) == 1 and small[0] > 0:
        entries.append((small[0], sized[-1][1], 1))
    elif sum(small) > 0:
        entries.append((sum(small), None, len(small)))
    entries.sort(key=lambda entry: -entry[0])
    places = squarify([entry[0] for entry in entries], box)
    return tuple(
        PathTile(at, path, count, each)
        for (each, path, count), at in zip(entries, places, strict=True)
    )


def _largest(item: tuple[int, StorePath]) -> tuple[int, StorePath]:
    return -item[0], item[1]


def squarify(sizes: Sequence[float], box: Box) -> list[Box]:
    """Divide *box* by *sizes*, positive and the largest first; the boxes in the same order."""
    total = sum(sizes)
    if total <= 0:
        return [Box(box.x, box.y, 0, 0) for _ in sizes]
    scale = box.area / total
    areas = [size * scale for size in sizes]
    found: list[Box] = []
    start = 0
    while start < len(areas):
        side = min(box.width, box.height)
        end, row = start + 1, areas[start]
        while end < len(areas) and _worst(areas[start], areas[end], row + areas[end], side) <= (
            _worst(areas[start], areas[end - 1], row, side)
        ):
            row += areas[end]
            end += 1
        tiles, box = _row(areas[start:end], row, box)
        found += tiles
        start = end
    return found


def _worst(largest: float, smallest: float, row: float, side: float) -> float:
    """Return the longest side by the shortest, of the worst tile of a row of that area."""
    if row <= 0 or side <= 0 or smallest <= 0:
        return float("inf")
    thickness = row / side
    return max(thickness * thickness / smallest, largest / (thickness * thickness))


def _row(areas: Sequence[float], row: float, box: Box) -> tuple[list[Box], Box]:
    """Lay a row along the shorter side; return its tiles, and the box that is left."""
    upright = box.width >= box.height
    side = box.height if upright else box.width
    thickness = row / side if side > 0 else 0.0
    tiles, at = [], box.y if upright else box.x
    for area in areas:
        length = area / thickness if thickness > 0 else 0.0
        if upright:
            tiles.append(Box(box.x, at, thickness, length))
        else:
            tiles.append(Box(at, box.y, length, thickness))
        at += length
    if upright:
        left = Box(box.x + thickness, box.y, max(box.width - thickness, 0.0), box.height)
    else:
        left = Box(box.x, box.y + thickness, box.width, max(box.height - thickness, 0.0))
    return tiles, left
