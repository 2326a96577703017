"""Adds nix-seed to a ``flake.nix``: text in, text out, or words on what to write where.

A flake that is not understood, all of it that matters, is not edited at all.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from nix_seed.formats.nix.parser import parse
from nix_seed.formats.nix.syntax import AttrSet, Binding, Lambda, Node
from nix_seed.ground.errors import InputError
from nix_seed.rules.flake_outputs import Place, find_places
from nix_seed.rules.text_edit import (
    Insertion,
    add_arguments,
    add_binding_after,
    add_to_set,
    apply,
)

__all__ = ["FlakeEdit", "edit_flake"]

_INPUT = "nix-seed"


@dataclass(frozen=True, slots=True)
class FlakeEdit:
    """What came of it: *text* is the flake afterwards, as it was if there was nothing to add.

    *added* says what was added, a line each. *problem* is why it was not understood, and *advice*
    then holds what to write by hand, pairs of a place and lines.
    """

    text: str
    added: tuple[str, ...] = ()
    problem: str | None = None
    advice: tuple[tuple[str, tuple[str, ...]], ...] = ()


class _Strange(Exception):
    """The flake is written in a way that is not understood; the words say which."""


def edit_flake(source: str, url: str) -> FlakeEdit:
    """Add the input nix-seed, of address *url*, and a package ``seed`` for each system."""
    try:
        root = parse(source)
        insertions, added = _edits(root, source, url)
        text = apply(source, insertions)
        if insertions and _edits(parse(text), text, url)[0]:
            raise _Strange("what would be added is not found again afterwards")
    except InputError as error:
        return FlakeEdit(source, problem=error.message, advice=_advice(url))
    except _Strange as strange:
        return FlakeEdit(source, problem=str(strange), advice=_advice(url))
    return FlakeEdit(text, tuple(added))


def _edits(root: Node, source: str, url: str) -> tuple[list[Insertion], list[str]]:
    if not isinstance(root, AttrSet) or root.recursive:
        raise _Strange("the flake is not an attribute set, { … }")
    outputs = _binding(root, "outputs")
    if outputs is None or not isinstance(outputs.value, Lambda):
        raise _Strange("outputs is not a function written in flake.nix, outputs = { self, … }: …")
    function = outputs.value
    places = find_places(function.body, source)
    if not places:
        raise _Strange("no place where packages are defined for a system was recognised")
    insertions, added = [], []
    missing = [place for place in places if not place.present]
    if not missing:
        return [], []
    ours, self = _references(function)
    for place in missing:
        insertions.append(_seed(source, place, ours, self))
        if place.asks is not None:
            insertions.append(add_arguments(source, place.asks, ["system"]))
        added.append(f"the package seed, for {_shown(place.system)}")
    if names := _missing_arguments(function, (self, ours)):
        insertions.append(add_arguments(source, function, names))
        added += [f"the argument {name} of outputs" for name in names]
    if (declared := _input(root, outputs, source, url)) is not None:
        insertions.append(declared)
        added.append(f"the input {_INPUT}")
    return insertions, added


def _binding(attributes: AttrSet, name: str) -> Binding | None:
    found = [each for each in attributes.bindings if each.value and each.path[0].name == name]
    if len(found) == 1 and len(found[0].path) == 1:
        return found[0]
    return None


def _references(function: Lambda) -> tuple[str, str]:
    """Return how the body calls the input nix-seed, and the flake itself."""
    if function.formals is None:
        return f"{function.name}.{_INPUT}", f"{function.name}.self"
    return _INPUT, "self"


def _missing_arguments(function: Lambda, wanted: tuple[str, ...]) -> list[str]:
    if function.formals is None:
        return []
    known = {each.name for each in function.formals}
    return [name for name in wanted if name not in known]


def _seed(source: str, place: Place, ours: str, self: str) -> Insertion:
    system = place.system
    if system.startswith("?"):
        raise _Strange("the name of the system is not in sight where packages are defined")
    taken = {ours.partition(".")[0], "self" if "." not in self else ""} & place.names
    if taken:
        raise _Strange(f"{' and '.join(sorted(taken))} means something else there")
    inherited = [name for name in (self, system) if name in ("self", "system")]
    arguments = f"inherit {' '.join(inherited)}; " if inherited else ""
    arguments += "" if self == "self" else f"self = {self}; "
    arguments += "" if system == "system" else f"system = {system}; "
    line = f"{place.prefix}seed = {ours}.lib.mkSeed {{ {arguments}}};{place.suffix}"
    if place.attributes is not None:
        return add_to_set(source, place.attributes, [line])
    assert place.after is not None
    return add_binding_after(source, place.after, [line])


def _input(root: AttrSet, outputs: Binding, source: str, url: str) -> Insertion | None:
    """Return the input's declaration, None if there is one."""
    inputs = [each for each in root.bindings if each.value and each.path[0].name == "inputs"]
    names = list(_input_names(inputs))
    if _INPUT in names:
        return None
    lines = [f'{_INPUT}.url = "{url}";']
    if "nixpkgs" in names:
        # It brings no second nixpkgs into the lock file: its library needs none.
        lines.append(f'{_INPUT}.inputs.nixpkgs.follows = "nixpkgs";')
    sets = [each.value for each in inputs if len(each.path) == 1]
    if sets:
        if len(sets) > 1 or not isinstance(sets[0], AttrSet):
            raise _Strange("inputs is not an attribute set, { … }")
        return add_to_set(source, sets[0], lines)
    lines = [f"inputs.{line}" for line in lines]
    if inputs:
        return add_binding_after(source, inputs[-1], lines)
    first = root.bindings[0]
    if first is outputs:
        return _before(source, outputs, lines)
    return add_binding_after(source, _previous(root, outputs), lines)


def _input_names(inputs: list[Binding]) -> Iterator[str]:
    for each in inputs:
        if len(each.path) > 1:
            yield each.path[1].name
        elif isinstance(each.value, AttrSet):
            for inner in each.value.bindings:
                yield from (part.name for part in inner.path[: None if inner.value is None else 1])


def _previous(root: AttrSet, binding: Binding) -> Binding:
    return root.bindings[root.bindings.index(binding) - 1]


def _before(source: str, binding: Binding, lines: list[str]) -> Insertion:
    start = source.rfind("\n", 0, binding.start) + 1
    indent = source[start : binding.start]
    if indent.strip():
        return Insertion(binding.start, " ".join(lines) + " ")
    return Insertion(start, "".join(f"{indent}{line}\n" for line in lines) + "\n")


def _shown(system: str) -> str:
    return "each system" if not system.startswith('"') else system.strip('"')


def _advice(url: str) -> tuple[tuple[str, tuple[str, ...]], ...]:
    return (
        ("to the flake's inputs", (f'{_INPUT}.url = "{url}";',)),
        ("to the arguments of outputs", ("self", _INPUT)),
        (
            "to packages.<system>, for each system",
            (f"seed = {_INPUT}.lib.mkSeed {{ inherit self system; }};",),
        ),
    )
