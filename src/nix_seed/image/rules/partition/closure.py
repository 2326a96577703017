"""A closure as numbers: bit sets of what each path needs, sizes, and a tier for every path.

Bit *i* of a set stands for ``paths[i]``; references come before what refers to them, so the sets of
a closure's foundations are short integers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nix_seed.core.errors import InputError
from nix_seed.flake.rules.names import by_name
from nix_seed.formats.nix.store_path import PathInfo, StorePath


def members(bits: int) -> list[int]:
    """Return the numbers of the bits that are set, lowest first."""
    text = bin(bits)[:1:-1]
    found, at = [], text.find("1")
    while at >= 0:
        found.append(at)
        at = text.find("1", at + 1)
    return found


@dataclass(frozen=True, slots=True)
class ClosureIndex:
    """``closures[i]`` is the bit set of everything ``paths[i]`` reaches, itself included.

    ``sizes`` are NAR sizes in bytes; ``references`` leave out self references.
    """

    paths: tuple[StorePath, ...]
    sizes: tuple[int, ...]
    closures: tuple[int, ...]
    references: tuple[tuple[int, ...], ...]
    number: Mapping[StorePath, int]


def build_index(
    closure: Mapping[StorePath, PathInfo], absent: frozenset[StorePath] = frozenset()
) -> ClosureIndex:
    """Number the paths, references first, and take the transitive closure.

    Raises ``InputError`` for a reference that lies neither in *closure* nor in *absent*, and for a
    cycle of references, which no Nix store can hold.
    """
    references = _references(closure, absent)
    order = _references_first(references)
    number = {path: i for i, path in enumerate(order)}
    closures: list[int] = []
    for i, path in enumerate(order):
        bits = 1 << i
        for reference in references[path]:
            bits |= closures[number[reference]]
        closures.append(bits)
    sizes = tuple(closure[path].nar_size for path in order)
    inside = tuple(tuple(number[r] for r in references[path]) for path in order)
    return ClosureIndex(tuple(order), sizes, tuple(closures), inside, number)


def _references(
    closure: Mapping[StorePath, PathInfo], absent: frozenset[StorePath]
) -> dict[StorePath, list[StorePath]]:
    """Each path's references inside the closure, without itself; in the order of ties."""
    names = {path: by_name(path) for path in closure}
    result = {}
    for path in sorted(closure, key=names.__getitem__):
        inside = []
        for reference in closure[path].references:
            if reference in names:
                if reference != path:
                    inside.append(reference)
            elif reference not in absent and reference != path:
                raise InputError(
                    f"{path} refers to {reference}, which is not in the closure",
                    hint="plan the whole closure: nix path-info --recursive lists it",
                )
        result[path] = sorted(inside, key=names.__getitem__)
    return result


def _references_first(references: Mapping[StorePath, Sequence[StorePath]]) -> list[StorePath]:
    """Depth first, without recursion: a chain of references may be thousands long."""
    order: list[StorePath] = []
    done: dict[StorePath, bool] = {}  # False while a path is being walked, True afterwards
    for root in references:
        if root in done:
            continue
        done[root] = False
        walk = [(root, iter(references[root]))]
        while walk:
            path, rest = walk[-1]
            for reference in rest:
                if reference not in done:
                    done[reference] = False
                    walk.append((reference, iter(references[reference])))
                    break
                if not done[reference]:
                    raise InputError(f"{path} and {reference} refer to each other in a cycle")
            else:
                done[path] = True
                order.append(path)
                walk.pop()
    return order


def assign_tiers(
    index: ClosureIndex, tiers: Sequence[tuple[str, Sequence[StorePath]]]
) -> list[tuple[str, list[int]]]:
    """Give each path to the first tier whose roots reach it; tiers left empty are dropped."""
    names = [name for name, _ in tiers]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(f"tier {twice[0]!r} is given twice")
    taken, result = 0, []
    for name, roots in tiers:
        reached = 0
        for root in roots:
            if root not in index.number:
                raise InputError(f"{root}, a root of tier {name!r}, is not in the closure")
            reached |= index.closures[index.number[root]]
        own = members(reached & ~taken)
        taken |= reached
        if own:
            result.append((name, own))
    left = ((1 << len(index.paths)) - 1) & ~taken
    if left:
        first = min((index.paths[i] for i in members(left)), key=by_name)
        raise InputError(
            f"no tier reaches {first} ({left.bit_count()} such paths in the closure)",
            hint="add it to the roots of a tier, or leave it out of the closure",
        )
    return result
