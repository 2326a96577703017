"""What some outputs of a flake need of its seed: to be built, and no more."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import TYPE_CHECKING

from nix_seed.core.errors import InputError
from nix_seed.core.reach import reach
from nix_seed.core.values import dataclass

if TYPE_CHECKING:
    from nix_seed.flake.rules.outline import ProjectOutput
    from nix_seed.flake.rules.recipe import Ownership
    from nix_seed.formats.nix.store_path import StorePath
    from nix_seed.image.rules.spec import Spec
    from nix_seed.licences.rules.judge import Withheld

FIRST_TIERS = ("base", "toolchain", "inputs")
"""The tiers that every build needs: a shell, Nix and compilers, and what evaluation reads."""

INPUT_TIERS = ("inputs",)
"""Of these, what evaluation reads: with a Nix at hand it needs no more."""

KINDS = (
    "packages",
    "apps",
    "checks",
    "devShells",
    "formatter",
    "legacyPackages",
    "hydraJobs",
    "nixosConfigurations",
    "darwinConfigurations",
    "homeConfigurations",
)


@dataclass(frozen=True, slots=True)
class Selection:
    """Outputs of a flake as the user names them: ``checks``, ``packages.default``."""

    kind: str
    name: str | None = None

    @classmethod
    def parse(cls, text: str, system: str) -> Selection:
        """Read ``kind``, ``kind.name`` or ``kind.<system>.name``; a bare name is a package."""
        parts = text.split(".") if text else ["packages", "default"]
        if parts[0] not in KINDS:
            parts = ["packages", *parts]
        kind, rest = parts[0], parts[1:]
        if rest[:1] == [system]:
            rest = rest[1:]
        return cls(kind, ".".join(rest) or None)

    def __str__(self) -> str:
        return self.kind if self.name is None else f"{self.kind}.{self.name}"


def needed_outputs(
    ownership: Ownership, selections: Iterable[Selection]
) -> Mapping[StorePath, frozenset[str]]:
    """Return the derivation outputs that the selected outputs of a flake are built from.

    ``InputError`` for a selection that names nothing, with the names there are.
    """
    outputs = ownership.outline.project.all
    chosen = [output for each in selections for output in _select(each, outputs)]
    found = ownership.frontier(chosen).derivations
    return {path: names for path, names in found.items() if names}


def _select(selection: Selection, outputs: tuple[ProjectOutput, ...]) -> list[ProjectOutput]:
    of_kind = [each for each in outputs if each.output.startswith(f"{selection.kind}.")]
    wanted = str(selection)
    found = [each for each in of_kind if selection.name is None or each.output == wanted]
    if not found:
        names = ", ".join(sorted(each.output for each in of_kind))
        raise InputError(
            f"the flake has no output {selection}", hint=f"it has: {names or 'none of that kind'}"
        )
    return found


def paths_of_tiers(spec: Spec, tiers: Collection[str]) -> frozenset[StorePath]:
    """Return what the layers of *tiers* hold."""
    return frozenset(path for group in spec.layers if group.tier in tiers for path in group.paths)


def needed_of(
    spec: Spec,
    roots: Iterable[StorePath],
    made_from: Callable[[Withheld], Iterable[StorePath]],
) -> tuple[frozenset[StorePath], tuple[Withheld, ...]]:
    """Return *roots* and all they need, of *spec*: its paths, and what it withholds.

    What a withheld path refers to nobody knows before it is there. What it is *made_from*, as far
    as the image has it, is more than that, and needed to make it.
    """
    withheld = {item.path: item for item in spec.withheld}

    def further(path: StorePath) -> Iterable[StorePath] | None:
        if path in spec.paths:
            return spec.paths[path].references
        return made_from(withheld[path]) if path in withheld else None

    seen = reach(roots, further)
    lacking = tuple(item for item in spec.withheld if item.path in seen)
    return frozenset(seen & spec.paths.keys()), lacking
