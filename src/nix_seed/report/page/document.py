"""The report of one image: its banner, the answers at a glance, and the sections behind them."""

from nix_seed.core.words import human_size, plural
from nix_seed.report.page.changes import change_answer, change_section
from nix_seed.report.page.licences import licence_answer, licence_section
from nix_seed.report.page.parts import (
    Child,
    PageSection,
    State,
    badge,
    digest,
    facts,
    fold,
    macro,
    page,
)
from nix_seed.report.page.roots import roots_answer, roots_section
from nix_seed.report.page.sizes import size_section
from nix_seed.report.page.trust import trust_section, verdict
from nix_seed.report.report import Absent, Change, ImageReport


def report_page(report: ImageReport) -> str:
    """Return the page."""
    change = report.change if isinstance(report.change, Change) else None
    changed = {c.new for c in change.diff.changes if c.new is not None} if change else set()
    pulled = change.pulled if change else ()
    sections = [
        _glance(report),
        size_section(report.image, report.spec, changed, pulled),
        change_section(report.change),
        licence_section(report.spec, report.licences),
        trust_section(report.trust),
        roots_section(report.roots),
    ]
    words = "This page fetches nothing. It states what was found; what depends on an image asks "
    footer = ["Made by nix-seed report. ", words, macro("code", "nix-seed verify"), "."]
    title = f"{report.spec.name}: report of a {report.spec.kind}"
    return page(title, _banner(report), sections, footer)


def _banner(report: ImageReport) -> Child:
    image, spec = report.image, report.spec
    state, words = verdict(report.trust)
    kind = "An image to build in" if spec.kind == "seed" else "An image to ship"
    return [
        macro("title", "Nix Seed report", fold(spec.name), f"{kind}, for {spec.system}"),
        badge(state, fold(words)),
        facts(
            [
                ("Image", fold(report.reference)),
                ("Digest", digest(image.digest)),
                ("narHash", digest(spec.nar_hash)),
                ("System", spec.system),
                ("Size", f"{human_size(image.size)} in {plural(len(image.layers), 'layer')}"),
                ("Input key", digest(image.input_key) if image.input_key else None),
            ]
        ),
    ]


def _glance(report: ImageReport) -> PageSection:
    state, words = verdict(report.trust)
    unpacked = human_size(sum(info.nar_size for info in report.spec.paths.values()))
    pull = f"{human_size(report.image.size)} to pull, {unpacked} unpacked."
    licences = licence_answer(report.spec, report.licences)
    rows = [
        ("trust", "Do its builders agree?", state, fold(words)),
        ("size", "How large is it?", State.STATED, pull),
        ("changes", "What changed?", _state(report.change), fold(change_answer(report.change))),
        ("licences", "May it be passed on?", _state(report.licences), fold(licences)),
        ("roots", "What does it rest on?", _state(report.roots), fold(roots_answer(report.roots))),
    ]
    return PageSection("glance", "At a glance", None, macro("glance", rows))


def _state(found: object) -> State:
    return State(found.state) if isinstance(found, Absent) else State.STATED
