"""What changed since a previous image, what that costs whoever has it, and who caused it."""

from collections.abc import Callable, Sequence

from nix_seed.core.words import human_size, plural
from nix_seed.flake.rules.names import PackageChange
from nix_seed.image.rules.changes import Culprit
from nix_seed.report.page.parts import PageSection, fill
from nix_seed.report.report import Absent, Change

_SHOWN = 4  # roots of one culprit
_MOST_CULPRITS = 100
_MOST_ROWS = 2000


def change_answer(change: Change | Absent) -> str:
    """Return the answer in one sentence."""
    if isinstance(change, Absent):
        return "No previous image was named." if change.state == "not asked" else change.reason
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
    if isinstance(change, Absent):
        return PageSection.lacking("changes", "Changes", change)
    body = fill(
        "changes.html.j2",
        change=change,
        diff=change.diff,
        kind=_kind,
        words=_words,
        package=lambda each: each.package,
        some=_some,
        to_pull=lambda culprit: sum(change.sizes[n] for n in culprit.layers),
        most=_MOST_ROWS,
        most_culprits=_MOST_CULPRITS,
    )
    return PageSection("changes", "Changes", change_answer(change), body)


def _some(changes: Sequence[PackageChange], say: Callable[[PackageChange], str]) -> str:
    more = f" and {len(changes) - _SHOWN} more" if len(changes) > _SHOWN else ""
    return ", ".join(map(say, changes[:_SHOWN])) + more


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
