"""The graph of trust roots as stops that link to one another: a walk that needs no script."""

from __future__ import annotations

from collections.abc import Sequence

from nix_seed.cli.page.parts import details
from nix_seed.cli.report import human_size, plural
from nix_seed.flows.roots import RootsReport
from nix_seed.formats.html.element import Child, Element, el
from nix_seed.formats.nix.store_path import StorePath
from nix_seed.rules.roots_walk import Stop, Walk

__all__ = ["stop_link", "walk_graph", "way_to"]

_TOP = "stop-image"
_WORDS = {
    "derivation": "built",
    "fetched": "fetched, its hash agreed on",
    "added": "added as it is",
}


def stop_link(walk: Walk, path: StorePath) -> Element:
    """Return the name of *path*, a link to its stop where the walk has one."""
    inside: list[Child] = [el("span", _name(path), class_="name"), " ", el("span", _short(path))]
    here = path in walk.by_path
    code = el("code", inside, class_="path")
    return el("a", code, href=f"#{_anchor(path)}", class_="to") if here else code


def way_to(walk: Walk, path: StorePath) -> Element | None:
    """Return the way from the image to *path*, as links; None where the walk leaves it out."""
    known = walk.by_path
    if path not in known:
        return None
    way = [path]
    while (above := known[way[-1]].first) is not None and above not in way:
        way.append(above)
    steps: list[Child] = [el("li", el("a", "the image", href=f"#{_TOP}"))]
    steps += [el("li", stop_link(walk, each)) for each in reversed(way)]
    return el("ol", steps, class_="way", aria_label=f"Way from the image to {path.name}")


def walk_graph(walk: Walk, report: RootsReport) -> Element:
    """Return every stop; the script shows one at a time."""
    marks = {item.path: "executed, not built" for item in report.findings.executed}
    marks |= {
        item.path: "holds machine code"
        for item in report.findings.binaries
        if item.path not in marks
    }
    sizes = {
        item.path: item.size for item in (*report.findings.executed, *report.findings.binaries)
    }
    sizes |= {source.end.path: source.size for source in report.sources}
    total = f"{plural(walk.total, 'stop')}"
    shown = total if walk.total == len(walk.stops) else f"{len(walk.stops)} of {total}"
    return el(
        "div",
        el("p", f"{shown}: from the image to what nobody built.", class_="hint"),
        details(
            "All stops",
            _image(walk),
            [_stop(stop, marks.get(stop.path), sizes.get(stop.path)) for stop in walk.stops],
            name="stops",
        ),
        id="walk",
    )


def _image(walk: Walk) -> Element:
    return el(
        "article",
        el("h4", "The image"),
        el("div", _side("Holds", walk.tops, walk.tops_left), class_="sides"),
        id=_TOP,
        class_="stop",
    )


def _stop(stop: Stop, mark: str | None, size: int | None) -> Element:
    known = [_WORDS[stop.kind], mark, human_size(size) if size is not None else None]
    words = " · ".join(word for word in known if word)
    return el(
        "article",
        el("h4", _name(stop.path)),
        el("p", words, class_="hint" if mark is None else "hint marked"),
        el("p", el("code", str(stop.path), class_="digest")),
        el(
            "div",
            _side("Needed by", stop.users, 0, top=stop.steps == 1),
            _side("Built from", stop.inputs, stop.left) if stop.kind == "derivation" else None,
            class_="sides",
        ),
        id=_anchor(stop.path),
        class_="stop",
        data_first=_anchor(stop.first) if stop.first is not None else _TOP,
    )


def _side(
    title: str, paths: Sequence[StorePath], left: int, *, top: bool = False
) -> Element | None:
    # Thousands of these make up the page: as little markup as will do.
    links: list[Child] = [
        el("li", el("a", _name(path), " ", el("code", _short(path)), href=f"#{_anchor(path)}"))
        for path in paths
    ]
    if top:
        links.insert(0, el("li", el("a", "the image", href=f"#{_TOP}")))
    if left:
        links.append(el("li", f"and {left} that this page leaves out", class_="hint"))
    if not links:
        return None
    return el(
        "div", el("h5", f"{title} {len(links) - bool(left) + left}"), el("ul", links), class_="side"
    )


def _anchor(path: StorePath) -> str:
    return f"stop-{path.hash_part[:16]}"


def _name(path: StorePath) -> str:
    return path.name.removesuffix(".drv")


def _short(path: StorePath) -> str:
    return path.hash_part[:8]
