"""The report of one image: its banner, the answers at a glance, and the sections behind them."""

from __future__ import annotations

from nix_seed.core.words import human_size, plural
from nix_seed.report.page.changes import change_answer, change_section
from nix_seed.report.page.licences import licence_answer, licence_section
from nix_seed.report.page.parts import Section, State, badge, digest, facts, fold, mark, page, slug
from nix_seed.report.page.roots import roots_answer, roots_section
from nix_seed.report.page.sizes import size_section
from nix_seed.report.page.trust import trust_section, verdict
from nix_seed.report.report import Absent, Change, ImageReport
from nix_seed.report.rules.element import Child, Element, el


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
    footer = el("p", "Made by nix-seed report. ", words, el("code", "nix-seed verify"), ".")
    return page(
        f"{report.spec.name}: report of a {report.spec.kind}", _banner(report), sections, footer
    )


def _banner(report: ImageReport) -> Child:
    image, spec = report.image, report.spec
    state, words = verdict(report.trust)
    kind = "An image to build in" if spec.kind == "seed" else "An image to ship"
    return [
        el(
            "div",
            el("p", "Nix Seed report", class_="eyebrow"),
            el("h1", fold(spec.name)),
            el("p", f"{kind}, for {spec.system}", class_="under"),
            class_="title",
        ),
        badge(state, fold(words)),
        facts(
            [
                ("Image", fold(report.reference)),
                ("Digest", digest(str(image.digest))),
                ("narHash", digest(str(spec.nar_hash))),
                ("System", spec.system),
                ("Size", f"{human_size(image.size)} in {plural(len(image.layers), 'layer')}"),
                ("Input key", digest(image.input_key) if image.input_key else None),
            ]
        ),
    ]


def _glance(report: ImageReport) -> Section:
    state, words = verdict(report.trust)
    unpacked = human_size(sum(info.nar_size for info in report.spec.paths.values()))
    rows = [
        _row("trust", "Do its builders agree?", state, words),
        _row(
            "size",
            "How large is it?",
            State.STATED,
            f"{human_size(report.image.size)} to pull, {unpacked} unpacked.",
        ),
        _row("changes", "What changed?", _state(report.change), change_answer(report.change)),
        _row(
            "licences",
            "May it be passed on?",
            _state(report.licences),
            licence_answer(report.spec, report.licences),
        ),
        _row("roots", "What does it rest on?", _state(report.roots), roots_answer(report.roots)),
    ]
    return Section("glance", "At a glance", None, el("ul", rows, class_="glance"))


def _state(found: object) -> State:
    return State(found.state) if isinstance(found, Absent) else State.STATED


def _row(name: str, question: str, state: State, words: str) -> Element:
    # What the image or the store states is an answer; that nobody checked it is no news here.
    shown: Child = None if state is State.STATED else [mark(state), " ", state.value]
    return el(
        "li",
        el("a", question, href=f"#{name}"),
        el("span", shown, class_=f"state {slug(state)}"),
        el("div", fold(words), class_="words"),
    )
