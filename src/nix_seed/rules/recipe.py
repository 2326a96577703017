"""The recipe: exactly which derivation outputs and source paths each tier of an image is rooted in.

It follows from evaluation alone. Its hash, with what else decides the image's bytes, is the input
key, by which a finished image is found before anything is built.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from nix_seed.formats.nix.store_path import StorePath
from nix_seed.ground import canonical_json
from nix_seed.rules.format import FORMAT
from nix_seed.rules.frontier import Graph, evaluate_frontier
from nix_seed.rules.licence import LicencePolicy
from nix_seed.rules.outline import Context, Outline, ProjectOutput

__all__ = ["Recipe", "TierRoots", "build_recipe", "input_key"]

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
