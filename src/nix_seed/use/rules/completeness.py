"""Is a seed complete? What Nix plans inside it: the project's own work, or something missing.

The plan is read from the words of ``nix-store --realise --dry-run``, which have been the same
since long before Nix 2.8; its JSON has not.
"""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Literal

from nix_seed.core.reach import reach
from nix_seed.core.values import dataclass
from nix_seed.flake.rules.frontier import is_never_substituted
from nix_seed.formats.nix.store_path import Derivation, StorePath

LEFT_OUT = "-"

_HEADINGS = {
    "build": re.compile(r"derivations? will be built:?$"),
    "fetch": re.compile(r"paths? will be fetched\b.*:?$"),
    "unknown": re.compile(r"don't know how to build (?:these|this) paths?\b.*:?$"),
}


@dataclass(frozen=True, slots=True)
class Planned:
    """One output of the flake, ``packages.default``, and a derivation that makes it.

    Of *foreign* ones no file of the flake is the definition: they are passed on.
    """

    output: str
    derivation: StorePath
    foreign: bool = False

    @property
    def is_own(self) -> bool:
        """Whether it is the project's own by definition; a shell is made anew in any case."""
        return not self.foreign or self.output.startswith("devShells.")


@dataclass(frozen=True, slots=True)
class OfflinePlan:
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
        # A guess at the package's attribute: its name without the version.
        attribute = re.sub(r"-[0-9].*", "", self.name)
        return f"add it: mkSeed {{ contents.{self.tier} = [ {attribute} ]; }}"


def parse_outputs(text: str) -> tuple[Planned, ...]:
    """Read the lines that ``outputs.nix`` describes; an output left out has a ``-`` at the end."""
    pairs = (line.rpartition("\t") for line in text.splitlines())
    return tuple(
        Planned(name.removesuffix("\tforeign"), StorePath.parse(path), name.endswith("\tforeign"))
        for name, _, path in pairs
        if name and path != LEFT_OUT
    )


def parse_extra(text: str) -> frozenset[StorePath]:
    """Return what is the project's own, in the same lines, though no output names it."""
    return frozenset(StorePath.parse(line[1:]) for line in text.splitlines() if line[:1] == "\t")


def parse_left_out(text: str) -> tuple[str, ...]:
    """Name the outputs, in the same lines, that the seed is not meant for."""
    pairs = (line.rpartition("\t") for line in text.splitlines())
    return tuple(output for output, _, path in pairs if path == LEFT_OUT)


def parse_plan(text: str) -> OfflinePlan:
    """Read what ``nix-store --realise --dry-run`` says on standard error."""
    found: dict[str, list[StorePath]] = {name: [] for name in _HEADINGS}
    current: list[StorePath] | None = None
    for line in text.splitlines():
        if line.startswith("  /nix/store/"):
            if current is not None:
                current.append(StorePath.containing(line.strip()))
            continue
        headed = (found[name] for name, form in _HEADINGS.items() if form.search(line.strip()))
        current = next(headed, None)
    return OfflinePlan(**{name: tuple(paths) for name, paths in found.items()})


def find_gaps(
    outputs: Sequence[Planned],
    plan: OfflinePlan,
    derivations: Mapping[StorePath, Derivation],
    own_sources: Collection[StorePath] = (),
    own: Collection[StorePath] = (),
    withheld: Collection[StorePath] = (),
) -> tuple[Gap, ...]:
    """Return what *plan* holds beyond the project's own work, causes only, sorted by name.

    *derivations* are the parsed ones of the plan. The project's own are its *outputs*, those known
    otherwise (*own*), and whatever is built, however indirectly, from one of them or from one of
    its sources (*own_sources*). A missing derivation that only other missing ones need is counted
    in their ``behind``: what one adds to the seed is what the project asks for. Derivations that
    are *withheld* come from their vendors, with what only they need.
    """
    known = {*own, *(each.derivation for each in outputs if each.is_own)}
    # What Nix never substitutes is made wherever it is needed (``flake/rules/frontier.py``).
    known |= {path for path, drv in derivations.items() if is_never_substituted(drv)}
    project = _project(known, derivations, own_sources)
    missing = [path for path in plan.build if path not in project]
    needs = {path: set(derivations[path].input_drvs) for path in plan.build if path in derivations}
    if withheld:
        others = {path: used for path, used in needs.items() if path not in withheld}
        asked = set().union(*(_reach(path, others) for path in project))
        missing = [path for path in missing if path in asked and path not in withheld]
    gaps = []
    for path in missing:
        needed_by = _needed_by(path, outputs, needs, project)
        by_project = any(path in needs.get(other, ()) for other in project)
        if by_project or not any(path in needs.get(other, ()) for other in missing):
            behind = len(_reach(path, needs) & set(missing)) - 1
            download = path in derivations and derivations[path].is_fixed_output
            gaps.append(Gap(path, "download" if download else "derivation", needed_by, behind))
    gaps += [Gap(path, "path", ()) for path in (*plan.fetch, *plan.unknown)]
    return tuple(sorted(gaps, key=lambda gap: (gap.name, gap.path)))


def _project(
    known: Collection[StorePath],
    derivations: Mapping[StorePath, Derivation],
    own_sources: Collection[StorePath],
) -> set[StorePath]:
    """Return those of *derivations*, and *known*, that change with the project's source."""
    users: dict[StorePath, list[StorePath]] = {}
    for path, derivation in derivations.items():
        for needed in derivation.input_drvs:
            users.setdefault(needed, []).append(path)
    sources = set(own_sources)

    def further(path: StorePath) -> Sequence[StorePath] | None:
        fixed = path in derivations and derivations[path].is_fixed_output
        # A fixed output's content is agreed on: no source changes it (``flake/rules/frontier.py``).
        return None if fixed and path not in known else users.get(path, ())

    made_of = (path for path, drv in derivations.items() if sources & set(drv.input_srcs))
    return reach([*known, *made_of], further)


def _needed_by(
    path: StorePath,
    outputs: Iterable[Planned],
    needs: Mapping[StorePath, set[StorePath]],
    project: set[StorePath],
) -> tuple[str, ...]:
    """Name the outputs that ask for *path*, themselves or through what no output names."""
    outputs = tuple(outputs)
    unnamed = project - {each.derivation for each in outputs}
    inner = {each: needs.get(each, set()) & unnamed for each in project}
    names = (
        each.output
        for each in outputs
        if path == each.derivation
        or any(path in needs.get(step, ()) for step in _reach(each.derivation, inner))
    )
    return tuple(dict.fromkeys(names))


def _reach(start: StorePath, needs: Mapping[StorePath, set[StorePath]]) -> set[StorePath]:
    return reach([start], lambda path: needs.get(path, ()))
