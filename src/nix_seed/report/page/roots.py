"""What the image finally rests on: executed seeds, machine code, sources, and the graph to walk."""

from collections import Counter
from collections.abc import Iterator, Sequence

from markupsafe import Markup

from nix_seed.core.words import human_size, plural
from nix_seed.formats.nix.store_path import StorePath
from nix_seed.report.page.parts import (
    Child,
    Columns,
    PageSection,
    Row,
    ShownCheck,
    State,
    bullets,
    check_list,
    data_table,
    details,
    digest,
    facts,
    fold,
    hint,
    lines,
    macro,
    note,
    number,
    plain,
    size,
    web_address,
)
from nix_seed.report.report import Absent, FoundRoots
from nix_seed.roots.roots import RootsReport
from nix_seed.roots.rules.policy import Binary
from nix_seed.roots.rules.walk import Stop, Walk

_WORDS = {
    "derivation": "built",
    "fetched": "fetched, its hash agreed on",
    "added": "added as it is",
}
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


def roots_section(roots: FoundRoots | Absent) -> PageSection:
    """Return the section."""
    if isinstance(roots, Absent):
        body = note(State(roots.state), roots.words, roots.hint)
        return PageSection("roots", _TITLE, None, body)
    return PageSection("roots", _TITLE, roots_answer(roots), list(_body(roots)))


def _body(roots: FoundRoots) -> Iterator[Child]:
    report, walk = roots.report, roots.walk
    yield facts(
        [
            ("Roots digest", digest(report.digest) if report.digest else None),
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
    yield macro("heading", "Walk the graph", "walk-title")
    yield _graph(walk, report)


def _walk_macro(name: str, *values: object) -> Markup:
    return macro(name, *values, of="walk.html.j2")


def _link(walk: Walk, path: StorePath) -> Markup:
    """Return the name of *path*, a link to its stop where the walk has one."""
    return _walk_macro("stop_link", path, path in walk.by_path)


def _way_to(walk: Walk, path: StorePath) -> Markup | None:
    """Return the way from the image to *path*, as links; None where the walk leaves it out."""
    known = walk.by_path
    if path not in known:
        return None
    way = [path]
    while (above := known[way[-1]].first) is not None and above not in way:
        way.append(above)
    return _walk_macro("way", path, way[::-1])


def _graph(walk: Walk, report: RootsReport) -> Markup:
    """Return every stop; the script shows one at a time."""
    items = (*report.findings.executed, *report.findings.binaries)
    marks = {item.path: "holds machine code" for item in report.findings.binaries}
    marks |= {item.path: "executed, not built" for item in report.findings.executed}
    sizes = {item.path: item.size for item in items}
    sizes |= {source.end.path: source.size for source in report.sources}

    def known(stop: Stop) -> tuple[str | None, str]:
        mark, bytes_ = marks.get(stop.path), sizes.get(stop.path)
        words = [_WORDS[stop.kind], mark, human_size(bytes_) if bytes_ is not None else None]
        return mark, " · ".join(word for word in words if word)

    total = plural(walk.total, "stop")
    shown = total if walk.total == len(walk.stops) else f"{len(walk.stops)} of {total}"
    return _walk_macro("graph", walk, shown, known)


def _executed(report: RootsReport, walk: Walk) -> Child:
    items = report.findings.executed
    if not items:
        return macro("paragraph", "Nothing is executed that was not built.")
    ways = [_way_to(walk, item.path) for item in items[:5]]
    table = _binaries("Executed, though it was not built", items, walk, "executed")
    return [
        table,
        [
            macro("line", [macro("heading", f"The way to {item.path.name}"), way])
            for item, way in zip(items, ways, strict=False)
            if way
        ],
    ]


def _checks(report: RootsReport) -> Iterator[ShownCheck]:
    found = report.findings
    host = bullets(fold(f"{each.program}, by {each.used_by.name}") for each in found.host)
    name = "Programs of the building machine"
    if found.unread and not found.host:
        names = bullets(map(digest, found.unread[:_MOST]))
        count = plural(len(found.unread), "builder")
        words = f"{count} not in this store, so nobody saw whether they are scripts."
        yield ShownCheck(name, State.UNCHECKED, words, names)
    else:
        yield _none(name, len(found.host), "is executed", "are executed", host)
    impure = bullets(fold(f"{i.derivation.name}: {i.reason}") for i in found.impure[:_MOST])
    yield _none(
        "Impure derivations",
        len(found.impure),
        "may see more than its inputs",
        "may see more than their inputs",
        impure,
    )
    yield _substituted(report)
    if found.unseen:
        names = bullets(map(digest, found.unseen[:_MOST]))
        count = plural(len(found.unseen), "end")
        words = f"{count} not in this store, so nobody looked for machine code there."
        yield ShownCheck("Everything looked into", State.UNCHECKED, words, names)
    if found.unknown:
        names = bullets(map(digest, found.unknown[:_MOST]))
        count = plural(len(found.unknown), "store path")
        words = f"This machine does not know where {count} came from."
        yield ShownCheck("Origin of every path", State.UNCHECKED, words, names)


def _none(name: str, count: int, one: str, many: str, evidence: Markup) -> ShownCheck:
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
    rows = [[digest(item.path), fold(item.signers.words)] for item in items[:_MOST]]
    table = data_table("substituted", "Not built here", ["Output", "Signatures"], rows)
    signed = "".join(f"\n{count}: {words}." for words, count in sorted(counts.items()))
    words = f"{report.built} outputs were; {len(items)} came from elsewhere.{signed}"
    return ShownCheck("Built on this machine", State.STATED, fold(words), table)


def _binaries(caption: str, items: Sequence[Binary], walk: Walk, name: str) -> Child:
    columns: Columns = ["File", number("Size"), "What it is", plain("From"), plain("SHA-256")]
    rows = [_binary(item, walk) for item in items[:_MOST]]
    left = len(items) - _MOST
    return [
        data_table(name, caption, columns, rows, filters=len(rows) > 12),
        hint(f"{left} more are not listed: nix-seed roots --json lists them.", left > 0),
    ]


def _binary(item: Binary, walk: Walk) -> Row:
    what = f"{item.form or 'not in the store'}" + (f", in it {item.inside}" if item.inside else "")
    return [
        [
            _link(walk, item.path),
            macro("line", fold(item.file), "hint") if item.file else None,
        ],
        "" if item.size is None else size(item.size),
        fold(what),
        lines(map(web_address, item.urls[:3])),
        digest(item.digest) if item.digest else "",
    ]


def _sources(report: RootsReport, walk: Walk) -> Child:
    columns: Columns = ["Source", "Kind", number("Size"), plain("From")]
    rows = [
        [
            _link(walk, source.end.path),
            source.end.kind,
            "" if source.size is None else size(source.size),
            lines(map(web_address, source.end.urls[:3])),
        ]
        for source in report.sources[:_MOST]
    ]
    return data_table("sources", "Other sources", columns, rows, filters=len(rows) > 12)
