"""Debian's Chromium, driven by playwright, which never fetches a browser of its own."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

from support.distribution import CACHE

ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

# As long as playwright waits for everything else.
expect.set_options(timeout=30_000)

DESKTOP = (1280, 900)
PHONE = (360, 740)

# WCAG 2.2, "contrast ratio", of each visible text against what is behind it.
CONTRAST = """() => {
  const parse = (text) => {
    const found = text.match(/rgba?\\(([^)]+)\\)/);
    return found ? found[1].split(/[ ,\\/]+/).map(Number) : [0, 0, 0, 0];
  };
  const light = ([r, g, b]) => {
    const part = (c) => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
    return 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b);
  };
  const over = (top, below) => {
    const a = top[3] ?? 1;
    return [0, 1, 2].map((n) => top[n] * a + below[n] * (1 - a));
  };
  const behind = (node) => {
    const layers = [];
    for (let each = node; each; each = each.parentElement) {
      const colour = parse(getComputedStyle(each).backgroundColor);
      layers.push(colour);
      if ((colour[3] ?? 1) === 1) break;
    }
    return layers.reverse().reduce((below, top) => over(top, below), [255, 255, 255]);
  };
  const ratio = (one, other) => {
    const [a, b] = [light(one), light(other)].sort((x, y) => y - x);
    return (a + 0.05) / (b + 0.05);
  };
  const poor = [];
  let seen = 0;
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const text = walker.currentNode, node = text.parentElement;
    if (!text.textContent.trim() || !node.checkVisibility()) continue;
    if (node.closest("script, style, .sr, title")) continue;
    const style = getComputedStyle(node);
    let back, front;
    if (node.closest("svg")) {
      const tile = node.closest("svg.map svg");
      if (!tile || !node.closest(".p")) continue;  // a tier's heading lies on a mixture
      back = parse(getComputedStyle(tile.querySelector("rect")).fill);
      front = parse(style.fill);
    } else {
      back = behind(node);
      front = over(parse(style.color), back);
    }
    seen += 1;
    const size = parseFloat(style.fontSize), bold = Number(style.fontWeight) >= 700;
    const enough = size >= 24 || (bold && size >= 18.66) ? 3 : 4.5;
    if (ratio(front, back) < enough)
      poor.push(`${text.textContent.trim().slice(0, 40)}: ${ratio(front, back).toFixed(2)}`);
  }
  return { seen, poor };
}"""


@dataclass
class Seen:
    """A page in the browser, and all that it asked for, said and did wrong."""

    page: Page
    requests: list[str] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("console", lambda message: self.messages.append(message.text))
        self.page.on("pageerror", lambda error: self.messages.append(str(error)))
        self.page.on("dialog", lambda dialog: self.messages.append(dialog.message))

    def evaluate(self, code: str, *arguments: Any) -> Any:
        """Evaluate a function of the page."""
        return self.page.evaluate(code, *arguments)

    def text(self, selector: str) -> str:
        """What is to be read there, on one line."""
        return " ".join(self.page.inner_text(selector).split())

    def follow(self, link: Locator) -> None:
        """Click a link to a stop of the walk. The page is told by an event, after the click."""
        stop = link.get_attribute("href")
        link.click()
        self.page.wait_for_selector(f"{stop}.here")

    def key(self, *names: str) -> None:
        """Press keys, one after another."""
        for name in names:
            self.page.keyboard.press(name)

    @property
    def focused(self) -> str:
        """What has the focus, by its name for a screen reader or its text."""
        return str(
            self.evaluate(
                "() => document.activeElement.ariaLabel ?? document.activeElement.textContent"
            )
        )


@contextmanager
def chromium() -> Iterator[Browser]:
    """Start the browser, or skip the test by name."""
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("needs chromium: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=ARGUMENTS)
        yield browser
        browser.close()


@contextmanager
def opened(
    browser: Browser,
    file: Path,
    *,
    size: tuple[int, int] = DESKTOP,
    scheme: str = "light",
    anchor: str = "",
    **how: Any,
) -> Iterator[Seen]:
    """Open the page *file*; further arguments are playwright's, of a context."""
    context = browser.new_context(
        viewport={"width": size[0], "height": size[1]},
        color_scheme=scheme,  # type: ignore[arg-type]
        reduced_motion="reduce",
        **how,
    )
    seen = Seen(context.new_page())
    seen.page.goto(f"{file.as_uri()}{anchor}")
    yield seen
    context.close()


def axe() -> str:
    """Return axe-core, which knows the rules of accessibility, or skip the test by name."""
    kept = CACHE / "axe-core-4.10.3.js"
    if not kept.exists():
        if shutil.which("npm") is None:
            pytest.skip("needs npm: apt-get install npm")
        CACHE.mkdir(parents=True, exist_ok=True)
        command = ["npm", "pack", "--silent", "axe-core@4.10.3"]
        done = subprocess.run(command, cwd=CACHE, capture_output=True, check=False)
        archive = CACHE / "axe-core-4.10.3.tgz"
        if done.returncode != 0 or not archive.exists():
            pytest.skip("needs npm to reach its registry, for the package axe-core")
        member = "package/axe.min.js"
        text = subprocess.run(
            ["tar", "-xzOf", archive, member], check=True, capture_output=True
        ).stdout
        partial = kept.with_suffix(".partial")
        partial.write_bytes(text)
        partial.rename(kept)
        archive.unlink()
    return kept.read_text()
