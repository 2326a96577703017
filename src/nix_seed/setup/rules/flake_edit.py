"""Insertions into a text that people wrote, in its own layout.

Adds nix-seed to a ``flake.nix``: text in, text out, or words on what to write where.

A flake that is not understood, all of it that matters, is not edited at all.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from nix_seed.core.errors import InputError
from nix_seed.formats.nix.parser import parse
from nix_seed.formats.nix.syntax import AttrSet, Binding, Lambda, Node
from nix_seed.setup.rules.flake_outputs import Place, find_places

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
