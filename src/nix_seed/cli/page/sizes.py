"""What is in the image, and how large it is: the map, the tiers, the layers, the store paths."""

from __future__ import annotations

from collections.abc import Collection

from nix_seed.cli.page.frame import Section
from nix_seed.cli.page.parts import Column, Row, Sorted, data_table, details, digest, size
from nix_seed.cli.page.size_map import size_maps, tier_class
from nix_seed.cli.report import human_size, plural
from nix_seed.flows.inspect import InspectedImage
from nix_seed.formats.html.element import Child, Element, el
from nix_seed.formats.nix.store_path import StorePath
from nix_seed.rules.spec import Spec

__all__ = ["path_name", "size_section"]

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
