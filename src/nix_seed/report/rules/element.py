"""HTML that is escaped by construction (WHATWG HTML, "Serializing HTML fragments").

A page is a tree of ``Element``; the only way from text into markup is through ``render``, which
escapes it. There is no way to hand in markup: a style sheet or script of the program's own is an
element of its own kind (``Own``), everything else is text. Attributes that could run or fetch
something are refused when the element is made, whatever their value.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

Child: TypeAlias = "Element | Own | str | int | Iterable[Child] | None"
Value: TypeAlias = "str | int | float | bool | None"

_NAME = re.compile(r"[a-zA-Z][a-zA-Z0-9-]*\Z")
_REFUSED = frozenset({"style", "script", "iframe", "object", "embed", "base", "form", "img"})
_VOID = frozenset({"br", "col", "hr", "input", "link", "meta", "wbr"})
_RUNS = ("on", "style", "src", "action", "formaction", "xlink", "background", "ping", "poster")
_ENTITIES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;"})


@dataclass(frozen=True, slots=True)
class Element:
    """A tag with its attributes, in their order, and what is in it."""

    tag: str
    attributes: tuple[tuple[str, str | None], ...]
    children: tuple[Child, ...]


@dataclass(frozen=True, slots=True)
class Own:
    """A style sheet or script of the program's own, written as it is. Never made of data."""

    tag: str
    text: str

    def __post_init__(self) -> None:
        # Nothing within such an element is markup, but for what looks like its end.
        if self.tag not in ("style", "script") or "</" in self.text or "<!--" in self.text:
            raise ValueError(f"this cannot be the text of a {self.tag} element")


def el(tag: str, *children: Child, **attributes: Value) -> Element:
    """Make an element: ``el("a", "text", href="#top", class_="x", aria_label="up")``.

    A trailing ``_`` of an attribute's name is dropped, others become ``-``. None and False leave an
    attribute out, True writes its bare name. ``ValueError`` for what might run or fetch.
    """
    pairs = []
    for name, value in attributes.items():
        if value is None or value is False:
            continue
        spelled = name.rstrip("_").replace("_", "-")
        _check(tag, spelled, value)
        pairs.append((spelled, None if value is True else str(value)))
    if not _NAME.match(tag) or tag.lower() in _REFUSED:
        raise ValueError(f"{tag!r} cannot be an element's tag")
    return Element(tag, tuple(pairs), children)


def _check(tag: str, name: str, value: Value) -> None:
    if not _NAME.match(name) or name.lower().startswith(_RUNS) or name.lower() == "data":
        raise ValueError(f"<{tag}> cannot have the attribute {name!r}")
    if name.lower() == "href" and not _may_lead_to(str(value)):
        raise ValueError(f"<{tag}> cannot lead to {value!r}")


def _may_lead_to(text: str) -> bool:
    # "data:," is empty: the icon of a page that has none.
    return text.startswith("#") or text == "data:," or is_web_address(text)


def is_web_address(text: str) -> bool:
    """Tell whether *text* is an address that a link may lead to."""
    return text.startswith(("https://", "http://")) and text.isprintable() and " " not in text


def harmless(text: str) -> str:
    """Replace what is not shown, or turns what is shown around: controls, overrides, surrogates."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in text)


def render(node: Child) -> str:
    """Return the markup of *node*."""
    return "".join(_pieces(node))


def _pieces(node: Child) -> Iterator[str]:
    if isinstance(node, str | int):
        yield harmless(str(node)).translate(_ENTITIES)
    elif isinstance(node, Element):
        yield f"<{node.tag}"
        for name, value in node.attributes:
            shown = "" if value is None else f'="{harmless(value).translate(_ENTITIES)}"'
            yield f" {name}{shown}"
        yield ">"
        if node.tag not in _VOID:
            for child in node.children:
                yield from _pieces(child)
            yield f"</{node.tag}>"
    elif isinstance(node, Own):
        yield f"<{node.tag}>{node.text}</{node.tag}>"
    elif node is not None:
        for child in node:
            yield from _pieces(child)
