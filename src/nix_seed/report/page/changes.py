"""What changed since a previous image, what that costs whoever has it, and who caused it."""

from collections.abc import Sequence

from nix_seed.core.words import human_size, plural
from nix_seed.flake.rules.names import PackageChange
from nix_seed.formats.nix.store_path import StorePath
from nix_seed.image.rules.changes import Culprit
from nix_seed.report.page.parts import (
    Child,
    Columns,
    PageSection,
    Row,
    State,
    data_table,
    details,
    digest,
    facts,
    hint,
    macro,
    note,
    number,
    plain,
    size,
)
from nix_seed.report.report import Absent, Change

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


def change_section(change: Change | Absent) -> PageSection:
    """Return the section."""
    title = "Changes"
    if isinstance(change, Absent):
        return PageSection(
            "changes", title, None, note(State(change.state), change.words, change.hint)
        )
    body: list[Child] = [
        macro("meter", f"{100 * change.pull_bytes / max(change.total_bytes, 1):.1f}"),
        facts([("Base", change.base), ("Its digest", digest(change.digest))]),
    ]
    if change.diff.culprits:
        body.append(_culprits(change))
    if change.diff.changes:
        count = plural(len(change.diff.changes), "change")
        body.append(details(f"All {count} of store paths", _changes(change.diff.changes)))
    return PageSection("changes", title, change_answer(change), body)


def _culprits(change: Change) -> Child:
    columns: Columns = [
        "Because",
        plain("Drags along"),
        number("Unpacked"),
        number("Layers"),
        number("To pull"),
    ]
    rows = [_culprit(culprit, change.sizes) for culprit in change.diff.culprits[:_MOST_CULPRITS]]
    left = len(change.diff.culprits) - len(rows)
    caption = "Who caused it, the dearest first; a layer with two causes counts under each"
    return [
        data_table("culprits", caption, columns, rows),
        hint(f"{left} more causes are not listed.", left),
    ]


def _culprit(culprit: Culprit, sizes: Sequence[int]) -> Row:
    names = ", ".join(map(_words, culprit.roots[:_SHOWN]))
    if len(culprit.roots) > _SHOWN:
        names += f" and {len(culprit.roots) - _SHOWN} more"
    who: Child = names
    if culprit.cause_changed:
        who = [macro("strong", f"input {culprit.cause}"), f" changed: {names}"]
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
    columns: Columns = ["Package", "What", plain("Before"), plain("Now")]
    rows = [
        [change.package, _kind(change), _path(change.old), _path(change.new)]
        for change in changes[:_MOST_ROWS]
    ]
    left = len(changes) - _MOST_ROWS
    return [
        data_table("all-changes", "Changes of store paths", columns, rows, filters=True),
        hint(f"{left} more are not listed.", left > 0),
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
