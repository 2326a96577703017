"""What pages are built from: verdicts, checks with their evidence, tables, notes, the frame.

The templates hold all markup; these functions hand them values. Text is escaped wherever it is put
in, for the one type that is not is ``Markup``, which only templates make.

The four states of a check differ in word, shape and line, and only then in colour: *checked and
false*, *could not check* and *not asked* never look alike.
"""

import base64
import hashlib
from collections.abc import Iterable, Sequence
from enum import StrEnum
from functools import cache
from importlib.resources import files
from typing import Any, Self, TypeAlias

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup, escape

from nix_seed.core.safe_text import is_web_address, printable
from nix_seed.core.values import dataclass
from nix_seed.core.words import human_size, plural
from nix_seed.report.report import Absent

_LONG = 200  # characters; what is longer is folded

Child: TypeAlias = "Markup | str | int | Iterable[Child] | None"


class State(StrEnum):
    """How a check ended; ``STATED`` is a fact that nobody checks here."""

    VERIFIED = "verified"
    FALSE = "checked and false"
    UNCHECKED = "could not check"
    NOT_ASKED = "not asked"
    STATED = "noted"


@dataclass(frozen=True, slots=True)
class ShownCheck:
    """A check by its *name*, how it ended, why in *reason*, and what can be looked at for it."""

    name: str
    state: State
    reason: Child = None
    evidence: Child = None


@dataclass(frozen=True, slots=True)
class Column:
    """A column's title; *number* aligns to the right, *sorts* lets the script sort by it."""

    title: str
    number: bool = False
    sorts: bool = True


@dataclass(frozen=True, slots=True)
class SortedCell:
    """A cell whose order is not that of its text."""

    content: Child
    key: int | float | str | None


@dataclass(frozen=True, slots=True)
class PageSection:
    """A part of a page with a heading of its own; *name* is its anchor, *lead* its answer.

    At a glance it is the answer to its *question*: a *state*, and in words *brief*, else the lead.
    """

    name: str
    title: str
    lead: Child
    body: Child
    question: str = ""
    state: State = State.STATED
    brief: Child = None

    @classmethod
    def lacking(cls, name: str, title: str, question: str, absent: Absent) -> Self:
        """Return the section of a part that is not there."""
        brief = absent.reason.partition("\n")[0]
        return cls(name, title, None, note_absent(absent), question, State(absent.state), brief)


def page(title: str, banner: Child, sections: Sequence[PageSection], footer: Child = None) -> str:
    """Return a whole page. *banner* holds its one first-level heading."""
    style, script = _asset("page.css"), _asset("page.js")
    values = {"title": title, "banner": banner, "sections": sections, "footer": footer}
    template = environment().get_template("page.html.j2")
    return template.render(values, style=style, script=script) + "\n"


def fill(template: str, **values: Any) -> Markup:
    """Return *template*, filled in."""
    return Markup(environment().get_template(template).render(values))


def macro(name: str, *values: Any, of: str = "parts.html.j2") -> Markup:
    """Return what the macro *name* of a template makes of *values*."""
    made: Markup = getattr(environment().get_template(of).module, name)(*values)
    return made


def check_list(checks: Iterable[ShownCheck]) -> Markup:
    """Return checks below one another, each with its state, words and evidence."""
    return macro("check_list", list(checks))


def note(state: State, reason: str, hint: str = "") -> Markup:
    """Say why a part of the page is not there, and how to have it."""
    return macro("note", state, fold(reason), hint)


def note_absent(absent: Absent) -> Markup:
    """Say why a part of the report is not there, and how to have it."""
    return note(State(absent.state), absent.reason, absent.hint)


def fold(text: str) -> Child:
    """Return *text*; of a very long one its beginning, with the rest on request."""
    return text if len(text) <= _LONG else macro("folded", text[:_LONG], text)


def size(number: int | None) -> SortedCell | None:
    """Return a cell with a size in bytes, if it is known."""
    return None if number is None else SortedCell(human_size(number), number)


def digest(text: object) -> Markup:
    """Return a digest or hash, that may break anywhere and is selected as a whole."""
    return macro("digest", str(text))


def web_address(text: str) -> Child:
    """Return a link, if *text* is an address of the web; else the text."""
    web = text.startswith(("https://", "http://")) and is_web_address(text)
    return macro("link", text) if web and len(text) <= _LONG else fold(text)


@cache
def environment() -> Environment:
    """Return what reads templates: everything that is put into them is escaped."""
    made = Environment(
        loader=FunctionLoader(_text),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
    )
    made.filters |= {
        "human_size": human_size,
        "source": _source,
        "column": lambda each: Column(each) if isinstance(each, str) else each,
        "fold": fold,
        "web_address": web_address,
    }
    made.globals |= {
        "plural": plural,
        "size": size,
        "cell": SortedCell,
        "number": lambda title: Column(title, number=True),
        "plain": lambda title: Column(title, sorts=False),
        "state": State,
    }
    return made


def _shown(value: Any) -> Any:
    """Return what is written for *value*: of text nothing that steers how it is shown."""
    if value is None:
        return ""
    if isinstance(value, Markup | int | float):
        return value
    if isinstance(value, Iterable) and not isinstance(value, str):
        return Markup("").join(escape(_shown(each)) for each in value)
    return printable(str(value))


def _text(name: str) -> str:
    return (files("nix_seed.report") / "templates" / name).read_text("utf-8")


@cache
def _asset(name: str) -> Markup:
    """Return a style sheet or script of the program's own, as it is. Never made of data."""
    text = _text(name)
    # Nothing within such an element is markup, but for what looks like its end.
    if "</" in text or "<!--" in text:
        raise ValueError(f"{name} cannot be the text of an element")
    return Markup(text)


def _source(own: str) -> str:
    digest = hashlib.sha256(own.encode()).digest()
    return f"sha256-{base64.b64encode(digest).decode()}"
