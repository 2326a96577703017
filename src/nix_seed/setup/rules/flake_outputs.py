"""Where in a flake's outputs a package ``seed`` can be written, if that can be told.

Only what is sure to become an output is followed: the body of ``outputs``, through ``let``,
``with`` and ``//``, into ``packages`` and into the functions that are called once for each system
(``eachDefaultSystem``, ``genAttrs``, ``perSystem`` and their like). What is computed elsewhere, in
a variable or another file, is not recognised, and nothing is guessed about it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from nix_seed.formats.nix.syntax import (
    AttrSet,
    Binding,
    Call,
    Lambda,
    Leaf,
    Node,
    Operation,
    Part,
    Scope,
    Select,
)

_SYSTEM = re.compile(r"[a-z0-9_]+-(?:linux|darwin)\Z")
_PER_SYSTEM = {"eachDefaultSystem", "eachSystem"}
_PARTS = "mkFlake"
_KINDS = ("devShells", "checks", "apps", "formatter")
# What per-system functions give in flakes of the older kind.
_OLD_KINDS = ("defaultPackage", "devShell", "defaultApp")


@dataclass(frozen=True, slots=True)
class Place:
    """A place for one system's seed: inside *attributes*, or after the binding *after*.

    *prefix* is what to write before ``seed = …;``, *suffix* what behind it. *system* is an
    expression of the system, and *names* what functions and ``let`` on the way there call their
    own. *asks* is a function that must first be made to ask for ``system``.
    """

    attributes: AttrSet | None
    after: Binding | None
    prefix: str
    system: str
    names: frozenset[str]
    present: bool = False
    suffix: str = ""
    asks: Lambda | None = None


@dataclass(frozen=True, slots=True)
class _Context:
    """Of a system (*system* is an expression of it) or of the whole flake (empty)."""

    source: str
    system: str = ""
    names: frozenset[str] = frozenset()

    def inside(self, names: Sequence[str], system: str = "") -> _Context:
        """Return the context below a function or ``let`` that binds *names*."""
        return replace(self, system=system or self.system, names=self.names | frozenset(names))


def find_places(body: Node, source: str) -> tuple[Place, ...]:
    """Return the places in *body*, that of ``outputs``, one for each system that is told apart."""
    found: dict[str, Place] = {}
    for place in _outputs(body, _Context(source)):
        known = found.get(place.system)
        if known is None or (place.present and not known.present):
            found[place.system] = place
    return tuple(found.values())


def _outputs(node: Node, context: _Context) -> Iterator[Place]:
    """Look at what evaluates to outputs: the flake's, or within a system's function, its own."""
    for inner, within in _tails(node, context):
        if isinstance(inner, AttrSet):
            yield from _kinds(inner, within)
        elif isinstance(inner, Call):
            yield from _called(inner, within)


def _tails(node: Node, context: _Context) -> Iterator[tuple[Node, _Context]]:
    """Yield what the value of *node* is made of, past ``let`` and ``//``."""
    if isinstance(node, Scope):
        bound = [part.name for each in node.bindings for part in _bound(each)]
        yield from _tails(node.body, context.inside(bound))
    elif isinstance(node, Operation) and node.operators and set(node.operators) == {"//"}:
        for operand in node.operands:
            yield from _tails(operand, context)
    else:
        yield node, context


def _bound(binding: Binding) -> Sequence[Part]:
    return binding.path if binding.value is None else binding.path[:1]


def _called(call: Call, context: _Context) -> Iterator[Place]:
    """Look into ``eachDefaultSystem (system: …)`` and ``mkFlake { … } { perSystem = …; }``."""
    name, last = _last_name(call.function), call.arguments[-1]
    if name in _PER_SYSTEM and isinstance(last, Lambda):
        yield from _outputs(last.body, _of_system(last, context))
    if name == _PARTS and isinstance(last, AttrSet):
        for binding in last.bindings:
            if _names(binding) == ("perSystem",) and isinstance(binding.value, Lambda):
                yield from _per_system(binding.value, context)


def _per_system(function: Lambda, context: _Context) -> Iterator[Place]:
    """Look into flake-parts' ``perSystem``, which is given all that it asks for."""
    inner = _of_system(function, context)
    if inner.system != "?" or function.ellipsis is None:
        yield from _outputs(function.body, inner)
        return
    for place in _outputs(function.body, replace(inner, system="system")):
        yield replace(place, asks=function)


def _of_system(function: Lambda, context: _Context) -> _Context:
    names = [each.name for each in function.formals or ()]
    names += [function.name] if function.name else []
    system = ""
    if "system" in names:
        system = "system"
    elif "pkgs" in names:
        system = "pkgs.stdenv.hostPlatform.system"
    elif function.formals is None:
        system = f"?{function.name}"  # something else: it cannot be known for a system's name
    return context.inside(names, system or "?")


def _kinds(attributes: AttrSet, context: _Context) -> Iterator[Place]:
    inner = context.inside(_own(attributes))
    bindings = [each for each in attributes.bindings if each.value is not None]
    packages = [each for each in bindings if each.path[0].name == "packages"]
    for binding in packages:
        yield from _packages(binding, inner)
    if not packages:
        yield from _beside(attributes, bindings, inner)


def _own(attributes: AttrSet) -> list[str]:
    if not attributes.recursive:
        return []
    return [part.name for each in attributes.bindings for part in _bound(each)]


def _packages(binding: Binding, context: _Context) -> Iterator[Place]:
    """Look at ``packages… = …;``; *context* says whether it is of one system or of the flake."""
    path = binding.path[1:]
    prefix = binding.path[0].text
    if not context.system:
        if not path:
            yield from _systems(binding, context)
            return
        context = context.inside((), _expression(path[0]))
        prefix, path = f"{prefix}.{path[0].text}", path[1:]
    if path:
        present = path[0].name == "seed"
        yield Place(None, binding, f"{prefix}.", context.system, context.names, present)
    elif binding.value is not None:
        yield from _named(binding.value, context)


def _systems(binding: Binding, context: _Context) -> Iterator[Place]:
    """Look at ``packages = …;`` of a whole flake: a set or a function of systems."""
    if binding.value is None:
        return
    for node, within in _tails(binding.value, context):
        if isinstance(node, AttrSet):
            for each in node.bindings:
                if each.value is None or not (each.path[0].name == "" or _is_system(each.path[0])):
                    continue
                yield from _of_one(each, within.inside(_own(node), _expression(each.path[0])))
        elif isinstance(node, Call):
            for argument in node.arguments:
                if isinstance(argument, Lambda):
                    yield from _function(argument, within)


def _function(function: Lambda, context: _Context) -> Iterator[Place]:
    """Look at ``system: { … }``, ``pkgs: { … }`` and ``system: pkgs: { … }``."""
    inner, node = _of_system(function, context), function.body
    if isinstance(node, Lambda):
        system = inner.system
        inner = _of_system(node, inner)
        inner = inner if system.startswith("?") else replace(inner, system=system)
        node = node.body
    yield from _named(node, inner)


def _of_one(binding: Binding, context: _Context) -> Iterator[Place]:
    if len(binding.path) > 1:
        present = binding.path[1].name == "seed"
        prefix = f"{binding.path[0].text}."
        yield Place(None, binding, prefix, context.system, context.names, present)
    elif binding.value is not None:
        yield from _named(binding.value, context)


def _named(node: Node, context: _Context) -> Iterator[Place]:
    """Look at one system's packages, by name."""
    sets = [pair for pair in _tails(node, context) if isinstance(pair[0], AttrSet)]
    for inner, within in sets[-1:]:
        assert isinstance(inner, AttrSet)
        names = within.names | frozenset(_own(inner))
        present = any(_has_seed(each) for each in inner.bindings)
        yield Place(inner, None, "", within.system, names, present)


def _has_seed(binding: Binding) -> bool:
    return any(part.name == "seed" for part in _bound(binding))


def _beside(attributes: AttrSet, bindings: Sequence[Binding], context: _Context) -> Iterator[Place]:
    """Without packages, look where those of a system would go, beside its other outputs."""
    ours = [each for each in bindings if each.path[0].name in _KINDS]
    if context.system:
        if ours or any(each.path[0].name in _OLD_KINDS for each in bindings):
            yield Place(attributes, None, "packages.", context.system, context.names)
        return
    for each in ours:
        if len(each.path) > 1:
            step = each.path[1]
            system = _expression(step)
            yield Place(None, each, f"packages.{step.text}.", system, context.names)
    if not any(len(each.path) > 1 for each in ours):
        yield from [place for each in ours if (place := _alike(each, context))][:1]


def _alike(binding: Binding, context: _Context) -> Place | None:
    """Return a place after ``devShells = forAllSystems (…: …);``, for packages made alike."""
    call = binding.value
    if not isinstance(call, Call) or not isinstance(call.arguments[-1], Lambda):
        return None
    function = call.arguments[-1]
    system = _of_system(function, context).system
    head = context.source[call.start : function.start].strip()
    asked = context.source[function.start : function.body.start].strip()
    # Comments and parentheses around the parts are not copied by guess.
    if not head.endswith("(") or not asked.endswith(":") or "#" in head + asked:
        return None
    head = " ".join(head.removesuffix("(").split())
    if head.count("(") != head.count(")") or "/*" in head + asked:
        return None
    prefix = f"packages = {head} ({' '.join(asked.split())} {{ "
    return Place(None, binding, prefix, system, context.names, suffix=" });")


def _expression(part: Part) -> str:
    """Return an expression of the system that *part* names: ``"x86_64-linux"`` or a variable."""
    if part.name:
        return f'"{part.name}"' if _is_system(part) else "?"
    return part.text.removeprefix("${").removesuffix("}").strip() or "?"


def _is_system(part: Part) -> bool:
    return _SYSTEM.match(part.name) is not None


def _names(binding: Binding) -> tuple[str, ...]:
    return tuple(part.name for part in binding.path)


def _last_name(node: Node) -> str:
    if isinstance(node, Select):
        return node.path[-1].name
    return node.name if isinstance(node, Leaf) else ""
