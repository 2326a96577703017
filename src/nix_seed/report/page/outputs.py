"""The page and the badge of a commit's outputs: what is reproducible, and where it is not, why."""

from datetime import datetime
from functools import partial

from nix_seed.core.verdict import Fate
from nix_seed.core.words import plural
from nix_seed.outputs.rules.findings import OutputsReport, Reproduced
from nix_seed.report.page.parts import PageSection, State, fill, macro, page

_STATES = {
    Reproduced.SAME: State.VERIFIED,
    Reproduced.ALONE: State.STATED,
    Reproduced.DIFFERS: State.FALSE,
}
_COLOURS = {Fate.VERIFIED: "#2e7d32", Fate.FALSE: "#b3261e", Fate.UNCHECKED: "#6a5acd"}
_part = partial(macro, of="outputs.html.j2")


def outputs_page(found: OutputsReport, now: datetime) -> str:
    """Return the page of the report *found*, which was made at *now*."""
    begins = [each for each in found.outputs if each.begins]
    follows = [each for each in found.outputs if each.follows]
    lead = "Nothing that builders said differs."
    if begins:
        lead = f"{plural(len(begins), 'output')} where a difference begins."
    if follows:
        lead += f" {plural(len(follows), 'other differs', 'others differ')} only because of that."
    systems = plural(len(found.silent), "system")
    sections = [
        PageSection("begins", "Where it differs", lead, _part("begins", begins, follows)),
        PageSection(
            "outputs",
            "Outputs",
            f"{plural(len(found.outputs), 'output')}, for {systems}.",
            _part("outputs", found.outputs, _STATES),
        ),
        PageSection(
            "heard",
            "Who was not heard",
            "A builder that says nothing makes nothing reproducible.",
            _part("heard", found),
        ),
    ]
    at = f"{now:%Y-%m-%d %H:%M}"
    footer = (
        f"Made by nix-seed outputs check at {at} UTC. This page fetches nothing; it states what"
        " builders had said by then."
    )
    counts = [(state.value, len(found.having(state))) for state in Reproduced]
    banner = _part("banner", found, at, State(found.fate), counts)
    return page(f"Outputs of {found.commit}", banner, sections, footer)


def outputs_badge(found: OutputsReport) -> str:
    """Return an SVG image: how many of the outputs are reproducible."""
    same = len(found.having(Reproduced.SAME))
    said = f"{same} of {len(found.outputs)}" if found.outputs else "unknown"
    # Of a common sans-serif face at 11 pixels; the text is fitted to it in any other.
    width = 10 + 7 * len(said)
    return fill("outputs_badge.svg.j2", said=said, colour=_COLOURS[found.fate], width=width) + "\n"
