"""What the image finally rests on: executed seeds, machine code, sources, and the graph to walk."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial

from markupsafe import Markup

from nix_seed.core.words import human_size, plural
from nix_seed.formats.nix.store_path import StorePath
from nix_seed.report.page.parts import (
    Child,
    PageSection,
    ShownCheck,
    State,
    digest,
    fill,
    fold,
    macro,
)
from nix_seed.report.report import Absent, FoundRoots
from nix_seed.roots.roots import RootsReport
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
        return roots.reason.splitlines()[0]
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
        return PageSection.lacking("roots", _TITLE, roots)
    report, walk = roots.report, roots.walk
    total = plural(walk.total, "stop")
    body = fill(
        "roots.html.j2",
        report=report,
        found=report.findings,
        walk=walk,
        checks=list(_checks(report)),
        way_to=partial(_way_to, walk),
        shown=total if walk.total == len(walk.stops) else f"{len(walk.stops)} of {total}",
        known=_known(report),
        most=_MOST,
    )
    return PageSection("roots", _TITLE, roots_answer(roots), body)


def _way_to(walk: Walk, path: StorePath) -> list[StorePath]:
    """Return the stops from the image to *path*."""
    way = [path]
    while (above := walk.by_path[way[-1]].first) is not None and above not in way:
        way.append(above)
    return way[::-1]


def _known(report: RootsReport) -> Callable[[Stop], tuple[str | None, str]]:
    """Return what says of a stop whether it is marked, and what is known of it."""
    items = (*report.findings.executed, *report.findings.binaries)
    marks = {item.path: "holds machine code" for item in report.findings.binaries}
    marks |= {item.path: "executed, not built" for item in report.findings.executed}
    sizes = {item.path: item.size for item in items}
    sizes |= {source.end.path: source.size for source in report.sources}

    def known(stop: Stop) -> tuple[str | None, str]:
        mark, bytes_ = marks.get(stop.path), sizes.get(stop.path)
        reason = [_WORDS[stop.kind], mark, human_size(bytes_) if bytes_ is not None else None]
        return mark, " · ".join(word for word in reason if word)

    return known


def _bullets(items: Iterable[Child]) -> Markup:
    return macro("bullets", list(items))


def _digests(items: Sequence[object]) -> Markup:
    return _bullets(map(digest, items[:_MOST]))


def _checks(report: RootsReport) -> Iterator[ShownCheck]:
    found = report.findings
    host = _bullets(fold(f"{each.program}, by {each.used_by.name}") for each in found.host)
    name = "Programs of the building machine"
    if found.unread and not found.host:
        names = _digests(found.unread)
        count = plural(len(found.unread), "builder")
        reason = f"{count} not in this store, so nobody saw whether they are scripts."
        yield ShownCheck(name, State.UNCHECKED, reason, names)
    else:
        yield _none(name, len(found.host), "is executed", "are executed", host)
    impure = _bullets(fold(f"{i.derivation.name}: {i.reason}") for i in found.impure[:_MOST])
    yield _none(
        "Impure derivations",
        len(found.impure),
        "may see more than its inputs",
        "may see more than their inputs",
        impure,
    )
    yield _substituted(report)
    if found.unseen:
        names = _digests(found.unseen)
        count = plural(len(found.unseen), "end")
        reason = f"{count} not in this store, so nobody looked for machine code there."
        yield ShownCheck("Everything looked into", State.UNCHECKED, reason, names)
    if found.unknown:
        names = _digests(found.unknown)
        count = plural(len(found.unknown), "store path")
        reason = f"This machine does not know where {count} came from."
        yield ShownCheck("Origin of every path", State.UNCHECKED, reason, names)


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
        reason = f"{report.built} built here; {absent}, so nothing is known of them."
        return ShownCheck("Built on this machine", State.UNCHECKED, reason)
    counts = Counter(item.signers.words for item in items)
    table = macro("substituted", items[:_MOST], of="walk.html.j2")
    signed = "".join(f"\n{count}: {reason}." for reason, count in sorted(counts.items()))
    reason = f"{report.built} outputs were; {len(items)} came from elsewhere.{signed}"
    return ShownCheck("Built on this machine", State.STATED, fold(reason), table)
