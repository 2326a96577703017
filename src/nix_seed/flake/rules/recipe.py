"""The frontier of a flake's build graph: what its own derivations are built from.

The project's derivations P are those its outputs name, and every derivation that is built from one
of them or from the project's own source, however deep and unnamed: all of them change when the
source changes, so none is baked. What P is built from, and is not in P, is the frontier.

A fixed-output derivation is never in P: its content is agreed on beforehand, it has to be fetched,
and a change of the project's source does not change it.

The recipe: exactly which derivation outputs and source paths each tier of an image is rooted in.

It follows from evaluation alone. Its hash, with what else decides the image's bytes, is the input
key, by which a finished image is found before anything is built.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from nix_seed.core import canonical_json
from nix_seed.core.format import FORMAT
from nix_seed.flake.rules.licence import LicencePolicy
from nix_seed.flake.rules.outline import Context, Outline, ProjectOutput
from nix_seed.formats.nix.derivation import Derivation
from nix_seed.formats.nix.store_path import StorePath

Graph = Callable[[StorePath], Derivation]


@dataclass(frozen=True, slots=True)
class Frontier:
    """Wanted outputs by derivation, and the project's derivations, which were opened."""

    derivations: Mapping[StorePath, frozenset[str]]
    project: frozenset[StorePath]


def evaluate_frontier(
    roots: Mapping[StorePath, Iterable[str]],
    read: Graph,
    is_own_source: Callable[[StorePath], bool],
    *,
    known: frozenset[StorePath],
) -> Frontier:
    """Walk from *roots*, the derivations of the flake's outputs, to what the project is built from.

    *read* gives a derivation by its path; *is_own_source* tells the project's source from its
    inputs'; *known* are the derivations that are the project's because an output names them. A root
    that is not the project's (an ``app`` may start another flake's program) is itself wanted.
    """
    volatile = _Volatile(read, is_own_source, known)
    wanted: dict[StorePath, set[str]] = {}
    opened: set[StorePath] = set()
    queue: list[Mapping[StorePath, Iterable[str]]] = [roots]
    while queue:
        for path, outputs in queue.pop().items():
            if not volatile(path):
                wanted.setdefault(path, set()).update(outputs)
            elif path not in opened:
                opened.add(path)
                queue.append(read(path).input_drvs)
    derivations = {path: frozenset(outputs) for path, outputs in sorted(wanted.items())}
    return Frontier(derivations, frozenset(opened))


class _Volatile:
    """Whether a derivation changes with the project's source; each is looked at once."""

    def __init__(
        self, read: Graph, is_own_source: Callable[[StorePath], bool], known: frozenset[StorePath]
    ) -> None:
        self._read = read
        self._is_own_source = is_own_source
        self._known = known
        self._answers: dict[StorePath, bool] = {}

    def __call__(self, root: StorePath) -> bool:
        # Depth first without recursion: chains of derivations are deeper than Python's stack.
        stack = [root]
        while stack:
            path = stack[-1]
            if path in self._answers:
                stack.pop()
                continue
            derivation = self._read(path)
            if derivation.is_fixed_output:
                self._answers[path] = False
                continue
            if path in self._known:
                self._answers[path] = True
                continue
            open_inputs = [item for item in derivation.input_drvs if item not in self._answers]
            if open_inputs:
                stack.extend(open_inputs)
                continue
            self._answers[path] = any(self._answers[item] for item in derivation.input_drvs) or any(
                map(self._is_own_source, derivation.input_srcs)
            )
        return self._answers[root]


OutputRoots = Mapping[StorePath, frozenset[str]]


@dataclass(frozen=True, slots=True)
class TierRoots:
    """The roots of one tier: outputs by derivation, and plain store paths."""

    name: str
    outputs: OutputRoots
    paths: frozenset[StorePath] = frozenset()

    def to_json(self) -> dict[str, Any]:
        """Return a value that is the same for the same roots."""
        return {
            "name": self.name,
            "outputs": {str(path): sorted(names) for path, names in self.outputs.items()},
            "paths": sorted(map(str, self.paths)),
        }


@dataclass(frozen=True, slots=True)
class Recipe:
    """An outline whose frontier is known."""

    outline: Outline
    tiers: tuple[TierRoots, ...]
    project: frozenset[StorePath] = field(default_factory=frozenset)

    @property
    def wanted(self) -> dict[StorePath, frozenset[str]]:
        """Every derivation output to realise, over all tiers."""
        merged: dict[StorePath, frozenset[str]] = {}
        for tier in self.tiers:
            for path, names in tier.outputs.items():
                merged[path] = merged.get(path, frozenset()) | names
        return merged


def build_recipe(
    outline: Outline, read: Graph, is_own_source: Callable[[StorePath], bool]
) -> Recipe:
    """Find the frontier of each kind of output and lay it into the tiers of *outline*."""
    kinds: dict[str, tuple[ProjectOutput, ...]] = {
        "packages": outline.project.packages + outline.project.extra,
        "apps": outline.project.apps,
        "checks": outline.project.checks,
        "devShells": outline.project.dev_shells,
    }
    roots = {kind: _derivations(outputs) for kind, outputs in kinds.items()}
    # An app names a program, of whatever derivation; the other kinds name what the project makes.
    known = frozenset(path for kind in roots if kind != "apps" for path in roots[kind])
    frontiers = {
        kind: evaluate_frontier(roots[kind], read, is_own_source, known=known) for kind in roots
    }
    project = frozenset().union(*(found.project for found in frontiers.values()))
    if outline.kind == "run":
        run = tuple(_roots(tier.name, tier.roots) for tier in outline.tiers)
        return Recipe(outline, run, project)
    tiers = []
    for tier in outline.tiers:
        parts = [_roots(tier.name, tier.roots)]
        if tier.name == "toolchain":
            used = [found.derivations for found in frontiers.values()]
            parts.append(_compilers(outline.compilers, used))
        if tier.name == "inputs":
            trees = frozenset(map(StorePath.containing, outline.inputs.values()))
            parts.append(TierRoots(tier.name, {}, trees))
        if tier.name in frontiers:
            foreign = [output.context for output in kinds[tier.name] if output.foreign]
            parts += [_roots(tier.name, context) for context in foreign]
            parts.append(TierRoots(tier.name, frontiers[tier.name].derivations))
        tiers.append(_merge(tier.name, parts))
    return Recipe(outline, tuple(tiers), project)


def input_key(recipe: Recipe, compressor: Mapping[str, Any], budget: int) -> str:
    """Return 40 hex digits that stand for everything that decides the image's bytes.

    *compressor* is its entry in the spec, *budget* the number of layers. It can serve as a tag.
    """
    outline = recipe.outline
    value = {
        "domain": "nix-seed/input-key/v1",
        "format": FORMAT,
        "compressor": dict(compressor),
        "budget": budget,
        "kind": outline.kind,
        "name": outline.name,
        "system": outline.system,
        "inputs": outline.inputs,
        "config": msgspec.to_builtins(outline.config),
        "container": msgspec.to_builtins(outline.container),
        "tiers": [tier.to_json() for tier in recipe.tiers],
    }
    # Only where it says anything: the keys of recipes without it must stay what they were.
    if outline.licences != LicencePolicy():
        value["licences"] = msgspec.to_builtins(outline.licences)
    return hashlib.sha256(canonical_json.dumps(value)).hexdigest()[:40]


def _derivations(outputs: Iterable[ProjectOutput]) -> OutputRoots:
    """Name the derivations of outputs that are not another flake's, with the outputs used."""
    own = [_roots("", output.context) for output in outputs if not output.foreign]
    return _merge("", own).outputs


def _roots(name: str, context: Context) -> TierRoots:
    """Read a string context as roots; a whole derivation (``allOutputs``) is its own file."""
    return TierRoots(
        name,
        {
            StorePath.parse(path): frozenset(element.outputs)
            for path, element in context.items()
            if element.outputs
        },
        frozenset(
            StorePath.parse(path)
            for path, element in context.items()
            if element.path or element.all_outputs
        ),
    )


def _compilers(candidates: Context, used: Iterable[OutputRoots]) -> TierRoots:
    """Keep those compilers that the project is built from: others would only weigh."""
    needed = set().union(*used)
    context = {
        path: element for path, element in candidates.items() if StorePath.parse(path) in needed
    }
    return _roots("toolchain", context)


def _merge(name: str, parts: Iterable[TierRoots]) -> TierRoots:
    outputs: dict[StorePath, frozenset[str]] = {}
    paths: frozenset[StorePath] = frozenset()
    for part in parts:
        paths |= part.paths
        for path, names in part.outputs.items():
            outputs[path] = outputs.get(path, frozenset()) | names
    return TierRoots(name, dict(sorted(outputs.items())), paths)
