"""The map of tiers, layers and store paths, drawn as SVG: one for wide pages, one for narrow ones.

Sideways in percent, downwards in pixels: the map fills its page, and writing keeps its size.

What is in the image, and how large it is: the map, the tiers, the layers, the store paths.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from nix_seed.core.words import human_size, plural
from nix_seed.formats.nix.store_path import StorePath
from nix_seed.image.inspect import InspectedImage
from nix_seed.image.rules.spec import Spec
from nix_seed.report.page.parts import (
    Column,
    Row,
    Section,
    Sorted,
    data_table,
    details,
    digest,
    size,
)
from nix_seed.report.rules.element import Child, Element, el
from nix_seed.report.rules.treemap import Box, LayerTile, Look, PathTile, TierTile, map_layers

_WIDE = Look(width=1080, height=560, smallest=150)
_TALL = Look(width=340, height=600, smallest=90, heading=20)
_COLOURS = 8
_LETTER = 6.7  # pixels, on average, of a 12 pixel letter


def tier_class(tiers: Sequence[str], tier: str) -> str:
    """Return the class that gives *tier* its colour."""
    return f"t{tiers.index(tier) % _COLOURS}" if tier in tiers else "t-none"


def size_maps(spec: Spec, changed: Collection[StorePath]) -> Child:
    """Return both maps; *changed* paths are hatched."""
    return [
        _Map(spec, changed, _WIDE, "wide").svg(),
        _Map(spec, changed, _TALL, "tall").svg(),
    ]


class _Map:
    def __init__(self, spec: Spec, changed: Collection[StorePath], look: Look, name: str) -> None:
        self._spec = spec
        self._changed = changed
        self._look = look
        self._name = name

    def svg(self) -> Element:
        """Return the whole map. Its text is in the tables beside it."""
        tiers = map_layers(self._spec.layers, self._spec.paths, self._look)
        shares = ", ".join(f"{tier.tier} {human_size(tier.size)}" for tier in tiers)
        return el(
            "svg",
            self._hatch(),
            [self._tier(tier) for tier in tiers],
            id=f"map-{self._name}",
            class_=f"map map-{self._name}",
            width="100%",
            height=self._look.height,
            role="img",
            aria_label=f"Map of store paths by size: {shares}. The tables say the same.",
        )

    def _hatch(self) -> Element | None:
        if not self._changed:
            return None
        line = el("path", d="M0 0V7", class_="hatch-line")
        pattern = el(
            "pattern",
            line,
            id=f"hatch-{self._name}",
            width=7,
            height=7,
            patternUnits="userSpaceOnUse",
            patternTransform="rotate(45)",
        )
        return el("defs", pattern)

    def _tier(self, tier: TierTile) -> Element:
        layers = plural(len(tier.layers), "layer")
        inside: list[Child] = [
            el("title", f"{tier.tier}\n{human_size(tier.size)} in {layers}"),
            self._area(),
        ]
        if tier.headed:
            inside.append(self._heading(tier))
        gap = self._look.tier_gap / 2
        head = el("svg", inside, **self._place(tier.box.inside(gap)), class_="tier")
        return el(
            "g",
            head,
            [self._layer(tier, layer) for layer in tier.layers],
            class_=tier_class(self._spec.tiers, tier.tier),
            data_tier=tier.tier,
        )

    def _heading(self, tier: TierTile) -> Element:
        words = [tier.tier, f"  {human_size(tier.size)}"]
        if len("".join(words)) * _LETTER > tier.box.width - 12:
            words = words[:1]
        size = el("tspan", words[1], class_="m", dx=6) if len(words) > 1 else None
        return el("text", _cut(tier.tier, tier.box.width - 12), size, x=7, y=15, class_="head")

    def _layer(self, tier: TierTile, layer: LayerTile) -> Element:
        tiles = [self._path(tier, layer, tile) for tile in layer.paths]
        return el("g", tiles, data_layer=layer.number + 1)

    def _path(self, tier: TierTile, layer: LayerTile, tile: PathTile) -> Element:
        name = f"{tile.count} smaller" if tile.path is None else tile.path.name
        where = f"layer {layer.number + 1}, {tier.tier}"
        hatched = tile.path in self._changed
        title = f"{name}\n{human_size(tile.size)}\n{where}{', changed' if hatched else ''}"
        return el(
            "svg",
            el("title", title),
            self._area(),
            self._area(fill=f"url(#hatch-{self._name})") if hatched else None,
            list(self._label(name, human_size(tile.size), tile.box)),
            **self._place(tile.box),
            class_="p" if tile.path else "p rest",
        )

    def _label(self, name: str, size: str, box: Box) -> Iterator[Element]:
        shown = _cut(name, box.width - 10)
        if not shown or box.height < 18:
            return
        yield el("text", shown, x=5, y=15)
        if box.height >= 36 and len(size) * _LETTER <= box.width - 10:
            yield el("text", size, x=5, y=30, class_="m")

    def _area(self, fill: str | None = None) -> Element:
        return el("rect", width="100%", height="100%", fill=fill)

    def _place(self, box: Box) -> dict[str, str]:
        across = 100 / self._look.width
        return {
            "x": f"{box.x * across:.2f}%",
            "y": f"{box.y:.1f}",
            "width": f"{box.width * across:.2f}%",
            "height": f"{box.height:.1f}",
        }


def _cut(name: str, width: float) -> str:
    """Return as much of *name* as fits; nothing where that would say nothing."""
    fits = int(width / _LETTER)
    if len(name) <= fits:
        return name
    return f"{name[: fits - 1]}…" if fits >= 5 else ""


_MOST_ROWS = 6000  # of a table of store paths; a page of some 2 MB


def size_section(
    image: InspectedImage, spec: Spec, changed: Collection[StorePath], pulled: Collection[int]
) -> Section:
    """Return the section; *changed* paths and *pulled* layers are those a base lacks."""
    unpacked = human_size(sum(info.nar_size for info in spec.paths.values()))
    lead = (
        f"{human_size(image.size)} to pull, {unpacked} unpacked: "
        f"{plural(len(spec.paths), 'store path')} in {plural(len(image.layers), 'layer')}."
    )
    drawing = el(
        "figure",
        el("figcaption", _caption(changed), id="map-caption"),
        el("div", size_maps(spec, changed), id="map"),
    )
    tables = [
        _tiers(image, spec),
        details(f"All {plural(len(image.layers), 'layer')}", _layers(image, spec, pulled)),
        details(f"All {plural(len(spec.paths), 'store path')}", _paths(spec)),
    ]
    return Section("size", "Size", lead, [drawing, *tables])


def path_name(path: StorePath) -> Element:
    """Return a store path by its name, with the part that makes it unique."""
    return el(
        "code", el("span", path.name, class_="name"), " ", el("span", path.hash_part), class_="path"
    )


def _caption(changed: Collection[StorePath]) -> Child:
    hatched = " Hatched: changed since the base." if changed else ""
    return f"Each tile is a store path; its area is its unpacked size.{hatched}"


def _tiers(image: InspectedImage, spec: Spec) -> Element:
    columns = [
        Column("Tier"),
        Column("Layers", number=True),
        Column("Store paths", number=True),
        Column("Unpacked", number=True),
        Column("Compressed", number=True),
    ]
    rows: list[Row] = []
    for tier, compressed in image.tiers().items():
        groups = [group for group in spec.layers if group.tier == tier]
        paths = [path for group in groups for path in group.paths]
        unpacked = sum(spec.paths[path].nar_size for path in paths)
        swatch = el("span", class_=f"swatch {tier_class(spec.tiers, tier)}", aria_hidden="true")
        count = sum(layer.tier == tier for layer in image.layers)
        held = size(unpacked) if groups else Sorted("files", 0)
        name = el("span", swatch, tier, class_="tier-name")
        rows.append([name, count, len(paths), held, size(compressed)])
    return data_table("Tiers, lowest first", columns, rows, name="tiers")


def _layers(image: InspectedImage, spec: Spec, pulled: Collection[int]) -> Element:
    columns = [
        Column("Layer", number=True),
        Column("Tier"),
        Column("Unpacked", number=True),
        Column("Compressed", number=True),
        *([Column("Since the base")] if pulled else []),
        Column("Holds", sorts=False),
        Column("Digest", sorts=False),
    ]
    rows: list[Row] = []
    for number, layer in enumerate(image.layers):
        paths = spec.layers[number].paths if number < len(spec.layers) else ()
        unpacked = sum(spec.paths[path].nar_size for path in paths)
        news: Row = [["pulled" if number in pulled else "the same"]] if pulled else []
        rows.append(
            [
                Sorted(number + 1, number),
                layer.tier or "none",
                size(unpacked) if paths else "",
                size(layer.descriptor.size),
                *news,
                _holds(spec, paths),
                digest(str(layer.descriptor.digest)),
            ]
        )
    return data_table("Layers, lowest first", columns, rows, name="layers")


def _holds(spec: Spec, paths: Collection[StorePath]) -> str:
    if not paths:
        return "files, the Nix database, seed.json"
    largest = sorted(paths, key=lambda path: (-spec.paths[path].nar_size, path))
    names = ", ".join(path.name for path in largest[:3])
    return names if len(paths) <= 3 else f"{names} and {len(paths) - 3} more"


def _paths(spec: Spec) -> Child:
    layer_of = {path: n for n, group in enumerate(spec.layers) for path in group.paths}
    largest = sorted(spec.paths.values(), key=lambda info: (-info.nar_size, info.path))
    rows: list[Row] = [
        [
            path_name(info.path),
            spec.layers[layer_of[info.path]].tier,
            layer_of[info.path] + 1,
            size(info.nar_size),
        ]
        for info in largest[:_MOST_ROWS]
    ]
    columns = [
        Column("Store path"),
        Column("Tier"),
        Column("Layer", number=True),
        Column("Unpacked", number=True),
    ]
    rest = largest[_MOST_ROWS:]
    together = human_size(sum(info.nar_size for info in rest))
    left = f"{len(rest)} smaller ones, {together} together, are only in the image's seed.json."
    return [
        data_table("Store paths, largest first", columns, rows, name="paths", filters=True),
        el("p", left, class_="hint") if rest else None,
    ]
