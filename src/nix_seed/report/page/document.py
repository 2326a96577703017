"""The report of one image: its banner, the answers at a glance, and the sections behind them."""

from functools import partial

from nix_seed.core.words import human_size
from nix_seed.report.page.changes import change_answer, change_section
from nix_seed.report.page.licences import licence_answer, licence_section, licence_state
from nix_seed.report.page.parts import PageSection, State, macro, page
from nix_seed.report.page.roots import roots_answer, roots_section
from nix_seed.report.page.sizes import size_section
from nix_seed.report.page.trust import origin, trust_section, verdict
from nix_seed.report.report import Absent, Change, ImageReport

_part = partial(macro, of="image.html.j2")


def report_page(report: ImageReport) -> str:
    """Return the page."""
    change = report.change if isinstance(report.change, Change) else None
    changed = {c.new for c in change.diff.changes if c.new is not None} if change else set()
    sections = [
        _glance(report),
        size_section(
            report.image, report.spec, changed, change.pulled if change else (), report.files
        ),
        change_section(report.change),
        licence_section(report.spec, report.licences),
        trust_section(report.trust),
        roots_section(report.roots),
    ]
    title = f"{report.spec.name}: report of a {report.spec.kind}"
    banner = _part("banner", report, verdict(report.trust), origin(report.trust))
    return page(title, banner, sections, _part("footer"))


def _glance(report: ImageReport) -> PageSection:
    unpacked = human_size(sum(info.nar_size for info in report.spec.paths.values()))
    pull = f"{human_size(report.image.size)} to pull, {unpacked} unpacked."
    licences = licence_answer(report.spec, report.licences)
    rows = [
        ("trust", "Do its builders agree?", *verdict(report.trust)),
        ("size", "How large is it?", State.STATED, pull),
        ("changes", "What changed?", _state(report.change), change_answer(report.change)),
        ("licences", "May it be passed on?", licence_state(report.spec, report.licences), licences),
        ("roots", "What does it rest on?", _state(report.roots), roots_answer(report.roots)),
    ]
    return PageSection("glance", "At a glance", None, _part("glance", rows))


def _state(found: object) -> State:
    return State(found.state) if isinstance(found, Absent) else State.STATED
