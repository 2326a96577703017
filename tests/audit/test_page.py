"""The page of an audit, in a real browser."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from support.audits import Ledger, commit
from support.browser import CONTRAST, PHONE, axe, chromium, opened
from support.trust import SOURCE

SECTIONS = ["What was found", "Releases", "Logs", "Copies"]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


def written(ledger: Ledger) -> Path:
    path = ledger.root / "audit.html"
    ledger.audit("--page", str(path), state=None)
    return path


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_of_a_clean_ledger(browser: Browser, pristine: Ledger, scheme: str) -> None:
    path = written(pristine)
    with opened(browser, path, scheme=scheme) as seen:
        assert seen.page.title() == f"Audit of {SOURCE}"
        assert seen.page.locator("h2").all_inner_texts() == SECTIONS
        assert seen.text(".badge") == "verified 3 records, and nothing is false"
        assert seen.text("#findings .lead") == "Nothing was found that is not as it must be."
        rows = seen.page.locator("#timeline-table tbody tr").all_inner_texts()
        assert [row.split()[0] for row in rows] == [str(commit(number)) for number in (3, 2, 1)]
        assert all("rita" in row and "alice, bob" in row for row in rows)
        assert "15 read: every entry was read" in seen.text("#log-table")
        assert seen.evaluate(CONTRAST)["poor"] == []
        assert (set(seen.requests), seen.messages) == ({path.as_uri()}, [])


def test_the_page_of_a_false_one(browser: Browser, ledger: Ledger) -> None:
    ledger.forge(2, images=[ledger.other, ledger.arm], previous=(ledger.digest(3),))
    with opened(browser, written(ledger), size=PHONE) as seen:
        assert seen.text(".badge").startswith("checked and false 4 records:")
        assert "was released twice, as different things" in seen.text(".badge")
        conflict = seen.page.locator("#findings .checks > li").first
        assert conflict.locator("strong").first.inner_text() == (
            "Commit 000000000000 was released twice, as different things."
        )
        assert "docs/runbook.md: Two roots for one commit" in conflict.inner_text()
        assert str(ledger.digest(2)) not in conflict.inner_text(), "a whole hash is in the way"
        conflict.locator("summary:has-text('Evidence')").click()
        assert f"record {ledger.digest(2)}" in conflict.inner_text()
        wide = "() => document.documentElement.scrollWidth <= window.innerWidth"
        assert seen.evaluate(wide)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(browser: Browser, ledger: Ledger, scheme: str) -> None:
    rules = axe()
    ledger.forge(2, images=[ledger.other, ledger.arm], previous=(ledger.digest(3),))
    with opened(browser, written(ledger), scheme=scheme, bypass_csp=True) as seen:
        seen.evaluate("() => document.querySelectorAll('details').forEach(d => { d.open = true; })")
        seen.evaluate(rules)
        found = seen.evaluate("() => axe.run()")
        assert [(each["id"], each["nodes"][0]["html"]) for each in found["violations"]] == []


@pytest.mark.parametrize(("false", "code"), [(True, 1), (False, 3)])
def test_a_page_that_cannot_be_written_hides_no_finding(
    ledger: Ledger, *, false: bool, code: int
) -> None:
    if false:
        ledger.forge(2, images=[ledger.other, ledger.arm], previous=(ledger.digest(3),))
    (ledger.root / "file").touch()
    ended = ledger.run(
        *["audit", "--from", ledger.repository, "--policy", str(ledger.write_policy())],
        *["--no-state", "--page", str(ledger.root / "file" / "audit.html")],
    )
    assert ended.code == code, ended.printed
    assert ("  conflict [" in ended.printed) is false
    verdict, failed = ended.printed.index("verdict: "), ended.printed.index("error: writing ")
    assert verdict < failed
