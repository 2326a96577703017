"""Why is something in a seed, or why is it the project's own? Each answer with the way to it."""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from nix_seed.core.values import dataclass
from nix_seed.core.words import members
from nix_seed.flake.rules.frontier import is_never_substituted
from nix_seed.flake.rules.outline import ProjectOutput
from nix_seed.flake.rules.recipe import Ownership, Recipe
from nix_seed.formats.nix.store_path import Graph, StorePath


@dataclass(frozen=True, slots=True)
class Reason:
    """Why *path* is in the seed's *tier*, or (None) is not.

    *chain* leads from an output of the flake to it, by name.
    """

    path: StorePath
    tier: str | None
    text: str
    chain: tuple[str, ...] = ()

    def __str__(self) -> str:
        where = f"in the seed, tier {self.tier}" if self.tier else "not in the seed"
        way = f"\n  by way of {' > '.join(self.chain)}" if self.chain else ""
        return f"{self.path}\n  {where}: {self.text}{way}"

    def to_json(self) -> dict[str, Any]:
        """Return the reason as programs read it."""
        return members(self, "path", "tier", "chain", reason="text")


def explain(target: str, recipe: Recipe, ownership: Ownership, read: Graph) -> tuple[Reason, ...]:
    """Return a reason for each derivation and input tree that *target* names.

    It is a store path (of a derivation or what it makes), a name with or without its version, or an
    output of the flake.
    """
    ways = _ways(recipe, read)
    named = {
        path
        for entry in recipe.outline.project.all
        if entry.output == target
        for path in _derivations(entry)
    }
    found = []
    laid: dict[StorePath, frozenset[str]] = {}
    for tier in recipe.tiers:
        for path, outputs in tier.outputs.items():
            # It lies in the first tier that wants it; a later one may want more outputs of it.
            there = laid.get(path, frozenset())
            laid[path] = there | outputs
            if outputs - there and (path in named or _is(path, target, read)):
                text = _why_baked(path, tier.name, ways, ownership, read)
                found.append(Reason(path, tier.name, text, ways.get(path, ())))
    for path in sorted(recipe.project):
        if path in named or _is(path, target, read):
            found.append(Reason(path, None, _why_own(path, ownership, read), ways.get(path, ())))
    for name, text in recipe.outline.inputs.items():
        path = StorePath.containing(text)
        if target in (name, f"inputs.{name}", str(path)):
            found.append(Reason(path, "inputs", f"evaluation reads the source of the input {name}"))
    for path in sorted(ownership.needed.sources):
        if target in (str(path), path.name):
            found.append(Reason(path, "inputs", "evaluation itself fetches it"))
    return tuple(found) or tuple(_below(target, recipe, read))


def _why_baked(
    path: StorePath,
    tier: str,
    ways: Mapping[StorePath, tuple[str, ...]],
    ownership: Ownership,
    read: Graph,
) -> str:
    if tier == "inputs":
        return "evaluation itself builds it, or something that is built from it"
    if path not in ways:
        return f"every seed has it, or mkSeed's contents.{tier} names it"
    if read(path).is_fixed_output:
        return "its content is fixed by a hash, and getting it would need the network"
    if not ownership.twin.outputs:
        return "nothing of it is built from the project's files"
    if path in ownership.twin.chosen:
        return "a file of the project chooses it, and nothing of it is built from the project's"
    return "it comes out the same when every file of the project is another"


def _why_own(path: StorePath, ownership: Ownership, read: Graph) -> str:
    if not ownership.twin.outputs:
        return "it is built from the project's files, or an output of the flake"
    if read(path).is_fixed_output:
        return "its name holds the commit or its time, so that each commit has to fetch it anew"
    if ownership.experiment.changes(path):
        inner = [item.name for item in read(path).input_drvs if ownership.experiment.changes(item)]
        inner = [item.removesuffix(".drv") for item in sorted(inner)]
        text = "it comes out otherwise when the project's files do"
        return f"{text}; so does {', '.join(inner)}, which it is built from" if inner else text
    if is_never_substituted(read(path)):
        return "Nix makes it wherever it is needed (allowSubstitutes = false)"
    shells = {
        shell
        for entry in ownership.outline.project.all
        if entry.is_shell
        for shell in _derivations(entry)
    }
    if path in shells:
        return "a shell is made anew from what it is built from"
    return "an output of the flake is it, and a file of the flake defines it"


def _ways(recipe: Recipe, read: Graph) -> dict[StorePath, tuple[str, ...]]:
    """Return for what outputs lead to, the project's own and what that is built from, how."""
    ways: dict[StorePath, tuple[str, ...]] = {}
    waiting: list[tuple[StorePath, tuple[str, ...]]] = [
        (path, (entry.output,))
        for entry in recipe.outline.project.all
        for path in _derivations(entry)
    ]
    while waiting:
        following = []
        for path, way in waiting:
            if path in ways:
                continue
            ways[path] = way
            if path in recipe.project:
                name = path.name.removesuffix(".drv")
                following += [(item, (*way, name)) for item in read(path).input_drvs]
        waiting = following
    return ways


def _below(target: str, recipe: Recipe, read: Graph) -> Iterator[Reason]:
    """Look for *target* among what the seed's own roots are built from."""
    seen: set[StorePath] = set()
    queue: deque[tuple[StorePath, tuple[str, ...]]] = deque((path, ()) for path in recipe.wanted)
    while queue:
        path, way = queue.popleft()
        if path in seen:
            continue
        seen.add(path)
        if way and _is(path, target, read):
            text = "what the seed holds is built from it; it is there only if that refers to it"
            yield Reason(path, None, text, way)
            return
        name = path.name.removesuffix(".drv")
        queue.extend((item, (*way, name)) for item in read(path).input_drvs)


def _derivations(entry: ProjectOutput) -> Iterable[StorePath]:
    return (StorePath.parse(path) for path, element in entry.context.items() if element.outputs)


def _is(path: StorePath, target: str, read: Graph) -> bool:
    if target.startswith("/"):
        made = (output.path for output in read(path).outputs.values())
        return target == str(path) or any(target == str(item) for item in made)
    name = StorePath(path.base_name.removesuffix(".drv"))
    return target in (name.name, name.package)
