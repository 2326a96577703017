"""What is in the image, and how large it is: the map, the tiers, the layers, the store paths."""

from collections.abc import Collection, Iterator, Sequence
from functools import partial
from typing import Any

from nix_seed.core.words import human_size, plural
from nix_seed.formats.nix.store_path import PathInfo, StorePath
from nix_seed.image.inspect import InspectedImage, InspectedLayer
from nix_seed.image.rules.spec import Spec
from nix_seed.report.page.parts import PageSection, fill, note_absent
from nix_seed.report.report import Absent, ListedFiles
from nix_seed.report.rules.treemap import Look, map_layers

_LOOKS = {
    "wide": Look(width=1080, height=560, smallest=150),
    "tall": Look(width=340, height=600, smallest=90, heading=20),
}
_COLOURS = 8
_LETTER = 6.7  # pixels, on average, of a 12 pixel letter
_MOST_CLOSURES = 200
_MOST_ROWS = 6000  # of a table of store paths; a page of some 2 MB


def size_section(
    image: InspectedImage,
    spec: Spec,
    changed: Collection[StorePath],
    pulled: Collection[int],
    files: ListedFiles | Absent,
) -> PageSection:
    """Return the section; *changed* paths and *pulled* layers are those a base lacks."""
    unpacked = human_size(sum(info.nar_size for info in spec.paths.values()))
    lead = (
        f"{human_size(image.size)} to pull, {unpacked} unpacked: "
        f"{plural(len(spec.paths), 'store path')} in {plural(len(image.layers), 'layer')}."
    )
    hatched = " Hatched: changed since the base." if changed else ""
    body = fill(
        "sizes.html.j2",
        caption=f"Each tile is a store path; its area is its unpacked size.{hatched}",
        maps=[(name, at, map_layers(spec.layers, spec.paths, at)) for name, at in _LOOKS.items()],
        changed=changed,
        colour=partial(_colour, spec.tiers),
        cut=_cut,
        fits=lambda text, width: len(text) * _LETTER <= width,
        tiers=list(_tiers(image, spec)),
        layers=list(_layers(image, spec)),
        pulled=pulled,
        paths=_paths(spec),
        most=_MOST_ROWS,
        counted=_MOST_CLOSURES,
        files=files,
        unlisted=note_absent(files) if isinstance(files, Absent) else None,
    )
    return PageSection("size", "Size", lead, body)


def _colour(tiers: Sequence[str], tier: str) -> str:
    return f"t{tiers.index(tier) % _COLOURS}" if tier in tiers else "t-none"


def _cut(name: str, width: float) -> str:
    """Return as much of *name* as fits; nothing where that would say nothing."""
    fits = int(width / _LETTER)
    if len(name) <= fits:
        return name
    return f"{name[: fits - 1]}…" if fits >= 5 else ""


def _tiers(image: InspectedImage, spec: Spec) -> Iterator[dict[str, Any]]:
    for tier, compressed in image.tiers().items():
        groups = [group for group in spec.layers if group.tier == tier]
        paths = [path for group in groups for path in group.paths]
        yield {
            "name": tier,
            "layers": sum(layer.tier == tier for layer in image.layers),
            "paths": len(paths),
            "unpacked": sum(spec.paths[path].nar_size for path in paths) if groups else None,
            "compressed": compressed,
        }


def _layers(image: InspectedImage, spec: Spec) -> Iterator[tuple[InspectedLayer, int | None, str]]:
    """Yield each layer, the size of what is in it, and some of that; the last holds files."""
    for n, layer in enumerate(image.layers):
        paths = spec.layers[n].paths if n < len(spec.layers) else ()
        unpacked = sum(spec.paths[path].nar_size for path in paths)
        yield layer, unpacked if paths else None, _holds(spec, paths)


def _holds(spec: Spec, paths: Collection[StorePath]) -> str:
    if not paths:
        return "files, the Nix database, seed.json"
    largest = sorted(paths, key=lambda path: (-spec.paths[path].nar_size, path))
    names = ", ".join(path.name for path in largest[:3])
    return names if len(paths) <= 3 else f"{names} and {len(paths) - 3} more"


def _paths(spec: Spec) -> list[tuple[PathInfo, int, str, int | None, int | None]]:
    """Return store paths, the largest first, each with its layer (the first is 1) and tier.

    And, of the largest, how many others it needs, and the size of them all, itself included.
    """
    at = {path: (n, group.tier) for n, group in enumerate(spec.layers, 1) for path in group.paths}
    largest = sorted(spec.paths.values(), key=lambda info: (-info.nar_size, info.path))
    needs: dict[StorePath, tuple[int, int]] = {}
    for info in largest[:_MOST_CLOSURES]:
        closure = _closure(spec, info.path)
        size = sum(spec.paths[path].nar_size for path in closure)
        needs[info.path] = len(closure) - 1, size
    return [(info, *at[info.path], *needs.get(info.path, (None, None))) for info in largest]


def _closure(spec: Spec, path: StorePath) -> set[StorePath]:
    found, ahead = {path}, [path]
    while ahead:
        new = {each for each in spec.paths[ahead.pop()].references if each in spec.paths} - found
        found |= new
        ahead.extend(new)
    return found
