"""The structure of a Nix expression, with places: enough to see where in it things are said.

Operators have no precedence here, and selections no meaning: ``a // { … }`` is an ``Operation``
with its operands in order. What is read is the language of Nix 2.8 (its ``parser.y``).
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = [
    "AttrSet",
    "Binding",
    "Call",
    "Formal",
    "Lambda",
    "Leaf",
    "Node",
    "Operation",
    "Part",
    "Scope",
    "Select",
]


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
