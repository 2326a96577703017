"""The page of a commit's outputs, in a real browser."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from nix_seed.formats.oci.reference import LayoutReference
from nix_seed.outputs.check import check_outputs
from nix_seed.outputs.rules.findings import OutputsReport
from nix_seed.release.load import load_policy, verifiers_of
from nix_seed.report.page.outputs import outputs_badge, outputs_page
from support.browser import CONTRAST, PHONE, axe, chromium, opened
from support.outputs import OutputsWorld, file_tree, store_path
from support.trust import COMMIT

NOW = datetime(2026, 6, 1, tzinfo=UTC)
HOSTILE = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> OutputsReport:
    """Three builders, of which carol's library and so her tool are not reproducible."""
    world = OutputsWorld(tmp_path_factory.mktemp("outputs") / "world")
    world.build("alice")
    world.build("bob")
    made = {
        "library": file_tree(lib="the library", about=f"built at 13:00 {HOSTILE}"),
        "tool": file_tree(program="calls another", about="version 1"),
    }
    world.build("carol", made)
    by = verifiers_of(load_policy(world.write_policy(), NOW))
    return check_outputs(by, [LayoutReference(str(world.directory))], COMMIT)


@pytest.fixture(scope="module")
def written(found: OutputsReport, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "outputs.html"
    path.write_text(outputs_page(found, NOW))
    return path


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_names_where_it_differs(browser: Browser, written: Path, scheme: str) -> None:
    with opened(browser, written, scheme=scheme) as seen:
        assert seen.page.title() == f"Outputs of {COMMIT}"
        assert "2 outputs differ; it begins with packages.library" in seen.text(".badge")
        begins = seen.text("#begins")
        assert str(store_path("library.drv")) in begins
        assert "about" in begins
        assert "'version 1' and 'built at 13:00" in begins
        assert "Following: packages.tool" in begins
        rows = seen.page.locator("#outputs-table tbody tr")
        assert rows.count() == 3
        states = rows.locator("td:nth-child(2)").all_inner_texts()
        assert sorted(map(str.strip, states)) == ["differs", "differs", "reproducible"]
        assert "Every builder was heard." in seen.text("#heard")
        assert seen.evaluate(CONTRAST)["poor"] == []
        assert seen.messages == []


def test_a_phone_shows_all_of_it(browser: Browser, written: Path) -> None:
    with opened(browser, written, size=PHONE) as seen:
        wide = "() => document.documentElement.scrollWidth <= window.innerWidth"
        assert seen.evaluate(wide)


def test_axe_finds_nothing(browser: Browser, written: Path) -> None:
    rules = axe()
    with opened(browser, written, bypass_csp=True) as seen:
        seen.evaluate(rules)
        found = seen.evaluate("() => axe.run()")
        assert [each["id"] for each in found["violations"]] == []


def test_the_badge_is_an_image(browser: Browser, found: OutputsReport, tmp_path: Path) -> None:
    path = tmp_path / "badge.svg"
    path.write_text(outputs_badge(found))
    page = browser.new_page()
    page.goto(path.as_uri())
    assert page.locator("text").all_text_contents() == ["reproducible", "1 of 3"]
    page.close()
