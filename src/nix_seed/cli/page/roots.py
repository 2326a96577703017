"""What the image finally rests on: executed seeds, machine code, sources, and the graph to walk."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from nix_seed.cli.page.frame import Section
from nix_seed.cli.page.parts import (
    Check,
    Column,
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
from nix_seed.cli.page.roots_walk import stop_link, walk_graph, way_to
from nix_seed.cli.report import human_size, plural
from nix_seed.flows.report import Absent, FoundRoots
from nix_seed.flows.roots import RootsReport
from nix_seed.formats.html.element import Child, Element, el
from nix_seed.rules.roots_policy import Binary
from nix_seed.rules.roots_walk import Walk

__all__ = ["roots_answer", "roots_section"]

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


def _checks(report: RootsReport) -> Iterator[Check]:
    found = report.findings
    host = el(
        "ul", [el("li", fold(f"{each.program}, by {each.used_by.name}")) for each in found.host]
    )
    name = "Programs of the building machine"
    if found.unread and not found.host:
        names = el("ul", [el("li", digest(program)) for program in found.unread[:_MOST]])
        count = plural(len(found.unread), "builder")
        words = f"{count} not in this store, so nobody saw whether they are scripts."
        yield Check(name, State.UNCHECKED, words, names)
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
        yield Check("Everything looked into", State.UNCHECKED, words, names)
    if found.unknown:
        names = el("ul", [el("li", digest(str(path))) for path in found.unknown[:_MOST]])
        count = plural(len(found.unknown), "store path")
        words = f"This machine does not know where {count} came from."
        yield Check("Origin of every path", State.UNCHECKED, words, names)


def _none(name: str, count: int, one: str, many: str, evidence: Element) -> Check:
    if not count:
        return Check(name, State.VERIFIED, "None.")
    return Check(name, State.STATED, f"{count} {one if count == 1 else many}.", evidence)


def _substituted(report: RootsReport) -> Check:
    items = report.findings.substituted
    if not items and not report.findings.absent:
        return Check(
            "Built on this machine", State.VERIFIED, f"All {plural(report.built, 'output')}."
        )
    if not items:
        absent = f"{len(report.findings.absent)} are not in this store"
        words = f"{report.built} built here; {absent}, so nothing is known of them."
        return Check("Built on this machine", State.UNCHECKED, words)
    counts = Counter(item.signers.words for item in items)
    rows = [[digest(str(item.path)), fold(item.signers.words)] for item in items[:_MOST]]
    table = data_table(
        "Not built here", [Column("Output"), Column("Signatures")], rows, name="substituted"
    )
    signed = "".join(f"\n{count}: {words}." for words, count in sorted(counts.items()))
    words = f"{report.built} outputs were; {len(items)} came from elsewhere.{signed}"
    return Check("Built on this machine", State.STATED, fold(words), table)


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
