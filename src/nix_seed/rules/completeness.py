"""Is a seed complete? What Nix plans inside it: the project's own work, or something missing.

The plan is read from the words of ``nix-store --realise --dry-run``, which have been the same
since long before Nix 2.8; its JSON has not.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from nix_seed.formats.nix.derivation import Derivation
from nix_seed.formats.nix.store_path import StorePath

__all__ = ["Gap", "Plan", "Planned", "find_gaps", "parse_outputs", "parse_plan"]

_BUILT = re.compile(r"derivations? will be built:?$")
_FETCHED = re.compile(r"paths? will be fetched\b.*:?$")
_UNKNOWN = re.compile(r"don't know how to build (?:these|this) paths?\b.*:?$")


@dataclass(frozen=True, slots=True)
class Planned:
    """One output of the flake, ``packages.default``, and a derivation that makes it."""

    output: str
    derivation: StorePath


@dataclass(frozen=True, slots=True)
class Plan:
    """What Nix would do: derivations to build, paths to fetch, paths it cannot get at all."""

    build: tuple[StorePath, ...] = ()
    fetch: tuple[StorePath, ...] = ()
    unknown: tuple[StorePath, ...] = ()


@dataclass(frozen=True, slots=True)
class Gap:
    """Something the seed lacks.

    *kind* is ``derivation`` (would be built although it is none of the project's), ``download`` (a
    fixed-output derivation: needs the network) or ``path`` (known only to a cache, or lost).
    *needed_by* are the flake's outputs that ask for it; *behind* counts what only it needs in turn.
    """

    path: StorePath
    kind: Literal["derivation", "download", "path"]
    needed_by: tuple[str, ...]
    behind: int = 0

    @property
    def name(self) -> str:
        """The name for people: ``openssl-3.0.9``."""
        return self.path.name.removesuffix(".drv")

    @property
    def tier(self) -> str:
        """The tier of the seed it belongs in: the kind of the first output that needs it."""
        return self.needed_by[0].partition(".")[0] if self.needed_by else "packages"

    @property
    def hint(self) -> str:
        """How to have it in the seed from now on."""
        return f"add it: mkSeed {{ contents.{self.tier} = [ {_attribute(self.name)} ]; }}"


def parse_outputs(text: str) -> tuple[Planned, ...]:
    """Read lines of ``<kind>.<name>\\t<derivation>``."""
    pairs = (line.rpartition("\t") for line in text.splitlines())
    return tuple(Planned(output, StorePath.parse(path)) for output, _, path in pairs)


def parse_plan(text: str) -> Plan:
    """Read what ``nix-store --realise --dry-run`` says on standard error."""
    found: dict[str, list[StorePath]] = {"build": [], "fetch": [], "unknown": []}
    current: list[StorePath] | None = None
    for line in text.splitlines():
        if line.startswith("  /nix/store/"):
            if current is not None:
                current.append(StorePath.containing(line.strip()))
            continue
        heading = _heading(line.strip())
        current = None if heading is None else found[heading]
    return Plan(**{name: tuple(paths) for name, paths in found.items()})


def _heading(line: str) -> str | None:
    for pattern, name in ((_BUILT, "build"), (_FETCHED, "fetch"), (_UNKNOWN, "unknown")):
        if pattern.search(line):
            return name
    return None


def find_gaps(
    outputs: Sequence[Planned], plan: Plan, derivations: Mapping[StorePath, Derivation]
) -> tuple[Gap, ...]:
    """Return what *plan* holds beyond the project's own *outputs*, causes only, sorted by name.

    *derivations* are the parsed ones of the plan. A missing derivation that only other missing ones
    need is counted in their ``behind``: what one adds to the seed is what the project asks for.
    """
    own = {each.derivation for each in outputs}
    missing = [path for path in plan.build if path not in own]
    needs = {path: set(derivations[path].input_drvs) for path in plan.build if path in derivations}
    gaps = []
    for path in missing:
        needed_by = _needed_by(path, outputs, needs)
        if needed_by or not any(path in needs.get(other, ()) for other in missing):
            behind = len(_reach(path, needs) & set(missing)) - 1
            gaps.append(Gap(path, _kind(derivations.get(path)), needed_by, behind))
    gaps += [Gap(path, "path", ()) for path in (*plan.fetch, *plan.unknown)]
    return tuple(sorted(gaps, key=lambda gap: (gap.name, gap.path)))


def _kind(derivation: Derivation | None) -> Literal["derivation", "download"]:
    return "download" if derivation is not None and derivation.is_fixed_output else "derivation"


def _needed_by(
    path: StorePath, outputs: Iterable[Planned], needs: Mapping[StorePath, set[StorePath]]
) -> tuple[str, ...]:
    direct = (each.output for each in outputs if path in needs.get(each.derivation, ()))
    return tuple(dict.fromkeys(direct))


def _reach(start: StorePath, needs: Mapping[StorePath, set[StorePath]]) -> set[StorePath]:
    found, waiting = {start}, [start]
    while waiting:
        new = needs.get(waiting.pop(), set()) - found
        found |= new
        waiting += new
    return found


def _attribute(name: str) -> str:
    """Guess the package's attribute: its name without the version."""
    return re.sub(r"-[0-9].*", "", name)
