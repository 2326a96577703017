"""What pages are built from: verdicts, checks with their evidence, tables, notes.

The four states of a check differ in word, shape and line, and only then in colour: *checked and
false*, *could not check* and *not asked* never look alike.

The frame of every page: head, style, script, navigation, sections in order.

``page(title, banner, sections)`` returns the whole document. Its policy lets it fetch nothing and
run only the script it carries, so that not even a fault in what fills it could.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from importlib.resources import files
from typing import TypeAlias

from nix_seed.core.words import human_size
from nix_seed.report.rules.element import Child, Element, Own, el, is_web_address, render

_LONG = 200  # characters; what is longer is folded


class State(StrEnum):
    """How a check ended; ``STATED`` is a fact that nobody checks here."""

    VERIFIED = "verified"
    FALSE = "checked and false"
    UNCHECKED = "could not check"
    NOT_ASKED = "not asked"
    STATED = "noted"


# Drawn on 16 × 16: a disc with a tick, an octagon with a cross, a triangle, a broken ring, a bar.
_SHAPES: Mapping[State, tuple[tuple[str, str], ...]] = {
    State.VERIFIED: (
        ("fill", "M8 .5a7.5 7.5 0 1 0 0 15 7.5 7.5 0 0 0 0-15z"),
        ("cut", "M4.6 8.3l2.3 2.4 4.5-5"),
    ),
    State.FALSE: (
        ("fill", "M5 .5h6l4.5 4.5v6L11 15.5H5L.5 11V5z"),
        ("cut", "M5.2 5.2l5.6 5.6M10.8 5.2l-5.6 5.6"),
    ),
    State.UNCHECKED: (
        ("line", "M8 1.5l7 12.5H1z"),
        ("line", "M8 6.2v3.6M8 11.7v.4"),
    ),
    State.NOT_ASKED: (("dash", "M8 1.5a6.5 6.5 0 1 0 0 13 6.5 6.5 0 0 0 0-13z"),),
    State.STATED: (("line", "M8 4.5a3.5 3.5 0 1 0 0 7 3.5 3.5 0 0 0 0-7z"),),
}


def slug(state: State) -> str:
    """Return the class by which the style sheet knows *state*."""
    return f"is-{state.value.replace(' ', '-')}"


def mark(state: State) -> Element:
    """Return the shape of *state*; its word always stands beside it."""
    paths = [el("path", d=line, class_=kind) for kind, line in _SHAPES[state]]
    return el("svg", paths, class_="mark", viewBox="0 0 16 16", aria_hidden="true")


def badge(state: State, words: Child = None) -> Element:
    """Return a verdict, large: its shape, its word, and why."""
    word = el("strong", mark(state), " ", state.value)
    why = el("div", words, class_="words") if words else None
    return el("div", word, why, class_=f"badge {slug(state)}")


@dataclass(frozen=True, slots=True)
class ShownCheck:
    """A check by its *name*, how it ended, why in *words*, and what can be looked at for it."""

    name: str
    state: State
    words: Child = None
    evidence: Child = None


def check_list(checks: Iterable[ShownCheck]) -> Element:
    """Return checks below one another, each with its state, words and evidence."""
    return el("ul", map(_check, checks), class_="checks")


def _check(check: ShownCheck) -> Element:
    return el(
        "li",
        el("span", mark(check.state), " ", check.state.value, class_=f"state {slug(check.state)}"),
        el(
            "div",
            el("strong", check.name),
            el("div", check.words, class_="words") if check.words else None,
            details("Evidence", check.evidence) if check.evidence else None,
        ),
    )


def note(state: State, words: str, hint: str = "") -> Element:
    """Say why a part of the page is not there, and how to have it."""
    return el(
        "div",
        el("strong", mark(state), " ", state.value),
        el("div", fold(words), class_="words"),
        el("div", hint, class_="hint") if hint else None,
        class_=f"note {slug(state)}",
        role="note",
    )


def details(summary: Child, *children: Child, name: str | None = None) -> Element:
    """Return what is shown on request; links into it open it."""
    return el("details", el("summary", summary), children, id=name)


def facts(pairs: Iterable[tuple[str, Child]]) -> Element:
    """Return names and values; those without a value are left out."""
    return el(
        "dl",
        [
            el("div", el("dt", name), el("dd", value))
            for name, value in pairs
            if value is not None and value != ""
        ],
        class_="facts",
    )


@dataclass(frozen=True, slots=True)
class Column:
    """A column's title; *number* aligns to the right, *sorts* lets the script sort by it."""

    title: str
    number: bool = False
    sorts: bool = True


@dataclass(frozen=True, slots=True)
class Sorted:
    """A cell whose order is not that of its text."""

    content: Child
    key: int | float | str


Row: TypeAlias = "list[Child | Sorted]"


def data_table(
    caption: str,
    columns: Sequence[Column],
    rows: Iterable[Sequence[Child | Sorted]],
    *,
    name: str,
    filters: bool = False,
) -> Element:
    """Return a table; each row's first cell is its heading, *filters* offers a field to search in.

    It scrolls by itself where it is wider than the page; its edge then shows that there is more.
    """
    head = [
        el(
            "th",
            column.title,
            scope="col",
            class_="n" if column.number else None,
            data_sorts="number" if column.sorts and column.number else column.sorts,
        )
        for column in columns
    ]
    body = [el("tr", [_cell(c, n, columns[n]) for n, c in enumerate(row)]) for row in rows]
    table = el(
        "table",
        el("caption", el("span", caption), id=f"{name}-caption"),
        el("thead", el("tr", head)),
        el("tbody", body),
        id=name,
        data_filters=filters,
    )
    return el(
        "div", table, class_="scroll", tabindex=0, role="region", aria_labelledby=f"{name}-caption"
    )


def _cell(cell: Child | Sorted, position: int, column: Column) -> Element:
    content, key = (cell.content, cell.key) if isinstance(cell, Sorted) else (cell, None)
    aligned = "n" if column.number else None
    if position == 0:
        return el("th", content, scope="row", class_=aligned, data_key=key)
    return el("td", content, class_=aligned, data_key=key)


def fold(text: str) -> Child:
    """Return *text*; of a very long one its beginning, with the rest on request."""
    if len(text) <= _LONG:
        return text
    return details([text[:_LONG], el("span", "…", class_="more")], el("p", text, class_="whole"))


def size(number: int) -> Sorted:
    """Return a cell with a size in bytes."""
    return Sorted(human_size(number), number)


def digest(text: str) -> Element:
    """Return a digest or hash, that may break anywhere and is selected as a whole."""
    return el("code", text, class_="digest")


def web_address(text: str) -> Child:
    """Return a link, if *text* is an address of the web; else the text."""
    if not is_web_address(text) or len(text) > _LONG:
        return fold(text)
    return el("a", text, href=text, rel="noreferrer noopener external")


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
    return (files("nix_seed.report.page") / name).read_text("utf-8")


def _policy(style: Own, script: Own) -> str:
    return (
        f"default-src 'none'; img-src data:; style-src '{_source(style)}';"
        f" script-src '{_source(script)}'; base-uri 'none'; form-action 'none';"
        " require-trusted-types-for 'script'"
    )


def _source(own: Own) -> str:
    digest = hashlib.sha256(own.text.encode()).digest()
    return f"sha256-{base64.b64encode(digest).decode()}"
