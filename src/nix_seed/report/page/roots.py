"""The graph of trust roots as stops that link to one another: a walk that needs no script.

What the image finally rests on: executed seeds, machine code, sources, and the graph to walk.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from nix_seed.core.words import human_size, plural
from nix_seed.formats.nix.store_path import StorePath
from nix_seed.report.page.parts import (
    Column,
    Section,
    ShownCheck,
    Sorted,
    State,
    check_list,
    data_table,
    details,
    digest,
    facts,
    fold,
    note,
    size,
    web_address,
)
from nix_seed.report.report import Absent, FoundRoots
from nix_seed.report.rules.element import Child, Element, el
from nix_seed.roots.roots import RootsReport
from nix_seed.roots.rules.policy import Binary
from nix_seed.roots.rules.walk import Stop, Walk

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


_MOST = 1500  # rows
_TITLE = "Trust roots"


def roots_answer(roots: FoundRoots | Absent) -> str:
    """Return the answer in one sentence."""
    if isinstance(roots, Absent):
        return roots.words.splitlines()[0]
    found = roots.report.findings
    bytes_ = sum(item.size or 0 for item in found.executed)
    return (
        f"{plural(len(found.executed), 'file')} executed without having been built"
        f" ({human_size(bytes_)}), {len(found.binaries)} more that hold machine code,"
        f" {plural(len(roots.report.sources), 'other source')}."
    )


def roots_section(roots: FoundRoots | Absent) -> Section:
    """Return the section."""
    if isinstance(roots, Absent):
        body = note(State(roots.state), roots.words, roots.hint)
        return Section("roots", _TITLE, None, body)
    return Section("roots", _TITLE, roots_answer(roots), list(_body(roots)))


def _body(roots: FoundRoots) -> Iterator[Child]:
    report, walk = roots.report, roots.walk
    yield facts(
        [
            ("Roots digest", digest(str(report.digest)) if report.digest else None),
            ("Derivations", str(report.roots.derivations)),
            ("Outputs built here", str(report.built)),
            ("Not built here", str(len(report.findings.substituted))),
            ("Not in the store", str(len(report.findings.absent))),
        ]
    )
    yield _executed(report, walk)
    yield check_list(_checks(report))
    if report.findings.binaries:
        count = plural(len(report.findings.binaries), "file")
        table = _binaries(
            "Fetched or added, and holding machine code", report.findings.binaries, walk, "binaries"
        )
        yield details(f"{count} fetched or added that hold machine code", table)
    if report.sources:
        yield details(f"{plural(len(report.sources), 'other source')}", _sources(report, walk))
    yield el("h3", "Walk the graph", id="walk-title")
    yield walk_graph(walk, report)


def _executed(report: RootsReport, walk: Walk) -> Child:
    items = report.findings.executed
    if not items:
        return el("p", "Nothing is executed that was not built.")
    ways = [way_to(walk, item.path) for item in items[:5]]
    table = _binaries("Executed, though it was not built", items, walk, "executed")
    return [
        table,
        [
            el("div", el("h3", f"The way to {item.path.name}"), way)
            for item, way in zip(items, ways, strict=False)
            if way
        ],
    ]


def _checks(report: RootsReport) -> Iterator[ShownCheck]:
    found = report.findings
    host = el(
        "ul", [el("li", fold(f"{each.program}, by {each.used_by.name}")) for each in found.host]
    )
    name = "Programs of the building machine"
    if found.unread and not found.host:
        names = el("ul", [el("li", digest(program)) for program in found.unread[:_MOST]])
        count = plural(len(found.unread), "builder")
        words = f"{count} not in this store, so nobody saw whether they are scripts."
        yield ShownCheck(name, State.UNCHECKED, words, names)
    else:
        yield _none(name, len(found.host), "is executed", "are executed", host)
    impure = el(
        "ul", [el("li", fold(f"{i.derivation.name}: {i.reason}")) for i in found.impure[:_MOST]]
    )
    yield _none(
        "Impure derivations",
        len(found.impure),
        "may see more than its inputs",
        "may see more than their inputs",
        impure,
    )
    yield _substituted(report)
    if found.unseen:
        names = el("ul", [el("li", digest(str(path))) for path in found.unseen[:_MOST]])
        count = plural(len(found.unseen), "end")
        words = f"{count} not in this store, so nobody looked for machine code there."
        yield ShownCheck("Everything looked into", State.UNCHECKED, words, names)
    if found.unknown:
        names = el("ul", [el("li", digest(str(path))) for path in found.unknown[:_MOST]])
        count = plural(len(found.unknown), "store path")
        words = f"This machine does not know where {count} came from."
        yield ShownCheck("Origin of every path", State.UNCHECKED, words, names)


def _none(name: str, count: int, one: str, many: str, evidence: Element) -> ShownCheck:
    if not count:
        return ShownCheck(name, State.VERIFIED, "None.")
    return ShownCheck(name, State.STATED, f"{count} {one if count == 1 else many}.", evidence)


def _substituted(report: RootsReport) -> ShownCheck:
    items = report.findings.substituted
    if not items and not report.findings.absent:
        return ShownCheck(
            "Built on this machine", State.VERIFIED, f"All {plural(report.built, 'output')}."
        )
    if not items:
        absent = f"{len(report.findings.absent)} are not in this store"
        words = f"{report.built} built here; {absent}, so nothing is known of them."
        return ShownCheck("Built on this machine", State.UNCHECKED, words)
    counts = Counter(item.signers.words for item in items)
    rows = [[digest(str(item.path)), fold(item.signers.words)] for item in items[:_MOST]]
    table = data_table(
        "Not built here", [Column("Output"), Column("Signatures")], rows, name="substituted"
    )
    signed = "".join(f"\n{count}: {words}." for words, count in sorted(counts.items()))
    words = f"{report.built} outputs were; {len(items)} came from elsewhere.{signed}"
    return ShownCheck("Built on this machine", State.STATED, fold(words), table)


def _binaries(caption: str, items: Sequence[Binary], walk: Walk, name: str) -> Child:
    columns = [
        Column("File"),
        Column("Size", number=True),
        Column("What it is"),
        Column("From", sorts=False),
        Column("SHA-256", sorts=False),
    ]
    rows = [_binary(item, walk) for item in items[:_MOST]]
    left = len(items) - _MOST
    return [
        data_table(caption, columns, rows, name=name, filters=len(rows) > 12),
        el("p", f"{left} more are not listed: nix-seed roots --json lists them.", class_="hint")
        if left > 0
        else None,
    ]


def _binary(item: Binary, walk: Walk) -> list[Child | Sorted]:
    what = f"{item.form or 'not in the store'}" + (f", in it {item.inside}" if item.inside else "")
    return [
        [
            stop_link(walk, item.path),
            el("div", fold(item.file), class_="hint") if item.file else None,
        ],
        "" if item.size is None else size(item.size),
        fold(what),
        [el("div", web_address(url)) for url in item.urls[:3]],
        digest(item.digest) if item.digest else "",
    ]


def _sources(report: RootsReport, walk: Walk) -> Child:
    columns = [
        Column("Source"),
        Column("Kind"),
        Column("Size", number=True),
        Column("From", sorts=False),
    ]
    rows = [
        [
            stop_link(walk, source.end.path),
            source.end.kind,
            "" if source.size is None else size(source.size),
            [el("div", web_address(url)) for url in source.end.urls[:3]],
        ]
        for source in report.sources[:_MOST]
    ]
    return data_table("Other sources", columns, rows, name="sources", filters=len(rows) > 12)
