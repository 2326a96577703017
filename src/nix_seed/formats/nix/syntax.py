"""The words of the Nix language, with their places (Nix's own ``lexer.l``).

Only what is needed to find one's way in an expression that a person wrote: a string is one token,
whatever is interpolated in it, and comments are between tokens.

The structure of a Nix expression, with places: enough to see where in it things are said.

Operators have no precedence here, and selections no meaning: ``a // { … }`` is an ``Operation``
with its operands in order. What is read is the language of Nix 2.8 (its ``parser.y``).
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from nix_seed.core.errors import InputError

Kind = Literal["id", "keyword", "number", "string", "path", "uri", "op"]

_SPACE = re.compile(r"(?:[ \t\r\n]|#[^\r\n]*|/\*.*?\*/)*", re.DOTALL)
# As flex does, the longest match wins; of two that are equally long, the first.
_RULES: tuple[tuple[Kind, re.Pattern[str]], ...] = (
    ("id", re.compile(r"[a-zA-Z_][a-zA-Z0-9_'-]*")),
    ("number", re.compile(r"(?:[1-9][0-9]*\.[0-9]*|0?\.[0-9]+)(?:[Ee][+-]?[0-9]+)?|[0-9]+")),
    ("path", re.compile(r"~?[a-zA-Z0-9._+-]*(?:/[a-zA-Z0-9._+-]+)+/?")),
    ("path", re.compile(r"<[a-zA-Z0-9._+-]+(?:/[a-zA-Z0-9._+-]+)*>")),
    ("uri", re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*:[a-zA-Z0-9%/?:@&=+$,_.!~*'-]+")),
    (
        "op",
        re.compile(r"\.\.\.|\$\{|==|!=|<=|>=|&&|\|\||->|//|\+\+|\|>|<\||[-+*/<>!?@:;,.=(){}\[\]]"),
    ),
)
# A path may go on, or begin, with what is interpolated: ./${name}/x.
_PATH_START = re.compile(r"~?[a-zA-Z0-9._+-]*(?:/[a-zA-Z0-9._+-]+)*/(?=\$\{)")
_PATH_REST = re.compile(r"[a-zA-Z0-9._+/-]+")
_KEYWORDS = frozenset({"if", "then", "else", "assert", "with", "let", "in", "rec", "inherit"})


@dataclass(frozen=True, slots=True)
class Token:
    """A word: *text* is ``source[start:end]``."""

    kind: Kind
    text: str
    start: int
    end: int


def tokenize(source: str) -> tuple[Token, ...]:
    """Return the tokens of *source*; ``InputError`` for what no Nix would read."""
    try:
        return tuple(_tokens(source, 0, closing=False))
    except RecursionError as error:
        raise InputError("the Nix expression is nested too deeply to be read") from error


def _tokens(source: str, at: int, *, closing: bool) -> Iterator[Token]:
    """Yield tokens from *at* on; *closing*: up to the brace that ends an interpolation."""
    depth = 0
    while (at := _skip_space(source, at)) < len(source):
        token = _token(source, at)
        if token.kind == "op":
            depth += (token.text in ("{", "${")) - (token.text == "}")
        yield token
        if closing and depth < 0:
            return
        at = token.end
    if closing:
        raise _error(source, at, "an interpolation has no end")


def _skip_space(source: str, at: int) -> int:
    found = _SPACE.match(source, at)
    assert found is not None
    if source.startswith("/*", found.end()):
        raise _error(source, found.end(), "a comment has no end")
    return found.end()


def _token(source: str, at: int) -> Token:
    if source[at] == '"':
        return _made(source, "string", at, _string_end(source, at + 1))
    if source.startswith("''", at):
        return _made(source, "string", at, _indented_end(source, at + 2))
    if found := _PATH_START.match(source, at):
        return _made(source, "path", at, _path_end(source, found.end()))
    best: tuple[int, Kind] = (at, "op")
    for kind, rule in _RULES:
        match = rule.match(source, at)
        if match is not None and match.end() > best[0]:
            best = match.end(), kind
    end, kind = best
    if end == at:
        raise _error(source, at, f"{source[at]!r} begins nothing that Nix knows")
    if kind == "path" and source.startswith("${", end):
        end = _path_end(source, end)
    return _made(source, kind, at, end)


def _made(source: str, kind: Kind, start: int, end: int) -> Token:
    text = source[start:end]
    return Token("keyword" if kind == "id" and text in _KEYWORDS else kind, text, start, end)


def _path_end(source: str, at: int) -> int:
    while True:
        if source.startswith("${", at):
            at = _interpolated_end(source, at + 2)
        elif found := _PATH_REST.match(source, at):
            at = found.end()
        else:
            return at


def _string_end(source: str, at: int) -> int:
    start = at
    while at < len(source):
        if source[at] == '"':
            return at + 1
        if source.startswith("${", at):
            at = _interpolated_end(source, at + 2)
        elif source[at] == "\\" or source.startswith("$$", at):
            at += 2  # neither an escape nor the second dollar of two begins anything
        else:
            at += 1
    raise _error(source, start, "a string has no end")


def _indented_end(source: str, at: int) -> int:
    start = at
    while at < len(source):
        if source.startswith(("'''", "''$"), at):
            at += 3
        elif source.startswith("''\\", at):
            at += 4
        elif source.startswith("''", at):
            return at + 2
        elif source.startswith("${", at):
            at = _interpolated_end(source, at + 2)
        else:
            at += 2 if source.startswith("$$", at) else 1
    raise _error(source, start, "a string has no end")


def _interpolated_end(source: str, at: int) -> int:
    return deque(_tokens(source, at, closing=True), maxlen=1)[0].end


def _error(source: str, at: int, words: str) -> InputError:
    return InputError(f"line {source.count(chr(10), 0, at) + 1}: {words}")


@dataclass(frozen=True, slots=True)
class Leaf:
    """A variable (*name*), or anything else without an inside that matters (*name* empty)."""

    start: int
    end: int
    name: str = ""


@dataclass(frozen=True, slots=True)
class Part:
    """A step of an attribute path: *name*, or empty where it is computed; *text* as written."""

    name: str
    text: str


@dataclass(frozen=True, slots=True)
class Binding:
    """``path = value;``, the semicolon being its last character; *value* is None for an inherit.

    An inherit has one part for each name.
    """

    start: int
    end: int
    path: tuple[Part, ...]
    value: Node | None


@dataclass(frozen=True, slots=True)
class AttrSet:
    """``{ … }`` or ``rec { … }``; *close* is where the closing brace stands."""

    start: int
    end: int
    bindings: tuple[Binding, ...]
    recursive: bool = False

    @property
    def close(self) -> int:
        """Where the closing brace stands."""
        return self.end - 1


@dataclass(frozen=True, slots=True)
class Formal:
    """An argument in ``{ self, nixpkgs ? null, ... }:``; the end is that of its default."""

    start: int
    end: int
    name: str


@dataclass(frozen=True, slots=True)
class Lambda:
    """A function: *name* of the whole argument (empty if none), *formals* (None: not taken apart).

    *brace* is where the closing brace of the formals stands, *ellipsis* where the dots do.
    """

    start: int
    end: int
    name: str
    formals: tuple[Formal, ...] | None
    brace: int
    ellipsis: int | None
    body: Node


@dataclass(frozen=True, slots=True)
class Scope:
    """``let … in body`` with its *bindings*, ``with …; body`` or ``assert …; body`` with none."""

    start: int
    end: int
    bindings: tuple[Binding, ...]
    body: Node


@dataclass(frozen=True, slots=True)
class Select:
    """``node.path``, perhaps with a default."""

    start: int
    end: int
    node: Node
    path: tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class Call:
    """A function and its arguments."""

    start: int
    end: int
    function: Node
    arguments: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Operation:
    """Operands with *operators* between them; also a list or a condition, with none."""

    start: int
    end: int
    operands: tuple[Node, ...]
    operators: tuple[str, ...] = ()


Node = Leaf | AttrSet | Lambda | Scope | Select | Call | Operation
