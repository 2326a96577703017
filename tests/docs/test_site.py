"""The static site: made with no network, no dead link, and read in Chromium with none either."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from support.browser import CONTRAST, DESKTOP, PHONE, chromium, opened

ROOT = Path(__file__).resolve().parents[2]
LOOKED_AT = ("index", "tutorials/first-seed", "reference/commands", "reference/policy", "ci")


class Links(HTMLParser):
    """What a page leads to and loads, and where it can be led to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.to: list[str] = []
        self.loaded: list[str] = []
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        self.anchors |= {found[name] for name in ("id", "name") if name in found}
        if tag == "a" and "href" in found:
            self.to.append(found["href"])
        elif tag == "link" and found.get("rel") != "canonical":
            self.loaded.append(found.get("href", ""))
        elif "src" in found:
            self.loaded.append(found["src"])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("site")
    alone = ["unshare", "--user", "--map-root-user", "--net"]
    if subprocess.run([*alone, "true"], capture_output=True, check=False).returncode:
        alone = []
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-c", "tools/site"]
    done = subprocess.run(
        [*alone, *command, "-d", made / "trees", "docs", made / "html"],
        cwd=ROOT,
        env=os.environ | {"http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr + "\nis a new document missing in docs/index.md?"
    return made / "html"


def pages(site: Path) -> dict[Path, Links]:
    return {path: Links(path.read_text()) for path in sorted(site.rglob("*.html"))}


def test_no_link_is_dead(site: Path) -> None:
    known = pages(site)
    assert len(known) > 40
    dead = []
    for path, links in known.items():
        for link in (*links.to, *links.loaded):
            parts = urlsplit(link)
            if parts.scheme or not link:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            anchor = unquote(parts.fragment)
            there = target.is_file() and (
                not anchor or target not in known or anchor in known[target].anchors
            )
            dead += [] if there else [f"{path.relative_to(site)}: {link}"]
    assert not dead


def test_links_into_the_repository_lead_somewhere(site: Path) -> None:
    for path, links in pages(site).items():
        for link in links.to:
            found = re.match(r"https://github\.com/0compute/nix-seed/blob/main/([^#]+)", link)
            assert not found or (ROOT / found[1]).exists(), f"{path.name}: {link}"


def test_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    for path, links in pages(site).items():
        assert [each for each in links.loaded if urlsplit(each).scheme] == [], path.name
    for style in site.rglob("*.css"):
        assert not re.search(r"url\(['\"]?https?:|@import", style.read_text()), style.name


def test_the_tests_marks_are_not_shown(site: Path) -> None:
    text = (site / "tutorials/first-seed.html").read_text()
    assert "sh guide" not in text
    assert 'class="highlight-sh' in text


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_read_in_a_browser(site: Path, size: tuple[int, int], scheme: str) -> None:
    with chromium() as browser:
        for name in LOOKED_AT:
            with opened(browser, site / f"{name}.html", size=size, scheme=scheme) as seen:
                assert all(url.startswith("file:") for url in seen.requests), seen.requests
                assert seen.messages == []
                wide = seen.evaluate("() => document.documentElement.scrollWidth")
                assert wide <= size[0], f"{name}: {wide}"
                found = seen.evaluate(CONTRAST)
                assert found["seen"] > 50
                assert found["poor"] == [], name


def test_it_is_searched_from_a_disk(site: Path) -> None:
    with chromium() as browser, opened(browser, site / "search.html", anchor="?q=quorum") as seen:
        # Sphinx adds the results one after another, each after its own wait.
        seen.page.wait_for_selector("#search-results li a:has-text('Verifying')")


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_make_site_is_the_same() -> None:
    shown = subprocess.run(
        ["make", "-n", "site"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert "-W --keep-going -c tools/site docs .site" in shown
