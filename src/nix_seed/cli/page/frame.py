"""The frame of every page: head, style, script, navigation, sections in order.

``page(title, banner, sections)`` returns the whole document. Its policy lets it fetch nothing and
run only the script it carries, so that not even a fault in what fills it could.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from nix_seed.formats.html.element import Child, Element, Own, el, render

__all__ = ["Section", "page"]


@dataclass(frozen=True, slots=True)
class Section:
    """A part of a page with a heading of its own; *name* is its anchor, *lead* its answer."""

    name: str
    title: str
    lead: Child
    body: Child


def page(title: str, banner: Child, sections: Sequence[Section], footer: Child = None) -> str:
    """Return a whole page. *banner* holds its one first-level heading."""
    style, script = Own("style", _asset("page.css")), Own("script", _asset("page.js"))
    document = el(
        "html",
        el(
            "head",
            el("meta", charset="utf-8"),
            el("meta", http_equiv="Content-Security-Policy", content=_policy(style, script)),
            el("meta", name="viewport", content="width=device-width, initial-scale=1"),
            el("meta", name="color-scheme", content="light dark"),
            el("meta", name="referrer", content="no-referrer"),
            # Or browsers would ask the server for one.
            el("link", rel="icon", href="data:,"),
            el("title", title),
            style,
        ),
        el("body", _body(banner, sections, footer), script),
        lang="en",
    )
    return f"<!doctype html>\n{render(document)}\n"


def _body(banner: Child, sections: Sequence[Section], footer: Child) -> Child:
    entries = [el("li", el("a", section.title, href=f"#{section.name}")) for section in sections]
    return (
        el("a", "Skip to the content", href="#content", class_="skip"),
        el("header", el("div", banner, class_="wide"), class_="banner"),
        el("nav", el("ul", entries, class_="wide"), aria_label="Sections"),
        el("main", map(_section, sections), id="content", class_="wide", tabindex=-1),
        el("footer", el("div", footer, class_="wide")),
    )


def _section(section: Section) -> Element:
    heading = f"{section.name}-title"
    return el(
        "section",
        el("h2", section.title, id=heading),
        el("p", section.lead, class_="lead") if section.lead else None,
        section.body,
        id=section.name,
        aria_labelledby=heading,
    )


@cache
def _asset(name: str) -> str:
    return (files("nix_seed.cli.page") / name).read_text("utf-8")


def _policy(style: Own, script: Own) -> str:
    return (
        f"default-src 'none'; img-src data:; style-src '{_source(style)}';"
        f" script-src '{_source(script)}'; base-uri 'none'; form-action 'none';"
        " require-trusted-types-for 'script'"
    )


def _source(own: Own) -> str:
    digest = hashlib.sha256(own.text.encode()).digest()
    return f"sha256-{base64.b64encode(digest).decode()}"
