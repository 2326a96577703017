"""The page and the plot of ``docs/simulation.json``: nothing is in them that is not in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

__all__ = ["document", "plot"]

Results = Mapping[str, Any]
SEVERITIES = ("NOTHING", "LONE", "AGAINST_HONEST", "UNSEEN")
SHORT = {
    "NOTHING": "none",
    "LONE": "before honest builds",
    "AGAINST_HONEST": "after them, too",
    "UNSEEN": "and no log tells",
}
_FILL = {"NOTHING": "#e3f1e8", "LONE": "#fdf1d6", "AGAINST_HONEST": "#f4b8a4", "UNSEEN": "#a3261b"}
_INK = {"NOTHING": "#17613f", "LONE": "#7a4b00", "AGAINST_HONEST": "#5a1208", "UNSEEN": "#ffffff"}


def document(results: Results) -> str:
    """Return ``docs/simulation.md``."""
    parts = [_head(results), *(_policy(found) for found in results["policies"]), _foot()]
    return "\n".join(parts)


def terms_words(terms: Mapping[str, int]) -> str:
    """Return what a policy demands, in words."""
    return (
        f"{terms['threshold']} of {terms['builders']} builders, "
        f"{terms['needed']} of {terms['logs']} logs, "
        f"{terms['wanted']} of {terms['promoters']} promoters"
    )


def _head(results: Results) -> str:
    policies = results["policies"]
    releases = sum(found["releases"] for found in policies)
    questions = sum(found["questions"] for found in policies)
    combinations = sum(found["combinations"] for found in policies)
    cells = [cell for found in policies for cell in found["powers"]]
    names = sorted({plan for cell in cells for plan in cell["plans"]})
    plans = policies[0]["returning"]["plays"]
    return f"""# Simulation

Written by `python bench/simulate.py`, from `docs/simulation.json`, which it writes as well.

{releases:,} releases were driven through adversaries, over the product's own rules and flows, with
a registry and logs in memory: {plans} plans, in {combinations:,} combinations of plan, builders,
logs, promoters and registry under control, asked {questions:,} times: by commit, by commit and
system, by index, by image. A plan that makes no use of something is played once for every number of
it. The plans are in `tests/sim/strategies.py`; those that ever come to anything are
{", ".join(names)}.

Then honest releases were driven past those whom the policy can do without: away, or in the way.

What is counted first is a *false yes*: `verify` says *verified* to anything but all the honest
images that were asked about.

* **{SHORT["NOTHING"]}**: no plan got one.
* **{SHORT["LONE"]}**: only where no honest builder had built the commit yet. One that does
  dissents, and the release is refused from then on.
* **{SHORT["AGAINST_HONEST"]}**: also against an honest release, from a registry that hides it from
  someone who has never seen it. At least one log shows the false record to everyone.
* **{SHORT["UNSEEN"]}**: the record is in no history that a log shows to anyone but the victim.

![What an adversary comes to, by what it controls](simulation.svg)
"""


def _policy(found: Mapping[str, Any]) -> str:
    terms = found["terms"]
    rows = [f"| {name} | {text} |" for name, text in _findings(found)]
    return "\n".join(
        [
            f"## {terms_words(terms)}",
            "",
            f"{found['releases']:,} releases, {found['questions']:,} questions.",
            "",
            "| under control | false yes | plans that get there |",
            "| --- | --- | --- |",
            *_table(found),
            "",
            "| | |",
            "| --- | --- |",
            *rows,
            "",
        ]
    )


def _table(found: Mapping[str, Any]) -> Iterator[str]:
    """Yield a row for each group of powers that come to the same, told by the thresholds."""
    terms = found["terms"]
    below = [c for c in found["powers"] if c["builders"] < terms["threshold"]]
    yield _row(f"fewer than {terms['threshold']} builders, and whatever else", below)
    rest = [c for c in found["powers"] if c["builders"] >= terms["threshold"]]
    enough = [c for c in rest if _quiet(c, terms)]
    others = [c for c in rest if not _quiet(c, terms)]
    many = f"{terms['threshold']} or more builders"
    yield _row(many, [c for c in others if not c["registry"]])
    yield _row(f"{many}, and the registry", [c for c in others if c["registry"]])
    logs, promoters = f"{terms['needed']} or more logs", f"{terms['wanted']} or more promoters"
    yield _row(f"{many}, {logs} and {promoters}", enough)


def _quiet(cell: Mapping[str, Any], terms: Mapping[str, int]) -> bool:
    enough: bool = cell["logs"] >= terms["needed"] and cell["promoters"] >= terms["wanted"]
    return enough


def _row(name: str, cells: Sequence[Mapping[str, Any]]) -> str:
    found = {cell["severity"] for cell in cells}
    words = ", ".join(SHORT[each] for each in SEVERITIES if each in found)
    plans = sorted({plan for cell in cells for plan in cell["plans"]})
    shown = ", ".join(plans) or "none"
    return f"| {name} ({len(cells)} combinations) | {words} | {shown} |"


def _findings(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    terms, away = found["terms"], found["away"]
    back = found["returning"]
    yes = len(back["accepted"])
    yield (
        "who had verified the honest release before, against control of everything",
        f"{yes} false yeses in {back['plays']} plans",
    )
    done = sum(cell["released"] for cell in away)
    spare = [terms[a] - terms[b] for a, b in _THRESHOLDS]
    enough = [
        cell
        for cell in away
        if all(cell[name] <= most for (name, _), most in zip(_THRESHOLDS, spare, strict=True))
    ]
    kept = sum(cell["released"] for cell in enough)
    most = f"{spare[0]} builders, {spare[1]} logs and {spare[2]} promoters"
    yield (
        f"honest releases with up to {most} away",
        f"{kept} of {len(enough)} succeed",
    )
    yield (
        "honest releases with more away than that",
        f"{done - kept} of {len(away) - len(enough)} succeed",
    )
    yield from _hindered(found)


def _hindered(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield what came of honest releases with those in the way whom the policy can do without."""
    terms, cases = found["terms"], found["hindered"]
    wanted, spare = terms["wanted"], terms["promoters"] - terms["wanted"]
    by = {who: [case for case in cases if case["by"] == who] for who in _WHO}
    away = f", and up to {terms['logs'] - terms['needed']} logs away"
    few = [case for case in by["promoters"] if case["promoters"] < wanted]
    many = [case for case in by["promoters"] if case["promoters"] >= wanted]
    groups = (
        (f"up to {min(spare, wanted - 1)} promoters lying{away}", few),
        (f"{wanted} or more promoters lying, who are enough to sign{away}", many),
        (f"a registry that adds what does not belong there{away}", by["registry"]),
        (f"up to {terms['logs'] - terms['needed']} logs lying", by["logs"]),
    )
    for who, among in groups:
        if among:
            yield f"honest releases with {who}", _succeed(among)


def _succeed(cases: Sequence[Mapping[str, Any]]) -> str:
    done = sum(case["released"] for case in cases)
    blocking = sorted({case["plan"] for case in cases if not case["released"]})
    words = f"{done} of {len(cases)} succeed"
    return f"{words}; what blocks: {', '.join(blocking)}" if blocking else words


_WHO = ("promoters", "registry", "logs")
_THRESHOLDS = (("builders", "threshold"), ("logs", "needed"), ("promoters", "wanted"))


def _foot() -> str:
    return """## What it shows, and what it does not

* Below the threshold of builders nothing else helps: not every log, every promoter and the registry
  together. Builders are what the images rest on; the rest is about who can see what was done.
* At the threshold, promoters who are honest sign what the quorum says: they check evidence, they do
  not build. Promoters keep a release from happening twice, early, or without a system.
* Promoters who lie, too few to sign a release, cannot keep the others from it: whatever they sign,
  log and list for the same commit before, between and after, each honest promoter needs one turn.
  As many as must sign can, by a second root. "Away" above means silent; the plans of who lies are
  in `tests/sim/liars.py`.
* Whoever has too few builders can still be in the way: one stolen builder's key dissents and blocks
  a commit until the key is revoked, a log that is caught lying blocks whoever asks it, and a
  registry that is down, or leaves out, shows nothing. See the [runbook](runbook.md).
* Outputs are played as well, by every number of stolen builders' keys, with and without the
  registry, for every threshold of up to three builders (`tests/sim/test_outputs.py`). By `own`, one
  stolen key has a false output taken. By `quorum` it takes as many as the policy wants, and a
  registry that hides every honest word, or no honest builder at all.
* Keys, signatures and hashes are taken to hold, and so is the consumer's own machine. The
  [threat model](threat-model.md) says what else is.
"""


_CELL, _GAP, _LEFT, _TOP = 58, 36, 64, 76


def plot(results: Results) -> str:
    """Return ``docs/simulation.svg``: severity by builders and logs, and what may be away."""
    found = results["policies"][0]
    terms = found["terms"]
    width = 2 * (_LEFT + (terms["builders"] + 1) * _CELL) + _GAP + 24
    height_of_panel = (terms["logs"] + 1) * _CELL + _TOP + 26
    panels = [
        _panel(found, column * (width // 2) + 8, 48 + row * height_of_panel, registry, promoters)
        for row, promoters in enumerate((False, True))
        for column, registry in enumerate((False, True))
    ]
    below = 48 + 2 * height_of_panel
    away = [
        _away(found, column * (width // 2) + 8, below, enough)
        for column, enough in enumerate((True, False))
    ]
    height = below + height_of_panel + 66
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
            'font-family="sans-serif" font-size="12" role="img">',
            f"<title>What an adversary comes to: {terms_words(terms)}</title>",
            f'<rect width="{width}" height="{height}" fill="#fbfaf6"/>',
            _text(16, 28, f"Policy: {terms_words(terms)}", size=16, weight="bold"),
            *panels,
            *away,
            *_legend(16, height - 50),
            "</svg>",
            "",
        ]
    )


def _panel(found: Mapping[str, Any], x: int, y: int, registry: bool, promoters: bool) -> str:
    """Draw builders (across) by logs (up) for a registry that is controlled or not."""
    terms = found["terms"]
    wanted = terms["wanted"]

    def severity(builders: int, logs: int) -> str:
        cells = [
            cell["severity"]
            for cell in found["powers"]
            if (cell["builders"], cell["logs"], cell["registry"]) == (builders, logs, registry)
            and (cell["promoters"] >= wanted) is promoters
        ]
        return str(max(cells, key=SEVERITIES.index))

    def style(builders: int, logs: int) -> tuple[str, str, str]:
        name = severity(builders, logs)
        return _FILL[name], _INK[name], str(SEVERITIES.index(name))

    who = f"{wanted} or more" if promoters else f"fewer than {wanted}"
    title = f"registry {'controlled' if registry else 'honest'}, {who} promoters"
    return _grid(terms, x, y, title, ("builders controlled", "logs controlled"), style)


def _away(found: Mapping[str, Any], x: int, y: int, enough: bool) -> str:
    """Draw whether an honest release succeeds, by builders (across) and logs (up) away."""
    terms = found["terms"]
    most = terms["promoters"] - terms["wanted"]

    def style(builders: int, logs: int) -> tuple[str, str, str]:
        released = any(
            cell["released"]
            for cell in found["away"]
            if (cell["builders"], cell["logs"]) == (builders, logs)
            and (cell["promoters"] <= most) is enough
        )
        return ("#e3f1e8", "#17613f", "yes") if released else ("#eef0f1", "#50585f", "no")

    count = f"up to {most}" if enough else f"more than {most}"
    title = f"honest release, {count} promoters away"
    return _grid(terms, x, y, title, ("builders away", "logs away"), style)


def _grid(
    terms: Mapping[str, int],
    x: int,
    y: int,
    title: str,
    axes: tuple[str, str],
    style: Callable[[int, int], tuple[str, str, str]],
) -> str:
    left, top = x + _LEFT, y + 34
    parts = [_text(x + 8, y + 18, title, weight="bold")]
    rows = terms["logs"] + 1
    for logs in range(rows):
        row = top + (rows - 1 - logs) * _CELL
        parts.append(_text(left - 12, row + _CELL // 2 + 4, str(logs), anchor="end"))
        for builders in range(terms["builders"] + 1):
            column = left + builders * _CELL
            fill, ink, label = style(builders, logs)
            parts.append(
                f'<rect x="{column}" y="{row}" width="{_CELL - 3}" height="{_CELL - 3}" rx="4" '
                f'fill="{fill}"/>'
            )
            middle = column + _CELL // 2 - 1
            parts.append(_text(middle, row + _CELL // 2 + 4, label, fill=ink, anchor="middle"))
    bottom = top + rows * _CELL
    for builders in range(terms["builders"] + 1):
        middle = left + builders * _CELL + _CELL // 2 - 1
        parts.append(_text(middle, bottom + 14, str(builders), anchor="middle"))
    across = left + (terms["builders"] + 1) * _CELL // 2
    parts.append(_text(across, bottom + 32, axes[0], anchor="middle"))
    turn = f' transform="rotate(-90 {x + 24} {top + rows * _CELL // 2})"'
    parts.append(_text(x + 24, top + rows * _CELL // 2, axes[1], anchor="middle", more=turn))
    return "\n".join(parts)


def _legend(x: int, y: int) -> Iterator[str]:
    yield _text(x, y, "A false release passes verify:")
    for number, name in enumerate(SEVERITIES):
        at = x + number * 155
        yield f'<rect x="{at}" y="{y + 10}" width="22" height="22" rx="4" fill="{_FILL[name]}"/>'
        yield _text(at + 11, y + 26, str(number), fill=_INK[name], anchor="middle")
        yield _text(at + 28, y + 26, SHORT[name], size=10)


def _text(
    x: int,
    y: int,
    words: str,
    *,
    size: int = 12,
    weight: str = "normal",
    fill: str = "#1c2420",
    anchor: str = "start",
    more: str = "",
) -> str:
    return (
        f'<text x="{x}" y="{y}" font-size="{size}" font-weight="{weight}" fill="{fill}" '
        f'text-anchor="{anchor}"{more}>{words}</text>'
    )
