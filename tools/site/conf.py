"""Makes the static site of docs/ with Sphinx: ``make site``. Nothing is fetched, then or later.

The documents are read on GitHub as well, so they keep GitHub's links and the marks that tests look
for. ``docs/index.md`` is the one list of them, there and here.
"""

import posixpath
import re
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
SOURCE = "https://github.com/0compute/nix-seed/blob/main"

project = "Nix Seed"
author = "the authors of Nix Seed"
version = release = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
extensions = ["myst_parser", "sphinx_copybutton"]
exclude_patterns = ["vectors"]
myst_heading_anchors = 4
suppress_warnings = ["misc.highlighting_failure"]
pygments_style = "a11y-high-contrast-light"
pygments_dark_style = "a11y-high-contrast-dark"
smartquotes = False  # they would turn --option into a dash
html_theme = "furo"
html_title = f"Nix Seed {version}"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_favicon = "static/seed.svg"
html_copy_source = False
html_show_sphinx = False
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#00695c", "color-brand-content": "#00695c"},
    "dark_css_variables": {"color-brand-primary": "#4db6ac", "color-brand-content": "#4db6ac"},
    "footer_icons": [],
}
copybutton_prompt_text = "$ "

_LINK = re.compile(r"(\]\()(?!https?:|#|mailto:)([^)#\s]+)((?:#[^)\s]*)?\))")
# Marks such as `sh registry` tell the tests what a block is for.
_MARK = re.compile(r"^```(\w+) [\w -]+$", re.MULTILINE)
_SECTION = re.compile(r"^## (.+)\n((?:.+\n|\n)*?)(?=^## |\Z)", re.MULTILINE)
_ENTRY = re.compile(r"^- \[([^\]]+)\]\(([\w/.-]+)\.md\)", re.MULTILINE)


def setup(app: Any) -> None:
    """Have each document changed before it is read."""
    app.connect("source-read", _read)


def _read(_: Any, name: str, source: list[str]) -> None:
    text = _MARK.sub(r"```\1", source[0])
    text = _LINK.sub(lambda link: f"{link[1]}{_outside(link[2], name)}{link[3]}", text)
    source[0] = text + "".join(_trees(text)) if name == "index" else text


def _outside(target: str, name: str) -> str:
    """Lead what is not among the documents to the repository."""
    path = posixpath.normpath(posixpath.join("docs", posixpath.dirname(name), target))
    known = path.startswith("docs/") and (ROOT / path).is_file()
    return target if known and "/vectors/" not in path else f"{SOURCE}/{path}"


def _trees(text: str) -> list[str]:
    """Return the navigation: the sections of the list, and the records of decisions."""
    found = [(title, _ENTRY.findall(body)) for title, body in _SECTION.findall(text)]
    records = sorted((ROOT / "docs/decisions").glob("*.md"))
    lines = {title: [f"{said} <{page}>" for said, page in pages] for title, pages in found if pages}
    lines["Decisions"] = [f"decisions/{record.stem}" for record in records]
    return [
        f"\n```{{toctree}}\n:hidden:\n:caption: {title}\n\n{chr(10).join(pages)}\n```\n"
        for title, pages in lines.items()
    ]
