"""What changed since a previous image, what that costs whoever has it, and who caused it."""

from __future__ import annotations

from collections.abc import Sequence

from nix_seed.core.words import human_size, plural
from nix_seed.flake.rules.names import PackageChange
from nix_seed.formats.nix.store_path import StorePath
from nix_seed.image.rules.changes import Culprit
from nix_seed.report.page.parts import (
    Column,
    Section,
    Sorted,
    State,
    data_table,
    details,
    digest,
    facts,
    note,
    size,
)
from nix_seed.report.report import Absent, Change
from nix_seed.report.rules.element import Child, Element, el

_SHOWN = 4  # roots of one culprit
_MOST_CULPRITS = 100
_MOST_ROWS = 2000


def change_answer(change: Change | Absent) -> str:
    """Return the answer in one sentence."""
    if isinstance(change, Absent):
        return "No previous image was named." if change.state == "not asked" else change.words
    if not change.pulled:
        return f"Nothing: whoever has {change.base} has every layer."
    pulled = f"{human_size(change.pull_bytes)} of {human_size(change.total_bytes)}"
    because = f", because {_because(change.diff.culprits[0])}" if change.diff.culprits else ""
    layers = plural(len(change.pulled), "layer")
    return f"Whoever has {change.base} pulls {layers}, {pulled}{because}."


def _because(culprit: Culprit) -> str:
    if culprit.cause_changed:
        return f"the input {culprit.cause} changed"
    words = _words(culprit.roots[0])
    return (
        words if len(culprit.roots) == 1 else f"{words} and {len(culprit.roots) - 1} more changed"
    )


def change_section(change: Change | Absent) -> Section:
    """Return the section."""
    title = "Changes"
    if isinstance(change, Absent):
        return Section("changes", title, None, note(State(change.state), change.words, change.hint))
    body: list[Child] = [
        _meter(change),
        facts([("Base", change.base), ("Its digest", digest(str(change.digest)))]),
    ]
    if change.diff.culprits:
        body.append(_culprits(change))
    if change.diff.changes:
        count = plural(len(change.diff.changes), "change")
        body.append(details(f"All {count} of store paths", _changes(change.diff.changes)))
    return Section("changes", title, change_answer(change), body)


def _meter(change: Change) -> Element:
    share = 100 * change.pull_bytes / max(change.total_bytes, 1)
    bar = el(
        "svg",
        el("rect", class_="all", width="100%", height="100%", rx=5),
        el("rect", class_="part", width=f"{share:.2f}%", height="100%", rx=5),
        class_="meter",
        width="100%",
        height=10,
        role="img",
        aria_label=f"{share:.1f} percent of the image is pulled again",
    )
    words = f"{share:.1f} % of the image's bytes are pulled again"
    return el("div", bar, el("p", words, class_="hint"))


def _culprits(change: Change) -> Child:
    columns = [
        Column("Because"),
        Column("Drags along", sorts=False),
        Column("Unpacked", number=True),
        Column("Layers", number=True),
        Column("To pull", number=True),
    ]
    rows = [_culprit(culprit, change.sizes) for culprit in change.diff.culprits[:_MOST_CULPRITS]]
    left = len(change.diff.culprits) - len(rows)
    caption = "Who caused it, the dearest first; a layer with two causes counts under each"
    return [
        data_table(caption, columns, rows, name="culprits"),
        el("p", f"{left} more causes are not listed.", class_="hint") if left else None,
    ]


def _culprit(culprit: Culprit, sizes: Sequence[int]) -> list[Child | Sorted]:
    names = ", ".join(map(_words, culprit.roots[:_SHOWN]))
    if len(culprit.roots) > _SHOWN:
        names += f" and {len(culprit.roots) - _SHOWN} more"
    who: Child = names
    if culprit.cause_changed:
        who = [el("strong", f"input {culprit.cause}"), f" changed: {names}"]
    drags = [change.package for change in culprit.dependents[:_SHOWN]]
    more = len(culprit.dependents) - len(drags)
    dragged = ", ".join(drags) + (f" and {more} more" if more else "")
    return [
        who,
        dragged or "nothing",
        size(culprit.path_bytes),
        len(culprit.layers),
        size(sum(sizes[n] for n in culprit.layers)),
    ]


def _changes(changes: Sequence[PackageChange]) -> Child:
    columns = [
        Column("Package"),
        Column("What"),
        Column("Before", sorts=False),
        Column("Now", sorts=False),
    ]
    rows = [
        [change.package, _kind(change), _path(change.old), _path(change.new)]
        for change in changes[:_MOST_ROWS]
    ]
    left = len(changes) - _MOST_ROWS
    return [
        data_table("Changes of store paths", columns, rows, name="all-changes", filters=True),
        el("p", f"{left} more are not listed.", class_="hint") if left > 0 else None,
    ]


def _path(path: StorePath | None) -> Child:
    return "" if path is None else digest(path.base_name)


def _kind(change: PackageChange) -> str:
    if change.old is None or change.new is None:
        return "new" if change.old is None else "gone"
    return "rebuilt" if change.old.name == change.new.name else "replaced"


def _words(change: PackageChange) -> str:
    kind = _kind(change)
    if change.old is None or change.new is None or kind == "rebuilt":
        path = change.new or change.old
        return (
            f"{path.name if path else change.package} {'was' if kind == 'rebuilt' else 'is'} {kind}"
        )
    return f"{change.old.name} → {change.new.name}"
