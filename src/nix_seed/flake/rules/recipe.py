"""The recipe: exactly which derivation outputs and source paths each tier of an image is rooted in.

It follows from evaluation alone. Its hash, with what else decides the image's bytes, is the input
key, by which a finished image is found before anything is built.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import field
from typing import Any

import msgspec

from nix_seed.core import canonical_json
from nix_seed.core.values import dataclass
from nix_seed.core.version import FORMAT
from nix_seed.flake.rules import frontier as frontiers
from nix_seed.flake.rules.licence import LicencePolicy
from nix_seed.flake.rules.outline import Context, Outline, ProjectOutput
from nix_seed.formats.nix.store_path import Graph, StorePath


@dataclass(frozen=True, slots=True)
class TierRoots:
    """The roots of one tier: outputs by derivation, and plain store paths."""

    name: str
    outputs: frontiers.Outputs
    paths: frozenset[StorePath] = frozenset()

    def to_json(self, made: Mapping[StorePath, str]) -> dict[str, Any]:
        """Return a value that is the same for the same roots; *made* is as in ``Recipe``."""
        outputs: dict[str, set[str]] = {}
        for path, names in self.outputs.items():
            outputs.setdefault(made.get(path, str(path)), set()).update(names)
        return {
            "name": self.name,
            "outputs": {path: sorted(names) for path, names in outputs.items()},
            "paths": sorted(map(str, self.paths)),
        }


@dataclass(frozen=True, slots=True)
class Recipe:
    """An outline whose frontier is known.

    *project* are the derivations that were opened. *made* names by what they make those wanted ones
    that another source gives another derivation. *walked* are outputs that no experiment decided.
    """

    outline: Outline
    tiers: tuple[TierRoots, ...]
    project: frozenset[StorePath] = field(default_factory=frozenset)
    made: Mapping[StorePath, str] = field(default_factory=dict)
    walked: tuple[str, ...] = ()

    @property
    def wanted(self) -> dict[StorePath, frozenset[str]]:
        """Every derivation output to realise, over all tiers."""
        merged: dict[StorePath, frozenset[str]] = {}
        for tier in self.tiers:
            for path, names in tier.outputs.items():
                merged[path] = merged.get(path, frozenset()) | names
        return merged


@dataclass(frozen=True, slots=True)
class Needed:
    """What evaluation itself fetched (*sources*) and built: paths by the derivation of each.

    *problem* says why that cannot be told.
    """

    sources: frozenset[StorePath] = frozenset()
    built: Mapping[StorePath, frozenset[StorePath]] = field(default_factory=dict)
    problem: str | None = None


class Ownership:
    """What outputs of a flake are built from and is not the project's own.

    Without a *twin*, and for outputs that it lacks, a walk decides, by *is_own_source*. *needed* is
    what evaluation needs beside the inputs' source trees.
    """

    def __init__(
        self,
        outline: Outline,
        read: Graph,
        is_own_source: Callable[[StorePath], bool],
        twin: frontiers.Twin | None = None,
        needed: Needed | None = None,
    ) -> None:
        self.outline = outline
        self.twin = twin or frontiers.Twin()
        self.needed = needed or Needed()
        self._is_own_source = is_own_source
        self._read = read
        # What an app starts, and a formatter, may be another flake's; other outputs, if they are
        # defined in a file of the flake, are what the project makes.
        own = [entry for entry in outline.project.all if not entry.foreign and not entry.is_program]
        known = frozenset(_derivations(own))
        self.walk = frontiers.FrontierWalk(read, is_own_source, known)
        self.experiment = frontiers.Experiment(read, self.twin, known)

    def _is_own(self, path: StorePath) -> bool:
        """Tell by experiment, and by the walk as well where the twin has files of the flake."""
        return self.experiment(path) or (self.twin.careful and self.walk(path))

    def frontier(self, outputs: Iterable[ProjectOutput]) -> frontiers.Frontier:
        """Return what *outputs* are built from."""
        outputs = tuple(outputs)
        derivations: frontiers.Outputs = {}
        project: frozenset[StorePath] = frozenset()
        for tested in (True, False):
            is_own = self._is_own if tested else self.walk
            some = [entry for entry in outputs if (entry.output in self.twin.outputs) is tested]
            roots = _derivations(entry for entry in some if not entry.is_shell)
            # A shell is made anew from what it is built from; it is never built itself.
            for path in _derivations(entry for entry in some if entry.is_shell):
                shell = self._read(path)
                if shell.is_fixed_output:
                    roots = _union(roots, {path: frozenset(shell.outputs)})
                else:
                    project |= {path}
                    inputs = shell.input_drvs.items()
                    roots = _union(roots, {item: frozenset(names) for item, names in inputs})
            found = frontiers.evaluate_frontier(roots, self._read, is_own)
            derivations = _union(derivations, found.derivations)
            project |= found.project
        return frontiers.Frontier(derivations, project)

    def needed_frontier(self) -> frontiers.Frontier:
        """Return what evaluation itself builds, or, of the project's own, what that is built from.

        No output is made of it, so that the experiment tells nothing.
        """
        walk = frontiers.FrontierWalk(self._read, self._is_own_source, frozenset())
        roots = {
            path: [name for name, made in self._read(path).outputs.items() if made.path in built]
            for path, built in self.needed.built.items()
        }
        return frontiers.evaluate_frontier(roots, self._read, walk)

    def made(self, wanted: Iterable[StorePath]) -> dict[StorePath, str]:
        """Name by what they make those of *wanted* whose derivation alone is another in the twin.

        A download by hash whose builder has the project's source is one of them.
        """
        if not self.twin.outputs:
            return {}
        found = {}
        for path in wanted:
            if path not in self.twin.derivations:
                made = self._read(path).outputs
                names = sorted(str(output.path) for output in made.values() if output.path)
                if len(names) == len(made):
                    found[path] = " ".join(names)
        return found


def build_recipe(ownership: Ownership) -> Recipe:
    """Find the frontier of each kind of output and lay it into the tiers of the outline."""
    outline = ownership.outline
    kinds: dict[str, tuple[ProjectOutput, ...]] = {
        "packages": outline.project.packages + outline.project.extra,
        "apps": outline.project.apps,
        "checks": outline.project.checks,
        "devShells": outline.project.dev_shells,
    }
    frontiers = {kind: ownership.frontier(outputs) for kind, outputs in kinds.items()}
    frontiers["inputs"] = ownership.needed_frontier()
    project = frozenset().union(*(found.project for found in frontiers.values()))
    tested = ownership.twin.outputs
    walked = tuple(entry.output for entry in outline.project.all if entry.output not in tested)
    if outline.kind == "run":
        run = tuple(_roots(tier.name, tier.roots) for tier in outline.tiers)
        return Recipe(outline, run, project, walked=walked)
    tiers = []
    for tier in outline.tiers:
        parts = [_roots(tier.name, tier.roots)]
        if tier.name == "toolchain":
            used = [found.derivations for found in frontiers.values()]
            parts.append(_compilers(outline.compilers, used))
        if tier.name == "inputs":
            trees = frozenset(map(StorePath.containing, outline.inputs.values()))
            parts.append(TierRoots(tier.name, {}, trees | ownership.needed.sources))
        if tier.name in frontiers:
            parts.append(TierRoots(tier.name, frontiers[tier.name].derivations))
        tiers.append(_merge(tier.name, parts))
    wanted = {path for found in frontiers.values() for path in found.derivations}
    return Recipe(outline, tuple(tiers), project, ownership.made(wanted), walked)


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
        "tiers": [tier.to_json(recipe.made) for tier in recipe.tiers],
    }
    # Only where it says anything: the keys of recipes without it must stay what they were.
    if outline.licences != LicencePolicy():
        value["licences"] = msgspec.to_builtins(outline.licences)
    if outline.excluded:
        value["excluded"] = list(outline.excluded)
    return hashlib.sha256(canonical_json.dumps(value)).hexdigest()[:40]


def _derivations(outputs: Iterable[ProjectOutput]) -> frontiers.Outputs:
    """Name the derivations of *outputs*, with the outputs used of each."""
    return _merge("", [_roots("", output.context) for output in outputs]).outputs


def _union(first: frontiers.Outputs, second: frontiers.Outputs) -> frontiers.Outputs:
    return _merge("", [TierRoots("", first), TierRoots("", second)]).outputs


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


def _compilers(candidates: Context, used: Iterable[frontiers.Outputs]) -> TierRoots:
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
