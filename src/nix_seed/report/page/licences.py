"""May it be passed on? Licences by what they permit, and what was withheld."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from nix_seed.core.words import plural
from nix_seed.image.rules.spec import Spec
from nix_seed.licences.rules.judge import Judged
from nix_seed.report.page.parts import PageSection, State, fill
from nix_seed.report.report import Absent, JudgedPaths

_MOST_ROWS = 2500
_FIRST = 8  # licences that need no attention
_ORDER = ("withheld", "unknown", "redistributable")


def licence_answer(spec: Spec, licences: JudgedPaths | Absent) -> str:
    """Return the answer in one sentence."""
    held = (
        f"{plural(len(spec.withheld), 'store path')} withheld"
        if spec.withheld
        else "Nothing withheld"
    )
    if isinstance(licences, Absent):
        lacking = f"; {plural(len(spec.unknown), 'unknown licence')}" if spec.unknown else ""
        return f"{held}{lacking}; other licences: {licences.state}."
    counts = [(sum(i.licence.status == s for i in licences.judged), s) for s in _ORDER]
    shown = ", ".join(f"{count} {status}" for count, status in counts if count)
    unjudged = f", {len(licences.unjudged)} not judged" if licences.unjudged else ""
    return f"{held}; of what is in it, {shown or 'nothing'}{unjudged}."


def licence_state(spec: Spec, licences: JudgedPaths | Absent) -> State:
    """Return whether all that is in the image may be passed on; unknown is never a yes."""
    if isinstance(licences, Absent):
        return State(licences.state)
    unjudged = spec.unknown or licences.unjudged or licences.problem
    unknown = any(item.licence.status == "unknown" for item in licences.judged)
    return State.UNCHECKED if unjudged or unknown else State.VERIFIED


def licence_section(spec: Spec, licences: JudgedPaths | Absent) -> PageSection:
    """Return the section."""
    judged = {} if isinstance(licences, Absent) else _judged(spec, licences.judged)
    body = fill("licences.html.j2", spec=spec, licences=licences, most=_MOST_ROWS, **judged)
    return PageSection("licences", "Licences", licence_answer(spec, licences), body)


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
    unlisted = sum(spec.paths[item.path].nar_size for item in paths[_MOST_ROWS:])
    return {"first": rows[:first], "further": rows[first:], "paths": paths, "unlisted": unlisted}
