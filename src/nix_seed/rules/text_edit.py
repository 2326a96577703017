"""Insertions into a text that people wrote, in its own layout."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from nix_seed.formats.nix.syntax import AttrSet, Binding, Lambda

__all__ = ["Insertion", "add_arguments", "add_binding_after", "add_to_set", "apply", "indent_at"]

_STEP = "  "


@dataclass(frozen=True, slots=True)
class Insertion:
    """*text* to be put before the character at *at*."""

    at: int
    text: str


def apply(source: str, insertions: Iterable[Insertion]) -> str:
    """Return *source* with all *insertions* made; of two at one place, in the order given."""
    pieces, at = [], 0
    ends = "\r\n" if "\r\n" in source else "\n"
    for each in sorted(insertions, key=lambda each: each.at):
        pieces += [source[at : each.at], each.text.replace("\n", ends)]
        at = each.at
    return "".join([*pieces, source[at:]])


def indent_at(source: str, at: int) -> str:
    """Return the white space that the line of *at* begins with."""
    line = source[source.rfind("\n", 0, at) + 1 :]
    return line[: len(line) - len(line.lstrip(" \t"))]


def _is_first(source: str, at: int) -> bool:
    """Whether only white space stands before *at* on its line."""
    return not source[source.rfind("\n", 0, at) + 1 : at].strip()


def _lines(lines: Iterable[str], indent: str) -> str:
    return "".join(f"{indent}{line}\n" if line else "\n" for line in lines)


def add_to_set(source: str, attributes: AttrSet, lines: Iterable[str]) -> Insertion:
    """Return *lines* as the last bindings of *attributes*."""
    close = attributes.close
    if not _is_first(source, close):
        # On one line with what is before it: so the new ones are, too.
        spaced = "" if source[close - 1] in " \t" else " "
        return Insertion(close, spaced + " ".join(each.strip() for each in lines if each) + " ")
    indent = indent_at(source, close) + _STEP
    first = next((each for each in attributes.bindings if _is_first(source, each.start)), None)
    if first is not None:
        indent = indent_at(source, first.start)
    return Insertion(source.rfind("\n", 0, close) + 1, _lines(lines, indent))


def add_binding_after(source: str, binding: Binding, lines: Iterable[str]) -> Insertion:
    """Return *lines* as bindings after *binding*, and after what its line ends with."""
    if not _is_first(source, binding.start):
        return Insertion(binding.end, " " + " ".join(each.strip() for each in lines if each))
    end = source.find("\n", binding.end)
    rest = source[binding.end : end].strip() if end >= 0 else ""
    if end < 0 or (rest and not rest.startswith("#")):
        return Insertion(binding.end, " " + " ".join(each.strip() for each in lines if each))
    return Insertion(end + 1, _lines(lines, indent_at(source, binding.start)))


def add_arguments(source: str, function: Lambda, names: Sequence[str]) -> Insertion:
    """Return *names* as the last formals of *function*, before its dots, laid out as the others."""
    formals = function.formals or ()
    until = function.brace if function.ellipsis is None else function.ellipsis
    if not formals:
        more = ", " if function.ellipsis is not None else " "
        lead = "" if source[until - 1].isspace() else " "
        return Insertion(until, f"{lead}{', '.join(names)}{more}")
    last = formals[-1]
    indent = indent_at(source, last.start)
    before = source[source.rfind("\n", 0, last.start) + 1 : last.start].strip()
    if before == ",":
        separator = f"\n{indent}, "  # the comma leads
    elif not before and "\n" in source[last.end : until]:
        separator = f",\n{indent}"
    else:
        separator = ", "
    return Insertion(last.end, "".join(separator + name for name in names))
