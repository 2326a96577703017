"""What is in the image, and how large it is: the map, the tiers, the layers, the store paths."""

from collections.abc import Collection, Sequence

from markupsafe import Markup

from nix_seed.core.words import human_size, plural
from nix_seed.formats.nix.store_path import StorePath
from nix_seed.image.inspect import InspectedImage
from nix_seed.image.rules.spec import Spec
from nix_seed.report.page import parts
from nix_seed.report.page.parts import (
    Columns,
    PageSection,
    Row,
    SortedCell,
    details,
    number,
    plain,
    size,
)
from nix_seed.report.rules.treemap import Look, map_layers

_LOOKS = {
    "wide": Look(width=1080, height=560, smallest=150),
    "tall": Look(width=340, height=600, smallest=90, heading=20),
}
_COLOURS = 8
_LETTER = 6.7  # pixels, on average, of a 12 pixel letter
_MOST_ROWS = 6000  # of a table of store paths; a page of some 2 MB


def size_section(
    image: InspectedImage, spec: Spec, changed: Collection[StorePath], pulled: Collection[int]
) -> PageSection:
    """Return the section; *changed* paths and *pulled* layers are those a base lacks."""
    unpacked = human_size(sum(info.nar_size for info in spec.paths.values()))
    lead = (
        f"{human_size(image.size)} to pull, {unpacked} unpacked: "
        f"{plural(len(spec.paths), 'store path')} in {plural(len(image.layers), 'layer')}."
    )
    body = [
        _map(spec, changed),
        _tiers(image, spec),
        details(f"All {plural(len(image.layers), 'layer')}", _layers(image, spec, pulled)),
        details(f"All {plural(len(spec.paths), 'store path')}", _paths(spec)),
    ]
    return PageSection("size", "Size", lead, body)


def _map(spec: Spec, changed: Collection[StorePath]) -> Markup:
    """Draw both maps; *changed* paths are hatched. Their text is in the tables beside them."""
    hatched = " Hatched: changed since the base." if changed else ""
    maps = [
        (name, look, map_layers(spec.layers, spec.paths, look)) for name, look in _LOOKS.items()
    ]
    return parts.fill(
        "map.html.j2",
        caption=f"Each tile is a store path; its area is its unpacked size.{hatched}",
        maps=maps,
        changed=changed,
        colour=lambda tier: _colour(spec.tiers, tier),
        cut=_cut,
        fits=lambda text, width: len(text) * _LETTER <= width,
    )


def _colour(tiers: Sequence[str], tier: str) -> str:
    return f"t{tiers.index(tier) % _COLOURS}" if tier in tiers else "t-none"


def _cut(name: str, width: float) -> str:
    """Return as much of *name* as fits; nothing where that would say nothing."""
    fits = int(width / _LETTER)
    if len(name) <= fits:
        return name
    return f"{name[: fits - 1]}…" if fits >= 5 else ""


def _tiers(image: InspectedImage, spec: Spec) -> Markup:
    counted = [number(each) for each in ("Layers", "Store paths", "Unpacked", "Compressed")]
    rows: list[Row] = []
    for tier, compressed in image.tiers().items():
        groups = [group for group in spec.layers if group.tier == tier]
        paths = [path for group in groups for path in group.paths]
        unpacked = sum(spec.paths[path].nar_size for path in paths)
        count = sum(layer.tier == tier for layer in image.layers)
        held = size(unpacked) if groups else SortedCell("files", 0)
        name = parts.macro("tier_name", tier, _colour(spec.tiers, tier))
        rows.append([name, count, len(paths), held, size(compressed)])
    return parts.data_table("tiers", "Tiers, lowest first", ["Tier", *counted], rows)


def _layers(image: InspectedImage, spec: Spec, pulled: Collection[int]) -> Markup:
    columns: Columns = [
        *(number("Layer"), "Tier", number("Unpacked"), number("Compressed")),
        *(["Since the base"] if pulled else []),
        *(plain("Holds"), plain("Digest")),
    ]
    rows: list[Row] = []
    for n, layer in enumerate(image.layers):
        paths = spec.layers[n].paths if n < len(spec.layers) else ()
        unpacked = sum(spec.paths[path].nar_size for path in paths)
        news: Row = [["pulled" if n in pulled else "the same"]] if pulled else []
        rows.append(
            [
                SortedCell(n + 1, n),
                layer.tier or "none",
                size(unpacked) if paths else "",
                size(layer.descriptor.size),
                *news,
                _holds(spec, paths),
                parts.digest(layer.descriptor.digest),
            ]
        )
    return parts.data_table("layers", "Layers, lowest first", columns, rows)


def _holds(spec: Spec, paths: Collection[StorePath]) -> str:
    if not paths:
        return "files, the Nix database, seed.json"
    largest = sorted(paths, key=lambda path: (-spec.paths[path].nar_size, path))
    names = ", ".join(path.name for path in largest[:3])
    return names if len(paths) <= 3 else f"{names} and {len(paths) - 3} more"


def _paths(spec: Spec) -> parts.Child:
    layer_of = {path: n for n, group in enumerate(spec.layers) for path in group.paths}
    largest = sorted(spec.paths.values(), key=lambda info: (-info.nar_size, info.path))
    rows: list[Row] = [
        [
            parts.path_name(info.path),
            spec.layers[layer_of[info.path]].tier,
            layer_of[info.path] + 1,
            size(info.nar_size),
        ]
        for info in largest[:_MOST_ROWS]
    ]
    columns: Columns = ["Store path", "Tier", number("Layer"), number("Unpacked")]
    rest = largest[_MOST_ROWS:]
    together = human_size(sum(info.nar_size for info in rest))
    left = f"{len(rest)} smaller ones, {together} together, are only in the image's seed.json."
    return [
        parts.data_table("paths", "Store paths, largest first", columns, rows, filters=True),
        parts.hint(left, len(rest)),
    ]
