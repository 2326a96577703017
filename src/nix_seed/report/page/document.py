"""The report of one image: its banner, the answers at a glance, and the sections behind them.

- What is in the image, and how large it is: the map, the tiers, the layers, the store paths.
- What changed since a previous image, what that costs whoever has it, and who caused it.
- May it be passed on? Licences by what they permit, and what was withheld.
- What was released before and after it, and what each release made people pull.
- What the image finally rests on: executed seeds, machine code, sources, and the graph to walk.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

from markupsafe import Markup

from nix_seed.core.digests import Digest
from nix_seed.core.words import human_size, plural, shortened
from nix_seed.formats.nix.store_path import PathInfo, StorePath, closure_in
from nix_seed.image.inspect import InspectedImage, InspectedLayer
from nix_seed.image.rules.changes import Culprit
from nix_seed.image.rules.spec import Spec
from nix_seed.licences.rules.judge import Judged
from nix_seed.report import report as reports
from nix_seed.report.page import parts
from nix_seed.report.page.parts import PageSection, ShownCheck, State, macro
from nix_seed.report.page.trust import origin, trust_section, verdict
from nix_seed.report.report import Absent
from nix_seed.report.rules.treemap import Look, map_layers
from nix_seed.roots.roots import RootsReport
from nix_seed.roots.rules.roots import Stop, Walk

_LOOKS = {
    "wide": Look(width=1080, height=560, smallest=150),
    "tall": Look(width=340, height=600, smallest=90, heading=20),
}
_COLOURS = 8
_LETTER = 6.7  # pixels, on average, of a 12 pixel letter
_MOST_CLOSURES = 200
_MOST_PATHS = 6000  # of a table of store paths; a page of some 2 MB


def size_section(
    image: InspectedImage,
    spec: Spec,
    changed: Collection[StorePath],
    pulled: Collection[int],
    files: reports.ListedFiles | Absent,
) -> PageSection:
    """Return the section; *changed* paths and *pulled* layers are those a base lacks."""
    unpacked = human_size(sum(info.nar_size for info in spec.paths.values()))
    brief = f"{human_size(image.size)} to pull, {unpacked} unpacked"
    paths, layers = plural(len(spec.paths), "store path"), plural(len(image.layers), "layer")
    hatched = " Hatched: changed since the base." if changed else ""
    body = parts.fill(
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
        most=_MOST_PATHS,
        counted=_MOST_CLOSURES,
        files=files,
        unlisted=parts.note_absent(files) if isinstance(files, Absent) else None,
    )
    lead = f"{brief}: {paths} in {layers}."
    return PageSection("size", "Size", lead, body, "How large is it?", brief=f"{brief}.")


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
    return shortened([path.name for path in spec.largest(paths)], 3)


def _paths(spec: Spec) -> list[tuple[PathInfo, int, str, int | None, int | None]]:
    """Return store paths, the largest first, each with its layer (the first is 1) and tier.

    And, of the largest, how many others it needs, and the size of them all, itself included.
    """
    at = {path: (n, group.tier) for n, group in enumerate(spec.layers, 1) for path in group.paths}
    largest = [spec.paths[path] for path in spec.largest(spec.paths)]
    needs: dict[StorePath, tuple[int, int]] = {}
    for info in largest[:_MOST_CLOSURES]:
        closure = closure_in(spec.paths, [info.path])
        size = sum(spec.paths[path].nar_size for path in closure)
        needs[info.path] = len(closure) - 1, size
    return [(info, *at[info.path], *needs.get(info.path, (None, None))) for info in largest]


_WORDS = {
    "derivation": "built",
    "fetched": "fetched, its hash agreed on",
    "added": "added as it is",
}
_MOST = 1500  # rows


def roots_section(roots: reports.FoundRoots | Absent) -> PageSection:
    """Return the section; is everything it rests on known, and built here?"""
    title, question = "Trust roots", "What does it rest on?"
    if isinstance(roots, Absent):
        return PageSection.lacking("roots", title, question, roots)
    report, walk = roots.report, roots.walk
    found, checks = report.findings, list(_checks(report))
    executed = human_size(sum(item.size or 0 for item in found.executed))
    lead = (
        f"{plural(len(found.executed), 'file')} executed without having been built ({executed}),"
        f" {len(found.binaries)} more that hold machine code,"
        f" {plural(len(report.sources), 'other source')}."
    )
    states = {check.state for check in checks}
    state = next((s for s in (State.UNCHECKED, State.STATED) if s in states), State.VERIFIED)
    total = plural(walk.total, "stop")
    body = parts.fill(
        "roots.html.j2",
        report=report,
        found=found,
        walk=walk,
        checks=checks,
        way_to=partial(_way_to, walk),
        shown=total if walk.total == len(walk.stops) else f"{len(walk.stops)} of {total}",
        known=_known(report),
        most=_MOST,
    )
    return PageSection("roots", title, lead, body, question, state)


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


def _bullets(items: Iterable[parts.Child]) -> Markup:
    return macro("bullets", list(items))


def _digests(items: Sequence[object]) -> Markup:
    return _bullets(map(parts.digest, items[:_MOST]))


def _checks(report: RootsReport) -> Iterator[ShownCheck]:
    found = report.findings
    host = _bullets(parts.fold(f"{each.program}, by {each.used_by.name}") for each in found.host)
    name = "Programs of the building machine"
    if found.unread and not found.host:
        names = _digests(found.unread)
        count = plural(len(found.unread), "builder")
        reason = f"{count} not in this store, so nobody saw whether they are scripts."
        yield ShownCheck(name, State.UNCHECKED, reason, names)
    else:
        yield _none(name, len(found.host), "is executed", "are executed", host)
    impure = _bullets(parts.fold(f"{i.derivation.name}: {i.reason}") for i in found.impure[:_MOST])
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
    return ShownCheck("Built on this machine", State.STATED, parts.fold(reason), table)


_MOST_LICENCES = 2500
_FIRST = 8  # licences that need no attention
_ORDER = ("withheld", "unknown", "redistributable")


def licence_section(spec: Spec, licences: reports.JudgedPaths | Absent) -> PageSection:
    """Return the section: may all that is in the image be passed on? Unknown is never a yes."""
    held = "Nothing withheld"
    if spec.withheld:
        held = f"{plural(len(spec.withheld), 'store path')} withheld"
    values: dict[str, Any] = {}
    if isinstance(licences, Absent):
        lacking = f"; {plural(len(spec.unknown), 'unknown licence')}" if spec.unknown else ""
        lead, state = f"{held}{lacking}; other licences: {licences.state}.", State(licences.state)
    else:
        counts = Counter[str](item.licence.status for item in licences.judged)
        shown = ", ".join(f"{counts[status]} {status}" for status in _ORDER if counts[status])
        unjudged = f", {len(licences.unjudged)} not judged" if licences.unjudged else ""
        lead = f"{held}; of what is in it, {shown or 'nothing'}{unjudged}."
        unclear = spec.unknown or licences.unjudged or licences.problem or counts["unknown"]
        state = State.UNCHECKED if unclear else State.VERIFIED
        values = _judged(spec, licences.judged)
    body = parts.fill(
        "licences.html.j2", spec=spec, licences=licences, most=_MOST_LICENCES, **values
    )
    return PageSection("licences", "Licences", lead, body, "May it be passed on?", state)


def _judged(spec: Spec, judged: Sequence[Judged]) -> dict[str, Any]:
    """Return licences, those that need attention first, and store paths in the same order."""
    groups: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
    for item in judged:
        groups[item.licence.status, item.licence.name or "none stated"].append(
            spec.paths[item.path].nar_size
        )
    ranked = sorted(groups.items(), key=lambda e: (_ORDER.index(e[0][0]), -sum(e[1]), e[0][1]))
    rows = [(*name, sizes) for name, sizes in ranked]
    first = _FIRST + sum(status != "redistributable" for status, _ in groups)
    paths = sorted(judged, key=lambda i: (_ORDER.index(i.licence.status), i.path.name, i.path))
    unlisted = sum(spec.paths[item.path].nar_size for item in paths[_MOST_LICENCES:])
    return {"first": rows[:first], "further": rows[first:], "paths": paths, "unlisted": unlisted}


_SHOWN = 4  # roots of one culprit
_MOST_CULPRITS = 100
_MOST_ROWS = 2000


def _because(culprit: Culprit) -> str:
    if culprit.cause_changed:
        return f"the input {culprit.cause} changed"
    words, more = culprit.roots[0].words, len(culprit.roots) - 1
    return f"{words} and {more} more changed" if more else words


def change_section(change: reports.Change | Absent) -> PageSection:
    """Return the section."""
    title, question = "Changes", "What changed?"
    if isinstance(change, Absent):
        return PageSection.lacking("changes", title, question, change)
    lead = f"Nothing: whoever has {change.base} has every layer."
    if change.pulled:
        pulled = f"{human_size(change.pull_bytes)} of {human_size(change.total_bytes)}"
        because = f", because {_because(change.diff.culprits[0])}" if change.diff.culprits else ""
        layers = plural(len(change.pulled), "layer")
        lead = f"Whoever has {change.base} pulls {layers}, {pulled}{because}."
    body = parts.fill(
        "changes.html.j2",
        change=change,
        diff=change.diff,
        shortened=shortened,
        shown=_SHOWN,
        to_pull=lambda culprit: sum(change.sizes[n] for n in culprit.layers),
        most=_MOST_ROWS,
        most_culprits=_MOST_CULPRITS,
    )
    return PageSection("changes", title, lead, body, question)


_part = partial(macro, of="image.html.j2")


def report_page(report: reports.ImageReport) -> str:
    """Return the page: each section's answer at a glance, trust first, and then the sections."""
    change = report.change if isinstance(report.change, reports.Change) else None
    changed = {c.new for c in change.diff.changes if c.new is not None} if change else set()
    sections = [
        size_section(
            report.image, report.spec, changed, change.pulled if change else (), report.files
        ),
        change_section(report.change),
        licence_section(report.spec, report.licences),
        trust_section(report.trust),
        *_releases_section(report.releases, report.image.digest),
        roots_section(report.roots),
    ]
    answers = sorted(sections, key=lambda section: section.name != "trust")
    glance = PageSection("glance", "At a glance", None, _part("glance", answers))
    title = f"{report.spec.name}: report of a {report.spec.kind}"
    banner = _part("banner", report, verdict(report.trust), origin(report.trust))
    return parts.page(title, banner, [glance, *sections], _part("footer"))


def _releases_section(
    found: reports.ListedReleases | Absent | None, this: Digest
) -> Iterator[PageSection]:
    title, question = "Releases", "What else was released?"
    if isinstance(found, Absent):
        yield PageSection.lacking("releases", title, question, found)
    elif found is not None:
        rows = parts.fill("releases.html.j2", found=found, this=this)
        yield PageSection("releases", title, _among(found, this), rows, question)


def _among(found: reports.ListedReleases, this: Digest) -> str:
    """Return in one sentence how the image *this* stands among the releases."""
    if not found.in_all:
        return "Where this image lies, no release is listed."
    count = plural(found.in_all, "release")
    of_it = [n for n, each in enumerate(found.latest) if each.image == this]
    if not of_it:
        newest = found.latest[0].image is not None
        return f"{count}; the last has another image." if newest else f"{count}."
    if of_it[0] == 0:
        return f"{count}; the last has this image."
    return f"{count}; {of_it[0]} came after the last with this image."
