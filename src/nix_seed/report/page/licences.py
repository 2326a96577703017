"""May it be passed on? Licences by what they permit, and what was withheld."""

from collections import defaultdict
from collections.abc import Sequence

from markupsafe import Markup

from nix_seed.core.words import human_size, plural
from nix_seed.image.rules.spec import Spec
from nix_seed.licences.rules.judge import Judged
from nix_seed.report.page.parts import (
    Child,
    Columns,
    PageSection,
    Row,
    State,
    data_table,
    details,
    fold,
    hint,
    macro,
    note,
    number,
    path_name,
    plain,
    size,
    web_address,
)
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


def licence_section(spec: Spec, licences: JudgedPaths | Absent) -> PageSection:
    """Return the section."""
    body: list[Child] = [_withheld(spec)] if spec.withheld else []
    if isinstance(licences, Absent):
        body += [_unknown(spec)] if spec.unknown else []
        body.append(note(State(licences.state), licences.words, licences.hint))
    else:
        body += _judged(spec, licences)
    return PageSection("licences", "Licences", licence_answer(spec, licences), body)


def _withheld(spec: Spec) -> Markup:
    columns: Columns = ["Withheld", "Licence", "From", plain("Derivation")]
    rows = [
        [path_name(item.path), fold(item.licence), web_address(item.url), fold(item.derivation)]
        for item in spec.withheld
    ]
    caption = "Left out of the image; whoever uses it gets these from their vendors"
    return data_table("withheld", caption, columns, rows)


def _unknown(spec: Spec) -> Markup:
    columns: Columns = ["Unknown", "Licence"]
    rows = [
        [path_name(item.path), fold(item.licence or "none stated")]
        for item in spec.unknown[:_MOST_ROWS]
    ]
    caption = "Of these nobody knows whether they may be passed on"
    return data_table("unknown", caption, columns, rows)


def _judged(spec: Spec, licences: JudgedPaths) -> list[Child]:
    body: list[Child] = []
    if licences.flake is None:
        words = "By the bill of materials that is attached to the image."
        body.append(note(State.STATED, words, "computed anew: nix-seed report … --flake ."))
    if licences.problem:
        words = f"Not all licences could be read: {licences.problem}"
        body.append(note(State.UNCHECKED, words))
    if licences.unjudged:
        names = ", ".join(path.name for path in licences.unjudged[:20])
        count = plural(len(licences.unjudged), "store path")
        words = f"{licences.flake or 'It'} knows nothing of {count}: {names}"
        body.append(
            note(State.UNCHECKED, words, "name the flake, at the commit, that the image is of")
        )
    body.append(_by_licence(spec, licences.judged))
    table = _each(spec, licences.judged)
    return [
        *body,
        details(f"All {plural(len(licences.judged), 'store path')} with licences", table),
    ]


def _by_licence(spec: Spec, judged: Sequence[Judged]) -> Child:
    groups: defaultdict[tuple[int, str], list[int]] = defaultdict(list)
    for item in judged:
        key = (_ORDER.index(item.licence.status), item.licence.name or "none stated")
        groups[key].append(spec.paths[item.path].nar_size)
    rows: list[Row] = [
        [fold(name), macro("status", _ORDER[rank]), len(sizes), size(sum(sizes))]
        for (rank, name), sizes in sorted(
            groups.items(), key=lambda each: (each[0][0], -sum(each[1]), each[0][1])
        )
    ]
    attention = sum(rank < _ORDER.index("redistributable") for rank, _ in groups)
    first, rest = rows[: attention + _FIRST], rows[attention + _FIRST :]
    columns: Columns = ["Licence", "Permits", number("Store paths"), number("Unpacked")]
    caption = "Licences: what needs attention, then the largest"
    more = data_table("more-licences", "Further licences", columns, rest)
    return [
        data_table("licence-names", caption, columns, first),
        details(f"{plural(len(rest), 'further licence')}", more) if rest else None,
    ]


def _each(spec: Spec, judged: Sequence[Judged]) -> Child:
    columns: Columns = ["Store path", "Licence", "Permits", plain("From")]
    ordered = sorted(judged, key=lambda i: (_ORDER.index(i.licence.status), i.path.name, i.path))
    rows = [
        [
            path_name(item.path),
            fold(item.licence.name or "none stated"),
            macro("status", item.licence.status),
            web_address(item.url),
        ]
        for item in ordered[:_MOST_ROWS]
    ]
    rest = ordered[_MOST_ROWS:]
    together = human_size(sum(spec.paths[item.path].nar_size for item in rest))
    words = f"{len(rest)} more, {together} together, are not listed: nix-seed licences lists them."
    return [
        data_table("licence-paths", "Licence of each store path", columns, rows, filters=True),
        hint(words, len(rest)),
    ]
